//! The filter of a subscription: which messages it takes, by their attributes. Pure: parses hostile text, knows no message.
//!
//! ```text
//! filter = either { AND either } | either { OR either }      AND beside OR needs parentheses
//! either = [ NOT | - ] ( "(" filter ")" | attributes ":" key | attributes "." key ( = | != ) "value"
//!                      | hasPrefix "(" attributes "." key "," "value" ")" )
//! key    = letters, digits, hyphens and underscores, or a string
//! ```
//!
//! Operators are upper case. `!=` is `NOT … =`, so it takes messages without the attribute too. Source:
//! <https://cloud.google.com/pubsub/docs/subscription-message-filter>.

use std::iter::Peekable;
use std::str::CharIndices;

/// The longest filter, bytes.
const LONGEST: usize = 256;

/// A filter that can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter(Node);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Has(String),
    Is(String, String),
    Begins(String, String),
    Not(Box<Node>),
    All(Vec<Node>),
    Any(Vec<Node>),
}

/// Why a text is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FilterError {
    /// Too long.
    #[error("a filter has at most {LONGEST} bytes, this one has {0}")]
    Long(usize),
    /// Something else stands where it should not.
    #[error("filter: expected {expected} at byte {at}")]
    Expected {
        /// What.
        expected: &'static str,
        /// Where.
        at: usize,
    },
    /// Which binds first is not for us to guess.
    #[error("filter: AND and OR are mixed at byte {0}; put one of them into parentheses")]
    Mixed(usize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
    Unequal,
    End,
}

impl Filter {
    /// The filter that a text says; an empty one takes everything and is none.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, FilterError> {
        if text.len() > LONGEST {
            return Err(FilterError::Long(text.len()));
        }
        if text.is_empty() {
            return Ok(None);
        }
        let mut parser = Parser { tokens: tokens(text)?, next: 0 };
        let node = parser.filter()?;
        match parser.take() {
            (_, Token::End) => Ok(Some(Self(node))),
            (at, _) => Err(FilterError::Expected { expected: "AND, OR or the end", at }),
        }
    }

    /// Whether a message with these attributes passes.
    pub(crate) fn takes<'a>(&self, attribute: &dyn Fn(&str) -> Option<&'a str>) -> bool {
        self.0.takes(attribute)
    }
}

impl Node {
    fn takes<'a>(&self, attribute: &dyn Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            Self::Has(key) => attribute(key).is_some(),
            Self::Is(key, value) => attribute(key) == Some(value),
            Self::Begins(key, prefix) => attribute(key).is_some_and(|value| value.starts_with(prefix.as_str())),
            Self::Not(node) => !node.takes(attribute),
            Self::All(nodes) => nodes.iter().all(|node| node.takes(attribute)),
            Self::Any(nodes) => nodes.iter().any(|node| node.takes(attribute)),
        }
    }
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, FilterError> {
    let mut found = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let token = match c {
            c if c.is_whitespace() => continue,
            ':' | '.' | '=' | '(' | ')' | ',' | '-' => Token::Sign(c),
            '!' => {
                chars.next_if(|(_, c)| *c == '=').ok_or(FilterError::Expected { expected: "=", at: at + 1 })?;
                Token::Unequal
            }
            '"' => Token::Text(string(&mut chars, text.len())?),
            c if c.is_alphanumeric() || c == '_' => {
                let mut word = String::from(c);
                while let Some((_, c)) = chars.next_if(|(_, c)| c.is_alphanumeric() || "-_".contains(*c)) {
                    word.push(c);
                }
                Token::Word(word)
            }
            _ => return Err(FilterError::Expected { expected: "a filter's word or sign", at }),
        };
        found.push((at, token));
    }
    found.push((text.len(), Token::End));
    Ok(found)
}

/// A string after its opening quote, with the escapes of C: `\n`, `\x41`, `\101`, `\u0041`, `\U00000041`.
fn string(chars: &mut Peekable<CharIndices<'_>>, end: usize) -> Result<String, FilterError> {
    let mut text = String::new();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok(text),
            '\\' => text.push(escaped(chars).ok_or(FilterError::Expected { expected: "an escape sequence", at })?),
            c => text.push(c),
        }
    }
    Err(FilterError::Expected { expected: "a closing quotation mark", at: end })
}

fn escaped(chars: &mut Peekable<CharIndices<'_>>) -> Option<char> {
    let (_, c) = chars.next()?;
    let mut number = |radix: u32, first: u32, digits: usize| {
        let mut value = first;
        for _ in 0..digits {
            value = value * radix + chars.next()?.1.to_digit(radix)?;
        }
        char::from_u32(value)
    };
    match c {
        'a' => Some('\u{7}'),
        'b' => Some('\u{8}'),
        'f' => Some('\u{c}'),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'v' => Some('\u{b}'),
        '\\' | '"' | '\'' | '?' => Some(c),
        'x' | 'X' => number(16, 0, 2),
        'u' => number(16, 0, 4),
        'U' => {
            // The first two of its eight digits are zeros in every character there is.
            (number(16, 0, 2)? == '\0').then_some(())?;
            number(16, 0, 6)
        }
        '0'..='3' => number(8, c.to_digit(8)?, 2),
        _ => None,
    }
}

