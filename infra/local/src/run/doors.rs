//! Who answers at the sockets of a task's room: its metadata server, this cloud, and what else the task may reach.
//!
//! Each socket was made inside the room and handed out, so whoever calls on it is that room's task: the socket is the
//! identity. At the cloud's own socket only that identity's tokens are good, so that a token which leaked from
//! elsewhere opens nothing here. Refuses nothing else: what a task may do is the policy's to say.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::serve::ListenerExt as _;
use carrel_egress::{Limits, Policy, Resolver, Upstream};
use http::StatusCode;
use http::header::AUTHORIZATION;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::iam::{Iam, Principal};
use crate::metadata::MetadataServer;

/// What answers a room; it stops when dropped.
pub(super) struct Doors {
    _identity: MetadataServer,
    volume: Option<(Child, MetadataServer)>,
    proxy: Option<carrel_egress::Running>,
    tasks: TaskTracker,
    stopped: CancellationToken,
    stop: DropGuard,
}

/// Number of the descriptor at which a volume's server finds its channel, as `/dev/fd/3`.
pub(super) const CHANNEL: i32 = 3;

impl Doors {
    pub(super) fn new(identity: MetadataServer, volume: Option<(Child, MetadataServer)>) -> Self {
        let stopped = CancellationToken::new();
        let stop = stopped.clone().drop_guard();
        Self { _identity: identity, volume, proxy: None, tasks: TaskTracker::new(), stopped, stop }
    }

    /// This cloud, for one principal.
    pub(super) fn cloud(
        &self,
        listener: std::net::TcpListener,
        app: Router,
        iam: Iam,
        who: Principal,
    ) -> io::Result<()> {
        let app = app.layer(from_fn_with_state((iam, who), only));
        let listener = TcpListener::from_std(listener)?.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "a connection stays as slow as it was");
            }
        });
        let stop = self.stopped.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                served = axum::serve(listener, app) => {
                    if let Err(error) = served { tracing::error!(%error, "a room's way to the cloud ended"); }
                }
                () = stop.cancelled() => {}
            }
        });
        Ok(())
    }

    /// An address of this machine, passed on byte for byte.
    pub(super) fn relay(&self, listener: std::net::TcpListener, to: SocketAddr) -> io::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        let (stop, tasks) = (self.stopped.clone(), self.tasks.clone());
        self.tasks.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = stop.cancelled() => return,
                };
                match accepted {
                    Ok((inside, _)) => {
                        let stop = stop.clone();
                        tasks.spawn(async move {
                            tokio::select! {
                                () = pass(inside, to) => {}
                                () = stop.cancelled() => {}
                            }
                        });
                    }
                    Err(error) => {
                        tracing::error!(%error, "a room's way out ended");
                        return;
                    }
                }
            }
        });
        Ok(())
    }

    /// The hosts that its job lists.
    pub(super) fn let_out(&mut self, listener: std::net::TcpListener, policy: Policy) -> io::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        let upstream = Upstream::Direct(Resolver::System);
        self.proxy = Some(carrel_egress::serve(listener, policy, upstream, Limits::default()));
        Ok(())
    }

    /// Ends them all and waits for it. Called once the room is gone, which ends a server of its volume by itself.
    pub(super) async fn close(self) {
        let Self { volume, proxy, tasks, stop, .. } = self;
        drop(stop);
        if let Some(proxy) = proxy {
            proxy.finish().await;
        }
        tasks.close();
        tasks.wait().await;
        if let Some((mut volume, _)) = volume
            && let Err(error) = volume.kill().await
        {
            tracing::error!(%error, "cannot end the server of a volume");
        }
    }
}

async fn pass(mut inside: TcpStream, to: SocketAddr) {
    let passed = async {
        let mut outside = TcpStream::connect(to).await?;
        tokio::io::copy_bidirectional(&mut inside, &mut outside).await
    };
    if let Err(error) = passed.await {
        tracing::debug!(%to, %error, "a room's connection broke");
    }
}

async fn only(State((iam, who)): State<(Iam, Principal)>, request: Request, next: Next) -> Response {
    let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    match iam.authenticate(token) {
        Ok(caller) if caller != who => {
            tracing::warn!(
                iam.principal = caller.as_str(),
                room.principal = who.as_str(),
                "a stranger's token in a room"
            );
            (StatusCode::FORBIDDEN, "this token is another identity's\n").into_response()
        }
        // A call without a good token is refused where it arrives, in the words of that service.
        Ok(_) | Err(_) => next.run(request).await,
    }
}

/// Starts the server of a volume on its channel. It ends when the room has, or with this cloud.
pub(super) fn serve_volume(argv: &[String], host: &str, channel: OwnedFd, log: OwnedFd) -> io::Result<Child> {
    let (program, args) = argv.split_first().ok_or_else(|| io::Error::other("the server of volumes has no command"))?;
    let mut command = std::process::Command::new(program);
    command.args(args).env_clear().env("GCE_METADATA_HOST", host).env("PATH", "/usr/local/bin:/usr/bin:/bin");
    // Whom this cloud trusts, the servers of its volumes trust.
    command.envs(std::env::var_os("SSL_CERT_FILE").map(|file| ("SSL_CERT_FILE", file)));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(log));
    carrel_sandbox::pass(&mut command, channel, CHANNEL);
    Command::from(command).kill_on_drop(true).spawn()
}
