//! Identity tokens at the door: who is let in as whom, and every way to be nobody.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::{Client, StatusCode};
use ring::rsa::{KeyPair, PublicKeyComponents};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::task::JoinHandle;

use crate::world::{World, tenant};

const AUDIENCE: &str = "carrel.example";
const ISSUER: &str = "https://accounts.google.com";

/// An issuer on loopback. Its key was made for these tests and opens nothing.
struct Issuer {
    key: KeyPair,
    url: String,
    server: JoinHandle<()>,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

impl Issuer {
    async fn open() -> Self {
        let text: String = include_str!("identity/signer.pk8.base64").split_whitespace().collect();
        let key = KeyPair::from_pkcs8(&STANDARD.decode(text).expect("Base64")).expect("a key");
        let public = PublicKeyComponents::<Vec<u8>>::from(key.public());
        let keys = json!({ "keys": [{
            "kid": "k1", "kty": "RSA", "use": "sig", "alg": "RS256",
            "n": URL_SAFE_NO_PAD.encode(public.n), "e": URL_SAFE_NO_PAD.encode(public.e),
        }] })
        .to_string();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/certs", listener.local_addr().expect("its address"));
        let app = axum::Router::new().route("/certs", axum::routing::get(async move || keys));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.expect("it serves") });
        Self { key, url, server }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", part(header), part(claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        let random = ring::rand::SystemRandom::new();
        let signed = self.key.sign(&ring::signature::RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature);
        signed.expect("signed");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A token for an address, with `changes` laid over its claims.
    fn token(&self, email: &str, changes: Value) -> String {
        self.sign(&json!({ "alg": "RS256", "kid": "k1", "typ": "JWT" }), &claims(email, changes))
    }
}

fn claims(email: &str, changes: Value) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let mut claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "1", "iat": now, "exp": now + 3600, "email": email, "email_verified": true,
    });
    for (field, value) in changes.as_object().expect("an object") {
        claims[field] = value.clone();
    }
    claims
}

async fn ask(world: &World, path: &str, token: &str) -> StatusCode {
    let http = Client::builder().no_proxy().build().expect("a client");
    let call = http.get(format!("{}{path}", world.fleet.address().api)).bearer_auth(token);
    call.send().await.expect("answered").status()
}

const ACME: &str = "/v1/tenants/acme/reviews";
const BOLT: &str = "/v1/tenants/bolt/reviews";
const NOBODY: &str = "/v1/tenants/nobody/reviews";
const OPERATORS: &str = "/v1/campaigns";

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_token_acts_for_whom_the_registry_says_and_no_other_token_for_anybody() {
    let issuer = Issuer::open().await;
    let tenants = vec![
        tenant("acme", json!({ "emails": ["Ann@acme.example"] })),
        tenant("bolt", json!({ "emails": ["bob@bolt.example"] })),
    ];
    let world = World::start(tenants, |setup| {
        let settings = [("CARREL_OIDC_AUDIENCE", AUDIENCE), ("CARREL_OIDC_JWKS", &issuer.url)];
        setup.dispatcher.extend(settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
    })
    .await;

    let ann = issuer.token("ann@ACME.example", json!({}));
    for (path, status) in [(ACME, 200), (BOLT, 404), (NOBODY, 404), (OPERATORS, 403)] {
        assert_eq!(ask(&world, path, &ann).await.as_u16(), status, "{path}");
    }
    assert_eq!(ask(&world, BOLT, &issuer.token("bob@bolt.example", json!({}))).await, StatusCode::OK);
    // The registry's own keys go on.
    assert_eq!(ask(&world, ACME, &world.fleet.tokens()["acme"]).await, StatusCode::OK);

    let of = |changes: Value| issuer.token("ann@acme.example", changes);
    let (header, rest) = ann.split_once('.').expect("three parts");
    let (_, signature) = rest.split_once('.').expect("three parts");
    let forged = format!("{header}.{}.{signature}", part(&claims("bob@bolt.example", json!({}))));
    let unsigned = format!("{}.{}.", part(&json!({ "alg": "none" })), part(&claims("ann@acme.example", json!({}))));
    let with = |header: Value| issuer.sign(&header, &claims("ann@acme.example", json!({})));
    let strangers = [
        ("expired", of(json!({ "exp": 1_700_000_000 }))),
        ("without an end", of(json!({ "exp": null }))),
        ("not yet valid", of(json!({ "nbf": 4_000_000_000_u64 }))),
        ("for another audience", of(json!({ "aud": "another.example" }))),
        ("for no audience", of(json!({ "aud": null }))),
        ("of another issuer", of(json!({ "iss": "https://elsewhere.example" }))),
        ("not verified", of(json!({ "email_verified": false }))),
        ("without a word on it", of(json!({ "email_verified": null }))),
        ("of an unknown address", issuer.token("eve@elsewhere.example", json!({}))),
        ("without an address", of(json!({ "email": null }))),
        ("forged", forged),
        ("unsigned", unsigned),
        ("by another algorithm", with(json!({ "alg": "HS256", "kid": "k1" }))),
        ("by an unknown key", with(json!({ "alg": "RS256", "kid": "k2" }))),
        ("by no key", with(json!({ "alg": "RS256" }))),
    ];
    for (what, token) in strangers {
        for path in [ACME, BOLT, OPERATORS] {
            assert_eq!(ask(&world, path, &token).await, StatusCode::UNAUTHORIZED, "{what}: {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_hurries_is_told_to_wait_and_the_other_is_served() {
    let tenants = vec![tenant("acme", json!({})), tenant("bolt", json!({}))];
    let world = World::start(tenants, |setup| {
        setup.dispatcher.push(("CARREL_CALLS_PER_SECOND".to_owned(), "1".to_owned()));
    })
    .await;
    let http = Client::builder().no_proxy().build().expect("a client");
    let url = format!("{}{ACME}", world.fleet.address().api);
    // Ten may come at once; a hundred one after another take less than the ninety seconds that would let all pass.
    let mut refused = None;
    for _ in 0..100 {
        let answer = http.get(&url).bearer_auth(&world.fleet.tokens()["acme"]).send().await.expect("answered");
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            refused = Some(answer);
            break;
        }
        assert_eq!(answer.status(), StatusCode::OK);
    }
    let refused = refused.expect("it was told to wait");
    let pause: u64 = refused.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
    assert!((1..=2).contains(&pause), "{pause}");
    assert_eq!(ask(&world, BOLT, &world.fleet.tokens()["bolt"]).await, StatusCode::OK);
}
