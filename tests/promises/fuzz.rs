//! Hostile bytes, thousands of times: no parser of them panics, hangs, or takes memory without end.
//!
//! Owns the mutations and the seeds; the targets lie beside the parsers. Cases run in a child of capped memory that
//! names each before it begins, so that whatever ends the child, the case is known. The same seed makes the same cases.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Cursor, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use carrel_ingest::{Format, Limits, read_bytes};
use carrel_worker::fuzz::Target;
use rustix::process::{Resource, Rlimit, setrlimit};
use zip::ZipArchive;
use zip::write::{SimpleFileOptions, ZipWriter};

use crate::files;

/// A case that takes longer hangs: the slowest takes a second in an unoptimised build.
const HANGS: Duration = Duration::from_secs(30);
/// Address space of the child; the programs and libraries mapped into it are a quarter of that.
const MEMORY: u64 = 2 << 30;
/// The setting that makes this binary the child.
const CHILD: &str = "CARREL_FUZZ_CHILD";

/// Every target: those of the worker, the readers that run in a child of it, and those of the dispatcher and of the
/// loopback cloud.
fn targets() -> Vec<Target> {
    fn ingest(format: Format, bytes: &[u8]) {
        let limits = Limits {
            max_cells: 100_000,
            max_inflated_bytes: 4 << 20,
            max_text_bytes: 1 << 20,
            max_pages: 20,
            ..Limits::default()
        };
        if let Err(error) = read_bytes(bytes, "f", format, &limits) {
            assert!(!error.to_string().is_empty());
        }
    }
    let readers: [Target; 13] = [
        ("dispatcher_outcome", carrel_dispatcher::fuzz::outcome),
        ("dispatcher_claim", carrel_dispatcher::fuzz::claim),
        ("dispatcher_wakeup", carrel_dispatcher::fuzz::wake_up),
        ("dispatcher_cursor", carrel_dispatcher::fuzz::cursor),
        ("door_clamd", carrel_local::fuzz::door_clamd),
        ("egress_head", carrel_local::fuzz::egress_head),
        ("egress_hello", carrel_local::fuzz::egress_hello),
        ("egress_answer", carrel_local::fuzz::egress_answer),
        ("egress_again", carrel_local::fuzz::egress_again),
        ("pubsub_filter", carrel_local::fuzz::pubsub_filter),
        ("ingest_csv", |bytes| ingest(Format::Csv, bytes)),
        ("ingest_xlsx", |bytes| ingest(Format::Xlsx, bytes)),
        ("ingest_pdf", |bytes| ingest(Format::Pdf, bytes)),
    ];
    carrel_worker::fuzz::TARGETS.into_iter().chain(readers).collect()
}

/// splitmix64: the cases of a seed are the same whatever becomes of a crate's generators.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`, which is at least 1.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % end.max(1) as u64).expect("it fits")
    }

    fn of<'a, T>(&mut self, things: &'a [T]) -> &'a T {
        &things[self.below(things.len())]
    }
}

/// Words that mean something to a parser, for one to stumble over.
const WORDS: [&[u8]; 30] = [
    b"=cmd|'/c x'!A0",
    b"\"",
    b"\"\"",
    b"\r\n",
    b";",
    b"\0",
    b"\xff\xfe",
    b"=EXEC(",
    b"&#x",
    b"<![CDATA[",
    b"]]>",
    b"<!--",
    b"<f>",
    b"</f>",
    b"TargetMode=\"External\"",
    b"A1048576",
    b"uniqueCount=\"4294967295\"",
    b"1e999",
    b"<<",
    b">>",
    b"stream\r\n",
    b"endstream",
    b"1 0 obj",
    b"/ObjStm/First 1",
    b"/Filter/FlateDecode",
    b"x\x9c",
    b"-9223372036854775809",
    b"{",
    b"[",
    b"\\ud800",
];

