//! Real processes against real limits.

use super::*;

fn shell(script: &str) -> Command {
    Command {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        cwd: "/".into(),
    }
}

fn limits() -> Limits {
    Limits {
        wall: Duration::from_secs(20),
        cpu_seconds: 10,
        memory_bytes: 1 << 30,
        file_bytes: 1 << 20,
        open_files: 64,
        output_bytes: 1 << 20,
        line_bytes: 1024,
        stderr_tail_bytes: 64,
    }
}

async fn ended(script: &str, limits: Limits) -> (Ended, Vec<String>) {
    let mut seen = Vec::new();
    let end = run(shell(script), limits, |line| seen.push(String::from_utf8_lossy(line).into_owned())).await;
    (end.expect("started"), seen)
}

/// Waits for the process to be gone; a zombie that init has yet to reap counts.
fn is_gone(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

#[tokio::test]
async fn lines_exit_code_and_stderr_come_back() {
    let (end, seen) = ended("echo one; echo two; echo oops >&2; exit 10", limits()).await;
    assert_eq!((end.exit, end.limit), (Exit::Code(10), None));
    assert_eq!(seen, ["one", "two"]);
    assert_eq!(end.stderr_tail, b"oops\n");
    assert!(end.used.peak_bytes > 0);
}

#[tokio::test]
async fn nothing_is_inherited_but_what_was_asked() {
    let (_, seen) =
        ended("env | cut -d= -f1 | sort | tr '\\n' ' '; echo; ls /proc/self/fd | tr '\\n' ' '", limits()).await;
    assert!(seen[0].contains("PATH"), "{seen:?}");
    assert!(!seen[0].contains("CARGO") && !seen[0].contains("HOME"), "{seen:?}");
    // ls itself holds the directory open as 3.
    assert_eq!(seen[1].trim(), "0 1 2 3");
}

#[tokio::test]
async fn the_deadline_ends_the_whole_group() {
    let short = Limits { wall: Duration::from_millis(300), ..limits() };
    let (end, seen) = ended("trap '' TERM; sleep 600 & echo $!; wait", short).await;
    assert_eq!((end.exit, end.limit), (Exit::Signal(libc::SIGKILL), Some(LimitHit::Wall)));
    assert!(end.used.wall < Duration::from_secs(5));
    assert!(is_gone(&seen[0]));
}

#[tokio::test]
async fn a_child_that_left_the_group_and_erased_its_environment_is_killed_too() {
    let daemon = "setsid env -i /bin/sh -c 'echo $$; exec /bin/sleep 600' </dev/null &";
    let (end, seen) = ended(&format!("{{ {daemon} }} | {{ read pid; echo $pid; }}"), limits()).await;
    assert_eq!(end.exit, Exit::Code(0));
    assert!(is_gone(&seen[0]), "{seen:?}");
}

#[tokio::test]
async fn dropping_the_future_kills_the_command() {
    let (tell, told) = oneshot::channel();
    let mut tell = Some(tell);
    let running = run(shell("echo $$; exec sleep 600"), limits(), |line| {
        if let Some(tell) = tell.take() {
            tell.send(String::from_utf8_lossy(line).into_owned()).expect("the test waits");
        }
    });
    let pid = tokio::select! {
        pid = told => pid.expect("a pid"),
        end = running => panic!("ended early: {end:?}"),
    };
    let gone = async {
        while !is_gone(&pid) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.expect("killed");
}

#[tokio::test]
async fn an_endless_output_is_cut() {
    let (end, seen) = ended("yes", Limits { output_bytes: 10_000, ..limits() }).await;
    assert_eq!(end.limit, Some(LimitHit::Output));
    assert!(seen.len() <= 5_000);
}

#[tokio::test]
async fn a_memory_hog_is_named() {
    // A line without an end, which `tail` keeps whole.
    let hog = "head -c 1000000000 /dev/zero | tail";
    let (end, _) = ended(hog, Limits { memory_bytes: 256 << 20, stderr_tail_bytes: 4096, ..limits() }).await;
    assert_eq!((end.exit, end.limit), (Exit::Code(1), Some(LimitHit::Memory)), "{end:?}");
}

#[tokio::test]
async fn a_file_and_the_processor_have_caps() {
    let place = tempfile::tempdir().expect("a directory");
    let write = format!("exec head -c 10000000 /dev/zero > {}/big", place.path().display());
    assert_eq!(ended(&write, limits()).await.0.limit, Some(LimitHit::FileSize));
    let spin = "while :; do :; done";
    let (end, _) = ended(spin, Limits { cpu_seconds: 1, ..limits() }).await;
    assert_eq!(end.limit, Some(LimitHit::Cpu), "{end:?}");
    let (end, _) = ended("trap '' XCPU; while :; do :; done", Limits { cpu_seconds: 1, ..limits() }).await;
    assert_eq!((end.exit, end.limit), (Exit::Signal(libc::SIGKILL), Some(LimitHit::Cpu)), "{end:?}");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let nothing = Command { program: "/nowhere/agent".into(), ..shell("") };
    let error = run(nothing, limits(), |_| {}).await.expect_err("no such program");
    assert_eq!(error.to_string(), "start /nowhere/agent");
}
