//! PDF: lines with their pages, and the numbers in them.

use carrel_ingest::{Document, Format, IngestError, Limits, NoteCode, labelled_numbers, read_bytes};
use pdf_writer::{Content, Finish, Name, Pdf, Rect, Ref, Str};

pub(crate) fn pdf(pages: &[&[&str]]) -> Vec<u8> {
    let mut pdf = Pdf::new();
    let (catalog, tree, font) = (Ref::new(1), Ref::new(2), Ref::new(3));
    let page_ref = |at: usize| Ref::new(10 + 2 * i32::try_from(at).unwrap());
    pdf.catalog(catalog).pages(tree);
    pdf.pages(tree).kids((0..pages.len()).map(page_ref)).count(i32::try_from(pages.len()).unwrap());
    pdf.type1_font(font).base_font(Name(b"Helvetica"));
    for (at, lines) in pages.iter().enumerate() {
        let content_ref = Ref::new(page_ref(at).get() + 1);
        let mut page = pdf.page(page_ref(at));
        page.media_box(Rect::new(0.0, 0.0, 595.0, 842.0)).parent(tree).contents(content_ref);
        page.resources().fonts().pair(Name(b"F1"), font);
        page.finish();
        let mut content = Content::new();
        for (row, line) in lines.iter().enumerate() {
            content.begin_text();
            content.set_font(Name(b"F1"), 12.0);
            content.next_line(72.0, 770.0 - 24.0 * row as f32);
            content.show(Str(line.as_bytes()));
            content.end_text();
        }
        pdf.stream(content_ref, &content.finish());
    }
    pdf.finish()
}

fn read(bytes: &[u8], limits: &Limits) -> Result<Document, IngestError> {
    read_bytes(bytes, "terms.pdf", Format::Pdf, limits)
}

#[test]
fn numbers_of_a_pdf_carry_their_label_page_and_line() {
    let bytes = pdf(&[
        &["Trade terms 2026", "Total net sales: $1,234,567.50"],
        &["Growth rebate 2.5%", "valid until 2026-12-31"],
    ]);
    let document = read(&bytes, &Limits::default()).expect("readable");
    assert_eq!(document.texts.iter().map(|text| text.page).collect::<Vec<_>>(), [1, 2]);
    let total = labelled_numbers(&document.texts[0]).into_iter().find(|number| number.label == "Total net sales");
    let total = total.unwrap_or_else(|| panic!("no total in {:?}", document.texts[0]));
    assert_eq!((total.value, total.unit.as_deref(), total.page), (1_234_567.5, Some("$"), 1));
    let rebate = &labelled_numbers(&document.texts[1])[0];
    assert_eq!((rebate.label.as_str(), rebate.value, rebate.unit.as_deref()), ("Growth rebate", 0.025, Some("%")));
}

#[test]
fn a_page_without_text_is_noted() {
    let document = read(&pdf(&[&[], &["words"]]), &Limits::default()).expect("readable");
    assert_eq!((document.texts.len(), document.texts[0].page), (1, 2));
    assert_eq!(document.notes[0].code, NoteCode::Page);
    assert!(document.notes[0].message.starts_with("page 1 of terms.pdf holds no text"));
}

#[test]
fn a_pdf_of_garbage_is_refused_by_name() {
    let limits = Limits::default();
    let error = read(b"no pdf at all", &limits).unwrap_err();
    assert_eq!(error.to_string(), "PDF terms.pdf is damaged: it does not begin with %PDF; print it to PDF again");
    let error = read(b"%PDF-1.7\n\x00\xff\x13garbage", &limits).unwrap_err();
    assert!(error.to_string().starts_with("PDF terms.pdf is damaged: "), "{error}");
}

#[test]
fn too_many_pages_or_too_much_text_are_refused() {
    let bytes = pdf(&[&["one"], &["two"], &["three"]]);
    let error = read(&bytes, &Limits { max_pages: 2, ..Limits::default() }).unwrap_err();
    assert!(error.to_string().starts_with("terms.pdf has 3 pages, the limit is 2"), "{error}");
    let error = read(&bytes, &Limits { max_text_bytes: 4, ..Limits::default() }).unwrap_err();
    assert!(matches!(error, IngestError::TooLarge { unit: "bytes", limit: 4, .. }), "{error}");
}
