//! One subscription: messages come with a receipt that acknowledges them, and a dropped receipt gives them back.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use google_cloud_pubsub::client::Subscriber;
use google_cloud_pubsub::subscriber::MessageStream;
use google_cloud_pubsub::subscriber::handler::Handler;

use crate::{Call, CallError};

/// The shortest that Pub/Sub takes.
const LEASE: Duration = Duration::from_secs(10);

/// A subscription with one identity.
#[derive(Debug, Clone)]
pub struct Subscription {
    client: Subscriber,
    name: String,
    outstanding: u32,
}

/// An open stream of a subscription's messages.
#[derive(Debug)]
pub struct Messages {
    stream: MessageStream,
    name: String,
}

/// One message in hand.
#[derive(Debug)]
pub struct Delivery {
    /// Pub/Sub's id of it; a redelivery has the same, a duplicate of the same event another.
    pub message_id: String,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// Its body.
    pub data: Bytes,
    /// Acknowledges it.
    pub receipt: Receipt,
}

/// The right to acknowledge one message. Dropping it gives the message back, which counts as a failed delivery.
#[derive(Debug)]
#[must_use = "a dropped receipt gives the message back"]
pub struct Receipt(Handler);

impl Receipt {
    /// The message is dealt with. Best effort: it may come again.
    pub fn ack(self) {
        self.0.ack();
    }

    /// The message shall come again.
    pub fn nack(self) {
        self.0.nack();
    }
}

impl Subscription {
    pub(crate) fn new(client: Subscriber, name: &str, outstanding: u32) -> Self {
        Self { client, name: name.to_owned(), outstanding }
    }

    /// `projects/P/subscriptions/S`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Opens a stream. It reconnects by itself; messages it holds are leased until their receipt is used. What a process
    /// that was killed had in hand comes again when its lease is over.
    pub fn open(&self) -> Messages {
        let stream = self
            .client
            .subscribe(&self.name)
            .set_max_outstanding_messages(i64::from(self.outstanding))
            .set_max_lease_extension(LEASE)
            .build();
        Messages { stream, name: self.name.clone() }
    }
}

impl Messages {
    /// The next message; `None` once the stream was closed. An error ends the stream: open another.
    pub fn next<'a>(&'a mut self) -> Call<'a, Option<Result<Delivery, CallError>>> {
        Box::pin(async move {
            let (message, handler) = match self.stream.next().await? {
                Ok(pair) => pair,
                Err(error) => return Some(Err(CallError::new("pull from", &self.name, error))),
            };
            Some(Ok(Delivery {
                message_id: message.message_id,
                attributes: message.attributes.into_iter().collect(),
                data: message.data,
                receipt: Receipt(handler),
            }))
        })
    }
}
