//! Google's clients with one caller's token, and how tests wait: for a condition, never for a time.

use std::time::Duration;

use bytes::Bytes;
use google_cloud_auth::credentials::{CacheableResource, Credentials};
use google_cloud_gax::error::rpc::Code;
use google_cloud_gax::retry_policy::NeverRetry;
use google_cloud_pubsub::client::{Publisher, Subscriber, SubscriptionAdmin, TopicAdmin};
use google_cloud_pubsub::error::PublishError;
use google_cloud_pubsub::model::Message;
use google_cloud_pubsub::subscriber::MessageStream;
use google_cloud_pubsub::subscriber::handler::Handler;
use google_cloud_run_v2::client::{Executions, Jobs, Tasks};
use google_cloud_run_v2::model::Execution;
use google_cloud_run_v2::model::run_job_request::Overrides;
use google_cloud_storage::client::{Storage, StorageControl};
use http::{Extensions, HeaderMap};

use crate::bearer::Bearer;

/// Every client's error.
pub(crate) type Error = google_cloud_gax::error::Error;

/// The longest that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// Somebody with a token. Nothing is retried, so that a refusal is seen as it came.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) endpoint: String,
    credentials: Credentials,
}

macro_rules! client {
    ($name:ident, $client:ident) => {
        pub(crate) async fn $name(&self) -> $client {
            let builder = $client::builder().with_endpoint(&self.endpoint).with_retry_policy(NeverRetry);
            builder.with_credentials(self.credentials.clone()).build().await.expect("the client builds")
        }
    };
}

impl Caller {
    pub(crate) fn new(endpoint: &str, token: &str) -> Self {
        Self::with(endpoint, Bearer::credentials(token))
    }

    pub(crate) fn with(endpoint: &str, credentials: Credentials) -> Self {
        Self { endpoint: endpoint.to_owned(), credentials }
    }

    client!(storage, Storage);
    client!(control, StorageControl);
    client!(topics, TopicAdmin);
    client!(subscriptions, SubscriptionAdmin);
    client!(jobs, Jobs);
    client!(executions, Executions);
    client!(tasks, Tasks);

    /// What a client of this caller would send.
    pub(crate) async fn headers(&self) -> HeaderMap {
        match self.credentials.headers(Extensions::new()).await.expect("they are there") {
            CacheableResource::New { data, .. } => data,
            CacheableResource::NotModified => HeaderMap::new(),
        }
    }

    /// A publisher that sends each message by itself.
    pub(crate) async fn publisher(&self, topic: &str) -> Publisher {
        let builder = Publisher::builder(topic).with_endpoint(&self.endpoint).with_retry_policy(NeverRetry);
        let builder = builder.with_credentials(self.credentials.clone()).set_message_count_threshold(1);
        builder.build().await.expect("the client builds")
    }

    pub(crate) async fn subscriber(&self) -> Subscriber {
        let builder = Subscriber::builder().with_endpoint(&self.endpoint);
        builder.with_credentials(self.credentials.clone()).build().await.expect("the client builds")
    }

    /// An open stream with the client's own settings.
    pub(crate) async fn inbox(&self, subscription: &str) -> Inbox {
        Inbox(self.subscriber().await.subscribe(subscription).build())
    }

    /// Launches a job; the execution as the answer names it.
    pub(crate) async fn launch(&self, job: &str, overrides: Overrides) -> Result<Execution, Error> {
        let operation = self.jobs().await.run_job().set_name(job).set_overrides(overrides).send().await?;
        Ok(operation.metadata.expect("the operation names the execution").to_msg().expect("it is one"))
    }

    /// The execution once `done` holds of it.
    pub(crate) async fn execution(&self, name: &str, done: impl Fn(&Execution) -> bool) -> Execution {
        let executions = self.executions().await;
        eventually(name, async || {
            let execution = executions.get_execution().set_name(name).send().await.expect("it exists");
            done(&execution).then_some(execution)
        })
        .await
    }

    /// The execution once it is over.
    pub(crate) async fn completed(&self, name: &str) -> Execution {
        self.execution(name, |execution| execution.completion_time.is_some()).await
    }
}

/// An open stream of messages.
pub(crate) struct Inbox(pub(crate) MessageStream);

impl Inbox {
    /// The next message.
    pub(crate) async fn next(&mut self) -> (Message, Handler) {
        self.heard().await.expect("the stream goes on")
    }

    /// The next message or the end of the stream.
    pub(crate) async fn heard(&mut self) -> Result<(Message, Handler), Error> {
        let heard = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("a message comes in time");
        heard.expect("the stream is open")
    }

    /// The next message's text, acknowledged.
    pub(crate) async fn text(&mut self) -> String {
        let (message, handler) = self.next().await;
        handler.ack();
        text(&message)
    }

    /// Ends once what was acknowledged is known to the service.
    pub(crate) async fn close(self) {
        self.0.shutdown_token().shutdown().await;
    }
}

/// A message's body.
pub(crate) fn text(message: &Message) -> String {
    String::from_utf8(message.data.to_vec()).expect("it is text")
}

/// A message with this body.
pub(crate) fn message(text: impl Into<String>) -> Message {
    Message::new().set_data(Bytes::from(text.into()))
}

/// The HTTP status of an error, or what it would be for its canonical code.
pub(crate) fn status(error: &Error) -> u16 {
    let of_code = |code: Code| match code {
        Code::InvalidArgument | Code::FailedPrecondition => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists => 409,
        Code::ResourceExhausted => 429,
        Code::Unavailable => 503,
        other => panic!("{other:?} is no answer that a test expects: {error}"),
    };
    let http = error.http_status_code();
    http.or_else(|| error.status().map(|status| of_code(status.code))).unwrap_or_else(|| panic!("no answer: {error}"))
}

/// The same for a publish.
pub(crate) fn publish_status(error: &PublishError) -> u16 {
    match error {
        PublishError::Rpc(error) => status(error),
        other => panic!("no answer: {other}"),
    }
}

/// Neither running nor about to: what nobody waited for keeps its number.
pub(crate) fn has_ended(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, fields)| fields.trim_start().starts_with('Z'))
}

/// Looks again and again until there is something to see.
pub(crate) async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    within(PATIENCE, what, look).await
}

/// The same, for so long.
pub(crate) async fn within<T>(patience: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            // Neither files nor processes nor an API call back; the pause leaves them the machine.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(patience, looking).await.unwrap_or_else(|_| panic!("{what} did not come to that in time"))
}
