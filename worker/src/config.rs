//! The worker's settings: three arguments say which attempt, the environment of the job says whose and where.
//!
//! Everything is parsed before anything is done, and every mistake is reported at once. Refuses defaults that would
//! choose a tenant, a bucket or an agent.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use carrel_cloud::Endpoints;
use carrel_egress::Policy;
use carrel_sandbox::Tier;
use carrel_schemas::ids::{Attempt, BucketName, Epoch, ExecutionName, ReviewId, TenantId};
use carrel_schemas::registry::Limits;
use carrel_schemas::scan::{Antivirus, ScanPolicy};
use carrel_telemetry::{Format, TelemetryConfig};

use crate::scan::Clamd;
use crate::scan::child::COMMAND;
use crate::volume::Volume;

/// Everything one attempt is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// `--review`: the review to make.
    pub review: ReviewId,
    /// `--epoch`: its life.
    pub epoch: Epoch,
    /// `--attempt`: the authorised try.
    pub attempt: Attempt,
    /// `CARREL_TENANT`: whose job this is.
    pub tenant: TenantId,
    /// `CARREL_UPLOADS_BUCKET`: where the sealed files lie.
    pub uploads: BucketName,
    /// `CARREL_OUTPUTS_BUCKET`: where seal, claim, outcome and deliveries lie.
    pub outputs: BucketName,
    /// `CARREL_OUTCOMES_TOPIC`: `projects/P/topics/T`, told of an outcome.
    pub outcomes_topic: String,
    /// `CARREL_LIMITS`: JSON of what the tenant may use; absent is the registry's default.
    pub limits: Limits,
    /// `CARREL_SCAN`: JSON of what is done about files that hold more than data; absent is the registry's default.
    pub scan: ScanPolicy,
    /// `CARREL_CLAMD`: clamd's socket, `/run/clamav/clamd.ctl` or `host:port`; absent, no virus scanner sees the files.
    pub clamd: Option<Clamd>,
    /// The command line of a scanner without its last argument: this program itself, as it was started.
    pub scanner: Vec<String>,
    /// `CARREL_AGENT`: JSON array, the agent's command line without the request file.
    pub agent: Vec<String>,
    /// `CARREL_ISOLATION`: the tier of the room that the agent runs in; absent is `namespaces`. A machine that cannot
    /// give it makes no attempt.
    pub isolation: Tier,
    /// `CARREL_INPUT`: the absolute path at which the uploads bucket is mounted, or `hydrate`, as if absent: then the
    /// sealed files are fetched first.
    pub volume: Option<Volume>,
    /// `CARREL_EGRESS`: JSON array of the hosts that the agent may reach; absent is none.
    pub egress: Policy,
    /// `CARREL_EGRESS_VIA`: the proxy, `address:port`, that leads out of where this worker runs; absent is none needed.
    pub egress_via: Option<SocketAddr>,
    /// `CARREL_SCRATCH`: where private directories are made; absent is the system's temporary directory.
    pub scratch: PathBuf,
    /// `CARREL_STORAGE_ENDPOINT`, `CARREL_PUBSUB_ENDPOINT`: absent is Google's own.
    pub endpoints: Endpoints,
    /// `CLOUD_RUN_EXECUTION`, completed from `CARREL_JOB` or `CLOUD_RUN_JOB` where it is a short name.
    pub execution: ExecutionName,
    /// `CARREL_TRACEPARENT`: the launch this belongs to.
    pub traceparent: Option<String>,
    /// `CARREL_LOG_FORMAT` (`human` or `json`), `CARREL_LOG`, `CARREL_OTLP_ENDPOINT`.
    pub telemetry: TelemetryConfig,
}

/// Every mistake in the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub Vec<String>);

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the worker's settings have {} mistake(s)", self.0.len())?;
        self.0.iter().try_for_each(|mistake| write!(f, "\n  - {mistake}"))
    }
}

/// Collects mistakes while it reads.
struct Reader<'a> {
    values: &'a BTreeMap<String, String>,
    mistakes: Vec<String>,
}

impl Reader<'_> {
    fn text(&self, name: &str) -> Option<String> {
        self.values.get(name).filter(|text| !text.is_empty()).cloned()
    }

    fn required<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let Some(text) = self.text(name) else {
            self.mistakes.push(format!("{name} is missing; set it on the job"));
            return None;
        };
        self.keep(name, parse(&text))
    }

    fn optional<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(name)?;
        self.keep(name, parse(&text))
    }

    fn keep<T>(&mut self, name: &str, parsed: Result<T, String>) -> Option<T> {
        parsed.map_err(|why| self.mistakes.push(format!("{name}: {why}"))).ok()
    }
}

fn from_str<T>(text: &str) -> Result<T, String>
where
    T: std::str::FromStr,
    T::Err: fmt::Display,
{
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("is not the JSON expected: {error}"))
}

