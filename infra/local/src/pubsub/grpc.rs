//! google.pubsub.v1 over gRPC, call by call: who may do it, then the deed. Streams are in [`super::stream`].

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::core::Room;
use super::deliver::{BATCH_BYTES, Delivered};
use super::proto::publisher_server::Publisher;
use super::proto::subscriber_server::Subscriber;
use super::proto::*;
use super::{PubSub, Subscription as Live, admin, check};
use crate::faults::Fault;
use crate::store::StoreError;

/// How long a pull waits for a first message.
const PATIENCE: Duration = Duration::from_secs(5);

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

    /// Whoever has dead letters sent to a topic may publish to it. At Google it is the service's own account that must.
    fn permit_dead_letters<T>(&self, request: &Request<T>, wanted: Option<&Subscription>) -> Result<(), Status> {
        match wanted.and_then(|wanted| wanted.dead_letter_policy.as_ref()) {
            Some(policy) => self.permit(request, "pubsub.topics.publish", &policy.dead_letter_topic),
            None => Ok(()),
        }
    }
}

fn paths(mask: Option<prost_types::FieldMask>) -> Vec<String> {
    mask.map(|mask| mask.paths).unwrap_or_default()
}

#[tonic::async_trait]
impl Publisher for PubSub {
    async fn create_topic(&self, request: Request<Topic>) -> Result<Response<Topic>, Status> {
        self.permit(&request, "pubsub.topics.create", &request.get_ref().name)?;
        let wanted = request.into_inner();
        let made = self.alone(move |all| async move { all.admin_create_topic(&wanted).await });
        Ok(Response::new(made.await?))
    }

    async fn update_topic(&self, request: Request<UpdateTopicRequest>) -> Result<Response<Topic>, Status> {
        let name = request.get_ref().topic.as_ref().map(|topic| topic.name.clone()).unwrap_or_default();
        self.permit(&request, "pubsub.topics.update", &name)?;
        let UpdateTopicRequest { topic, update_mask } = request.into_inner();
        let (wanted, paths) = (topic.unwrap_or_default(), paths(update_mask));
        let changed = self.alone(move |all| async move { all.admin_update_topic(&wanted, &paths).await });
        Ok(Response::new(changed.await?))
    }

    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        self.permit(&request, "pubsub.topics.publish", &request.get_ref().topic)?;
        let PublishRequest { topic, messages } = request.into_inner();
        if !self.has_topic(&topic) {
            return Err(admin::no_topic(&topic));
        }
        let message_ids = PubSub::publish(self, topic, check::messages(messages)?).await?;
        if self.0.faults.roll(Fault::LoseReply) {
            return Err(Status::unavailable("the reply was lost"));
        }
        Ok(Response::new(PublishResponse { message_ids }))
    }

    async fn get_topic(&self, request: Request<GetTopicRequest>) -> Result<Response<Topic>, Status> {
        let name = &request.get_ref().topic;
        self.permit(&request, "pubsub.topics.get", name)?;
        Ok(Response::new(self.admin_get_topic(name)?))
    }

    async fn list_topics(&self, request: Request<ListTopicsRequest>) -> Result<Response<ListTopicsResponse>, Status> {
        let ListTopicsRequest { project, page_size, page_token } = request.get_ref();
        self.permit(&request, "pubsub.topics.list", project)?;
        let (topics, next_page_token) = self.admin_topics(project, *page_size, page_token)?;
        Ok(Response::new(ListTopicsResponse { topics, next_page_token }))
    }

    async fn list_topic_subscriptions(
        &self,
        request: Request<ListTopicSubscriptionsRequest>,
    ) -> Result<Response<ListTopicSubscriptionsResponse>, Status> {
        let ListTopicSubscriptionsRequest { topic, page_size, page_token } = request.get_ref();
        self.permit(&request, "pubsub.topics.get", topic)?;
        let (subscriptions, next_page_token) = self.admin_of_topic(topic, "subscriptions", *page_size, page_token)?;
        Ok(Response::new(ListTopicSubscriptionsResponse { subscriptions, next_page_token }))
    }

    async fn list_topic_snapshots(
        &self,
        request: Request<ListTopicSnapshotsRequest>,
    ) -> Result<Response<ListTopicSnapshotsResponse>, Status> {
        let ListTopicSnapshotsRequest { topic, page_size, page_token } = request.get_ref();
        self.permit(&request, "pubsub.topics.get", topic)?;
        let (snapshots, next_page_token) = self.admin_of_topic(topic, "snapshots", *page_size, page_token)?;
        Ok(Response::new(ListTopicSnapshotsResponse { snapshots, next_page_token }))
    }

    async fn delete_topic(&self, request: Request<DeleteTopicRequest>) -> Result<Response<()>, Status> {
        let name = &request.get_ref().topic;
        self.permit(&request, "pubsub.topics.delete", name)?;
        let name = name.clone();
        self.alone(move |all| async move { all.admin_delete_topic(&name).await }).await?;
        Ok(Response::new(()))
    }

    async fn detach_subscription(
        &self,
        request: Request<DetachSubscriptionRequest>,
    ) -> Result<Response<DetachSubscriptionResponse>, Status> {
        let name = &request.get_ref().subscription;
        // Google asks for the right on the topic; who may not know the subscription learns nothing of it.
        let topic = self.subscription(name).map_or_else(|| name.clone(), |live| live.record().topic.clone());
        self.permit(&request, "pubsub.topics.detachSubscription", &topic)?;
        let name = name.clone();
        self.alone(move |all| async move { all.admin_detach_subscription(&name).await }).await?;
        Ok(Response::new(DetachSubscriptionResponse {}))
    }
}

