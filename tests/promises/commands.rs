//! What people type, run as they would run it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::files::sales;
use crate::world::{eventually, program};

fn carrel(args: &[&str]) -> Output {
    Command::new(program()).args(args).output().expect("carrel starts")
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).expect("one JSON document")
}

#[test]
fn the_demo_ends_with_a_deck_of_each_tenant_on_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path().join("demo").display().to_string();
    let shown = json(&carrel(&["demo", "--dir", &at, "--json"]));
    let reviews = shown["reviews"].as_array().expect("reviews");
    assert_eq!(reviews.len(), 2);
    for review in reviews {
        assert_eq!(review["completion"]["verdict"]["state"], "delivered");
        let files: Vec<&str> = review["files"].as_array().expect("files").iter().filter_map(Value::as_str).collect();
        let deck = files.iter().find(|path| path.ends_with("deck.html")).expect("a deck");
        assert!(std::fs::read_to_string(deck).expect("on disk").contains("</html>"));
        assert!(files.iter().all(|path| Path::new(path).starts_with(&at)), "{files:?}");
    }
    // The same directory again: the same packs are uploaded anew and reviewed anew.
    let again = carrel(&["demo", "--dir", &at]);
    let text = stdout(&again);
    assert!(text.contains("deck.html") && text.contains("completion event ev_"), "{text}");
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(said.contains("in a room of its own") && !said.contains('\u{1b}'), "plain lines, no terminal: {said}");
}

/// `carrel up`, ended with the test.
struct Up(Child);

impl Up {
    async fn start(dir: &str) -> Self {
        let fleet = Path::new(dir).join("fleet.json");
        if fleet.exists() {
            std::fs::remove_file(&fleet).expect("removed");
        }
        let child = Command::new(program()).args(["up", "--dir", dir]).stdout(Stdio::null()).spawn().expect("starts");
        eventually("a fleet that answers", async || fleet.exists().then_some(())).await;
        Self(child)
    }

    fn interrupt(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::INT).expect("it runs");
        assert!(self.0.wait().expect("it ends").success(), "Ctrl-C is a good end");
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            kill_process(Pid::from_child(&self.0), Signal::TERM).expect("it runs");
            self.0.wait().expect("it ends");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_is_started_again_goes_on_where_it_stood() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path().join("fleet").display().to_string();
    let file = dir.path().join("sales.csv");
    std::fs::write(&file, sales()).expect("written");
    let file = file.display().to_string();

    let up = Up::start(&at).await;
    let second = carrel(&["up", "--dir", &at]);
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("a fleet that is running"), "{second:?}");
    let uploaded = json(&carrel(&["upload", "acme-foods", "q3", &file, "--dir", &at, "--json"]));
    assert_eq!(uploaded["files"], 1);
    let review = eventually("the review in the list", async || {
        let page = json(&carrel(&["reviews", "list", "acme-foods", "--dir", &at, "--json"]));
        page["reviews"][0]["review"].as_str().map(str::to_owned)
    })
    .await;
    let waited = carrel(&["reviews", "wait", "acme-foods", &review, "--dir", &at]);
    assert_eq!(stdout(&waited).trim(), "delivered");
    let late = carrel(&["reviews", "cancel", "acme-foods", &review, "--reason", "too late", "--dir", &at]);
    assert!(String::from_utf8_lossy(&late.stderr).contains("is delivered already"), "{late:?}");
    let empty = dir.path().join("empty.csv");
    std::fs::write(&empty, b"").expect("written");
    carrel(&["upload", "bolt-home", "bad", &empty.display().to_string(), "--dir", &at]);
    let letters = eventually("the refused pack's letter", async || {
        let text = stdout(&carrel(&["dead-letters", "list", "--tenant", "bolt-home", "--dir", &at]));
        text.contains("empty.csv").then_some(text)
    })
    .await;
    let letter = letters.split_whitespace().next().expect("an id").to_owned();
    let shown = json(&carrel(&["dead-letters", "show", &letter, "--dir", &at]));
    assert_eq!(shown["class"], "refused");
    an_operator_looks_at_a_letter_and_puts_it_aside(&letter, &at);
    up.interrupt();

    let _up = Up::start(&at).await;
    let shown = json(&carrel(&["reviews", "show", "acme-foods", &review, "--dir", &at, "--json"]));
    assert_eq!(shown["status"], "delivered");
    let unknown = carrel(&["upload", "nobody", "q3", &file, "--dir", &at]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("acme-foods"), "it names whom it knows: {unknown:?}");
}

