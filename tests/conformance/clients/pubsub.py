"""A tour of Pub/Sub by Google's own client for Python, found by PUBSUB_EMULATOR_HOST as its users find an emulator."""

import datetime
import queue

from google.api_core import exceptions
from google.cloud import pubsub_v1
from google.cloud.pubsub_v1.types import PublisherOptions
from google.protobuf import duration_pb2, field_mask_pb2, timestamp_pb2

import tour
from tour import check, refused

PROJECT = "demo"
WAIT = 10

publisher = pubsub_v1.PublisherClient(publisher_options=PublisherOptions(enable_message_ordering=True))
subscriber = pubsub_v1.SubscriberClient()


def topic(name):
    path = publisher.topic_path(PROJECT, name)
    publisher.create_topic(name=path)
    return path


def subscription(name, of, **settings):
    path = subscriber.subscription_path(PROJECT, name)
    subscriber.create_subscription(request={"name": path, "topic": of, **settings})
    return path


def publish(to, *texts, **settings):
    return [publisher.publish(to, text.encode(), **settings).result(timeout=WAIT) for text in texts]


def pulled(of, count):
    """The next messages, pulled and acknowledged one request after the other."""
    got = []
    while len(got) < count:
        answer = subscriber.pull(subscription=of, max_messages=count - len(got), timeout=WAIT)
        check(answer.received_messages, f"{count - len(got)} more messages were expected")
        got.extend(answer.received_messages)
        subscriber.acknowledge(subscription=of, ack_ids=[one.ack_id for one in answer.received_messages])
    return [one.message for one in got]


def streamed(of, count, heard, **settings):
    """Has `heard` see the next messages of a stream, then ends the stream in order."""
    seen = queue.Queue()
    future = subscriber.subscribe(of, callback=seen.put, **settings)
    try:
        return [heard(seen.get(timeout=WAIT)) for _ in range(count)]
    finally:
        future.cancel()
        future.result(timeout=WAIT)


def topics_and_subscriptions_are_made_found_and_deleted():
    made = topic("made")
    check(publisher.get_topic(topic=made).name == made, "a topic is found by its name")
    check(made in [one.name for one in publisher.list_topics(project=f"projects/{PROJECT}")], "it is listed")
    refused(exceptions.AlreadyExists, lambda: publisher.create_topic(name=made))
    of_it = subscription("of-made", made, ack_deadline_seconds=20)
    check(subscriber.get_subscription(subscription=of_it).ack_deadline_seconds == 20, "a deadline is kept")
    names = [one.name for one in subscriber.list_subscriptions(project=f"projects/{PROJECT}")]
    check(of_it in names, "a subscription is listed")
    subscriber.delete_subscription(subscription=of_it)
    refused(exceptions.NotFound, lambda: subscriber.get_subscription(subscription=of_it))
    publisher.delete_topic(topic=made)
    refused(exceptions.NotFound, lambda: publisher.get_topic(topic=made))


def a_subscription_is_changed_by_its_mask():
    of = topic("masked")
    path = subscription("masked", of, ack_deadline_seconds=20)
    wanted = {"name": path, "topic": of, "ack_deadline_seconds": 30}
    mask = field_mask_pb2.FieldMask(paths=["ack_deadline_seconds"])
    changed = subscriber.update_subscription(request={"subscription": wanted, "update_mask": mask})
    check(changed.ack_deadline_seconds == 30, "the deadline is the new one")


def what_is_missing_or_wrong_is_refused_by_its_code():
    nowhere = publisher.topic_path(PROJECT, "nowhere")
    refused(exceptions.NotFound, lambda: publish(nowhere, "x"))
    missing = subscriber.subscription_path(PROJECT, "missing")
    refused(exceptions.NotFound, lambda: subscriber.pull(subscription=missing, max_messages=1, timeout=WAIT))
    refused(exceptions.NotFound, lambda: subscription("of-nowhere", nowhere))
    of = topic("wrong")
    refused(exceptions.InvalidArgument, lambda: subscription("wrong", of, ack_deadline_seconds=5))
    refused(exceptions.InvalidArgument, lambda: publish(of, ""))


def messages_carry_bytes_attributes_ids_and_times():
    of = topic("carried")
    path = subscription("carried", of)
    before = datetime.datetime.now(datetime.timezone.utc)
    ids = publish(of, "one", "two", colour="blue", kind="ü")
    got = pulled(path, 2)
    check(sorted(one.message_id for one in got) == sorted(ids), "the ids are those that publishing answered with")
    check(sorted(one.data for one in got) == [b"one", b"two"], "the bytes arrive")
    check(all(dict(one.attributes) == {"colour": "blue", "kind": "ü"} for one in got), "so do attributes")
    check(all(abs(one.publish_time - before) < datetime.timedelta(minutes=1) for one in got), "and the time")


def a_stream_hears_a_batch_and_acknowledges_it():
    of = topic("streamed")
    path = subscription("streamed", of)
    futures = [publisher.publish(of, str(number).encode()) for number in range(200)]
    for future in futures:
        future.result(timeout=WAIT)

    def acked(message):
        message.ack()
        return message.data

    got = streamed(path, 200, acked)
    check(sorted(got) == sorted(str(number).encode() for number in range(200)), "each message came once")


def what_is_given_back_comes_again():
    of = topic("nacked")
    path = subscription("nacked", of)
    publish(of, "again")
    turns = iter([lambda message: message.nack(), lambda message: message.ack()])

    def take_turns(message):
        next(turns)(message)
        return message.message_id

    got = streamed(path, 2, take_turns)
    check(got[0] == got[1], "the same message came twice")


