//! Numbers as people write them: thousands separators, decimal commas, currency signs, percent, parentheses.
//!
//! A text may read as a number under both styles and mean different things (`1,234`); choosing is the column's business.

use std::iter::Peekable;
use std::str::Chars;

/// Which sign separates the fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// `1,234.56`
    Point,
    /// `1.234,56`
    Comma,
}

/// A number read from text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Number<'a> {
    /// Percentages are fractions already.
    pub(crate) value: f64,
    /// Exact, if it is whole and was written without a fraction.
    pub(crate) whole: Option<i64>,
    pub(crate) percent: bool,
    pub(crate) currency: Option<&'a str>,
    /// Bare digits that begin with a superfluous zero, or that no integer holds.
    pub(crate) code: bool,
}

/// Longest first, so that `US$` is not read as `US` and `$`.
const CURRENCIES: [&str; 20] = [
    "US$", "CA$", "C$", "A$", "USD", "EUR", "GBP", "CHF", "CAD", "AUD", "JPY", "SEK", "NOK", "DKK", "PLN", "$", "€",
    "£", "¥", "₹",
];

pub(crate) fn parse(text: &str, style: Style) -> Option<Number<'_>> {
    let body = text.trim();
    if let Some(number) = plain(body, style) {
        return Some(number);
    }
    // Beside digits a number is a sign, a currency, an exponent or a percent sign: a word of many letters is none.
    if body.bytes().filter(u8::is_ascii_alphabetic).count() > 3 {
        return None;
    }
    if body.is_empty() || body.len() > 64 || !body.bytes().any(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let Marks { body, negative, signed, currency, percent } = Marks::strip(body)?;
    let digits = Digits::read(body, style)?;
    let mut value: f64 = digits.text().parse().ok()?;
    if !value.is_finite() {
        return None;
    }
    let bare = !signed && currency.is_none() && !percent && !digits.grouped && !digits.fraction;
    let code = bare && (digits.integer > 18 || (digits.integer > 1 && digits.buffer[0] == b'0'));
    if negative {
        value = -value;
    }
    let whole = if digits.fraction || percent || digits.integer > 18 {
        None
    } else {
        digits.text().parse::<i64>().ok().map(|whole| if negative { -whole } else { whole })
    };
    if percent {
        value /= 100.0;
    }
    Some(Number { value, whole, percent, currency, code })
}

/// What may stand around the digits, and what is left without it.
struct Marks<'a> {
    body: &'a str,
    negative: bool,
    /// A sign was written.
    signed: bool,
    currency: Option<&'static str>,
    percent: bool,
}

impl<'a> Marks<'a> {
    fn strip(body: &'a str) -> Option<Self> {
        let mut marks = Self { body, negative: false, signed: false, currency: None, percent: false };
        if let Some(inner) = body.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
            (marks.body, marks.negative, marks.signed) = (inner.trim(), true, true);
        }
        let digits_only = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b','));
        // A sign may stand before or after the currency, a percent sign or the currency before a trailing minus.
        for _ in 0..2 {
            if digits_only(marks.body) {
                break;
            }
            marks.sign()?;
            if marks.currency.is_none()
                && let Some((sign, rest)) = strip_currency(marks.body)
            {
                (marks.currency, marks.body) = (Some(sign), rest.trim());
            }
            if !marks.percent
                && let Some(rest) = marks.body.strip_suffix('%')
            {
                (marks.percent, marks.body) = (true, rest.trim());
            }
        }
        Some(marks)
    }

    /// Takes a sign off; two of them are none.
    fn sign(&mut self) -> Option<()> {
        const MINUS: [char; 2] = ['-', '\u{2212}'];
        let minus = self.body.strip_prefix(MINUS).or_else(|| self.body.strip_suffix(MINUS));
        if let Some(rest) = minus.or_else(|| self.body.strip_prefix('+')) {
            if self.signed {
                return None;
            }
            (self.body, self.negative, self.signed) = (rest.trim(), self.negative || minus.is_some(), true);
        }
        Some(())
    }
}

/// Most numbers are digits with at most one point, and most cells are seen three times.
fn plain(body: &str, style: Style) -> Option<Number<'_>> {
    let bytes = body.as_bytes();
    if bytes.is_empty() || bytes.len() > 15 {
        return None;
    }
    let (mut whole, mut places, mut point) = (0i64, 0usize, false);
    for byte in bytes {
        match byte {
            b'0'..=b'9' => {
                whole = whole * 10 + i64::from(byte - b'0');
                places += usize::from(point);
            }
            b'.' if style == Style::Point && !point => point = true,
            _ => return None,
        }
    }
    if point && (places == 0 || places + 1 == bytes.len()) {
        return None;
    }
    let number = Number { value: whole as f64, whole: Some(whole), percent: false, currency: None, code: false };
    if point {
        // Both are exact floats below 10^15, so one division rounds once, as parsing does.
        return Some(Number { value: whole as f64 / POWERS[places], whole: None, ..number });
    }
    Some(Number { code: bytes.len() > 1 && bytes[0] == b'0', ..number })
}

const POWERS: [f64; 16] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

fn strip_currency(body: &str) -> Option<(&'static str, &str)> {
    CURRENCIES.iter().find_map(|sign| {
        let rest = body.strip_prefix(sign).or_else(|| body.strip_suffix(sign))?;
        Some((*sign, rest))
    })
}

