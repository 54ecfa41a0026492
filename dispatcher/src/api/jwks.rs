//! The keys that sign identity tokens, fetched from where their issuer publishes them.
//!
//! Keys are kept as long as the answer says and fetched again when a token names one that is not known: issuers change
//! keys before they use them. Tokens cost their senders nothing, so however many unknown keys are named, one look at a time
//! leaves this process, and after each that was answered or failed none for [`LOOK_AT_MOST_EVERY`]. While the issuer does not answer, what is known serves on for
//! [`SERVES_ON`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jsonwebtoken::DecodingKey;
use reqwest::header::CACHE_CONTROL;
use serde::Deserialize;
use tokio::sync::Mutex;

/// Between two fetches, whatever is asked for.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_secs(30);
/// How long keys serve when the answer does not say, and the bounds of what it may say.
const KEPT: Duration = Duration::from_secs(60 * 60);
const KEPT_AT_LEAST: Duration = Duration::from_secs(60);
const KEPT_AT_MOST: Duration = Duration::from_secs(24 * 60 * 60);
/// How long keys that should have been fetched again serve on.
const SERVES_ON: Duration = Duration::from_secs(60 * 60);
/// An issuer that has not answered by then does not.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Google's answer has some 2 KiB.
const MAX_BYTES: usize = 256 << 10;

