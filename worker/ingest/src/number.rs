//! Numbers as people write them: thousands separators, decimal commas, currency signs, percent, parentheses.
//!
//! A text may read as a number under both styles and mean different things (`1,234`); choosing is the column's business.

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
    let mut body = text.trim();
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
    let mut negative = false;
    let mut signed = false;
    if let Some(inner) = body.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        (body, negative, signed) = (inner.trim(), true, true);
    }
    let mut currency = None;
    let mut percent = false;
    let digits_only = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b','));
    // A sign may stand before or after the currency, a percent sign or the currency before a trailing minus.
    for _ in 0..2 {
        if digits_only(body) {
            break;
        }
        if let Some(rest) = body.strip_prefix(['-', '\u{2212}']).or_else(|| body.strip_suffix(['-', '\u{2212}'])) {
            if signed {
                return None;
            }
            (body, negative, signed) = (rest.trim(), true, true);
        } else if let Some(rest) = body.strip_prefix('+') {
            if signed {
                return None;
            }
            (body, signed) = (rest.trim(), true);
        }
        if currency.is_none()
            && let Some((sign, rest)) = strip_currency(body)
        {
            (currency, body) = (Some(sign), rest.trim());
        }
        if !percent && let Some(rest) = body.strip_suffix('%') {
            (percent, body) = (true, rest.trim());
        }
    }
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
        let mut separator = None;
        let mut since = 0usize;
        let mut chars = body.chars().peekable();
        while let Some(&char) = chars.peek() {
            if char.is_ascii_digit() {
                digits.push(char as u8)?;
                digits.integer += 1;
                since += 1;
            } else if char == group || matches!(char, '\'' | '’' | ' ' | '\u{a0}' | '\u{202f}' | '\u{2009}') {
                let first = separator.is_none();
                if separator.is_some_and(|seen| seen != char) || since > 3 || since == 0 || (!first && since != 3) {
                    return None;
                }
                (separator, since, digits.grouped) = (Some(char), 0, true);
            } else {
                break;
            }
            chars.next();
        }
        if digits.grouped && (since != 3 || digits.buffer[0] == b'0') {
            return None;
        }
        if chars.peek() == Some(&point) {
            chars.next();
            digits.fraction = true;
            if digits.integer == 0 {
                digits.push(b'0')?;
            }
            digits.push(b'.')?;
            let mut places = 0;
            while let Some(char) = chars.next_if(char::is_ascii_digit) {
                digits.push(char as u8)?;
                places += 1;
            }
            if places == 0 {
                digits.push(b'0')?;
                if digits.integer == 0 {
                    return None;
                }
            }
        } else if digits.integer == 0 {
            return None;
        }
        if !digits.grouped && chars.next_if(|char| matches!(char, 'e' | 'E')).is_some() {
            digits.fraction = true;
            digits.push(b'e')?;
            if let Some(sign) = chars.next_if(|char| matches!(char, '+' | '-')) {
                digits.push(sign as u8)?;
            }
            let mut places = 0;
            while let Some(char) = chars.next_if(char::is_ascii_digit) {
                digits.push(char as u8)?;
                places += 1;
            }
            if places == 0 || places > 3 {
                return None;
            }
        }
        chars.next().is_none().then_some(digits)
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
