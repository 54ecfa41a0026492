//! The tenant registry as a file, YAML or JSON: read, taken apart, checked.
//!
//! A deserializer stops at the first field it cannot read. Here each field is tried by itself in an otherwise sound
//! file, so that whoever wrote the registry is told of every mistake at once.

use std::path::Path;

use carrel_schemas::registry::{Registry, RegistryError, RegistryFile, Tenant};
use serde::de::DeserializeOwned;
use serde_yaml_ng::{Mapping, Value};

/// Why a registry file is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum RegistryFileError {
    /// It cannot be read.
    #[error("read tenant registry {path}: {source}; write one or correct CARREL_REGISTRY")]
    Read {
        /// Its path.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is not YAML, or not a registry at all.
    #[error("tenant registry {path}: {source}")]
    Parse {
        /// Its path.
        path: String,
        /// Where and why.
        source: serde_yaml_ng::Error,
    },
    /// Some of its fields are not what they should be.
    #[error("{path}: tenant registry has {} field(s) that cannot be read{}", .mistakes.len(), listed(.mistakes))]
    Fields {
        /// Its path.
        path: String,
        /// All of them, each with whose it is and why.
        mistakes: Vec<String>,
    },
    /// Its fields are sound and do not go together.
    #[error("{path}: {source}")]
    Check {
        /// Its path.
        path: String,
        /// All that is wrong.
        source: RegistryError,
    },
}

fn listed(mistakes: &[String]) -> String {
    mistakes.iter().map(|mistake| format!("\n  - {mistake}")).collect()
}

/// Reads and checks a registry file.
pub fn load(path: &Path) -> Result<Registry, RegistryFileError> {
    let file = read(path)?;
    Registry::check(file).map_err(|source| RegistryFileError::Check { path: path.display().to_string(), source })
}

/// Reads a registry file; what its fields say together is not checked.
pub fn read(path: &Path) -> Result<RegistryFile, RegistryFileError> {
    let path = path.display().to_string();
    match std::fs::read_to_string(&path) {
        Ok(text) => parse(path, &text),
        Err(source) => Err(RegistryFileError::Read { path, source }),
    }
}

fn parse(path: String, text: &str) -> Result<RegistryFile, RegistryFileError> {
    serde_yaml_ng::from_str(text).map_err(|source| {
        let found = match serde_yaml_ng::from_str(text) {
            Ok(Value::Mapping(fields)) => mistakes(fields),
            Ok(_) | Err(_) => Vec::new(),
        };
        if found.is_empty() {
            RegistryFileError::Parse { path, source }
        } else {
            RegistryFileError::Fields { path, mistakes: found }
        }
    })
}

fn mistakes(mut fields: Mapping) -> Vec<String> {
    let tenants = match fields.get_mut("tenants") {
        Some(Value::Sequence(tenants)) => std::mem::take(tenants),
        _ => Vec::new(),
    };
    let sound = serde_json::json!({ "schema": RegistryFile::SCHEMA, "tenants": [] });
    let mut found = alone::<RegistryFile>("registry", &sound, &fields);
    for (at, tenant) in tenants.iter().enumerate() {
        let whose = match tenant.get("id").and_then(Value::as_str) {
            Some(id) => format!("tenant {id:?}"),
            None => format!("tenant number {}", at + 1),
        };
        match tenant.as_mapping() {
            Some(fields) => found.extend(alone::<Tenant>(&whose, &sound_tenant(), fields)),
            None => found.push(format!("{whose}: is no mapping of fields")),
        }
    }
    found
}

/// A tenant with the fields it must have and no other.
fn sound_tenant() -> serde_json::Value {
    serde_json::json!({
        "id": "sound", "uploads_bucket": "sound-uploads", "outputs_bucket": "sound-outputs",
        "service_account": "sound@p.iam.gserviceaccount.com", "job": "projects/p/locations/l/jobs/sound",
    })
}

/// What is wrong with each of the fields by itself, and which of the sound ones are missing.
fn alone<T: DeserializeOwned>(whose: &str, sound: &serde_json::Value, fields: &Mapping) -> Vec<String> {
    let sound = serde_yaml_ng::to_value(sound).expect("plain YAML");
    let sound = sound.as_mapping().expect("a mapping");
    let mut found = Vec::new();
    let mut check = |what: &str, file: Mapping| {
        if let Err(error) = serde_yaml_ng::from_value::<T>(Value::Mapping(file)) {
            found.push(format!("{whose}: {what}: {error}"));
        }
    };
    for (key, value) in fields {
        let with = |value: Value| {
            let mut file = sound.clone();
            file.insert(key.clone(), value);
            file
        };
        let name = key.as_str().map_or_else(|| format!("{key:?}"), str::to_owned);
        match value {
            // Every field of these has a default, so each can be tried alone too.
            Value::Mapping(parts) if name == "limits" || name == "scan" => {
                for (part, value) in parts {
                    let one = Mapping::from_iter([(part.clone(), value.clone())]);
                    let part = part.as_str().map_or_else(|| format!("{part:?}"), str::to_owned);
                    check(&format!("{name}.{part}"), with(Value::Mapping(one)));
                }
            }
            value => check(&name, with(value.clone())),
        }
    }
    for key in sound.keys().filter(|key| !fields.contains_key(*key)) {
        let mut file = sound.clone();
        file.remove(key);
        check(key.as_str().unwrap_or_default(), file);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        parse("tenants.yaml".to_owned(), text).expect_err("it has mistakes").to_string()
    }

    #[test]
    fn every_field_that_cannot_be_read_is_told_at_once() {
        let text = refusal(
            r#"
schema: one
operators: []
tenants:
  - id: acme
    uploads_bucket: acme-uploads
    outputs_bucket: A_B
    service_account: acme@p.iam.gserviceaccount.com
    job: review-acme
    limits: { max_files: many, max_concurrent: -1, max_attempts: 2 }
    policy: { close: never }
  - uploads_bucket: 7
  - bolt
"#,
        );
        for told in [
            "registry: schema: ",
            "registry: operators: ",
            "tenant \"acme\": outputs_bucket: ",
            "tenant \"acme\": job: ",
            "tenant \"acme\": limits.max_files: ",
            "tenant \"acme\": limits.max_concurrent: ",
            "tenant \"acme\": policy: ",
            "tenant number 2: uploads_bucket: ",
            "tenant number 2: id: missing",
            "tenant number 2: job: missing",
            "tenant number 3: is no mapping",
        ] {
            assert!(text.contains(told), "{told} is missing from:\n{text}");
        }
        assert!(!text.contains("max_attempts") && !text.contains("acme-uploads"), "{text}");
    }

    #[test]
    fn what_is_no_registry_at_all_is_told_by_its_place() {
        assert!(refusal("schema: 1\ntenants: [}").contains("line 2"), "where YAML breaks");
        assert!(refusal("- a").starts_with("tenant registry tenants.yaml: invalid type: sequence"), "a list is none");
        assert!(refusal("{}").contains("registry: tenants: missing"));
    }
}