/// Digits without separators, in the form the standard library parses.
struct Digits {
    buffer: [u8; 64],
    length: usize,
    /// Digits before the fraction.
    integer: usize,
    grouped: bool,
    /// A fraction or an exponent was written.
    fraction: bool,
}

impl Digits {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.buffer[..self.length]).expect("only ASCII was pushed")
    }

    fn push(&mut self, byte: u8) -> Option<()> {
        *self.buffer.get_mut(self.length)? = byte;
        self.length += 1;
        Some(())
    }

    fn read(body: &str, style: Style) -> Option<Self> {
        let (point, group) = match style {
            Style::Point => ('.', ','),
            Style::Comma => (',', '.'),
        };
        let mut digits = Self { buffer: [0; 64], length: 0, integer: 0, grouped: false, fraction: false };
        let mut chars = body.chars().peekable();
        digits.whole(&mut chars, group)?;
        if chars.next_if_eq(&point).is_some() {
            digits.places(&mut chars)?;
        } else if digits.integer == 0 {
            return None;
        }
        if !digits.grouped && chars.next_if(|char| matches!(char, 'e' | 'E')).is_some() {
            digits.exponent(&mut chars)?;
        }
        chars.next().is_none().then_some(digits)
    }

    /// What stands before the fraction: digits, in threes if they are separated.
    fn whole(&mut self, chars: &mut Peekable<Chars<'_>>, group: char) -> Option<()> {
        let mut separator = None;
        let mut since = 0usize;
        while let Some(&char) = chars.peek() {
            if char.is_ascii_digit() {
                self.push(char as u8)?;
                self.integer += 1;
                since += 1;
            } else if char == group || matches!(char, '\'' | '’' | ' ' | '\u{a0}' | '\u{202f}' | '\u{2009}') {
                let first = separator.is_none();
                if separator.is_some_and(|seen| seen != char) || since > 3 || since == 0 || (!first && since != 3) {
                    return None;
                }
                (separator, since, self.grouped) = (Some(char), 0, true);
            } else {
                break;
            }
            chars.next();
        }
        (!self.grouped || (since == 3 && self.buffer[0] != b'0')).then_some(())
    }

    /// What stands after the point; without digits there, there must be some before it.
    fn places(&mut self, chars: &mut Peekable<Chars<'_>>) -> Option<()> {
        self.fraction = true;
        if self.integer == 0 {
            self.push(b'0')?;
        }
        self.push(b'.')?;
        if self.run(chars)? == 0 {
            self.push(b'0')?;
            return (self.integer > 0).then_some(());
        }
        Some(())
    }

    fn exponent(&mut self, chars: &mut Peekable<Chars<'_>>) -> Option<()> {
        self.fraction = true;
        self.push(b'e')?;
        if let Some(sign) = chars.next_if(|char| matches!(char, '+' | '-')) {
            self.push(sign as u8)?;
        }
        (1..=3).contains(&self.run(chars)?).then_some(())
    }

    /// Takes a run of digits; gives how many.
    fn run(&mut self, chars: &mut Peekable<Chars<'_>>) -> Option<usize> {
        let mut count = 0;
        while let Some(char) = chars.next_if(char::is_ascii_digit) {
            self.push(char as u8)?;
            count += 1;
        }
        Some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(text: &str) -> Option<f64> {
        parse(text, Style::Point).map(|number| number.value)
    }

    fn comma(text: &str) -> Option<f64> {
        parse(text, Style::Comma).map(|number| number.value)
    }

    #[test]
    fn people_write_numbers_in_many_ways() {
        for (text, value) in [
            ("12", 12.0),
            ("1,234.56", 1234.56),
            ("(1,234.50)", -1234.5),
            ("-$3.20", -3.2),
            ("$-3.20", -3.2),
            ("€ 5", 5.0),
            ("5 EUR", 5.0),
            ("12.5%", 0.125),
            ("123-", -123.0),
            ("1'234'567", 1_234_567.0),
            ("1 234", 1234.0),
            ("1.2E+05", 120_000.0),
            (".5", 0.5),
            ("−4", -4.0),
        ] {
            assert_eq!(point(text), Some(value), "{text}");
        }
        for (text, value) in [("1.234,56", 1234.56), ("225,78", 225.78), ("1.234", 1234.0), ("99", 99.0)] {
            assert_eq!(comma(text), Some(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_not_bent_into_one() {
        for text in ["", "-", "1,23", "12,34.5", "1.2.3", "A12", "12A", "1e999", "--3", "1e", "NaN", "inf", "%", "1 2"]
        {
            assert_eq!(point(text), None, "{text}");
        }
        assert_eq!(comma("1.5"), None);
    }

    #[test]
    fn the_short_way_reads_as_the_long_way_does() {
        for text in ["0", "7", "0.1", "3.14159", "123456789.12345", "99.99", "1000.001"] {
            assert_eq!(point(text), text.parse().ok(), "{text}");
        }
    }

    #[test]
    fn leading_zeros_and_endless_digits_are_codes() {
        assert!(parse("00123", Style::Point).is_some_and(|number| number.code));
        assert!(parse("12345678901234567890", Style::Point).is_some_and(|number| number.code));
        assert!(parse("0.5", Style::Point).is_some_and(|number| !number.code));
        assert!(parse("0", Style::Point).is_some_and(|number| !number.code));
    }
}
