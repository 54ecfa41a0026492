//! PDF: the text of each page, as lines.
//!
//! A page that cannot be read becomes a note and the others are kept. Scanned pages hold no text and are noted; there is
//! no recognition of images. Pages and text are capped here, time by whoever runs this.

use std::io::{Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};

use pdf_oxide::PdfDocument;

use crate::document::{Document, Note, NoteCode, PageText};
use crate::error::IngestError;
use crate::limits::Limits;
use crate::read::Names;
use crate::row::cut;

pub(crate) fn read<R: Read + Seek>(input: &mut R, names: &Names<'_>, limits: &Limits) -> Result<Document, IngestError> {
    let file = names.file;
    let (pdf, pages) = open(input, file, limits)?;
    let mut document = Document::default();
    let mut text_bytes = 0u64;
    let mut failed = None;
    for index in 0..pages {
        let page = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let text = match page_text(&pdf, index, file)? {
            Ok(text) => text,
            Err(cause) => {
                let message = format!("page {page} of {file} could not be read: {cause}");
                document.notes.push(Note::new(NoteCode::Page, message));
                failed = Some(cause);
                continue;
            }
        };
        text_bytes += text.len() as u64;
        if text_bytes > limits.max_text_bytes {
            let limit = limits.max_text_bytes;
            let thing = format!("the text of {file}");
            return Err(IngestError::TooLarge { thing, found: text_bytes, unit: "bytes", limit });
        }
        let lines: Vec<String> =
            text.lines().map(str::trim_end).filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
        if lines.is_empty() {
            let message = format!("page {page} of {file} holds no text; scanned pages are not recognised");
            document.notes.push(Note::new(NoteCode::Page, message));
        } else {
            document.texts.push(PageText { page, lines });
        }
    }
    match failed {
        Some(cause) if document.texts.is_empty() => Err(IngestError::Pdf { name: file.to_owned(), cause }),
        _ => Ok(document),
    }
}

/// The document and how many pages it has: at least one, and no more than are allowed.
fn open<R: Read + Seek>(input: &mut R, file: &str, limits: &Limits) -> Result<(PdfDocument, usize), IngestError> {
    let io = |source| IngestError::Io { name: file.to_owned(), source };
    let damaged = |cause: String| IngestError::Pdf { name: file.to_owned(), cause };
    let mut bytes = Vec::new();
    input.seek(SeekFrom::Start(0)).map_err(io)?;
    input.take(limits.max_file_bytes).read_to_end(&mut bytes).map_err(io)?;
    // Readers accept the mark anywhere within the first kilobyte.
    if !bytes[..bytes.len().min(1024)].windows(5).any(|window| window == b"%PDF-") {
        return Err(damaged("it does not begin with %PDF".to_owned()));
    }
    let pdf = PdfDocument::from_bytes(bytes).map_err(|error| refuse(file, &error))?;
    let pages = pdf.page_count().map_err(|error| refuse(file, &error))?;
    if pages == 0 {
        return Err(damaged("it has no pages".to_owned()));
    }
    if pages > limits.max_pages {
        let (found, limit) = (pages as u64, limits.max_pages as u64);
        return Err(IngestError::TooLarge { thing: file.to_owned(), found, unit: "pages", limit });
    }
    Ok((pdf, pages))
}

/// The text of a page, or why this page alone has none that can be read.
fn page_text(pdf: &PdfDocument, index: usize, file: &str) -> Result<Result<String, String>, IngestError> {
    match catch_unwind(AssertUnwindSafe(|| pdf.extract_text(index))) {
        Ok(Ok(text)) => Ok(Ok(text)),
        Ok(Err(pdf_oxide::Error::EncryptedPdf)) => Err(IngestError::EncryptedPdf { name: file.to_owned() }),
        Ok(Err(error)) => Ok(Err(cut(&error.to_string(), 200))),
        Err(_panic) => Ok(Err("its structure confuses the reader".to_owned())),
    }
}

fn refuse(file: &str, error: &pdf_oxide::Error) -> IngestError {
    match error {
        pdf_oxide::Error::EncryptedPdf => IngestError::EncryptedPdf { name: file.to_owned() },
        other => IngestError::Pdf { name: file.to_owned(), cause: cut(&other.to_string(), 200) },
    }
}
