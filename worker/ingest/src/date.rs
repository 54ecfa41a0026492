//! Dates as people and spreadsheets write them, on the proleptic Gregorian calendar, as microseconds since 1970.
//!
//! `03/04/2026` has two readings; both are offered and the column decides. Times with a zone other than UTC are refused:
//! a table of local times must not be shifted in silence.

/// How an all-numeric date that does not begin with its year is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    DayFirst,
    MonthFirst,
}

pub(crate) const DAY: i64 = 86_400_000_000;

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// Reads a date, with or without a time.
pub(crate) fn parse(text: &str, order: Order) -> Option<i64> {
    let text = text.trim();
    if let Some(day) = iso(text) {
        return Some(i64::from(day) * DAY);
    }
    if !begins_like_a_date(text) {
        return None;
    }
    if text.len() < 6 || text.len() > 40 || !text.is_ascii() || !text.bytes().any(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (date, time) = split_time(text);
    let micros = time.map_or(Some(0), parse_time)?;
    Some(i64::from(parse_day(date, order)?) * DAY + micros)
}

/// `2026-01-31`, which most files use.
fn iso(text: &str) -> Option<i32> {
    let bytes: &[u8; 10] = text.as_bytes().try_into().ok()?;
    if bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let mut parts = [0i64; 3];
    for (part, range) in parts.iter_mut().zip([0..4, 5..7, 8..10]) {
        for byte in &bytes[range] {
            *part = *part * 10 + i64::from(byte.is_ascii_digit().then(|| byte - b'0')?);
        }
    }
    (1800..=2200).contains(&parts[0]).then(|| days(parts[0], parts[1], parts[2])).flatten()
}

/// A digit, or the first letters of a month or a weekday.
fn begins_like_a_date(text: &str) -> bool {
    match text.as_bytes() {
        [first, ..] if first.is_ascii_digit() => true,
        [a, b, c, ..] => {
            let start = [a.to_ascii_lowercase(), b.to_ascii_lowercase(), c.to_ascii_lowercase()];
            let is = |names: &[&str]| names.iter().any(|name| name.as_bytes()[..3] == start);
            is(&MONTHS) || is(&WEEKDAYS)
        }
        _ => false,
    }
}

/// Reads `20260131`. Only a column whose header speaks of dates is read so.
pub(crate) fn parse_compact(text: &str) -> Option<i64> {
    if text.len() != 8 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, month, day) = (text[..4].parse().ok()?, text[4..6].parse().ok()?, text[6..].parse().ok()?);
    (1950..2100).contains(&year).then(|| days(year, month, day)).flatten().map(|day| i64::from(day) * DAY)
}

/// The moment a spreadsheet means by a serial number.
pub(crate) fn from_serial(serial: f64, is_1904: bool) -> Option<i64> {
    // From the first day there is (less is a time without a day) to the last that Excel knows, 9999-12-31.
    let first = if is_1904 { 0.0 } else { 1.0 };
    if !(first..2_958_466.0).contains(&serial) {
        return None;
    }
    let day = serial.floor();
    let epoch = if is_1904 {
        days(1904, 1, 1)?
    } else if day >= 60.0 {
        // Excel counts a 29 February 1900 that never was.
        days(1899, 12, 30)?
    } else {
        days(1899, 12, 31)?
    };
    // Whole seconds: serials carry rounding noise far below.
    let seconds = ((serial - day) * 86_400.0).round() as i64;
    Some((i64::from(epoch) + day as i64) * DAY + seconds * 1_000_000)
}

/// `2026-01-31`, with the time if there is one.
pub(crate) fn show(micros: i64) -> String {
    let day = show_civil(micros.div_euclid(DAY));
    let seconds = micros.rem_euclid(DAY) / 1_000_000;
    if seconds == 0 {
        return day;
    }
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{day} {hour:02}:{minute:02}:{second:02}")
}

/// A day, counted from 1970-01-01, as `2026-01-31`.
pub fn show_day(day: i32) -> String {
    show_civil(i64::from(day))
}

fn show_civil(day: i64) -> String {
    let (year, month, day) = civil(day);
    format!("{year:04}-{month:02}-{day:02}")
}

fn split_time(text: &str) -> (&str, Option<&str>) {
    let Some(colon) = text.find(':') else { return (text, None) };
    match text[..colon].rfind(['T', ' ']) {
        Some(at) => (text[..at].trim_end(), Some(&text[at + 1..])),
        None => (text, None),
    }
}