fn mutate(dice: &mut Dice, bytes: &mut Vec<u8>) {
    for _ in 0..=dice.below(8) {
        let at = dice.below(bytes.len() + 1);
        let to = (at + dice.below(64)).min(bytes.len());
        match dice.below(7) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..to)),
            2 => bytes.splice(at..at, dice.of(&WORDS).iter().copied()).for_each(drop),
            3 => {
                let copy = bytes[at..to].repeat(1 + dice.below(50));
                bytes.splice(at..at, copy).for_each(drop);
            }
            4 => bytes[at..to].fill(u8::try_from(dice.below(256)).expect("a byte")),
            _ if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            _ => {}
        }
    }
}

/// Mutates one part and packs it again: a mutated container seldom gets past its checksums.
fn mutate_within(dice: &mut Dice, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).ok()?;
    let chosen = dice.below(archive.len());
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).ok()?;
        let name = entry.name().ok()?.into_owned();
        let mut part = Vec::new();
        entry.read_to_end(&mut part).ok()?;
        if index == chosen {
            mutate(dice, &mut part);
        }
        writer.start_file(name, SimpleFileOptions::default()).ok()?;
        writer.write_all(&part).ok()?;
    }
    Some(writer.finish().ok()?.into_inner())
}

/// A ClientHello to `api.example.com`: one suite, one name, one version.
fn client_hello() -> Vec<u8> {
    let name = b"api.example.com";
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).expect("short").to_be_bytes();
    let sized = |bytes: &[u8]| [&length(bytes)[..], bytes].concat();
    let extension = |kind: u16, body: &[u8]| [&kind.to_be_bytes()[..], &sized(body)].concat();
    let extensions = [
        extension(0, &sized(&[&[0][..], &sized(name)].concat())),
        extension(10, &sized(&[0, 29])),
        extension(13, &sized(&[8, 4])),
        extension(43, &[2, 3, 4]),
        extension(51, &sized(&[&[0, 29][..], &sized(&[9; 32])].concat())),
    ]
    .concat();
    let body = [&[3, 3][..], &[1; 32], &[0], &sized(&[0x13, 0x01]), &[1, 0], &sized(&extensions)].concat();
    record(1, &body)
}

/// RFC 8446, 4.1.3: the random by which a host asks for another hello.
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11,
    0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

fn server_hello(random: [u8; 32]) -> Vec<u8> {
    record(2, &[&[3, 3][..], &random, &[0, 0x13, 0x01, 0, 0, 0]].concat())
}

/// A message of TLS's handshake, in one record.
fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = |bytes: usize| u16::try_from(bytes).expect("short").to_be_bytes();
    let message = [&[kind, 0][..], &length(body.len()), body].concat();
    [&[22, 3, 1][..], &length(message.len()), &message].concat()
}

