//! Who asks: a bearer token whose SHA-256 stands in the registry, for one tenant or for operators.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use carrel_schemas::ids::TenantId;
use carrel_schemas::registry::{Registry, Tenant};
use sha2::{Digest as _, Sha256};

use super::Refused;

/// Whom a token acts for.
enum Caller<'a> {
    Operator,
    Tenant(&'a Tenant),
}

/// Hashes are compared, not tokens, so the time this takes tells nothing about a token.
fn caller<'a>(registry: &'a Registry, headers: &HeaderMap) -> Result<Caller<'a>, Refused> {
    let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = value.and_then(|value| value.strip_prefix("Bearer ")).ok_or(Refused::Stranger)?;
    let hash = hex::encode(Sha256::digest(token));
    if registry.operator_token_sha256().contains(&hash) {
        return Ok(Caller::Operator);
    }
    registry.by_token_sha256(&hash).map(Caller::Tenant).ok_or(Refused::Stranger)
}

/// What the caller is counted under.
pub(super) fn name(registry: &Registry, headers: &HeaderMap) -> Result<String, Refused> {
    Ok(match caller(registry, headers)? {
        Caller::Operator => "operator".to_owned(),
        Caller::Tenant(own) => format!("tenant:{}", own.id),
    })
}

/// The tenant named in the path, if the caller may act for it. A tenant is told the same of another as of none.
pub(super) fn tenant<'a>(registry: &'a Registry, headers: &HeaderMap, id: &str) -> Result<&'a Tenant, Refused> {
    let named = match caller(registry, headers)? {
        Caller::Operator => TenantId::parse(id).ok().and_then(|id| registry.tenant(&id)),
        Caller::Tenant(own) => Some(own).filter(|own| own.id.as_str() == id),
    };
    named.ok_or(Refused::NotFound("tenant"))
}

/// Lets operators pass.
pub(super) fn operator(registry: &Registry, headers: &HeaderMap) -> Result<(), Refused> {
    match caller(registry, headers)? {
        Caller::Operator => Ok(()),
        Caller::Tenant(_) => Err(Refused::Forbidden),
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

    fn ask(token: Option<&str>, id: &str) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().expect("a header value"));
        }
        tenant(&registry(), &headers, id).map(|tenant| tenant.id.to_string()).map_err(|refused| format!("{refused:?}"))
    }

    #[test]
    fn a_token_acts_for_its_own_tenant_and_learns_nothing_of_others() {
        assert_eq!(ask(Some("acme-token"), "acme").as_deref(), Ok("acme"));
        assert_eq!(ask(Some("operator"), "bolt").as_deref(), Ok("bolt"));
        let existing = ask(Some("acme-token"), "bolt");
        assert_eq!(existing, ask(Some("acme-token"), "nobody"));
        assert!(existing.is_err());
        for stranger in [None, Some(""), Some("acme-token2")] {
            assert_eq!(ask(stranger, "acme"), Err("Stranger".to_owned()));
            assert_eq!(ask(stranger, "nobody"), Err("Stranger".to_owned()));
        }
    }
}
