//! What a scanner may say and how it may end, and what is made of it.

use carrel_sandbox::{Exit, Used};
use carrel_schemas::agent::FileFormat;
use std::time::Duration;

use super::*;

fn ended(exit: Exit, limit: Option<LimitHit>) -> Ended {
    let used = Used { wall: Duration::ZERO, cpu: Duration::ZERO, peak_bytes: 0 };
    Ended { exit, limit, used, memory_guarantee: false, stderr_tail: b"thread panicked\x1b[2J".to_vec() }
}

/// What comes of three files when the scanner says this and ends so.
fn judged(said: &[&str], ended: &Ended) -> Vec<Judged> {
    let lines = said.iter().enumerate().map(|(file, answer)| format!(r#"{{"file":{file},"answer":{answer}}}"#));
    heard(lines, ended)
}

fn heard(lines: impl Iterator<Item = String>, ended: &Ended) -> Vec<Judged> {
    let mut heard = Heard { wanted: 3, answers: Vec::new(), is_garbled: false };
    lines.for_each(|line| heard.hear(line.as_bytes()));
    heard.judged(ended)
}

const CLEAN: &str = r#"{"accepted":{"flags":[]}}"#;
const BOMB: &str = r#"{"refused":{"code":"archive_bomb","message":"unfolds without end; save it again"}}"#;

#[test]
fn each_answer_is_about_the_next_file() {
    let all = judged(&[CLEAN, BOMB, CLEAN], &ended(Exit::Code(0), None));
    let codes: Vec<_> = all.iter().map(|judged| judged.as_ref().err().map(|refusal| refusal.code)).collect();
    assert_eq!(codes, [None, Some(RefusalCode::ArchiveBomb), None]);
}

#[test]
fn the_file_that_ends_a_scanner_is_refused_for_what_ended_it() {
    for (exit, limit, said) in [
        (Exit::Signal(11), None, "cannot be looked at safely"),
        (Exit::Code(101), None, "cannot be looked at safely"),
        (Exit::Signal(9), Some(LimitHit::Memory), "takes more memory"),
        // It says that it is done, and was not heard about the last file.
        (Exit::Code(0), None, "cannot be looked at safely"),
    ] {
        let some = judged(&[CLEAN, CLEAN], &ended(exit, limit));
        assert_eq!(some.len(), 3);
        let refusal = some[2].as_ref().expect_err("refused");
        assert!(refusal.code == RefusalCode::Broken && refusal.message.contains(said), "{refusal:?}");
        assert!(refusal.message.contains("; open it"), "it names the next step: {refusal:?}");
    }
}

#[test]
fn a_scanner_that_was_taken_over_says_nothing_that_is_believed_out_of_shape() {
    let more = [CLEAN, CLEAN, CLEAN, BOMB, BOMB];
    assert!(judged(&more, &ended(Exit::Code(0), None)).iter().all(Result::is_ok), "three files");
    for garbage in ["", "null", r#"{"accepted":{"flags":[],"sha256":"x"}}"#, r#"{"delivered":{}}"#, "\u{0}"] {
        let some = judged(&[CLEAN, garbage, CLEAN, CLEAN], &ended(Exit::Code(0), None));
        assert_eq!(some.len(), 2, "nothing after {garbage:?} is about a certain file");
        assert!(some[0].is_ok() && some[1].is_err());
    }
    let long =
        format!(r#"{{"accepted":{{"flags":[{{"code":"javascript","message":"{}\u001b[2J"}}]}}}}"#, "é".repeat(500));
    let some = judged(&[&long], &ended(Exit::Code(1), None));
    let flags = some[0].as_ref().expect("accepted");
    assert!(flags[0].message.len() <= MAX_MESSAGE && !flags[0].message.contains('\u{1b}'));
    let flag = r#"{"code":"javascript","message":"x"},"#.repeat(100);
    let many = format!(r#"{{"accepted":{{"flags":[{}]}}}}"#, flag.trim_end_matches(','));
    let some = judged(&[&many], &ended(Exit::Code(1), None));
    assert_eq!(some[0].as_ref().expect("accepted").len(), MAX_FLAGS);
}

#[test]
fn a_file_is_refused_for_its_own_time_and_not_for_that_of_the_files_before_it() {
    let late = ended(Exit::Signal(9), Some(LimitHit::Wall));
    assert_eq!(judged(&[CLEAN, CLEAN], &late).len(), 2, "the third is asked about again");
    let alone = judged(&[], &late);
    assert!(alone[0].as_ref().is_err_and(|refusal| refusal.message.contains("takes longer")), "{alone:?}");
}

#[test]
fn an_answer_about_another_file_is_about_none() {
    let line = |file: usize| format!(r#"{{"file":{file},"answer":{CLEAN}}}"#);
    // The second line was too long to be heard.
    let some = heard([line(0), line(2)].into_iter(), &ended(Exit::Code(0), None));
    assert!(some.len() == 2 && some[0].is_ok() && some[1].is_err(), "{some:?}");
}

#[test]
fn a_file_that_cannot_be_read_to_its_end_costs_no_other_its_review() {
    let some = judged(&[r#"{"unread":{"why":"Stale file handle"}}"#, CLEAN, CLEAN], &ended(Exit::Code(0), None));
    assert!(some[0].as_ref().is_err_and(|refusal| refusal.message.contains("Stale file handle")), "{some:?}");
    assert!(some[1].is_ok() && some[2].is_ok());
}

#[test]
fn what_a_scanner_writes_is_what_is_read() {
    let flag = ScanFlag { code: carrel_schemas::scan::FlagCode::Dde, message: "asks a program".to_owned() };
    let refused = Answer::Refused { code: RefusalCode::Macros, message: "carries macros; save it".to_owned() };
    for answer in [Answer::Accepted { flags: vec![flag] }, refused, Answer::Unread { why: "x".to_owned() }] {
        let line = serde_json::to_vec(&answer).expect("plain JSON");
        assert_eq!(serde_json::from_slice::<Answer>(&line).expect("an answer"), answer);
    }
    let ask = Ask {
        limits: ScanLimits { inflated_bytes: 1, entries: 1 },
        files: vec![AskedFile { path: "/input/f001.csv".into(), format: FileFormat::Csv }],
    };
    let text = serde_json::to_string(&ask).expect("plain JSON");
    assert_eq!(serde_json::from_str::<Ask>(&text).expect("an ask").files[0].path, ask.files[0].path);
}
