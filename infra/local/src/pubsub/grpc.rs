//! google.pubsub.v1 over gRPC: publish, pull, streaming pull, acknowledge, and the administration clients use.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::ack_id::AckId;
use super::core::MessageId;
use super::proto::publisher_server::Publisher;
use super::proto::streaming_pull_response::SubscriptionProperties;
use super::proto::subscriber_server::Subscriber;
use super::proto::*;
use super::{Delivered, NewMessage, PubSub, Subscription as Live};
use crate::faults::Fault;
use crate::store::StoreError;

/// Messages sent in one response of a stream at most.
const BATCH: usize = 256;
const MAX_REQUEST: usize = 10_000_000;
const MAX_ATTRIBUTES: usize = 100;
const MAX_KEY: usize = 256;
const MAX_VALUE: usize = 1024;

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "pub/sub answers with an internal error");
        Status::internal("the database did not answer")
    }
}

impl PubSub {
    pub(super) fn allow(&self, authorization: Option<&str>, permission: &str, resource: &str) -> Result<(), Status> {
        let who = self.0.iam.authenticate(authorization).map_err(|error| Status::unauthenticated(error.to_string()))?;
        self.0.iam.check(&who, permission, resource).map_err(|error| Status::permission_denied(error.to_string()))
    }

    fn permit<T>(&self, request: &Request<T>, permission: &str, resource: &str) -> Result<(), Status> {
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        self.allow(header, permission, resource)
    }

    pub(super) fn find(&self, name: &str) -> Result<Arc<Live>, Status> {
        self.subscription(name)
            .ok_or_else(|| Status::not_found(format!("Subscription does not exist (resource={name})")))
    }
}

fn check_message(message: &PubsubMessage) -> Result<usize, Status> {
    if message.data.is_empty() && message.attributes.is_empty() {
        return Err(Status::invalid_argument("a message needs data or attributes"));
    }
    if message.attributes.len() > MAX_ATTRIBUTES {
        return Err(Status::invalid_argument("a message has at most 100 attributes"));
    }
    let mut size = message.data.len();
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

#[tonic::async_trait]
impl Publisher for PubSub {
    async fn create_topic(&self, request: Request<Topic>) -> Result<Response<Topic>, Status> {
        let name = request.get_ref().name.clone();
        self.permit(&request, "pubsub.topics.create", &name)?;
        self.admin_create_topic(&name).await?;
        Ok(Response::new(request.into_inner()))
    }

    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        let topic = request.get_ref().topic.clone();
        self.permit(&request, "pubsub.topics.publish", &topic)?;
        if self.subscriptions_of(&topic).is_none() {
            return Err(Status::not_found(format!("Topic not found (resource={topic})")));
        }
        let messages = request.into_inner().messages;
        let sizes: Vec<usize> = messages.iter().map(check_message).collect::<Result<_, _>>()?;
        if messages.is_empty() || messages.len() > 1000 || sizes.iter().sum::<usize>() > MAX_REQUEST {
            return Err(Status::invalid_argument("a publish request has 1 to 1,000 messages and at most 10 MB"));
        }
        let messages = messages.into_iter().map(new_message).collect();
        let message_ids = PubSub::publish(self, topic, messages).await?;
        if self.0.faults.roll(Fault::LoseReply) {
            return Err(Status::unavailable("the reply was lost"));
        }
        Ok(Response::new(PublishResponse { message_ids }))
    }

    async fn get_topic(&self, request: Request<GetTopicRequest>) -> Result<Response<Topic>, Status> {
        let name = request.get_ref().topic.clone();
        self.permit(&request, "pubsub.topics.get", &name)?;
        Ok(Response::new(self.admin_get_topic(&name)?))
    }

    async fn list_topics(&self, request: Request<ListTopicsRequest>) -> Result<Response<ListTopicsResponse>, Status> {
        let project = request.get_ref().project.clone();
        self.permit(&request, "pubsub.topics.list", &project)?;
        Ok(Response::new(ListTopicsResponse { topics: self.admin_topics(&project), next_page_token: String::new() }))
    }

    async fn delete_topic(&self, request: Request<DeleteTopicRequest>) -> Result<Response<()>, Status> {
        let name = request.get_ref().topic.clone();
        self.permit(&request, "pubsub.topics.delete", &name)?;
        self.admin_delete_topic(&name).await?;
        Ok(Response::new(()))
    }
}

fn messages(ids: &[String]) -> Vec<MessageId> {
    ids.iter().filter_map(|id| Some(AckId::parse(id)?.message)).collect()
}

fn received(delivered: Vec<Delivered>, counts_attempts: bool) -> Vec<ReceivedMessage> {
    let received = |delivered: Delivered| ReceivedMessage {
        ack_id: delivered.id.to_string(),
        message: Some(delivered.message),
        delivery_attempt: if counts_attempts { i32::try_from(delivered.id.attempt).unwrap_or(i32::MAX) } else { 0 },
    };
    delivered.into_iter().map(received).collect()
}

