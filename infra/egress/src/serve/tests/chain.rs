//! Two proxies in a row, as for a worker that lives in a room of its own.

use tokio::net::UnixListener;

use super::*;
use crate::address::Class;
use crate::upstream::NextHop;

/// A proxy behind another one: its list, then the other's.
async fn behind(next: NextHop, list: &[&str]) -> (Running, SocketAddr) {
    proxy(list, Outside::new(Upstream::Via(next)), Limits::default()).await
}

#[tokio::test]
async fn two_proxies_in_a_row_are_one_way_out() {
    let internet = Internet::start().await;
    let (outer, next) = proxy(&[API], internet.outside(&[(API, &["8.8.8.8"])]), Limits::default()).await;
    let (inner, proxy) = behind(NextHop::Tcp(next), &[API]).await;
    let (mut stream, hello) = opened(proxy, API).await;
    said_back(&mut stream, b"over two hops").await;
    drop(stream);
    let (inner, outer) = (inner.finish().await, outer.finish().await);
    for report in [&inner, &outer] {
        let Decision { host, verdict, bytes_up, .. } = only(report);
        assert_eq!((host.as_str(), *verdict, *bytes_up), (API, Verdict::Allowed, hello + 13));
    }
    assert_eq!((inner.lookups, outer.lookups), (0, 1), "the address is the outer proxy's question");
}

#[tokio::test]
async fn a_unix_socket_serves_as_listener_and_as_next_hop() {
    let internet = Internet::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("egress.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let policy = Policy::parse([API]).expect("a list");
    let outer = start(listener.into(), policy, internet.outside(&[(API, &["8.8.8.8"])]), Limits::default());
    let (inner, proxy) = behind(NextHop::Unix(path), &[API]).await;
    let (stream, _) = opened(proxy, API).await;
    drop(stream);
    assert_eq!(only(&inner.finish().await).verdict, Verdict::Allowed);
    assert_eq!(only(&outer.finish().await).verdict, Verdict::Allowed);
}

#[tokio::test]
async fn the_narrower_of_two_lists_decides() {
    let internet = Internet::start().await;
    let pins: &[(&str, &[&str])] = &[("wide.example.com", &["8.8.8.8"]), ("near.example.com", &["10.0.0.1"])];
    let (outer, next) =
        proxy(&["near.example.com", "wide.example.com"], internet.outside(pins), Limits::default()).await;
    let (inner, proxy) = behind(NextHop::Tcp(next), &["near.example.com", "beyond.example.com"]).await;
    for host in ["wide.example.com", "beyond.example.com", "near.example.com"] {
        let answer = ask(proxy, &connect(&format!("{host}:443"))).await;
        assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{host}: {answer}");
    }
    let told = |report: &Report| -> Vec<(String, Reason)> {
        report.decisions.iter().map(|decision| (decision.host.clone(), decision.reason)).collect()
    };
    let denied = Reason::Open(OpenFault::HopDenied);
    assert_eq!(
        told(&inner.finish().await),
        [
            ("beyond.example.com".to_owned(), denied),
            ("near.example.com".to_owned(), denied),
            ("wide.example.com".to_owned(), Reason::NotListed),
        ]
    );
    assert_eq!(
        told(&outer.finish().await),
        [
            ("beyond.example.com".to_owned(), Reason::NotListed),
            ("near.example.com".to_owned(), Reason::Open(OpenFault::NotPublic(Class::Private))),
        ]
    );
    assert_eq!(internet.dialled(), []);
}

#[tokio::test]
async fn a_next_proxy_that_is_gone_or_is_none_is_a_bad_gateway() {
    let folder = tempfile::tempdir().expect("a folder");
    let (inner, address) = behind(NextHop::Unix(folder.path().join("nobody.sock")), &[API]).await;
    let answer = ask(address, &connect("api.example.com:443")).await;
    assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{answer}");
    assert_eq!(only(&inner.finish().await).reason, Reason::Open(OpenFault::Hop));

    // What says the request back speaks no HTTP.
    let internet = Internet::start().await;
    let (inner, address) = behind(NextHop::Tcp(internet.address), &[API]).await;
    let answer = ask(address, &connect("api.example.com:443")).await;
    assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{answer}");
    assert_eq!(only(&inner.finish().await).reason, Reason::Open(OpenFault::Hop));
}

#[tokio::test]
async fn nothing_that_the_room_wrote_travels_on_but_the_name() {
    let next = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = next.local_addr().expect("bound");
    let (inner, proxy) = behind(NextHop::Tcp(address), &[API]).await;
    let hop = async {
        let (mut stream, _) = next.accept().await.expect("the proxy");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a head"));
        }
        stream.write_all(b"HTTP/1.1 418 I'm a teapot\r\n\r\n").await.expect("the proxy reads");
        String::from_utf8(head).expect("text")
    };
    let claim = "CONNECT API.example.com.:443 HTTP/1.1\r\nX-Room: other\r\n\r\n";
    let (head, answer) = tokio::join!(hop, ask(proxy, claim));
    assert_eq!(head, "CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n");
    assert!(answer.ends_with("egress: the next proxy answers with status 418\n"), "{answer}");
    assert_eq!(only(&inner.finish().await).verdict, Verdict::Failed);
}
