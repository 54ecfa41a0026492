//! A table of hostile files, built here, and what each is refused for.

use std::io::{Cursor, Write as _};

use zip::write::{SimpleFileOptions, ZipWriter};

use super::*;

mod flags;

const LIMITS: ScanLimits = ScanLimits { inflated_bytes: 1 << 20, entries: 50 };

fn container(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, body) in parts {
        zip.start_file(*name, SimpleFileOptions::default()).expect("part");
        zip.write_all(body).expect("body");
    }
    zip.finish().expect("zip").into_inner()
}

fn workbook(more: &[(&str, &[u8])]) -> Vec<u8> {
    let mut parts: Vec<(&str, &[u8])> = vec![("[Content_Types].xml", b"<Types/>"), ("xl/workbook.xml", b"<workbook/>")];
    parts.extend(more);
    container(&parts)
}

fn verdict(format: FileFormat, bytes: &[u8]) -> Option<RefusalCode> {
    let seen = inspect(format, &mut Cursor::new(bytes), &LIMITS).expect("memory can be read");
    seen.err().map(|refusal| {
        assert!(refusal.message.contains(';'), "{:?} names no next step", refusal.message);
        refusal.code
    })
}

fn utf16(text: &str) -> Vec<u8> {
    let mut bytes = vec![0xff, 0xfe];
    bytes.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    bytes
}

fn pdf(trailer: &str) -> Vec<u8> {
    let filler = "1 0 obj << /EncryptMetadata true >> endobj\n".repeat(3000);
    format!("%PDF-1.7\n{filler}trailer << /Root 1 0 R {trailer} >>\nstartxref\n9\n%%EOF").into_bytes()
}

#[test]
fn every_hostile_file_has_its_refusal() {
    use FileFormat::{Csv, Pdf, Xlsx};
    use RefusalCode as R;
    let zeroes = vec![0; 2 << 20];
    let macro_types: &[u8] = b"<Override ContentType=\"application/vnd.ms-excel.sheet.macroEnabled.main+xml\"/>";
    let compound = |name: &str| {
        let mut bytes = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".to_vec();
        bytes.resize(65_530, 0);
        bytes.extend(name.encode_utf16().flat_map(u16::to_le_bytes));
        bytes
    };
    let many: Vec<String> = (0..60).map(|n| format!("xl/{n}.xml")).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let good = workbook(&[("xl/worksheets/sheet1.xml", b"<sheetData/>")]);
    let mut flipped = workbook(&[("xl/a.xml", &b"abcdefgh".repeat(64))]);
    flipped[60] ^= 0x55;
    let table: Vec<(&str, FileFormat, Vec<u8>, Option<R>)> = vec![
        ("plain csv", Csv, b"sku,units\n1,2\n".to_vec(), None),
        ("latin-1 csv", Csv, b"caf\xe9,1\n".to_vec(), None),
        ("utf-16 csv with a mark", Csv, utf16("sku,units\n"), None),
        ("utf-16 csv without a mark", Csv, utf16("sku,units\n")[2..].to_vec(), Some(R::TypeMismatch)),
        ("nothing", Csv, Vec::new(), Some(R::Empty)),
        ("blanks", Csv, b" \n\r\n".to_vec(), Some(R::Empty)),
        ("a bare mark", Csv, vec![0xff, 0xfe], Some(R::Empty)),
        ("control characters", Csv, b"\x01\x02\x03,a\n".to_vec(), Some(R::TypeMismatch)),
        ("pdf named csv", Csv, pdf(""), Some(R::TypeMismatch)),
        ("web page named csv", Csv, b"\n<!DOCTYPE HTML><html>".to_vec(), Some(R::TypeMismatch)),
        ("picture named pdf", Pdf, b"\x89PNG\r\n".to_vec(), Some(R::TypeMismatch)),
        ("csv named xlsx", Xlsx, b"a,b\n".to_vec(), Some(R::TypeMismatch)),
        ("workbook", Xlsx, good.clone(), None),
        ("workbook named csv", Csv, good.clone(), Some(R::TypeMismatch)),
        ("workbook cut short", Xlsx, good[..good.len() / 2].to_vec(), Some(R::Broken)),
        ("workbook with wrong bytes", Xlsx, flipped, Some(R::Broken)),
        (
            "word document",
            Xlsx,
            container(&[("[Content_Types].xml", b""), ("word/document.xml", b"")]),
            Some(R::TypeMismatch),
        ),
        ("bomb", Xlsx, workbook(&[("xl/sharedStrings.xml", &zeroes)]), Some(R::ArchiveBomb)),
        ("bomb in the content types", Xlsx, container(&[("[Content_Types].xml", &zeroes)]), Some(R::ArchiveBomb)),
        ("thousand parts", Xlsx, workbook(&many), Some(R::ArchiveBomb)),
        ("macros", Xlsx, workbook(&[("xl/vbaProject.bin", b"x")]), Some(R::Macros)),
        (
            "macros by type",
            Xlsx,
            container(&[("[Content_Types].xml", macro_types), ("xl/workbook.xml", b"")]),
            Some(R::Macros),
        ),
        ("binary workbook", Xlsx, container(&[("xl/workbook.bin", b"")]), Some(R::UnsupportedType)),
        ("encrypted workbook", Xlsx, compound("EncryptedPackage"), Some(R::Encrypted)),
        ("old workbook", Xlsx, compound("Workbook"), Some(R::TypeMismatch)),
        ("pdf", Pdf, pdf(""), None),
        ("pdf after junk", Pdf, [b"junk\n".to_vec(), pdf("")].concat(), None),
        ("encrypted pdf", Pdf, pdf("/Encrypt 12 0 R"), Some(R::Encrypted)),
        ("encrypted pdf, in place", Pdf, pdf("/Encrypt<</Filter/Standard>>"), Some(R::Encrypted)),
        ("pdf cut off", Pdf, b"%PDF-1.7\n1 0 obj".to_vec(), Some(R::Broken)),
    ];
    for (what, format, bytes, wanted) in table {
        assert_eq!(verdict(format, &bytes), wanted, "{what}");
    }
}

#[test]
fn a_part_locked_by_zip_itself_is_encrypted() {
    let mut bytes = workbook(&[]);
    // The flag's lowest bit, in the local header and in the directory of the first entry.
    bytes[6] |= 1;
    let at = bytes.windows(4).position(|w| w == b"PK\x01\x02").expect("directory");
    bytes[at + 8] |= 1;
    assert_eq!(verdict(FileFormat::Xlsx, &bytes), Some(RefusalCode::Encrypted));
}

#[test]
fn sizes_that_a_container_declares_are_not_believed() {
    let mut bytes = workbook(&[("xl/a.xml", &vec![0; 2 << 20])]);
    // Declares ten bytes for the last entry, in its directory record.
    let at = bytes.windows(4).rposition(|w| w == b"PK\x01\x02").expect("directory");
    bytes[at + 24..at + 28].copy_from_slice(&10_u32.to_le_bytes());
    let refused = verdict(FileFormat::Xlsx, &bytes);
    assert!(matches!(refused, Some(RefusalCode::ArchiveBomb | RefusalCode::Broken)), "{refused:?}");
}
