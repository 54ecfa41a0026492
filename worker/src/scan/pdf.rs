//! PDF: encrypted, or no document at all; and what it would run, open or carry.
//!
//! Not a parser: a scan for names, over the objects as they lie in the file and, inflated, over object streams, where
//! producers since 1.5 put most of them. Other streams are pictures, fonts and pages, which hold no actions; of an
//! attached file only the first bytes are looked at. Cannot see object streams in another filter than FlateDecode, in
//! two of them or under a predictor: those are flagged as unseen. Cannot follow references either, so `/OpenAction 7 0 R`
//! is found by what object 7 names. Encrypted documents are refused before it matters.
//!
//! ```text
//! objects ─ "stream" ─► body ─ "endstream", or "N G obj" wherever it stands ─► objects
//! ```

mod inflate;

use std::io::Read;

use carrel_schemas::outcome::RefusalCode;
use carrel_schemas::scan::FlagCode;

use self::inflate::{Body, Inflated};
use super::found::Found;
use super::tokens::{Token, Tokens};
use super::{Inspection, ScanLimits, refuse, windows};

/// Names that are enough by themselves, wherever an object has them.
const NAMES: [(&[u8], FlagCode); 12] = [
    (b"JS", FlagCode::Javascript),
    (b"JavaScript", FlagCode::Javascript),
    (b"Launch", FlagCode::Launch),
    (b"RichMedia", FlagCode::EmbeddedProgram),
    (b"EmbeddedFile", FlagCode::EmbeddedFile),
    (b"EmbeddedFiles", FlagCode::EmbeddedFile),
    (b"AA", FlagCode::AutomaticAction),
    (b"SubmitForm", FlagCode::SubmittingForm),
    (b"ImportData", FlagCode::SubmittingForm),
    (b"XFA", FlagCode::XfaForm),
    (b"GoToR", FlagCode::ExternalLink),
    (b"GoToE", FlagCode::ExternalLink),
];
/// Filters, and parameters of filters, under which an object stream is not read.
const OBSCURING: [&[u8]; 10] = [
    b"ASCIIHexDecode",
    b"AHx",
    b"ASCII85Decode",
    b"A85",
    b"LZWDecode",
    b"LZW",
    b"RunLengthDecode",
    b"RL",
    b"Crypt",
    b"Predictor",
];
/// Tokens after `/OpenAction <<` within which the action says its sort.
const ACTION: u8 = 8;

/// Scans the file and its object streams; bytes inflated, and bytes read to inflate them, count against the limit.
pub(super) fn inspect(file: &mut impl Read, limits: &ScanLimits) -> Inspection {
    let mut scan = Scan { budget: limits.inflated_bytes, ..Scan::default() };
    windows(file, 0, |window| {
        scan.window(window);
        !scan.encrypted && scan.budget > 0
    })?;
    // A file may end with a token.
    scan.window(b"\n");
    if scan.encrypted {
        return Ok(refuse(
            RefusalCode::Encrypted,
            "is protected by a password; save it without one and upload it again",
        ));
    }
    if scan.budget == 0 {
        let most = limits.inflated_bytes;
        let message = format!(
            "inflates beyond {most} bytes, its limit by size or by policy; split the document, or ask for a higher limit"
        );
        return Ok(refuse(RefusalCode::ArchiveBomb, message));
    }
    if !scan.referenced {
        return Ok(refuse(RefusalCode::Broken, "is cut off: its table of contents is missing; export it again"));
    }
    Ok(Ok(scan.found.flags()))
}

/// What the dictionary of the object at hand says of its stream.
#[derive(Debug, Default, Clone, Copy)]
struct Dictionary {
    /// `/ObjStm`, or the `/First` that only object streams and outlines have.
    objects: bool,
    attached: bool,
    obscured: bool,
    deflated: u8,
}

/// Words and names that mean something together.
#[derive(Debug, Default)]
struct Grammar {
    /// Numbers in a row before this token.
    numbers: u8,
    /// 1 after `/Encrypt`, 2 and 3 after the numbers of a reference.
    encrypt: u8,
    /// Tokens left within `/OpenAction <<`.
    opens: u8,
    /// The name before was `S`, which says the sort of an action.
    sort: bool,
}

#[derive(Default)]
struct Scan {
    budget: u64,
    found: Found,
    tokens: Tokens,
    grammar: Grammar,
    dictionary: Dictionary,
    body: Option<Body>,
    encrypted: bool,
    referenced: bool,
    /// Of this window's first byte.
    offset: u64,
}

/// What a token means to the scan itself.
enum Turn {
    None,
    Object,
    Body,
}

