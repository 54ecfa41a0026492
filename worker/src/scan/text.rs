//! Delimited text: bytes that a person can have meant as text. UTF-16 with a byte order mark counts.

use std::io::Read;

use carrel_schemas::outcome::RefusalCode;

use super::{Inspection, refuse, windows};

/// One control character among this many bytes is a scar of an export; more is a binary file.
const ODD_ONE_IN: u64 = 100;

/// Counts what text does not hold.
pub(super) fn inspect(file: &mut impl Read) -> Inspection {
    let (mut seen, mut odd, mut blank, mut nul) = (0_u64, 0_u64, 0_u64, false);
    let mut wide = None;
    windows(file, 0, |window| {
        let wide = *wide.get_or_insert(window.starts_with(b"\xff\xfe") || window.starts_with(b"\xfe\xff"));
        seen += window.len() as u64;
        for byte in window {
            match byte {
                0 => nul = true,
                b' ' | b'\t' | b'\r' | b'\n' => blank += 1,
                0x01..=0x08 | 0x0b | 0x0e..=0x19 | 0x1b..=0x1f => odd += 1,
                _ => {}
            }
        }
        // Half the bytes of UTF-16 are zero; elsewhere one is enough to stop at.
        wide || !nul
    })?;
    let wide = wide == Some(true);
    if !wide && (nul || odd.saturating_mul(ODD_ONE_IN) > seen) {
        return Ok(refuse(RefusalCode::TypeMismatch, "is named as CSV and is no text; export it as CSV in UTF-8"));
    }
    if blank == seen || (wide && seen <= 2) {
        return Ok(refuse(RefusalCode::Empty, "holds nothing but blanks; upload it again"));
    }
    Ok(Ok(()))
}
