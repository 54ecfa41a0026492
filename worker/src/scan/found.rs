//! What one file was found to hold besides data: each sort once, with how often and where first.
//!
//! Owns the words that people read. Refuses to quote a stranger at length or raw: places are cut and made printable.

use std::collections::BTreeMap;

use carrel_schemas::scan::{FlagCode, ScanFlag};

use super::plain;

/// Characters of a place: a part's name is the uploader's own choice.
const MAX_PLACE: usize = 80;

/// Counts, and first places.
#[derive(Debug, Default)]
pub(super) struct Found(BTreeMap<FlagCode, (u64, String)>);

impl Found {
    /// One more of its sort; `place` is asked only for the first.
    pub(super) fn note(&mut self, code: FlagCode, place: impl FnOnce() -> String) {
        let first = || (0, plain(&place(), MAX_PLACE));
        self.0.entry(code).or_insert_with(first).0 += 1;
    }

    pub(super) fn flags(self) -> Vec<ScanFlag> {
        let flag = |(code, (count, place)): (_, (_, String))| ScanFlag { code, message: words(code, count, &place) };
        self.0.into_iter().map(flag).collect()
    }
}

fn words(code: FlagCode, count: u64, place: &str) -> String {
    let formulas = |what: &str| match count {
        1 => format!("holds a formula {what}, in {place}"),
        count => format!("holds {count} formulas {what}, the first in {place}"),
    };
    match code {
        FlagCode::Javascript => format!("carries JavaScript, first {place}"),
        FlagCode::Launch => format!("has an action that starts a program, first {place}"),
        FlagCode::Dde => format!("asks or starts another program (DDE), first in {place}"),
        FlagCode::EmbeddedProgram => format!("carries a program, a control or an OLE object, first {place}"),
        FlagCode::CommandFormula => formulas("that call into the system"),
        FlagCode::ExternalLink => format!("links to another file, first {place}"),
        FlagCode::DataConnection => format!("has a connection to a source of data, in {place}"),
        FlagCode::FetchingFormula => formulas("that fetch from elsewhere"),
        FlagCode::FormulaCells => match count {
            1 => format!("has a cell that a spreadsheet would take for a formula, in {place}"),
            count => format!("has {count} cells that a spreadsheet would take for formulas, the first in {place}"),
        },
        FlagCode::EmbeddedFile => format!("carries another file, first {place}"),
        FlagCode::AutomaticAction => format!("has an action that runs upon opening or turning a page, first {place}"),
        FlagCode::SubmittingForm => format!("has a form that sends or fetches, first {place}"),
        FlagCode::XfaForm => format!("has an XFA form, first {place}"),
        FlagCode::UnseenObjects => format!("packs objects in a way that was not looked into, first {place}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_short_and_printable_whatever_the_file_calls_its_parts() {
        let mut found = Found::default();
        found.note(FlagCode::ExternalLink, || format!("in \u{202e}\x1b[2J{}", "x".repeat(1000)));
        found.note(FlagCode::FormulaCells, || "row 2, cell 1".to_owned());
        found.note(FlagCode::FormulaCells, || unreachable!("only the first place is kept"));
        let flags = found.flags();
        assert!(
            flags.iter().all(|flag| flag.message.len() <= crate::scan::MAX_MESSAGE && !flag.message.contains('\x1b'))
        );
        assert!(flags[1].message.contains("2 cells") && flags[1].message.contains("row 2, cell 1"));
    }
}
