//! What was read of a pack: tables, pages of text, and what became of each file.

use crate::frame::{Frame, FrameSource};

/// A page of text with the numbers of each line.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    pub(crate) source: FrameSource,
    pub(crate) page: u32,
    pub(crate) lines: Vec<Line>,
}

/// One line.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) numbers: Vec<f64>,
}

/// What was read of a pack.
#[derive(Debug, Default)]
pub struct Pack {
    /// Its name: text to print.
    pub name: String,
    /// Its tables.
    pub frames: Vec<Frame>,
    pub(crate) pages: Vec<Page>,
    /// Files: name, and what became of it.
    pub(crate) files: Vec<(String, String)>,
    /// What a reader must know about the files.
    pub(crate) notes: Vec<String>,
    /// Files that hold more than data, and what.
    pub(crate) flagged: Vec<(FrameSource, Vec<String>)>,
    /// Files that could not be read or were refused.
    pub(crate) refused: Vec<(String, String)>,
}
