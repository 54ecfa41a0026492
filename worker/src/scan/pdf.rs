//! PDF: encrypted, or no document at all. JavaScript and launch actions are not refused: nothing here runs them.

use std::io::Read;

use carrel_schemas::outcome::RefusalCode;

use super::{Inspection, refuse, windows};

/// Longest construct looked for: `/Encrypt`, blanks, `4294967295 65535 R`.
const OVERLAP: usize = 64;

/// Looks for an encryption dictionary and for any cross-reference, wherever they stand.
pub(super) fn inspect(file: &mut impl Read) -> Inspection {
    let (mut encrypted, mut referenced) = (false, false);
    windows(file, OVERLAP, |window| {
        encrypted |= names_encryption(window);
        referenced |= has(window, b"startxref") || has(window, b"trailer");
        !encrypted
    })?;
    if encrypted {
        return Ok(refuse(
            RefusalCode::Encrypted,
            "is protected by a password; save it without one and upload it again",
        ));
    }
    if !referenced {
        return Ok(refuse(RefusalCode::Broken, "is cut off: its table of contents is missing; export it again"));
    }
    Ok(Ok(()))
}

/// `/Encrypt 12 0 R` or `/Encrypt <<`, as a trailer or a cross-reference stream has it; not `/EncryptMetadata`.
fn names_encryption(window: &[u8]) -> bool {
    const KEY: &[u8] = b"/Encrypt";
    let mut rest = window;
    while let Some(at) = rest.windows(KEY.len()).position(|w| w == KEY) {
        rest = &rest[at + KEY.len()..];
        let value = rest.trim_ascii_start();
        let number = value.len() < rest.len() && value.first().is_some_and(u8::is_ascii_digit);
        if value.starts_with(b"<<") || (number && is_reference(value)) {
            return true;
        }
    }
    false
}

fn is_reference(value: &[u8]) -> bool {
    let mut words = value.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let digits = |word: Option<&[u8]>| word.is_some_and(|word| word.iter().all(u8::is_ascii_digit));
    digits(words.next()) && digits(words.next()) && words.next().is_some_and(|word| word.starts_with(b"R"))
}

fn has(window: &[u8], wanted: &[u8]) -> bool {
    window.windows(wanted.len()).any(|at| at == wanted)
}
