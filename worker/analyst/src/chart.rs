//! Charts as inline SVG, labelled directly: the Pareto curve and coverage bars.

use crate::html::text;
use crate::state::{Join, Share, many};

/// Joins drawn; the others are counted.
const BARS: usize = 14;

pub(crate) fn pareto(shares: &[Share], of: &str) -> String {
    let (w, h, left) = (860.0, 300.0, 50.0);
    let x = |at: usize| left + (w - left) * at as f64 / shares.len() as f64;
    let y = |share: f64| 10.0 + (h - 20.0) * (1.0 - share);
    let step = shares.len().div_ceil(400);
    let points: Vec<String> = std::iter::once(format!("{:.1},{:.1}", x(0), y(0.0)))
        .chain(
            shares
                .iter()
                .enumerate()
                .filter(|(at, _)| at % step == 0 || at + 1 == shares.len())
                .map(|(at, s)| format!("{:.1},{:.1}", x(at + 1), y(s.cumulative))),
        )
        .collect();
    let mut out = format!(
        "<svg viewBox=\"0 0 {w} {h}\" role=\"img\" aria-label=\"Cumulative share of {} by item, largest first\">",
        text(of)
    );
    for mark in [0.8, 0.95] {
        let at = y(mark);
        out += &format!(
            "<line x1=\"{left}\" x2=\"{w}\" y1=\"{at:.1}\" y2=\"{at:.1}\" class=\"grid\"/><text x=\"0\" y=\"{:.1}\">{:.0} %</text>",
            at + 5.0,
            mark * 100.0
        );
    }
    out += &format!("<polyline points=\"{}\" class=\"line\"/>", points.join(" "));
    out + &format!("<text x=\"{left}\" y=\"{h}\">{} items, largest first</text></svg>", shares.len())
}

pub(crate) fn coverage(joins: &[Join]) -> String {
    let mut out = String::from("<div class=\"bars\">");
    for join in joins.iter().take(BARS) {
        let share = 100.0 * join.matched as f64 / join.from.max(1) as f64;
        out += &format!(
            "<div><span>{}</span><svg viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect width=\"100\" height=\"8\" class=\"rest\"/><rect width=\"{share:.1}\" height=\"8\" class=\"bar\"/></svg><b>{} of {}</b></div>",
            text(&join.what),
            join.matched,
            join.from
        );
    }
    out += "</div>";
    match joins.len().saturating_sub(BARS) {
        0 => out,
        more => out + &format!("<p class=\"muted\">{} in appendix.xlsx, sheet Joins.</p>", many(more, "more join")),
    }
}
