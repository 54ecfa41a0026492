//! Numbers in running text with the words before them, so that a total in a PDF can be held against a table.
//!
//! Codes with leading zeros and dates are words here. The page as a whole decides between `1,234.56` and `1.234,56`.

use crate::date::{self, Order};
use crate::document::PageText;
use crate::number::{self, Number, Style};

/// A number on a page.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledNumber {
    /// The words since the number before it in its line; if there are none, those before that number.
    pub label: String,
    /// Its value; percentages are fractions, as in tables.
    pub value: f64,
    /// The currency sign, or `%`.
    pub unit: Option<String>,
    /// From 1.
    pub page: u32,
    /// The whole line.
    pub text: String,
}

/// The numbers of a page, line by line and from left to right.
pub fn labelled_numbers(page: &PageText) -> Vec<LabelledNumber> {
    let style = page_style(page);
    page.lines.iter().flat_map(|line| line_numbers(line, style, page.page)).collect()
}

fn page_style(page: &PageText) -> Style {
    let (mut point, mut comma) = (0u32, 0u32);
    for word in page.lines.iter().flat_map(|line| line.split_whitespace()) {
        match (read(word, Style::Point), read(word, Style::Comma)) {
            (Some(_), None) => point += 1,
            (None, Some(_)) => comma += 1,
            _ => {}
        }
    }
    if comma > point { Style::Comma } else { Style::Point }
}

fn line_numbers(line: &str, style: Style, page: u32) -> Vec<LabelledNumber> {
    let mut found: Vec<LabelledNumber> = Vec::new();
    let mut words: Vec<&str> = Vec::new();
    let mut label = String::new();
    let mut pieces = line.split_whitespace().peekable();
    while let Some(word) = pieces.next() {
        let Some(number) = read(word, style) else {
            words.push(word);
            continue;
        };
        let mut unit = number.currency.map(str::to_owned).or_else(|| number.percent.then(|| "%".to_owned()));
        let mut value = number.value;
        // `USD 5`, `5 EUR` and `5 %` are written apart.
        if unit.is_none() && words.last().is_some_and(|word| is_currency(word)) {
            unit = words.pop().map(str::to_owned);
        }
        if unit.is_none()
            && let Some(next) = pieces.next_if(|next| *next == "%" || is_currency(next))
        {
            if next == "%" {
                value /= 100.0;
            }
            unit = Some(next.to_owned());
        }
        let since = words.join(" ");
        let since = since.trim_end_matches(['.', ':', '…', ' ', '=', '|', '_', '-']).trim_start_matches(['|', ' ']);
        if !since.is_empty() {
            label = since.to_owned();
        }
        words.clear();
        found.push(LabelledNumber { label: label.clone(), value, unit, page, text: line.trim().to_owned() });
    }
    found
}

fn read(word: &str, style: Style) -> Option<Number<'_>> {
    let word = word.trim_end_matches([',', ';', ':', '.']);
    if date::parse(word, Order::DayFirst).or_else(|| date::parse(word, Order::MonthFirst)).is_some() {
        return None;
    }
    number::parse(word, style).filter(|number| !number.code)
}

fn is_currency(word: &str) -> bool {
    matches!(word, "$" | "€" | "£" | "¥" | "US$" | "USD" | "EUR" | "GBP" | "CHF" | "CAD" | "AUD" | "JPY")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(line: &str) -> Vec<(String, f64, Option<String>)> {
        let page = PageText { page: 1, lines: vec![line.to_owned()] };
        labelled_numbers(&page).into_iter().map(|found| (found.label, found.value, found.unit)).collect()
    }

    #[test]
    fn a_number_carries_the_words_before_it() {
        assert_eq!(
            numbers("Total net sales: $1,234.50"),
            [("Total net sales".to_owned(), 1234.5, Some("$".to_owned()))]
        );
        assert_eq!(numbers("Rebate ..... 5 %"), [("Rebate".to_owned(), 0.05, Some("%".to_owned()))]);
        assert_eq!(numbers("Total 12 34"), [("Total".to_owned(), 12.0, None), ("Total".to_owned(), 34.0, None)]);
    }

    #[test]
    fn codes_and_dates_are_words() {
        assert_eq!(
            numbers("04410013 until 2026-06-27 costs EUR 3"),
            [("04410013 until 2026-06-27 costs".to_owned(), 3.0, Some("EUR".to_owned()))]
        );
    }
}
