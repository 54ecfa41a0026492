//! One topic, published to one message at a time: the answer is the durable message id.

use std::collections::BTreeMap;

use bytes::Bytes;
use google_cloud_pubsub::client::Publisher;
use google_cloud_pubsub::model::Message;

use crate::CallError;

/// A topic with one identity.
#[derive(Debug, Clone)]
pub struct Topic {
    name: String,
    publisher: Publisher,
}

impl Topic {
    pub(crate) fn new(name: &str, publisher: Publisher) -> Self {
        Self { name: name.to_owned(), publisher }
    }

    /// Publishes one message and returns its id once Pub/Sub holds it. After an error it may be held all the same.
    pub async fn publish(&self, data: Bytes, attributes: BTreeMap<String, String>) -> Result<String, CallError> {
        let message = Message::new().set_data(data).set_attributes(attributes);
        self.publisher.publish(message).await.map_err(|error| CallError::local("publish to", &self.name, error))
    }
}
