//! What a column is, decided over all of its cells: counts first, one verdict at the end.
//!
//! A kind is given where at least 95 % of the cells are of it; the others are reported cell by cell. Where a wrong guess
//! would falsify values (two readings of a date, two currencies, percentages beside plain numbers, ids with letters) the
//! column stays text: text loses nothing.

use crate::date::{self, DAY, Order};
use crate::document::{Kind, NoteCode, Unit};
use crate::number::{self, Style};
use crate::row::Cell;

/// Counts over the cells of one column.
#[derive(Debug, Clone, Default)]
pub(crate) struct Profile {
    filled: u64,
    null_words: u64,
    errors: u64,
    numbers: u64,
    fractions: u64,
    bools: u64,
    times: u64,
    clock: u64,
    point: Reading,
    comma: Reading,
    /// Both styles read it, and differently.
    styles_differ: u64,
    day_first: u64,
    month_first: u64,
    /// Both orders read it, and differently.
    orders_differ: u64,
    compact: u64,
    codes: u64,
    /// Letters and digits in one word, or a letter or three: an id, not a number that went wrong.
    ids: u64,
    currencies: Vec<String>,
    with_currency: u64,
    percent: u64,
}

/// Counts under one style of numbers.
#[derive(Debug, Clone, Default)]
struct Reading {
    read: u64,
    only: u64,
    fractions: u64,
}

/// How a column's cells become values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) kind: Kind,
    pub(crate) style: Style,
    pub(crate) order: Order,
    pub(crate) compact: bool,
    pub(crate) unit: Option<Unit>,
    pub(crate) note: Option<(NoteCode, &'static str)>,
}

