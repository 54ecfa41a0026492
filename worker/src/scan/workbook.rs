//! XLSX: a ZIP container of XML. Inflated once, into nothing, with a count: sizes that it declares are not believed.

use std::io::{self, Read, Seek, Take};

use carrel_schemas::outcome::RefusalCode;
use zip::ZipArchive;
use zip::result::ZipError;

use super::{Inspection, Refusal, ScanLimits, refuse, windows};

/// The parts that say what the container is are short.
const MAX_CONTENT_TYPES: u64 = 1 << 20;

/// Walks every entry of the container.
pub(super) fn inspect(file: &mut (impl Read + Seek), limits: &ScanLimits) -> Inspection {
    let mut archive = match ZipArchive::new(file) {
        Ok(archive) => archive,
        Err(error) => return judge(error),
    };
    if archive.len() > limits.entries {
        return Ok(bomb(format!("holds {} parts", archive.len())));
    }
    let mut budget = limits.inflated_bytes;
    let (mut types, mut workbook) = (false, false);
    for index in 0..archive.len() {
        let (name, encrypted) = match archive.by_index_raw(index) {
            Ok(entry) => (String::from_utf8_lossy(entry.name_raw()).to_ascii_lowercase(), entry.encrypted()),
            Err(error) => return judge(error),
        };
        if encrypted {
            return Ok(locked());
        }
        if name.ends_with("vbaproject.bin") {
            return Ok(macros());
        }
        if name.ends_with("xl/workbook.bin") {
            let message = "is a binary workbook (XLSB); save it as XLSX";
            return Ok(refuse(RefusalCode::UnsupportedType, message));
        }
        let is_types = name == "[content_types].xml";
        types |= is_types;
        workbook |= name.ends_with("xl/workbook.xml");
        let mut entry = match archive.by_index(index) {
            Ok(entry) => entry,
            Err(error) => return judge(error),
        };
        let mut part = entry.by_ref().take(budget.saturating_add(1));
        let told = if is_types { read_types(&mut part) } else { io::copy(&mut part, &mut io::sink()).map(|_| false) };
        match told {
            Ok(true) => return Ok(macros()),
            Ok(false) => {}
            Err(error) => return damaged(error),
        }
        let inflated = budget.saturating_add(1) - part.limit();
        if inflated > budget {
            return Ok(bomb(format!("inflates to more than {} bytes", limits.inflated_bytes)));
        }
        budget -= inflated;
    }
    if !(types && workbook) {
        return Ok(refuse(RefusalCode::TypeMismatch, "is a ZIP container and no workbook; save it as XLSX"));
    }
    Ok(Ok(()))
}

/// A compound file: its directory names `EncryptedPackage` (UTF-16) where it is an encrypted workbook.
pub(super) fn inspect_compound(file: &mut impl Read) -> Inspection {
    let wanted: Vec<u8> = "EncryptedPackage".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut encrypted = false;
    windows(file, wanted.len() - 1, |window| {
        encrypted |= window.windows(wanted.len()).any(|at| at == wanted);
        !encrypted
    })?;
    if encrypted {
        return Ok(locked());
    }
    let message = "is named as XLSX and is an Office file of before 2007; save it as XLSX";
    Ok(refuse(RefusalCode::TypeMismatch, message))
}

/// True if the content types name a workbook with macros.
fn read_types(part: &mut Take<impl Read>) -> io::Result<bool> {
    let mut text = Vec::new();
    part.by_ref().take(MAX_CONTENT_TYPES).read_to_end(&mut text)?;
    io::copy(part, &mut io::sink())?;
    text.make_ascii_lowercase();
    Ok([&b"macroenabled"[..], b"vbaproject"].iter().any(|word| text.windows(word.len()).any(|at| at == *word)))
}

fn judge(error: ZipError) -> Inspection {
    match error {
        ZipError::Io(error) => damaged(error),
        ZipError::UnsupportedArchive(ZipError::PASSWORD_REQUIRED) => Ok(locked()),
        error => Ok(broken(&error)),
    }
}

/// Wrong bytes are the file's fault, a disk that does not answer is ours.
fn damaged(error: io::Error) -> Inspection {
    use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    match error.kind() {
        InvalidData | InvalidInput | UnexpectedEof | Other => Ok(broken(&error)),
        _ => Err(error),
    }
}

fn broken(error: &dyn std::fmt::Display) -> Result<(), Refusal> {
    refuse(RefusalCode::Broken, format!("is damaged ({error}); open it, save it again and upload that"))
}

fn bomb(what: String) -> Result<(), Refusal> {
    refuse(RefusalCode::ArchiveBomb, format!("{what}; split the workbook, or ask for a higher limit"))
}

fn locked() -> Result<(), Refusal> {
    refuse(RefusalCode::Encrypted, "is protected by a password; save it without one and upload it again")
}

fn macros() -> Result<(), Refusal> {
    refuse(RefusalCode::Macros, "carries macros; save it as XLSX without them")
}
