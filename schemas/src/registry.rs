//! The tenant registry: one bucket pair, one service account, one job for each tenant, and the limits it may use.
//!
//! Refuses, with every mistake at once, a configuration in which two tenants would share a bucket, an identity or a
//! job: isolation is infrastructure, and this is where infrastructure is declared.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{BucketName, JobName, TenantId};
pub use crate::limits::{Limits, RetryLimits};
use crate::scan::ScanPolicy;

/// The registry as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistryFile {
    /// Schema number: [`RegistryFile::SCHEMA`].
    pub schema: u32,
    /// SHA-256 (hex) of bearer tokens that may act for every tenant.
    #[serde(default)]
    pub operator_token_sha256: Vec<String>,
    /// E-mail addresses that may act for every tenant, if an identity token proves them.
    #[serde(default)]
    pub operator_emails: Vec<String>,
    /// The tenants.
    pub tenants: Vec<Tenant>,
}

impl RegistryFile {
    /// The schema number that this code reads.
    pub const SCHEMA: u32 = 1;
}

/// One tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Its id, never reused.
    pub id: TenantId,
    /// Where its files arrive.
    pub uploads_bucket: BucketName,
    /// Where its reviews, claims and outcomes lie.
    pub outputs_bucket: BucketName,
    /// The e-mail address its worker runs as.
    pub service_account: String,
    /// The Cloud Run Job that reviews its packs.
    pub job: JobName,
    /// When a pack closes.
    #[serde(default)]
    pub policy: PackPolicy,
    /// Its part of the fleet's time beside tenants that have work waiting as well: one of weight 2 gets twice what one of
    /// weight 1 does. From 1 to 100.
    #[serde(default = "Tenant::default_weight")]
    #[schemars(range(min = 1, max = 100))]
    pub weight: u32,
    /// What it may use.
    #[serde(default)]
    pub limits: Limits,
    /// One more try with more than `limits`, for a review that ran out of memory or time; without it there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_limits: Option<RetryLimits>,
    /// Seconds from its seal after which a review is given up, over all attempts; without it there is no such end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<u64>,
    /// A later revision of a pack ends the review of the former that runs; one that waits is ended in any case.
    #[serde(default)]
    pub supersede_running: bool,
    /// What is done about files that hold more than data.
    #[serde(default)]
    pub scan: ScanPolicy,
    /// Hosts that its agent may reach over HTTPS: `api.example.com`, `*.example.org`. Empty is none.
    #[serde(default)]
    pub egress: Vec<String>,
    /// SHA-256 (hex) of bearer tokens that may act for this tenant alone.
    #[serde(default)]
    pub token_sha256: Vec<String>,
    /// E-mail addresses that may act for this tenant alone, if an identity token proves them.
    #[serde(default)]
    pub emails: Vec<String>,
    /// Nothing of it is launched; its uploads are sealed and wait.
    #[serde(default)]
    pub suspended: bool,
    /// It leaves: nothing of it is taken in, what is under way is cancelled, then all that the ledger holds of it is
    /// removed. Its buckets are not touched.
    #[serde(default)]
    pub deleting: bool,
}

impl Tenant {
    /// The largest weight.
    pub const MAX_WEIGHT: u32 = 100;

    /// The job of a try: the tenant's, or, named after it, the one with more.
    pub fn job_for(&self, larger: bool) -> JobName {
        if larger { self.job.larger() } else { self.job.clone() }
    }

    const fn default_weight() -> u32 {
        1
    }
}

/// When a pack closes. The maximum age holds for every policy and counts from the first upload that opened it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "close", deny_unknown_fields)]
pub enum PackPolicy {
    /// When `_COMPLETE` or `_manifest.json` arrives.
    Marker {
        /// Seconds after which it closes regardless.
        #[serde(default = "PackPolicy::default_max_age_seconds")]
        max_age_seconds: u64,
    },
    /// When nothing has arrived for a while, or a marker has.
    Quiet {
        /// Seconds without an upload.
        quiet_seconds: u64,
        /// Seconds after which it closes regardless.
        #[serde(default = "PackPolicy::default_max_age_seconds")]
        max_age_seconds: u64,
    },
    /// Every object is a pack of one, at once.
    Each,
}

impl PackPolicy {
    const fn default_max_age_seconds() -> u64 {
        24 * 60 * 60
    }
}

