//! Cloud Run's own sandbox (Preview): looked for, recorded, and not used.
//!
//! Where a job has it, a program `sandbox` runs a command without the environment, the metadata and the network of the
//! job. Source: <https://docs.cloud.google.com/run/docs/reference/sandbox-cli>. It shows the command the whole root of the
//! container, in which other files lie than those of one room, and promises no limit on memory, processes or time; so no
//! tier is built on it. Refuses to take another program of that name for it, such as SELinux's.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::probe::Missing;

const NAME: &str = "sandbox";
const DIRECTORIES: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];
/// An option of its `do` that no other program of that name has.
const OPTION: &str = "--allow-egress";
/// A program that does not tell its options within this is another.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether Cloud Run offers its own sandbox here.
pub async fn probe_cloud_run() -> Result<(), Missing> {
    match find(DIRECTORIES.map(Path::new)).await {
        Some(_) => Ok(()),
        None => Err(Missing {
            what: "this is no Cloud Run job with sandboxes enabled; nothing here needs one".to_owned(),
            fix: String::new(),
        }),
    }
}

async fn find(directories: impl IntoIterator<Item = &Path>) -> Option<PathBuf> {
    for program in directories.into_iter().map(|directory| directory.join(NAME)) {
        let runs = program.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
        if runs && is_it(&program).await {
            return Some(program);
        }
    }
    None
}

async fn is_it(program: &Path) -> bool {
    let mut asked = Command::new(program);
    asked.args(["do", "--help"]).env_clear().stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(PATIENCE, asked.output()).await {
        Ok(Ok(told)) => told.status.success() && String::from_utf8_lossy(&told.stdout).contains(OPTION),
        Ok(Err(_)) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with a program `sandbox` that prints this. Another process writes it: a program that is still open
    /// for writing, here or in whatever another test forks meanwhile, cannot be started.
    fn holding(prints: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        let write = "printf '#!/bin/sh\\necho \"$1 $2: %s\"\\n' \"$1\" > sandbox && chmod +x sandbox";
        let wrote =
            std::process::Command::new("/bin/sh").args(["-c", write, "sh", prints]).current_dir(dir.path()).status();
        assert!(wrote.expect("a shell").success());
        dir
    }

    #[tokio::test]
    async fn cloud_runs_sandbox_is_told_from_another_program_of_its_name() {
        let (cloud_run, selinux) = (holding("--allow-egress, --mount"), holding("-t TYPE"));
        let nothing = tempfile::tempdir().expect("a directory");
        assert_eq!(find([nothing.path(), selinux.path()]).await, None);
        let found = find([selinux.path(), cloud_run.path()]).await;
        assert_eq!(found, Some(cloud_run.path().join(NAME)));
    }
}
