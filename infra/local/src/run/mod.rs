//! Cloud Run: jobs from configuration and over the wire, executions as real processes, over the Admin API v2 in JSON.
//!
//! ```text
//! jobs/J:run ─► record committed ─► answer
//!                    └─► one process group a task ─► exit │ timeout │ cancel ─► record completed
//! ```
//!
//! | room | owns |
//! |---|---|
//! | `record` | an execution and its tasks, pure |
//! | `job` | what a job over the wire may be |
//! | `jobs` | the jobs there are, and every change of them |
//! | `shelf` | the tables and every change of them |
//! | `request` | paths, overrides, pages: what may be asked |
//! | `resource` | the JSON that Google's clients read |
//! | `launch` | from a call to committed executions |
//! | `task` | a task from start to end |
//! | `body` | what it runs as |
//! | `room`, `doors` | its room, and who answers at its sockets |
//! | `clamd` | what a task may say to a virus scanner |
//! | `log` | what a task says, up to a limit |
//! | `orphans` | process groups that outlived a cloud |
//! | `rest`, `refusal` | the protocol |
//!
//! Refused: more than one container, commands that no image of the configuration has, labels, secrets.

mod body;
pub(crate) mod clamd;
mod doors;
mod job;
mod jobs;
mod launch;
mod log;
mod orphans;
mod record;
mod refusal;
mod request;
mod resource;
mod rest;
mod room;
mod shelf;
mod task;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use axum::Router;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use clamd::Clamd;

use crate::config::{Image, Isolation, Job, Quotas};
use crate::faults::Faults;
use crate::iam::Iam;
use crate::metadata::Metadata;
use crate::store::{Store, StoreError};
use job::JobRecord;

/// What Cloud Run is made of.
pub struct Parts {
    /// The database.
    pub store: Store,
    /// Who may do what.
    pub iam: Iam,
    /// The fault plan.
    pub faults: Faults,
    /// Gives each task its identity.
    pub metadata: Metadata,
    /// Logs and homes of tasks lie below it; created if absent.
    pub data_dir: PathBuf,
    /// The project that owns the jobs.
    pub project: String,
    /// Where the jobs are said to run.
    pub location: String,
    /// What an image is on this machine.
    pub images: BTreeMap<String, Image>,
    /// The jobs to have.
    pub jobs: Vec<Job>,
    /// Whom a job may run as.
    pub service_accounts: Vec<String>,
    /// What there may be at once.
    pub quotas: Quotas,
    /// What divides its tasks.
    pub isolation: Isolation,
    /// The address of this cloud, where its tasks find it.
    pub address: SocketAddr,
    /// What else they reach.
    pub reach: Vec<SocketAddr>,
    /// The virus scanner that they may ask.
    pub clamd: Option<Clamd>,
    /// The command that serves a bucket as files.
    pub volume_server: Vec<String>,
}

/// Why Cloud Run did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A job's name in the configuration.
    #[error(
        "configure job {0:?}: a name is 1 to 49 characters of a-z, 0-9 and -, begins with a letter, ends without -"
    )]
    Name(String),
    /// A job names an image that is not configured, or that has no command.
    #[error("configure job {job}: image {image:?} has no command; give it an argv under `images`")]
    Image {
        /// The job.
        job: String,
        /// The image.
        image: String,
    },
    /// The database.
    #[error("open the tables of cloud run")]
    Store(#[from] StoreError),
    /// The directory of the logs or of the homes.
    #[error("open directory {dir}")]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Cloud Run: a cheap handle.
#[derive(Clone)]
pub struct Run(Arc<Inner>);

struct Inner {
    store: Store,
    iam: Iam,
    faults: Faults,
    metadata: Metadata,
    logs: PathBuf,
    homes: PathBuf,
    project: String,
    location: String,
    images: BTreeMap<String, Image>,
    jobs: RwLock<BTreeMap<String, JobRecord>>,
    /// Held over a change of the jobs, from the look to the commit.
    changing: tokio::sync::Mutex<()>,
    service_accounts: Vec<String>,
    quotas: Quotas,
    isolation: Isolation,
    address: SocketAddr,
    reach: Vec<SocketAddr>,
    clamd: Option<Clamd>,
    volume_server: Vec<String>,
    /// All services, for the sockets of rooms; gone once this cloud shuts down.
    app: Mutex<Option<Router>>,
    /// Execution name to its stop button, for those whose tasks this cloud owns.
    running: Mutex<HashMap<String, CancellationToken>>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.running.lock().expect("no code panics while it holds the running executions")
    }

    fn app(&self) -> Option<Router> {
        self.app.lock().expect("no code panics while it holds the services").clone()
    }

    /// The command line that serves this bucket.
    fn volume_server(&self, bucket: &str) -> Vec<String> {
        let endpoint = format!("http://{}", self.address);
        let fill = |word: &String| word.replace("{bucket}", bucket).replace("{endpoint}", &endpoint);
        self.volume_server.iter().map(fill).collect()
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("logs", &self.0.logs).finish_non_exhaustive()
    }
}

