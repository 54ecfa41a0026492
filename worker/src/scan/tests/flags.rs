//! What files hold besides data: each thing is found, however it is spelt, and good files have none of it.

use carrel_schemas::scan::FlagCode;
use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::*;

fn flags(format: FileFormat, bytes: &[u8]) -> Vec<FlagCode> {
    let limits = ScanLimits { inflated_bytes: 8 << 20, entries: 50 };
    let seen = inspect(format, &mut Cursor::new(bytes), &limits).expect("memory can be read");
    seen.unwrap_or_else(|refusal| panic!("{refusal:?}")).into_iter().map(|flag| flag.code).collect()
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

/// A document of one object with this dictionary and body, and of a trailer.
fn document(dictionary: &str, body: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = format!("%PDF-1.7\n1 0 obj\n{dictionary}\n").into_bytes();
    if let Some(body) = body {
        bytes.extend_from_slice(b"stream\r\n");
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(b"\nendstream\n");
    }
    bytes.extend_from_slice(b"endobj\ntrailer << /Root 1 0 R >>\nstartxref\n9\n%%EOF");
    bytes
}

fn relations(kind: &str, mode: &str) -> String {
    let types = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
    format!("<Relationships><Relationship Id='r' Type='{types}/{kind}' Target='x' {mode}/></Relationships>")
}

#[test]
fn what_a_workbook_reaches_for_or_runs_is_flagged() {
    use FlagCode as F;
    let external = "TargetMode=\"External\"";
    let sheet = |formula: &str| format!("<sheetData><c r='A1'><f>{formula}</f><v>1</v></c></sheetData>");
    let table: Vec<(&str, &str, String, Vec<F>)> = vec![
        ("a hyperlink", "xl/_rels/a.rels", relations("hyperlink", external), vec![]),
        ("a form's button", "xl/ctrlProps/p.xml", "<formControlPr/>".into(), vec![]),
        ("a formula", "xl/s.xml", sheet("SUM(A2:A9)&amp;\"EXEC(\""), vec![]),
        ("another workbook", "xl/_rels/a.rels", relations("externalLinkPath", external), vec![F::ExternalLink]),
        ("another, spelt", "xl/_rels/a.rels", relations("image", "TargetMode='&#69;xternal'"), vec![F::ExternalLink]),
        (
            "a link's own part",
            "xl/any.xml",
            "<externalLink><externalBook/></externalLink>".into(),
            vec![F::ExternalLink],
        ),
        ("DDE by part", "xl/any.xml", "<x:ddeLink ddeService='cmd' ddeTopic='/c calc'/>".into(), vec![F::Dde]),
        ("DDE by formula", "xl/s.xml", sheet("cmd|'/c calc'!A0"), vec![F::Dde]),
        ("OLE", "xl/_rels/a.rels", relations("oleObject", ""), vec![F::EmbeddedProgram]),
        ("OLE by name", "xl/embeddings/oleObject1.bin", "\u{1}".into(), vec![F::EmbeddedProgram]),
        ("a document", "xl/embeddings/a.docx", "PK".into(), vec![F::EmbeddedFile]),
        ("ActiveX", "xl/a.xml", "<ax:ocx ax:classid='{0}'/>".into(), vec![F::EmbeddedProgram]),
        ("a connection", "xl/connections.xml", "<connections/>".into(), vec![F::DataConnection]),
        ("a connection, renamed", "xl/_rels/a.rels", relations("connections", ""), vec![F::DataConnection]),
        ("a call", "xl/s.xml", sheet("IF(1,<!-- -->EX<![CDATA[EC]]>(\"calc\"))"), vec![F::CommandFormula]),
        (
            "a call by name",
            "xl/w.xml",
            "<definedName name='a'>CALL(\"k\")</definedName>".into(),
            vec![F::CommandFormula],
        ),
        ("a fetch", "xl/s.xml", sheet("_xlfn.WEBSERVICE(\"https://a\")"), vec![F::FetchingFormula]),
    ];
    for (what, part, body, wanted) in table {
        assert_eq!(flags(FileFormat::Xlsx, &workbook(&[(part, body.as_bytes())])), wanted, "{what}");
    }
    let wide: Vec<u8> = sheet("cmd|'/c calc'!A0").encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(flags(FileFormat::Xlsx, &workbook(&[("xl/s.xml", &wide)])), [F::Dde], "in UTF-16");
}

#[test]
fn macros_of_excel_4_are_macros() {
    let sheet = workbook(&[("xl/macrosheets/sheet1.xml", b"<xm:macrosheet/>")]);
    let renamed = workbook(&[("xl/_rels/workbook.xml.rels", relations("xlMacrosheet", "").as_bytes())]);
    for book in [sheet, renamed] {
        assert_eq!(verdict(FileFormat::Xlsx, &book), Some(RefusalCode::Macros));
    }
}

#[test]
fn cells_that_a_spreadsheet_would_run_are_counted_and_the_first_is_placed() {
    use FlagCode as F;
    let table: Vec<(&str, &[F])> = vec![
        ("sku,units\n00,-5\n\"=\"\"007\"\"\",+49 (0)30 12\n", &[]),
        ("a;-1,50 €;@home\n'=1+1;x=1;\"a\n=b\"\n", &[]),
        ("a,b\n1,=1+1\n", &[F::FormulaCells]),
        ("a,b\n1,\" =HYPERLINK(\"\"http://x\"\",\"\"y\"\")\"\n", &[F::FormulaCells]),
        ("\u{feff}=cmd|'/c calc'!A0", &[F::Dde, F::FormulaCells]),
        ("a\n@SUM(1)*cmd|'/c calc'!A0\n", &[F::Dde, F::FormulaCells]),
        ("a\t=IMPORTXML(\"http://x\"; \"//a\")\n", &[F::FetchingFormula, F::FormulaCells]),
    ];
    for (text, wanted) in table {
        assert_eq!(flags(FileFormat::Csv, text.as_bytes()), wanted, "{text}");
        assert_eq!(flags(FileFormat::Csv, &utf16(text)), wanted, "{text} in UTF-16");
    }
    let text = b"name,note\r\n\"two\nlines\",x\r\na,=A1\r\nb,=A2\r\n";
    let seen = inspect(FileFormat::Csv, &mut Cursor::new(text), &LIMITS).expect("read").expect("accepted");
    assert_eq!(seen.len(), 1);
    assert!(seen[0].message.contains("2 cells") && seen[0].message.contains("row 3, cell 2"), "{}", seen[0].message);
}

#[test]
fn what_a_pdf_would_run_or_carries_is_flagged_however_it_is_spelt_and_packed() {
    use FlagCode as F;
    let table: [(&str, &[F]); 17] = [
        ("<< /Type /Catalog /Names << /Dests 3 0 R >> /Title (JS) >>", &[]),
        ("<< /A << /S /URI /URI (https://example.com) >> >>", &[]),
        ("<< /JSX 1 /Launcher 2 /EncryptMetadata true >>", &[]),
        ("<< /S /JavaScript /JS (app.alert\\(1\\)) >>", &[F::Javascript]),
        ("<</S/J#61vaScript/#4a#53 9 0 R>>", &[F::Javascript]),
        ("<< /S /Launch /F (cmd.exe) >>", &[F::Launch]),
        ("<</Names<</EmbeddedFiles 4 0 R>>>>", &[F::EmbeddedFile]),
        ("<< /Subtype /RichMedia >>", &[F::EmbeddedProgram]),
        ("<< /AcroForm << /XFA [ 5 0 R ] >> >>", &[F::XfaForm]),
        ("<< /AA << /O 7 0 R >> >>", &[F::AutomaticAction]),
        ("<< /OpenAction [ 3 0 R /Fit ] /S /D >>", &[]),
        ("<< /OpenAction 7 0 R /PageMode /UseNone >>", &[]),
        ("<< /OpenAction << /S /GoTo /D [ 3 0 R /Fit ] >> >>", &[]),
        ("<< /OpenAction << /Type /Action /S /Named /N /Print >> >>", &[F::AutomaticAction]),
        ("<< /S /SubmitForm /F (https://example.com) >>", &[F::SubmittingForm]),
        ("<< /S /GoToR /F (\\\\\\\\host\\\\share\\\\a.pdf) >>", &[F::ExternalLink]),
        // A string that is left open hides nothing.
        ("( << /S /Launch >>", &[F::Launch]),
    ];
    for (objects, wanted) in table {
        assert_eq!(flags(FileFormat::Pdf, &document(objects, None)), wanted, "{objects}");
        // The same as compressed objects, across more than one window of the file.
        let packed = deflated(format!("{}7 0 {objects}", "1 0 (filler) ".repeat(9_000)).as_bytes());
        for dictionary in ["<< /Type /ObjStm /N 1 /First 4 /Filter /FlateDecode >>", "<</First 4/N 1/Filter 9 0 R>>"] {
            assert_eq!(flags(FileFormat::Pdf, &document(dictionary, Some(&packed))), wanted, "{objects}, packed");
        }
        assert_eq!(flags(FileFormat::Pdf, &document("<</Type/ObjStm/First 4>>", Some(objects.as_bytes()))), wanted);
    }
}

#[test]
fn what_streams_of_pictures_spell_is_no_action_and_an_object_within_one_is() {
    let picture = document("<< /Subtype /Image /Filter /DCTDecode >>", Some(b"\xff\xd8 /JS /Launch \xff\xd9"));
    assert!(flags(FileFormat::Pdf, &picture).is_empty());
    let hidden = document("<< /Subtype /Image /Filter /DCTDecode >>", Some(b"\xff\n5 0 obj << /S /Launch >>"));
    assert_eq!(flags(FileFormat::Pdf, &hidden), [FlagCode::Launch]);
}

#[test]
fn an_attached_program_is_told_from_an_attached_document() {
    let dictionary = "<< /Type /EmbeddedFile /Filter /FlateDecode >>";
    let program = document(dictionary, Some(&deflated(&[b"MZ\x90\0".to_vec(), vec![0; 100_000]].concat())));
    assert_eq!(flags(FileFormat::Pdf, &program), [FlagCode::EmbeddedProgram, FlagCode::EmbeddedFile]);
    let plain = document("<< /Type /EmbeddedFile >>", Some(b"\x7fELF\x02"));
    assert_eq!(flags(FileFormat::Pdf, &plain), [FlagCode::EmbeddedProgram, FlagCode::EmbeddedFile]);
    let invoice = document(dictionary, Some(&deflated(b"<?xml version='1.0'?><invoice/>")));
    assert_eq!(flags(FileFormat::Pdf, &invoice), [FlagCode::EmbeddedFile]);
}

#[test]
fn objects_that_the_scan_does_not_read_are_said_to_be_unseen() {
    let packed = deflated(b"7 0 << /S /Launch >>");
    for filters in ["/LZWDecode", "[/ASCII85Decode/FlateDecode]", "[/FlateDecode /FlateDecode]", "/#4cZW"] {
        let dictionary = format!("<< /Type /ObjStm /First 4 /Filter {filters} >>");
        let seen = flags(FileFormat::Pdf, &document(&dictionary, Some(&packed)));
        assert!(seen.contains(&FlagCode::UnseenObjects), "{filters}: {seen:?}");
    }
    let dictionary = "<< /Type /ObjStm /First 4 /Filter /FlateDecode >>";
    let mut spoiled = deflated(&b"7 0 << /S /GoTo >> ".repeat(500));
    spoiled[20..40].fill(0xff);
    assert_eq!(flags(FileFormat::Pdf, &document(dictionary, Some(&spoiled))), [FlagCode::UnseenObjects]);
}

#[test]
fn an_object_stream_that_inflates_without_end_is_a_bomb() {
    let bomb = deflated(&vec![b' '; 16 << 20]);
    let document = document("<< /Type /ObjStm /First 4 /Filter /FlateDecode >>", Some(&bomb));
    assert!(document.len() < 64 << 10);
    assert_eq!(verdict(FileFormat::Pdf, &document), Some(RefusalCode::ArchiveBomb));
}
