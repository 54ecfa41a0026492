//! A length of time as people write it: `90m`, `12h`, `400d`.

use std::str::FromStr;
use std::time::Duration;

/// A length of time, to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Age(pub Duration);

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no age, as 90m, 12h or 3d are");
        let unit = text.chars().next_back().ok_or_else(wrong)?;
        let number = &text[..text.len() - unit.len_utf8()];
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 60 * 60,
            'd' => 24 * 60 * 60,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(seconds).map(Duration::from_secs).map(Self).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_a_whole_number_and_a_unit() {
        assert_eq!("400d".parse(), Ok(Age(Duration::from_secs(400 * 86_400))));
        for wrong in ["", "d", "4", "-1h", "1.5h", "99999999999999999d", "1ä"] {
            assert!(wrong.parse::<Age>().is_err(), "{wrong}");
        }
    }
}
