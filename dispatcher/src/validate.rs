//! A received message becomes something the fleet acts on, something it may forget, or a dead letter. Pure.

use std::collections::BTreeMap;

use carrel_schemas::cloud_event::EventContext;
use carrel_schemas::dead_letter::DeadLetterClass;
use carrel_schemas::ids::{ObjectRef, PackId};
use carrel_schemas::layout::{self, UploadKind};
use carrel_schemas::registry::{PackPolicy, Registry, Tenant};
use carrel_schemas::review_request::{REVIEW_REQUESTED, ReviewRequested};
use carrel_schemas::upload_event::Notification;

/// A message's judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<T> {
    /// Act on it.
    Accepted(T),
    /// Known and of no consequence; the reason is for the log.
    Discard(&'static str),
    /// File it.
    Refused(Refusal),
}

/// Why a message is filed, and whose it was if that can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of refusal.
    pub class: DeadLetterClass,
    /// The tenant, where the registry knows one.
    pub tenant: Option<carrel_schemas::ids::TenantId>,
    /// What was wrong and what to do next.
    pub reason: String,
}

/// A file or marker of a known tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Its tenant.
    pub tenant: Tenant,
    /// Its pack.
    pub pack: PackId,
    /// How it counts there.
    pub kind: UploadKind,
    /// The version that was finalized.
    pub object: ObjectRef,
}

fn refused<T>(class: DeadLetterClass, reason: impl Into<String>) -> Verdict<T> {
    Verdict::Refused(Refusal { class, tenant: None, reason: reason.into() })
}

/// Judges a message of topic `uploads`.
pub fn upload(registry: &Registry, attributes: &BTreeMap<String, String>, payload: &[u8]) -> Verdict<Upload> {
    let event = match Notification::parse(attributes, payload) {
        Ok(Notification::Finalized(event)) => event,
        Ok(Notification::OtherEvent(_)) => return Verdict::Discard("not a finalized object"),
        Err(error) => return refused(DeadLetterClass::Malformed, format!("upload notification: {error}")),
    };
    let Some(tenant) = registry.by_uploads_bucket(&event.object.bucket) else {
        let bucket = &event.object.bucket;
        let reason =
            format!("no tenant has uploads bucket {bucket}; add it to the registry or remove its notification");
        return refused(DeadLetterClass::UnknownTenant, reason);
    };
    if tenant.deleting {
        // It lies in the bucket, as all that the tenant had; should the tenant stay after all, the sweep finds it.
        return Verdict::Discard("its tenant is being deleted");
    }
    let (folder, kind) = layout::classify(&event.object.name);
    if kind == UploadKind::Ignored {
        return Verdict::Discard("a placeholder or reserved name");
    }
    let pack = match tenant.policy {
        PackPolicy::Each if kind != UploadKind::File => {
            return Verdict::Discard("no markers where every object is a pack");
        }
        PackPolicy::Each => PackId::parse(event.object.name.as_str()).expect("an object name is a pack id"),
        PackPolicy::Marker { .. } | PackPolicy::Quiet { .. } => folder,
    };
    Verdict::Accepted(Upload { tenant: tenant.clone(), pack, kind, object: event.object })
}

/// Judges a message of topic `review-requests`.
pub fn request(
    registry: &Registry,
    attributes: &BTreeMap<String, String>,
    payload: &[u8],
) -> Verdict<(Tenant, ReviewRequested)> {
    if let Err(error) = EventContext::parse(attributes, REVIEW_REQUESTED) {
        return refused(DeadLetterClass::Malformed, format!("review request: {error}"));
    }
    let request: ReviewRequested = match serde_json::from_slice(payload) {
        Ok(request) => request,
        Err(error) => return refused(DeadLetterClass::Malformed, format!("review request: {error}")),
    };
    let Some(tenant) = registry.tenant(&request.tenant) else {
        return refused(DeadLetterClass::UnknownTenant, format!("review request: no tenant {}", request.tenant));
    };
    if tenant.deleting {
        // Filed as nobody's: what is filed as the tenant's own is about to be removed.
        let reason = format!("review request: tenant {} is being deleted, and nothing of it is taken in", tenant.id);
        return refused(DeadLetterClass::UnknownTenant, reason);
    }
    match &request.bucket {
        Some(bucket) if *bucket != tenant.uploads_bucket => Verdict::Refused(Refusal {
            class: DeadLetterClass::Forbidden,
            tenant: Some(tenant.id.clone()),
            reason: format!("review request: bucket {bucket} is not the uploads bucket of tenant {}", tenant.id),
        }),
        _ => Verdict::Accepted((tenant.clone(), request)),
    }
}