def a_dead_letter_follows_five_deliveries():
    of, graves = topic("deadly"), topic("dead")
    policy = {"dead_letter_topic": graves, "max_delivery_attempts": 5}
    path = subscription("deadly", of, dead_letter_policy=policy)
    buried = subscription("dead", graves)
    publish(of, "nobody wants it")

    attempts = queue.Queue()

    def give_back(message):
        attempts.put(message.delivery_attempt)
        message.nack()

    future = subscriber.subscribe(path, callback=give_back)
    (letter,) = pulled(buried, 1)
    future.cancel()
    future.result(timeout=WAIT)
    check([attempts.get(timeout=WAIT) for _ in range(5)] == [1, 2, 3, 4, 5], "attempts are counted")
    check(letter.data == b"nobody wants it", "it lies in the dead letters")
    source = letter.attributes["CloudPubSubDeadLetterSourceSubscription"]
    check(source == "deadly", f"it says where it came from, not {source!r}")


def messages_of_one_key_come_in_order():
    of = topic("ordered")
    path = subscription("ordered", of, enable_message_ordering=True)
    wanted = [str(number) for number in range(30)]
    publish(of, *wanted, ordering_key="k")
    got = []
    while len(got) < len(wanted):
        got.extend(pulled(path, 1))
    check([one.data.decode() for one in got] == wanted, "they come as they were sent")
    check(all(one.ordering_key == "k" for one in got), "and carry their key")


def acknowledgements_are_confirmed_where_that_was_asked_for():
    of = topic("exact")
    path = subscription("exact", of, enable_exactly_once_delivery=True)
    publish(of, "once")
    said = streamed(path, 1, lambda message: message.ack_with_response().result(timeout=WAIT))
    check([one.name for one in said] == ["SUCCESS"], f"the acknowledgement was confirmed, not {said}")
    found = subscriber.get_subscription(subscription=path)
    check(found.enable_exactly_once_delivery, "what was asked for is shown")
    left = subscriber.pull(subscription=path, max_messages=1, return_immediately=True, timeout=WAIT)
    check(not left.received_messages, "it is gone")


def a_filter_lets_through_what_it_names():
    of = topic("filtered")
    wanted = 'attributes.kind = "a" OR hasPrefix(attributes.kind, "b")'
    path = subscription("filtered", of, filter=wanted)
    for kind in ["c", "a", "bee", "cab"]:
        publish(of, kind, kind=kind)
    check(sorted(one.data for one in pulled(path, 2)) == [b"a", b"bee"], "the rest was dropped")
    check(subscriber.get_subscription(subscription=path).filter == wanted, "the filter is shown as it was given")
    refused(exceptions.InvalidArgument, lambda: subscription("misfiltered", of, filter="attributes.kind = "))


def a_seek_to_a_time_brings_back_or_passes_over():
    of = topic("sought")
    path = subscription("sought", of, retain_acked_messages=True)
    publish(of, "one")
    pulled(path, 1)
    past, future = timestamp_pb2.Timestamp(), timestamp_pb2.Timestamp()
    now = datetime.datetime.now(datetime.timezone.utc)
    past.FromDatetime(now - datetime.timedelta(minutes=5))
    future.FromDatetime(now + datetime.timedelta(minutes=5))
    subscriber.seek(request={"subscription": path, "time": past})
    check(pulled(path, 1)[0].data == b"one", "what was acknowledged came back")
    publish(of, "two")
    subscriber.seek(request={"subscription": path, "time": future})
    left = subscriber.pull(subscription=path, max_messages=1, return_immediately=True, timeout=WAIT)
    check(not left.received_messages, "what was to come was passed over")


def a_snapshot_brings_back_what_was_not_acknowledged_then():
    of = topic("shot")
    path = subscription("shot", of)
    publish(of, "kept")
    name = subscriber.snapshot_path(PROJECT, "shot")
    check(subscriber.create_snapshot(name=name, subscription=path).topic == of, "a snapshot names its topic")
    pulled(path, 1)
    subscriber.seek(request={"subscription": path, "snapshot": name})
    check(pulled(path, 1)[0].data == b"kept", "it is there again")
    check(name in [one.name for one in subscriber.list_snapshots(project=f"projects/{PROJECT}")], "it is listed")
    subscriber.delete_snapshot(snapshot=name)


def a_retry_policy_and_a_retention_are_kept():
    of = topic("patient")
    patience = {"minimum_backoff": duration_pb2.Duration(seconds=1), "maximum_backoff": duration_pb2.Duration(seconds=2)}
    kept = duration_pb2.Duration(seconds=3600)
    path = subscription("patient", of, retry_policy=patience, message_retention_duration=kept)
    found = subscriber.get_subscription(subscription=path)
    check(found.retry_policy.minimum_backoff.seconds == 1, "the shortest pause is kept")
    check(found.message_retention_duration.seconds == 3600, "so is the retention")


tour.run([
    topics_and_subscriptions_are_made_found_and_deleted,
    a_subscription_is_changed_by_its_mask,
    what_is_missing_or_wrong_is_refused_by_its_code,
    messages_carry_bytes_attributes_ids_and_times,
    a_stream_hears_a_batch_and_acknowledges_it,
    what_is_given_back_comes_again,
    a_dead_letter_follows_five_deliveries,
    messages_of_one_key_come_in_order,
    acknowledgements_are_confirmed_where_that_was_asked_for,
    a_filter_lets_through_what_it_names,
    a_seek_to_a_time_brings_back_or_passes_over,
    a_snapshot_brings_back_what_was_not_acknowledged_then,
    a_retry_policy_and_a_retention_are_kept,
])
