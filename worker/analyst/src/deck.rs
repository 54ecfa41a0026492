//! `deck.html`: one file without scripts or links, a section per slide, a headline per conclusion.
//!
//! Every text from a file passes [`crate::html::text`].

use std::collections::BTreeSet;

use carrel_schemas::findings::{Evidence, Finding, Findings, Level, Locator, Metric};

use crate::chart;
use crate::checks::pareto::reach;
use crate::frame::{Column, Frame};
use crate::html::{amount, table, text};
use crate::pack::Pack;
use crate::review::Review;
use crate::state::{LISTED, State, Tie, many};

const STYLE: &str = "*{box-sizing:border-box}body{margin:0;background:#e9ebee;color:#16202b;font:16px/1.45 system-ui,sans-serif}\
section{background:#fff;max-width:1120px;min-height:630px;margin:24px auto;padding:44px 56px;overflow-wrap:anywhere}\
h1{font-size:40px;line-height:1.15;margin:110px 0 16px}h2{font-size:27px;line-height:1.2;margin:0 0 20px;border-left:5px solid #0b6170;padding-left:14px}\
h3{font-size:17px;margin:0 0 2px}p{margin:0 0 8px}.muted{color:#55616e}.ask{color:#0b6170;font-weight:600}ol{padding-left:24px}li{margin-bottom:12px}\
table{border-collapse:collapse;width:100%;font-size:14px;margin-bottom:18px}th{text-align:left;border-bottom:2px solid #16202b}td,th{padding:5px 10px 5px 0;vertical-align:top}\
td{border-bottom:1px solid #dde1e6}.n{text-align:right;font-variant-numeric:tabular-nums}.big{display:flex;gap:48px;flex-wrap:wrap}.big b{display:block;font-size:34px;color:#0b6170}\
svg{width:100%}.line{fill:none;stroke:#0b6170;stroke-width:3}.grid{stroke:#c6ccd3;stroke-dasharray:4}svg text{font-size:14px;fill:#55616e}.bar{fill:#0b6170}.rest{fill:#dde1e6}\
.bars div{display:grid;grid-template-columns:5fr 4fr 1fr;gap:14px;align-items:center;font-size:14px;margin-bottom:6px}.bars svg{height:12px}\
@media print{body{background:#fff}section{margin:0;max-width:none;break-after:page}tr,li{break-inside:avoid}@page{size:13.33in 7.5in;margin:0}}";

/// Failing rows that the deck shows; the appendix has all that are listed.
const ROWS: usize = 60;
/// Findings on the slide that opens the argument.
const TOP: usize = 5;

/// The slide, from 1, that states the finding at this place of the order. Slides without data are left out.
pub(crate) fn slide_of(state: &State, at: usize) -> u32 {
    let optional = [!state.pareto.is_empty(), !state.ties.is_empty(), !state.joins.is_empty()];
    let rest = 4 + optional.into_iter().map(u32::from).sum::<u32>();
    if at < TOP { 2 } else { rest }
}

pub(crate) fn html(pack: &Pack, review: &Review) -> String {
    let (findings, state) = (&review.findings, &review.state);
    let title = text(&findings.title);
    let slides = [
        cover(pack, findings),
        first(pack, review),
        scope(pack, review),
        pareto(state),
        totals(state),
        joins(state),
        all(findings, state),
        not_computed(findings),
        method(pack, findings),
    ];
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head><body><main>{}</main></body></html>\n",
        slides.concat()
    )
}

fn cover(pack: &Pack, findings: &Findings) -> String {
    let files: Vec<_> = pack.files.iter().map(|(name, read)| vec![name.clone(), read.clone()]).collect();
    format!(
        "<section><h1>{}</h1><p>{}</p>{}</section>",
        text(&findings.title),
        text(&findings.summary),
        table(&["File", "Read as"], 2, &files)
    )
}

/// The findings that come first, under the gravest.
fn first(pack: &Pack, review: &Review) -> String {
    let findings = &review.findings.findings;
    let head = match findings.iter().find(|f| f.level == Level::Error) {
        Some(error) => error.title.as_str(),
        None if pack.frames.iter().all(|f| f.rows == 0) && review.state.ties.is_empty() => {
            "Nothing could be checked: no table with rows was read from these files"
        }
        None => "No check found an error; what was not checked is listed below",
    };
    let top: String = findings.iter().take(TOP).map(item).collect();
    slide(head, &format!("<ol>{top}</ol>"))
}

fn scope(pack: &Pack, review: &Review) -> String {
    let errors = review.findings.findings.iter().filter(|f| f.level == Level::Error).count();
    let mut numbers = String::from("<div class=\"big\">");
    for metric in &review.state.scorecard {
        numbers += &format!(
            "<p><b>{}</b>{}<br><span class=\"muted\">{}</span></p>",
            amount(metric.value),
            text(&metric.name),
            text(&metric.formula)
        );
    }
    numbers += "</div>";
    let tables: Vec<_> =
        pack.frames.iter().map(|f| vec![f.title(), f.rows.to_string(), f.columns.len().to_string()]).collect();
    slide(
        &format!("{}, {} to settle first", many(pack.frames.len(), "table"), many(errors, "finding")),
        &(numbers + &table(&["Table", "Rows", "Columns"], 1, &tables)),
    )
}

fn pareto(state: &State) -> String {
    if state.pareto.is_empty() {
        return String::new();
    }
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let rows: Vec<_> = state
        .pareto
        .iter()
        .take(8)
        .map(|s| vec![s.item.clone(), s.class.to_string(), amount(s.value), percent(s.cumulative)])
        .collect();
    let body =
        chart::pareto(&state.pareto, &state.pareto_of) + &table(&["Item", "Class", "Value", "Cumulative"], 2, &rows);
    slide(&reach(&state.pareto, &state.pareto_of), &body)
}

