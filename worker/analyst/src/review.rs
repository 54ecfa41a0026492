//! The review of a pack: every check over every frame, then findings in the order of their consequence.

use carrel_schemas::findings::{Findings, Level};

use crate::checks::{flags, joins, pareto, periods, quality, shelf, totals};
use crate::deck;
use crate::pack::Pack;
use crate::state::{State, many};

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
    flags::check(&pack.flagged, &mut state);
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
        "{} of {}: {} would make decisions on these files wrong, {warnings} more to look at.{lead}",
        many(pack.frames.len(), "table"),
        many(pack.files.len(), "file"),
        many(errors, "finding"),
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
