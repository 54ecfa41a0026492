//! What a message may hold, and how a refused acknowledgement is said.
//!
//! Limits: <https://cloud.google.com/pubsub/quotas>. Failures of single acknowledgements:
//! <https://cloud.google.com/pubsub/docs/exactly-once-delivery>.

use std::collections::HashMap;

use prost::Message as _;
use tonic::{Code, Status};

use super::NewMessage;
use super::proto::PubsubMessage;

const MAX_MESSAGES: usize = 1_000;
const MAX_REQUEST: usize = 10_000_000;
const MAX_ATTRIBUTES: usize = 100;
const MAX_KEY: usize = 256;
const MAX_VALUE: usize = 1_024;
const MAX_ORDERING_KEY: usize = 1_024;
/// Bytes of a request to acknowledge or to modify deadlines.
const MAX_ACKNOWLEDGEMENTS: usize = 512 << 10;

/// The messages of one publish request.
pub(super) fn messages(messages: Vec<PubsubMessage>) -> Result<Vec<NewMessage>, Status> {
    let sizes: Vec<usize> = messages.iter().map(size).collect::<Result<_, _>>()?;
    if messages.is_empty() || messages.len() > MAX_MESSAGES || sizes.iter().sum::<usize>() > MAX_REQUEST {
        return Err(Status::invalid_argument("a publish request has 1 to 1,000 messages and at most 10 MB"));
    }
    Ok(messages.into_iter().map(new_message).collect())
}

/// Whether a request to acknowledge, or to modify deadlines, is small enough.
pub(super) fn acknowledgements(request: &impl prost::Message) -> Result<(), Status> {
    if request.encoded_len() > MAX_ACKNOWLEDGEMENTS {
        return Err(Status::invalid_argument("such a request has at most 512 KiB"));
    }
    Ok(())
}

fn size(message: &PubsubMessage) -> Result<usize, Status> {
    if message.data.is_empty() && message.attributes.is_empty() {
        return Err(Status::invalid_argument("a message needs data or attributes"));
    }
    if message.attributes.len() > MAX_ATTRIBUTES {
        return Err(Status::invalid_argument("a message has at most 100 attributes"));
    }
    if message.ordering_key.len() > MAX_ORDERING_KEY {
        return Err(Status::invalid_argument("an ordering key has at most 1,024 bytes"));
    }
    let mut size = message.data.len() + message.ordering_key.len();
    for (key, value) in &message.attributes {
        if key.is_empty() || key.len() > MAX_KEY || value.len() > MAX_VALUE {
            return Err(Status::invalid_argument(
                "an attribute has a key of 1 to 256 bytes and a value of at most 1,024",
            ));
        }
        size += key.len() + value.len();
    }
    Ok(size)
}

fn new_message(message: PubsubMessage) -> NewMessage {
    NewMessage {
        data: message.data,
        attributes: message.attributes.into_iter().collect(),
        ordering_key: message.ordering_key,
    }
}

/// google.rpc.Status, as far as it carries an [`ErrorInfo`].
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// google.rpc.ErrorInfo.
#[derive(Clone, PartialEq, prost::Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(map = "string, string", tag = "3")]
    metadata: HashMap<String, String>,
}

const INVALID: &str = "Some acknowledgement ids in the request were invalid. This could be because the acknowledgement \
                       ids have expired or the acknowledgement ids were malformed.";

/// Refuses these acknowledgement ids; the others of the request have had their effect.
pub(super) fn refuse(invalid: Vec<String>) -> Result<(), Status> {
    if invalid.is_empty() {
        return Ok(());
    }
    let failure = |id| (id, "PERMANENT_FAILURE_INVALID_ACK_ID".to_owned());
    let info = ErrorInfo {
        reason: "EXACTLY_ONCE_ACKID_FAILURE".to_owned(),
        domain: "pubsub.googleapis.com".to_owned(),
        metadata: invalid.into_iter().map(failure).collect(),
    };
    let info = prost_types::Any {
        type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(),
        value: info.encode_to_vec(),
    };
    let code = Code::InvalidArgument;
    let status = RpcStatus { code: code.into(), message: INVALID.to_owned(), details: vec![info] };
    Err(Status::with_details(code, INVALID, status.encode_to_vec().into()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::pubsub::proto::AcknowledgeRequest;

    fn message(size: usize) -> PubsubMessage {
        PubsubMessage { data: Bytes::from(vec![b'x'; size]), ..PubsubMessage::default() }
    }

    fn with(key: &str, value: &str, times: usize) -> PubsubMessage {
        let attribute = |number| (if times > 1 { format!("{key}{number}") } else { key.to_owned() }, value.to_owned());
        PubsubMessage { attributes: (0..times).map(attribute).collect(), ..PubsubMessage::default() }
    }

    #[test]
    fn what_is_within_googles_limits_passes_and_nothing_beyond() {
        let ordered = |size: usize| PubsubMessage { ordering_key: "k".repeat(size), ..message(1) };
        for (case, wanted, passes) in [
            ("no message", vec![], false),
            ("an empty message", vec![message(0)], false),
            ("a thousand", vec![message(1); 1_000], true),
            ("more", vec![message(1); 1_001], false),
            ("10 MB", vec![message(5_000_000), message(5_000_000)], true),
            ("more", vec![message(5_000_000), message(5_000_001)], false),
            ("attributes", vec![with("k", "", 100)], true),
            ("more", vec![with("k", "", 101)], false),
            ("a key", vec![with(&"k".repeat(256), &"v".repeat(1_024), 1)], true),
            ("a longer one", vec![with(&"k".repeat(257), "", 1)], false),
            ("a longer value", vec![with("k", &"v".repeat(1_025), 1)], false),
            ("an ordering key", vec![ordered(1_024)], true),
            ("a longer one", vec![ordered(1_025)], false),
        ] {
            assert_eq!(messages(wanted).is_ok(), passes, "{case}");
        }
    }

    #[test]
    fn a_request_acknowledges_what_fits_into_512_kib() {
        // A tag, two bytes of length and this.
        let request = |count| AcknowledgeRequest { ack_ids: vec!["x".repeat(1_021); count], ..Default::default() };
        assert!(acknowledgements(&request(512)).is_ok());
        assert!(acknowledgements(&request(513)).is_err());
    }
}
