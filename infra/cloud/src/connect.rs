//! Endpoints, credentials and retries, decided in one place. A program builds only the clients it asks for.

use std::sync::Once;
use std::time::Duration;

use google_cloud_auth::credentials::{CacheableResource, Credentials, CredentialsProvider, EntityTag};
use google_cloud_auth::errors::CredentialsError;
use google_cloud_gax::exponential_backoff::{ExponentialBackoff, ExponentialBackoffBuilder};
use google_cloud_gax::retry_policy::{Aip194Strict, RetryPolicyExt as _};
use google_cloud_pubsub::client::{Publisher, Subscriber};
use google_cloud_run_v2::client::{Executions, Jobs as JobsClient};
use google_cloud_storage::client::{Storage, StorageControl};
use google_cloud_storage::retry_policy::RetryableErrors;
use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap, HeaderValue};

use crate::{Call, Jobs, Objects, Subscription, Topic};

/// How long a call that may be repeated is repeated.
const RETRY_FOR: Duration = Duration::from_secs(60);
/// How long one answer is waited for, repeated calls included.
const ANSWER_WITHIN: Duration = Duration::from_secs(90);

/// Where the services answer; `None` is Google's own address.
#[derive(Debug, Clone, Default)]
pub struct Endpoints {
    /// Cloud Storage, JSON and gRPC: `http://127.0.0.1:8080`.
    pub storage: Option<String>,
    /// Pub/Sub, gRPC.
    pub pubsub: Option<String>,
    /// Cloud Run Admin.
    pub run: Option<String>,
}

/// Builds clients that share one set of credentials.
#[derive(Debug, Clone)]
pub struct Connector {
    endpoints: Endpoints,
    credentials: Credentials,
    answer_within: Duration,
}

/// Why a client could not be built.
#[derive(Debug, thiserror::Error)]
#[error("connect to {service}")]
pub struct ConnectError {
    /// Which service.
    pub service: &'static str,
    /// What the client library said.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

fn failed<E>(service: &'static str) -> impl FnOnce(E) -> ConnectError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    move |source| ConnectError { service, source: source.into() }
}

fn backoff() -> Result<ExponentialBackoff, ConnectError> {
    ExponentialBackoffBuilder::new()
        .with_initial_delay(Duration::from_millis(50))
        .with_maximum_delay(Duration::from_secs(5))
        .build()
        .map_err(failed("retry policy"))
}

impl Connector {
    /// Application-default credentials: on Google and on the loopback cloud alike, the metadata server's.
    pub fn application_default(endpoints: Endpoints) -> Result<Self, ConnectError> {
        install_crypto();
        let credentials = google_cloud_auth::credentials::Builder::default()
            .with_scopes(["https://www.googleapis.com/auth/cloud-platform"])
            .build()
            .map_err(failed("application-default credentials"))?;
        Ok(Self { endpoints, credentials, answer_within: ANSWER_WITHIN })
    }

    /// A bearer token that the caller brings, such as an operator's on the loopback cloud.
    pub fn with_token(endpoints: Endpoints, token: &str) -> Self {
        install_crypto();
        Self { endpoints, credentials: Token(token.to_owned()).into(), answer_within: ANSWER_WITHIN }
    }

    /// Waits no longer than this for one answer; 90 s if nothing is said.
    pub fn answer_within(self, limit: Duration) -> Self {
        Self { answer_within: limit, ..self }
    }

    /// Cloud Storage.
    pub fn objects<'a>(&'a self) -> Call<'a, Result<Objects, ConnectError>> {
        Box::pin(async move {
            let mut data = Storage::builder()
                .with_credentials(self.credentials.clone())
                .with_retry_policy(RetryableErrors.with_time_limit(RETRY_FOR))
                .with_backoff_policy(backoff()?);
            let mut control = StorageControl::builder()
                .with_credentials(self.credentials.clone())
                .with_retry_policy(RetryableErrors.with_time_limit(RETRY_FOR))
                .with_backoff_policy(backoff()?);
            if let Some(endpoint) = &self.endpoints.storage {
                data = data.with_endpoint(endpoint);
                control = control.with_endpoint(endpoint);
            }
            let data = data.build().await.map_err(failed("Cloud Storage"))?;
            let control = control.build().await.map_err(failed("Cloud Storage control"))?;
            Ok(Objects::new(data, control, self.answer_within))
        })
    }

    /// A publisher for one topic, `projects/P/topics/T`.
    pub fn topic<'a>(&'a self, name: &'a str) -> Call<'a, Result<Topic, ConnectError>> {
        Box::pin(async move {
            // One message at a time is waited for, so a batch that lingers is only latency.
            let mut builder = Publisher::builder(name)
                .with_credentials(self.credentials.clone())
                .set_delay_threshold(Duration::from_millis(1));
            if let Some(endpoint) = &self.endpoints.pubsub {
                builder = builder.with_endpoint(endpoint);
            }
            let publisher = builder.build().await.map_err(failed("Pub/Sub publisher"))?;
            Ok(Topic::new(name, publisher, self.answer_within))
        })
    }

    /// A subscription, `projects/P/subscriptions/S`, of which at most `outstanding` messages are in hand at once.
    pub fn subscription<'a>(&'a self, name: &'a str, outstanding: u32) -> Call<'a, Result<Subscription, ConnectError>> {
        Box::pin(async move {
            let mut builder = Subscriber::builder().with_credentials(self.credentials.clone());
            if let Some(endpoint) = &self.endpoints.pubsub {
                builder = builder.with_endpoint(endpoint);
            }
            let client = builder.build().await.map_err(failed("Pub/Sub subscriber"))?;
            Ok(Subscription::new(client, name, outstanding))
        })
    }

    /// Cloud Run Jobs.
    pub fn jobs<'a>(&'a self) -> Call<'a, Result<Jobs, ConnectError>> {
        Box::pin(async move {
            // A launch is not idempotent, so nothing repeats it; looking at executions may be repeated.
            let mut jobs = JobsClient::builder().with_credentials(self.credentials.clone());
            let mut executions = Executions::builder()
                .with_credentials(self.credentials.clone())
                .with_retry_policy(Aip194Strict.with_time_limit(RETRY_FOR))
                .with_backoff_policy(backoff()?);
            if let Some(endpoint) = &self.endpoints.run {
                jobs = jobs.with_endpoint(endpoint);
                executions = executions.with_endpoint(endpoint);
            }
            let jobs = jobs.build().await.map_err(failed("Cloud Run"))?;
            let executions = executions.build().await.map_err(failed("Cloud Run executions"))?;
            Ok(Jobs::new(jobs, executions, self.answer_within))
        })
    }
}

/// Sends one token as it is, until the end.
#[derive(Debug)]
struct Token(String);

impl CredentialsProvider for Token {
    async fn headers(&self, _: Extensions) -> Result<CacheableResource<HeaderMap>, CredentialsError> {
        let value = HeaderValue::from_str(&format!("Bearer {}", self.0))
            .map_err(|error| CredentialsError::from_source(false, error))?;
        let data = HeaderMap::from_iter([(AUTHORIZATION, value)]);
        Ok(CacheableResource::New { entity_tag: EntityTag::new(), data })
    }

    async fn universe_domain(&self) -> Option<String> {
        None
    }
}

/// Installs ring for the whole process, once: the clients are built without a default crypto provider. Every
/// [`Connector`] calls it; so must whoever builds an HTTP client before there is one.
pub fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("the process has chosen a crypto provider already");
        }
    });
}
