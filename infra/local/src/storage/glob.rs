//! The patterns of `matchGlob`, as Cloud Storage documents them.
//!
//! `*` stands for any characters but `/`, `**` for any at all, `?` for one but `/`, `[…]` for one of a set or of ranges
//! (`[!…]` for none of them), `{a,b}` for one of several patterns, and `\` takes the next character as it is.

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    One(char),
    Any,
    Star,
    StarStar,
    Set { ranges: Vec<(char, char)>, negated: bool },
    Either(Vec<Vec<Part>>),
}

/// Steps that one name may cost: a pattern of many stars takes exponential time otherwise.
const MAX_STEPS: u32 = 100_000;

impl Glob {
    /// Reads a pattern; the error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        // Patterns nest as deep as they are long, and each level takes its part of the stack.
        if text.len() > 256 {
            return Err("a pattern has at most 256 bytes".to_owned());
        }
        let chars: Vec<char> = text.chars().collect();
        let (parts, end) = parse(&chars, 0, false)?;
        debug_assert_eq!(end, chars.len());
        Ok(Self(parts))
    }

    /// Whether the whole name is as the pattern says.
    pub(super) fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let mut steps = MAX_STEPS;
        let pattern: Vec<&Part> = self.0.iter().collect();
        matches(&pattern, &name, &mut steps)
    }
}

/// The parts from `at` on, and where they end: at the end of the text or, within braces, at `,` or `}`.
fn parse(text: &[char], mut at: usize, braced: bool) -> Result<(Vec<Part>, usize), String> {
    let mut parts = Vec::new();
    while let Some(&letter) = text.get(at) {
        at += 1;
        parts.push(match letter {
            ',' | '}' if braced => return Ok((parts, at - 1)),
            '?' => Part::Any,
            '*' if text.get(at) == Some(&'*') => {
                at += 1;
                Part::StarStar
            }
            '*' => Part::Star,
            '\\' => {
                let escaped = *text.get(at).ok_or("a pattern must not end in a backslash")?;
                at += 1;
                Part::One(escaped)
            }
            '[' => {
                let (set, end) = parse_set(text, at)?;
                at = end;
                set
            }
            '{' => {
                let mut either = Vec::new();
                loop {
                    let (parts, end) = parse(text, at, true)?;
                    either.push(parts);
                    at = end + 1;
                    match text.get(end) {
                        Some(',') => {}
                        Some(_) => break,
                        None => return Err("a brace is not closed".to_owned()),
                    }
                }
                Part::Either(either)
            }
            letter => Part::One(letter),
        });
    }
    Ok((parts, at))
}

fn parse_set(text: &[char], mut at: usize) -> Result<(Part, usize), String> {
    let negated = matches!(text.get(at), Some('!' | '^'));
    at += usize::from(negated);
    let (mut ranges, first) = (Vec::new(), at);
    loop {
        let from = *text.get(at).ok_or("a bracket is not closed")?;
        if from == ']' && at > first {
            return Ok((Part::Set { ranges, negated }, at + 1));
        }
        match (text.get(at + 1), text.get(at + 2)) {
            (Some('-'), Some(&to)) if to != ']' => {
                ranges.push((from, to));
                at += 3;
            }
            _ => {
                ranges.push((from, from));
                at += 1;
            }
        }
    }
}

fn matches(pattern: &[&Part], name: &[char], steps: &mut u32) -> bool {
    let Some(left) = steps.checked_sub(1) else { return false };
    *steps = left;
    let Some((part, rest)) = pattern.split_first() else { return name.is_empty() };
    let one = |holds: &dyn Fn(char) -> bool, steps: &mut u32| {
        name.split_first().is_some_and(|(&letter, behind)| holds(letter) && matches(rest, behind, steps))
    };
    match part {
        Part::One(wanted) => one(&|letter| letter == *wanted, steps),
        Part::Any => one(&|letter| letter != '/', steps),
        Part::Set { ranges, negated } => one(
            &|letter| letter != '/' && ranges.iter().any(|(from, to)| (*from..=*to).contains(&letter)) != *negated,
            steps,
        ),
        Part::Star | Part::StarStar => {
            let crosses = **part == Part::StarStar;
            let longest = name.iter().position(|&letter| letter == '/' && !crosses).unwrap_or(name.len());
            (0..=longest).any(|taken| matches(rest, &name[taken..], steps))
        }
        Part::Either(either) => either.iter().any(|parts| {
            let pattern: Vec<&Part> = parts.iter().chain(rest.iter().copied()).collect();
            matches(&pattern, name, steps)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_is_documented() {
        for (pattern, yes, no) in [
            ("foo*bar", &["foobar", "fooxbar"][..], &["foo/bar", "foobarx"][..]),
            ("foo**bar", &["foobar", "foo/x/bar"], &["fobar"]),
            ("foo?bar", &["fooxbar"], &["foo/bar", "foobar"]),
            ("[a-c]x[!0-9]", &["axb", "cxé"], &["dxa", "ax1", "ax/"]),
            ("**/*.{csv,xl*}", &["a/b.csv", "a/b/c.xlsx"], &["b.csv", "a/b.pdf"]),
            ("{a,b{c,d}}", &["a", "bc", "bd"], &["b", "ac"]),
            ("a\\*", &["a*"], &["ab"]),
            ("[]x]", &["]", "x"], &["["]),
        ] {
            let glob = Glob::parse(pattern).expect("is a pattern");
            for name in yes {
                assert!(glob.matches(name), "{pattern} and {name}");
            }
            for name in no {
                assert!(!glob.matches(name), "{pattern} and {name}");
            }
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused_and_a_costly_one_ends() {
        for pattern in ["[a", "{a,b", "a\\"] {
            assert!(Glob::parse(pattern).is_err(), "{pattern}");
        }
        let costly = Glob::parse(&"**a".repeat(30)).expect("is a pattern");
        assert!(!costly.matches(&"a".repeat(1024)[..1000].replace("aaaaa", "aaaab")));
    }
}
