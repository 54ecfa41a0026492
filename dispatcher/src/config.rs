//! The dispatcher's settings, read once from the environment; every mistake is reported at once.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `CARREL_PROJECT` | project of topics and subscriptions | required |
//! | `CARREL_REGISTRY` | path of the tenant registry, YAML or JSON | required |
//! | `CARREL_CONTROL_BUCKET` | the ledger's bucket | required |
//! | `CARREL_LISTEN` | address of the HTTP API | `127.0.0.1:8080` |
//! | `CARREL_CALLS_PER_SECOND` | calls of the API that one tenant, or one operator, may make; ten times as many at once | `100` |
//! | `CARREL_OIDC_AUDIENCE` | the audience of identity tokens that the API takes beside the registry's keys | none are taken |
//! | `CARREL_OIDC_ISSUERS` | who may issue them, separated by commas | Google |
//! | `CARREL_OIDC_JWKS` | where the issuer publishes its keys | Google's |
//! | `CARREL_CAPACITY` | reviews that run at once over all tenants | `100` |
//! | `CARREL_LAUNCHES_PER_MINUTE` | launches over all tenants, on average; any one minute may see a sixth more. Set it to five sixths of the region's quota `JobRunPerMinutePerProjectRegion`; the default is for 60 | `50` |
//! | `CARREL_RECONCILE_MS` | between two hot loops, milliseconds | `2000` |
//! | `CARREL_STUCK_AFTER` | what could not be moved on for this long is filed: `90m`, `12h`, `3d` | `1h` |
//! | `CARREL_RETENTION` | what has been over for this long is removed | `400d` |
//! | `CARREL_REPLICA` | name of this replica where no two of one name run: one that is started again leads at once | random |
//! | `CARREL_STORAGE_ENDPOINT`, `CARREL_PUBSUB_ENDPOINT`, `CARREL_RUN_ENDPOINT` | where the services answer | Google's |
//! | `CARREL_LOG_FORMAT` | `human` or `json` (Cloud Logging) | `human` |
//! | `CARREL_LOG` | filter directives | `info`, libraries quieter |
//! | `CARREL_OTLP_ENDPOINT` | where traces go, OTLP over gRPC | nowhere |
//! | `CARREL_READY_FILE` | written with the API's address once it listens | none |

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use carrel_cloud::Endpoints;
use carrel_schemas::ids::BucketName;
use carrel_schemas::registry::Registry;
use carrel_telemetry::{Format, TelemetryConfig};

use crate::age::Age;
use crate::registry_file;

/// Calls a second.
pub type Pace = NonZeroU32;

const GOOGLE_ISSUERS: &str = "https://accounts.google.com,accounts.google.com";
const GOOGLE_JWKS: &str = "https://www.googleapis.com/oauth2/v3/certs";

/// Whose identity tokens the API takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oidc {
    /// The audience they must be for.
    pub audience: String,
    /// Who may issue them.
    pub issuers: Vec<String>,
    /// Where the issuer publishes its keys.
    pub jwks: String,
}

/// Everything the dispatcher is told.
#[derive(Debug)]
pub struct Config {
    /// Project of topics and subscriptions.
    pub project: String,
    /// The tenants.
    pub registry: Registry,
    /// The ledger's bucket.
    pub control_bucket: BucketName,
    /// Address of the HTTP API.
    pub listen: SocketAddr,
    /// Calls of the API that one caller may make.
    pub calls_per_second: Pace,
    /// Whose identity tokens the API takes, if any.
    pub oidc: Option<Oidc>,
    /// Reviews that run at once over all tenants.
    pub capacity: usize,
    /// Launches over all tenants, on average.
    pub launches_per_minute: NonZeroU32,
    /// Between two hot loops.
    pub reconcile: Duration,
    /// What could not be moved on for this long is filed.
    pub stuck_after: Duration,
    /// What has been over for this long is removed.
    pub retention: Duration,
    /// Name of this replica, if it has one that outlives the process.
    pub replica: Option<String>,
    /// Where the services answer.
    pub endpoints: Endpoints,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
    /// Written with the API's address once it listens.
    pub ready_file: Option<PathBuf>,
}

