//! What can be typed.

use std::path::PathBuf;

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
    /// Run the loopback cloud alone.
    Cloud {
        /// Its configuration, JSON.
        #[arg(long)]
        config: PathBuf,
    },
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
    /// Look at what was not reviewed, and why.
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Check a tenant registry.
    #[command(subcommand)]
    Tenants(Tenants),
    /// The parts of the fleet, as the fleet starts them.
    #[command(subcommand, hide = true)]
    Internal(Internal),
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

/// Commands on dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// Every letter, newest first: one tenant's, or those of no tenant.
    List {
        /// Whose.
        #[arg(long)]
        tenant: Option<String>,
        /// Which fleet.
        #[command(flatten)]
        fleet: Which,
    },
    /// One letter.
    Show {
        /// Which.
        letter: String,
        /// Whose.
        #[arg(long)]
        tenant: Option<String>,
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
