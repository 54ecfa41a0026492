//! Bytes, time and numbers: every bound holds, and its end is named in the report.

use super::*;
use crate::head::HeadFault;
use crate::hello::HelloFault;

/// A deadline that a test waits out.
const SOON: Duration = Duration::from_millis(50);

/// A deadline that a test waits out after something else had to happen within it.
const LATER: Duration = Duration::from_secs(1);

async fn with(limits: Limits) -> (Internet, Running, SocketAddr) {
    let internet = Internet::start().await;
    let (running, proxy) = proxy(&[API], internet.outside(&[(API, &["8.8.8.8"])]), limits).await;
    (internet, running, proxy)
}

#[tokio::test]
async fn a_listed_host_hears_every_byte_and_is_heard() {
    let (internet, running, proxy) = with(Limits::default()).await;
    let mut stream = accepted(proxy, API).await;
    let sent = [hello_to(API), (0..200_000u32).map(|number| number.to_le_bytes()[0]).collect()].concat();
    let (mut from, mut to) = stream.split();
    let mut answer = Vec::new();
    let sending = async {
        to.write_all(&sent).await?;
        to.shutdown().await
    };
    let (sending, reading) = tokio::join!(sending, from.read_to_end(&mut answer));
    sending.expect("the proxy reads all");
    reading.expect("the host's end travels back");
    assert!(answer == sent && internet.heard() == sent);
    let report = running.finish().await;
    let Decision { host, port, verdict, reason, bytes_up, bytes_down, .. } = only(&report);
    assert_eq!((host.as_str(), *port, *verdict), (API, Some(443), Verdict::Allowed));
    assert_eq!(*reason, Reason::Ended(End::Closed));
    assert_eq!((*bytes_up, *bytes_down), (sent.len() as u64, sent.len() as u64));
}

#[tokio::test]
async fn a_hello_that_comes_with_the_head_is_not_lost() {
    let (internet, running, proxy) = with(Limits::default()).await;
    let mut stream = TcpStream::connect(proxy).await.expect("the proxy listens");
    let hello = hello_to(API);
    let sent = [connect("api.example.com:443").as_bytes(), &hello].concat();
    stream.write_all(&sent).await.expect("the proxy reads");
    stream.shutdown().await.expect("open");
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(internet.heard(), hello);
    assert_eq!(only(&running.finish().await).verdict, Verdict::Allowed);
}

#[tokio::test]
async fn a_head_that_trickles_is_given_up_on() {
    let (_internet, running, proxy) = with(Limits { head: SOON, ..Limits::default() }).await;
    let answer = ask(proxy, "CONNECT api.example").await;
    assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
    assert_eq!(only(&running.finish().await).reason, Reason::Head(HeadFault::Slow));
}

#[tokio::test]
async fn a_hello_that_does_not_come_is_given_up_on() {
    let (internet, running, proxy) = with(Limits { head: LATER, ..Limits::default() }).await;
    let mut stream = accepted(proxy, API).await;
    stream.write_all(&hello_to(API)[..50]).await.expect("the proxy reads");
    assert_eq!(rest(&mut stream).await, "");
    assert_eq!(only(&running.finish().await).reason, Reason::Hello(HelloFault::Slow));
    assert_eq!(internet.heard(), b"");
}

#[tokio::test]
async fn a_silent_tunnel_is_closed() {
    let (_internet, running, proxy) = with(Limits { idle: LATER, ..Limits::default() }).await;
    let (mut stream, _) = opened(proxy, API).await;
    assert_eq!(rest(&mut stream).await, "");
    assert_eq!(only(&running.finish().await).reason, Reason::Ended(End::Idle));
}

#[tokio::test]
async fn a_host_that_never_answers_is_given_up_on() {
    let silent: Dial = Arc::new(|_| Box::pin(std::future::pending()));
    let upstream = Upstream::Direct(pinned(&[(API, &["8.8.8.8", "8.8.4.4"])]));
    let limits = Limits { open: SOON, ..Limits::default() };
    let (running, proxy) = proxy(&[API], Outside::dialling(upstream, silent), limits).await;
    let answer = ask(proxy, &connect("api.example.com:443")).await;
    assert!(answer.starts_with("HTTP/1.1 504 Gateway Timeout\r\n"), "{answer}");
    assert_eq!(only(&running.finish().await).verdict, Verdict::Failed);
}

#[tokio::test]
async fn a_host_that_does_not_answer_a_hello_holds_no_place_though_its_client_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let dial: Dial = Arc::new(move |_| Box::pin(TcpStream::connect(address)));
    let outside = Outside::dialling(Upstream::Direct(pinned(&[(API, &["8.8.8.8"])])), dial);
    let limits = Limits { connections: 1, open: LATER, grace: Duration::from_secs(60), ..Limits::default() };
    let (running, proxy) = proxy(&[API], outside, limits).await;
    let mut stream = accepted(proxy, API).await;
    let (mut host, _) = listener.accept().await.expect("dialled");
    let hello = hello_to(API);
    stream.write_all(&hello).await.expect("the proxy reads");
    let mut heard = vec![0; hello.len()];
    host.read_exact(&mut heard).await.expect("the hello travels on");
    drop(stream);
    assert_eq!(host.read(&mut heard).await.expect("an end, not a reset"), 0);
    assert_eq!(only(&running.finish().await).reason, Reason::Ended(End::Unanswered));
}