impl Default for PackPolicy {
    fn default() -> Self {
        Self::Marker { max_age_seconds: Self::default_max_age_seconds() }
    }
}

/// A registry that was checked: lookups by id and by bucket, and no two tenants share anything.
#[derive(Debug, Clone)]
pub struct Registry {
    tenants: BTreeMap<TenantId, Tenant>,
    by_uploads: BTreeMap<BucketName, TenantId>,
    by_outputs: BTreeMap<BucketName, TenantId>,
    by_token: BTreeMap<String, TenantId>,
    operator_token_sha256: Vec<String>,
    /// By address in lower case; none is an operator.
    by_email: BTreeMap<String, Option<TenantId>>,
}

/// Whom a credential of the registry acts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder<'a> {
    /// For every tenant.
    Operators,
    /// For one.
    Tenant(&'a TenantId),
}

/// One thing wrong with a registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryMistake {
    /// Another schema.
    #[error("schema is {0}, this program reads 1")]
    Schema(u32),
    /// The same tenant twice.
    #[error("tenant {0} appears twice; ids are never reused")]
    DuplicateTenant(TenantId),
    /// Two tenants share something that must be theirs alone.
    #[error("tenants {first} and {second} share {what} {name:?}; give each its own")]
    Shared {
        /// `bucket`, `service account`, `job`, `token hash` or `e-mail address`.
        what: &'static str,
        /// Its name.
        name: String,
        /// The tenant that named it first.
        first: TenantId,
        /// The tenant that named it again.
        second: TenantId,
    },
    /// One tenant's uploads and outputs are the same bucket.
    #[error("tenant {tenant} has {bucket} for uploads and for outputs; a review would trigger itself, give it two")]
    SameBucket {
        /// Which tenant.
        tenant: TenantId,
        /// Which bucket.
        bucket: BucketName,
    },
    /// A service account that is no e-mail address.
    #[error("tenant {tenant}: service account {value:?} is not an e-mail address")]
    ServiceAccount {
        /// Which tenant.
        tenant: TenantId,
        /// What stood there.
        value: String,
    },
    /// A token hash that is no SHA-256.
    #[error("{whose}: token hash {value:?} is not 64 lower-case hex digits; write sha256 of the token")]
    TokenHash {
        /// `operator` or `tenant ID`.
        whose: String,
        /// What stood there.
        value: String,
    },
    /// An address that is none.
    #[error("{whose}: {value:?} is not an e-mail address")]
    Email {
        /// `operator` or `tenant ID`.
        whose: String,
        /// What stood there.
        value: String,
    },
    /// A tenant's token that is also an operator's.
    #[error("tenant {tenant} and the operators share a token or an e-mail address; give the tenant one of its own")]
    OperatorToken {
        /// Which tenant.
        tenant: TenantId,
    },
    /// A weight that would starve a tenant, or all others.
    #[error("tenant {tenant}: weight is {weight}, must be from 1 to 100")]
    Weight {
        /// Which tenant.
        tenant: TenantId,
        /// What stood there.
        weight: u32,
    },
    /// A second try that would end as the first did.
    #[error(
        "tenant {tenant}: retry_limits.{field} must be more than limits.{field}; a second try needs more, or none is made"
    )]
    NotLarger {
        /// Which tenant.
        tenant: TenantId,
        /// Which field.
        field: &'static str,
    },
    /// The job of the second try would have a name that Cloud Run refuses.
    #[error(
        "tenant {tenant}: job {job} has an id of {length} characters, at most {most} are allowed; give its job a name that leaves room for -large"
    )]
    LongJob {
        /// Which tenant.
        tenant: TenantId,
        /// The job with the larger limits.
        job: JobName,
        /// Of its id.
        length: usize,
        /// As many as there may be.
        most: usize,
    },
    /// A limit or period that can never be met.
    #[error("tenant {tenant}: {field} is 0, must be at least 1")]
    Zero {
        /// Which tenant.
        tenant: TenantId,
        /// Which field.
        field: &'static str,
    },
}

/// Every mistake of one registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryError(pub Vec<RegistryMistake>);

impl std::error::Error for RegistryError {}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tenant registry has {} mistake(s)", self.0.len())?;
        self.0.iter().try_for_each(|mistake| write!(f, "\n  - {mistake}"))
    }
}

