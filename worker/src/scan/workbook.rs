//! XLSX: a ZIP container of XML. Inflated once, into nothing, with a count: sizes that it declares are not believed.
//!
//! What passes by is looked at for what reaches out of the workbook or runs. A reader finds parts by relationships, so
//! these are believed before the parts' names. Refuses to look into OLE objects; having one is enough.

use std::io::{self, Read, Seek};

use carrel_schemas::outcome::RefusalCode;
use carrel_schemas::scan::FlagCode;
use zip::ZipArchive;
use zip::result::ZipError;

use super::found::Found;
use super::xml::{self, Piece};
use super::{Inspection, Judged, ScanLimits, formula, refuse, windows};

/// What a part is by the folder that Excel gives it.
const FOLDERS: [(&str, FlagCode); 3] = [
    ("xl/externallinks/", FlagCode::ExternalLink),
    ("xl/connections.xml", FlagCode::DataConnection),
    ("xl/activex/", FlagCode::EmbeddedProgram),
];
/// What a part is by the relationship that leads to it.
const RELATIONS: [(&[u8], FlagCode); 6] = [
    (b"/externallink", FlagCode::ExternalLink),
    (b"/connections", FlagCode::DataConnection),
    (b"/oleobject", FlagCode::EmbeddedProgram),
    (b"/control", FlagCode::EmbeddedProgram),
    (b"/activexcontrolbinary", FlagCode::EmbeddedProgram),
    (b"/package", FlagCode::EmbeddedFile),
];
/// Content types and relationships of macros, those of Excel 4 among them.
const MACROS: [&[u8]; 3] = [b"macroenabled", b"vbaproject", b"macrosheet"];
/// Elements whose text is a formula: of cells, names, rules, charts and tables.
const FORMULAS: [&[u8]; 7] =
    [b"f", b"formula", b"formula1", b"formula2", b"definedName", b"calculatedColumnFormula", b"totalsRowFormula"];

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
    let mut found = Found::default();
    for index in 0..archive.len() {
        let (name, encrypted) = match archive.by_index_raw(index) {
            Ok(entry) => (String::from_utf8_lossy(entry.name_raw()).to_ascii_lowercase(), entry.encrypted()),
            Err(error) => return judge(error),
        };
        if encrypted {
            return Ok(locked());
        }
        if name.ends_with("vbaproject.bin") || name.contains("xl/macrosheets/") {
            return Ok(macros());
        }
        if name.ends_with("xl/workbook.bin") {
            let message = "is a binary workbook (XLSB); save it as XLSX";
            return Ok(refuse(RefusalCode::UnsupportedType, message));
        }
        types |= name == "[content_types].xml";
        workbook |= name.ends_with("xl/workbook.xml");
        let mut entry = match archive.by_index(index) {
            Ok(entry) => entry,
            Err(error) => return judge(error),
        };
        let mut part = entry.by_ref().take(budget.saturating_add(1));
        let mut look = Look::new(&name, &mut found);
        if let Err(error) = xml::pieces(&mut part, |piece| look.see(piece)) {
            return damaged(error);
        }
        if look.macros {
            return Ok(macros());
        }
        let inflated = budget.saturating_add(1) - part.limit();
        if inflated > budget {
            let most = limits.inflated_bytes;
            return Ok(bomb(format!("inflates beyond {most} bytes, its limit by size or by policy")));
        }
        budget -= inflated;
    }
    if !(types && workbook) {
        return Ok(refuse(RefusalCode::TypeMismatch, "is a ZIP container and no workbook; save it as XLSX"));
    }
    Ok(Ok(found.flags()))
}

/// One part, while it passes by.
struct Look<'a> {
    name: &'a str,
    found: &'a mut Found,
    macros: bool,
    /// The text that follows is a formula.
    formula: bool,
}

impl<'a> Look<'a> {
    fn new(name: &'a str, found: &'a mut Found) -> Self {
        let mut look = Self { name, found, macros: false, formula: false };
        if let Some((_, code)) = FOLDERS.iter().find(|(folder, _)| name.starts_with(folder)) {
            look.note(*code);
        } else if name.starts_with("xl/embeddings/") {
            let object = name.ends_with(".bin") || name.ends_with(".exe");
            look.note(if object { FlagCode::EmbeddedProgram } else { FlagCode::EmbeddedFile });
        }
        look
    }

    fn note(&mut self, code: FlagCode) {
        self.found.note(code, || format!("part {}", self.name));
    }

    fn see(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Text(text) if self.formula => {
                formula::look(&xml::resolved(text), |code| self.note(code));
            }
            Piece::Text(_) => {}
            Piece::Tag(tag) => {
                let name = xml::local_name(tag);
                self.formula = name.is_some_and(|name| FORMULAS.contains(&name));
                match name {
                    Some(b"Relationship") => self.relation(tag),
                    Some(b"Default" | b"Override") => {
                        let told = lowered(tag, b"ContentType");
                        self.macros |= MACROS.iter().any(|word| told.windows(word.len()).any(|at| at == *word));
                    }
                    Some(b"ddeLink") => self.note(FlagCode::Dde),
                    Some(b"oleLink" | b"externalBook") => self.note(FlagCode::ExternalLink),
                    Some(b"ocx") => self.note(FlagCode::EmbeddedProgram),
                    _ => {}
                }
            }
        }
    }

    fn relation(&mut self, tag: &[u8]) {
        let kind = lowered(tag, b"Type");
        self.macros |= MACROS.iter().any(|word| kind.windows(word.len()).any(|at| at == *word));
        if lowered(tag, b"TargetMode") == b"external" {
            // A hyperlink waits for a click of somebody who reads where it leads.
            if !kind.ends_with(b"/hyperlink") {
                self.note(FlagCode::ExternalLink);
            }
        } else if let Some((_, code)) = RELATIONS.iter().find(|(end, _)| kind.ends_with(end)) {
            self.note(*code);
        }
    }
}

fn lowered(tag: &[u8], name: &[u8]) -> Vec<u8> {
    xml::attribute(tag, name).unwrap_or_default().to_ascii_lowercase()
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

fn broken(error: &dyn std::fmt::Display) -> Judged {
    refuse(RefusalCode::Broken, format!("is damaged ({error}); open it, save it again and upload that"))
}

fn bomb(what: String) -> Judged {
    refuse(RefusalCode::ArchiveBomb, format!("{what}; split the workbook, or ask for a higher limit"))
}

fn locked() -> Judged {
    refuse(RefusalCode::Encrypted, "is protected by a password; save it without one and upload it again")
}

fn macros() -> Judged {
    refuse(RefusalCode::Macros, "carries macros; save it as XLSX without them")
}