/// Well-formed inputs by the last word of their targets' names.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let small = |ending: &str| {
        let packs = carrel_samples::packs();
        let files = packs.into_iter().flat_map(|pack| pack.files).filter(|file| file.name.ends_with(ending));
        files.min_by_key(|file| file.bytes.len()).map(|file| file.bytes).expect("the samples have every format")
    };
    let text = |text: &str| text.as_bytes().to_vec();
    match target.rsplit('_').next().unwrap_or(target) {
        "csv" => vec![files::sales(), files::wide_utf16(20), text("a;b\n\"=cmd|'/c x'!A0\";+1\n\"x\ny\";1,5\n")],
        "xlsx" => vec![files::far_cell(), files::encrypted(), files::linked("http://127.0.0.1:9/"), small(".xlsx")],
        "pdf" => vec![files::active_pdf("/marker"), files::garbage_pdf(), small(".pdf")],
        "manifest" => vec![text(r#"{"files":[{"name":"a.csv","size":12,"crc32c":"AAAAAA==","sha256":"ab"}]}"#)],
        "event" => vec![text(r#"{"seq":1,"time":"2026-01-01T00:00:00Z","type":"progress","pct":1e3,"msg":"m"}"#)],
        "scanner" => vec![
            text(concat!(
                "\"ready\"\n",
                r#"{"looked":{"file":0,"answer":{"accepted":{"flags":[{"code":"dde","message":"m"}]}}}}"#,
                "\n",
                r#"{"looked":{"file":1,"answer":{"unread":{"why":"gone"}}}}"#,
                "\n",
            )),
            text(concat!(
                "\"ready\"\n",
                r#"{"looked":{"file":0,"answer":{"refused":{"code":"broken","message":"m; save it"}}}}"#,
            )),
        ],
        "reply" => vec![text("stream: OK\0"), text("stream: Eicar-Test-Signature FOUND\0"), text("OK\0rest")],
        "outcome" => vec![
            text(
                r#"{"schema":1,"review":"rv_00000000000000000000000000000000","tenant":"acme","pack":"q3","revision":1,
                "epoch":1,"decided_by":{"kind":"worker","execution":"projects/p/locations/l/jobs/j/executions/e",
                "attempt":1},"nonce":"00000000000000000000000000000000","decided_at":"2026-01-01T00:00:00Z","verdict":
                {"state":"delivered","files":[{"name":"deck.html","object":
                "reviews/rv_00000000000000000000000000000000/1-1/deck.html","generation":7,"size":1,"crc32c":1,
                "sha256":"ab","content_type":"text/html"}],"top_findings":[]},"stage":"deliver","scanners":["structure"]}"#,
            ),
            text(
                r#"{"schema":1,"review":"rv_00000000000000000000000000000000","tenant":"acme","pack":"q3","revision":1,
                "epoch":1,"decided_by":{"kind":"dispatcher"},"nonce":"00000000000000000000000000000000","decided_at":
                "2026-01-01T00:00:00Z","verdict":{"state":"failed","class":"timed_out","message":"m","log_tail":"l"}}"#,
            ),
        ],
        "claim" => vec![text(
            r#"{"schema":1,"review":"rv_00000000000000000000000000000000","epoch":1,"attempt":1,"holder":{"kind":
            "execution","execution":"projects/p/locations/l/jobs/j/executions/e"},"nonce":
            "00000000000000000000000000000000","claimed_at":"2026-01-01T00:00:00Z"}"#,
        )],
        "wakeup" => vec![
            text(
                r#"{"outputs_bucket":"acme-outputs","review":"rv_00000000000000000000000000000000","epoch":1,"attempt":1}"#,
            ),
            text(
                r#"{"ce-specversion":"1.0","ce-id":"1","ce-source":"//worker","ce-type":"dev.carrel.outcome.written.v1",
                "ce-time":"2026-01-01T00:00:00Z"}"#,
            ),
        ],
        // The base64 text of "1:1767225600000-ev_0:1767225500000", and an instant.
        "cursor" => vec![text("MToxNzY3MjI1NjAwMDAwLWV2XzA6MTc2NzIyNTUwMDAwMA"), text("2026-01-01T00:00:00Z")],
        "filter" => vec![
            text("attributes.a = \"x\\u0041\" AND NOT (attributes:\"b c\" OR hasPrefix(attributes.d-e, \"f\"))"),
            text("-attributes:a OR attributes.b != \"c\""),
        ],
        "clamd" => vec![b"zINSTREAM\0\0\0\0\x03sku\0\0\0\x02,1\0\0\0\0".to_vec(), text("nVERSION\n")],
        "head" => {
            vec![text("CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\nUser-Agent: a\r\n\r\n")]
        }
        "hello" => vec![client_hello()],
        // Change_cipher_spec and early data may stand before the hello.
        "again" => vec![client_hello(), [&b"\x14\x03\x03\0\x01\x01\x17\x03\x03\0\x02ab"[..], &client_hello()].concat()],
        "answer" => vec![server_hello(RETRY), server_hello([7; 32]), text("\x15\x03\x03\0\x02\x02\x28")],
        "findings" => vec![text(
            r#"{"schema":1,"agent":"a/1","title":"t","summary":"s","not_computed":[],"findings":[{"id":"a","rule_id":"r",
            "kind":"fact","level":"note","title":"t","statement":"s","evidence":[{"file_id":"f001","locator":
            {"kind":"rows","rows":[1],"columns":["a"]},"query":"q","sha256":"ab"}],"confidence":1.0,"fingerprint":"f"}]}"#,
        )],
        other => panic!("no seeds for {other}"),
    }
}