impl Registry {
    /// Checks a registry file; the error lists everything that is wrong with it.
    pub fn check(file: RegistryFile) -> Result<Self, RegistryError> {
        let mut mistakes = Vec::new();
        if file.schema != RegistryFile::SCHEMA {
            mistakes.push(RegistryMistake::Schema(file.schema));
        }
        check_tokens("operator".to_owned(), &file.operator_token_sha256, &mut mistakes);
        check_emails("operator", &file.operator_emails, &mut mistakes);
        let mut owners: BTreeMap<(&'static str, String), TenantId> = BTreeMap::new();
        let mut registry = Self {
            tenants: BTreeMap::new(),
            by_uploads: BTreeMap::new(),
            by_outputs: BTreeMap::new(),
            by_token: BTreeMap::new(),
            operator_token_sha256: file.operator_token_sha256,
            by_email: file.operator_emails.iter().map(|email| (email.to_ascii_lowercase(), None)).collect(),
        };
        for tenant in file.tenants {
            check_tenant(&tenant, &mut mistakes);
            let emails: Vec<String> = tenant.emails.iter().map(|email| email.to_ascii_lowercase()).collect();
            if tenant.token_sha256.iter().any(|hash| registry.operator_token_sha256.contains(hash))
                || emails.iter().any(|email| registry.by_email.get(email) == Some(&None))
            {
                mistakes.push(RegistryMistake::OperatorToken { tenant: tenant.id.clone() });
            }
            let mut own = vec![
                ("bucket", tenant.uploads_bucket.to_string()),
                ("service account", tenant.service_account.to_ascii_lowercase()),
                ("job", tenant.job.to_string()),
            ];
            own.extend(tenant.token_sha256.iter().map(|hash| ("token hash", hash.clone())));
            own.extend(emails.iter().map(|email| ("e-mail address", email.clone())));
            if tenant.retry_limits.is_some() {
                own.push(("job", tenant.job.larger().to_string()));
            }
            if tenant.uploads_bucket != tenant.outputs_bucket {
                own.push(("bucket", tenant.outputs_bucket.to_string()));
            }
            for (what, name) in own {
                if let Some(first) = owners.insert((what, name.clone()), tenant.id.clone())
                    && first != tenant.id
                {
                    mistakes.push(RegistryMistake::Shared { what, name, first, second: tenant.id.clone() });
                }
            }
            let tokens = tenant.token_sha256.iter().map(|hash| (hash.clone(), tenant.id.clone()));
            registry.by_token.extend(tokens);
            registry.by_email.extend(emails.into_iter().map(|email| (email, Some(tenant.id.clone()))));
            registry.by_uploads.insert(tenant.uploads_bucket.clone(), tenant.id.clone());
            registry.by_outputs.insert(tenant.outputs_bucket.clone(), tenant.id.clone());
            if let Some(twice) = registry.tenants.insert(tenant.id.clone(), tenant) {
                mistakes.push(RegistryMistake::DuplicateTenant(twice.id));
            }
        }
        if mistakes.is_empty() { Ok(registry) } else { Err(RegistryError(mistakes)) }
    }

    /// The tenant with this id.
    pub fn tenant(&self, id: &TenantId) -> Option<&Tenant> {
        self.tenants.get(id)
    }

    /// The tenant whose files arrive in this bucket.
    pub fn by_uploads_bucket(&self, bucket: &BucketName) -> Option<&Tenant> {
        self.by_uploads.get(bucket).and_then(|id| self.tenants.get(id))
    }

    /// The tenant whose reviews lie in this bucket.
    pub fn by_outputs_bucket(&self, bucket: &BucketName) -> Option<&Tenant> {
        self.by_outputs.get(bucket).and_then(|id| self.tenants.get(id))
    }

    /// Whom an e-mail address, in lower case, acts for.
    pub fn by_email(&self, email: &str) -> Option<Holder<'_>> {
        self.by_email.get(email).map(|id| id.as_ref().map_or(Holder::Operators, Holder::Tenant))
    }

    /// Every tenant, by id.
    pub fn tenants(&self) -> impl Iterator<Item = &Tenant> {
        self.tenants.values()
    }

    /// SHA-256 (hex) of every bearer token, and whom each acts for.
    pub fn token_hashes(&self) -> impl Iterator<Item = (&str, Holder<'_>)> {
        let operators = self.operator_token_sha256.iter().map(|hash| (hash.as_str(), Holder::Operators));
        operators.chain(self.by_token.iter().map(|(hash, id)| (hash.as_str(), Holder::Tenant(id))))
    }
}

