//! Pages of text and ruled tables, with pdf-writer.
//!
//! Owns a flow from the top of a Letter page to its footer: headings, lines, tables whose cells are ruled and whose
//! numbers are set right. One font from every reader's own fourteen; content streams are left uncompressed. Refuses
//! letters outside WinAnsi.

use pdf_writer::{Content, Finish, Name, Pdf, Rect, Ref, Str, TextStr};

use crate::LABEL;

const WIDTH: f32 = 612.0;
const HEIGHT: f32 = 792.0;
const MARGIN: f32 = 54.0;
const ROW: f32 = 16.0;
/// A digit of Helvetica is 556 thousandths of its size wide.
const DIGIT: f32 = 0.556;
const TEXT: f32 = 9.0;
/// From a row's base line down to its rule.
const BELOW: f32 = 4.0;

/// A column: its heading, its width in points, whether it holds numbers.
pub(crate) struct Column {
    pub(crate) head: &'static str,
    pub(crate) width: f32,
    pub(crate) number: bool,
}

pub(crate) const fn text(head: &'static str, width: f32) -> Column {
    Column { head, width, number: false }
}

pub(crate) const fn number(head: &'static str, width: f32) -> Column {
    Column { head, width, number: true }
}

/// A document in the making.
pub(crate) struct Document {
    title: String,
    pages: Vec<Content>,
    y: f32,
}

impl Document {
    pub(crate) fn new(title: &str) -> Self {
        let mut document = Self { title: title.to_owned(), pages: Vec::new(), y: 0.0 };
        document.turn();
        document.heading(title);
        document
    }

    pub(crate) fn heading(&mut self, words: &str) {
        self.room(30.0);
        self.put(MARGIN, 13.0, words);
        self.y -= 22.0;
    }

    pub(crate) fn line(&mut self, words: &str) {
        self.room(ROW);
        self.put(MARGIN, 10.0, words);
        self.y -= ROW;
    }

    /// A ruled table; rows that do not fit go on below the heading's repetition on the next page.
    pub(crate) fn table(&mut self, columns: &[Column], rows: &[Vec<String>]) {
        let heads: Vec<String> = columns.iter().map(|column| column.head.to_owned()).collect();
        self.room(3.0 * ROW);
        let mut top = self.y;
        self.row(columns, &heads);
        for row in rows {
            if self.y < MARGIN + 2.0 * ROW {
                self.rule(columns, top);
                self.turn();
                top = self.y;
                self.row(columns, &heads);
            }
            self.row(columns, row);
        }
        self.rule(columns, top);
        self.y -= ROW;
    }

    fn row(&mut self, columns: &[Column], cells: &[String]) {
        let mut left = MARGIN;
        for (column, cell) in columns.iter().zip(cells) {
            let wide = cell.len() as f32 * DIGIT * TEXT;
            let at = if column.number { left + column.width - 4.0 - wide } else { left + 4.0 };
            self.put(at.max(left + 2.0), TEXT, cell);
            left += column.width;
        }
        self.y -= ROW;
    }

    /// The rules of the rows from `top` down to here, as whole lines.
    fn rule(&mut self, columns: &[Column], top: f32) {
        let (head, foot) = (top + ROW - BELOW, self.y + ROW - BELOW);
        let rows = ((head - foot) / ROW).round() as usize;
        let wide: f32 = columns.iter().map(|column| column.width).sum();
        let page = self.pages.last_mut().expect("a document has a page");
        page.set_line_width(0.5);
        for row in 0..=rows {
            let y = head - row as f32 * ROW;
            page.move_to(MARGIN, y).line_to(MARGIN + wide, y).stroke();
        }
        let mut x = MARGIN;
        for width in columns.iter().map(|column| column.width).chain([0.0]) {
            page.move_to(x, head).line_to(x, foot).stroke();
            x += width;
        }
    }

    fn room(&mut self, needed: f32) {
        if self.y - needed < MARGIN + ROW {
            self.turn();
        }
    }

    /// Goes on at the top of the next page.
    pub(crate) fn turn(&mut self) {
        self.pages.push(Content::new());
        self.y = 32.0;
        self.put(MARGIN, 8.0, &format!("{LABEL} Page {}.", self.pages.len()));
        self.y = HEIGHT - MARGIN - 10.0;
    }

    fn put(&mut self, x: f32, size: f32, words: &str) {
        let bytes: Vec<u8> =
            words.chars().map(|letter| u8::try_from(u32::from(letter)).expect("a WinAnsi letter")).collect();
        let page = self.pages.last_mut().expect("a document has a page");
        page.begin_text();
        page.set_font(Name(b"F1"), size);
        page.next_line(x, self.y);
        page.show(Str(&bytes));
        page.end_text();
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        let (catalog, tree, font, info) = (Ref::new(1), Ref::new(2), Ref::new(3), Ref::new(4));
        let count = self.pages.len() as i32;
        let page = |number: i32| Ref::new(5 + 2 * number);
        let content = |number: i32| Ref::new(6 + 2 * number);
        let mut pdf = Pdf::new();
        pdf.catalog(catalog).pages(tree);
        pdf.pages(tree).kids((0..count).map(page)).count(count);
        pdf.document_info(info).title(TextStr(&self.title)).subject(TextStr(LABEL));
        pdf.type1_font(font).base_font(Name(b"Helvetica")).encoding_predefined(Name(b"WinAnsiEncoding"));
        for (number, stream) in (0..).zip(self.pages) {
            let mut sheet = pdf.page(page(number));
            sheet.media_box(Rect::new(0.0, 0.0, WIDTH, HEIGHT));
            sheet.parent(tree);
            sheet.contents(content(number));
            sheet.resources().fonts().pair(Name(b"F1"), font);
            sheet.finish();
            pdf.stream(content(number), &stream.finish());
        }
        pdf.finish()
    }
}
