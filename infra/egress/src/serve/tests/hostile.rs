//! What a hostile room tries by way of its proxy, and the exact outcome.

use super::*;
use crate::address::Class;
use crate::head::HeadFault;
use crate::hello::HelloFault;

#[tokio::test]
async fn the_metadata_server_is_refused_in_every_spelling_before_anything_is_dialled() {
    let internet = Internet::start().await;
    let outside = internet.outside(&[("metadata.google.internal", &["169.254.169.254"])]);
    let (running, proxy) = proxy(&["metadata.google.internal"], outside, Limits::default()).await;
    for target in [
        "metadata.google.internal:443",
        "METADATA.google.internal.:443",
        "169.254.169.254:443",
        "2852039166:443",
        "0xa9fea9fe:443",
        "0251.0376.0251.0376:443",
        "0xa9.254.0251.254:443",
        "[::ffff:169.254.169.254]:443",
        "[::ffff:a9fe:a9fe]:443",
        "[fd20:ce::254]:443",
        "metadata.google.internal:80",
        "metadata:443",
    ] {
        let answer = ask(proxy, &connect(target)).await;
        assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{target}: {answer}");
        assert!(!answer.contains("169.254"), "the room learns no address: {answer}");
    }
    let report = running.finish().await;
    assert!(report.decisions.iter().all(|decision| decision.verdict == Verdict::Denied), "{report:#?}");
    assert_eq!((internet.dialled(), report.lookups), (vec![], 2));
}

#[tokio::test]
async fn name_servers_are_not_reached_through_the_proxy() {
    let internet = Internet::start().await;
    let (running, proxy) = proxy(&[API], internet.outside(&[(API, &["8.8.8.8"])]), Limits::default()).await;
    for target in
        ["8.8.8.8:53", "8.8.8.8:443", "[2001:4860:4860::8888]:443", "api.example.com:53", "api.example.com:853"]
    {
        let answer = ask(proxy, &connect(target)).await;
        assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{target}: {answer}");
    }
    assert_eq!((running.finish().await.lookups, internet.dialled()), (0, vec![]));
}

#[tokio::test]
async fn a_denied_name_is_never_put_to_a_resolver() {
    let internet = Internet::start().await;
    let outside = internet.outside(&[("secret.evil.example", &["8.8.8.8"])]);
    let (running, proxy) = proxy(&[API], outside, Limits::default()).await;
    let answer = ask(proxy, &connect("secret.evil.example:443")).await;
    let (head, line) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{head}");
    assert_eq!(line, "egress: the name is not on the room's allow-list\n");
    let report = running.finish().await;
    assert_eq!((report.lookups, internet.dialled()), (0, vec![]));
    let Decision { host, port, verdict, reason, count, .. } = only(&report);
    assert_eq!((host.as_str(), *port, *verdict, *count), ("secret.evil.example", Some(443), Verdict::Denied, 1));
    assert_eq!(*reason, Reason::NotListed);
}

#[tokio::test]
async fn a_service_on_the_hosts_loopback_is_not_reached_through_the_proxy() {
    let pins: &[(&str, &[&str])] = &[("near.example.com", &["127.0.0.1"]), ("six.example.com", &["::1"])];
    let outside = Outside::new(Upstream::Direct(pinned(pins)));
    let (running, proxy) = proxy(&["*.example.com"], outside, Limits::default()).await;
    for target in ["localhost:443", "127.0.0.1:443", "0:443", "near.example.com:443", "six.example.com:443"] {
        let answer = ask(proxy, &connect(target)).await;
        assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{target}: {answer}");
    }
    let reasons: Vec<Reason> = running.finish().await.decisions.iter().map(|decision| decision.reason).collect();
    let loopback = Reason::Open(OpenFault::NotPublic(Class::Loopback));
    assert_eq!(reasons.iter().filter(|reason| **reason == loopback).count(), 2, "{reasons:?}");
}

#[tokio::test]
async fn a_relay_in_the_room_lends_nobody_another_identity() {
    let internet = Internet::start().await;
    let (running, proxy) = proxy(&[API], internet.outside(&[(API, &["8.8.8.8"])]), Limits::default()).await;
    let relay = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = relay.local_addr().expect("bound");
    let relaying = async {
        let (mut client, _) = relay.accept().await.expect("a client");
        let mut onward = TcpStream::connect(proxy).await.expect("the proxy listens");
        tokio::io::copy_bidirectional(&mut client, &mut onward).await
    };
    let claim = "CONNECT evil.example:443 HTTP/1.1\r\nHost: api.example.com:443\r\nX-Forwarded-For: 10.0.0.7\r\n\
                 Forwarded: for=other-room\r\nProxy-Authorization: Basic b3RoZXI6cm9vbQ==\r\n\r\n";
    let asking = async {
        let mut stream = TcpStream::connect(address).await.expect("the relay listens");
        stream.write_all(claim.as_bytes()).await.expect("the relay reads");
        rest(&mut stream).await
    };
    let (answer, relayed) = tokio::join!(asking, relaying);
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
    relayed.expect("the relay was sound");
    assert_eq!(only(&running.finish().await).host, "evil.example");
}

