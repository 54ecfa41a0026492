//! Parsers of hostile bytes in this crate, as functions over bytes: for fuzzing, and for nothing else.
//!
//! A target returns on any bytes at all, soon and in bounded memory, whatever it makes of them.

use std::time::Duration;

use crate::head::parse_head;
use crate::hello::read_hello;
use crate::name::HostName;
use crate::retry::{asks_again, read_again};

/// Longer than any case takes: bytes in memory are never late.
const LATE: Duration = Duration::from_secs(600);

/// What a room says first.
pub fn egress_head(bytes: &[u8]) {
    match parse_head(bytes) {
        Ok(Some(head)) => {
            assert!(head.bytes() <= bytes.len());
            if let Err(fault) = head.target() {
                assert!(!fault.to_string().is_empty());
            }
        }
        Ok(None) => {}
        Err(fault) => assert!(!fault.to_string().is_empty()),
    }
}

/// What it says next: what passes as a hello is what was said, to the byte.
pub fn egress_hello(mut bytes: &[u8]) {
    let all = bytes;
    if let Ok(hello) = now(read_hello(&mut bytes, Vec::new(), &host(), LATE)) {
        assert!(all.starts_with(&[hello.bytes, hello.behind].concat()));
    }
}

/// What a host says first: more of it changes no verdict on what came before.
pub fn egress_answer(bytes: &[u8]) {
    if let Some(asks) = asks_again(&bytes[..bytes.len() / 2]) {
        assert_eq!(asks_again(bytes), Some(asks));
    }
}

/// What a room says to a host that asks again.
pub fn egress_again(mut bytes: &[u8]) {
    let all = bytes;
    if let Ok(passed) = now(read_again(&mut bytes, Vec::new(), &host(), LATE)) {
        assert!(all.starts_with(&passed));
    }
}

fn host() -> HostName {
    HostName::parse("api.example.com").expect("a name")
}

fn now<T>(reading: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(reading)
}