/// The bytes of one case.
fn case(seeds: &[Vec<u8>], seed: u64, number: u64) -> Vec<u8> {
    let mut dice = Dice(seed ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
    if dice.below(8) == 0 {
        return (0..dice.below(2_000)).map(|_| dice.roll().to_le_bytes()[0]).collect();
    }
    let mut bytes = dice.of(seeds).clone();
    if dice.below(4) > 0
        && let Some(within) = mutate_within(&mut dice, &bytes)
    {
        return within;
    }
    mutate(&mut dice, &mut bytes);
    bytes
}

/// Not a test by itself: the child of the two below.
#[test]
#[ignore = "the child of the other tests"]
fn fuzz_child() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let numbers: Vec<u64> = told.split(',').map(|number| number.parse().expect("seed,from,to")).collect();
    let [seed, from, to] = numbers[..] else { panic!("{told}") };
    setrlimit(Resource::As, Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) }).expect("memory can be capped");
    let targets: Vec<_> = targets().into_iter().map(|(name, target)| (name, target, seeds(name))).collect();
    let input = std::env::temp_dir().join(format!("carrel-fuzz-{seed}"));
    for number in from..to {
        for (name, target, seeds) in &targets {
            let bytes = case(seeds, seed, number);
            std::fs::write(&input, &bytes).expect("the case can be kept");
            println!("\ncase {number} {name} {}", input.display());
            target(&bytes);
        }
    }
    std::fs::remove_file(&input).expect("it was the last");
    println!("\nall cases ended");
}

/// Ends the child with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already unless a case hangs.
        if self.0.kill().is_ok() {
            self.0.wait().expect("it was killed");
        }
    }
}

/// Runs cases `from..to` of every target in one child; panics with the case that did not end well.
fn run(seed: u64, from: u64, to: u64) {
    let mut child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--ignored", "--exact", "fuzz::fuzz_child", "--nocapture"])
        .env(CHILD, format!("{seed},{from},{to}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let _running = Running(child);
    // A parser that panics and catches it says so at length; only the last of it matters.
    let said = std::thread::spawn(move || {
        let mut tail = VecDeque::new();
        for line in BufReader::new(err).lines().map_while(Result::ok) {
            tail.push_back(line);
            tail.drain(..tail.len().saturating_sub(30));
        }
        Vec::from(tail).join("\n")
    });
    let (send, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        BufReader::new(out).lines().map_while(Result::ok).try_for_each(|line| send.send(line)).is_ok()
    });
    let mut last = "before the first case".to_owned();
    loop {
        match lines.recv_timeout(HANGS) {
            Ok(line) if line == "all cases ended" => break,
            Ok(line) if line.starts_with("case ") => last = line,
            Ok(_) => {}
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("seed {seed}: hangs: {last}"),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                panic!("seed {seed}: {last}: {}", said.join().expect("it reads"));
            }
        }
    }
    drop(lines);
    reader.join().expect("it reads");
}

#[test]
fn hostile_bytes_end_in_an_answer_soon_and_in_bounded_memory() {
    run(20_260_401, 0, 150);
}

/// `CARREL_FUZZ_SEED=7 CARREL_FUZZ_CASES=100000 cargo test --test promises -- --ignored --nocapture fuzz_long`
#[test]
#[ignore = "takes as long as it is asked to: CARREL_FUZZ_CASES per target"]
fn fuzz_long() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a whole number"));
    let seed = number("CARREL_FUZZ_SEED").unwrap_or_else(rand::random);
    let cases = number("CARREL_FUZZ_CASES").unwrap_or(20_000);
    println!("seed {seed}: {cases} cases for each of {} targets", targets().len());
    let began = std::time::Instant::now();
    // A child for each thousand: memory that a parser keeps for good would otherwise look like a case's own.
    for from in (0..cases).step_by(1_000) {
        run(seed, from, cases.min(from + 1_000));
    }
    println!("all ended well in {} s", began.elapsed().as_secs());
}
