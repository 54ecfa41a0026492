//! The patterns of `matchGlob`, as Cloud Storage documents them.
//!
//! `*` stands for any characters but `/`, `**` for any at all, `?` for one but `/`, `[…]` for one of a set or of ranges
//! (`[!…]` for none of them), `{a,b}` for one of several patterns, and `\` takes the next character as it is.

use regex::{Regex, RegexBuilder};

/// A pattern.
#[derive(Clone, Debug)]
pub(super) struct Glob(Regex);

/// Bytes of a compiled pattern: matching takes time in proportion to the name, whatever the pattern.
const MAX_COMPILED: usize = 1 << 20;

impl Glob {
    /// Reads a pattern; the error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        // Patterns nest as deep as they are long, and each level takes its part of the stack.
        if text.len() > 256 {
            return Err("a pattern has at most 256 bytes".to_owned());
        }
        let chars: Vec<char> = text.chars().collect();
        let mut expression = String::from(r"\A(?s:");
        let end = translate(&chars, 0, false, &mut expression)?;
        debug_assert_eq!(end, chars.len());
        expression.push_str(r")\z");
        let compiled = RegexBuilder::new(&expression).size_limit(MAX_COMPILED).build();
        compiled.map(Self).map_err(|_| "the pattern is too costly".to_owned())
    }

    /// Whether the whole name is as the pattern says.
    pub(super) fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

/// Writes what stands from `at` on as a regular expression; returns where it ends: at the end of the text or, within
/// braces, at `,` or `}`.
fn translate(text: &[char], mut at: usize, braced: bool, expression: &mut String) -> Result<usize, String> {
    while let Some(&letter) = text.get(at) {
        at += 1;
        match letter {
            ',' | '}' if braced => return Ok(at - 1),
            '?' => expression.push_str("[^/]"),
            '*' if text.get(at) == Some(&'*') => {
                at += 1;
                expression.push_str(".*");
            }
            '*' => expression.push_str("[^/]*"),
            '\\' => {
                literal(*text.get(at).ok_or("a pattern must not end in a backslash")?, expression);
                at += 1;
            }
            '[' => at = translate_set(text, at, expression)?,
            '{' => {
                expression.push_str("(?:");
                loop {
                    let end = translate(text, at, true, expression)?;
                    at = end + 1;
                    match text.get(end) {
                        Some(',') => expression.push('|'),
                        Some(_) => break,
                        None => return Err("a brace is not closed".to_owned()),
                    }
                }
                expression.push(')');
            }
            letter => literal(letter, expression),
        }
    }
    Ok(at)
}

/// Of a set, without `/`, which none matches.
fn translate_set(text: &[char], mut at: usize, expression: &mut String) -> Result<usize, String> {
    let negated = matches!(text.get(at), Some('!' | '^'));
    at += usize::from(negated);
    expression.push_str(if negated { "[^/" } else { "[[" });
    let first = at;
    loop {
        let from = *text.get(at).ok_or("a bracket is not closed")?;
        if from == ']' && at > first {
            expression.push_str(if negated { "]" } else { "]--[/]]" });
            return Ok(at + 1);
        }
        literal(from, expression);
        at += 1;
        if let (Some('-'), Some(&to)) = (text.get(at), text.get(at + 1))
            && to != ']'
        {
            if to < from {
                return Err(format!("the range {from}-{to} is empty"));
            }
            expression.push('-');
            literal(to, expression);
            at += 2;
        }
    }
}

fn literal(letter: char, expression: &mut String) {
    expression.push_str(&regex::escape(letter.encode_utf8(&mut [0; 4])));
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
            ("[+--]&[~&]", &[",&~", "-&&"], &["/&~"]),
            ("a.(b)+", &["a.(b)+"], &["axbb"]),
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
        for pattern in ["[a", "{a,b", "a\\", "[z-a]"] {
            assert!(Glob::parse(pattern).is_err(), "{pattern}");
        }
        let costly = Glob::parse(&"**a".repeat(30)).expect("is a pattern");
        assert!(!costly.matches(&"a".repeat(1024)[..1000].replace("aaaaa", "aaaab")));
    }
}
