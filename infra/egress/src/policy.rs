//! Which names a room may reach: the tenant's list, read once and never changed while the room runs.
//!
//! An entry is a host (`api.example.com`) or everything below a domain (`*.example.org`, which is not `example.org`
//! itself). The port is always 443. Refuses addresses, ports, schemes, single labels and `*.` before a single label;
//! cannot know that `*.co.uk` is half a country. An empty list denies everything.

use std::collections::BTreeSet;
use std::fmt;

use crate::name::{HostName, NameFault};

/// An allow-list. The default denies everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    hosts: BTreeSet<HostName>,
    /// The domains of `*.` entries.
    domains: BTreeSet<HostName>,
}

/// What is wrong with one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryFault {
    /// The name itself.
    #[error(transparent)]
    Name(#[from] NameFault),
    /// `https://…` or a path.
    #[error("an address of a page; write the host's name alone")]
    Url,
    /// `name:8443`.
    #[error("names a port; 443 is the only one, write the name alone")]
    Port,
    /// `localhost`.
    #[error("a name without a dot; write the host's full name")]
    Single,
    /// `*.org`.
    #[error("everything below a top-level domain; write at least two labels after `*.`")]
    Wide,
    /// A star anywhere but in a leading `*.`.
    #[error("a star stands only in a leading `*.`")]
    Star,
}

/// One entry that cannot stand, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The entry, escaped and cut.
    pub entry: String,
    /// What is wrong with it.
    pub fault: EntryFault,
}

/// Every mistake of a list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct PolicyRefused {
    /// In the order of the list; at least one.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for PolicyRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("egress allow-list")?;
        for (at, Mistake { entry, fault }) in self.mistakes.iter().enumerate() {
            let before = if at == 0 { ": " } else { "; " };
            write!(f, "{before}`{entry}`: {fault}")?;
        }
        Ok(())
    }
}

enum Entry {
    Host(HostName),
    Below(HostName),
}

impl Policy {
    /// Reads a tenant's list, or says everything that is wrong with it.
    pub fn parse<Text: AsRef<str>>(list: impl IntoIterator<Item = Text>) -> Result<Self, PolicyRefused> {
        let (mut policy, mut mistakes) = (Self::default(), Vec::new());
        for text in list {
            let text = text.as_ref();
            match entry(text) {
                Ok(Entry::Host(name)) => drop(policy.hosts.insert(name)),
                Ok(Entry::Below(domain)) => drop(policy.domains.insert(domain)),
                Err(fault) => mistakes.push(Mistake { entry: shown(text), fault }),
            }
        }
        if mistakes.is_empty() { Ok(policy) } else { Err(PolicyRefused { mistakes }) }
    }

    /// Whether it allows nothing at all.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.domains.is_empty()
    }

    /// Whether the list names this host.
    pub fn allows(&self, host: &HostName) -> bool {
        let below = |domain: &HostName| {
            let rest = host.as_str().strip_suffix(domain.as_str());
            rest.is_some_and(|rest| rest.ends_with('.'))
        };
        self.hosts.contains(host) || self.domains.iter().any(below)
    }
}

fn entry(text: &str) -> Result<Entry, EntryFault> {
    if text.contains('/') {
        return Err(EntryFault::Url);
    }
    let (below, name) = match text.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, text),
    };
    if name.contains('*') {
        return Err(EntryFault::Star);
    }
    if let Some((_, port)) = name.split_once(':')
        && !name.starts_with('[')
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Err(EntryFault::Port);
    }
    let name = HostName::parse(name)?;
    match (below, name.as_str().contains('.')) {
        (false, true) => Ok(Entry::Host(name)),
        (true, true) => Ok(Entry::Below(name)),
        (false, false) => Err(EntryFault::Single),
        (true, false) => Err(EntryFault::Wide),
    }
}