fn topic(text: &str) -> Result<String, String> {
    match text.split('/').collect::<Vec<_>>().as_slice() {
        ["projects", project, "topics", topic] if !project.is_empty() && !topic.is_empty() => Ok(text.to_owned()),
        _ => Err(format!("{text:?} does not read projects/P/topics/T")),
    }
}

fn command_line(text: &str) -> Result<Vec<String>, String> {
    match json::<Vec<String>>(text)? {
        argv if argv.first().is_some_and(|program| !program.is_empty()) => Ok(argv),
        _ => Err("must name a program, as in [\"/usr/bin/analyst\"]".to_owned()),
    }
}

fn hosts(text: &str) -> Result<Policy, String> {
    Policy::parse(json::<Vec<String>>(text)?).map_err(|refused| refused.to_string())
}

fn input(text: &str) -> Result<Option<Volume>, String> {
    match text {
        "hydrate" => Ok(None),
        path => Volume::at(path).map(Some).map_err(|why| format!("{why}, nor is it hydrate")),
    }
}

fn format(text: &str) -> Result<Format, String> {
    match text {
        "human" => Ok(Format::Human),
        "json" => Ok(Format::CloudJson),
        other => Err(format!("{other:?} is neither human nor json")),
    }
}

impl Config {
    /// Reads the process's environment. `itself` are the words between this program's name and the worker's arguments.
    pub fn from_process(itself: &[&str], args: impl IntoIterator<Item = String>) -> Result<Self, ConfigError> {
        let program =
            std::env::current_exe().map_err(|error| ConfigError(vec![format!("find this program: {error}")]))?;
        let program = program.to_str().map(str::to_owned);
        let program =
            program.ok_or_else(|| ConfigError(vec!["the path of this program is no UTF-8; move it".into()]))?;
        let words = itself.iter().chain([&COMMAND]).map(|word| (*word).to_owned());
        let scanner = std::iter::once(program).chain(words).collect();
        let names = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self::parse(args, &std::env::vars_os().filter_map(names).collect(), std::env::temp_dir(), scanner)
    }

    /// Reads arguments and variables; the error lists everything that is wrong.
    pub fn parse(
        args: impl IntoIterator<Item = String>,
        variables: &BTreeMap<String, String>,
        scratch: PathBuf,
        scanner: Vec<String>,
    ) -> Result<Self, ConfigError> {
        let mut values = variables.clone();
        let mistakes = take_arguments(args, &mut values);
        let mut read = Reader { values: &values, mistakes };
        let review = read.required("--review", from_str);
        let epoch = read.required("--epoch", from_str);
        let attempt = read.required("--attempt", from_str);
        let tenant = read.required("CARREL_TENANT", from_str);
        let uploads = read.required("CARREL_UPLOADS_BUCKET", from_str);
        let outputs = read.required("CARREL_OUTPUTS_BUCKET", from_str);
        let outcomes_topic = read.required("CARREL_OUTCOMES_TOPIC", topic);
        let agent = read.required("CARREL_AGENT", command_line);
        let limits = read.optional("CARREL_LIMITS", json).unwrap_or_default();
        let scan: ScanPolicy = read.optional("CARREL_SCAN", json).unwrap_or_default();
        let clamd = read.optional("CARREL_CLAMD", from_str);
        if scan.antivirus == Antivirus::Required && read.text("CARREL_CLAMD").is_none() {
            read.mistakes.push("CARREL_SCAN requires a virus scanner and CARREL_CLAMD is missing; set it".to_owned());
        }
        let format = read.optional("CARREL_LOG_FORMAT", format).unwrap_or_default();
        let isolation = read.optional("CARREL_ISOLATION", from_str).unwrap_or(Tier::Namespaces);
        let scratch = read.optional("CARREL_SCRATCH", from_str).unwrap_or(scratch);
        let volume = read.optional("CARREL_INPUT", input).flatten();
        let egress = read.optional("CARREL_EGRESS", hosts).unwrap_or_default();
        let egress_via = read.optional("CARREL_EGRESS_VIA", from_str);
        if isolation != Tier::Namespaces && !egress.is_empty() {
            let why = format!("CARREL_EGRESS: a room of tier {isolation} has no way out; empty it or set namespaces");
            read.mistakes.push(why);
        }
        if isolation == Tier::Process && volume.is_some() {
            let why = "CARREL_INPUT: a room of tier process cannot show a volume under generated names; set hydrate";
            read.mistakes.push(why.to_owned());
        }
        let execution = execution(&mut read, outcomes_topic.as_deref());
        let telemetry = TelemetryConfig {
            format,
            filter: read.text("CARREL_LOG").unwrap_or_else(|| carrel_telemetry::DEFAULT_FILTER.to_owned()),
            otlp_endpoint: read.text("CARREL_OTLP_ENDPOINT"),
            project: outcomes_topic.as_deref().and_then(project).map(str::to_owned),
            ..TelemetryConfig::new("worker")
        };
        let endpoints = Endpoints {
            storage: read.text("CARREL_STORAGE_ENDPOINT"),
            pubsub: read.text("CARREL_PUBSUB_ENDPOINT"),
            run: None,
        };
        let traceparent = read.text("CARREL_TRACEPARENT");
        let all = (review, epoch, attempt, tenant, uploads, outputs, outcomes_topic, agent, execution);
        match all {
            (
                Some(review),
                Some(epoch),
                Some(attempt),
                Some(tenant),
                Some(uploads),
                Some(outputs),
                Some(outcomes_topic),
                Some(agent),
                Some(execution),
            ) if read.mistakes.is_empty() => Ok(Self {
                review,
                epoch,
                attempt,
                tenant,
                uploads,
                outputs,
                outcomes_topic,
                limits,
                scan,
                clamd,
                scanner,
                agent,
                isolation,
                volume,
                egress,
                egress_via,
                scratch,
                endpoints,
                execution,
                traceparent,
                telemetry,
            }),
            _ => Err(ConfigError(read.mistakes)),
        }
    }
}