pub(super) fn received(delivered: Vec<Delivered>, counts_attempts: bool) -> Vec<ReceivedMessage> {
    let received = |delivered: Delivered| ReceivedMessage {
        ack_id: delivered.id.to_string(),
        message: Some(delivered.message),
        delivery_attempt: if counts_attempts { i32::try_from(delivered.attempt).unwrap_or(i32::MAX) } else { 0 },
    };
    delivered.into_iter().map(received).collect()
}

pub(super) fn seconds(number: i32) -> Duration {
    Duration::from_secs(u64::try_from(number).unwrap_or(0))
}

#[tonic::async_trait]
impl Subscriber for PubSub {
    type StreamingPullStream = Pin<Box<dyn Stream<Item = Result<StreamingPullResponse, Status>> + Send>>;

    async fn create_subscription(&self, request: Request<Subscription>) -> Result<Response<Subscription>, Status> {
        self.permit(&request, "pubsub.subscriptions.create", &request.get_ref().name)?;
        self.permit(&request, "pubsub.topics.attachSubscription", &request.get_ref().topic)?;
        self.permit_dead_letters(&request, Some(request.get_ref()))?;
        let wanted = request.into_inner();
        let made = self.alone(move |all| async move { all.admin_create_subscription(wanted).await });
        Ok(Response::new(made.await?))
    }

    async fn get_subscription(
        &self,
        request: Request<GetSubscriptionRequest>,
    ) -> Result<Response<Subscription>, Status> {
        let name = &request.get_ref().subscription;
        self.permit(&request, "pubsub.subscriptions.get", name)?;
        Ok(Response::new(self.admin_get_subscription(name)?))
    }

    async fn update_subscription(
        &self,
        request: Request<UpdateSubscriptionRequest>,
    ) -> Result<Response<Subscription>, Status> {
        let name = request.get_ref().subscription.as_ref().map(|s| s.name.clone()).unwrap_or_default();
        self.permit(&request, "pubsub.subscriptions.update", &name)?;
        self.permit_dead_letters(&request, request.get_ref().subscription.as_ref())?;
        let UpdateSubscriptionRequest { subscription, update_mask } = request.into_inner();
        let (wanted, paths) = (subscription.unwrap_or_default(), paths(update_mask));
        let changed = self.alone(move |all| async move { all.admin_update_subscription(wanted, &paths).await });
        Ok(Response::new(changed.await?))
    }

    async fn list_subscriptions(
        &self,
        request: Request<ListSubscriptionsRequest>,
    ) -> Result<Response<ListSubscriptionsResponse>, Status> {
        let ListSubscriptionsRequest { project, page_size, page_token } = request.get_ref();
        self.permit(&request, "pubsub.subscriptions.list", project)?;
        let (subscriptions, next_page_token) = self.admin_subscriptions(project, *page_size, page_token)?;
        Ok(Response::new(ListSubscriptionsResponse { subscriptions, next_page_token }))
    }

    async fn delete_subscription(&self, request: Request<DeleteSubscriptionRequest>) -> Result<Response<()>, Status> {
        let name = &request.get_ref().subscription;
        self.permit(&request, "pubsub.subscriptions.delete", name)?;
        let name = name.clone();
        self.alone(move |all| async move { all.admin_delete_subscription(&name).await }).await?;
        Ok(Response::new(()))
    }

    async fn modify_ack_deadline(&self, request: Request<ModifyAckDeadlineRequest>) -> Result<Response<()>, Status> {
        self.permit(&request, "pubsub.subscriptions.consume", &request.get_ref().subscription)?;
        check::acknowledgements(request.get_ref())?;
        let ModifyAckDeadlineRequest { subscription, ack_deadline_seconds, ack_ids } = request.into_inner();
        if !(0..=600).contains(&ack_deadline_seconds) {
            return Err(Status::invalid_argument("an ack deadline has 0 to 600 seconds"));
        }
        let subscription = self.find_attached(&subscription)?;
        let deadline = seconds(ack_deadline_seconds);
        let invalid = self.modify(&subscription, ack_ids.into_iter().map(|id| (id, deadline)));
        if subscription.record().exactly_once {
            check::refuse(invalid)?;
        }
        Ok(Response::new(()))
    }