fn an_operator_looks_at_a_letter_and_puts_it_aside(letter: &str, dir: &str) {
    let letters = |args: &[&str]| carrel(&[&["dead-letters"], args, &["--dir", dir]].concat());
    let stats = stdout(&letters(&["stats", "--class", "refused"]));
    assert!(stats.trim_start().starts_with("1  open") && stats.contains("bolt-home"), "{stats}");
    assert_eq!(stdout(&letters(&["list", "--older-than", "3d"])), "");
    let fingerprint = json(&letters(&["show", letter]))["fingerprint"].as_str().expect("text").to_owned();
    assert!(stdout(&letters(&["list", "--fingerprint", &fingerprint])).starts_with(letter));
    assert_eq!(stdout(&letters(&["list", "--fingerprint", "another"])), "");
    assert!(stdout(&letters(&["list", "--newer-than", "1h", "--text", "EMPTY.csv"])).starts_with(letter));
    for age in ["soon", "3€", "", "-1d", "99999999999999999999d"] {
        let refused = letters(&["list", &format!("--older-than={age}")]);
        assert!(String::from_utf8_lossy(&refused.stderr).contains("no age, as 90m"), "{refused:?}");
    }
    let refused = letters(&["list", "--class", "sad"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("unknown variant `sad`"), "{refused:?}");

    let forecast = stdout(&letters(&["replay", "--dry-run", letter]));
    assert!(forecast.contains("would_run") && forecast.contains("it should take about"), "{forecast}");
    let begun = stdout(&letters(&["replay", letter, "--key", "again"]));
    let campaign = begun.split_whitespace().next().expect("an id").to_owned();
    // The same file is refused again: what a replay cannot mend halts it, and stands in a letter of its own.
    let of_it = |args: &[&str]| carrel(&[&["campaigns"], args, &["--dir", dir]].concat());
    let shown = loop {
        let shown = stdout(&of_it(&["show", &campaign]));
        if shown.contains("halted") || shown.contains("finished") {
            break shown;
        }
    };
    assert!(shown.contains("failed") && shown.contains("empty.csv"), "{shown}");
    assert!(stdout(&of_it(&["list"])).starts_with(&campaign));
    for wish in ["pause", "resume", "cancel"] {
        let refused = of_it(&[wish, &campaign]);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains("is over"), "{wish}: {refused:?}");
    }
    let second = json(&letters(&["list", "--state", "open", "--json"]))["dead_letters"][0]["id"].clone();
    let second = second.as_str().expect("the letter of the second epoch").to_owned();
    assert_ne!(second, letter);
    let aside = stdout(&letters(&["discard", &second, "--reason", "the customer sends another"]));
    assert_eq!(aside.trim(), format!("{second}  discarded"));
    let exported = stdout(&letters(&["export", "--state", "discarded"]));
    let exported: Value = serde_json::from_str(&exported).expect("one line of JSON");
    assert!(exported["resolution"].as_str().is_some_and(|why| why.contains("the customer sends another")));
}

