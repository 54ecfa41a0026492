//! The tags and texts of an XML part, one after the other, in constant memory.
//!
//! Not a parser: it refuses nothing, so that a part some reader may still make sense of is looked at as well. Comments,
//! processing instructions and CDATA sections do not split a text. Zero bytes are dropped: without them UTF-16 looks
//! like UTF-8 where it matters. Refuses to expand what a DTD defines; workbooks may not have one.

use std::io::{self, Read};

/// Excel's longest formula has 8,192 characters; what is longer than four bytes for each is cut.
const MAX_PIECE: usize = 32 << 10;

/// One thing seen.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    /// What stands between `<` and `>`.
    Tag(&'a [u8]),
    /// What stands before a tag, references not yet resolved.
    Text(&'a [u8]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    /// Nothing but marks and blanks so far.
    Start,
    /// No XML.
    Other,
    Text,
    Tag {
        quote: Option<u8>,
    },
    Comment,
    Instruction,
    Cdata,
}

struct Scanner {
    within: Within,
    text: Vec<u8>,
    tag: Vec<u8>,
    /// The two bytes before this one.
    last: [u8; 2],
}

/// Reads to the end and shows every piece.
pub(super) fn pieces(part: &mut impl Read, mut see: impl FnMut(Piece<'_>)) -> io::Result<()> {
    let mut scanner = Scanner { within: Within::Start, text: Vec::new(), tag: Vec::new(), last: [0; 2] };
    super::windows(part, 0, |window| {
        if scanner.within != Within::Other {
            window.iter().filter(|byte| **byte != 0).for_each(|byte| scanner.byte(*byte, &mut see));
        }
        true
    })
}

fn push(piece: &mut Vec<u8>, byte: u8) {
    if piece.len() < MAX_PIECE {
        piece.push(byte);
    }
}

impl Scanner {
    fn byte(&mut self, byte: u8, see: &mut impl FnMut(Piece<'_>)) {
        match self.within {
            Within::Start => match byte {
                b'<' => self.open(),
                0xef | 0xbb | 0xbf | 0xfe | 0xff | b' ' | b'\t' | b'\r' | b'\n' => {}
                _ => self.within = Within::Other,
            },
            Within::Other => {}
            Within::Text if byte == b'<' => self.open(),
            Within::Text => push(&mut self.text, byte),
            Within::Tag { quote: None } if byte == b'>' => {
                if !self.text.is_empty() {
                    see(Piece::Text(&self.text));
                    self.text.clear();
                }
                see(Piece::Tag(&self.tag));
                self.within = Within::Text;
            }
            Within::Tag { quote } => self.within_tag(byte, quote),
            Within::Comment if byte == b'>' && self.last == *b"--" => self.within = Within::Text,
            Within::Instruction if byte == b'>' && self.last[1] == b'?' => self.within = Within::Text,
            Within::Comment | Within::Instruction => {}
            Within::Cdata => {
                push(&mut self.text, byte);
                if byte == b'>' && self.last == *b"]]" {
                    self.text.truncate(self.text.len().saturating_sub(3));
                    self.within = Within::Text;
                }
            }
        }
        self.last = [self.last[1], byte];
    }

    fn open(&mut self) {
        self.tag.clear();
        self.within = Within::Tag { quote: None };
    }

    fn within_tag(&mut self, byte: u8, quote: Option<u8>) {
        push(&mut self.tag, byte);
        self.within = match (quote, byte) {
            (None, b'?') if self.tag.len() == 1 => Within::Instruction,
            (None, b'-') if self.tag == b"!--" => Within::Comment,
            (None, b'[') if self.tag == b"![CDATA[" => Within::Cdata,
            (None, b'"' | b'\'') => Within::Tag { quote: Some(byte) },
            (Some(open), byte) if open == byte => Within::Tag { quote: None },
            (quote, _) => Within::Tag { quote },
        };
    }
}

/// A tag's name without its namespace's prefix; `None` for an end tag.
pub(super) fn local_name(tag: &[u8]) -> Option<&[u8]> {
    let name = tag.split(|b| b.is_ascii_whitespace() || *b == b'/').next().filter(|name| !name.is_empty())?;
    name.rsplit(|b| *b == b':').next()
}

/// The value of a tag's attribute, whatever its prefix, with references resolved.
pub(super) fn attribute(tag: &[u8], wanted: &[u8]) -> Option<Vec<u8>> {
    let mut rest = &tag[tag.iter().position(u8::is_ascii_whitespace)?..];
    loop {
        let equals = rest.iter().position(|b| *b == b'=')?;
        let name = rest[..equals].trim_ascii();
        let value = rest[equals + 1..].trim_ascii_start();
        let (quote, value) = value.split_first().filter(|(quote, _)| matches!(**quote, b'"' | b'\''))?;
        let end = value.iter().position(|b| b == quote)?;
        if name.rsplit(|b| *b == b':').next() == Some(wanted) {
            return Some(resolved(&value[..end]));
        }
        rest = &value[end + 1..];
    }
}

/// The text with `&lt;`, `&#60;` and their like resolved. What is no reference stays as it stands.
pub(super) fn resolved(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.iter().position(|b| *b == b'&') {
        plain.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let end = 1 + rest[1..].iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'#').count();
        match character(&rest[1..end]).filter(|_| rest.get(end) == Some(&b';')) {
            Some(character) => {
                plain.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[end + 1..];
            }
            None => {
                plain.push(b'&');
                rest = &rest[1..];
            }
        }
    }
    plain.extend_from_slice(rest);
    plain
}

fn character(name: &[u8]) -> Option<char> {
    let number =
        |digits: &[u8], radix| char::from_u32(u32::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()?);
    match name {
        b"lt" => Some('<'),
        b"gt" => Some('>'),
        b"amp" => Some('&'),
        b"quot" => Some('"'),
        b"apos" => Some('\''),
        [b'#', b'x', digits @ ..] => number(digits, 16),
        [b'#', digits @ ..] => number(digits, 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(xml: &[u8]) -> Vec<String> {
        let mut texts = Vec::new();
        pieces(&mut &xml[..], |piece| {
            if let Piece::Text(text) = piece {
                texts.push(String::from_utf8(resolved(text)).expect("UTF-8"));
            }
        })
        .expect("memory can be read");
        texts
    }

    #[test]
    fn a_text_is_whole_however_it_is_spelt() {
        let spelt = b"\xef\xbb\xbf<?xml x='>'?><f a='>'>EX<!-- don't > --><![CDATA[E]]>&#67;&#x28;&quot;&amp;</f>";
        assert_eq!(texts(spelt), ["EXEC(\"&"]);
        let wide: Vec<u8> = "<f>EXEC(</f>".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(texts(&wide), ["EXEC("]);
        assert!(texts(b"MZ<f>EXEC(</f>").is_empty(), "no XML");
    }

    #[test]
    fn attributes_are_found_by_name_and_not_by_what_a_value_spells() {
        let tag = br#"r:Relationship Id="TargetMode='x'" Type = 'a/&#104;' x:TargetMode="External"/"#;
        assert_eq!(local_name(tag), Some(&b"Relationship"[..]));
        assert_eq!(attribute(tag, b"TargetMode").as_deref(), Some(&b"External"[..]));
        assert_eq!(attribute(tag, b"Type").as_deref(), Some(&b"a/h"[..]));
        assert_eq!(attribute(tag, b"Target"), None);
        assert_eq!(local_name(b"/f"), None);
    }
}
