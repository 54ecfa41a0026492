//! Text from files as HTML: escaped, with control and direction characters shown.

use std::fmt::Write as _;

use crate::frame::number;

/// Escapes `text`; what would be invisible or turn the reading direction is written as `U+202E`.
pub(crate) fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if hidden(c) => write!(out, "[U+{:04X}]", c as u32).expect("writing to a string"),
            c => out.push(c),
        }
    }
    out
}

fn hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A table; the columns from `numeric` on are aligned right.
pub(crate) fn table(head: &[&str], numeric: usize, rows: &[Vec<String>]) -> String {
    let class = |at: usize| if at >= numeric { " class=\"n\"" } else { "" };
    let mut out = String::from("<table><thead><tr>");
    for (at, cell) in head.iter().enumerate() {
        out += &format!("<th scope=\"col\"{}>{}</th>", class(at), text(cell));
    }
    out += "</tr></thead><tbody>";
    for row in rows {
        out += "<tr>";
        for (at, cell) in row.iter().enumerate() {
            out += &format!("<td{}>{}</td>", class(at), text(cell));
        }
        out += "</tr>";
    }
    out + "</tbody></table>"
}

/// A number with thousands separators and at most two decimals; smaller ones with more.
pub(crate) fn amount(value: f64) -> String {
    if value.abs() >= 1e15 {
        return format!("{value:e}");
    }
    // What two decimals would round to nothing is no nothing.
    if value != 0.0 && value.abs() < 0.005 {
        return number(value).replace('-', "−");
    }
    let plain = format!("{:.2}", value.abs());
    let (whole, rest) = plain.split_once('.').unwrap_or((&plain, "00"));
    let mut out = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    let sign = if value < 0.0 { "−" } else { "" };
    if rest == "00" { format!("{sign}{out}") } else { format!("{sign}{out}.{rest}") }
}
