//! Who may do what: principals proven by signed tokens, roles bound to members on resources, default deny.
//!
//! Owns tokens (HMAC over principal and expiry, the secret kept in the data directory, so that tokens outlive a
//! restart) and the bindings. A binding on `projects/P` holds for the topics, subscriptions and jobs of P; buckets are
//! bound one by one, except that `roles/owner` of the cloud's own project reaches them too. Who sends no token is nobody,
//! unless whoever started the cloud said who that is. Refuses conditions, groups and deny policies.

mod roles;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::config::Binding;

/// The operator of the cloud, who may do everything.
pub const OWNER: &str = "user:owner@localhost";
/// How every token begins, like Google's.
const PREFIX: &str = "ya29.local.";

/// Google's predefined roles, as far as this cloud serves their permissions.
pub fn predefined_roles() -> BTreeMap<&'static str, &'static [&'static str]> {
    roles::NAMES.iter().filter_map(|name| Some((*name, roles::predefined(name)?))).collect()
}

/// Somebody, as IAM writes it: `serviceAccount:a@b.c`, `user:owner@localhost`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal(String);

/// Why a call has no principal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    /// No `Authorization: Bearer …`.
    #[error(
        "the request carries no bearer token; use application-default credentials or a token of this cloud, or say who \
         such callers are: carrel cloud --anonymous-as PRINCIPAL"
    )]
    Missing,
    /// Not a token of this cloud.
    #[error("the bearer token was not issued by this cloud")]
    Forged,
    /// Too old.
    #[error("the bearer token has expired")]
    Expired,
}

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{principal} does not have permission {permission} on {resource}")]
pub struct PermissionDenied {
    principal: String,
    permission: String,
    resource: String,
}

/// Why the configuration gives no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The secret cannot be kept.
    #[error("token secret {path}")]
    Secret {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A binding names a role that is neither Google's nor declared.
    #[error("binding on {resource}: no role {role}; declare it under `roles`")]
    UnknownRole {
        /// Where.
        resource: String,
        /// Which.
        role: String,
    },
}

/// The policy and the secret; clones share them.
#[derive(Clone)]
pub struct Iam(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    secret: [u8; 32],
    /// Resource → principal → permissions.
    granted: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
    /// The same as it was configured.
    bindings: Vec<Binding>,
    /// Roles that are not Google's.
    custom: BTreeMap<String, Vec<String>>,
    /// Resource → who may do everything to it and to what lies below it.
    owners: BTreeMap<String, BTreeSet<String>>,
    /// `projects/P` of all buckets.
    home: Option<String>,
    /// Who sends no token.
    anonymous: Option<Principal>,
}

/// A text that names no principal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no principal; write serviceAccount:NAME@PROJECT.iam.gserviceaccount.com, or user:NAME@HOST")]
pub struct NotAPrincipal(String);

impl std::fmt::Debug for Iam {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Iam").field("granted", &self.0.granted).finish_non_exhaustive()
    }
}

impl Principal {
    /// One user or service account, as IAM writes it.
    pub fn parse(text: &str) -> Result<Self, NotAPrincipal> {
        let of_address = |address: &str| {
            let clean = address.chars().all(|letter| letter.is_ascii_graphic() && letter != ':');
            clean
                && matches!(address.split('@').collect::<Vec<_>>()[..], [name, host] if !name.is_empty() && !host.is_empty())
        };
        match text.split_once(':') {
            Some(("serviceAccount" | "user", address)) if of_address(address) => Ok(Self(text.to_owned())),
            _ => Err(NotAPrincipal(text.to_owned())),
        }
    }

    /// The service account with this e-mail address.
    pub fn service_account(email: &str) -> Self {
        Self(format!("serviceAccount:{email}"))
    }

    /// The operator of the cloud.
    pub fn owner() -> Self {
        Self(OWNER.to_owned())
    }

    /// As IAM writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Iam {
    /// A policy of `bindings` with Google's roles and the `custom` ones; the secret is made in `data_dir` if absent.
    pub fn open(
        data_dir: &Path,
        custom: &BTreeMap<String, Vec<String>>,
        bindings: &[Binding],
    ) -> Result<Self, PolicyError> {
        let path = data_dir.join("token-secret");
        let failed = |source| PolicyError::Secret { path: path.display().to_string(), source };
        let secret = load_secret(&path).map_err(failed)?;
        let mut granted: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        let mut owners: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for binding in bindings {
            if binding.role == roles::OWNER && !custom.contains_key(roles::OWNER) {
                owners.entry(binding.resource.clone()).or_default().extend(binding.members.iter().cloned());
                continue;
            }
            let unknown =
                || PolicyError::UnknownRole { resource: binding.resource.clone(), role: binding.role.clone() };
            let permissions = permissions(custom, &binding.role).ok_or_else(unknown)?;
            let members = granted.entry(binding.resource.clone()).or_default();
            for member in &binding.members {
                members.entry(member.clone()).or_default().extend(permissions.iter().cloned());
            }
        }
        Ok(Self(Arc::new(Inner {
            secret,
            granted,
            bindings: bindings.to_vec(),
            custom: custom.clone(),
            owners,
            home: None,
            anonymous: None,
        })))
    }

