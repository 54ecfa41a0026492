//! Looks a workbook's container over before any parser opens it.
//!
//! Counts what really inflates, since declared sizes lie, and refuses a string table that claims more strings than its
//! bytes could hold: the parser reserves memory for the claim, and a failed reservation aborts the process.

use std::io::{Read, Seek};

use zip::ZipArchive;
use zip::result::ZipError;

use crate::error::IngestError;
use crate::limits::Limits;
use crate::row::cut;

const MAX_PARTS: usize = 10_000;
/// A claim that costs 24 MB at most is not worth a refusal.
const HARMLESS_CLAIM: u64 = 1_000_000;
const CLAIM: &[u8] = b"uniqueCount";
/// Room for the claim, its spaces and twenty digits.
const OVERLAP: usize = 64;

pub(crate) fn check<R: Read + Seek>(input: &mut R, name: &str, limits: &Limits) -> Result<(), IngestError> {
    let damaged = |cause: String| IngestError::Workbook { name: name.to_owned(), cause };
    let mut archive = ZipArchive::new(input).map_err(|error| damaged(error.to_string()))?;
    if archive.len() > MAX_PARTS {
        return Err(too_large(name, archive.len() as u64, "parts", MAX_PARTS as u64));
    }
    let limit = limits.max_inflated_bytes;
    let mut left = limit;
    let mut buffer = vec![0; 64 << 10];
    for index in 0..archive.len() {
        let mut part = match archive.by_index(index) {
            Ok(part) => part,
            Err(ZipError::UnsupportedArchive(ZipError::PASSWORD_REQUIRED)) => {
                return Err(IngestError::EncryptedWorkbook { name: name.to_owned() });
            }
            Err(error) => return Err(damaged(error.to_string())),
        };
        if part.size() > left {
            return Err(too_large(name, limit - left + part.size(), "inflated bytes", limit));
        }
        let part_name = part.name().map_err(|error| damaged(error.to_string()))?.into_owned();
        let strings = part_name.to_ascii_lowercase().ends_with("sharedstrings.xml");
        let mut claims = Claims::default();
        let mut inflated = 0u64;
        loop {
            let read = part.read(&mut buffer).map_err(|error| damaged(format!("{}: {error}", cut(&part_name, 80))))?;
            if read == 0 {
                break;
            }
            inflated += read as u64;
            left = match left.checked_sub(read as u64) {
                Some(left) => left,
                None => return Err(too_large(name, limit + 1, "inflated bytes", limit)),
            };
            if strings {
                claims.look(&buffer[..read]);
            }
        }
        // `<si/>` is the shortest string there is.
        if claims.largest > HARMLESS_CLAIM.max(inflated / 5) {
            return Err(damaged(format!("it claims {} strings in {inflated} bytes", claims.largest)));
        }
    }
    Ok(())
}

fn too_large(name: &str, found: u64, unit: &'static str, limit: u64) -> IngestError {
    IngestError::TooLarge { thing: name.to_owned(), found, unit, limit }
}

/// The largest number of strings that a table claims to hold, wherever in it.
#[derive(Debug, Default)]
struct Claims {
    largest: u64,
    window: Vec<u8>,
}

impl Claims {
    fn look(&mut self, bytes: &[u8]) {
        // Without zeros, UTF-16 looks like UTF-8 where it matters.
        self.window.extend(bytes.iter().filter(|byte| **byte != 0));
        for (at, _) in self.window.windows(CLAIM.len()).enumerate().filter(|(_, bytes)| *bytes == CLAIM) {
            let digits = self.window[at + CLAIM.len()..]
                .iter()
                .skip_while(|byte| byte.is_ascii_whitespace() || matches!(byte, b'=' | b'"' | b'\''))
                .take_while(|byte| byte.is_ascii_digit());
            let claim = digits.fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
            self.largest = self.largest.max(claim);
        }
        let keep = self.window.len().saturating_sub(OVERLAP);
        self.window.drain(..keep);
    }
}