fn totals(state: &State) -> String {
    if state.ties.is_empty() {
        return String::new();
    }
    let row = |t: &Tie| {
        let numbers = [t.stated, t.recomputed, t.stated - t.recomputed, t.tolerance].map(amount);
        let verdict = if t.holds() { "ties" } else { "does not tie" };
        [t.what.clone(), verdict.to_owned()].into_iter().chain(numbers).collect::<Vec<_>>()
    };
    let head = ["Total", "", "Stated", "Recomputed", "Difference", "Tolerance"];
    let rows: Vec<_> = state.ties.iter().map(row).collect();
    let mut body = table(&head, 2, &rows);
    if !state.elsewhere.is_empty() {
        let rows: Vec<_> = state.elsewhere.iter().map(row).collect();
        let printed: BTreeSet<u64> = state.elsewhere.iter().map(|t| t.stated.to_bits()).collect();
        let words = "equal to the sum of a column of another file";
        body += &format!("<h3>{} {words}</h3>{}", many(printed.len(), "printed amount"), table(&head, 2, &rows));
    }
    let good = state.ties.iter().filter(|t| t.holds()).count();
    slide(&format!("Stated totals that tie to their rows: {good} of {}", rows.len()), &body)
}

fn joins(state: &State) -> String {
    if state.joins.is_empty() {
        return String::new();
    }
    let full = state.joins.iter().filter(|j| j.matched == j.from).count();
    let head = format!("Joins that find every key: {full} of {}", state.joins.len());
    slide(&head, &chart::coverage(&state.joins))
}

fn all(findings: &Findings, state: &State) -> String {
    let rest: String = findings.findings.iter().skip(TOP).map(item).collect();
    let rows: Vec<_> = state
        .failing
        .iter()
        .take(ROWS)
        .map(|f| vec![f.finding.clone(), f.file.clone(), f.row.to_string(), f.cells.clone()])
        .collect();
    let body = format!(
        "<ol start=\"{}\">{rest}</ol>{}<p class=\"muted\">{} of {} are shown; appendix.xlsx has them all. At most {LISTED} rows of a finding are listed.</p>",
        TOP + 1,
        table(&["Finding", "File", "Row", "Cells"], 4, &rows),
        rows.len(),
        many(state.failing.len(), "listed row"),
    );
    slide(&format!("{}, with rows that fail", many(findings.findings.len(), "finding")), &body)
}

fn not_computed(findings: &Findings) -> String {
    let rows: Vec<_> = findings.not_computed.iter().map(|n| vec![n.what.clone(), n.why.clone()]).collect();
    slide(&format!("Not computed: {}", many(rows.len(), "thing")), &table(&["What", "Why"], 2, &rows))
}

fn method(pack: &Pack, findings: &Findings) -> String {
    let role = |f: &Frame, c: &Column| {
        c.role.as_ref().map(|(role, why)| vec![f.title(), c.name.clone(), role.words().to_owned(), why.clone()])
    };
    let roles: Vec<_> = pack.frames.iter().flat_map(|f| f.columns.iter().filter_map(|c| role(f, c))).collect();
    let proof = |f: &Finding, e: &Evidence| {
        let hash = e.sha256.chars().take(12).collect();
        vec![f.id.clone(), e.file_id.to_string(), place(&e.locator), e.query.clone(), hash]
    };
    let proofs: Vec<_> = findings.findings.iter().flat_map(|f| f.evidence.iter().map(|e| proof(f, e))).collect();
    let formula = |f: &Finding, m: &Metric| {
        vec![f.id.clone(), m.name.clone(), m.formula.clone(), amount(m.value), m.n.to_string()]
    };
    let formulas: Vec<_> = findings.findings.iter().flat_map(|f| f.metrics.iter().map(|m| formula(f, m))).collect();
    let notes: String = pack.notes.iter().map(|n| format!("<li>{}</li>", text(n))).collect();
    slide(
        "Every number can be traced to its rows",
        &format!(
            "<h3>Columns and their roles</h3>{}<h3>Formulas</h3>{}<h3>Evidence</h3>{}<h3>Notes of the reader</h3><ul>{notes}</ul>",
            table(&["Table", "Column", "Role", "Because"], 4, &roles),
            table(&["Finding", "Metric", "Formula", "Value", "n"], 3, &formulas),
            table(&["Finding", "File", "Place", "Asked", "SHA-256 (first 12)"], 5, &proofs)
        ),
    )
}

fn slide(headline: &str, body: &str) -> String {
    format!("<section><h2>{}</h2>{body}</section>", text(headline))
}

fn item(finding: &Finding) -> String {
    let ask = finding.recommendation.as_deref().map_or(String::new(), |a| format!("<p class=\"ask\">{}</p>", text(a)));
    let caveat: String = finding.caveats.iter().map(|c| format!("<p class=\"muted\">{}</p>", text(c))).collect();
    format!("<li><h3>{}</h3><p>{}</p>{caveat}{ask}</li>", text(&finding.title), text(&finding.statement))
}

/// A locator in words.
pub(crate) fn place(locator: &Locator) -> String {
    match locator {
        Locator::Sheet { sheet, range } => format!("{sheet}!{range}"),
        Locator::Rows { rows, columns } => {
            let shown: Vec<String> = rows.iter().take(8).map(u64::to_string).collect();
            let more = if rows.len() > 8 { " …" } else { "" };
            format!("rows {}{more}, columns {}", shown.join(", "), columns.join(", "))
        }
        Locator::Page { page, text } => format!("page {page}: {text}"),
        Locator::File => "the whole file".to_owned(),
    }
}