    /// What a role grants; `None` if there is no such role.
    pub(crate) fn permissions(&self, role: &str) -> Option<Vec<String>> {
        permissions(&self.0.custom, role)
    }

    /// The bindings that were configured on a resource.
    pub(crate) fn bindings_on(&self, resource: &str) -> impl Iterator<Item = &Binding> {
        self.0.bindings.iter().filter(move |binding| binding.resource == resource)
    }

    /// The same policy for a cloud whose buckets all belong to `project`, and whose callers without a token are
    /// `anonymous`, or nobody.
    pub fn serving(self, project: &str, anonymous: Option<Principal>) -> Self {
        let home = Some(format!("projects/{project}"));
        Self(Arc::new(Inner { home, anonymous, ..Inner::clone(&self.0) }))
    }

    /// A token that proves `who` for `lifetime`.
    pub fn mint(&self, who: &Principal, lifetime: Duration) -> String {
        let expires = unix_seconds().saturating_add(lifetime.as_secs());
        let claims = format!("{expires}:{}", who.0);
        let claims = URL_SAFE_NO_PAD.encode(claims);
        let seal = URL_SAFE_NO_PAD.encode(self.mac(&claims).finalize().into_bytes());
        format!("{PREFIX}{claims}.{seal}")
    }

    /// Who sent this `Authorization` header.
    pub fn authenticate(&self, authorization: Option<&str>) -> Result<Principal, Unauthenticated> {
        let Some(authorization) = authorization else {
            return self.0.anonymous.clone().ok_or(Unauthenticated::Missing);
        };
        let token = authorization.strip_prefix("Bearer ").ok_or(Unauthenticated::Missing)?;
        let (claims, seal) =
            token.strip_prefix(PREFIX).and_then(|rest| rest.split_once('.')).ok_or(Unauthenticated::Forged)?;
        let seal = URL_SAFE_NO_PAD.decode(seal).map_err(|_| Unauthenticated::Forged)?;
        self.mac(claims).verify_slice(&seal).map_err(|_| Unauthenticated::Forged)?;
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| Unauthenticated::Forged)?;
        let claims = String::from_utf8(claims).map_err(|_| Unauthenticated::Forged)?;
        let (expires, principal) = claims.split_once(':').ok_or(Unauthenticated::Forged)?;
        let expires: u64 = expires.parse().map_err(|_| Unauthenticated::Forged)?;
        if expires <= unix_seconds() {
            return Err(Unauthenticated::Expired);
        }
        Ok(Principal(principal.to_owned()))
    }

    /// Whether `who` may do `permission` on `resource`.
    pub fn check(&self, who: &Principal, permission: &str, resource: &str) -> Result<(), PermissionDenied> {
        let (project, in_bucket) = match resource.split('/').collect::<Vec<_>>().as_slice() {
            ["projects", "_", ..] => (self.0.home.clone(), true),
            ["projects", project, _, ..] => (Some(format!("projects/{project}")), false),
            _ => (None, false),
        };
        let owns = |resource: &str| self.0.owners.get(resource).is_some_and(|members| members.contains(&who.0));
        let holds = |resource: &str| {
            let permissions = self.0.granted.get(resource).and_then(|members| members.get(&who.0));
            permissions.is_some_and(|permissions| permissions.contains(permission))
        };
        let below = |project: &str| owns(project) || (!in_bucket && holds(project));
        if who.0 == OWNER || owns(resource) || holds(resource) || project.as_deref().is_some_and(below) {
            return Ok(());
        }
        Err(PermissionDenied {
            principal: who.0.clone(),
            permission: permission.to_owned(),
            resource: resource.to_owned(),
        })
    }

    fn mac(&self, claims: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0.secret).expect("HMAC takes keys of any length");
        mac.update(claims.as_bytes());
        mac
    }
}

fn permissions(custom: &BTreeMap<String, Vec<String>>, role: &str) -> Option<Vec<String>> {
    let predefined =
        || roles::predefined(role).map(|permissions| permissions.iter().map(|p| (*p).to_owned()).collect());
    custom.get(role).cloned().or_else(predefined)
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs())
}

