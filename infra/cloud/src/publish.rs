//! One topic, published to one message at a time: the answer is the durable message id.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use google_cloud_pubsub::client::Publisher;
use google_cloud_pubsub::model::Message;

use crate::{Call, CallError};

/// A topic with one identity.
#[derive(Debug, Clone)]
pub struct Topic {
    name: String,
    publisher: Publisher,
    answer_within: Duration,
}

impl Topic {
    pub(crate) fn new(name: &str, publisher: Publisher, answer_within: Duration) -> Self {
        Self { name: name.to_owned(), publisher, answer_within }
    }

    /// Publishes one message and returns its id once Pub/Sub holds it. After an error it may be held all the same.
    pub fn publish<'a>(
        &'a self,
        data: Bytes,
        attributes: BTreeMap<String, String>,
    ) -> Call<'a, Result<String, CallError>> {
        Box::pin(async move {
            let message = Message::new().set_data(data).set_attributes(attributes);
            match tokio::time::timeout(self.answer_within, self.publisher.publish(message)).await {
                Ok(answer) => answer.map_err(|error| CallError::local("publish to", &self.name, error)),
                Err(_) => {
                    let late = format!("no answer within {:?}", self.answer_within);
                    Err(CallError::local("publish to", &self.name, late))
                }
            }
        })
    }
}
