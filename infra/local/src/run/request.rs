//! What may be asked of Cloud Run: resource paths with their verbs, overrides of a launch, pages of a listing.
//!
//! Unknown fields are refused, as Google does: a misspelt override must not be a launch without it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::refusal::Refusal;

/// Tasks of one execution at most.
pub(super) const MAX_TASKS: usize = 100;
/// The longest timeout of a task Google grants, seconds: 7 days.
const MAX_TIMEOUT_SECONDS: f64 = 604_800.0;
/// Items of a page, unless told, and at most.
const PAGE: usize = 100;

/// What a path under `/v2/projects/P/locations/L/` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `jobs`
    Jobs,
    /// `jobs/J`
    Job(String),
    /// `jobs/J/executions`
    Executions(String),
    /// `jobs/J/executions/E`
    Execution(String, String),
    /// `jobs/J/executions/E/tasks`
    Tasks(String, String),
    /// `jobs/J/executions/E/tasks/T`
    Task(String, String, String),
    /// `operations/O`
    Operation(String),
}

/// A parsed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// The project's id.
    pub(super) project: String,
    /// The location's id.
    pub(super) location: String,
    /// What it names there.
    pub(super) target: Target,
    /// What follows the colon.
    pub(super) verb: Option<String>,
}

impl Address {
    /// Parses what follows `/v2/`.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let (path, verb) = match path.rsplit_once(':') {
            Some((path, verb)) if !verb.contains('/') => (path, Some(verb.to_owned())),
            _ => (path, None),
        };
        let segments: Vec<&str> = path.split('/').collect();
        let ["projects", project, "locations", location, rest @ ..] = segments.as_slice() else { return None };
        let own = |text: &&str| (*text).to_owned();
        let target = match rest {
            ["jobs"] => Target::Jobs,
            ["jobs", job] => Target::Job(own(job)),
            ["jobs", job, "executions"] => Target::Executions(own(job)),
            ["jobs", job, "executions", name] => Target::Execution(own(job), own(name)),
            ["jobs", job, "executions", name, "tasks"] => Target::Tasks(own(job), own(name)),
            ["jobs", job, "executions", name, "tasks", task] => Target::Task(own(job), own(name), own(task)),
            ["operations", id] => Target::Operation(own(id)),
            _ => return None,
        };
        Some(Self { project: own(project), location: own(location), target, verb })
    }
}

/// The body of `jobs/J:run`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct RunJob {
    name: String,
    /// Not served: refused when true.
    pub(super) validate_only: bool,
    /// The job's, or empty.
    pub(super) etag: String,
    /// What this launch sets.
    pub(super) overrides: Option<Overrides>,
}

/// What one launch sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Overrides {
    container_overrides: Vec<ContainerOverride>,
    task_count: i32,
    timeout: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct ContainerOverride {
    name: String,
    args: Vec<String>,
    env: Vec<EnvVar>,
    clear_args: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EnvVar {
    name: String,
    #[serde(default)]
    value: String,
}

impl EnvVar {
    /// Name and value, if a process can have them; `container` is what has them.
    pub(super) fn checked(self, container: &str) -> Result<(String, String), Refusal> {
        let Self { name, value } = self;
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(Refusal::Invalid(format!("{container}.env: {name:?} is no variable")));
        }
        Ok((name, value))
    }
}

/// Overrides that make sense.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// In the place of the job's arguments.
    pub(super) args: Option<Vec<String>>,
    /// On top of the job's environment.
    pub(super) env: BTreeMap<String, String>,
    /// How many tasks.
    pub(super) task_count: Option<usize>,
    /// How long a task may take, milliseconds.
    pub(super) timeout_ms: Option<u64>,
}

impl Overrides {
    /// Checks them.
    pub(super) fn settings(self) -> Result<Settings, Refusal> {
        let invalid = |text: String| Err(Refusal::Invalid(text));
        let mut settings = Settings::default();
        if self.container_overrides.len() > 1 {
            return invalid("overrides.container_overrides: a job here has one container".into());
        }
        if let Some(container) = self.container_overrides.into_iter().next() {
            if container.clear_args && !container.args.is_empty() {
                return invalid("overrides.container_overrides[0]: clear_args excludes args".into());
            }
            if container.clear_args || !container.args.is_empty() {
                settings.args = Some(container.args);
            }
            for variable in container.env {
                let (name, value) = variable.checked("overrides.container_overrides[0]")?;
                settings.env.insert(name, value);
            }
        }
        if settings.args.iter().flatten().any(|arg| arg.contains('\0')) {
            return invalid("overrides.container_overrides[0].args: an argument holds a NUL".into());
        }
        settings.task_count = match usize::try_from(self.task_count) {
            Ok(0) => None,
            Ok(count) if count <= MAX_TASKS => Some(count),
            _ => return invalid(format!("overrides.task_count: {} is not 1 to {MAX_TASKS}", self.task_count)),
        };
        settings.timeout_ms = self.timeout.as_deref().map(timeout_ms).transpose()?;
        Ok(settings)
    }
}

