//! What a scanner may say and how it may end, and what is made of it.

use carrel_sandbox::{Exit, Used};
use carrel_schemas::agent::FileFormat;
use carrel_schemas::scan::FlagCode;

use super::*;

fn ended(exit: Exit, limit: Option<LimitHit>) -> Ended {
    let used = Used { wall: Duration::ZERO, cpu: Duration::ZERO, peak_bytes: 0 };
    Ended { exit, limit, used, memory_guarantee: false, stderr_tail: b"thread panicked\x1b[2J".to_vec() }
}

fn done() -> Ended {
    ended(Exit::Code(0), None)
}

/// What comes of three files when a scanner says this and ends so.
fn judged(said: &[String], ended: &Ended) -> anyhow::Result<Vec<Judged>> {
    let mut heard = Heard::of(3);
    said.iter().for_each(|line| heard.hear(line.as_bytes()));
    heard.judged(ended)
}

const READY: &str = "\"ready\"";

fn about(file: usize, answer: &str) -> String {
    format!(r#"{{"looked":{{"file":{file},"answer":{answer}}}}}"#)
}

fn clean(file: usize) -> String {
    about(file, r#"{"accepted":{"flags":[]}}"#)
}

fn refused(file: usize, code: &str, message: &str) -> String {
    about(file, &format!(r#"{{"refused":{{"code":"{code}","message":"{message}"}}}}"#))
}

fn codes(judged: &[Judged]) -> Vec<Option<RefusalCode>> {
    judged.iter().map(|judged| judged.as_ref().err().map(|refusal| refusal.code)).collect()
}

#[test]
fn each_answer_is_about_the_next_file() {
    let bomb = refused(1, "archive_bomb", "unfolds without end; save it again");
    let all = judged(&[READY.into(), clean(0), bomb, clean(2)], &done()).expect("it was ready");
    assert_eq!(codes(&all), [None, Some(RefusalCode::ArchiveBomb), None]);
}

#[test]
fn the_file_that_ends_a_scanner_is_refused_for_what_ended_it() {
    for (exit, limit, said) in [
        (Exit::Signal(11), None, "cannot be looked at safely"),
        (Exit::Code(101), None, "cannot be looked at safely"),
        (Exit::Signal(9), Some(LimitHit::Output), "cannot be looked at safely"),
        (Exit::Signal(9), Some(LimitHit::Memory), "takes more memory"),
        // It says that it is done, and was not heard about the last file.
        (Exit::Code(0), None, "cannot be looked at safely"),
    ] {
        let some = judged(&[READY.into(), clean(0), clean(1)], &ended(exit, limit)).expect("it was ready");
        assert_eq!(codes(&some), [None, None, Some(RefusalCode::Broken)]);
        let refusal = some[2].as_ref().expect_err("refused");
        assert!(refusal.message.contains(said) && refusal.message.contains("; open it"), "{refusal:?}");
    }
}

#[test]
fn a_file_is_refused_for_its_own_time_and_not_for_that_of_the_files_before_it() {
    for (exit, limit) in [(Exit::Signal(9), LimitHit::Wall), (Exit::Signal(24), LimitHit::Cpu)] {
        let late = ended(exit, Some(limit));
        let after = judged(&[READY.into(), clean(0), clean(1)], &late).expect("it was ready");
        assert_eq!(codes(&after), [None, None], "the third is asked about again");
        let alone = judged(&[READY.into()], &late).expect("it was ready");
        assert!(alone.len() == 1 && alone[0].as_ref().is_err_and(|r| r.message.contains("takes longer")), "{alone:?}");
    }
}

#[test]
fn what_ends_a_scanner_before_it_is_ready_is_no_fault_of_a_file() {
    for said in [vec![], vec![clean(0)], vec![String::new(), READY.to_owned()]] {
        let error = judged(&said, &ended(Exit::Code(127), None)).expect_err("the attempt is made again").to_string();
        assert!(error.contains("before it looked at a file") && error.contains("thread panicked?[2J"), "{error}");
    }
}

#[test]
fn nothing_is_believed_after_a_line_that_is_no_answer_to_the_next_file() {
    for wrong in [
        String::new(),
        "null".to_owned(),
        "\u{0}".to_owned(),
        READY.to_owned(),
        r#"{"delivered":{}}"#.to_owned(),
        clean(0),
        clean(2),
        clean(3),
        about(1, r#"{"accepted":{"flags":[],"sha256":"x"}}"#),
        about(1, r#"{"accepted":{"flags":[{"code":"macros_of_mars","message":"x"}]}}"#),
        refused(1, "malware", "is known as Eicar"),
        refused(1, "manifest_mismatch", "is another"),
    ] {
        let said = [READY.into(), clean(0), wrong.clone(), clean(1), clean(2)];
        let some = judged(&said, &ended(Exit::Signal(9), Some(LimitHit::Wall))).expect("it was ready");
        assert_eq!(codes(&some), [None, Some(RefusalCode::Broken)], "{wrong:?}");
        let refusal = some[1].as_ref().expect_err("refused");
        assert!(refusal.message.contains("cannot be looked at safely"), "{wrong:?}: {refusal:?}");
    }
    let more = [READY.into(), clean(0), clean(1), clean(2), refused(2, "broken", "x"), "{".into()];
    assert_eq!(codes(&judged(&more, &done()).expect("it was ready")), [None, None, None], "three files");
}

#[test]
fn texts_are_cut_and_made_plain_and_each_flag_stands_once() {
    let flag = format!(r#"{{"code":"javascript","message":"\u001b[2J\u202e{}"}},"#, "é".repeat(500));
    let flags = format!(r#"{{"accepted":{{"flags":[{}]}}}}"#, flag.repeat(20).trim_end_matches(','));
    let long = refused(1, "broken", &"é\\n".repeat(500));
    let some = judged(&[READY.into(), about(0, &flags), long, clean(2)], &done()).expect("it was ready");
    let flags = some[0].as_ref().expect("accepted");
    assert_eq!(flags.iter().map(|flag| flag.code).collect::<Vec<_>>(), [FlagCode::Javascript]);
    let refusal = some[1].as_ref().expect_err("refused");
    assert!((flags[0].message.len(), refusal.message.len()) == (MAX_MESSAGE, MAX_REFUSAL));
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_graphic() || c == ' ');
    assert!(plain(&flags[0].message) && plain(&refusal.message), "{some:?}");
}

#[test]
fn a_file_that_cannot_be_read_to_its_end_costs_no_other_its_review() {
    let unread = about(0, r#"{"unread":{"why":"Stale file handle"}}"#);
    let some = judged(&[READY.into(), unread, clean(1), clean(2)], &done()).expect("it was ready");
    assert_eq!(codes(&some), [Some(RefusalCode::Broken), None, None]);
    assert!(some[0].as_ref().is_err_and(|refusal| refusal.message.contains("Stale file handle")), "{some:?}");
}

#[test]
fn what_a_scanner_writes_is_what_is_read() {
    let flag = ScanFlag { code: FlagCode::Dde, message: "asks a program".to_owned() };
    let refused = Answer::Refused { code: RefusalCode::Macros, message: "carries macros; save it".to_owned() };
    let answers = [Answer::Accepted { flags: vec![flag] }, refused, Answer::Unread { why: "x".to_owned() }];
    let looked = answers.map(|answer| Said::Looked { file: 1, answer });
    for said in [Said::Ready].into_iter().chain(looked) {
        let line = serde_json::to_vec(&said).expect("plain JSON");
        assert_eq!(serde_json::from_slice::<Said>(&line).expect("a line"), said);
    }
    let ask = Ask {
        limits: ScanLimits { inflated_bytes: 1, entries: 1 },
        files: vec![AskedFile { path: "/input/f001.csv".into(), format: FileFormat::Csv }],
    };
    let text = serde_json::to_string(&ask).expect("plain JSON");
    assert_eq!(serde_json::from_str::<Ask>(&text).expect("an ask").files[0].path, ask.files[0].path);
}