/// Lays `--name value` and `--name=value` beside the variables; returns what is wrong with the arguments.
fn take_arguments(args: impl IntoIterator<Item = String>, values: &mut BTreeMap<String, String>) -> Vec<String> {
    let mut strange = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (arg, None),
        };
        if !["--review", "--epoch", "--attempt"].contains(&name.as_str()) {
            strange.push(format!("argument {name:?} is unknown; expected --review, --epoch and --attempt"));
        } else if let Some(value) = value.or_else(|| args.next()) {
            values.insert(name, value);
        }
    }
    strange
}

fn project(topic: &str) -> Option<&str> {
    topic.split('/').nth(1)
}

/// Cloud Run tells the execution's short name. `CARREL_JOB` gives the rest; without it the location stays `-`, which
/// is Google's word for any.
fn execution(read: &mut Reader<'_>, topic: Option<&str>) -> Option<ExecutionName> {
    let job = read.text("CARREL_JOB").or_else(|| {
        let (project, job) = (project(topic?)?, read.text("CLOUD_RUN_JOB")?);
        Some(if job.contains('/') { job } else { format!("projects/{project}/locations/-/jobs/{job}") })
    });
    read.required("CLOUD_RUN_EXECUTION", |name| {
        if name.contains('/') {
            return from_str(name);
        }
        let job =
            job.as_deref().ok_or("is a short name, and neither CARREL_JOB nor CLOUD_RUN_JOB says of which job")?;
        from_str(&format!("{job}/executions/{name}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> BTreeMap<String, String> {
        [
            ("CARREL_TENANT", "acme"),
            ("CARREL_UPLOADS_BUCKET", "acme-uploads"),
            ("CARREL_OUTPUTS_BUCKET", "acme-outputs"),
            ("CARREL_OUTCOMES_TOPIC", "projects/p/topics/outcomes"),
            ("CARREL_AGENT", r#"["/bin/analyst"]"#),
            ("CLOUD_RUN_JOB", "review-acme"),
            ("CLOUD_RUN_EXECUTION", "review-acme-x1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    fn args() -> Vec<String> {
        let review = format!("rv_{}", "0".repeat(32));
        ["--review", &review, "--epoch=1", "--attempt", "2"].map(str::to_owned).into()
    }

    #[test]
    fn a_job_as_cloud_run_starts_it_is_understood() {
        let config = Config::parse(args(), &variables(), "/tmp".into(), Vec::new()).expect("complete");
        assert_eq!(config.attempt.get(), 2);
        assert_eq!(config.execution.as_str(), "projects/p/locations/-/jobs/review-acme/executions/review-acme-x1");
        assert_eq!(config.limits, Limits::default());
        let full = BTreeMap::from([("CARREL_JOB".to_owned(), "projects/p/locations/l/jobs/j".to_owned())]);
        let config = Config::parse(args(), &variables().into_iter().chain(full).collect(), "/tmp".into(), Vec::new());
        assert_eq!(config.expect("complete").execution.job().as_str(), "projects/p/locations/l/jobs/j");
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let mut wrong = variables();
        wrong.remove("CARREL_TENANT");
        wrong.insert("CARREL_AGENT".into(), "analyst".into());
        wrong.insert("CARREL_OUTCOMES_TOPIC".into(), "outcomes".into());
        wrong.insert("CARREL_INPUT".into(), "hybrid".into());
        wrong.insert("CARREL_LIMITS".into(), r#"{"max_fils":1}"#.into());
        wrong.insert("CARREL_SCAN".into(), r#"{"antivirus":"required"}"#.into());
        let error = Config::parse(["--epoch".into(), "0".into(), "--fast".into()], &wrong, "/tmp".into(), Vec::new());
        let text = error.expect_err("wrong").to_string();
        let named = ["--review is missing", "--epoch", "--attempt is missing", "--fast", "CARREL_TENANT is missing"];
        for name in named.into_iter().chain([
            "CARREL_AGENT:",
            "CARREL_OUTCOMES_TOPIC:",
            "CARREL_INPUT:",
            "max_fils",
            "CARREL_CLAMD",
        ]) {
            assert!(text.contains(name), "{name} is not in {text}");
        }
    }
}
