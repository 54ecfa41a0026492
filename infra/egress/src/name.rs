//! A host's name as DNS writes it: lower case, no trailing dot, ASCII.
//!
//! Owns the one spelling that policy, target and server name are compared in. Refuses addresses in every spelling that
//! some resolver would take for one, and anything beyond ASCII: an internationalised name is listed as punycode.

use std::fmt;

/// A name of at most 253 letters, digits, hyphens, underscores and dots. Never an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

/// Why a text is no host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum NameFault {
    /// Nothing, or nothing but a dot.
    #[error("the name is empty")]
    Empty,
    /// DNS ends at 253 characters.
    #[error("the name is longer than 253 characters")]
    TooLong,
    /// A letter outside ASCII.
    #[error("the name is not ASCII; write an internationalised name as punycode (xn--…)")]
    NotAscii,
    /// An address instead of a name: dotted, decimal, octal, hexadecimal, IPv6.
    #[error("an address instead of a name")]
    Address,
    /// A character that no host name has.
    #[error("the name holds a character other than letters, digits, hyphens, underscores and dots")]
    Character,
    /// A part between dots that is empty, longer than 63, or begins or ends with a hyphen.
    #[error("a part between dots is empty, longer than 63 characters, or begins or ends with a hyphen")]
    Label,
}

impl HostName {
    /// Reads a name; upper case and one trailing dot are spelling, not difference.
    pub fn parse(text: &str) -> Result<Self, NameFault> {
        if !text.is_ascii() {
            return Err(NameFault::NotAscii);
        }
        if text.contains([':', '[', ']']) {
            return Err(NameFault::Address);
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name.is_empty() {
            return Err(NameFault::Empty);
        }
        if name.len() > 253 {
            return Err(NameFault::TooLong);
        }
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return Err(NameFault::Character);
        }
        let whole = |label: &str| (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-');
        if !name.split('.').all(whole) {
            return Err(NameFault::Label);
        }
        if name.rsplit('.').next().is_some_and(is_number) {
            return Err(NameFault::Address);
        }
        Ok(Self(name))
    }

    /// The name, lower case and without a trailing dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a host that ends in this label is an IPv4 address to some reader: the rule of the URL standard
/// (url.spec.whatwg.org, "ends in a number"), which covers `2130706433`, `0177.0.0.1`, `0x7f000001` and `127.1`.
fn is_number(label: &str) -> bool {
    let hexadecimal = label.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hexadecimal || label.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_is_no_name_in_any_spelling() {
        for text in [
            "169.254.169.254",
            "169.254.169.254.",
            "2852039166",
            "0xa9fea9fe",
            "0XA9FEA9FE",
            "0251.0376.0251.0376",
            "0xa9.0xfe.0xa9.0xfe",
            "127.1",
            "0",
            "0x",
            "[::1]",
            "::1",
            "[::ffff:169.254.169.254]",
            "::ffff:a9fe:a9fe",
            "fd00:ec2::254",
            "[fe80::1%25eth0]",
            "metadata.1",
        ] {
            assert_eq!(HostName::parse(text), Err(NameFault::Address), "{text}");
        }
    }

    #[test]
    fn a_name_that_dns_would_not_take_is_refused_by_what_is_wrong() {
        let long = format!("{}.example.org", "a".repeat(64));
        let longer = vec!["a".repeat(60); 5].join(".");
        for (text, fault) in [
            ("", NameFault::Empty),
            (".", NameFault::Empty),
            ("a..b", NameFault::Label),
            ("example.org..", NameFault::Label),
            ("-a.example.org", NameFault::Label),
            (long.as_str(), NameFault::Label),
            (longer.as_str(), NameFault::TooLong),
            ("bücher.example.org", NameFault::NotAscii),
            ("１２７.example.org", NameFault::NotAscii),
            ("a b.org", NameFault::Character),
            ("user@example.org", NameFault::Character),
            ("example.org/", NameFault::Character),
            ("example%2eorg", NameFault::Character),
            ("example.org\0", NameFault::Character),
            ("example.org\r\nX: y", NameFault::Address),
        ] {
            assert_eq!(HostName::parse(text), Err(fault), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn case_and_a_trailing_dot_are_spelling(name in "[a-z]([a-z0-9]{0,10}[a-z])?(\\.[a-z]([a-z0-9-]{0,10}[a-z])?){0,3}") {
            let plain = HostName::parse(&name).expect("a name");
            prop_assert_eq!(&HostName::parse(&name.to_uppercase()).expect("a name"), &plain);
            prop_assert_eq!(&HostName::parse(&format!("{name}.")).expect("a name"), &plain);
            prop_assert_eq!(plain.as_str(), name);
        }

        #[test]
        fn whatever_parses_is_no_address_and_parses_to_itself(text in "\\PC{0,40}|[0-9a-fx.:]{0,20}") {
            if let Ok(name) = HostName::parse(&text) {
                prop_assert!(name.as_str().parse::<std::net::IpAddr>().is_err());
                prop_assert_eq!(HostName::parse(name.as_str()), Ok(name));
            }
        }
    }
}