/// Why keys could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum JwksError {
    #[error("fetch the keys of identity tokens")]
    Fetch(#[from] reqwest::Error),
    #[error("fetch the keys of identity tokens: the answer is longer than {MAX_BYTES} bytes")]
    TooLong,
    #[error("read the keys of identity tokens")]
    Parse(#[from] serde_json::Error),
    #[error("the keys of identity tokens could not be fetched a moment ago")]
    Away,
}

#[derive(Deserialize)]
struct Published {
    keys: Vec<Key>,
}

/// A key of any kind; what is no RSA key for signatures is left out.
#[derive(Deserialize)]
struct Key {
    kid: Option<String>,
    kty: String,
    #[serde(rename = "use")]
    used_for: Option<String>,
    alg: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

#[derive(Default)]
struct Held {
    keys: BTreeMap<String, DecodingKey>,
    fresh_until: Option<Instant>,
    looked_at: Option<Instant>,
}

/// The keys of one issuer.
pub(super) struct Jwks {
    url: String,
    http: reqwest::Client,
    held: Mutex<Held>,
}

impl Jwks {
    pub(super) fn new(url: &str) -> reqwest::Result<Self> {
        carrel_cloud::install_crypto();
        let none = reqwest::redirect::Policy::none();
        let http = reqwest::Client::builder().timeout(ANSWER_WITHIN).redirect(none).build()?;
        Ok(Self { url: url.to_owned(), http, held: Mutex::default() })
    }

    /// The key of this name, if its issuer has published one. Whoever comes while keys are fetched waits for the same
    /// answer.
    pub(super) async fn key(&self, kid: &str, now: Instant) -> Result<Option<DecodingKey>, JwksError> {
        let mut held = self.held.lock().await;
        let is_fresh = held.fresh_until.is_some_and(|until| now < until);
        if is_fresh && let Some(key) = held.keys.get(kid) {
            return Ok(Some(key.clone()));
        }
        let may_look = held.looked_at.is_none_or(|at| now.duration_since(at) >= LOOK_AT_MOST_EVERY);
        if may_look {
            let fetched = self.fetch().await;
            // Only now: a caller that hangs up takes its fetch with it, and must not leave the next without one.
            held.looked_at = Some(now);
            match fetched {
                Ok((keys, kept)) => {
                    held.keys = keys;
                    held.fresh_until = Some(now + kept);
                }
                Err(error) if held.serves(now) => {
                    tracing::warn!(error = crate::chain(&error), "the known keys serve on");
                }
                Err(error) => {
                    held.keys.clear();
                    return Err(error);
                }
            }
        }
        // Without keys nobody can be judged, and nobody is called a stranger.
        if held.serves(now) { Ok(held.keys.get(kid).cloned()) } else { Err(JwksError::Away) }
    }

    async fn fetch(&self) -> Result<(BTreeMap<String, DecodingKey>, Duration), JwksError> {
        let mut answer = self.http.get(&self.url).send().await?.error_for_status()?;
        let kept = answer.headers().get(CACHE_CONTROL).and_then(|value| max_age(value.to_str().ok()?));
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_BYTES {
                return Err(JwksError::TooLong);
            }
        }
        let published: Published = serde_json::from_slice(&bytes)?;
        let keys = published.keys.into_iter().filter_map(Key::usable).collect();
        Ok((keys, kept.unwrap_or(KEPT).clamp(KEPT_AT_LEAST, KEPT_AT_MOST)))
    }
}

impl Held {
    fn serves(&self, now: Instant) -> bool {
        self.fresh_until.is_some_and(|until| now < until + SERVES_ON)
    }
}

impl Key {
    fn usable(self) -> Option<(String, DecodingKey)> {
        let is_for_signatures = self.used_for.is_none_or(|used| used == "sig");
        let is_rs256 = self.kty == "RSA" && self.alg.is_none_or(|alg| alg == "RS256");
        let key = DecodingKey::from_rsa_components(&self.n?, &self.e?).ok()?;
        (is_for_signatures && is_rs256).then_some((self.kid?, key))
    }
}

fn max_age(cache_control: &str) -> Option<Duration> {
    let seconds = cache_control.split(',').find_map(|part| part.trim().strip_prefix("max-age="))?;
    seconds.parse().ok().map(Duration::from_secs)
}

impl std::fmt::Debug for Jwks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jwks").field("url", &self.url).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A key as an issuer publishes it; that its numbers are no key matters to nobody here.
    fn published(kid: &str) -> String {
        serde_json::json!({ "keys": [
            { "kid": kid, "kty": "RSA", "use": "sig", "alg": "RS256", "n": "AQAB", "e": "AQAB" },
            { "kid": "elliptic", "kty": "EC", "crv": "P-256", "x": "AQAB", "y": "AQAB" },
        ] })
        .to_string()
    }

    #[tokio::test]
    async fn a_new_key_is_found_however_many_unknown_ones_are_named_and_an_issuer_may_be_away_for_a_while() {
        let said = Arc::new(std::sync::Mutex::new((0, Some(published("old")))));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/keys", listener.local_addr().expect("its address"));
        let told = said.clone();
        let answer = move || async move {
            let mut said = told.lock().expect("unpoisoned");
            said.0 += 1;
            let text = said.1.clone().ok_or(axum::http::StatusCode::SERVICE_UNAVAILABLE)?;
            Ok::<_, axum::http::StatusCode>(([(CACHE_CONTROL, "max-age=600")], text))
        };
        let app = axum::Router::new().route("/keys", axum::routing::get(answer));
        let server = tokio::spawn(async move { axum::serve(listener, app).await });
        let looks = || said.lock().expect("unpoisoned").0;
        let publish = |text: Option<String>| said.lock().expect("unpoisoned").1 = text;

        let (jwks, start) = (Jwks::new(&url).expect("a client"), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let knows = async |kid: &str, seconds| jwks.key(kid, at(seconds)).await.map(|key| key.is_some());
        assert!(knows("old", 0).await.expect("answered") && !knows("elliptic", 1).await.expect("answered"));
        publish(Some(published("new")));
        for second in 1..30 {
            assert!(!knows("new", second).await.expect("answered"));
        }
        assert_eq!(looks(), 1, "unknown keys make it look again only after a while");
        assert!(knows("new", 30).await.expect("answered") && !knows("old", 61).await.expect("answered"));
        assert_eq!(looks(), 3);
        publish(None);
        // Fetched last at 61 s and kept for 600: it is looked for again, in vain, and serves on for an hour.
        assert!(knows("new", 660).await.expect("answered"));
        assert_eq!(looks(), 3);
        assert!(knows("new", 700).await.expect("answered") && looks() == 4);
        for second in [0, 1] {
            assert!(knows("new", 661 + 3600 + second).await.is_err(), "then nobody can be judged");
        }
        publish(Some(published("back")));
        {
            // Dropped before it is answered, as that of a caller who hangs up.
            let hung_up = jwks.key("back", at(9000));
            assert!(futures::FutureExt::now_or_never(hung_up).is_none());
        }
        assert!(knows("back", 9000).await.expect("answered"), "it left the next caller its fetch");
        server.abort();
    }

    #[test]
    fn an_answer_says_how_long_its_keys_are_kept() {
        assert_eq!(max_age("public, max-age=21600, must-revalidate"), Some(Duration::from_secs(21_600)));
        assert_eq!(max_age("no-store"), None);
        assert_eq!(max_age("max-age=soon"), None);
    }
}