/// Every mistake of one environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub Vec<String>);

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dispatcher configuration has {} mistake(s)", self.0.len())?;
        self.0.iter().try_for_each(|mistake| write!(f, "\n  - {mistake}"))
    }
}

struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    mistakes: Vec<String>,
}

impl Reader<'_> {
    fn optional(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    fn required(&mut self, name: &str, what: &str) -> Option<String> {
        let value = self.optional(name);
        if value.is_none() {
            self.mistakes.push(format!("{name} is not set: {what}"));
        }
        value
    }

    fn parsed<T: std::str::FromStr>(&mut self, name: &str, default: &str) -> Option<T>
    where
        T::Err: fmt::Display,
    {
        let text = self.optional(name).unwrap_or_else(|| default.to_owned());
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.mistakes.push(format!("{name}={text:?}: {error}"));
                None
            }
        }
    }

    /// `mistake` goes to the others.
    fn noted<T, E>(&mut self, read: Result<T, E>, mistake: impl FnOnce(E) -> String) -> Option<T> {
        read.map_err(|error| self.mistakes.push(mistake(error))).ok()
    }

    /// A length of time that is more than none.
    fn age(&mut self, name: &str, default: &str) -> Option<Duration> {
        let Age(age) = self.parsed::<Age>(name, default)?;
        if age.is_zero() {
            self.mistakes.push(format!("{name} is nothing; must be at least 1s"));
        }
        Some(age)
    }

    fn registry(&mut self) -> Option<Registry> {
        let path = self.required("CARREL_REGISTRY", "the path of the tenant registry")?;
        self.noted(registry_file::load(Path::new(&path)), |error| error.to_string())
    }

    /// The ledger's bucket, which no tenant may own.
    fn control_bucket(&mut self, registry: Option<&Registry>) -> Option<BucketName> {
        let name = self.required("CARREL_CONTROL_BUCKET", "the ledger's bucket")?;
        let bucket = self.noted(BucketName::parse(name), |error| format!("CARREL_CONTROL_BUCKET: {error}"))?;
        let owner = registry
            .and_then(|registry| registry.by_uploads_bucket(&bucket).or_else(|| registry.by_outputs_bucket(&bucket)));
        if let Some(tenant) = owner {
            let mistake = format!("control bucket {bucket} belongs to tenant {}; give the ledger its own", tenant.id);
            self.mistakes.push(mistake);
        }
        Some(bucket)
    }

    fn oidc(&mut self) -> Option<Oidc> {
        let audience = self.optional("CARREL_OIDC_AUDIENCE")?;
        let issuers = self.optional("CARREL_OIDC_ISSUERS").unwrap_or_else(|| GOOGLE_ISSUERS.to_owned());
        let issuers = issuers.split(',').map(|issuer| issuer.trim().to_owned()).collect();
        let jwks = self.optional("CARREL_OIDC_JWKS").unwrap_or_else(|| GOOGLE_JWKS.to_owned());
        // Whoever can change these keys on the way can be anybody.
        if !jwks.starts_with("https://") && !jwks.starts_with("http://127.0.0.1:") {
            self.mistakes.push(format!("CARREL_OIDC_JWKS={jwks:?}: must be https, or http on 127.0.0.1"));
        }
        Some(Oidc { audience, issuers, jwks })
    }

    fn telemetry(&mut self, project: Option<String>) -> TelemetryConfig {
        let mut telemetry = TelemetryConfig::new("dispatcher");
        match self.optional("CARREL_LOG_FORMAT").as_deref() {
            None | Some("human") => {}
            Some("json") => telemetry.format = Format::CloudJson,
            Some(other) => self.mistakes.push(format!("CARREL_LOG_FORMAT={other:?}: must be human or json")),
        }
        if let Some(filter) = self.optional("CARREL_LOG") {
            telemetry.filter = filter;
        }
        telemetry.otlp_endpoint = self.optional("CARREL_OTLP_ENDPOINT");
        telemetry.project = project;
        telemetry
    }
}