/// Words that mean "no value" in a column of numbers, dates or answers.
pub(crate) fn is_null_word(text: &str) -> bool {
    const WORDS: [&str; 12] = ["-", "--", "—", "–", "na", "n/a", "#n/a", "null", "none", "nan", "nil", "."];
    text.len() <= 4 && WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// `A` beside `1` to `9` is one more location, not a missing number.
fn is_letter_code(text: &str) -> bool {
    text.len() <= 3
        && text.bytes().all(|byte| byte.is_ascii_alphabetic())
        && !["tbd", "tba", "tbc"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

pub(crate) fn answer(text: &str) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if text.len() > 5 {
        None
    } else if is(&["true", "yes", "y"]) {
        Some(true)
    } else {
        is(&["false", "no", "n"]).then_some(false)
    }
}

impl Profile {
    pub(crate) fn add(&mut self, cell: Cell<'_>) {
        match cell {
            Cell::Empty => return,
            Cell::Number(value) => {
                self.numbers += 1;
                self.fractions += u64::from(value.fract() != 0.0 || value.abs() >= 9e15);
            }
            Cell::Bool(_) => self.bools += 1,
            Cell::Time(micros) => {
                self.times += 1;
                self.clock += u64::from(micros.rem_euclid(DAY) != 0);
            }
            Cell::Error(_) => self.errors += 1,
            Cell::Text(text) => self.add_text(text),
        }
        self.filled += 1;
    }

    fn add_text(&mut self, text: &str) {
        if self.is_prose() {
            return;
        }
        if !text.starts_with(|first: char| first.is_ascii_digit()) {
            if is_null_word(text) {
                self.null_words += 1;
                return;
            }
            if answer(text).is_some() {
                self.bools += 1;
                return;
            }
        }
        if !text.bytes().any(|byte| byte.is_ascii_digit()) {
            self.ids += u64::from(is_letter_code(text));
            return;
        }
        let point = number::parse(text, Style::Point);
        let comma = if text.contains([',', '.']) { number::parse(text, Style::Comma) } else { point };
        if let Some(found) = point.or(comma) {
            self.point.count(point.as_ref(), comma.is_none());
            self.comma.count(comma.as_ref(), point.is_none());
            self.styles_differ += u64::from(point.zip(comma).is_some_and(|(a, b)| a.value != b.value));
            self.codes += u64::from(found.code);
            self.percent += u64::from(found.percent);
            if let Some(sign) = found.currency {
                self.with_currency += 1;
                if self.currencies.len() < 2 && !self.currencies.iter().any(|known| known == sign) {
                    self.currencies.push(sign.to_owned());
                }
            }
            if text.len() == 8 {
                self.compact += u64::from(date::parse_compact(text).is_some());
            }
            return;
        }
        let (day, month) = (date::parse(text, Order::DayFirst), date::parse(text, Order::MonthFirst));
        self.day_first += u64::from(day.is_some());
        self.month_first += u64::from(month.is_some());
        self.orders_differ += u64::from(day.zip(month).is_some_and(|(a, b)| a != b));
        if let Some(micros) = day.or(month) {
            self.clock += u64::from(micros.rem_euclid(DAY) != 0);
        } else if text.bytes().any(|byte| byte.is_ascii_alphabetic()) && !text.contains(' ') {
            self.ids += 1;
        }
    }

    /// Thousands of cells and most are words: no later cell makes it a column of numbers.
    fn is_prose(&self) -> bool {
        self.filled > 4096 && {
            let dates = self.day_first.max(self.month_first) + self.times;
            let numbers = self.point.read.max(self.comma.read) + self.numbers;
            (dates.max(numbers).max(self.bools) + self.null_words) * 2 < self.filled
        }
    }

    /// Cells that only a decimal point, or only a decimal comma, explains.
    pub(crate) fn style_votes(&self) -> (u64, u64) {
        (self.point.only, self.comma.only)
    }

    /// Decides. `file_style` is what the file's other columns prove, if they do; `guess` is taken if nothing does.
    pub(crate) fn decide(&self, header: &str, file_style: Option<Style>, guess: Style) -> Verdict {
        let style = match self.point.only.cmp(&self.comma.only) {
            std::cmp::Ordering::Greater => Style::Point,
            std::cmp::Ordering::Less => Style::Comma,
            std::cmp::Ordering::Equal => file_style.unwrap_or(guess),
        };
        let order = if self.month_first > self.day_first { Order::MonthFirst } else { Order::DayFirst };
        let mut verdict = Verdict { kind: Kind::Text, style, order, compact: false, unit: None, note: None };
        if self.filled == 0 {
            verdict.kind = Kind::Empty;
            return verdict;
        }
        let values = self.filled - self.null_words - self.errors;
        let enough = |count: u64| count > 0 && count * 100 >= values * 95;
        let reading = if style == Style::Point { &self.point } else { &self.comma };
        let numbers = reading.read + self.numbers;
        let dates = self.day_first.max(self.month_first) + self.times;
        if values == 0 {
            // Only errors and words for "no value": nothing tells what it would hold.
        } else if enough(dates) {
            if self.orders_differ > 0 && self.day_first == self.month_first {
                let message = "its dates read as day/month and as month/day alike; kept as text";
                verdict.note = Some((NoteCode::AmbiguousDates, message));
            } else {
                verdict.kind = if self.clock > 0 { Kind::Timestamp } else { Kind::Date };
            }
        } else if enough(self.bools) {
            verdict.kind = Kind::Boolean;
        } else if enough(numbers) {
            self.decide_number(&mut verdict, header, values, numbers, file_style.is_some());
        }
        verdict
    }

    fn decide_number(&self, verdict: &mut Verdict, header: &str, values: u64, numbers: u64, file_proves: bool) {
        let reading = if verdict.style == Style::Point { &self.point } else { &self.comma };
        let fractions = reading.fractions + self.fractions;
        if self.ids > 0 || (numbers < values && names_a_key(header)) {
            return;
        }
        if self.codes > 0 && fractions == 0 {
            if numbers == values {
                verdict.kind = Kind::Code;
            }
            return;
        }
        if self.compact == numbers && numbers == values && names_a_date(header) {
            (verdict.kind, verdict.compact) = (Kind::Date, true);
            return;
        }
        if self.percent > 0 && self.percent < numbers {
            verdict.note = Some((NoteCode::MixedPercent, "it mixes percentages and plain numbers; kept as text"));
            return;
        }
        if self.currencies.len() > 1 {
            verdict.note = Some((NoteCode::MixedCurrencies, "it mixes currencies; kept as text"));
            return;
        }
        if self.percent > 0 {
            verdict.unit = Some(Unit::Percent);
        } else if self.with_currency > 0 {
            verdict.unit = self.currencies.first().cloned().map(Unit::Currency);
        }
        let proven = file_proves || reading.only > 0;
        if self.styles_differ > 0 && !proven {
            let message = match verdict.style {
                Style::Point => "its numbers are read with thousands commas and decimal points; no cell proves it",
                Style::Comma => "its numbers are read with thousands points and decimal commas; no cell proves it",
            };
            verdict.note = Some((NoteCode::AmbiguousNumbers, message));
        }
        verdict.kind = if fractions == 0 { Kind::Integer } else { Kind::Decimal };
    }
}

impl Reading {
    fn count(&mut self, number: Option<&number::Number<'_>>, only: bool) {
        if let Some(number) = number {
            self.read += 1;
            self.only += u64::from(only);
            self.fractions += u64::from(number.whole.is_none() && !number.code);
        }
    }
}

fn names_a_key(header: &str) -> bool {
    const WORDS: [&str; 14] =
        ["id", "code", "sku", "no", "nr", "number", "upc", "ean", "gtin", "item", "store", "product", "article", "plu"];
    words(header).any(|word| WORDS.contains(&word.as_str()))
}

fn names_a_date(header: &str) -> bool {
    const WORDS: [&str; 9] = ["date", "day", "week", "ending", "datum", "dt", "period", "start", "end"];
    words(header).any(|word| WORDS.contains(&word.as_str()))
}

fn words(header: &str) -> impl Iterator<Item = String> {
    header.split(|char: char| !char.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}