/// A stranger's text made fit for a log line: escaped, and cut at the length of the longest name.
pub(crate) fn shown(text: &str) -> String {
    let mut line: String = text.chars().flat_map(char::escape_default).take(254).collect();
    if line.len() > 253 {
        line.truncate(253);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(name: &str) -> HostName {
        HostName::parse(name).expect("a name")
    }

    #[test]
    fn an_empty_list_denies_everything() {
        let policy = Policy::parse::<&str>([]).expect("a list");
        assert_eq!(policy, Policy::default());
        assert!(!policy.allows(&host("example.org")));
    }

    #[test]
    fn a_host_is_itself_and_a_star_is_what_lies_below() {
        let policy = Policy::parse(["API.example.com.", "*.Example.org"]).expect("a list");
        for (name, allowed) in [
            ("api.example.com", true),
            ("API.EXAMPLE.COM.", true),
            ("a.example.org", true),
            ("a.b.example.org", true),
            ("example.org", false),
            ("example.com", false),
            ("x.api.example.com", false),
            ("evilexample.org", false),
            ("evil-example.org", false),
            ("a.example.org.evil.com", false),
            ("api.example.com.evil.com", false),
        ] {
            assert_eq!(policy.allows(&host(name)), allowed, "{name}");
        }
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let list = [
            "fine.example.com",
            "",
            "https://example.com",
            "example.com:8443",
            "localhost",
            "*.org",
            "*",
            "api.*.com",
            "10.0.0.1",
            "[::1]",
            "::ffff:10.0.0.1",
            "bücher.de",
            "a b",
        ];
        let refused = Policy::parse(list).expect_err("twelve mistakes");
        let faults: Vec<EntryFault> = refused.mistakes.iter().map(|mistake| mistake.fault).collect();
        assert_eq!(
            faults,
            [
                EntryFault::Name(NameFault::Empty),
                EntryFault::Url,
                EntryFault::Port,
                EntryFault::Single,
                EntryFault::Wide,
                EntryFault::Star,
                EntryFault::Star,
                EntryFault::Name(NameFault::Address),
                EntryFault::Name(NameFault::Address),
                EntryFault::Name(NameFault::Address),
                EntryFault::Name(NameFault::NotAscii),
                EntryFault::Name(NameFault::Character),
            ]
        );
        let refused = Policy::parse(["localhost", "*.org"]).expect_err("two mistakes");
        assert_eq!(
            refused.to_string(),
            "egress allow-list: `localhost`: a name without a dot; write the host's full name; \
             `*.org`: everything below a top-level domain; write at least two labels after `*.`"
        );
    }

    #[test]
    fn a_strangers_text_takes_one_short_line() {
        assert_eq!(shown("a\r\nb\u{202e}\x1b[2J"), "a\\r\\nb\\u{202e}\\u{1b}[2J");
        assert_eq!(shown(&"é".repeat(300)).chars().count(), 254);
    }

    /// What the two kinds of entry mean, said once more and slowly.
    fn model(list: &[String], host: &str) -> bool {
        let parts: Vec<&str> = host.split('.').collect();
        list.iter().any(|entry| match entry.strip_prefix("*.") {
            None => entry == host,
            Some(domain) => (1..parts.len()).any(|from| parts[from..].join(".") == domain),
        })
    }

    proptest! {
        #[test]
        fn a_list_allows_what_its_model_allows(
            list in prop::collection::vec("(\\*\\.)?([ab]\\.){1,2}[ab]", 0..4),
            asked in "([ab]{1,2}\\.){1,3}[ab]",
        ) {
            let policy = Policy::parse(&list).expect("a list");
            prop_assert_eq!(policy.allows(&host(&asked)), model(&list, &asked));
        }

        #[test]
        fn any_text_is_an_entry_or_a_mistake_that_fits_a_line(text in "\\PC{0,300}|.{0,20}") {
            match Policy::parse([&text]) {
                Ok(policy) => prop_assert_ne!(policy, Policy::default()),
                Err(refused) => {
                    prop_assert_eq!(refused.mistakes.len(), 1);
                    let line = refused.to_string();
                    prop_assert!(!line.contains(char::is_control), "{}", line);
                }
            }
        }
    }
}
