//! Why a file is refused: the thing, the cause, the next step, in words for the person who uploaded it.

/// A refusal of a whole file.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The file could not be read from disk.
    #[error("read {name}: upload it again if this persists")]
    Io {
        /// The file or its part.
        name: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// More of something than the limits allow.
    #[error("{thing} has {found} {unit}, the limit is {limit}: split it, or ask for a higher limit")]
    TooLarge {
        /// The file, sheet or row.
        thing: String,
        /// What was found, at least.
        found: u64,
        /// What is counted.
        unit: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// Bytes that are no text in any encoding this crate reads.
    #[error("{name} is no text: byte {offset} is zero; export it as CSV in UTF-8")]
    NotText {
        /// The file.
        name: String,
        /// Where.
        offset: u64,
    },
    /// A quote that swallows the rest of the file.
    #[error("row {row} of {name} is longer than {limit} bytes: a quote opens there and does not close; fix the row")]
    UnclosedQuote {
        /// The file.
        name: String,
        /// Spreadsheet row where it begins.
        row: u64,
        /// The longest row allowed.
        limit: u64,
    },
    /// A workbook that needs a password, or a workbook of an older format.
    #[error("{name} is encrypted or of the old binary format: save it as .xlsx without a password")]
    EncryptedWorkbook {
        /// The file.
        name: String,
    },
    /// A workbook that cannot be read.
    #[error("workbook {name} is damaged: {cause}; open it, repair it and save it as .xlsx again")]
    Workbook {
        /// The file.
        name: String,
        /// What the reader met.
        cause: String,
    },
    /// A PDF that needs a password.
    #[error("{name} needs a password: save it without one")]
    EncryptedPdf {
        /// The file.
        name: String,
    },
    /// A PDF that cannot be read.
    #[error("PDF {name} is damaged: {cause}; print it to PDF again")]
    Pdf {
        /// The file.
        name: String,
        /// What the reader met.
        cause: String,
    },
}
