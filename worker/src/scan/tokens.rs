//! The words and names of PDF syntax, byte by byte, in constant memory.
//!
//! Strings and comments are not told from the rest: a byte that opens one without closing it would hide what follows
//! from this scan and not from a reader, which jumps to where the cross-reference points. Names have `#4A` resolved.

/// No name or keyword looked for is longer.
const MAX_TOKEN: usize = 32;

/// One thing seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// `/Name`, without its slash; cut if longer than any that matters.
    Name(&'a [u8]),
    /// A keyword or number.
    Word(&'a [u8]),
    /// `<<`.
    Open,
}

/// What has been read of the token that the next byte may belong to.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    held: Vec<u8>,
    name: bool,
    /// The byte before, where it was `<`.
    opening: bool,
}

impl Tokens {
    /// Takes one byte; a token is shown with the byte after it.
    pub(super) fn byte(&mut self, byte: u8, mut see: impl FnMut(Token<'_>)) {
        let delimits = matches!(byte, b'(' | b')' | b'<' | b'>' | b'[' | b']' | b'{' | b'}' | b'/' | b'%');
        let blank = matches!(byte, 0 | b'\t' | b'\n' | 0x0c | b'\r' | b' ');
        if !delimits && !blank {
            if self.held.len() < MAX_TOKEN {
                self.held.push(byte);
            }
            self.opening = false;
            return;
        }
        if self.name {
            resolve(&mut self.held);
            see(Token::Name(&self.held));
        } else if !self.held.is_empty() {
            see(Token::Word(&self.held));
        }
        self.held.clear();
        self.name = byte == b'/';
        if byte == b'<' && self.opening {
            see(Token::Open);
        }
        self.opening = byte == b'<' && !self.opening;
    }
}

/// Replaces `#` and two hexadecimal digits by the byte that they are.
fn resolve(name: &mut Vec<u8>) {
    let digit = |at: usize, name: &[u8]| name.get(at).and_then(|b| char::from(*b).to_digit(16));
    let mut at = 0;
    while let Some(found) = name[at..].iter().position(|b| *b == b'#') {
        at += found;
        if let (Some(high), Some(low)) = (digit(at + 1, name), digit(at + 2, name)) {
            let byte = u8::try_from(high * 16 + low).unwrap_or_default();
            name.splice(at..at + 3, [byte]);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_words_and_dictionaries_are_told_apart() {
        let mut tokens = Tokens::default();
        let mut seen = Vec::new();
        for byte in b"12 0 obj<</#4a#53(x)/J#5/A<4A>/S/La#75nch>>stream\n" {
            tokens.byte(*byte, |token| {
                seen.push(match token {
                    Token::Name(name) => format!("/{}", String::from_utf8_lossy(name)),
                    Token::Word(word) => String::from_utf8_lossy(word).into_owned(),
                    Token::Open => "<<".to_owned(),
                })
            });
        }
        assert_eq!(
            seen,
            ["12", "0", "obj", "<<", "/JS", "x", "/J#5", "/A", "4A", "/S", "/Launch", "stream"],
            "strings are read like everything else"
        );
    }
}
