//! All services on one listener: gRPC by content type and path, JSON beside it, HTTP/1.1 and h2c alike.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use axum::Router;
use axum::extract::Request;
use axum::http::header;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::serve::ListenerExt as _;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::batch;
use crate::config::{self, CloudConfig, ConfigError, Isolation, PayloadFormat};
use crate::error::ApiError;
use crate::faults::Faults;
use crate::iam::{Iam, PolicyError, Principal};
use crate::idle;
use crate::metadata::{Metadata, MetadataServer};
use crate::misfortune::{befall, is_grpc};
use crate::pubsub::{self, PubSub};
use crate::run::{self, Run};
use crate::storage::{self, Storage};
use crate::store::{Store, StoreError};

/// The owner's token outlives any session at a desk.
const OWNER_TOKEN_LIFETIME: std::time::Duration = std::time::Duration::from_secs(30 * 24 * 3600);

/// Why the cloud did not start or ended.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// A file or socket.
    #[error("{what}")]
    Io {
        /// What was tried on which thing.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Pub/Sub.
    #[error(transparent)]
    PubSub(#[from] pubsub::OpenError),
    /// Cloud Storage.
    #[error(transparent)]
    Storage(#[from] storage::OpenError),
    /// Cloud Run.
    #[error(transparent)]
    Run(#[from] run::OpenError),
    /// What gives birth to the rooms of tasks. It cannot be started again from here: what forks must have one thread.
    #[error("the launcher of rooms ended, and with it every task; start the cloud again")]
    LauncherGone,
}

fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> CloudError {
    let what = what.into();
    move |source| CloudError::Io { what, source }
}

/// A running cloud.
pub struct Cloud {
    endpoint: String,
    owner_token: String,
    metadata: BTreeMap<String, MetadataServer>,
    store: Store,
    pubsub: PubSub,
    storage: Storage,
    run: Run,
    divides: bool,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What the ready file says.
#[derive(Debug, Serialize)]
struct Ready<'a> {
    endpoint: &'a str,
    metadata: BTreeMap<&'a str, &'a str>,
    owner_token: &'a str,
}

impl std::fmt::Debug for Cloud {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cloud").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Cloud {
    /// Applies the configuration and serves until [`Cloud::shutdown`].
    pub async fn start(config: CloudConfig) -> Result<Self, CloudError> {
        config.check()?;
        let data = &config.data_dir;
        std::fs::create_dir_all(data).map_err(io(format!("create {}", data.display())))?;
        let store = Store::open(&data.join("cloud.redb"))?;
        let iam = Iam::open(data, &config.roles, &config.bindings)?.serving(&config.project, config.anonymous.clone());
        let faults = Faults::new(config.faults);
        let (listener, address) = listen(config.listen).await?;
        let endpoint = format!("http://{address}");
        let metadata = Metadata::new(iam.clone(), &config.project, &config.location);
        let pubsub = PubSub::open(
            store.clone(),
            iam.clone(),
            faults.clone(),
            &config.project,
            &config.topics,
            &config.subscriptions,
        )
        .await?;
        let parts = storage::Parts {
            store: store.clone(),
            iam: iam.clone(),
            faults: faults.clone(),
            pubsub: pubsub.clone(),
            blob_dir: data.join("blobs"),
            endpoint: format!("http://{}", reachable(address)),
            project: config.project.clone(),
            location: config.location.clone(),
        };
        let notifications = |bucket: &config::Bucket| bucket.notifications.iter().map(notification).collect();
        let buckets = config.buckets.iter().map(|bucket| (bucket.name.clone(), notifications(bucket))).collect();
        let storage = Storage::open(parts, buckets).await?;
        let run = Run::open(run::Parts {
            store: store.clone(),
            iam: iam.clone(),
            faults: faults.clone(),
            metadata: metadata.clone(),
            data_dir: data.clone(),
            project: config.project.clone(),
            location: config.location.clone(),
            images: config.images.clone(),
            jobs: config.jobs.clone(),
            service_accounts: config.service_accounts.clone(),
            quotas: config.quotas,
            isolation: config.isolation,
            address: reachable(address),
            reach: config.reach.clone(),
            clamd: config.clamd.clone(),
            volume_server: config.volume_server.clone(),
        })
        .await?;
        let identities = serve_identities(&metadata, &config.metadata_servers).await?;
        let grpc = tonic::service::Routes::new(pubsub.publisher())
            .add_service(pubsub.subscriber())
            .add_service(storage.grpc())
            .into_axum_router();
        let app: Router = grpc.merge(pubsub.router()).merge(storage.router()).merge(run.router());
        let whole = |app: Router| {
            let app = app.fallback(unserved).method_not_allowed_fallback(unserved);
            let faults = faults.clone();
            let app = if faults.on_the_wire() { app.layer(from_fn_with_state(faults, befall)) } else { app };
            app.layer(from_fn(idle::impatient))
        };
        // No batches in rooms: their parts would pass the door, which looks at the outer call's token alone.
        run.serve_rooms(whole(app.clone()));
        let app = whole(app.clone().merge(batch::router(app)));
        let app = if config.anonymous.is_some() { app.layer(from_fn(from_no_page)) } else { app };
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(answer(listener, app, stop.clone()));
        let owner_token = iam.mint(&Principal::owner(), OWNER_TOKEN_LIFETIME);
        let divides = config.isolation == Isolation::Namespaces;
        let cloud =
            Self { endpoint, owner_token, metadata: identities, store, pubsub, storage, run, divides, stop, tasks };
        if let Some(path) = &config.ready_file {
            cloud.write_ready(path).map_err(io(format!("write {}", path.display())))?;
        }
        tracing::info!(endpoint = cloud.endpoint(), "cloud ready");
        Ok(cloud)
    }

    /// `http://127.0.0.1:PORT`, of every service.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// A token of the principal who may do everything.
    pub fn owner_token(&self) -> &str {
        &self.owner_token
    }

    /// The metadata server of a configured service account: `127.0.0.1:PORT`.
    pub fn metadata_host(&self, service_account: &str) -> Option<&str> {
        self.metadata.get(service_account).map(MetadataServer::host)
    }

    /// Returns only once it can run no more tasks, and says why.
    pub async fn unable(&self) -> CloudError {
        if !self.divides {
            return std::future::pending().await;
        }
        match carrel_sandbox::launcher_gone().await {
            Ok(()) => CloudError::LauncherGone,
            Err(error) => io("watch the launcher of rooms")(error),
        }
    }

    /// Ends streams and tasks, and returns once nothing is left to write.
    pub async fn shutdown(self) {
        self.run.shutdown().await;
        self.pubsub.shutdown().await;
        self.stop.cancel();
        self.storage.drain().await;
        self.tasks.close();
        // Idle keep-alive connections do not end by themselves.
        if tokio::time::timeout(std::time::Duration::from_secs(2), self.tasks.wait()).await.is_err() {
            tracing::debug!("connections were left open");
        }
        self.store.close().await;
    }

    fn write_ready(&self, path: &Path) -> std::io::Result<()> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let metadata = self.metadata.iter().map(|(account, server)| (account.as_str(), server.host())).collect();
        let ready = Ready { endpoint: &self.endpoint, metadata, owner_token: &self.owner_token };
        let part = path.with_extension("part");
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.write_all(&serde_json::to_vec(&ready)?)?;
        file.sync_all()?;
        std::fs::rename(part, path)
    }
}

async fn listen(at: SocketAddr) -> Result<(TcpListener, SocketAddr), CloudError> {
    let listener = TcpListener::bind(at).await.map_err(io(format!("listen on {at}")))?;
    let address = listener.local_addr().map_err(io("listen"))?;
    Ok((listener, address))
}

/// Where a program on this machine finds what listens at this address.
fn reachable(mut at: SocketAddr) -> SocketAddr {
    if !at.ip().is_loopback() {
        at.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    at
}

async fn answer(listener: TcpListener, app: Router, stop: CancellationToken) {
    // Small answers must not wait for the acknowledgement of the one before.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection stays as slow as it was");
        }
    });
    if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await {
        tracing::error!(%error, "the listener ended");
    }
}

