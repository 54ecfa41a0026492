//! What can be typed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use carrel_dispatcher::age::Age;
use carrel_local::iam::Principal;
use carrel_worker::scan::Clamd;
use clap::{Args, Parser, Subcommand};

/// Reviews packs of uploaded files, each tenant's in a room of its own.
#[derive(Debug, Parser)]
#[command(name = "carrel", version, arg_required_else_help = true)]
pub struct Carrel {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the whole fleet on this machine and review sample packs of two tenants.
    Demo {
        /// Where everything is kept; a new temporary directory if not given.
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Run without any isolation where this machine can give none. Nothing then divides tenants and their agents
        /// from this machine: for trusted files only.
        #[arg(long)]
        insecure: bool,
        /// Print one JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Keep a durable fleet running until Ctrl-C.
    Up {
        /// Where everything is kept; started again on the same directory it goes on where it stood.
        #[arg(long, default_value = ".carrel")]
        dir: PathBuf,
        /// A tenant registry; two sample tenants if not given.
        #[arg(long)]
        tenants: Option<PathBuf>,
        /// Run without any isolation where this machine can give none. Nothing then divides tenants and their agents
        /// from this machine: for trusted files only.
        #[arg(long)]
        insecure: bool,
        /// The agent's command line as a JSON array, in place of the built-in analyst.
        #[arg(long, value_name = "JSON", value_parser = command_line)]
        agent: Option<Words>,
        /// The virus scanner that every file passes: clamd's socket, or host:port.
        #[arg(long)]
        clamd: Option<Clamd>,
        /// Print where it answers as one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Say which rooms this machine can build, and what to do where it cannot.
    Probe {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run the loopback cloud alone, for any program in any language.
    Cloud(Cloud),
    /// Upload files as one pack, and mark the pack complete.
    Upload {
        /// Whose.
        tenant: String,
        /// The pack's folder.
        pack: String,
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Which fleet.
        #[command(flatten)]
        fleet: Which,
    },
    /// Look at reviews.
    #[command(subcommand)]
    Reviews(Reviews),
    /// Look at what was not reviewed, and why; replay it or put it aside.
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Look at campaigns of replays, and steer them.
    #[command(subcommand)]
    Campaigns(Campaigns),
    /// Check a tenant registry.
    #[command(subcommand)]
    Tenants(Tenants),
    /// The parts of the fleet, as the fleet starts them.
    #[command(subcommand, hide = true)]
    Internal(Internal),
}

/// What the loopback cloud is, and whom it knows.
#[derive(Debug, Args)]
pub struct Cloud {
    /// Its configuration, JSON; without one it begins empty, and what it holds is made over its APIs.
    #[arg(long, conflicts_with_all = ["dir", "listen", "project"])]
    pub config: Option<PathBuf>,
    /// Where an empty cloud keeps what it is given; started again on the same directory it goes on where it stood.
    #[arg(long, default_value = ".carrel-cloud")]
    pub dir: PathBuf,
    /// Where it answers, all services at once; port 0 is any free one.
    #[arg(long, default_value = "127.0.0.1:8085")]
    pub listen: SocketAddr,
    /// The project that owns its buckets.
    #[arg(long, default_value = "carrel-local")]
    pub project: String,
    /// Who callers without a token are, as serviceAccount:NAME@PROJECT.iam.gserviceaccount.com. The clients of emulators
    /// are such callers. user:owner@localhost may do everything; anybody else what a binding of the configuration grants.
    #[arg(long, value_name = "PRINCIPAL", value_parser = Principal::parse)]
    pub anonymous_as: Option<Principal>,
    /// What it does wrong, JSON; a seed is thrown and printed where the file names none.
    #[arg(long, value_name = "FILE")]
    pub faults: Option<PathBuf>,
}

/// A command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words(pub Vec<String>);

fn command_line(text: &str) -> Result<Words, String> {
    let words: Vec<String> =
        serde_json::from_str(text).map_err(|error| format!("is no JSON array of words: {error}"))?;
    match words.first() {
        Some(program) if program.starts_with('/') => Ok(Words(words)),
        _ => Err("must begin with the absolute path of a program, as in [\"/usr/bin/python3\", \"/opt/agent.py\"]"
            .to_owned()),
    }
}

/// Which fleet a command speaks to, and how it prints.
#[derive(Debug, Args)]
pub struct Which {
    /// The directory that `carrel up` was given.
    #[arg(long, default_value = ".carrel")]
    pub dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Commands on reviews.
#[derive(Debug, Subcommand)]
pub enum Reviews {
    /// Every review of a tenant, newest first.
    List {
        /// Whose.
        tenant: String,
        /// Which fleet.
        #[command(flatten)]
        fleet: Which,
    },
    /// One review.
    Show {
        /// Whose.
        tenant: String,
        /// Which.
        review: String,
        /// Which fleet.
        #[command(flatten)]
        fleet: Which,
    },
    /// Say in plain words what became of an upload or a review, and what is being waited for.
    Explain {
        /// gs://BUCKET/NAME of an upload, or a review's id.
        what: String,
        /// Which fleet.
        #[command(flatten)]
        fleet: Which,
    },
    /// End a review that is not finished; nothing of it is delivered.
    Cancel {
        /// Whose.
        tenant: String,
        /// Which.
        review: String,
        /// Why; it stands in the outcome and in the completion event.
        #[arg(long)]
        reason: String,
        /// Which fleet.
        #[command(flatten)]
        fleet: Which,
    },
    /// Wait until a review is finished; fails unless it was delivered.
    Wait {
        /// Whose.
        tenant: String,
        /// Which.
        review: String,
        /// Seconds to wait at most.
        #[arg(long, default_value_t = 600)]
        timeout: u64,
        /// Which fleet.
        #[command(flatten)]
        fleet: Which,
    },
}

/// Which dead letters.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which letters")]
pub struct Letters {
    /// Of this tenant; `_unknown` for those whose sender is nobody's.
    #[arg(long)]
    pub tenant: Option<String>,
    /// Of this kind of failure, as `list` shows it.
    #[arg(long)]
    pub class: Option<String>,
    /// That failed alike: the fingerprint, as `stats` shows it.
    #[arg(long)]
    pub fingerprint: Option<String>,
    /// Whose reason holds this text.
    #[arg(long)]
    pub text: Option<String>,
    /// Filed longer ago than this, as 90m, 12h or 3d.
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub older_than: Option<Duration>,
    /// Filed no longer ago than this.
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub newer_than: Option<Duration>,
}

/// Which dead letters, and what has become of them.
#[derive(Debug, Args)]
pub struct Looked {
    /// Which.
    #[command(flatten)]
    pub letters: Letters,
    /// Only those in this state: open, replaying, resolved, discarded.
    #[arg(long)]
    pub state: Option<String>,
}

fn age(text: &str) -> Result<Duration, String> {
    text.parse().map(|Age(age)| age)
}

/// Commands on dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// How many there are, grouped by how they failed.
    Stats {
        /// Which letters.
        #[command(flatten)]
        letters: Looked,
        /// Which fleet.
        #[command(flatten)]
        fleet: Which,
    },
    /// One page of letters, the newest first.
    List {
        /// Which letters.
        #[command(flatten)]
        letters: Looked,
        /// Letters of a page.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// The page after this letter, as the page before names it.
        #[arg(long)]
        page: Option<String>,
        /// Which fleet.
        #[command(flatten)]
        fleet: Which,
    },
    /// One letter, with the message it is about.
    Show {
        /// Which.
        letter: String,
        /// Which fleet.
        #[command(flatten)]
        fleet: Which,
    },
    /// Have open letters replayed by the fleet, as a campaign.
    Replay {
        /// These letters alone.
        letter: Vec<String>,
        /// Which letters.
        #[command(flatten)]
        letters: Letters,
        /// Every open letter of everybody.
        #[arg(long)]
        all: bool,
        /// Only say what would become of each.
        #[arg(long)]
        dry_run: bool,
        /// Go on only once this many have passed.
        #[arg(long, default_value_t = 0)]
        canary: u32,
        /// Replays begun in a minute at most.
        #[arg(long, default_value_t = 60)]
        per_minute: u32,
        /// Asking twice with one key is asking once; made up if not given.
        #[arg(long)]
        key: Option<String>,
        /// Which fleet.
        #[command(flatten)]
        fleet: Which,
    },
    /// Put an open letter aside.
    Discard {
        /// Which.
        letter: String,
        /// Why; kept with the letter.
        #[arg(long)]
        reason: String,
        /// Which fleet.
        #[command(flatten)]
        fleet: Which,
    },
    /// Every letter, whole, one line of JSON each.
    Export {
        /// Which letters.
        #[command(flatten)]
        letters: Looked,
        /// Which fleet.
        #[command(flatten)]
        fleet: Which,
    },
}

/// Commands on campaigns of replays.
#[derive(Debug, Subcommand)]
pub enum Campaigns {
    /// Every campaign, the newest first.
    List {
        /// Which fleet.
        #[command(flatten)]
        fleet: Which,
    },
    /// One campaign, and how far each of its letters is.
    Show {
        /// Which.
        campaign: String,
        /// Which fleet.
        #[command(flatten)]
        fleet: Which,
    },
    /// Begin nothing more of it for now.
    Pause {
        /// Which.
        campaign: String,
        /// Which fleet.
        #[command(flatten)]
        fleet: Which,
    },
    /// Go on with one that was paused, or that halted.
    Resume {
        /// Which.
        campaign: String,
        /// Which fleet.
        #[command(flatten)]
        fleet: Which,
    },
    /// Begin nothing more of it, ever.
    Cancel {
        /// Which.
        campaign: String,
        /// Which fleet.
        #[command(flatten)]
        fleet: Which,
    },
}

/// Commands on the registry.
#[derive(Debug, Subcommand)]
pub enum Tenants {
    /// Report every mistake of a registry file.
    Check {
        /// The file, YAML or JSON.
        file: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// The parts of the fleet.
#[derive(Debug, Subcommand)]
pub enum Internal {
    /// The loopback cloud.
    Cloud {
        /// Its configuration, JSON.
        #[arg(long)]
        config: PathBuf,
    },
    /// The dispatcher.
    Dispatcher,
    /// One attempt at a review.
    #[command(disable_help_flag = true)]
    Worker {
        /// The worker's own arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// A bucket as files.
    #[command(disable_help_flag = true)]
    Volume {
        /// The volume's own arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Opens a room from within a room.
    Room,
    /// The built-in agent.
    Analyst {
        /// The request file.
        args: Vec<String>,
    },
}
