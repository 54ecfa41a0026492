//! The agent's run: a request file, three directories, a child under supervision, and judgement over what it left.
//!
//! The agent gets neither tenant nor credentials, and an environment of its own. What it prints is hostile: lines that
//! are no events are dropped, numbers are bounded, texts are cut. Exit codes and events are hints; a review counts only
//! if its findings validate. Refuses to blame the agent for this machine: an agent that cannot be started is a retry.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use carrel_sandbox::{Ended, Exit, Finished, Hearing, LimitHit};
use carrel_schemas::agent::{AgentEvent, AgentEventKind, AgentInput, AgentRequest, RefusedInput, exit_code};
use carrel_schemas::outcome::{FailureClass, FindingSummary, Usage, Verdict};
use tempfile::TempDir;

use crate::case::{Case, Decision, Looked, Stop};
use crate::check::Place;
use crate::judge;
use crate::outbox::{CollectError, Outbox, Parcel};
use crate::progress::Progress;
use crate::room::{self, Inside};
use crate::scan::Scanned;

/// A longer line of the agent's stdout is dropped.
const MAX_LINE: usize = 16 << 10;
/// What an agent may say on stdout and stderr, each.
const MAX_SAID: u64 = 16 << 20;
/// The end of the agent's stderr that an outcome keeps.
const LOG_TAIL: usize = 4 << 10;
const HEARING: Hearing = Hearing { output_bytes: MAX_SAID, line_bytes: MAX_LINE, stderr_tail_bytes: LOG_TAIL };
/// A text of the agent that people are shown.
const MAX_TEXT: usize = 300;
/// Lines of its log that may become the reason of a refusal.
const MAX_REASONS: usize = 20;

/// A review that validates, copied to where the agent cannot reach it.
#[derive(Debug)]
pub(crate) struct Reviewed {
    pub(crate) case: Case,
    pub(crate) looked: Vec<Looked>,
    pub(crate) usage: Usage,
    pub(crate) parcels: Vec<Parcel>,
    pub(crate) top_findings: Vec<FindingSummary>,
    /// Holds the parcels on disk.
    pub(crate) copies: Option<TempDir>,
}

impl Reviewed {
    /// Ends the journey with another verdict than delivery.
    pub(crate) fn decide(self, verdict: Verdict) -> Stop {
        let inputs = self.looked.iter().map(Looked::report).collect();
        let Self { case, usage, .. } = self;
        Stop::Decide(Box::new(Decision { case, verdict, inputs, usage }))
    }
}

pub(crate) async fn review(scanned: Scanned) -> Result<Reviewed, Stop> {
    let Scanned { mut case, looked, accepted, place } = scanned;
    case.progress.stage("review");
    let wall = case.time_left();
    let tier = case.config.isolation;
    let inside = Inside::of(tier, &place);
    let plan = room::plan(&case, &place, &accepted, wall)?;
    let accepted: Vec<AgentInput> = accepted.into_iter().map(|file| file.input).collect();
    write_request(&case, &looked, &accepted, &place, &inside, wall)?;
    let mut listener = Listener::new(case.progress.clone());
    let let_out = |handed| room::let_out(&case.config, handed);
    let (finished, proxy) = carrel_sandbox::run(tier, &plan, HEARING, let_out, |line| listener.hear(line)).await?;
    let Finished { ended, fresh } = finished;
    let egress = match proxy.context("accept at the proxy of the agent's room")? {
        Some(proxy) => Some(room::asked(proxy).await),
        None => None,
    };
    tracing::info!(exit = ?ended.exit, limit = ?ended.limit, wall_ms = millis(ended.used.wall), "agent ended");
    case.exit = Some(exit(&ended));
    // The very directory that the agent had, not what it may have put in its place; nobody is left who could write.
    let output = inside.at("output");
    let outbox = fresh.into_iter().find_map(|(at, root)| (at == output).then_some(Outbox::new(root)));
    let outbox = outbox.context("the room handed out no output directory")?;

    case.room.memory_guarantee &= ended.memory_guarantee;
    case.room.egress = egress;
    let usage = Usage {
        wall_ms: 0,
        agent_cpu_ms: millis(ended.used.cpu),
        agent_peak_bytes: ended.used.peak_bytes,
        input_bytes: accepted.iter().map(|input| input.size).sum(),
        output_bytes: 0,
    };
    let mut reviewed = Reviewed { case, looked, usage, parcels: Vec::new(), top_findings: Vec::new(), copies: None };
    match end(&ended) {
        End::Judge => {}
        End::Refused => {
            let reason = format!("{}; correct the files and upload them again", listener.reasons());
            return Err(reviewed.decide(Verdict::Refused { reason }));
        }
        End::Failed(class, message) => return Err(failed(reviewed, class, message, &ended)),
        End::Retry(why) => return Err(Stop::Retry(anyhow!(why))),
    }
    reviewed.case.progress.stage("judge");
    // Made only now that the agent is dead: it could not prepare the place.
    let copies = Place::private(&reviewed.case)?;
    let (target, most) = (copies.path().to_owned(), reviewed.case.config.limits.max_output_bytes);
    let judged = tokio::task::spawn_blocking(move || -> Result<_, CollectError> {
        let left = outbox.collect(&target, most)?;
        let judged = judge::judge(&left, &accepted);
        Ok((left.parcels, judged))
    });
    let (parcels, judged) = match judged.await.context("judgement was cut off")? {
        Ok(judged) => judged,
        Err(error) if error.is_ours() => return Err(error.into()),
        Err(error) => return Err(failed(reviewed, FailureClass::AgentFailed, error.to_string(), &ended)),
    };
    match judged {
        Ok(top_findings) => {
            reviewed.usage.output_bytes = parcels.iter().map(|parcel| parcel.size).sum();
            reviewed.parcels = parcels;
            reviewed.copies = Some(copies);
            reviewed.top_findings = top_findings;
            Ok(reviewed)
        }
        Err(why) => Err(failed(reviewed, FailureClass::AgentFailed, why, &ended)),
    }
}

