//! One open stream of google.pubsub.v1: messages out as there is room, acknowledgements in, confirmed where the
//! subscription delivers exactly once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use super::core::Room;
use super::deliver::BATCH_BYTES;
use super::grpc::{received, seconds};
use super::proto::streaming_pull_response::{
    AcknowledgeConfirmation, ModifyAckDeadlineConfirmation, SubscriptionProperties,
};
use super::proto::subscriber_server::Subscriber;
use super::proto::{StreamingPullRequest, StreamingPullResponse};
use super::{PubSub, Subscription as Live};

/// Messages sent in one response of a stream at most.
const BATCH: usize = 256;

type Answers = mpsc::Sender<Result<StreamingPullResponse, Status>>;

/// One open stream.
struct Pull {
    service: PubSub,
    subscription: Arc<Live>,
    holder: u64,
    deadline: Duration,
    /// What it may have in hand.
    outstanding: Room,
    sender: Answers,
}

impl PubSub {
    pub(super) fn open_stream(
        &self,
        first: StreamingPullRequest,
        inbound: Streaming<StreamingPullRequest>,
    ) -> Result<Response<<Self as Subscriber>::StreamingPullStream>, Status> {
        let subscription = self.find_attached(&first.subscription)?;
        if !(10..=600).contains(&first.stream_ack_deadline_seconds) {
            return Err(Status::invalid_argument("stream_ack_deadline_seconds must be 10 to 600"));
        }
        let limit = |max: i64| usize::try_from(max).ok().filter(|max| *max > 0).unwrap_or(usize::MAX);
        let (messages, bytes) = (limit(first.max_outstanding_messages), limit(first.max_outstanding_bytes));
        let (sender, receiver) = mpsc::channel(4);
        let pull = Pull {
            service: self.clone(),
            subscription,
            holder: self.next_holder(),
            deadline: seconds(first.stream_ack_deadline_seconds),
            outstanding: Room { messages, bytes },
            sender,
        };
        self.0.tasks.spawn(pull.run(first, inbound));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

fn confirmed(all: Vec<String>, invalid: &[String]) -> Vec<String> {
    let invalid: HashSet<&String> = invalid.iter().collect();
    all.into_iter().filter(|id| !invalid.contains(id)).collect()
}

impl Pull {
    async fn run(mut self, first: StreamingPullRequest, mut inbound: Streaming<StreamingPullRequest>) {
        self.hear(first).await;
        // The client knows the subscription's properties from the first response, which may be empty.
        if self.send(self.answer()).await.is_err() {
            return;
        }
        let subscription = self.subscription.clone();
        loop {
            let changed = subscription.changed.notified();
            tokio::pin!(changed);
            // Registered before the look: a message that comes in between is not missed.
            changed.as_mut().enable();
            let room = self.room();
            match self.service.deliver(&subscription, room, self.deadline, self.holder).await {
                Ok(delivered) if delivered.is_empty() => {}
                Ok(delivered) => {
                    let received_messages = received(delivered, subscription.record().dead_letter.is_some());
                    if self.send(StreamingPullResponse { received_messages, ..self.answer() }).await.is_err() {
                        return;
                    }
                    if room.messages == BATCH {
                        self.hear_waiting(&mut inbound).await;
                        continue;
                    }
                }
                Err(error) => tracing::error!(%error, "a stream could not deliver"),
            }
            tokio::select! {
                heard = inbound.message() => match heard {
                    Ok(Some(request)) => self.hear(request).await,
                    Ok(None) | Err(_) => return,
                },
                () = &mut changed => {}
                () = tokio::time::sleep(subscription.idle_for(room, self.holder)) => {}
                () = self.sender.closed() => return,
                () = subscription.replaced.cancelled() => {
                    // There is something to reconnect to, unless it was deleted or detached.
                    let found = self.service.find_attached(&subscription.name);
                    let end = found.map_or_else(|gone| gone, |_| Status::unavailable("the subscription was changed"));
                    drop(self.sender.send(Err(end)).await);
                    return;
                }
                () = self.service.0.closing.cancelled() => {
                    // The client reconnects; what it holds is delivered again after its deadline.
                    drop(self.sender.send(Err(Status::unavailable("shutting down"))).await);
                    return;
                }
            }
        }
    }

    /// What it may be sent now.
    fn room(&self) -> Room {
        let held = self.subscription.core().held_by(self.holder);
        let bytes = self.outstanding.bytes.saturating_sub(held.bytes);
        let messages = if bytes == 0 { 0 } else { self.outstanding.messages.saturating_sub(held.messages) };
        Room { messages: messages.min(BATCH), bytes: bytes.min(BATCH_BYTES) }
    }

    /// Requests that lie ready, without waiting for more.
    async fn hear_waiting(&mut self, inbound: &mut Streaming<StreamingPullRequest>) {
        while let Some(Ok(Some(request))) = futures::FutureExt::now_or_never(inbound.message()) {
            self.hear(request).await;
        }
        tokio::task::yield_now().await;
    }

    async fn hear(&mut self, request: StreamingPullRequest) {
        if request.stream_ack_deadline_seconds >= 10 {
            self.deadline = seconds(request.stream_ack_deadline_seconds.min(600));
        }
        let exactly_once = self.subscription.record().exactly_once;
        let changed = request.modify_deadline_ack_ids;
        if !changed.is_empty() {
            let changes =
                changed.iter().cloned().zip(request.modify_deadline_seconds.iter().map(|s| seconds((*s).min(600))));
            let invalid_ack_ids = self.service.modify(&self.subscription, changes);
            if exactly_once {
                let confirmation = ModifyAckDeadlineConfirmation {
                    ack_ids: confirmed(changed, &invalid_ack_ids),
                    invalid_ack_ids,
                    temporary_failed_ack_ids: Vec::new(),
                };
                let modify_ack_deadline_confirmation = Some(confirmation);
                // Nobody hears it of a stream that has ended, which the loop sees by itself.
                let answer = StreamingPullResponse { modify_ack_deadline_confirmation, ..self.answer() };
                drop(self.sender.send(Ok(answer)).await);
            }
        }
        if !request.ack_ids.is_empty() {
            self.acknowledge(request.ack_ids, exactly_once);
        }
    }

    /// Confirms once it is durable; the stream goes on meanwhile.
    fn acknowledge(&self, ack_ids: Vec<String>, exactly_once: bool) {
        let (service, subscription) = (self.service.clone(), self.subscription.clone());
        let (sender, answer) = (self.sender.clone(), self.answer());
        self.service.0.tasks.spawn(async move {
            let asked = if exactly_once { ack_ids.clone() } else { Vec::new() };
            let confirmation = match service.acknowledge(&subscription, ack_ids).await {
                Ok(invalid_ack_ids) => AcknowledgeConfirmation {
                    ack_ids: confirmed(asked, &invalid_ack_ids),
                    invalid_ack_ids,
                    ..AcknowledgeConfirmation::default()
                },
                Err(error) => {
                    tracing::error!(%error, "an acknowledgement was not written: the messages come again");
                    AcknowledgeConfirmation { temporary_failed_ack_ids: asked, ..AcknowledgeConfirmation::default() }
                }
            };
            if exactly_once {
                let answer = StreamingPullResponse { acknowledge_confirmation: Some(confirmation), ..answer };
                drop(sender.send(Ok(answer)).await);
            }
        });
    }

    /// A response with nothing but what the client is to know of the subscription.
    fn answer(&self) -> StreamingPullResponse {
        let record = self.subscription.record();
        let properties = SubscriptionProperties {
            exactly_once_delivery_enabled: record.exactly_once,
            message_ordering_enabled: record.ordered,
        };
        StreamingPullResponse { subscription_properties: Some(properties), ..StreamingPullResponse::default() }
    }

    async fn send(&self, response: StreamingPullResponse) -> Result<(), ()> {
        self.sender.send(Ok(response)).await.map_err(|_| ())
    }
}