fn check_tenant(tenant: &Tenant, mistakes: &mut Vec<RegistryMistake>) {
    let id = || tenant.id.clone();
    if tenant.uploads_bucket == tenant.outputs_bucket {
        mistakes.push(RegistryMistake::SameBucket { tenant: id(), bucket: tenant.uploads_bucket.clone() });
    }
    if !is_email(&tenant.service_account) {
        mistakes.push(RegistryMistake::ServiceAccount { tenant: id(), value: tenant.service_account.clone() });
    }
    if !(1..=Tenant::MAX_WEIGHT).contains(&tenant.weight) {
        mistakes.push(RegistryMistake::Weight { tenant: id(), weight: tenant.weight });
    }
    check_tokens(format!("tenant {}", tenant.id), &tenant.token_sha256, mistakes);
    check_emails(&format!("tenant {}", tenant.id), &tenant.emails, mistakes);
    let Limits {
        max_files,
        max_file_bytes,
        max_inflated_bytes,
        timeout_seconds,
        agent_memory_bytes,
        max_output_bytes,
        max_concurrent,
        max_attempts,
        max_events_per_minute,
    } = tenant.limits;
    let mut numbers = vec![
        ("limits.max_files", u64::from(max_files)),
        ("limits.max_file_bytes", max_file_bytes),
        ("limits.max_inflated_bytes", max_inflated_bytes),
        ("limits.timeout_seconds", timeout_seconds),
        ("limits.agent_memory_bytes", agent_memory_bytes),
        ("limits.max_output_bytes", max_output_bytes),
        ("limits.max_concurrent", u64::from(max_concurrent)),
        ("limits.max_attempts", u64::from(max_attempts)),
        ("limits.max_events_per_minute", u64::from(max_events_per_minute)),
    ];
    match tenant.policy {
        PackPolicy::Marker { max_age_seconds } => numbers.push(("policy.max_age_seconds", max_age_seconds)),
        PackPolicy::Quiet { quiet_seconds, max_age_seconds } => {
            numbers.push(("policy.quiet_seconds", quiet_seconds));
            numbers.push(("policy.max_age_seconds", max_age_seconds));
        }
        PackPolicy::Each => {}
    }
    numbers.extend(tenant.deadline_seconds.map(|seconds| ("deadline_seconds", seconds)));
    if let Some(RetryLimits { timeout_seconds: time, agent_memory_bytes: memory }) = tenant.retry_limits {
        let pairs = [("timeout_seconds", time, timeout_seconds), ("agent_memory_bytes", memory, agent_memory_bytes)];
        for (field, ..) in pairs.into_iter().filter(|(_, more, less)| more <= less) {
            mistakes.push(RegistryMistake::NotLarger { tenant: id(), field });
        }
        let job = tenant.job.larger();
        let length = job.as_str().rsplit('/').next().map_or(0, str::len);
        if length > JobName::MAX_ID {
            mistakes.push(RegistryMistake::LongJob { tenant: id(), job, length, most: JobName::MAX_ID });
        }
    }
    for (field, _) in numbers.into_iter().filter(|(_, number)| *number == 0) {
        mistakes.push(RegistryMistake::Zero { tenant: id(), field });
    }
}

fn check_emails(whose: &str, emails: &[String], mistakes: &mut Vec<RegistryMistake>) {
    for value in emails.iter().filter(|email| !is_email(email)) {
        mistakes.push(RegistryMistake::Email { whose: whose.to_owned(), value: value.chars().take(80).collect() });
    }
}

fn is_email(text: &str) -> bool {
    text.split_once('@').is_some_and(|(name, host)| {
        !name.is_empty() && host.contains('.') && !host.contains('@') && !text.contains(char::is_whitespace)
    })
}