fn seconds(number: i32) -> Duration {
    Duration::from_secs(u64::try_from(number).unwrap_or(0))
}

#[tonic::async_trait]
impl Subscriber for PubSub {
    type StreamingPullStream = Pin<Box<dyn Stream<Item = Result<StreamingPullResponse, Status>> + Send>>;

    async fn create_subscription(&self, request: Request<Subscription>) -> Result<Response<Subscription>, Status> {
        let name = request.get_ref().name.clone();
        self.permit(&request, "pubsub.subscriptions.create", &name)?;
        self.permit(&request, "pubsub.topics.attachSubscription", &request.get_ref().topic.clone())?;
        Ok(Response::new(self.admin_create_subscription(request.into_inner()).await?))
    }

    async fn get_subscription(
        &self,
        request: Request<GetSubscriptionRequest>,
    ) -> Result<Response<Subscription>, Status> {
        let name = request.get_ref().subscription.clone();
        self.permit(&request, "pubsub.subscriptions.get", &name)?;
        Ok(Response::new(self.admin_get_subscription(&name)?))
    }

    async fn update_subscription(
        &self,
        request: Request<UpdateSubscriptionRequest>,
    ) -> Result<Response<Subscription>, Status> {
        let name = request.get_ref().subscription.as_ref().map(|s| s.name.clone()).unwrap_or_default();
        self.permit(&request, "pubsub.subscriptions.update", &name)?;
        let request = request.into_inner();
        let paths = request.update_mask.map(|mask| mask.paths).unwrap_or_default();
        Ok(Response::new(self.admin_update_subscription(request.subscription.unwrap_or_default(), &paths).await?))
    }

    async fn list_subscriptions(
        &self,
        request: Request<ListSubscriptionsRequest>,
    ) -> Result<Response<ListSubscriptionsResponse>, Status> {
        let project = request.get_ref().project.clone();
        self.permit(&request, "pubsub.subscriptions.list", &project)?;
        let subscriptions = self.admin_subscriptions(&project);
        Ok(Response::new(ListSubscriptionsResponse { subscriptions, next_page_token: String::new() }))
    }

    async fn delete_subscription(&self, request: Request<DeleteSubscriptionRequest>) -> Result<Response<()>, Status> {
        let name = request.get_ref().subscription.clone();
        self.permit(&request, "pubsub.subscriptions.delete", &name)?;
        self.admin_delete_subscription(&name).await?;
        Ok(Response::new(()))
    }

    async fn modify_ack_deadline(&self, request: Request<ModifyAckDeadlineRequest>) -> Result<Response<()>, Status> {
        self.permit(&request, "pubsub.subscriptions.consume", &request.get_ref().subscription)?;
        let request = request.into_inner();
        if !(0..=600).contains(&request.ack_deadline_seconds) {
            return Err(Status::invalid_argument("an ack deadline has 0 to 600 seconds"));
        }
        let subscription = self.find(&request.subscription)?;
        let deadline = seconds(request.ack_deadline_seconds);
        self.modify(&subscription, request.ack_ids.iter().filter_map(|id| Some((AckId::parse(id)?, deadline))));
        Ok(Response::new(()))
    }

    async fn acknowledge(&self, request: Request<AcknowledgeRequest>) -> Result<Response<()>, Status> {
        self.permit(&request, "pubsub.subscriptions.consume", &request.get_ref().subscription)?;
        let subscription = self.find(&request.get_ref().subscription)?;
        PubSub::acknowledge(self, &subscription, messages(&request.get_ref().ack_ids)).await?;
        Ok(Response::new(()))
    }

    async fn pull(&self, request: Request<PullRequest>) -> Result<Response<PullResponse>, Status> {
        self.permit(&request, "pubsub.subscriptions.consume", &request.get_ref().subscription)?;
        let subscription = self.find(&request.get_ref().subscription)?;
        let max = usize::try_from(request.get_ref().max_messages).ok().filter(|max| *max > 0);
        let max = max.ok_or_else(|| Status::invalid_argument("max_messages must be at least 1"))?.min(1000);
        let deadline = Duration::from_secs(u64::from(subscription.record.ack_deadline));
        let holder = self.next_holder();
        let patience =
            tokio::time::Instant::now() + Duration::from_secs(if request.get_ref().return_immediately { 0 } else { 5 });
        loop {
            let changed = subscription.changed.notified();
            let delivered = self.deliver(&subscription, max, deadline, holder).await?;
            if !delivered.is_empty() || tokio::time::Instant::now() >= patience {
                let counts = subscription.record.dead_letter.is_some();
                return Ok(Response::new(PullResponse { received_messages: received(delivered, counts) }));
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(subscription.idle_for(max)) => {}
                () = tokio::time::sleep_until(patience) => {}
                () = self.0.closing.cancelled() => return Err(Status::unavailable("shutting down")),
            }
        }
    }