#[cfg(test)]
mod tests {
    use carrel_schemas::registry::RegistryFile;

    use super::*;

    fn registry(close: &str) -> Registry {
        let file: RegistryFile = serde_json::from_value(serde_json::json!({
            "schema": 1,
            "tenants": [{
                "id": "acme", "uploads_bucket": "acme-uploads", "outputs_bucket": "acme-outputs",
                "service_account": "acme@p.iam.gserviceaccount.com", "job": "projects/p/locations/l/jobs/review-acme",
                "policy": { "close": close },
            }],
        }))
        .expect("well formed");
        Registry::check(file).expect("sound")
    }

    fn notification(bucket: &str, object: &str) -> BTreeMap<String, String> {
        [
            ("eventType", "OBJECT_FINALIZE"),
            ("payloadFormat", "NONE"),
            ("bucketId", bucket),
            ("objectId", object),
            ("objectGeneration", "7"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into()
    }

    fn pack_of(close: &str, object: &str) -> Option<String> {
        match upload(&registry(close), &notification("acme-uploads", object), b"") {
            Verdict::Accepted(upload) => Some(upload.pack.to_string()),
            _ => None,
        }
    }

    #[test]
    fn the_tenant_is_taken_from_the_bucket_and_nothing_else() {
        let mut attributes = notification("acme-uploads", "q3/a.csv");
        attributes.insert("tenant".into(), "bolt".into());
        let Verdict::Accepted(upload) = upload(&registry("marker"), &attributes, b"") else { panic!("accepted") };
        assert_eq!(upload.tenant.id.as_str(), "acme");
    }

    #[test]
    fn an_unknown_bucket_is_filed_with_the_next_step() {
        let Verdict::Refused(refusal) = upload(&registry("marker"), &notification("nobodys", "a.csv"), b"") else {
            panic!("refused")
        };
        assert_eq!(refusal.class, DeadLetterClass::UnknownTenant);
        assert!(refusal.reason.contains("nobodys") && refusal.reason.contains("registry"), "{}", refusal.reason);
    }

    #[test]
    fn names_that_look_like_paths_are_names() {
        assert_eq!(pack_of("marker", "../../etc/passwd").as_deref(), Some(".."));
        assert_eq!(pack_of("marker", "a//b").as_deref(), Some("a"));
        assert_eq!(pack_of("marker", "q3/\u{202e}vsc.exe").as_deref(), Some("q3"));
        assert_eq!(pack_of("each", "a//b").as_deref(), Some("a//b"));
        assert_eq!(pack_of("marker", "q3/"), None);
    }

    #[test]
    fn a_request_for_another_tenants_bucket_is_forbidden() {
        let context = EventContext {
            id: "1".into(),
            source: "//platform".into(),
            kind: REVIEW_REQUESTED.into(),
            subject: None,
            time: None,
        };
        let body = br#"{"tenant":"acme","pack":"q3","bucket":"bolt-uploads","idempotency_key":"k"}"#;
        let Verdict::Refused(refusal) = request(&registry("marker"), &context.to_attributes(), body) else {
            panic!("refused")
        };
        assert_eq!(refusal.class, DeadLetterClass::Forbidden);
    }
}