/// Descends once for each open parenthesis, of which 256 bytes hold 256.
struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].1
    }

    /// The next token and where it stands; the end is never passed.
    fn take(&mut self) -> (usize, Token) {
        let token = self.tokens[self.next].clone();
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        token
    }

    fn sign(&mut self, sign: char, expected: &'static str) -> Result<(), FilterError> {
        match self.take() {
            (_, Token::Sign(found)) if found == sign => Ok(()),
            (at, _) => Err(FilterError::Expected { expected, at }),
        }
    }

    fn word(&mut self, word: &'static str) -> Result<(), FilterError> {
        match self.take() {
            (_, Token::Word(found)) if found == word => Ok(()),
            (at, _) => Err(FilterError::Expected { expected: word, at }),
        }
    }

    fn filter(&mut self) -> Result<Node, FilterError> {
        let mut nodes = vec![self.either()?];
        let mut operator = None;
        while let Token::Word(word) = self.peek() {
            let word = match word.as_str() {
                "AND" => "AND",
                "OR" => "OR",
                _ => break,
            };
            let (at, _) = self.take();
            if operator.replace(word).is_some_and(|former| former != word) {
                return Err(FilterError::Mixed(at));
            }
            nodes.push(self.either()?);
        }
        Ok(match operator {
            Some("AND") => Node::All(nodes),
            Some(_) => Node::Any(nodes),
            None => nodes.swap_remove(0),
        })
    }

    fn either(&mut self) -> Result<Node, FilterError> {
        let negated = match self.peek() {
            Token::Word(word) => word == "NOT",
            token => *token == Token::Sign('-'),
        };
        if negated {
            self.take();
        }
        let node = self.plain()?;
        Ok(if negated { Node::Not(Box::new(node)) } else { node })
    }

    fn plain(&mut self) -> Result<Node, FilterError> {
        match self.take() {
            (_, Token::Sign('(')) => {
                let node = self.filter()?;
                self.sign(')', ")")?;
                Ok(node)
            }
            (_, Token::Word(word)) if word == "hasPrefix" => {
                self.sign('(', "(")?;
                self.word("attributes")?;
                self.sign('.', ".")?;
                let key = self.key()?;
                self.sign(',', ",")?;
                let prefix = self.value()?;
                self.sign(')', ")")?;
                Ok(Node::Begins(key, prefix))
            }
            (_, Token::Word(word)) if word == "attributes" => match self.take() {
                (_, Token::Sign(':')) => Ok(Node::Has(self.key()?)),
                (_, Token::Sign('.')) => {
                    let key = self.key()?;
                    match self.take() {
                        (_, Token::Sign('=')) => Ok(Node::Is(key, self.value()?)),
                        (_, Token::Unequal) => Ok(Node::Not(Box::new(Node::Is(key, self.value()?)))),
                        (at, _) => Err(FilterError::Expected { expected: "= or !=", at }),
                    }
                }
                (at, _) => Err(FilterError::Expected { expected: ": or .", at }),
            },
            (at, _) => Err(FilterError::Expected { expected: "attributes, hasPrefix, NOT or (", at }),
        }
    }

    fn key(&mut self) -> Result<String, FilterError> {
        match self.take() {
            (_, Token::Word(key) | Token::Text(key)) => Ok(key),
            (at, _) => Err(FilterError::Expected { expected: "an attribute's key", at }),
        }
    }

    fn value(&mut self) -> Result<String, FilterError> {
        match self.take() {
            (_, Token::Text(value)) => Ok(value),
            (at, _) => Err(FilterError::Expected { expected: "a value in quotation marks", at }),
        }
    }
}

