//! Bytes to characters: which encoding, then UTF-8 with `\n` line ends, in bounded memory.
//!
//! A byte order mark decides; otherwise valid UTF-8 is UTF-8, zeros in every other byte are UTF-16, and the rest is
//! assumed to be Windows-1252, which is noted. Other zero bytes mean a binary file, which is refused.

use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom};
use std::rc::Rc;

use encoding_rs::{Decoder, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

use crate::document::{Encoding, Note, NoteCode};
use crate::error::IngestError;

const CHUNK: usize = 64 << 10;

/// What was found by looking at every byte once.
#[derive(Debug)]
pub(crate) struct Detected {
    pub(crate) encoding: Encoding,
    /// Bytes of the byte order mark.
    pub(crate) skip: u64,
    pub(crate) note: Option<Note>,
}

pub(crate) fn detect<R: Read + Seek>(input: &mut R, name: &str) -> Result<Detected, IngestError> {
    let io = |source| IngestError::Io { name: name.to_owned(), source };
    input.seek(SeekFrom::Start(0)).map_err(io)?;
    let mut chunk = vec![0; CHUNK];
    let mut kept = 0; // bytes of a character that the former chunk cut in two
    let mut at = 0u64;
    let mut valid = true;
    loop {
        let read = fill(input, &mut chunk[kept..]).map_err(io)?;
        let bytes = &chunk[..kept + read];
        if at == 0 {
            let marked = match bytes {
                [0xEF, 0xBB, 0xBF, ..] => Some((Encoding::Utf8, 3)),
                [0xFF, 0xFE, ..] => Some((Encoding::Utf16Le, 2)),
                [0xFE, 0xFF, ..] => Some((Encoding::Utf16Be, 2)),
                _ => None,
            };
            if let Some((encoding, skip)) = marked {
                return Ok(Detected { encoding, skip, note: None });
            }
            if let Some(encoding) = unmarked_utf16(&bytes[..bytes.len().min(4096)]) {
                let message = format!("{name} has no byte order mark; read as {encoding} from its zero bytes");
                return Ok(Detected { encoding, skip: 0, note: Some(Note::new(NoteCode::Encoding, message)) });
            }
        }
        if let Some(zero) = bytes.iter().position(|byte| *byte == 0) {
            return Err(IngestError::NotText { name: name.to_owned(), offset: at + zero as u64 });
        }
        let last = read == 0;
        if valid {
            let good = encoding_rs::Encoding::utf8_valid_up_to(bytes);
            let rest = bytes.len() - good;
            valid = rest == 0 || (rest < 4 && !last);
            at += good as u64;
            kept = if valid { rest } else { 0 };
            chunk.copy_within(good..good + kept, 0);
        }
        if last {
            break;
        }
    }
    if valid {
        return Ok(Detected { encoding: Encoding::Utf8, skip: 0, note: None });
    }
    let message = format!("{name} is no valid UTF-8; read as Windows-1252, so check accents and currency signs");
    let note = Some(Note::new(NoteCode::Encoding, message));
    Ok(Detected { encoding: Encoding::Windows1252, skip: 0, note })
}

fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Mostly Latin text in UTF-16 has its zeros on one side of each pair.
fn unmarked_utf16(head: &[u8]) -> Option<Encoding> {
    let pairs = head.len() / 2;
    if pairs < 4 {
        return None;
    }
    let zeros = |side: usize| head.chunks_exact(2).filter(|pair| pair[side] == 0).count();
    let (first, second) = (zeros(0), zeros(1));
    if second * 10 >= pairs * 7 && first == 0 {
        Some(Encoding::Utf16Le)
    } else if first * 10 >= pairs * 7 && second == 0 {
        Some(Encoding::Utf16Be)
    } else {
        None
    }
}

/// What the reader of records and this reader of text tell each other.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    /// Bytes handed out since the last whole record.
    pub(crate) since_record: Cell<u64>,
    /// A record exceeded its limit.
    pub(crate) exceeded: Cell<bool>,
    /// Something could not be decoded.
    pub(crate) replaced: Cell<bool>,
}

/// Decodes to UTF-8, turns `\r\n` and `\r` into `\n`, and ends with a `\n`.
pub(crate) struct Utf8Lines<R> {
    input: R,
    decoder: Decoder,
    raw: Vec<u8>,
    raw_from: usize,
    raw_to: usize,
    ended: bool,
    out: Vec<u8>,
    out_from: usize,
    out_to: usize,
    after_return: bool,
    gauge: Rc<Gauge>,
    max_record: u64,
}

impl<R: Read + Seek> Utf8Lines<R> {
    /// Starts at the first character after the byte order mark.
    pub(crate) fn open(mut input: R, detected: &Detected, gauge: Rc<Gauge>, max_record: u64) -> io::Result<Self> {
        input.seek(SeekFrom::Start(detected.skip))?;
        let encoding = match detected.encoding {
            Encoding::Utf8 => UTF_8,
            Encoding::Utf16Le => UTF_16LE,
            Encoding::Utf16Be => UTF_16BE,
            Encoding::Windows1252 => WINDOWS_1252,
        };
        gauge.since_record.set(0);
        Ok(Self {
            input,
            decoder: encoding.new_decoder_without_bom_handling(),
            raw: vec![0; CHUNK],
            raw_from: 0,
            raw_to: 0,
            ended: false,
            out: vec![0; CHUNK],
            out_from: 0,
            out_to: 0,
            after_return: false,
            gauge,
            max_record,
        })
    }

    /// Makes `out` hold something, unless the text has ended.
    fn advance(&mut self) -> io::Result<()> {
        while self.out_from == self.out_to && !self.ended {
            if self.raw_from == self.raw_to {
                self.raw_from = 0;
                self.raw_to = fill(&mut self.input, &mut self.raw)?;
            }
            let last = self.raw_to == 0;
            let source = &self.raw[self.raw_from..self.raw_to];
            let (result, read, written, replaced) = self.decoder.decode_to_utf8(source, &mut self.out, last);
            if replaced {
                self.gauge.replaced.set(true);
            }
            self.raw_from += read;
            self.out_from = 0;
            self.out_to = self.normalise(written);
            if last && result == encoding_rs::CoderResult::InputEmpty {
                self.ended = true;
                // `out` never fills to its last byte with only a replacement left to write.
                if self.out_to == self.out.len() {
                    self.out.push(0);
                }
                self.out[self.out_to] = b'\n';
                self.out_to += 1;
            }
        }
        Ok(())
    }

    fn normalise(&mut self, written: usize) -> usize {
        let mut kept = 0;
        for at in 0..written {
            let byte = self.out[at];
            let second_half = byte == b'\n' && self.after_return;
            self.after_return = byte == b'\r';
            if !second_half {
                self.out[kept] = if byte == b'\r' { b'\n' } else { byte };
                kept += 1;
            }
        }
        kept
    }
}

impl<R: Read + Seek> Read for Utf8Lines<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Whole buffers were handed out beyond the record, so the bound is loose by their size.
        if self.gauge.since_record.get() > self.max_record + 2 * CHUNK as u64 {
            self.gauge.exceeded.set(true);
            return Err(io::Error::other("record too long"));
        }
        self.advance()?;
        let count = buffer.len().min(self.out_to - self.out_from);
        buffer[..count].copy_from_slice(&self.out[self.out_from..self.out_from + count]);
        self.out_from += count;
        self.gauge.since_record.set(self.gauge.since_record.get() + count as u64);
        Ok(count)
    }
}