/// Microseconds since 1970.
fn now_us() -> i64 {
    i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1000).expect("the clock is before the year 294247")
}

/// An execution's name adds a hyphen and 8 characters, and is a label of at most 63.
fn is_job_name(name: &str) -> bool {
    (1..=49).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

impl Run {
    /// Opens the tables; ends what a cloud that was killed left running, and marks it failed.
    pub async fn open(parts: Parts) -> Result<Self, OpenError> {
        let Parts { store, iam, faults, metadata, data_dir, project, location, images, jobs, .. } = parts;
        let Parts { isolation, address, reach, clamd, volume_server, service_accounts, quotas, .. } = parts;
        for job in &jobs {
            if !is_job_name(&job.name) {
                return Err(OpenError::Name(job.name.clone()));
            }
            if images.get(&job.image).is_none_or(|image| image.argv.is_empty()) {
                return Err(OpenError::Image { job: job.name.clone(), image: job.image.clone() });
            }
        }
        let directory = |name: &str| {
            let dir = data_dir.join(name);
            let made = std::fs::create_dir_all(&dir).and_then(|()| dir.canonicalize());
            made.map_err(|source| OpenError::Directory { dir, source })
        };
        let logs = directory("logs")?;
        let (jobs, stale) = store
            .write(move |txn| {
                shelf::create_tables(txn)?;
                let torn = shelf::set_torn_aside(txn)?;
                // Before their names are forgotten for good.
                orphans::kill(&[], &torn);
                Ok((shelf::ensure_jobs(txn, &jobs, now_us())?, shelf::unfinished(txn)?))
            })
            .await?;
        orphans::kill(&stale, &[]);
        if !stale.is_empty() {
            tracing::warn!(run.executions = stale.len(), "ended executions that a former cloud left behind");
            let keys: Vec<(String, u64)> = stale.iter().map(|record| (record.job.clone(), record.seq)).collect();
            store
                .write(move |txn| keys.iter().try_for_each(|(job, seq)| shelf::abandon(txn, job, *seq, now_us())))
                .await?;
        }
        let homes = data_dir.join("homes");
        match std::fs::remove_dir_all(&homes) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::Directory { dir: homes, source });
            }
            _ => {}
        }
        let homes = directory("homes")?;
        Ok(Self(Arc::new(Inner {
            store,
            iam,
            faults,
            metadata,
            logs,
            homes,
            project,
            location,
            images,
            jobs: RwLock::new(jobs),
            changing: tokio::sync::Mutex::default(),
            service_accounts,
            quotas,
            isolation,
            address,
            reach,
            clamd,
            volume_server,
            app: Mutex::default(),
            running: Mutex::default(),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })))
    }

    /// Has all services answer at the sockets of rooms from now on.
    pub fn serve_rooms(&self, app: Router) {
        *self.0.app.lock().expect("no code panics while it holds the services") = Some(app);
    }

    /// The Admin API, under `/v2`.
    pub fn router(&self) -> Router {
        rest::router(self.clone())
    }

    /// Takes no more launches, ends every task, and returns once their ends are on record.
    pub async fn shutdown(&self) {
        self.0.closing.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        // The services hold this one.
        drop(self.0.app.lock().expect("no code panics while it holds the services").take());
    }
}

#[cfg(test)]
mod tests {
    use super::resource::Place;
    use super::rest::Call;
    use super::*;
    use crate::faults::FaultPlan;
    use crate::iam::Principal;

    /// Who may do everything here.
    pub(super) const CALLER: &str = "caller@demo.iam.gserviceaccount.com";

    /// A Cloud Run of nothing but an image, and a call of its owner's; the directory lives as long as both.
    pub(super) async fn bench() -> (tempfile::TempDir, Call) {
        let dir = tempfile::tempdir().expect("a directory");
        let iam = Iam::open(dir.path(), &BTreeMap::new(), &[]).expect("a policy");
        let image = Image { argv: vec!["/bin/sh".to_owned()], files: Vec::new(), env: BTreeMap::new() };
        let parts = Parts {
            store: Store::open(&dir.path().join("db")).expect("opened"),
            metadata: Metadata::new(iam.clone(), "demo", "here"),
            iam,
            faults: Faults::new(FaultPlan::default()),
            data_dir: dir.path().to_owned(),
            project: "demo".to_owned(),
            location: "here".to_owned(),
            images: BTreeMap::from([("shell".to_owned(), image)]),
            jobs: Vec::new(),
            service_accounts: vec![CALLER.to_owned()],
            quotas: Quotas::default(),
            isolation: Isolation::None,
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            reach: Vec::new(),
            clamd: None,
            volume_server: Vec::new(),
        };
        let run = Run::open(parts).await.expect("opened");
        let call = Call { run, who: Principal::owner(), place: Place("projects/demo/locations/here".to_owned()) };
        (dir, call)
    }
}
