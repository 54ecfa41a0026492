//! The topics as AsyncAPI 3.0 describes them, made of the wire types: what the fleet takes, and what it tells.
//!
//! Owns `schemas/json/asyncapi.json`. The topic `outcomes` is internal and stays out. Operations are the fleet's own:
//! it receives uploads and review requests, and sends completions.

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Value, json};

use crate::completion::{ATTRIBUTE_PACK, ATTRIBUTE_STATE, ATTRIBUTE_TENANT, COMPLETED, Completion};
use crate::json_schema::components;
use crate::review_request::{REVIEW_REQUESTED, ReviewRequested};
use crate::upload_event::OBJECT_FINALIZE;

/// The document.
pub fn document() -> Value {
    let mut generator = components();
    let completed = message::<Completion>(
        &mut generator,
        "A review ended. It may come more than once: deduplicate by `ce-id`.",
        with(
            cloud_event(COMPLETED),
            json!({
                ATTRIBUTE_TENANT: { "type": "string", "description": "The tenant, to filter on." },
                ATTRIBUTE_STATE: {
                    "enum": ["delivered", "refused", "inputs_changed", "failed", "cancelled", "superseded"],
                    "description": "How it ended, to filter on.",
                },
                ATTRIBUTE_PACK: { "type": "string", "description": "The pack, to filter on." },
            }),
            &[ATTRIBUTE_TENANT, ATTRIBUTE_STATE, ATTRIBUTE_PACK],
        ),
    );
    let requested = message::<ReviewRequested>(
        &mut generator,
        "A pack is to be reviewed. Two requests of one key are one.",
        cloud_event(REVIEW_REQUESTED),
    );
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Carrel's topics",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Messages of Google Cloud Pub/Sub, delivered at least once and in no order. Headers are attributes.",
        },
        "defaultContentType": "application/json",
        "channels": {
            "uploads": channel("Cloud Storage's notifications of the tenants' uploads buckets.", "uploaded"),
            "review-requests": channel("Requests for reviews, from the platform.", "review_requested"),
            "completions": channel("What became of every review.", "review_completed"),
        },
        "operations": {
            "hear_of_uploads": operation("receive", "uploads", "uploaded"),
            "take_review_requests": operation("receive", "review-requests", "review_requested"),
            "announce_completions": operation("send", "completions", "review_completed"),
        },
        "components": {
            "messages": { "uploaded": uploaded(), "review_requested": requested, "review_completed": completed },
            "schemas": generator.take_definitions(true),
        },
    })
}

fn channel(description: &str, message: &str) -> Value {
    let message_ref = json!({ "$ref": format!("#/components/messages/{message}") });
    json!({ "description": description, "messages": { message: message_ref } })
}

fn operation(action: &str, channel: &str, message: &str) -> Value {
    json!({
        "action": action,
        "channel": { "$ref": format!("#/channels/{channel}") },
        "messages": [{ "$ref": format!("#/channels/{channel}/messages/{message}") }],
    })
}

fn message<T: JsonSchema>(generator: &mut SchemaGenerator, summary: &str, headers: Value) -> Value {
    json!({
        "summary": summary,
        "contentType": "application/json",
        "headers": headers,
        "payload": generator.subschema_for::<T>(),
    })
}

/// The attributes of CloudEvents 1.0 in Pub/Sub's binary binding.
fn cloud_event(kind: &str) -> Value {
    json!({
        "type": "object",
        "properties": {
            "ce-specversion": { "const": "1.0" },
            "ce-id": { "type": "string" },
            "ce-source": { "type": "string", "format": "uri-reference" },
            "ce-type": { "const": kind },
            "ce-subject": { "type": "string" },
            "ce-time": { "type": "string", "format": "date-time" },
        },
        "required": ["ce-specversion", "ce-id", "ce-source", "ce-type"],
    })
}

fn with(mut headers: Value, more: Value, required: &[&str]) -> Value {
    if let (Some(known), Value::Object(more)) = (headers["properties"].as_object_mut(), more) {
        known.extend(more);
    }
    if let Some(known) = headers["required"].as_array_mut() {
        known.extend(required.iter().map(|name| Value::from(*name)));
    }
    headers
}

/// Source: <https://cloud.google.com/storage/docs/pubsub-notifications#format>.
fn uploaded() -> Value {
    json!({
        "summary": "A new version of an object, as Cloud Storage tells it.",
        "headers": {
            "type": "object",
            "properties": {
                "eventType": { "const": OBJECT_FINALIZE },
                "payloadFormat": { "enum": ["JSON_API_V1", "NONE"] },
                "bucketId": { "type": "string" },
                "objectId": { "type": "string", "description": "The object's name; its first folder is the pack." },
                "objectGeneration": { "type": "string", "pattern": "^[0-9]+$" },
                "overwroteGeneration": { "type": "string", "pattern": "^[0-9]+$" },
                "eventTime": { "type": "string", "format": "date-time" },
            },
            "required": ["eventType", "payloadFormat", "bucketId", "objectId", "objectGeneration"],
        },
        "payload": {
            "description": "The object resource of the JSON API, or nothing where the format is NONE.",
            "type": "object",
            "properties": {
                "bucket": { "type": "string" },
                "name": { "type": "string" },
                "generation": { "type": "string" },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ReviewId;
    use crate::outcome::{FailureClass, Verdict};

    #[test]
    fn completions_are_filtered_by_the_states_that_there_are() {
        let document = document();
        let kinds = document["components"]["schemas"]["Verdict"]["oneOf"].as_array().expect("its variants");
        let kinds: Vec<&Value> = kinds.iter().map(|kind| &kind["properties"]["state"]["const"]).collect();
        let by = ReviewId::parse(format!("rv_{}", "0".repeat(32))).expect("an id");
        let class = FailureClass::Crashed;
        let states = [
            Verdict::Delivered { files: Vec::new(), top_findings: Vec::new() },
            Verdict::Refused { reason: String::new() },
            Verdict::InputsChanged { changed: Vec::new() },
            Verdict::Failed { class, message: String::new(), log_tail: None },
            Verdict::Cancelled { reason: String::new() },
            Verdict::Superseded { by },
        ]
        .map(|verdict| verdict.state());
        let headers = &document["components"]["messages"]["review_completed"]["headers"]["properties"];
        assert_eq!(headers[ATTRIBUTE_STATE]["enum"], json!(states));
        assert_eq!(json!(kinds), json!(states), "each variant is among them");
    }
}
