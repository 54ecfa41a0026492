//! The API as OpenAPI 3.1 describes it, made of the table of calls and of the types they carry.
//!
//! Owns `schemas/json/openapi.json`, which a test holds against the table, and serves the same at `/v1/openapi.json`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::Json;
use carrel_schemas::json_schema::components;
use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use super::routes::{Body, Call, Who, calls};

/// The document.
pub fn open_api() -> Value {
    let mut generator = components();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for call in calls() {
        paths.entry(call.path).or_default().insert(call.method.to_owned(), operation(&call, &mut generator));
    }
    let refused = json!({
        "description": "Why the call was refused, in words, and what to do.",
        "content": { "application/json": { "schema": {
            "type": "object", "properties": { "error": { "type": "string" } }, "required": ["error"],
        } } },
    });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Carrel",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Reviews, what became of them, and what was not reviewed. What belongs to another tenant is \
                            answered as what does not exist.",
        },
        "security": [{ "bearer": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "bearer": {
                "type": "http", "scheme": "bearer",
                "description": "A key of the registry, or an identity token whose e-mail address it names.",
            } },
            "responses": { "Refused": refused },
            "schemas": generator.take_definitions(true),
        },
    })
}

/// Made once: anyone may ask for it, as often as they like.
pub(super) async fn show() -> Json<&'static Value> {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(open_api);
    Json(&DOCUMENT)
}

fn operation(call: &Call, generator: &mut SchemaGenerator) -> Value {
    let mut operation = json!({ "summary": call.says, "responses": responses(call, generator) });
    let parameters = parameters(call);
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(describe) = call.takes {
        let schema = describe(generator);
        operation["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    if call.who == Who::Anyone {
        operation["security"] = json!([]);
    }
    operation
}

fn parameters(call: &Call) -> Vec<Value> {
    let text = json!({ "type": "string" });
    let in_path = call.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let in_path = in_path.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": text }));
    let in_query = call
        .query
        .iter()
        .map(|(name, says)| json!({ "name": name, "in": "query", "description": says, "schema": text }));
    let key = call.has_key.then(|| {
        let says = "Asking twice with one key is asking once.";
        json!({ "name": "Idempotency-Key", "in": "header", "description": says, "schema": text })
    });
    let last = streams(call).then(|| {
        let says = "The id of the last event that was told, where the stream goes on after a break.";
        json!({ "name": "Last-Event-ID", "in": "header", "description": says, "schema": text })
    });
    in_path.chain(in_query).chain(key).chain(last).collect()
}

fn streams(call: &Call) -> bool {
    call.answers.iter().any(|(_, body)| matches!(body, Body::Events(_)))
}

/// What a call answers, and the refusals that its caller, its parameters and its body may meet.
fn responses(call: &Call, generator: &mut SchemaGenerator) -> Map<String, Value> {
    let mut responses = Map::new();
    for (status, body) in &call.answers {
        let content = match body {
            Body::Json(describe) => json!({ "application/json": { "schema": describe(generator) } }),
            Body::Events(describe) => json!({ "text/event-stream": { "schema": {
                "type": "string", "description": "The data of each event is JSON of this type.",
                "contentMediaType": "application/json", "contentSchema": describe(generator),
            } } }),
            Body::Empty => {
                responses.insert(status.to_string(), json!({ "description": "All was told; do not come back." }));
                continue;
            }
            Body::Text => json!({ "text/plain": { "schema": { "type": "string" } } }),
        };
        let says = if *status == 202 { "It was taken." } else { "The answer." };
        responses.insert(status.to_string(), json!({ "description": says, "content": content }));
    }
    let mut refusals: Vec<u16> = match call.who {
        Who::Anyone if call.path == "/readyz" => vec![503],
        Who::Anyone => vec![],
        Who::Tenant => vec![401, 404, 503],
        Who::Operator => vec![401, 403, 503],
    };
    if call.path.contains('{') || call.takes.is_some() {
        refusals.push(404);
    }
    // A tenant that is none is answered as one that is another's; any other id may be malformed, and so may a cursor.
    let has_id = call.path.replace("{tenant}", "").contains('{');
    if call.takes.is_some() || !call.query.is_empty() || has_id || streams(call) {
        refusals.push(400);
    }
    if call.who != Who::Anyone {
        refusals.push(429);
    }
    if call.method == "post" {
        refusals.push(409);
    }
    if call.path.ends_with("/completions") || call.path == "/v1/tenants/{tenant}/events" {
        refusals.push(410);
    }
    for status in refusals {
        responses.insert(status.to_string(), json!({ "$ref": "#/components/responses/Refused" }));
    }
    responses
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_checked_in_document_matches_the_calls_and_their_types() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/json/openapi.json");
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        let made = carrel_schemas::json_schema::render(&open_api());
        assert!(stored == made, "{} has drifted; run `cargo run --example json_schemas`", path.display());
    }

    #[test]
    fn every_call_is_described_and_every_reference_leads_somewhere() {
        fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str));
                    fields.values().for_each(|field| references(field, found));
                }
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        let document = open_api();
        for call in calls() {
            let operation = &document["paths"][call.path][call.method];
            assert!(operation["summary"].is_string(), "{} {}", call.method, call.path);
            assert!(!call.answers.is_empty(), "{} {} answers nothing", call.method, call.path);
        }
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for reference in found {
            let pointer = reference.strip_prefix('#').expect("a reference within the document");
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }
}