#[test]
fn a_registry_that_shares_a_bucket_is_refused_and_both_tenants_are_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("tenants.yaml");
    let tenant = |id: &str| {
        format!(
            "  - id: {id}\n    uploads_bucket: shared-uploads\n    outputs_bucket: {id}-outputs\n    \
             service_account: {id}@p.iam.gserviceaccount.com\n    job: projects/p/locations/l/jobs/review-{id}\n"
        )
    };
    let file =
        |tenants: &[&str]| format!("schema: 1\ntenants:\n{}", tenants.iter().map(|id| tenant(id)).collect::<String>());
    let at = path.display().to_string();
    std::fs::write(&path, file(&["acme", "bolt"])).expect("written");
    let refused = carrel(&["tenants", "check", &at]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success());
    assert!(["acme", "bolt", "shared-uploads"].iter().all(|name| said.contains(name)), "{said}");
    std::fs::write(&path, file(&["acme"])).expect("written");
    assert_eq!(json(&carrel(&["tenants", "check", &at, "--json"]))["tenants"][0], "acme");
}

#[test]
fn a_command_without_a_fleet_says_how_to_start_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path().display().to_string();
    for args in [["reviews", "list", "acme-foods", "--dir", &at], ["dead-letters", "list", "--tenant", "a", "--dir"]] {
        let args: Vec<&str> = args.into_iter().chain((args[4] == "--dir").then_some(at.as_str())).collect();
        let refused = carrel(&args);
        assert!(String::from_utf8_lossy(&refused.stderr).contains("carrel up"), "{refused:?}");
    }
}

/// A command in a place where no user namespace may be made; `None`, said aloud, where this machine has no such place.
fn without_namespaces(program: &Path, args: &[&str]) -> Option<Command> {
    const NONE: &str = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" \"$@\"";
    let within = |program: &Path, args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "sh", "-c", NONE]).arg(program).args(args);
        command
    };
    match within(Path::new("true"), &[]).output() {
        Ok(tried) if tried.status.success() => Some(within(program, args)),
        tried => {
            let why = "unshare(1) gives no namespace whose limit may be set to 0";
            writeln!(std::io::stderr(), "SKIPPED: {why}: {tried:?}").expect("stderr");
            None
        }
    }
}

#[test]
fn a_fleet_that_cannot_divide_its_tenants_does_not_start_and_names_the_setting() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path().join("fleet").display().to_string();
    let Some(mut up) = without_namespaces(&program(), &["up", "--dir", &at]) else { return };
    let refused = up.output().expect("it starts");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
    for word in ["cannot divide tenants", "sysctl user.max_user_namespaces=", "--insecure"] {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
    assert!(!Path::new(&at).join("fleet.json").exists(), "nothing was started");
}

#[test]
fn a_fleet_that_is_told_to_start_all_the_same_warns_first() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path().join("fleet").display().to_string();
    let Some(mut up) = without_namespaces(&program(), &["up", "--insecure", "--dir", &at]) else { return };
    let mut up = Up(up.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts"));
    let mut said = BufReader::new(up.0.stderr.take().expect("piped"));
    let mut first = String::new();
    said.read_line(&mut first).expect("a line");
    assert!(first.starts_with("warning: --insecure: nothing divides tenants"), "{first}");
    // Read on, so that it does not end for want of somebody who listens.
    let rest = std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    up.interrupt();
    rest.join().expect("read").expect("to its end");
}

#[test]
fn a_probe_tells_of_everything_whether_it_is_given_and_if_not_what_is_missing() {
    let told = json(&carrel(&["probe", "--json"]));
    let told = told.as_array().expect("a list");
    let names: Vec<&str> = told.iter().filter_map(|found| found["name"].as_str()).collect();
    let tiers = ["process", "namespaces", "oci:crun", "oci:runc", "oci:runsc", "oci:kata"];
    assert_eq!(names, [&tiers[..], &["volume", "memory guarantee", "cloud run sandbox"]].concat());
    for found in told {
        let is_told = |field: &str| found[field].is_string() && found["what"] != "";
        match found["given"].as_bool() {
            Some(true) => assert!(found.get("what").is_none(), "{found}"),
            Some(false) => assert!(is_told("what") && is_told("fix"), "{found}"),
            None => panic!("{found}"),
        }
    }
}