impl Config {
    /// Reads the process's environment.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::read(&|name| std::env::var(name).ok())
    }

    /// Reads any environment.
    pub fn read(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut reader = Reader { lookup, mistakes: Vec::new() };
        let project = reader.required("CARREL_PROJECT", "the project of topics and subscriptions");
        let registry = reader.registry();
        let control_bucket = reader.control_bucket(registry.as_ref());
        let listen = reader.parsed::<SocketAddr>("CARREL_LISTEN", "127.0.0.1:8080");
        let calls_per_second = reader.parsed::<Pace>("CARREL_CALLS_PER_SECOND", "100");
        let oidc = reader.oidc();
        let capacity = reader.parsed::<std::num::NonZeroUsize>("CARREL_CAPACITY", "100");
        let launches_per_minute = reader.parsed::<NonZeroU32>("CARREL_LAUNCHES_PER_MINUTE", "50");
        let reconcile = reader.parsed::<std::num::NonZeroU64>("CARREL_RECONCILE_MS", "2000");
        let stuck_after = reader.age("CARREL_STUCK_AFTER", "1h");
        let retention = reader.age("CARREL_RETENTION", "400d");
        let replica = reader.optional("CARREL_REPLICA");
        let endpoints = Endpoints {
            storage: reader.optional("CARREL_STORAGE_ENDPOINT"),
            pubsub: reader.optional("CARREL_PUBSUB_ENDPOINT"),
            run: reader.optional("CARREL_RUN_ENDPOINT"),
        };
        let telemetry = reader.telemetry(project.clone());
        let ready_file = reader.optional("CARREL_READY_FILE").map(PathBuf::from);
        match (
            project,
            registry,
            control_bucket,
            listen,
            calls_per_second,
            capacity,
            launches_per_minute,
            reconcile,
            stuck_after,
            retention,
            reader.mistakes,
        ) {
            (
                Some(project),
                Some(registry),
                Some(control_bucket),
                Some(listen),
                Some(calls_per_second),
                Some(capacity),
                Some(launches_per_minute),
                Some(reconcile),
                Some(stuck_after),
                Some(retention),
                none,
            ) if none.is_empty() => Ok(Self {
                project,
                registry,
                control_bucket,
                listen,
                calls_per_second,
                oidc,
                capacity: capacity.get(),
                launches_per_minute,
                reconcile: Duration::from_millis(reconcile.get()),
                stuck_after,
                retention,
                replica,
                endpoints,
                telemetry,
                ready_file,
            }),
            (.., mistakes) => Err(ConfigError(mistakes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_reported_at_once() {
        let lookup = |name: &str| match name {
            "CARREL_LISTEN" => Some("nowhere".to_owned()),
            "CARREL_OIDC_AUDIENCE" => Some("carrel".to_owned()),
            "CARREL_OIDC_JWKS" => Some("http://elsewhere/keys".to_owned()),
            "CARREL_CAPACITY" | "CARREL_LAUNCHES_PER_MINUTE" => Some("0".to_owned()),
            "CARREL_RETENTION" => Some("0d".to_owned()),
            "CARREL_STUCK_AFTER" => Some("a while".to_owned()),
            "CARREL_LOG_FORMAT" => Some("xml".to_owned()),
            "CARREL_REGISTRY" => Some("/does/not/exist.yaml".to_owned()),
            _ => None,
        };
        let text = Config::read(&lookup).expect_err("many mistakes").to_string();
        for word in [
            "http://elsewhere/keys",
            "CARREL_PROJECT",
            "CARREL_CONTROL_BUCKET",
            "nowhere",
            "CARREL_CAPACITY",
            "CARREL_RETENTION is nothing",
            "a while",
            "CARREL_LAUNCHES_PER_MINUTE",
            "xml",
            "exist.yaml",
        ] {
            assert!(text.contains(word), "{word} is missing from:\n{text}");
        }
    }
}