    async fn acknowledge(&self, request: Request<AcknowledgeRequest>) -> Result<Response<()>, Status> {
        self.permit(&request, "pubsub.subscriptions.consume", &request.get_ref().subscription)?;
        check::acknowledgements(request.get_ref())?;
        let AcknowledgeRequest { subscription, ack_ids } = request.into_inner();
        let subscription = self.find_attached(&subscription)?;
        check::refuse(PubSub::acknowledge(self, &subscription, ack_ids).await?)?;
        Ok(Response::new(()))
    }

    async fn pull(&self, request: Request<PullRequest>) -> Result<Response<PullResponse>, Status> {
        self.permit(&request, "pubsub.subscriptions.consume", &request.get_ref().subscription)?;
        let request = request.into_inner();
        let subscription = self.find_attached(&request.subscription)?;
        let max = usize::try_from(request.max_messages).ok().filter(|max| *max > 0);
        let max = max.ok_or_else(|| Status::invalid_argument("max_messages must be at least 1"))?.min(1_000);
        let wait = if request.return_immediately { Duration::ZERO } else { PATIENCE };
        let received_messages = self.wait_and_pull(&subscription, max, wait).await?;
        Ok(Response::new(PullResponse { received_messages }))
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
        self.open_stream(first, inbound)
    }

    async fn get_snapshot(&self, request: Request<GetSnapshotRequest>) -> Result<Response<Snapshot>, Status> {
        let name = &request.get_ref().snapshot;
        self.permit(&request, "pubsub.snapshots.get", name)?;
        Ok(Response::new(self.admin_get_snapshot(name)?))
    }

    async fn list_snapshots(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        let ListSnapshotsRequest { project, page_size, page_token } = request.get_ref();
        self.permit(&request, "pubsub.snapshots.list", project)?;
        let (snapshots, next_page_token) = self.admin_snapshots(project, *page_size, page_token)?;
        Ok(Response::new(ListSnapshotsResponse { snapshots, next_page_token }))
    }

    async fn create_snapshot(&self, request: Request<CreateSnapshotRequest>) -> Result<Response<Snapshot>, Status> {
        self.permit(&request, "pubsub.snapshots.create", &request.get_ref().name)?;
        self.permit(&request, "pubsub.subscriptions.consume", &request.get_ref().subscription)?;
        let wanted = request.into_inner();
        let made = self.alone(move |all| async move { all.admin_create_snapshot(wanted).await });
        Ok(Response::new(made.await?))
    }

    async fn update_snapshot(&self, request: Request<UpdateSnapshotRequest>) -> Result<Response<Snapshot>, Status> {
        let name = request.get_ref().snapshot.as_ref().map(|s| s.name.clone()).unwrap_or_default();
        self.permit(&request, "pubsub.snapshots.update", &name)?;
        let UpdateSnapshotRequest { snapshot, update_mask } = request.into_inner();
        let (wanted, paths) = (snapshot.unwrap_or_default(), paths(update_mask));
        let changed = self.alone(move |all| async move { all.admin_update_snapshot(wanted, &paths).await });
        Ok(Response::new(changed.await?))
    }

    async fn delete_snapshot(&self, request: Request<DeleteSnapshotRequest>) -> Result<Response<()>, Status> {
        let name = &request.get_ref().snapshot;
        self.permit(&request, "pubsub.snapshots.delete", name)?;
        let name = name.clone();
        self.alone(move |all| async move { all.admin_delete_snapshot(&name).await }).await?;
        Ok(Response::new(()))
    }

    async fn seek(&self, request: Request<SeekRequest>) -> Result<Response<SeekResponse>, Status> {
        self.permit(&request, "pubsub.subscriptions.consume", &request.get_ref().subscription)?;
        if let Some(seek_request::Target::Snapshot(snapshot)) = &request.get_ref().target {
            self.permit(&request, "pubsub.snapshots.seek", snapshot)?;
        }
        let SeekRequest { subscription, target } = request.into_inner();
        let target = target.ok_or_else(|| Status::invalid_argument("seek needs a time or a snapshot"))?;
        self.alone(move |all| async move { all.admin_seek(&subscription, target).await }).await?;
        Ok(Response::new(SeekResponse {}))
    }
}

impl PubSub {
    /// Up to `max` messages, as soon as there are any or once `wait` is over.
    async fn wait_and_pull(
        &self,
        subscription: &Arc<Live>,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<ReceivedMessage>, Status> {
        let holder = self.next_holder();
        let room = Room { messages: max, bytes: BATCH_BYTES };
        let patience = tokio::time::Instant::now() + wait;
        loop {
            let changed = subscription.changed.notified();
            let record = subscription.record();
            let deadline = Duration::from_secs(u64::from(record.ack_deadline));
            let delivered = self.deliver(subscription, room, deadline, holder).await?;
            if !delivered.is_empty() || tokio::time::Instant::now() >= patience {
                return Ok(received(delivered, record.dead_letter.is_some()));
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(subscription.idle_for(room, holder)) => {}
                () = tokio::time::sleep_until(patience) => {}
                () = subscription.replaced.cancelled() => return Ok(Vec::new()),
                () = self.0.closing.cancelled() => return Err(Status::unavailable("shutting down")),
            }
        }
    }
}