#[tokio::test]
async fn a_connect_in_the_place_of_a_client_hello_ends_the_tunnel_and_behind_it_is_bytes() {
    let internet = Internet::start().await;
    let (running, proxy) = proxy(&[API], internet.outside(&[(API, &["8.8.8.8"])]), Limits::default()).await;
    let mut nested = accepted(proxy, API).await;
    nested.write_all(connect("evil.example:443").as_bytes()).await.expect("the proxy reads");
    // The proxy closes on bytes it read, so the end is an end or a reset.
    let mut answer = Vec::new();
    assert!(!matches!(nested.read_to_end(&mut answer).await, Ok(1..)), "{answer:?}");
    assert_eq!(internet.heard(), b"");

    let (mut stream, hello) = opened(proxy, API).await;
    let inner = connect("evil.example:443");
    said_back(&mut stream, inner.as_bytes()).await;
    drop(stream);
    let report = running.finish().await;
    let [passed, nested] = report.decisions.as_slice() else { panic!("two decisions, not {report:#?}") };
    assert_eq!(passed.bytes_up, hello + inner.len() as u64);
    assert_eq!(nested.reason, Reason::Hello(HelloFault::NotTls));
    assert!(report.decisions.iter().all(|decision| decision.host == API), "{report:#?}");
}

#[tokio::test]
async fn an_empty_list_denies_all() {
    let internet = Internet::start().await;
    let (running, proxy) = proxy(&[], internet.outside(&[(API, &["8.8.8.8"])]), Limits::default()).await;
    for target in ["api.example.com:443", "localhost:443", "8.8.8.8:443"] {
        let answer = ask(proxy, &connect(target)).await;
        assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{target}: {answer}");
    }
    assert_eq!((running.finish().await.lookups, internet.dialled()), (0, vec![]));
}

#[tokio::test]
async fn a_listed_name_with_a_private_address_is_refused() {
    let internet = Internet::start().await;
    for (address, class) in [
        ("10.0.0.1", Class::Private),
        ("100.100.100.200", Class::CarrierNat),
        ("::ffff:192.168.0.1", Class::Private),
        ("64:ff9b::a9fe:a9fe", Class::LinkLocal),
        ("2002:7f00:1::1", Class::Loopback),
        ("fd00:ec2::254", Class::Private),
        ("0.0.0.0", Class::Unspecified),
    ] {
        let (running, proxy) = proxy(&[API], internet.outside(&[(API, &[address])]), Limits::default()).await;
        let answer = ask(proxy, &connect("api.example.com:443")).await;
        assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{address}: {answer}");
        assert!(answer.ends_with("egress: the name has no public address\n"), "{address}: {answer}");
        assert_eq!(only(&running.finish().await).reason, Reason::Open(OpenFault::NotPublic(class)));
    }
    assert_eq!(internet.dialled(), []);
}

#[tokio::test]
async fn of_mixed_addresses_the_public_one_is_dialled_as_it_was_resolved() {
    let internet = Internet::start().await;
    let mixed: &[&str] = &["10.0.0.1", "169.254.169.254", "::ffff:8.8.4.4", "::1"];
    let (running, proxy) = proxy(&[API], internet.outside(&[(API, mixed)]), Limits::default()).await;
    let (stream, _) = opened(proxy, API).await;
    drop(stream);
    assert_eq!(running.finish().await.lookups, 1);
    assert_eq!(internet.dialled(), ["8.8.4.4:443".parse().expect("an address")]);
}

#[tokio::test]
async fn a_hello_to_another_server_ends_the_tunnel_before_a_byte_has_left() {
    let internet = Internet::start().await;
    let outside = internet.outside(&[(API, &["8.8.8.8"])]);
    let (running, proxy) = proxy(&[API, "other.example.com"], outside, Limits::default()).await;
    let mut stream = accepted(proxy, API).await;
    stream.write_all(&hello_to("other.example.com")).await.expect("the proxy reads");
    assert_eq!(rest(&mut stream).await, "");
    let report = running.finish().await;
    let Decision { host, verdict, reason, bytes_up, .. } = only(&report);
    assert_eq!((host.as_str(), *verdict, *bytes_up), (API, Verdict::Denied, 0));
    assert_eq!(*reason, Reason::Hello(HelloFault::OtherName));
    assert_eq!(internet.heard(), b"");
}