fn load_secret(path: &Path) -> std::io::Result<[u8; 32]> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    match std::fs::read(path) {
        // A shorter one was cut off while it was written, so no token carries it.
        Ok(bytes) => {
            if let Ok(secret) = bytes.try_into() {
                return Ok(secret);
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let secret: [u8; 32] = rand::random();
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(&secret)?;
    file.sync_all()?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iam(dir: &Path) -> Iam {
        let bind = |resource: &str, role: &str, member: &str| Binding {
            resource: resource.into(),
            role: role.into(),
            members: vec![member.into()],
        };
        let custom = BTreeMap::from([("roles/lister".to_owned(), vec!["storage.objects.list".to_owned()])]);
        let bindings = [
            bind("projects/_/buckets/a", "roles/storage.objectViewer", "serviceAccount:a@x.y"),
            bind("projects/_/buckets/a", "roles/lister", "serviceAccount:d@x.y"),
            bind("projects/p", "roles/pubsub.publisher", "serviceAccount:d@x.y"),
        ];
        Iam::open(dir, &custom, &bindings).expect("a sound policy")
    }

    #[test]
    fn what_is_not_granted_is_denied() {
        let dir = tempfile::tempdir().expect("a directory");
        let iam = iam(dir.path());
        let may = |email: &str, permission: &str, resource: &str| {
            iam.check(&Principal::service_account(email), permission, resource).is_ok()
        };
        for (email, permission, resource, expected) in [
            ("a@x.y", "storage.objects.get", "projects/_/buckets/a", true),
            ("a@x.y", "storage.objects.create", "projects/_/buckets/a", false),
            ("a@x.y", "storage.objects.get", "projects/_/buckets/b", false),
            ("d@x.y", "storage.objects.list", "projects/_/buckets/a", true),
            ("d@x.y", "storage.objects.get", "projects/_/buckets/a", false),
            ("d@x.y", "pubsub.topics.publish", "projects/p/topics/t", true),
            ("d@x.y", "pubsub.topics.publish", "projects/q/topics/t", false),
            ("a@x.y", "pubsub.topics.publish", "projects/p/topics/t", false),
            ("nobody@x.y", "storage.objects.list", "projects/_/buckets/a", false),
        ] {
            assert_eq!(may(email, permission, resource), expected, "{email} {permission} {resource}");
        }
        assert!(iam.check(&Principal::owner(), "storage.objects.delete", "projects/_/buckets/a").is_ok());
    }

    #[test]
    fn an_owner_of_the_project_may_do_everything_in_it_and_nothing_elsewhere() {
        let dir = tempfile::tempdir().expect("a directory");
        let owner = |resource: &str, email: &str| Binding {
            resource: resource.into(),
            role: "roles/owner".into(),
            members: vec![format!("serviceAccount:{email}")],
        };
        let bindings = [owner("projects/p", "o@x.y"), owner("projects/q", "q@x.y")];
        let iam = Iam::open(dir.path(), &BTreeMap::new(), &bindings).expect("a sound policy").serving("p", None);
        for (email, resource, expected) in [
            ("o@x.y", "projects/p", true),
            ("o@x.y", "projects/p/topics/t", true),
            ("o@x.y", "projects/_/buckets/any", true),
            ("o@x.y", "projects/q/topics/t", false),
            ("q@x.y", "projects/q/topics/t", true),
            ("q@x.y", "projects/_/buckets/any", false),
            ("nobody@x.y", "projects/p", false),
        ] {
            let may = iam.check(&Principal::service_account(email), "whatever.there.is", resource).is_ok();
            assert_eq!(may, expected, "{email} {resource}");
        }
    }

    #[test]
    fn who_sends_no_token_is_who_the_cloud_was_told_and_a_bad_token_is_nobody() {
        let dir = tempfile::tempdir().expect("a directory");
        let dev = Principal::parse("user:dev@localhost").expect("a principal");
        let told = iam(dir.path()).serving("p", Some(dev.clone()));
        assert_eq!(told.authenticate(None), Ok(dev));
        assert_eq!(told.authenticate(Some("Bearer ya29.local.x.y")), Err(Unauthenticated::Forged));
        assert_eq!(told.authenticate(Some("Basic x")), Err(Unauthenticated::Missing));
        assert!(Unauthenticated::Missing.to_string().contains("--anonymous-as"));
    }

    #[test]
    fn a_principal_has_a_kind_and_an_address() {
        for text in ["user:owner@localhost", "serviceAccount:a-b@p.iam.gserviceaccount.com"] {
            assert_eq!(Principal::parse(text).expect(text).as_str(), text);
        }
        for text in
            ["", "a@b.c", "user:", "user:a", "user:a@", "user:@b", "user:a@b@c", "group:a@b", "allUsers", "user:a b@c"]
        {
            assert!(Principal::parse(text).expect_err(text).to_string().contains("serviceAccount:"), "{text}");
        }
    }

    #[test]
    fn a_token_proves_its_principal_until_it_expires_and_after_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let who = Principal::service_account("a@x.y");
        let token = iam(dir.path()).mint(&who, Duration::from_secs(60));
        let again = iam(dir.path());
        assert_eq!(again.authenticate(Some(&format!("Bearer {token}"))), Ok(who.clone()));
        assert_eq!(again.authenticate(None), Err(Unauthenticated::Missing));
        assert_eq!(again.authenticate(Some("Bearer ya29.local.x.y")), Err(Unauthenticated::Forged));
        let stale = again.mint(&who, Duration::ZERO);
        assert_eq!(again.authenticate(Some(&format!("Bearer {stale}"))), Err(Unauthenticated::Expired));
        let elsewhere = tempfile::tempdir().expect("a directory");
        let foreign = iam(elsewhere.path()).mint(&who, Duration::from_secs(60));
        assert_eq!(again.authenticate(Some(&format!("Bearer {foreign}"))), Err(Unauthenticated::Forged));
    }
}