/// Where callers without a token may do something, a page that somebody looks at on this machine must not be one.
async fn from_no_page(request: Request, next: Next) -> Response {
    if request.headers().contains_key(header::ORIGIN) {
        return ApiError::foreign_page().into_response();
    }
    next.run(request).await
}

/// What no service here answers. A client that speaks gRPC reads this in a trailer, others in JSON.
async fn unserved(request: Request) -> Response {
    let grpc = is_grpc(request.headers());
    let error = ApiError::unserved(format!("{} {}", request.method(), request.uri().path()));
    if grpc { tonic::Status::from(error).into_http() } else { error.into_response() }
}

/// Starts the metadata servers that the configuration asks for, by service account.
async fn serve_identities(
    metadata: &Metadata,
    wanted: &[config::MetadataServer],
) -> Result<BTreeMap<String, MetadataServer>, CloudError> {
    let mut serving = BTreeMap::new();
    for server in wanted {
        let listen = server.listen.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
        let account = &server.service_account;
        let failed = io(format!("listen on {listen} with the metadata of {account}"));
        serving.insert(account.clone(), metadata.start_at(account, listen).await.map_err(failed)?);
    }
    Ok(serving)
}

fn notification(wanted: &config::Notification) -> storage::Notification {
    storage::Notification {
        topic: wanted.topic.clone(),
        event_types: wanted.event_types.clone(),
        payload: wanted.payload_format == PayloadFormat::JsonApiV1,
        configured: true,
        ..storage::Notification::default()
    }
}