fn failed(reviewed: Reviewed, class: FailureClass, message: String, ended: &Ended) -> Stop {
    let log_tail =
        (!ended.stderr_tail.is_empty()).then(|| printable(&String::from_utf8_lossy(&ended.stderr_tail), LOG_TAIL));
    reviewed.decide(Verdict::Failed { class, message, log_tail })
}

/// What an exit means before anything is validated.
enum End {
    Judge,
    Refused,
    Failed(FailureClass, String),
    Retry(&'static str),
}

/// How it ended, in words.
fn exit(ended: &Ended) -> String {
    let beyond = match ended.limit {
        None => "",
        Some(LimitHit::Wall) => ", beyond its time",
        Some(LimitHit::Cpu) => ", beyond its processor time",
        Some(LimitHit::Memory) => ", beyond its memory",
        Some(LimitHit::Processes) => ", beyond its number of processes",
        Some(LimitHit::FileSize) => ", beyond the size of a file",
        Some(LimitHit::Output) => ", beyond what it may print",
    };
    match ended.exit {
        Exit::Code(code) => format!("exit code {code}{beyond}"),
        Exit::Signal(signal) => format!("signal {signal}{beyond}"),
    }
}

fn end(ended: &Ended) -> End {
    let wall = ended.used.wall.as_secs();
    match (ended.limit, ended.exit) {
        (Some(LimitHit::Wall), _) => {
            End::Failed(FailureClass::TimedOut, format!("the agent passed its deadline after {wall} s"))
        }
        (Some(LimitHit::Cpu), _) => {
            End::Failed(FailureClass::TimedOut, "the agent used up its processor time".to_owned())
        }
        (Some(LimitHit::Memory), _) => {
            let peak = ended.used.peak_bytes >> 20;
            End::Failed(FailureClass::OutOfMemory, format!("the agent ran out of memory, at {peak} MiB"))
        }
        (Some(LimitHit::Processes), _) => {
            End::Failed(FailureClass::AgentFailed, "the agent started more processes than it may".to_owned())
        }
        (Some(LimitHit::FileSize), _) => {
            End::Failed(FailureClass::AgentFailed, "the agent wrote a file beyond its limit".to_owned())
        }
        (Some(LimitHit::Output), _) => {
            End::Failed(FailureClass::AgentFailed, format!("the agent printed more than {MAX_SAID} bytes"))
        }
        (None, Exit::Code(exit_code::COMPLETE | exit_code::PARTIAL)) => End::Judge,
        (None, Exit::Code(exit_code::UNUSABLE_INPUT)) => End::Refused,
        (None, Exit::Code(exit_code::MODEL_UNAVAILABLE)) => End::Retry("the agent's model did not answer"),
        (None, Exit::Code(exit_code::LIMIT_REACHED)) => {
            End::Failed(FailureClass::AgentFailed, "the agent reached a limit of its own".to_owned())
        }
        (None, Exit::Code(exit_code::POLICY_VIOLATION)) => {
            End::Failed(FailureClass::AgentFailed, "the agent broke its policy".to_owned())
        }
        (None, Exit::Code(code)) => End::Failed(FailureClass::AgentFailed, format!("the agent exited with {code}")),
        (None, Exit::Signal(signal)) => {
            End::Failed(FailureClass::AgentFailed, format!("the agent was ended by signal {signal}"))
        }
    }
}

fn write_request(
    case: &Case,
    looked: &[Looked],
    accepted: &[AgentInput],
    place: &Place,
    inside: &Inside,
    wall: Duration,
) -> anyhow::Result<()> {
    let refused = looked.iter().filter_map(|look| {
        let refusal = look.refusal.as_ref()?;
        let name = case.short_name(&look.name).to_owned();
        Some(RefusedInput { name, code: refusal.code, message: refusal.message.clone() })
    });
    let dir = |name: &str| inside.at(name).to_string_lossy().into_owned();
    let request = AgentRequest {
        schema: AgentRequest::SCHEMA,
        review: case.seal.review.clone(),
        pack: case.seal.pack.clone(),
        input_dir: dir("input"),
        scratch_dir: dir("scratch"),
        output_dir: dir("output"),
        inputs: accepted.to_vec(),
        refused: refused.collect(),
        timeout_seconds: wall.as_secs(),
    };
    let path = place.dir("request.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&request)?).with_context(|| format!("write {}", path.display()))
}

/// Turns lines of the agent into progress and log lines.
pub(crate) struct Listener {
    progress: Progress,
    /// The last lines that it wrote for the log.
    logged: Vec<String>,
}

impl Listener {
    pub(crate) fn new(progress: Progress) -> Self {
        Self { progress, logged: Vec::new() }
    }

    pub(crate) fn hear(&mut self, line: &[u8]) {
        let Ok(event) = serde_json::from_slice::<AgentEvent>(line) else {
            tracing::debug!(bytes = line.len(), "the agent printed a line that is no event");
            return;
        };
        let message = event.msg.as_deref().map(|text| printable(text, MAX_TEXT));
        let stage = event
            .stage
            .as_deref()
            .map_or_else(|| "review".to_owned(), |stage| format!("review: {}", printable(stage, 40)));
        tracing::info!(kind = ?event.kind, stage, said = message, "agent");
        if event.kind == AgentEventKind::Progress {
            let pct = event.pct.filter(|pct| pct.is_finite()).map(|pct| pct.clamp(0.0, 100.0));
            self.progress.update(stage, pct, message.clone());
        }
        if let Some(message) = message.filter(|_| event.kind == AgentEventKind::Log) {
            if self.logged.len() == MAX_REASONS {
                self.logged.remove(0);
            }
            self.logged.push(message);
        }
    }

    /// Why it can use nothing, as far as it said.
    pub(crate) fn reasons(&self) -> String {
        if self.logged.is_empty() {
            return "the agent found no file it can use and did not say why".to_owned();
        }
        self.logged.join("; ")
    }
}

/// Text of a stranger, fit for a terminal: no control characters but line feeds, at most `max` bytes, its end kept.
fn printable(text: &str, max: usize) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect();
    let mut from = clean.len().saturating_sub(max);
    while !clean.is_char_boundary(from) {
        from += 1;
    }
    clean[from..].to_owned()
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use carrel_sandbox::Used;
    use carrel_schemas::ids::{Attempt, Epoch, ReviewId};

    fn ended(exit: Exit, limit: Option<LimitHit>) -> Ended {
        let used = Used { wall: Duration::ZERO, cpu: Duration::ZERO, peak_bytes: 0 };
        Ended { exit, limit, used, memory_guarantee: false, stderr_tail: Vec::new() }
    }

    #[test]
    fn each_end_of_an_agent_has_its_class() {
        assert!(matches!(end(&ended(Exit::Code(10), None)), End::Judge));
        assert!(matches!(end(&ended(Exit::Code(20), None)), End::Refused));
        assert!(matches!(end(&ended(Exit::Code(30), None)), End::Retry(_)));
        for (exit, limit, class) in [
            (Exit::Signal(9), Some(LimitHit::Wall), FailureClass::TimedOut),
            (Exit::Code(1), Some(LimitHit::Memory), FailureClass::OutOfMemory),
            (Exit::Code(1), None, FailureClass::AgentFailed),
            (Exit::Signal(11), None, FailureClass::AgentFailed),
        ] {
            assert!(matches!(end(&ended(exit, limit)), End::Failed(found, _) if found == class), "{exit:?}");
        }
    }

    #[test]
    fn a_printed_completion_event_is_data() {
        let review = ReviewId::parse("rv_00000000000000000000000000000001").expect("an id");
        let progress = Progress::of(review, Epoch::FIRST, Attempt::FIRST);
        let mut listener = Listener::new(progress.clone());
        let cloud_event =
            br#"{"specversion":"1.0","id":"1","type":"carrel.review.completed","data":{"state":"delivered"}}"#;
        let dressed =
            br#"{"seq":1,"time":"2026-01-01T00:00:00Z","type":"completion","stage":"done","msg":"delivered"}"#;
        let outcome = br#"{"schema":1,"state":"delivered","review":"rv_1","attempt":1}"#;
        for line in [&cloud_event[..], dressed, outcome] {
            listener.hear(line);
        }
        assert_eq!((progress.current().as_str(), listener.logged.len()), ("start", 0), "nothing is made of it");
        listener.hear(
            br#"{"seq":2,"time":"2026-01-01T00:00:00Z","type":"progress","stage":"completed","msg":"delivered"}"#,
        );
        assert_eq!(
            progress.current(),
            "review: completed",
            "said as the agent's own word for its stage, never as an end"
        );
    }

    #[test]
    fn a_stranger_s_text_cannot_drive_a_terminal() {
        assert_eq!(printable("a\x1b[31mb\r\nc", 100), "a [31mb \nc");
        assert_eq!(printable("äöü", 3), "ü");
    }
}
