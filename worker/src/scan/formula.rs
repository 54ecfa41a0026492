//! Formulas: which of them start a program, call into the system, or fetch; and which cells of delimited text are one.
//!
//! Owns a tokenizer that knows quotes and names, and lists of functions. Refuses to evaluate: what a formula builds out
//! of pieces at run time, as `INDIRECT` does, is not seen.

use carrel_schemas::scan::FlagCode;

/// Excel's macro functions that leave the sheet, and `RTD`, which loads a COM server.
const COMMANDS: [&[u8]; 5] = [b"CALL", b"EXEC", b"REGISTER", b"REGISTER.ID", b"RTD"];
/// What fetches in Excel, and in Google Sheets, where a CSV may be opened as well.
const FETCHING: [&[u8]; 8] = [
    b"WEBSERVICE",
    b"IMAGE",
    b"IMPORTDATA",
    b"IMPORTFEED",
    b"IMPORTHTML",
    b"IMPORTRANGE",
    b"IMPORTXML",
    b"SQL.REQUEST",
];
/// What a workbook writes before functions that are newer than its format.
const PREFIXES: [&[u8]; 2] = [b"_XLFN.", b"_XLWS."];

/// Shows every dangerous thing in a formula, which may begin with its `=` or without.
pub(super) fn look(formula: &[u8], mut see: impl FnMut(FlagCode)) {
    walk(formula, |token| match token {
        Token::Call(name) => {
            let name = name.to_ascii_uppercase();
            let bare = PREFIXES.iter().find_map(|prefix| name.strip_prefix(*prefix)).unwrap_or(&name);
            if COMMANDS.contains(&bare) {
                see(FlagCode::CommandFormula);
            } else if FETCHING.contains(&bare) {
                see(FlagCode::FetchingFormula);
            } else if bare == b"DDE" {
                see(FlagCode::Dde);
            }
        }
        Token::Conversation => see(FlagCode::Dde),
    });
}

/// Whether a spreadsheet would take this cell for a formula. Numbers and telephone numbers with a sign are none, nor is
/// `="00123"`, by which exports keep a code from becoming a number.
pub(super) fn is_formula(cell: &[u8]) -> bool {
    let cell = cell.trim_ascii();
    let Some((sign, rest)) = cell.split_first() else { return false };
    match sign {
        b'=' => {
            let rest = rest.trim_ascii_start();
            let begins = rest.first().is_some_and(|b| is_name(*b) || b"\"'([{+-$@#".contains(b));
            begins && rest.iter().any(|b| is_name(*b)) && !is_text(rest)
        }
        b'+' | b'-' | b'@' => {
            let mut calls = false;
            walk(rest, |_| calls = true);
            calls
        }
        _ => false,
    }
}

/// `"…"` and nothing after it.
fn is_text(formula: &[u8]) -> bool {
    let inner = formula.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    inner.is_some_and(|inner| !inner.contains(&b'"'))
}

enum Token<'a> {
    /// A name right before a parenthesis.
    Call(&'a [u8]),
    /// `program|topic!item`.
    Conversation,
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || b"_.\\".contains(&byte)
}

fn walk<'a>(formula: &'a [u8], mut see: impl FnMut(Token<'a>)) {
    let mut at = 0;
    // Looked for once: a search after every bar would cost the square of the length.
    let item = formula.iter().rposition(|b| *b == b'!').unwrap_or(0);
    while at < formula.len() {
        let from = at;
        match formula[at] {
            quote @ (b'"' | b'\'') => {
                let close = formula[at + 1..].iter().position(|b| *b == quote);
                at = close.map_or(formula.len(), |length| at + 1 + length + 1);
                // Only a name in quotes may lead a conversation.
                if quote == b'\'' && converses(formula, at, item) {
                    see(Token::Conversation);
                }
            }
            byte if is_name(byte) => {
                at += formula[at..].iter().position(|b| !is_name(*b)).unwrap_or(formula.len() - at);
                let name = &formula[from..at];
                if formula.get(at) == Some(&b'(') && name.iter().any(|b| !b.is_ascii_digit()) {
                    see(Token::Call(name));
                }
                if converses(formula, at, item) {
                    see(Token::Conversation);
                }
            }
            _ => at += 1,
        }
    }
}

/// Whether `|topic!item` begins at `at`; the last `!` stands at `item`.
fn converses(formula: &[u8], at: usize, item: usize) -> bool {
    let topic = formula.get(at..).and_then(|rest| rest.strip_prefix(b"|"));
    item > at && topic.is_some_and(|topic| topic.first().is_some_and(|b| *b == b'\'' || is_name(*b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(formula: &str) -> Vec<FlagCode> {
        let mut seen = Vec::new();
        look(formula.as_bytes(), |code| seen.push(code));
        seen
    }

    #[test]
    fn what_starts_calls_or_fetches_is_told_from_what_only_spells_it() {
        use FlagCode::{CommandFormula, Dde, FetchingFormula};
        assert_eq!(seen("=cmd|'/c calc'!A0"), [Dde]);
        assert_eq!(seen("-2+3+MSEXCEL|'\\..\\cmd.exe /c calc'!''"), [Dde]);
        assert_eq!(seen("'cmd'|'/c calc'!A1"), [Dde]);
        assert_eq!(seen("IF(1,exec(\"calc\"),0)"), [CommandFormula]);
        assert_eq!(seen("_xlfn.WEBSERVICE(\"https://example.com\")"), [FetchingFormula]);
        for harmless in ["SUM(A1:A9)", "\"EXEC(\"&A1", "CALLS(1)", "RECALL(1)", "'a|b'!A1+1", "A1|B1", "HYPERLINK(A1)"]
        {
            assert!(seen(harmless).is_empty(), "{harmless}");
        }
    }

    #[test]
    fn numbers_codes_and_words_are_no_formulas() {
        for formula in ["=1+1", " =A1", "=SUM(A1:A3)", "@SUM(1)", "+cmd|' /c calc'!A0", "=\"a\"&\"b\"", "-IMAGE(\"u\")"]
        {
            assert!(is_formula(formula.as_bytes()), "{formula}");
        }
        let plain =
            ["-5", "+49 (0)30 1234", "-1.234,50 €", "=", "=====", "=-=-=", "=> see below", "=\"00123\"", "@name"];
        for text in plain.into_iter().chain(["-n/a-", "- a | b!", "-", "+", "", "5=5", "-(5)"]) {
            assert!(!is_formula(text.as_bytes()), "{text}");
        }
    }
}
