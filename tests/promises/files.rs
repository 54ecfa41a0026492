//! Small files to upload: good ones, and each bad one with the reason it is bad.

use std::io::{Cursor, Write as _};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A table that the analyst has something to say about.
pub(crate) fn sales() -> Vec<u8> {
    let mut text = String::from("sku,week,units,sales\n");
    for row in 0..40 {
        text.push_str(&format!("{:05},2026-W{:02},{},{}\n", 100 + row % 10, 1 + row / 10, 5 + row, (5 + row) * 3));
    }
    text.into_bytes()
}

fn archive(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, bytes) in parts {
        writer.start_file(*name, options).expect("a part");
        writer.write_all(bytes).expect("its bytes");
    }
    writer.finish().expect("an archive").into_inner()
}

const CONTENT_TYPES: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
<Default Extension="xml" ContentType="application/xml"/>
<Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>
<Override PartName="/xl/worksheets/sheet1.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/>
</Types>"#;
const RELS: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
<Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/>
</Relationships>"#;
const WORKBOOK: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships">
<sheets><sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets></workbook>"#;
const WORKBOOK_RELS: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
<Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" Target="worksheets/sheet1.xml"/>
</Relationships>"#;

fn workbook(sheet: &[u8]) -> Vec<u8> {
    archive(&[
        ("[Content_Types].xml", CONTENT_TYPES.as_bytes()),
        ("_rels/.rels", RELS.as_bytes()),
        ("xl/workbook.xml", WORKBOOK.as_bytes()),
        ("xl/_rels/workbook.xml.rels", WORKBOOK_RELS.as_bytes()),
        ("xl/worksheets/sheet1.xml", sheet),
    ])
}

/// About one KiB on disk, and by its one cell as large as a sheet can be.
pub(crate) fn far_cell() -> Vec<u8> {
    workbook(
        br#"<?xml version="1.0" encoding="UTF-8"?>
<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><dimension ref="A1:XFD1048576"/>
<sheetData><row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData></worksheet>"#,
    )
}

/// A workbook whose sheet inflates to `inflated` bytes.
pub(crate) fn bomb(inflated: usize) -> Vec<u8> {
    workbook(&vec![b' '; inflated])
}

/// What Excel writes for a workbook with a password: a compound file that names its encrypted package.
pub(crate) fn encrypted() -> Vec<u8> {
    let mut bytes = vec![0xD0, 0xCF, 0x11, 0xE0, 0xA1, 0xB1, 0x1A, 0xE1];
    bytes.resize(1536, 0);
    bytes.extend("EncryptedPackage".encode_utf16().flat_map(u16::to_le_bytes));
    bytes.resize(2048, 0);
    bytes
}

/// A PDF by its first bytes and by nothing after them.
pub(crate) fn garbage_pdf() -> Vec<u8> {
    let mut bytes = b"%PDF-1.7\n".to_vec();
    bytes.extend((0..4096_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[2]));
    bytes
}

/// UTF-16 with a byte order mark, `columns` wide.
pub(crate) fn wide_utf16(columns: usize) -> Vec<u8> {
    let line = |cell: &dyn Fn(usize) -> String| (0..columns).map(cell).collect::<Vec<_>>().join(",") + "\n";
    let text = [line(&|n| format!("c{n}")), line(&|n| n.to_string()), line(&|n| (n * 2).to_string())].concat();
    std::iter::once(0xFEFF).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
}

/// A workbook that names another one, and whose formula fetches, both from `place`.
pub(crate) fn linked(place: &str) -> Vec<u8> {
    let sheet = format!(
        r#"<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>
<row r="1"><c r="A1" t="inlineStr"><is><t>sku</t></is></c><c r="B1" t="inlineStr"><is><t>units</t></is></c></row>
<row r="2"><c r="A2"><v>7</v></c><c r="B2"><f>_xlfn.WEBSERVICE("{place}fetched")</f><v>3</v></c></row>
<row r="3"><c r="A3"><v>8</v></c><c r="B3"><f>[1]Sheet1!A1</f><v>4</v></c></row></sheetData></worksheet>"#
    );
    let link = format!(
        r#"<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/externalLinkPath" Target="{place}other.xlsx" TargetMode="External"/></Relationships>"#
    );
    archive(&[
        ("[Content_Types].xml", CONTENT_TYPES.as_bytes()),
        ("_rels/.rels", RELS.as_bytes()),
        ("xl/workbook.xml", WORKBOOK.as_bytes()),
        ("xl/_rels/workbook.xml.rels", WORKBOOK_RELS.as_bytes()),
        ("xl/worksheets/sheet1.xml", sheet.as_bytes()),
        ("xl/externalLinks/_rels/externalLink1.xml.rels", link.as_bytes()),
    ])
}

/// A workbook whose formula starts a program by Dynamic Data Exchange.
pub(crate) fn dde() -> Vec<u8> {
    workbook(br#"<worksheet><sheetData><row r="1"><c r="A1"><f>cmd|'/c calc'!A0</f></c></row></sheetData></worksheet>"#)
}

/// A page of text in a document that runs JavaScript when it opens and makes the file `marker` when its page does.
pub(crate) fn active_pdf(marker: &str) -> Vec<u8> {
    let page = "BT /F1 12 Tf 72 720 Td (Total sales 120.00) Tj ET";
    pdf(&[
        "<< /Type /Catalog /Pages 2 0 R /OpenAction 6 0 R >>".to_owned(),
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_owned(),
        format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> \
             /AA << /O << /S /Launch /Win << /F (cmd.exe) /P (/c echo) >> /F (/bin/touch {marker}) >> >> >>"
        ),
        format!("<< /Length {} >>\nstream\n{page}\nendstream", page.len()),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
        "<< /S /JavaScript /J#53 (app.launchURL\\(\"http://127.0.0.1:9/\"\\)) >>".to_owned(),
    ])
}

/// A document of these objects, from number 1.
fn pdf(objects: &[String]) -> Vec<u8> {
    let mut text = "%PDF-1.7\n".to_owned();
    let mut table = String::new();
    for (at, object) in objects.iter().enumerate() {
        table.push_str(&format!("{:010} 00000 n \n", text.len()));
        text.push_str(&format!("{} 0 obj\n{object}\nendobj\n", at + 1));
    }
    let (from, count) = (text.len(), objects.len() + 1);
    text.push_str(&format!("xref\n0 {count}\n0000000000 65535 f \n{table}"));
    text.push_str(&format!("trailer\n<< /Size {count} /Root 1 0 R >>\nstartxref\n{from}\n%%EOF\n"));
    text.into_bytes()
}