fn check_tokens(whose: String, hashes: &[String], mistakes: &mut Vec<RegistryMistake>) {
    let is_hash = |h: &String| h.len() == 64 && h.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    for value in hashes.iter().filter(|h| !is_hash(h)) {
        mistakes.push(RegistryMistake::TokenHash { whose: whose.clone(), value: value.chars().take(80).collect() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(id: &str) -> Tenant {
        Tenant {
            id: TenantId::parse(id).expect("id"),
            uploads_bucket: BucketName::parse(format!("{id}-uploads")).expect("bucket"),
            outputs_bucket: BucketName::parse(format!("{id}-outputs")).expect("bucket"),
            service_account: format!("{id}@fleet.iam.gserviceaccount.com"),
            job: JobName::parse(format!("projects/fleet/locations/eu/jobs/review-{id}")).expect("job"),
            policy: PackPolicy::default(),
            weight: 1,
            limits: Limits::default(),
            retry_limits: None,
            deadline_seconds: None,
            supersede_running: false,
            scan: ScanPolicy::default(),
            egress: vec![],
            token_sha256: vec![],
            emails: vec![],
            suspended: false,
            deleting: false,
        }
    }

    fn file(tenants: Vec<Tenant>) -> RegistryFile {
        RegistryFile { schema: 1, operator_token_sha256: vec![], operator_emails: vec![], tenants }
    }

    #[test]
    fn two_tenants_that_share_anything_are_refused_by_name_and_all_at_once() {
        let (mut acme, mut bolt) = (tenant("acme"), tenant("bolt"));
        bolt.uploads_bucket = acme.outputs_bucket.clone();
        bolt.service_account = acme.service_account.to_uppercase();
        bolt.job = acme.job.clone();
        acme.token_sha256 = vec!["a".repeat(64)];
        bolt.token_sha256 = vec!["a".repeat(64), "b".repeat(64)];
        acme.emails = vec!["ann@x.test".to_owned()];
        bolt.emails = vec!["Ann@X.test".to_owned(), "nobody".to_owned()];
        let mut file = file(vec![acme, bolt]);
        file.operator_token_sha256 = vec!["b".repeat(64)];
        let text = Registry::check(file).expect_err("shared").to_string();
        assert_eq!(text.matches("tenants acme and bolt share").count(), 5, "{text}");
        for what in [
            "bucket \"acme-outputs\"",
            "e-mail address \"ann@x.test\"",
            "service account",
            "job",
            "token hash",
            "bolt and the operators share",
        ] {
            assert!(text.contains(what), "{text}");
        }
    }

    #[test]
    fn a_sound_registry_finds_tenants_by_id_and_bucket() {
        let registry = Registry::check(file(vec![tenant("acme"), tenant("bolt")])).expect("sound");
        let bucket = BucketName::parse("bolt-uploads").expect("bucket");
        assert_eq!(registry.by_uploads_bucket(&bucket).map(|t| t.id.as_str()), Some("bolt"));
        assert!(registry.by_outputs_bucket(&bucket).is_none());
    }

    #[test]
    fn a_weight_outside_its_range_is_refused_by_name() {
        for weight in [0, 101] {
            let mut acme = tenant("acme");
            acme.weight = weight;
            let error = Registry::check(file(vec![acme])).expect_err("no weight").to_string();
            assert!(error.contains(&format!("tenant acme: weight is {weight}, must be from 1 to 100")), "{error}");
        }
    }

    #[test]
    fn a_second_try_has_more_and_a_job_that_nobody_else_has() {
        let (mut acme, mut bolt) = (tenant("acme"), tenant("bolt"));
        let Limits { timeout_seconds, agent_memory_bytes, .. } = acme.limits;
        acme.retry_limits = Some(RetryLimits { timeout_seconds, agent_memory_bytes: agent_memory_bytes * 2 });
        bolt.job = acme.job.larger();
        let error = Registry::check(file(vec![acme.clone(), bolt])).expect_err("two mistakes").to_string();
        assert!(error.contains("tenant acme: retry_limits.timeout_seconds must be more than"), "{error}");
        assert!(error.contains("acme and bolt share job") && !error.contains("agent_memory_bytes"), "{error}");
        let long = format!("projects/fleet/locations/eu/jobs/{}", "j".repeat(58));
        acme.job = JobName::parse(long).expect("job");
        let error = Registry::check(file(vec![acme.clone()])).expect_err("no such job can be made").to_string();
        assert!(error.contains("tenant acme: job") && error.contains("64 characters"), "{error}");
        acme.retry_limits = None;
        Registry::check(file(vec![acme])).expect("it has one job");
    }

    #[test]
    fn one_bucket_for_uploads_and_outputs_is_refused() {
        let mut acme = tenant("acme");
        acme.outputs_bucket = acme.uploads_bucket.clone();
        let error = Registry::check(file(vec![acme])).expect_err("same bucket");
        assert!(matches!(error.0.as_slice(), [RegistryMistake::SameBucket { .. }]));
    }
}
