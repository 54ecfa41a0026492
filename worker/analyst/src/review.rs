//! The review of a pack: every check over every frame, then findings in the order of their consequence.

use carrel_schemas::findings::{Findings, Level};

use crate::checks::{joins, pareto, periods, quality, shelf, totals};
use crate::deck;
use crate::frame::{Frame, FrameSource};
use crate::state::State;

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
    /// Files that could not be read or were refused.
    pub(crate) refused: Vec<(String, String)>,
}

/// Findings, and what the deck shows beside them.
#[derive(Debug)]
pub struct Review {
    /// The document that is delivered.
    pub findings: Findings,
    pub(crate) state: State,
}

/// Reviews a pack.
pub fn review(pack: &Pack) -> Review {
    let mut state = State::default();
    for frame in &pack.frames {
        quality::check(frame, &mut state);
        totals::tables(frame, &mut state);
    }
    totals::pages(&pack.pages, &pack.frames, &mut state);
    joins::check(&pack.frames, &mut state);
    periods::check(&pack.frames, &mut state);
    pareto::check(&pack.frames, &mut state);
    shelf::check(&pack.frames, &mut state);
    for (name, why) in &pack.refused {
        state.refuse(&format!("anything from {name}"), why.clone());
    }
    let mut said = std::mem::take(&mut state.findings);
    said.sort_by(|(a, x), (b, y)| x.level.cmp(&y.level).then(b.cmp(a)).then_with(|| x.id.cmp(&y.id)));
    let mut findings: Vec<_> = said.into_iter().map(|(_, finding)| finding).collect();
    for (at, finding) in findings.iter_mut().enumerate() {
        finding.slides = vec![deck::slide_of(&state, at)];
    }
    let of = |level| findings.iter().filter(|f| f.level == level).count();
    let (errors, warnings) = (of(Level::Error), of(Level::Warning));
    let lead = findings.first().map_or(String::new(), |f| format!(" First: {}.", f.title));
    let summary = format!(
        "{} tables of {} files: {errors} findings would make decisions on these files wrong, {warnings} more ask for a look.{lead}",
        pack.frames.len(),
        pack.files.len(),
    );
    let findings = Findings {
        schema: Findings::SCHEMA,
        agent: format!("analyst/{}", env!("CARGO_PKG_VERSION")),
        title: format!("Line review: {}", pack.name),
        summary,
        findings,
        not_computed: state.not_computed.clone(),
    };
    Review { findings, state }
}