/// For fuzzing: any bytes are a filter or are refused, and a filter answers.
pub(crate) fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Filter::parse(&text) {
        Ok(Some(filter)) => {
            let nothing = filter.takes(&|_| None);
            assert_eq!(Filter(Node::Not(Box::new(filter.0))).takes(&|_| None), !nothing);
        }
        Ok(None) => assert!(text.is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn takes(filter: &str, attributes: &[(&str, &str)]) -> bool {
        let filter =
            Filter::parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}")).expect("it says something");
        filter.takes(&|key| attributes.iter().find(|(found, _)| *found == key).map(|(_, value)| *value))
    }

    #[test]
    fn a_filter_takes_what_it_says() {
        let message = [("domain", "com"), ("iana.org/language_tag", "en"), ("ce-type", "a.b"), ("e", "")];
        for (filter, expected) in [
            ("attributes:domain", true),
            ("attributes:e", true),
            ("attributes:Domain", false),
            ("attributes:\"iana.org/language_tag\"", true),
            ("attributes.\"iana.org/language_tag\" = \"en\"", true),
            ("attributes.ce-type=\"a.b\"", true),
            ("attributes.domain = \"com\"", true),
            ("attributes . domain = \"c\\157\\x6d\"", true),
            ("attributes.domain != \"com\"", false),
            ("attributes.domain != \"org\"", true),
            ("attributes.none != \"org\"", true),
            ("hasPrefix(attributes.domain, \"co\")", true),
            ("hasPrefix(attributes.domain, \"\")", true),
            ("hasPrefix(attributes.none, \"\")", false),
            ("NOT attributes:none", true),
            ("-attributes:domain", false),
            ("NOT (attributes:none OR attributes:domain)", false),
            ("attributes:domain AND NOT attributes:none AND attributes:e", true),
            ("attributes:none OR attributes:no OR attributes:e", true),
            ("attributes:none AND (attributes:e OR attributes:domain)", false),
            ("(attributes:none AND attributes:e) OR attributes:domain", true),
        ] {
            assert_eq!(takes(filter, &message), expected, "{filter}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused_by_name() {
        let long = format!("attributes:{}", "a".repeat(246));
        for (filter, expected) in [
            ("attributes:a AND attributes:b OR attributes:c", "filter: AND and OR are mixed at byte 30"),
            ("attributes:a and attributes:b", "filter: expected AND, OR or the end at byte 13"),
            ("attributes.a", "filter: expected = or != at byte 12"),
            ("attributes.a = b", "filter: expected a value in quotation marks at byte 15"),
            ("attributes.a = \"b", "filter: expected a closing quotation mark at byte 17"),
            ("attributes.a = \"\\q\"", "filter: expected an escape sequence at byte 16"),
            ("attributes.a ! \"b\"", "filter: expected = at byte 14"),
            ("data:a", "filter: expected attributes, hasPrefix, NOT or ( at byte 0"),
            ("NOT NOT attributes:a", "filter: expected attributes"),
            ("hasPrefix(attributes:a, \"b\")", "filter: expected . at byte 20"),
            ("(attributes:a", "filter: expected ) at byte 13"),
            ("attributes:a)", "filter: expected AND, OR or the end at byte 12"),
            ("attributes:a/b", "filter: expected a filter's word or sign at byte 12"),
            (" ", "filter: expected attributes"),
            (long.as_str(), "a filter has at most 256 bytes, this one has 257"),
        ] {
            let error = Filter::parse(filter).expect_err(filter).to_string();
            assert!(error.starts_with(expected), "{filter}: {error}");
        }
        assert_eq!(Filter::parse(""), Ok(None));
    }

    fn node() -> impl Strategy<Value = Node> {
        let text = || proptest::string::string_regex("[a-c\"\\\\ é]{0,3}").expect("a pattern");
        let leaf = prop_oneof![
            text().prop_map(Node::Has),
            (text(), text()).prop_map(|(key, value)| Node::Is(key, value)),
            (text(), text()).prop_map(|(key, value)| Node::Begins(key, value)),
        ];
        leaf.prop_recursive(3, 8, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|node| Node::Not(Box::new(node))),
                proptest::collection::vec(inner.clone(), 2..4).prop_map(Node::All),
                proptest::collection::vec(inner, 2..4).prop_map(Node::Any),
            ]
        })
    }

    /// The text of a node, every part of it in parentheses.
    fn written(node: &Node) -> String {
        let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let joined = |nodes: &[Node], operator: &str| {
            nodes.iter().map(|node| format!("({})", written(node))).collect::<Vec<_>>().join(operator)
        };
        match node {
            Node::Has(key) => format!("attributes:{}", quoted(key)),
            Node::Is(key, value) => format!("attributes.{}={}", quoted(key), quoted(value)),
            Node::Begins(key, value) => format!("hasPrefix(attributes.{},{})", quoted(key), quoted(value)),
            Node::Not(node) => format!("-({})", written(node)),
            Node::All(nodes) => joined(nodes, " AND "),
            Node::Any(nodes) => joined(nodes, "OR"),
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_it_was_meant(node in node()) {
            let text = written(&node);
            prop_assume!(text.len() <= LONGEST);
            prop_assert_eq!(Filter::parse(&text), Ok(Some(Filter(node))));
        }

        #[test]
        fn any_text_ends_in_an_answer(text in "[aANDORT:.=!(),\"\\\\ \\-x4é]{0,300}") {
            fuzz(text.as_bytes());
        }
    }
}