fn parse_time(text: &str) -> Option<i64> {
    let text = text.trim();
    let text = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00")).unwrap_or(text).trim_end();
    let lower = text.to_ascii_lowercase();
    let (clock, half) = match (lower.strip_suffix("am"), lower.strip_suffix("pm")) {
        (Some(clock), _) => (clock.trim_end(), Some(0)),
        (_, Some(clock)) => (clock.trim_end(), Some(12)),
        _ => (lower.as_str(), None),
    };
    let mut parts = clock.split(':');
    let mut hour = number(parts.next()?, 1..=2)?;
    let minute = number(parts.next()?, 2..=2)?;
    let (second, fraction) = match parts.next() {
        None => (0, 0),
        Some(text) => match text.split_once('.') {
            None => (number(text, 2..=2)?, 0),
            Some((second, fraction)) => {
                let micros = number(fraction, 1..=6)? * 10_i64.pow(6 - u32::try_from(fraction.len()).ok()?);
                (number(second, 2..=2)?, micros)
            }
        },
    };
    if let Some(half) = half {
        if !(1..=12).contains(&hour) {
            return None;
        }
        hour = hour % 12 + half;
    }
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some(((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction)
}

fn parse_day(text: &str, order: Order) -> Option<i32> {
    let mut parts = [""; 4];
    let mut count = 0;
    for part in text.split(['/', '-', '.', ' ', ',']).filter(|part| !part.is_empty()) {
        *parts.get_mut(count)? = part;
        count += 1;
    }
    let parts: [&str; 3] = match count {
        3 => [parts[0], parts[1], parts[2]],
        4 if is_weekday(parts[0]) => [parts[1], parts[2], parts[3]],
        _ => return None,
    };
    if let Some(at) = parts.iter().position(|part| part.bytes().all(|byte| byte.is_ascii_alphabetic())) {
        let month = month(parts[at])?;
        let (day, year_text) = match at {
            0 => (parts[1], parts[2]),
            1 if parts[0].len() == 4 => (parts[2], parts[0]),
            1 => (parts[0], parts[2]),
            _ => return None,
        };
        return days(year(year_text)?, month, number(day, 1..=2)?);
    }
    if parts[0].len() == 4 {
        return days(year(parts[0])?, number(parts[1], 1..=2)?, number(parts[2], 1..=2)?);
    }
    let dotted = text.contains('.');
    if dotted && parts[2].len() == 2 && (parts[0].len() != 2 || parts[1].len() != 2) {
        return None; // 1.2.33 is a version
    }
    let (first, second) = (number(parts[0], 1..=2)?, number(parts[1], 1..=2)?);
    let year = year(parts[2])?;
    // Dots mean the day comes first wherever they are used.
    if dotted || order == Order::DayFirst { days(year, second, first) } else { days(year, first, second) }
}

fn is_weekday(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    lower.len() >= 3 && WEEKDAYS.iter().any(|day| day.starts_with(&lower))
}

fn month(text: &str) -> Option<i64> {
    let lower = text.to_ascii_lowercase();
    if lower == "sept" {
        return Some(9);
    }
    if lower.len() < 3 {
        return None;
    }
    MONTHS.iter().position(|month| month.starts_with(&lower)).and_then(|at| i64::try_from(at + 1).ok())
}

/// Two digits mean 1970 to 2069.
fn year(text: &str) -> Option<i64> {
    match text.len() {
        4 => number(text, 4..=4).filter(|year| (1800..=2200).contains(year)),
        2 => number(text, 2..=2).map(|year| if year < 70 { 2000 + year } else { 1900 + year }),
        _ => None,
    }
}

fn number(text: &str, digits: std::ops::RangeInclusive<usize>) -> Option<i64> {
    if !digits.contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Days since 1970-01-01 of a date that exists (Howard Hinnant's `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> Option<i32> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if !(1..=last).contains(&day) {
        return None;
    }
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let of_era = shifted.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    i32::try_from(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468).ok()
}

/// Year, month, day of a day since 1970-01-01 (`civil_from_days`).
fn civil(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * shifted_month + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day_first(text: &str) -> Option<String> {
        parse(text, Order::DayFirst).map(show)
    }

    #[test]
    fn dates_are_read_in_the_forms_people_use() {
        for (text, want) in [
            ("2026-01-31", "2026-01-31"),
            ("2026/1/5", "2026-01-05"),
            ("09.05.2026", "2026-05-09"),
            ("5/1/2026", "2026-01-05"),
            ("5-Jan-2026", "2026-01-05"),
            ("Jan 5, 2026", "2026-01-05"),
            ("5 September 26", "2026-09-05"),
            ("Mon, 5 Jan 2026", "2026-01-05"),
            ("2026-01-31T10:20:30Z", "2026-01-31 10:20:30"),
            ("1/2/2026 1:05 PM", "2026-02-01 13:05:00"),
            ("2024-02-29", "2024-02-29"),
        ] {
            assert_eq!(day_first(text).as_deref(), Some(want), "{text}");
        }
        assert_eq!(parse("5/1/2026", Order::MonthFirst).map(show).as_deref(), Some("2026-05-01"));
    }

    #[test]
    fn what_is_no_date_stays_text() {
        for text in ["1.2.33", "2025-02-29", "31/31/2026", "555-12-3456", "2026-01", "hello", "2026-01-31T10:00+02:00"]
        {
            assert_eq!(day_first(text), None, "{text}");
        }
    }

    #[test]
    fn spreadsheet_serials_follow_both_epochs() {
        assert_eq!(from_serial(46_053.0, false).map(show).as_deref(), Some("2026-01-31"));
        assert_eq!(from_serial(1.0, false).map(show).as_deref(), Some("1900-01-01"));
        assert_eq!(from_serial(61.0, false).map(show).as_deref(), Some("1900-03-01"));
        assert_eq!(from_serial(44_591.0, true).map(show).as_deref(), Some("2026-01-31"));
        assert_eq!(from_serial(46_053.5, false).map(show).as_deref(), Some("2026-01-31 12:00:00"));
        assert_eq!(from_serial(f64::NAN, false), None);
    }
}
