//! A stream's body while it passes by: inflated, where that shows objects or the beginning of an attached file.
//!
//! A body is taken for deflated by its first bytes, not by its dictionary, whose filter may stand elsewhere. Owns the
//! account: what goes in is counted beside what comes out, since empty blocks cost time and yield nothing.

use flate2::{Decompress, FlushDecompress, Status};

use super::super::tokens::{Token, Tokens};
use super::Grammar;

/// The beginnings of programs, of Windows and of Linux.
const PROGRAMS: [&[u8]; 2] = [b"MZ", b"\x7fELF"];
/// Blanks between the word `stream` and the body that a lenient reader skips.
const MAX_BLANKS: u8 = 4;

/// What there is to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Objects,
    Head,
    Nothing,
}

enum State {
    /// Blanks so far, and the first byte of the body if there was one.
    Begin(u8, Option<u8>),
    Inflating(Box<Decompress>),
    /// Objects that are not compressed.
    Plain,
    Done,
}

/// What inflating shows.
pub(super) enum Inflated<'a> {
    Token(&'a mut Grammar, Token<'a>),
    Program,
    /// Objects that cannot be inflated to their end.
    Unreadable,
}

pub(super) struct Body {
    /// Where it begins.
    pub(super) place: u64,
    wanted: Wanted,
    state: State,
    tokens: Tokens,
    grammar: Grammar,
    head: Vec<u8>,
}

impl Body {
    pub(super) fn new(objects: bool, attached: bool, place: u64) -> Self {
        let wanted = match (objects, attached) {
            (true, _) => Wanted::Objects,
            (false, true) => Wanted::Head,
            (false, false) => Wanted::Nothing,
        };
        let state = if wanted == Wanted::Nothing { State::Done } else { State::Begin(0, None) };
        Self { place, wanted, state, tokens: Tokens::default(), grammar: Grammar::default(), head: Vec::new() }
    }

    /// Whether its bytes are objects as they stand.
    pub(super) fn is_plain(&self) -> bool {
        self.wanted == Wanted::Objects && matches!(self.state, State::Plain)
    }

    /// Takes the next bytes of the file.
    pub(super) fn feed(&mut self, mut bytes: &[u8], budget: &mut u64, mut see: impl FnMut(Inflated<'_>)) {
        while let (State::Begin(blanks, first), Some((byte, rest))) = (&self.state, bytes.split_first()) {
            let (blanks, first, byte) = (*blanks, *first, *byte);
            bytes = rest;
            self.state = match first {
                None if byte.is_ascii_whitespace() && blanks < MAX_BLANKS => State::Begin(blanks + 1, None),
                None => State::Begin(blanks, Some(byte)),
                Some(first) => self.begin(first, byte, budget, &mut see),
            };
        }
        match self.state {
            State::Inflating(_) => self.inflate(bytes, budget, &mut see),
            State::Plain if self.wanted == Wanted::Head => self.show(bytes, &mut see),
            State::Plain | State::Begin(..) | State::Done => {}
        }
    }

    /// The two bytes of a zlib header, by RFC 1950, or something else.
    fn begin(&mut self, first: u8, second: u8, budget: &mut u64, see: &mut impl FnMut(Inflated<'_>)) -> State {
        let deflated = first & 0x0f == 8 && (u16::from(first) << 8 | u16::from(second)) % 31 == 0;
        if !deflated {
            if self.wanted == Wanted::Head {
                self.show(&[first, second], see);
            }
            return State::Plain;
        }
        self.state = State::Inflating(Box::new(Decompress::new(true)));
        self.inflate(&[first, second], budget, see);
        std::mem::replace(&mut self.state, State::Done)
    }

    fn inflate(&mut self, mut bytes: &[u8], budget: &mut u64, see: &mut impl FnMut(Inflated<'_>)) {
        let mut buffer = [0; 8 << 10];
        while let State::Inflating(inflater) = &mut self.state {
            let (read, written) = (inflater.total_in(), inflater.total_out());
            let status = inflater.decompress(bytes, &mut buffer, FlushDecompress::None);
            let read = usize::try_from(inflater.total_in() - read).unwrap_or(usize::MAX);
            let written = usize::try_from(inflater.total_out() - written).unwrap_or(usize::MAX);
            bytes = bytes.get(read..).unwrap_or_default();
            *budget = budget.saturating_sub((read + written) as u64);
            let shown = buffer.get(..written).unwrap_or_default();
            self.show(shown, see);
            match status {
                _ if *budget == 0 => self.state = State::Done,
                Ok(Status::StreamEnd) => {
                    // The last token ends with its stream.
                    self.show(b"\n", see);
                    self.state = State::Done;
                }
                // No progress: it waits for the next window.
                Ok(Status::Ok | Status::BufError) if read + written == 0 => return,
                Ok(Status::Ok | Status::BufError) => {}
                Err(_) => {
                    if self.wanted == Wanted::Objects {
                        see(Inflated::Unreadable);
                    }
                    self.state = State::Done;
                }
            }
        }
    }

    fn show(&mut self, bytes: &[u8], see: &mut impl FnMut(Inflated<'_>)) {
        match self.wanted {
            Wanted::Objects => {
                for byte in bytes {
                    let grammar = &mut self.grammar;
                    self.tokens.byte(*byte, |token| see(Inflated::Token(grammar, token)));
                }
            }
            Wanted::Head => {
                let longest = PROGRAMS.iter().map(|magic| magic.len()).max().unwrap_or_default();
                let missing = longest - self.head.len();
                self.head.extend(bytes.iter().take(missing));
                if missing > 0 && self.head.len() == longest {
                    if PROGRAMS.iter().any(|magic| self.head.starts_with(magic)) {
                        see(Inflated::Program);
                    }
                    self.state = State::Done;
                }
            }
            Wanted::Nothing => {}
        }
    }
}