#[tokio::test]
async fn what_is_no_connect_gets_one_line_that_says_why() {
    let internet = Internet::start().await;
    let (running, proxy) = proxy(&[API], internet.outside(&[(API, &["8.8.8.8"])]), Limits::default()).await;
    let long = format!("CONNECT api.example.com:443 HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(9_000));
    for (sent, status) in [
        ("GET http://api.example.com/ HTTP/1.1\r\nHost: api.example.com\r\n\r\n", "405 Method Not Allowed"),
        ("OPTIONS * HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        ("CONNECT api.example.com HTTP/1.1\r\n\r\n", "400 Bad Request"),
        ("CONNECT api.example.com:443 HTTP/1.0\r\n\r\n", "400 Bad Request"),
        ("CONNECT b\u{fc}cher.example:443 HTTP/1.1\r\n\r\n", "400 Bad Request"),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03", "400 Bad Request"),
        (long.as_str(), "431 Request Header Fields Too Large"),
    ] {
        let answer = ask(proxy, sent).await;
        let (head, line) = answer.split_once("\r\n\r\n").expect("an answer");
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{sent:?}: {head}");
        assert!(line.starts_with("egress: ") && line.lines().count() == 1, "{sent:?}: {line}");
    }
    let report = running.finish().await;
    assert!(report.decisions.iter().all(|decision| decision.host.is_ascii()), "{report:#?}");
    assert!(report.decisions.iter().any(|decision| decision.reason == Reason::Head(HeadFault::Long)));
    assert_eq!((report.lookups, internet.dialled()), (0, vec![]));
}

/// A host that asks for another hello and says nothing more; what it heard comes once the proxy has gone.
async fn asking_again() -> (Outside, impl Future<Output = Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let dial: Dial = Arc::new(move |_| Box::pin(TcpStream::connect(address)));
    let heard = async move {
        let (mut stream, _) = listener.accept().await.expect("dialled");
        let mut heard = vec![0; hello_to(API).len()];
        stream.read_exact(&mut heard).await.expect("a hello");
        stream.write_all(&crate::retry::tests::retry()).await.expect("asked again");
        // A proxy that cuts may reset.
        drop(stream.read_to_end(&mut heard).await);
        heard
    };
    (Outside::dialling(Upstream::Direct(pinned(&[(API, &["8.8.8.8"])])), dial), heard)
}

#[tokio::test]
async fn a_second_hello_must_name_the_same_host_whenever_it_is_sent() {
    const CHANGE: &[u8] = b"\x14\x03\x03\0\x01\x01";
    const EARLY: &[u8] = b"\x17\x03\x03\0\x03abc";
    let evil = hello_to("evil.example");
    let fault = |fault| Some(Reason::Ended(End::Again(fault)));
    for (between, second, cut) in [
        (CHANGE, hello_to(API), None),
        (EARLY, hello_to(API), None),
        (CHANGE, evil.clone(), fault(HelloFault::OtherName)),
        (EARLY, evil.clone(), fault(HelloFault::OtherName)),
        (b"", evil, fault(HelloFault::OtherName)),
        (b"GET / HTTP/1.1", hello_to(API), fault(HelloFault::NotTls)),
    ] {
        for beforehand in [false, true] {
            let (outside, heard) = asking_again().await;
            let (running, proxy) = proxy(&[API], outside, Limits::default()).await;
            let mut stream = accepted(proxy, API).await;
            let (first, rest) = (hello_to(API), [between, &second[..]].concat());
            let room = async move {
                if beforehand {
                    stream.write_all(&[&first[..], &rest].concat()).await.expect("sent");
                } else {
                    stream.write_all(&first).await.expect("sent");
                    let mut asked = vec![0; crate::retry::tests::retry().len()];
                    stream.read_exact(&mut asked).await.expect("asked again");
                    stream.write_all(&rest).await.expect("sent");
                }
                drop(stream.shutdown().await);
                // To the end of the tunnel, whoever brings it about.
                drop(stream.read_to_end(&mut Vec::new()).await);
            };
            let (heard, ()) = tokio::join!(heard, room);
            let passed = heard.len() - hello_to(API).len();
            let report = running.finish().await;
            let decision = only(&report);
            match cut {
                None => assert_eq!((passed, decision.verdict), (between.len() + second.len(), Verdict::Allowed)),
                Some(reason) => {
                    assert_eq!((passed, decision.verdict, decision.reason), (0, Verdict::Denied, reason));
                }
            }
        }
    }
}