    async fn streaming_pull(
        &self,
        request: Request<Streaming<StreamingPullRequest>>,
    ) -> Result<Response<Self::StreamingPullStream>, Status> {
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut inbound = request.into_inner();
        let first =
            inbound.message().await?.ok_or_else(|| Status::invalid_argument("the stream begins with a request"))?;
        self.allow(header.as_deref(), "pubsub.subscriptions.consume", &first.subscription)?;
        let subscription = self.find(&first.subscription)?;
        if !(10..=600).contains(&first.stream_ack_deadline_seconds) {
            return Err(Status::invalid_argument("stream_ack_deadline_seconds must be 10 to 600"));
        }
        let (sender, receiver) = mpsc::channel(4);
        let pull = Pull {
            service: self.clone(),
            subscription,
            holder: self.next_holder(),
            deadline: seconds(first.stream_ack_deadline_seconds),
            outstanding: usize::try_from(first.max_outstanding_messages)
                .ok()
                .filter(|max| *max > 0)
                .unwrap_or(usize::MAX),
            sender,
        };
        self.0.tasks.spawn(pull.run(first, inbound));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// One open stream.
struct Pull {
    service: PubSub,
    subscription: Arc<Live>,
    holder: u64,
    deadline: Duration,
    outstanding: usize,
    sender: mpsc::Sender<Result<StreamingPullResponse, Status>>,
}

impl Pull {
    async fn run(mut self, first: StreamingPullRequest, mut inbound: Streaming<StreamingPullRequest>) {
        self.hear(first);
        // The client knows the subscription's properties from the first response, which may be empty.
        if self.send(Vec::new()).await.is_err() {
            return;
        }
        let subscription = self.subscription.clone();
        loop {
            let changed = subscription.changed.notified();
            tokio::pin!(changed);
            // Registered before the look: a message that comes in between is not missed.
            changed.as_mut().enable();
            let room = self.outstanding.saturating_sub(subscription.core().held_by(self.holder)).min(BATCH);
            match self.service.deliver(&subscription, room, self.deadline, self.holder).await {
                Ok(delivered) if delivered.is_empty() => {}
                Ok(delivered) => {
                    let received = received(delivered, subscription.record.dead_letter.is_some());
                    if self.send(received).await.is_err() {
                        return;
                    }
                    if room == BATCH {
                        self.hear_waiting(&mut inbound).await;
                        continue;
                    }
                }
                Err(error) => tracing::error!(%error, "a stream could not deliver"),
            }
            tokio::select! {
                heard = inbound.message() => match heard {
                    Ok(Some(request)) => self.hear(request),
                    Ok(None) | Err(_) => return,
                },
                () = &mut changed => {}
                () = tokio::time::sleep(subscription.idle_for(room)) => {}
                () = self.sender.closed() => return,
                () = subscription.replaced.cancelled() => {
                    // There is something to reconnect to, unless it was deleted.
                    let found = self.service.find(&subscription.name);
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

    /// Requests that lie ready, without waiting for more.
    async fn hear_waiting(&mut self, inbound: &mut Streaming<StreamingPullRequest>) {
        while let Some(Ok(Some(request))) = futures::FutureExt::now_or_never(inbound.message()) {
            self.hear(request);
        }
        tokio::task::yield_now().await;
    }

    fn hear(&mut self, request: StreamingPullRequest) {
        if request.stream_ack_deadline_seconds >= 10 {
            self.deadline = seconds(request.stream_ack_deadline_seconds.min(600));
        }
        let changes = request.modify_deadline_ack_ids.iter().zip(&request.modify_deadline_seconds);
        let changes = changes.filter_map(|(id, number)| Some((AckId::parse(id)?, seconds(*number))));
        self.service.modify(&self.subscription, changes);
        let acks = messages(&request.ack_ids);
        if !acks.is_empty() {
            let (service, subscription) = (self.service.clone(), self.subscription.clone());
            self.service.0.tasks.spawn(async move {
                if let Err(error) = service.acknowledge(&subscription, acks).await {
                    tracing::error!(%error, "an acknowledgement was not written: the messages come again");
                }
            });
        }
    }

    async fn send(&self, received_messages: Vec<ReceivedMessage>) -> Result<(), ()> {
        let properties =
            SubscriptionProperties { exactly_once_delivery_enabled: false, message_ordering_enabled: false };
        let response = StreamingPullResponse { received_messages, subscription_properties: Some(properties) };
        self.sender.send(Ok(response)).await.map_err(|_| ())
    }
}
