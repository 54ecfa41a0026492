//! Clients that nobody here wrote, in languages that nobody here chose, against `carrel cloud` as their users start it.
//!
//! `.ci/run` installs them; elsewhere a test whose client is missing says `SKIPPED` and what to install. The tours of the
//! Python clients lie in `clients/`; a step that is not served yet stands in a list here, and must fail until it is.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::calls::eventually;
use crate::world;

/// Steps of the tour of Pub/Sub that wait for their methods.
const PUBSUB_NOT_YET: &[&str] = &[];
/// The same for Cloud Storage.
const STORAGE_NOT_YET: &[&str] = &[];
/// Names the interpreter that finds Google's clients, as `.ci/run` does.
const PYTHON: &str = "CONFORMANCE_PYTHON";

/// `carrel cloud`, whose callers without a token may do everything.
struct Cloud {
    child: Child,
    endpoint: String,
    said: String,
    dir: tempfile::TempDir,
}

impl Drop for Cloud {
    fn drop(&mut self) {
        if self.child.try_wait().expect("it is ours").is_none() {
            self.child.kill().expect("it is ours");
            self.child.wait().expect("it is ours");
        }
    }
}

impl Cloud {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let config = dir.path().join("cloud.json");
        let text = serde_json::to_vec(&world::config(dir.path())).expect("it is JSON");
        std::fs::write(&config, text).expect("it is written");
        let config = config.display().to_string();
        Self::told(dir, &["--anonymous-as", "user:owner@localhost", "--config", &config])
    }

    fn told(dir: tempfile::TempDir, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_carrel"));
        command.arg("cloud").args(args).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut said = Vec::new();
        while !said.last().is_some_and(|line: &String| line.starts_with("Ctrl-C")) {
            said.push(lines.next().expect("it goes on").expect("it is text"));
        }
        let endpoint = said.iter().find_map(|line| line.strip_prefix("export STORAGE_EMULATOR_HOST="));
        Self { child, endpoint: endpoint.expect("it says where").to_owned(), said: said.join("\n"), dir }
    }

    /// Ends it as Ctrl-C does; its directory is left.
    fn stop(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a number of a process")).expect("it runs");
        kill_process(pid, Signal::INT).expect("it runs");
        assert!(self.child.wait().expect("it ends").success());
    }

    /// A program that knows this cloud and nothing of whoever runs the test.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path).env("HOME", self.dir.path()).current_dir(self.dir.path());
        command.env("PUBSUB_EMULATOR_HOST", self.endpoint.trim_start_matches("http://"));
        command.env("STORAGE_EMULATOR_HOST", &self.endpoint);
        command
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// The plan of faults that the README shows.
fn plan_of_the_readme() -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("it is there");
    let (before, after) = text.split_once("\"refuse_burst\"").expect("it shows a plan");
    let begin = before.rfind('{').expect("a plan begins");
    format!("{}\"refuse_burst\"{}}}", &before[begin..], &after[..after.find('}').expect("a plan ends")])
}

#[tokio::test]
async fn a_cloud_of_one_command_is_filled_over_its_apis_under_faults_and_keeps_what_it_was_given() {
    let home = tempfile::tempdir().expect("a directory");
    let plan = home.path().join("faults.json");
    let text = plan_of_the_readme();
    let mut seedless: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).expect("it is JSON");
    std::fs::write(&plan, &text).expect("it is written");
    let (dir, plan) = (home.path().join("kept").display().to_string(), plan.display().to_string());
    let args = ["--dir", &dir, "--listen", "127.0.0.1:0", "--anonymous-as", "user:owner@localhost"];
    let faulty =
        |plan: &str| Cloud::told(tempfile::tempdir().expect("a directory"), &[&args[..], &["--faults", plan]].concat());
    let cloud = faulty(&plan);
    assert!(cloud.said.contains("faults      seed 7"), "{}", cloud.said);
    assert!(cloud.said.contains("callers without a token are user:owner@localhost"), "{}", cloud.said);
    carrel_cloud::install_crypto();
    let http = reqwest::Client::new();
    let url = |cloud: &Cloud| format!("{}/v1/projects/carrel-local/topics/kept", cloud.endpoint);
    let at = url(&cloud);
    eventually("a topic, whatever is refused", async || {
        let answer = http.put(&at).send().await.ok()?;
        (answer.status().is_success() || answer.status() == 409).then_some(())
    })
    .await;
    cloud.stop();
    // Without a seed of its own a plan gets one, and says which.
    seedless.remove("seed");
    std::fs::write(&plan, serde_json::to_vec(&seedless).expect("it is JSON")).expect("it is written");
    let again = faulty(&plan);
    assert!(again.said.contains("faults      seed ") && !again.said.contains("seed 0:"), "{}", again.said);
    let at = url(&again);
    eventually("the topic that was kept", async || {
        http.get(&at).send().await.ok()?.status().is_success().then_some(())
    })
    .await;
    again.stop();
}

