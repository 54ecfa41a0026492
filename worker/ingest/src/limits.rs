//! How much of a file is read before it is refused. Every loop of this crate ends at one of these.

/// The bounds of one file. What exceeds them is refused by name, never cut in silence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the file itself.
    pub max_file_bytes: u64,
    /// Bytes that a workbook's parts may inflate to, counted while inflating.
    pub max_inflated_bytes: u64,
    /// Bytes of one row of delimited text: an unclosed quote ends here.
    pub max_record_bytes: u64,
    /// Worksheets of a workbook.
    pub max_sheets: usize,
    /// Rows of one table.
    pub max_rows: u64,
    /// Columns of one table.
    pub max_columns: usize,
    /// Cells (rows times columns) of all tables of a file.
    pub max_cells: u64,
    /// Pages of a PDF.
    pub max_pages: usize,
    /// Bytes of text taken from a PDF.
    pub max_text_bytes: u64,
    /// Problems listed one by one for each table; the rest are counted.
    pub max_listed: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_file_bytes: 256 << 20,
            max_inflated_bytes: 1 << 30,
            max_record_bytes: 1 << 20,
            max_sheets: 256,
            max_rows: 5_000_000,
            max_columns: 4_096,
            max_cells: 60_000_000,
            max_pages: 2_000,
            max_text_bytes: 64 << 20,
            max_listed: 1_000,
        }
    }
}
