//! What makes one pack differ from another: names, sizes, headings, seed and the places of the planted problems.
//!
//! An item's index is `brand * ITEMS_PER_BRAND + n`, its code `code_base + 11 * index` with eight digits, so that the
//! text of a planted problem can name the code beside the index it is planted at.

use crate::pack::Planted;

pub(crate) const ITEMS_PER_BRAND: usize = 5;
pub(crate) const WEEKS: usize = 52;

pub(crate) struct Catalogue {
    pub(crate) tenant: &'static str,
    pub(crate) pack: &'static str,
    pub(crate) retailer: &'static str,
    pub(crate) category: &'static str,
    pub(crate) seed: u64,
    pub(crate) code_base: u32,
    /// File names in the order of `pack::pack`.
    pub(crate) names: [&'static str; 12],
    pub(crate) brands: [Brand; 6],
    /// Brands of the market that the retailer does not carry.
    pub(crate) rivals: [&'static str; 2],
    pub(crate) competitors: [&'static str; 3],
    pub(crate) variants: [&'static str; 8],
    /// Variant number modulo three is the segment.
    pub(crate) segments: [&'static str; 3],
    pub(crate) sizes: [u32; 4],
    pub(crate) unit: Unit,
    /// Price of the smallest size of a brand at level 1, in cents.
    pub(crate) base_price: f64,
    /// Weekly units of a brand with pull 1 in an average store.
    pub(crate) base_units: f64,
    /// Factor per calendar month, January first.
    pub(crate) season: [f64; 12],
    pub(crate) stores: [Store; 13],
    /// Headings that differ from the generator's own names.
    pub(crate) headings: &'static [(&'static str, &'static str)],
    pub(crate) plants: Plants,
    pub(crate) planted: &'static [Planted],
}

impl Catalogue {
    /// How this retailer writes a heading.
    pub(crate) fn heading(&self, name: &'static str) -> &'static str {
        self.headings.iter().find(|(own, _)| *own == name).map_or(name, |(_, theirs)| theirs)
    }
}

pub(crate) struct Brand {
    pub(crate) name: &'static str,
    pub(crate) vendor: &'static str,
    /// Velocity, price level and gross margin.
    pub(crate) pull: f64,
    pub(crate) price: f64,
    pub(crate) margin: f64,
    /// Sales this year over last, in the market.
    pub(crate) growth: f64,
    pub(crate) own: bool,
}

impl Brand {
    pub(crate) const fn new(
        name: &'static str,
        vendor: &'static str,
        pull: f64,
        price: f64,
        margin: f64,
        growth: f64,
    ) -> Self {
        Self { name, vendor, pull, price, margin, growth, own: false }
    }
}

/// A unit of size, and the larger one that a careless hand mixes in.
pub(crate) struct Unit {
    pub(crate) name: &'static str,
    pub(crate) large: &'static str,
    pub(crate) per_large: u32,
}

pub(crate) struct Store {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) region: &'static str,
    pub(crate) size: f64,
}

impl Store {
    pub(crate) const fn new(id: &'static str, name: &'static str, region: &'static str, size: f64) -> Self {
        Self { id, name, region, size }
    }
}

/// Where the problems are: item, store and week indexes.
pub(crate) struct Plants {
    pub(crate) cost_above_price: usize,
    /// Items without stock in the last three weeks, in these stores.
    pub(crate) out_of_stock: [usize; 2],
    pub(crate) empty_stores: [usize; 2],
    /// Sells well and is carried in four stores.
    pub(crate) under_ranged: usize,
    /// Hardly sells anywhere.
    pub(crate) tail: usize,
    /// Item and store: ranged, and without a sale for ten weeks.
    pub(crate) void: (usize, usize),
    pub(crate) outlier_price: usize,
    pub(crate) gap_week: usize,
    pub(crate) mixed_unit: usize,
    /// Codes sold that no item master lists.
    pub(crate) orphans: [&'static str; 2],
    /// Cents added to the printed totals: rebates, promotion funding.
    pub(crate) rebate_total_off: i64,
    pub(crate) funding_total_off: i64,
    /// Added to the market's totals row.
    pub(crate) market_total_off: i64,
    /// Added to the cached result of the scorecard's chargebacks formula.
    pub(crate) chargebacks_off: i64,
}
