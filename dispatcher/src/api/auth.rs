//! Who calls: an API key whose SHA-256 stands in the registry, or an identity token whose e-mail address does.
//!
//! One layer finds out, once for each call, and lets nobody call faster than the configured pace; handlers take a
//! [`Caller`] and ask it for what they need. A call without one is refused there, so the open calls need no exception
//! here; it costs next to nothing however often it is made, so nobody else's pace is spent on it. Keys are 32 random
//! bytes, not passwords: a plain hash is enough to keep them by.

use axum::extract::{FromRequestParts, Request, State as Extract};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use carrel_schemas::ids::TenantId;
use carrel_schemas::registry::{Holder, Registry, Tenant};
use governor::clock::Clock as _;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::identity::Identities;
use super::{Refused, State};
use crate::config::Pace;

/// Whom a credential acts for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    /// For every tenant; by which key or address.
    Operator(String),
    /// For one.
    Tenant(TenantId),
}

/// How fast each caller may call.
#[derive(Debug)]
pub struct Paces(DefaultKeyedRateLimiter<String>);

impl Paces {
    /// So many calls a second for each, and ten times as many at once.
    pub fn new(pace: Pace) -> Self {
        Self(RateLimiter::hashmap(Quota::per_second(pace).allow_burst(pace.saturating_mul(BURST))))
    }

    fn pass(&self, caller: &Caller) -> Result<(), Refused> {
        let wait = self.0.check_key(&caller.name()).map_err(|not| not.wait_time_from(self.0.clock().now()));
        wait.map_err(Refused::TooMany)
    }
}

/// Seconds' worth of calls that may come at once.
const BURST: std::num::NonZeroU32 = std::num::NonZeroU32::new(10).expect("ten is not zero");

/// Finds out who calls. Whoever cannot be judged now is told so rather than called a stranger.
pub(super) async fn known(Extract(state): Extract<State>, mut request: Request, next: Next) -> Response {
    match caller(&state.0.registry, state.0.identities.as_ref(), request.headers()).await {
        Ok(caller) => {
            if let Err(refused) = state.0.paces.pass(&caller) {
                return refused.into_response();
            }
            request.extensions_mut().insert(caller);
        }
        Err(Refused::Stranger) => {}
        Err(refused) => return refused.into_response(),
    }
    next.run(request).await
}

impl FromRequestParts<State> for Caller {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &State) -> Result<Self, Refused> {
        parts.extensions.get::<Self>().cloned().ok_or(Refused::Stranger)
    }
}

async fn caller(registry: &Registry, identities: Option<&Identities>, headers: &HeaderMap) -> Result<Caller, Refused> {
    let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = value.and_then(|value| value.strip_prefix("Bearer ")).ok_or(Refused::Stranger)?;
    let is_jwt = token.split('.').count() == 3;
    if let Some(identities) = identities.filter(|_| is_jwt) {
        let email = identities.email(token).await?;
        return registry.by_email(&email).map(|holder| Caller::of(holder, &email)).ok_or(Refused::Stranger);
    }
    let hash = hex::encode(Sha256::digest(token));
    holder(registry, &hash).map(|holder| Caller::of(holder, &hash[..12])).ok_or(Refused::Stranger)
}

/// Looks at every key, and at all of each, so that the time this takes tells nothing.
fn holder<'a>(registry: &'a Registry, hash: &str) -> Option<Holder<'a>> {
    registry.token_hashes().fold(None, |found, (held, holder)| {
        if bool::from(held.as_bytes().ct_eq(hash.as_bytes())) { Some(holder) } else { found }
    })
}

impl Caller {
    fn of(holder: Holder<'_>, by: &str) -> Self {
        match holder {
            Holder::Operators => Self::Operator(by.to_owned()),
            Holder::Tenant(id) => Self::Tenant(id.clone()),
        }
    }

    /// What it is counted under. A tenant has one pace, however many keys it has.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Operator(by) => format!("operator:{by}"),
            Self::Tenant(id) => format!("tenant:{id}"),
        }
    }

    /// The tenant named in the path, if the caller may act for it. A tenant is told the same of another as of none.
    pub(super) fn tenant<'a>(&self, registry: &'a Registry, id: &str) -> Result<&'a Tenant, Refused> {
        let named = match self {
            Self::Operator(_) => TenantId::parse(id).ok().and_then(|id| registry.tenant(&id)),
            Self::Tenant(own) => registry.tenant(own).filter(|own| own.id.as_str() == id),
        };
        named.ok_or(Refused::NotFound("tenant"))
    }

    /// Lets operators pass.
    pub(super) fn operator(&self) -> Result<(), Refused> {
        match self {
            Self::Operator(_) => Ok(()),
            Self::Tenant(_) => Err(Refused::Forbidden),
        }
    }
}

#[cfg(test)]
mod tests {
    use carrel_schemas::registry::RegistryFile;

    use super::*;

    fn registry() -> Registry {
        let hash = |token: &str| hex::encode(Sha256::digest(token));
        let tenant = |id: &str| {
            serde_json::json!({
                "id": id, "uploads_bucket": format!("{id}-uploads"), "outputs_bucket": format!("{id}-outputs"),
                "service_account": format!("{id}@p.iam.gserviceaccount.com"),
                "job": format!("projects/p/locations/l/jobs/review-{id}"),
                "token_sha256": [hash(&format!("{id}-token"))],
            })
        };
        let file: RegistryFile = serde_json::from_value(serde_json::json!({
            "schema": 1, "operator_token_sha256": [hash("operator")], "tenants": [tenant("acme"), tenant("bolt")],
        }))
        .expect("well formed");
        Registry::check(file).expect("sound")
    }

    async fn ask(token: Option<&str>, id: &str) -> Result<String, String> {
        let (registry, mut headers) = (registry(), HeaderMap::new());
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().expect("a header value"));
        }
        let caller = caller(&registry, None, &headers).await.map_err(|refused| format!("{refused:?}"))?;
        let tenant = caller.tenant(&registry, id).map_err(|refused| format!("{refused:?}"))?;
        Ok(tenant.id.to_string())
    }

    #[tokio::test]
    async fn a_token_acts_for_its_own_tenant_and_learns_nothing_of_others() {
        assert_eq!(ask(Some("acme-token"), "acme").await.as_deref(), Ok("acme"));
        assert_eq!(ask(Some("operator"), "bolt").await.as_deref(), Ok("bolt"));
        let existing = ask(Some("acme-token"), "bolt").await;
        assert_eq!(existing, ask(Some("acme-token"), "nobody").await);
        assert!(existing.is_err());
        for stranger in [None, Some(""), Some("acme-token2")] {
            assert_eq!(ask(stranger, "acme").await, Err("Stranger".to_owned()));
            assert_eq!(ask(stranger, "nobody").await, Err("Stranger".to_owned()));
        }
    }

    #[test]
    fn a_caller_that_hurries_is_told_when_to_come_back_and_delays_nobody_else() {
        let paces = Paces::new(Pace::new(1).expect("one"));
        let of = |id: &str| Caller::Tenant(TenantId::parse(id).expect("an id"));
        let passed = (0..20).take_while(|_| paces.pass(&of("acme")).is_ok()).count();
        assert!((10..20).contains(&passed), "{passed}");
        let refused = paces.pass(&of("acme"));
        assert!(matches!(refused, Err(Refused::TooMany(wait)) if wait.as_millis() <= 1000), "{refused:?}");
        paces.pass(&of("bolt")).expect("its own pace");
    }
}
