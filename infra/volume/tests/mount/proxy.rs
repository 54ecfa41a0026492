//! A line to the server that can be held: what was sent is then neither delivered nor refused.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

pub(crate) struct Line {
    address: SocketAddr,
    held: watch::Sender<bool>,
    _relay: AbortOnDropHandle<()>,
}

impl Line {
    pub(crate) async fn to(endpoint: &str) -> Self {
        let server = endpoint.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (held, watch) = watch::channel(false);
        let relay = tokio::spawn(async move {
            let mut relays = tokio::task::JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.expect("a caller");
                let (server, watch) = (server.clone(), watch.clone());
                relays.spawn(async move {
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    tokio::join!(pass(from_client, to_server, watch.clone()), pass(from_server, to_client, watch));
                });
            }
        });
        Self { address, held, _relay: AbortOnDropHandle::new(relay) }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn hold(&self) {
        self.held.send_replace(true);
    }

    pub(crate) fn release(&self) {
        self.held.send_replace(false);
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut held: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        if held.wait_for(|held| !held).await.is_err() || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
