//! Text of strangers, fit for a terminal.

/// The text with everything that could drive a terminal or turn its lines around written out, as in `\u{1b}`.
pub(crate) fn shown(text: &str) -> String {
    let is_plain = |c: char| {
        !c.is_control()
            && !matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    let written = |c: char| if is_plain(c) { c.to_string() } else { c.escape_default().to_string() };
    text.chars().map(written).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_drive_a_terminal() {
        assert_eq!(shown("Käse 2026"), "Käse 2026");
        assert_eq!(shown("\x1b]0;x\x07\u{9b}2J\u{202e}"), "\\u{1b}]0;x\\u{7}\\u{9b}2J\\u{202e}");
    }
}
