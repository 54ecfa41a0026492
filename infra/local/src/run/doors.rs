//! Who answers at the sockets of a task's room: its metadata server, this cloud, and what else the task may reach.
//!
//! Each socket was made inside the room and handed out, so whoever calls on it is that room's task: the socket is the
//! identity. At the cloud's own socket only that identity's tokens are good, so that a token which leaked from
//! elsewhere opens nothing here. Of every door a room has so many places, so that a task that was taken over waits for
//! itself alone there; what all tasks share beneath, above all the descriptors on their way through unix sockets, which
//! the kernel counts by the machine's user, one task alone can use up. Refuses nothing else: what a task may do is the policy's to say.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::serve::Listener as _;
use carrel_egress::{Limits, Policy, Report, Resolver, Upstream};
use http::StatusCode;
use http::header::AUTHORIZATION;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::clamd::{self, Clamd};
use crate::bounded::{Bounded, Held};
use crate::iam::{Iam, Principal};
use crate::metadata::MetadataServer;

/// Connections of a room to the cloud: a client keeps idle ones.
const TO_CLOUD: usize = 128;
/// Calls of a room that the cloud is at work on. An upload that stalls holds a thread of the cloud, which has 512.
const CALLS: usize = 32;
/// Connections of a room to whatever else it reaches.
const RELAYED: usize = 32;
/// A worker asks clamd about one file after the other; clamd has ten threads for all.
const TO_CLAMD: usize = 2;

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
        let app = app.layer(from_fn_with_state(Arc::new(Semaphore::new(CALLS)), in_turn));
        let listener = Bounded::new(TcpListener::from_std(listener)?, TO_CLOUD);
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
        self.each(listener, RELAYED, move |inside| pass(inside, to))
    }

    /// The virus scanner, as far as a task may ask it.
    pub(super) fn scan(&self, listener: std::net::TcpListener, clamd: &Clamd) -> io::Result<()> {
        let clamd = Arc::new(clamd.clone());
        self.each(listener, TO_CLAMD, move |inside| {
            let clamd = clamd.clone();
            async move { clamd::serve(inside, &clamd, clamd::STREAM_BYTES).await }
        })
    }

    fn each<F: Future<Output = ()> + Send + 'static>(
        &self,
        listener: std::net::TcpListener,
        places: usize,
        serve: impl Fn(Held) -> F + Send + 'static,
    ) -> io::Result<()> {
        let mut listener = Bounded::new(TcpListener::from_std(listener)?, places);
        let (stop, tasks) = (self.stopped.clone(), self.tasks.clone());
        self.tasks.spawn(async move {
            loop {
                let (inside, _) = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = stop.cancelled() => return,
                };
                let (stop, served) = (stop.clone(), serve(inside));
                tasks.spawn(async move {
                    tokio::select! {
                        () = served => {}
                        () = stop.cancelled() => {}
                    }
                });
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
            let Report { decisions, truncated, bytes_up, bytes_down, lookups } = proxy.finish().await;
            let connections = decisions.len() as u64 + truncated;
            tracing::info!(egress.decisions = connections, bytes_up, bytes_down, lookups, "a room's way out is closed");
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

async fn pass(mut inside: Held, to: SocketAddr) {
    let passed = async {
        let mut outside = TcpStream::connect(to).await?;
        tokio::io::copy_bidirectional(&mut inside, &mut outside).await
    };
    if let Err(error) = passed.await {
        tracing::debug!(%to, %error, "a room's connection broke");
    }
}

/// A call keeps its place until it is answered; others of the room wait.
async fn in_turn(State(calls): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let _place = calls.acquire().await.expect("nobody closes the places");
    next.run(request).await
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
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(log));
    carrel_sandbox::pass(&mut command, channel, CHANNEL);
    Command::from(command).kill_on_drop(true).spawn()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::body::Body;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::watch;

    use super::*;

    #[tokio::test]
    async fn calls_beyond_a_room_s_number_wait_for_others_of_the_room() {
        let (at_work, mut seen) = watch::channel(0_usize);
        let (go, most) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(0)));
        let handler = {
            let (go, most) = (go.clone(), most.clone());
            async move |_: Request<Body>| {
                at_work.send_modify(|count| *count += 1);
                let now = *at_work.borrow();
                most.lock().map(|mut most| *most = now.max(*most)).expect("whole");
                go.acquire().await.expect("open").forget();
                at_work.send_modify(|count| *count -= 1);
                "done"
            }
        };
        let app = Router::new().route("/", get(handler));
        let app = app.layer(from_fn_with_state(Arc::new(Semaphore::new(CALLS)), in_turn));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let serving = tokio::spawn(async move { axum::serve(Bounded::new(listener, TO_CLOUD), app).await });
        let mut callers = Vec::new();
        for _ in 0..CALLS + 8 {
            let mut caller = TcpStream::connect(address).await.expect("listens");
            caller.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("asked");
            callers.push(caller);
        }
        seen.wait_for(|count| *count >= CALLS).await.expect("the handler lives");
        // Whoever was let in beyond the number has had every turn to come.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        go.add_permits(callers.len());
        for mut caller in callers {
            let mut answer = String::new();
            caller.read_to_string(&mut answer).await.expect("answered");
            assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("done"), "{answer}");
        }
        assert_eq!(*most.lock().expect("whole"), CALLS);
        serving.abort();
    }
}