/// `900s` or `1.5s`.
pub(super) fn timeout_ms(text: &str) -> Result<u64, Refusal> {
    let seconds = text.strip_suffix('s').and_then(|number| number.parse::<f64>().ok());
    let seconds = seconds.filter(|seconds| *seconds > 0.0 && *seconds <= MAX_TIMEOUT_SECONDS);
    let refuse = || Refusal::Invalid(format!("timeout: {text:?} is not over 0s and at most 604800s"));
    let duration = std::time::Duration::try_from_secs_f64(seconds.ok_or_else(refuse)?).map_err(|_| refuse())?;
    u64::try_from(duration.as_millis()).map(|ms| ms.max(1)).map_err(|_| refuse())
}

/// The body of `executions/E:cancel`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Cancel {
    name: String,
    /// Not served: refused when true.
    pub(super) validate_only: bool,
    /// The execution's, or empty.
    pub(super) etag: String,
}

/// Reads a JSON body; an empty one says nothing.
pub(super) fn body<T: DeserializeOwned + Default>(bytes: &[u8]) -> Result<T, Refusal> {
    if bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(bytes).map_err(|error| Refusal::Invalid(format!("invalid JSON payload: {error}")))
}

/// The query of a call; other parameters (`$alt`) mean nothing here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Page {
    page_size: i64,
    page_token: String,
    /// What a new job is called.
    pub(super) job_id: String,
    /// A change of what is not there makes it.
    pub(super) allow_missing: bool,
    /// What a deletion expects to find, or empty.
    pub(super) etag: String,
    /// Not served: refused when true.
    pub(super) validate_only: bool,
}

impl Page {
    /// Items wanted.
    pub(super) fn size(&self) -> usize {
        usize::try_from(self.page_size).ok().filter(|size| *size > 0).unwrap_or(PAGE).min(PAGE)
    }

    /// The name that the page before ended with.
    pub(super) fn after(&self) -> &str {
        &self.page_token
    }

    /// The number that the page before ended with.
    pub(super) fn token(&self) -> Result<Option<u64>, Refusal> {
        if self.page_token.is_empty() {
            return Ok(None);
        }
        let token = self.page_token.parse();
        token.map(Some).map_err(|_| Refusal::Invalid(format!("page_token: {:?} is none of ours", self.page_token)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_one_thing_and_its_verb() {
        let address = Address::parse("projects/p/locations/l/jobs/j:run").expect("parses");
        assert_eq!((address.target, address.verb.as_deref()), (Target::Job("j".into()), Some("run")));
        let address = Address::parse("projects/p/locations/l/jobs/j/executions/e").expect("parses");
        assert_eq!((address.target, address.verb), (Target::Execution("j".into(), "e".into()), None));
        for path in ["", "projects/p/jobs/j", "projects/p/locations/l/services/s", "projects/p/locations/l/jobs/j/x"] {
            assert_eq!(Address::parse(path), None, "{path}");
        }
    }

    #[test]
    fn overrides_that_make_no_sense_are_refused() {
        for text in [
            r#"{"overrides":{"timeout":"-1s"}}"#,
            r#"{"overrides":{"timeout":"NaNs"}}"#,
            r#"{"overrides":{"timeout":"900"}}"#,
            r#"{"overrides":{"taskCount":-1}}"#,
            r#"{"overrides":{"containerOverrides":[{},{}]}}"#,
            r#"{"overrides":{"containerOverrides":[{"env":[{"name":"A=B"}]}]}}"#,
            r#"{"overrides":{"containerOverrides":[{"args":["a"],"clearArgs":true}]}}"#,
            r#"{"overrides":{"containerOverrides":[{"arguments":["a"]}]}}"#,
        ] {
            let run: Result<RunJob, _> = body(text.as_bytes());
            assert!(run.and_then(|run| run.overrides.expect("given").settings()).is_err(), "{text}");
        }
        assert_eq!(timeout_ms("1.5s").expect("parses"), 1_500);
    }
}