impl Scan {
    fn window(&mut self, window: &[u8]) {
        self.inflate(window);
        let mut tokens = std::mem::take(&mut self.tokens);
        for (at, byte) in window.iter().enumerate() {
            let mut turn = Turn::None;
            let place = self.offset + at as u64;
            tokens.byte(*byte, |token| turn = self.token(token, place));
            match turn {
                Turn::None => {}
                Turn::Object => (self.body, self.dictionary) = (None, Dictionary::default()),
                Turn::Body => {
                    let Dictionary { objects, attached, obscured, deflated } = self.dictionary;
                    let unreadable = obscured || deflated > 1;
                    if objects && unreadable {
                        self.found.note(FlagCode::UnseenObjects, || format!("at byte {place}"));
                    }
                    self.body = Some(Body::new(objects, attached, place));
                    self.inflate(&window[at + 1..]);
                }
            }
        }
        self.tokens = tokens;
        self.offset += window.len() as u64;
    }

    /// What a token of the file means. Within a stream's body only the words that end it count.
    fn token(&mut self, token: Token<'_>, place: u64) -> Turn {
        self.encrypted |= self.grammar.encrypts(token);
        let numbers = self.grammar.count(token);
        match token {
            Token::Word(b"obj") if numbers >= 2 => return Turn::Object,
            Token::Word(b"endstream" | b"endobj") => return Turn::Object,
            Token::Word(b"stream") if self.body.is_none() => return Turn::Body,
            Token::Word(b"startxref" | b"trailer") => self.referenced = true,
            Token::Name(name) if self.body.is_none() => self.dictionary.see(name),
            Token::Word(_) | Token::Name(_) | Token::Open => {}
        }
        if self.body.as_ref().is_none_or(Body::is_plain) {
            let mut note = |code| self.found.note(code, || format!("at byte {place}"));
            actions(&mut self.grammar, token, &mut note);
        }
        Turn::None
    }

    fn inflate(&mut self, bytes: &[u8]) {
        let Some(body) = &mut self.body else { return };
        let (found, place) = (&mut self.found, body.place);
        body.feed(bytes, &mut self.budget, |inflated| match inflated {
            Inflated::Token(grammar, token) => {
                let mut note = |code| found.note(code, || format!("in the object stream at byte {place}"));
                actions(grammar, token, &mut note);
            }
            Inflated::Program => found.note(FlagCode::EmbeddedProgram, || format!("in the stream at byte {place}")),
            Inflated::Unreadable => found.note(FlagCode::UnseenObjects, || format!("at byte {place}")),
        });
    }
}

impl Dictionary {
    fn see(&mut self, name: &[u8]) {
        self.objects |= matches!(name, b"ObjStm" | b"First");
        self.attached |= name == b"EmbeddedFile";
        self.obscured |= OBSCURING.contains(&name);
        self.deflated = self.deflated.saturating_add(u8::from(matches!(name, b"FlateDecode" | b"Fl")));
    }
}

fn actions(grammar: &mut Grammar, token: Token<'_>, note: &mut impl FnMut(FlagCode)) {
    if let Token::Name(name) = token
        && let Some((_, code)) = NAMES.iter().find(|(known, _)| *known == name)
    {
        note(*code);
    }
    if grammar.opens_with_action(token) {
        note(FlagCode::AutomaticAction);
    }
}

impl Grammar {
    /// How many numbers stood right before this token.
    fn count(&mut self, token: Token<'_>) -> u8 {
        let number = matches!(token, Token::Word(word) if word.iter().all(u8::is_ascii_digit));
        let next = if number { self.numbers.saturating_add(1) } else { 0 };
        std::mem::replace(&mut self.numbers, next)
    }

    /// `/Encrypt 12 0 R` or `/Encrypt <<`, as a trailer or a cross-reference stream has it; not `/EncryptMetadata`.
    fn encrypts(&mut self, token: Token<'_>) -> bool {
        let digits = |word: &[u8]| word.iter().all(u8::is_ascii_digit);
        let (next, encrypted) = match (self.encrypt, token) {
            (_, Token::Name(b"Encrypt")) => (1, false),
            (1, Token::Open) | (3, Token::Word(b"R")) => (0, true),
            (at @ (1 | 2), Token::Word(word)) if digits(word) => (at + 1, false),
            _ => (0, false),
        };
        self.encrypt = next;
        encrypted
    }

    /// An action in the place of `/OpenAction` that does more than turn to a page.
    fn opens_with_action(&mut self, token: Token<'_>) -> bool {
        let sort = std::mem::replace(&mut self.sort, matches!(token, Token::Name(b"S")));
        match token {
            Token::Name(b"OpenAction") => self.opens = ACTION + 1,
            // A destination, or a reference.
            Token::Word(_) if self.opens == ACTION + 1 => self.opens = 0,
            Token::Name(name) if sort && self.opens > 0 => {
                self.opens = 0;
                return name != b"GoTo";
            }
            _ => self.opens = self.opens.saturating_sub(1),
        }
        false
    }
}