#[test]
fn a_principal_that_is_none_and_a_plan_that_is_none_are_refused_by_name() {
    let refused = |args: &[&str]| {
        let ended = Command::new(env!("CARGO_BIN_EXE_carrel")).arg("cloud").args(args).output().expect("it starts");
        assert!(!ended.status.success(), "{args:?}");
        String::from_utf8_lossy(&ended.stderr).into_owned()
    };
    let told = refused(&["--anonymous-as", "somebody"]);
    assert!(told.contains("\"somebody\" is no principal") && told.contains("serviceAccount:"), "{told}");
    let home = tempfile::tempdir().expect("a directory");
    let (dir, plan) = (home.path().join("kept").display().to_string(), home.path().join("faults.json"));
    for (text, named) in [(r#"{ "refuse": 2 }"#, "refuse 2 is no probability"), (r#"{ "refuses": 1 }"#, "refuses")] {
        std::fs::write(&plan, text).expect("it is written");
        let told = refused(&["--dir", &dir, "--listen", "127.0.0.1:0", "--faults", &plan.display().to_string()]);
        assert!(told.contains(named), "{told}");
    }
}

fn skip(what: &str) {
    writeln!(std::io::stderr(), "SKIPPED: {what}").expect("stderr");
}

/// An interpreter that finds this module.
fn python(module: &str, package: &str) -> Option<PathBuf> {
    let program = std::env::var_os(PYTHON).map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let find = format!("import importlib.util as u, sys; sys.exit(u.find_spec({module:?}) is None)");
    let found = Command::new(&program).args(["-c", &find]).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Some(program);
    }
    skip(&format!("{package} for Python is missing; pip install {package}, and name the interpreter by {PYTHON}"));
    None
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Has a tour walked, and holds that exactly these steps of it do not go yet.
fn tour(script: &str, module: &str, package: &str, not_yet: &[&str]) {
    let Some(python) = python(module, package) else { return };
    let cloud = Cloud::start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/clients").join(script);
    let walked = cloud.command(python).arg("-B").arg(script).output().expect("it starts");
    let text = String::from_utf8_lossy(&walked.stdout);
    let of = |word: &str| -> BTreeSet<&str> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
        lines.map(|rest| rest.split(':').next().unwrap_or(rest)).collect()
    };
    let (went, failed) = (of("ok"), of("failed"));
    assert!(walked.status.success() && went.len() > 5, "the tour broke off:\n{}", said(&walked));
    let waited: BTreeSet<&str> = not_yet.iter().copied().collect();
    let broken: Vec<_> = failed.difference(&waited).collect();
    assert!(broken.is_empty(), "{broken:?} failed:\n{}", said(&walked));
    let served: Vec<_> = waited.difference(&failed).collect();
    assert!(served.is_empty(), "{served:?} go now: strike them off the list in {}", file!());
}

#[test]
fn googles_client_for_python_tours_pubsub() {
    tour("pubsub.py", "google.cloud.pubsub_v1", "google-cloud-pubsub", PUBSUB_NOT_YET);
}

#[test]
fn googles_client_for_python_tours_storage() {
    tour("storage.py", "google.cloud.storage", "google-cloud-storage", STORAGE_NOT_YET);
}

/// Runs it and returns what it printed.
fn done(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    String::from_utf8(output.stdout).expect("it is text")
}

fn is_missing(program: &str, package: &str) -> bool {
    let missing = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err();
    if missing {
        skip(&format!("{program} is missing; {package}"));
    }
    missing
}

#[test]
fn rclone_syncs_lists_and_purges() {
    if is_missing("rclone", "apt-get install rclone") {
        return;
    }
    let cloud = Cloud::start();
    let folder = cloud.file("folder");
    std::fs::create_dir_all(folder.join("below")).expect("made");
    std::fs::write(folder.join("a.txt"), "one").expect("written");
    std::fs::write(folder.join("below/large"), vec![7; 9 << 20]).expect("written");
    let rclone = |args: &[&str]| {
        let mut command = cloud.command("rclone");
        let endpoint = format!("{}/storage/v1/", cloud.endpoint);
        command.args(["--config", "/dev/null", "--gcs-anonymous", "--gcs-endpoint", &endpoint, "--retries", "1"]);
        done(command.args(args))
    };
    let folder = folder.to_str().expect("it is text");
    rclone(&["sync", folder, ":gcs:bucket-a/synced"]);
    rclone(&["check", folder, ":gcs:bucket-a/synced"]);
    let listed = rclone(&["lsf", "-R", ":gcs:bucket-a/synced"]);
    assert_eq!(listed.lines().collect::<BTreeSet<_>>(), ["a.txt", "below/", "below/large"].into());
    assert_eq!(rclone(&["cat", ":gcs:bucket-a/synced/a.txt"]), "one");
    rclone(&["move", ":gcs:bucket-a/synced/a.txt", ":gcs:bucket-b/moved"]);
    let back = cloud.file("back");
    rclone(&["copy", ":gcs:bucket-b/moved", back.to_str().expect("it is text")]);
    assert_eq!(std::fs::read_to_string(back.join("a.txt")).expect("it came back"), "one");
    rclone(&["purge", ":gcs:bucket-a/synced"]);
    assert_eq!(rclone(&["lsf", "-R", ":gcs:bucket-a"]), "");
}

#[test]
fn gcloud_storage_copies_lists_and_removes() {
    if is_missing("gcloud", "install the Google Cloud CLI") {
        return;
    }
    let cloud = Cloud::start();
    let gcloud = |args: &[&str]| {
        let mut command = cloud.command("gcloud");
        command.env("CLOUDSDK_CONFIG", cloud.file("gcloud")).env("CLOUDSDK_CORE_DISABLE_PROMPTS", "1");
        command.env("CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE", format!("{}/storage/v1/", cloud.endpoint));
        command.env("CLOUDSDK_AUTH_DISABLE_CREDENTIALS", "true").env("CLOUDSDK_CORE_PROJECT", "demo");
        done(command.arg("storage").args(args))
    };
    std::fs::write(cloud.file("a.txt"), "one").expect("written");
    gcloud(&["cp", "a.txt", "gs://bucket-a/copied/a.txt"]);
    assert_eq!(gcloud(&["cat", "gs://bucket-a/copied/a.txt"]), "one");
    assert_eq!(gcloud(&["ls", "gs://bucket-a/copied/"]).trim(), "gs://bucket-a/copied/a.txt");
    gcloud(&["rm", "gs://bucket-a/copied/a.txt"]);
}
