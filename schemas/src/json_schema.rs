//! JSON Schemas of the wire types, generated from them. `cargo run --example json_schemas` writes
//! `schemas/json/`; a test holds the checked-in files against the types.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde::Serialize;

fn of<T: JsonSchema>() -> Schema {
    SchemaGenerator::new(SchemaSettings::draft2020_12()).into_root_schema_for::<T>()
}

/// A generator for a document that keeps its schemas under `components/schemas`, as OpenAPI and AsyncAPI do.
pub fn components() -> SchemaGenerator {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    SchemaGenerator::new(settings)
}

/// Every published schema: file name without `.json`, and the schema.
pub fn all() -> Vec<(&'static str, Schema)> {
    vec![
        ("tenant-registry", of::<crate::registry::RegistryFile>()),
        ("upload-event", of::<crate::upload_event::UploadEvent>()),
        ("review-requested", of::<crate::review_request::ReviewRequested>()),
        ("create-review", of::<crate::review_request::CreateReview>()),
        ("cancel-review", of::<crate::review_request::CancelReview>()),
        ("seal", of::<crate::seal::Seal>()),
        ("claim", of::<crate::claim::Claim>()),
        ("outcome", of::<crate::outcome::Outcome>()),
        ("outcome-written", of::<crate::completion::OutcomeWritten>()),
        ("completion", of::<crate::completion::Completion>()),
        ("agent-request", of::<crate::agent::AgentRequest>()),
        ("agent-event", of::<crate::agent::AgentEvent>()),
        ("findings", of::<crate::findings::Findings>()),
        ("dead-letter", of::<crate::dead_letter::DeadLetter>()),
        ("discard-letter", of::<crate::dead_letter::DiscardLetter>()),
        ("create-campaign", of::<crate::campaign::CreateCampaign>()),
        ("campaign", of::<crate::campaign::Campaign>()),
    ]
}

/// The text of a schema file: pretty JSON and a final newline.
pub fn render(document: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(document).expect("a document is plain JSON");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn checked_in_schemas_match_the_types() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("json");
        for (name, schema) in super::all() {
            held(&folder, name, &super::render(&schema));
        }
        held(&folder, "asyncapi", &super::render(&crate::async_api::document()));
    }

    fn held(folder: &Path, name: &str, made: &str) {
        let path = folder.join(format!("{name}.json"));
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(stored == made, "{} has drifted; run `cargo run --example json_schemas`", path.display());
    }
}
