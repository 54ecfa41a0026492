//! What a column means: by the synonyms of its name and by its type, with the reason kept for the methods section.

use crate::frame::{Frame, Values};

/// What a column means to a line review.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// An item's code.
    Item,
    /// A store's code.
    Store,
    /// A week or a date.
    Period,
    /// Units sold.
    Units,
    /// Sales in money.
    Sales,
    /// A price.
    Price,
    /// A cost.
    Cost,
    /// Stock.
    OnHand,
    /// A unit of measure.
    Measure,
}

impl Role {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Item => "item key",
            Self::Store => "store key",
            Self::Period => "week or date",
            Self::Units => "units sold",
            Self::Sales => "sales",
            Self::Price => "price",
            Self::Cost => "cost",
            Self::OnHand => "on hand",
            Self::Measure => "unit of measure",
        }
    }

    /// Whole normalised names, the surest first.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Item => &[
                "item_code",
                "sku",
                "item_id",
                "item_no",
                "item_number",
                "product_id",
                "product_code",
                "sku_id",
                "upc",
                "gtin",
                "ean",
                "article",
                "item",
            ],
            Self::Store => &["store_id", "store_no", "store_number", "store_code", "store_nbr", "location_id", "store"],
            Self::Period => &["week_ending", "week", "week_end", "week_no", "week_number", "wk", "date", "observed_on"],
            Self::Units => &["units", "units_sold", "unit_sales", "qty", "quantity", "quantity_sold"],
            Self::Sales => &["net_sales", "sales", "sales_value", "sales_amount", "revenue", "gross_sales"],
            Self::Price => &["list_price", "retail_price", "shelf_price", "price", "unit_price", "regular_price"],
            Self::Cost => &["unit_cost", "cost", "landed_cost", "cost_price", "list_cost", "case_cost"],
            Self::OnHand => &["on_hand", "onhand", "stock_on_hand", "on_hand_units", "inventory_units"],
            Self::Measure => &["uom", "unit_of_measure", "size_unit", "pack_unit", "measure", "size_uom"],
        }
    }

    fn fits(self, values: &Values) -> bool {
        match self {
            Self::Item | Self::Store => {
                matches!(values, Values::Text { .. } | Values::Number { whole: true, .. })
            }
            Self::Period => matches!(values, Values::Day(_) | Values::Number { whole: true, .. }),
            Self::Measure => matches!(values, Values::Text { .. }),
            _ => matches!(values, Values::Number { .. }),
        }
    }
}

const ROLES: [Role; 9] = [
    Role::Item,
    Role::Store,
    Role::Period,
    Role::Units,
    Role::Sales,
    Role::Price,
    Role::Cost,
    Role::OnHand,
    Role::Measure,
];

/// Lower case, runs of anything but letters and digits as one `_`.
pub(crate) fn normalise(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_alphanumeric() {
            text.extend(c.to_lowercase());
        } else if !text.ends_with('_') && !text.is_empty() {
            text.push('_');
        }
    }
    text.trim_end_matches('_').to_owned()
}

/// Gives each role to at most one column.
pub(crate) fn detect(frame: &mut Frame) {
    for role in ROLES {
        let found = role.names().iter().find_map(|name| {
            frame.columns.iter().position(|column| {
                column.role.is_none() && normalise(&column.name) == *name && role.fits(&column.values)
            })
        });
        if let Some(at) = found {
            let kind = match &frame.columns[at].values {
                Values::Text { .. } => "text",
                Values::Number { whole: true, .. } => "whole numbers",
                Values::Number { .. } => "numbers",
                Values::Day(_) => "dates",
            };
            let why = format!("its name is a synonym of {} and it holds {kind}", role.words());
            frame.columns[at].role = Some((role, why));
        }
    }
}