#[tokio::test]
async fn a_host_without_an_open_port_or_an_address_is_a_bad_gateway() {
    let refusing: Dial = Arc::new(|_| Box::pin(std::future::ready(Err(io::ErrorKind::ConnectionRefused.into()))));
    let upstream = Upstream::Direct(pinned(&[(API, &["8.8.8.8", "8.8.4.4"])]));
    let (running, proxy) = proxy(&["*.example.com"], Outside::dialling(upstream, refusing), Limits::default()).await;
    for host in [API, "unknown.example.com"] {
        let answer = ask(proxy, &connect(&format!("{host}:443"))).await;
        assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{host}: {answer}");
    }
    let reasons: Vec<Reason> = running.finish().await.decisions.iter().map(|decision| decision.reason).collect();
    assert_eq!(reasons, [Reason::Open(OpenFault::Unreachable), Reason::Open(OpenFault::NotResolved)]);
}

#[tokio::test]
async fn a_connection_is_cut_at_its_last_allowed_byte() {
    let hello = hello_to(API).len() as u64;
    let limits = Limits { connection_bytes: 2 * hello + 10, ..Limits::default() };
    let (internet, running, proxy) = with(limits).await;
    let (mut stream, _) = opened(proxy, API).await;
    stream.write_all(&[7; 1_000]).await.expect("the proxy reads");
    let mut answer = Vec::new();
    assert!(!matches!(stream.read_to_end(&mut answer).await, Ok(1..)), "{answer:?}");
    let report = running.finish().await;
    let Decision { reason, bytes_up, bytes_down, .. } = only(&report);
    assert_eq!(*reason, Reason::Ended(End::ConnectionBytes));
    assert_eq!((*bytes_up, *bytes_down), (hello + 10, hello));
    assert!(internet.heard().len() as u64 <= hello + 10);
}

#[tokio::test]
async fn a_room_is_cut_at_its_last_allowed_byte_whatever_connections_it_opens() {
    let hello = hello_to(API).len() as u64;
    let limits = Limits { room_bytes: 4 * hello + 3, ..Limits::default() };
    let (_internet, running, proxy) = with(limits).await;
    let (first, _) = opened(proxy, API).await;
    let (mut second, _) = opened(proxy, API).await;
    second.write_all(&[7; 1_000]).await.expect("the proxy reads");
    let mut answer = Vec::new();
    assert!(!matches!(second.read_to_end(&mut answer).await, Ok(1..)), "{answer:?}");
    let refused = ask(proxy, &connect("api.example.com:443")).await;
    assert!(refused.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{refused}");
    drop(first);
    let report = running.finish().await;
    assert_eq!(report.bytes_up + report.bytes_down, 4 * hello + 3);
    let reasons: Vec<Reason> = report.decisions.iter().map(|decision| decision.reason).collect();
    assert_eq!(reasons, [Reason::Ended(End::Closed), Reason::Ended(End::RoomBytes), Reason::Spent]);
}

#[tokio::test]
async fn a_connection_too_many_is_refused_until_another_ends() {
    let (_internet, running, proxy) = with(Limits { connections: 1, ..Limits::default() }).await;
    let (first, _) = opened(proxy, API).await;
    let answer = ask(proxy, &connect("api.example.com:443")).await;
    assert!(answer.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{answer}");
    drop(first);
    // The place is free once the proxy has seen the end, which no answer tells.
    let admitted = async {
        loop {
            let mut stream = TcpStream::connect(proxy).await.expect("the proxy listens");
            stream.write_all(connect("api.example.com:443").as_bytes()).await.expect("the proxy reads");
            let mut status = [0; 12];
            stream.read_exact(&mut status).await.expect("an answer");
            if &status == b"HTTP/1.1 200" {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), admitted).await.expect("a place");
    let report = running.finish().await;
    assert!(report.decisions.iter().any(|decision| decision.reason == Reason::Busy), "{report:#?}");
}

#[tokio::test]
async fn a_proxy_that_finishes_takes_nothing_new_and_lets_tunnels_end() {
    let (_internet, running, proxy) = with(Limits { grace: Duration::from_secs(60), ..Limits::default() }).await;
    let (mut stream, hello) = opened(proxy, API).await;
    let closed = async {
        while TcpStream::connect(proxy).await.is_ok() {
            tokio::task::yield_now().await;
        }
        said_back(&mut stream, b"the last words").await;
        drop(stream);
    };
    let (report, ()) = tokio::join!(running.finish(), closed);
    let Decision { reason, bytes_up, .. } = report.decisions.first().expect("a decision");
    assert_eq!((*reason, *bytes_up), (Reason::Ended(End::Closed), hello + 14));
}

#[tokio::test]
async fn a_tunnel_that_outlives_the_grace_is_cut_and_told() {
    let (_internet, running, proxy) = with(Limits { grace: SOON, ..Limits::default() }).await;
    let (mut stream, hello) = opened(proxy, API).await;
    let waiting = accepted(proxy, API).await;
    let report = running.finish().await;
    assert_eq!(rest(&mut stream).await, "");
    drop(waiting);
    let ends: Vec<(Reason, u64)> = report.decisions.iter().map(|end| (end.reason, end.bytes_up)).collect();
    assert_eq!(ends, [(Reason::Ended(End::Finished), hello), (Reason::Finished, 0)]);
}

#[tokio::test]
async fn a_proxy_that_is_dropped_leaves_no_tunnel_behind() {
    let (_internet, running, proxy) = with(Limits::default()).await;
    let (mut stream, _) = opened(proxy, API).await;
    drop(running);
    assert_eq!(rest(&mut stream).await, "");
}
