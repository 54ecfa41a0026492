"""A tour of Cloud Storage by Google's own client for Python, found by STORAGE_EMULATOR_HOST as its users find an emulator."""

import io

from google.api_core import exceptions
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY

import tour
from tour import check, refused

PROJECT = "demo"
EVENTS = "events"

client = storage.Client(project=PROJECT)
here = client.bucket("bucket-a")
# A refusal that the client would try again for two minutes is a finding, not a thing to wait for.
DEFAULT_RETRY._timeout = 5


def noise(size):
    state, words = 0x9E3779B9, bytearray()
    while len(words) < size:
        state = (state * 1664525 + 1013904223) % 2**32
        words += state.to_bytes(4, "big")
    return bytes(words[:size])


def names(bucket, **settings):
    return [blob.name for blob in client.list_blobs(bucket, **settings)]


def buckets_are_made_found_and_deleted():
    made = client.create_bucket("made-by-python", location="us-central1")
    check(made.name == "made-by-python" and made.metageneration == 1, "a bucket is made")
    check("made-by-python" in [bucket.name for bucket in client.list_buckets()], "it is listed")
    refused(exceptions.Conflict, lambda: client.create_bucket("made-by-python"))
    made.labels = {"of": "python"}
    made.patch()
    check(client.get_bucket("made-by-python").labels == {"of": "python"}, "its labels are kept")
    made.blob("x").upload_from_string("x")
    refused(exceptions.Conflict, made.delete)
    made.delete(force=True)
    check(client.lookup_bucket("made-by-python") is None, "it is gone")


def a_bucket_that_is_there_is_found():
    check(client.get_bucket("bucket-a").name == "bucket-a", "it is found")
    check({"bucket-a", "bucket-b"} <= {bucket.name for bucket in client.list_buckets()}, "it is listed")
    check(client.lookup_bucket("bucket-none") is None, "another is not")


def a_small_object_comes_back_with_what_was_said_of_it():
    blob = here.blob("small/ü 1.txt")
    blob.metadata = {"of": "python"}
    blob.cache_control = "no-store"
    blob.upload_from_string("hello", content_type="text/plain")
    found = here.get_blob("small/ü 1.txt")
    check((found.size, found.content_type, found.metadata) == (5, "text/plain", {"of": "python"}), "all of it is kept")
    check(found.cache_control == "no-store" and found.crc32c == "mnG7TA==", f"{found.crc32c} is no checksum of it")
    check(found.download_as_bytes(checksum="crc32c") == b"hello", "a link that the service gave is followed")
    check(here.blob("small/ü 1.txt").download_as_text() == "hello", "a name is enough")
    check(here.blob("small/none").exists() is False, "what is not there is known not to be")
    refused(exceptions.NotFound, here.blob("small/none").download_as_bytes)


def what_is_said_of_an_object_is_changed():
    blob = here.blob("changed")
    blob.upload_from_string("x")
    blob.metadata = {"a": "1", "b": "2"}
    blob.content_type = "text/csv"
    blob.patch()
    blob.metadata = {"a": None}
    blob.patch()
    found = here.get_blob("changed")
    check((found.metadata, found.content_type) == ({"b": "2"}, "text/csv"), f"{found.metadata} {found.content_type}")
    check(found.metageneration == 3 and found.generation == blob.generation, "each change is counted")


def a_large_object_is_sent_in_chunks():
    content = noise(1024 * 1024 + 77)
    blob = here.blob("large", chunk_size=256 * 1024)
    blob.upload_from_file(io.BytesIO(content), content_type="application/x-noise")
    check(blob.size == len(content), "it is whole")
    check(here.blob("large").download_as_bytes() == content, "it comes back")
    check(here.blob("large", chunk_size=256 * 1024).download_as_bytes() == content, "in chunks too")
    endless = here.blob("endless", chunk_size=256 * 1024)
    with endless.open("wb") as writer:
        writer.write(content)
    with here.blob("endless").open("rb", chunk_size=300 * 1024) as reader:
        check(reader.read() == content, "a file-like reader sees the same")


def a_part_of_an_object_is_read():
    blob = here.blob("parts")
    blob.upload_from_string("0123456789")
    for start, end, wanted in [(2, 4, b"234"), (7, None, b"789"), (None, 1, b"01"), (9, 99, b"9")]:
        check(blob.download_as_bytes(start=start, end=end) == wanted, f"{start} to {end}")
    refused(exceptions.RequestRangeNotSatisfiable, lambda: blob.download_as_bytes(start=10))


def a_listing_knows_prefixes_folders_and_pages():
    for name in ["l/a", "l/b/1", "l/b/2", "l/c/1", "l/d"]:
        here.blob(name).upload_from_string("x")
    check(names(here, prefix="l/") == ["l/a", "l/b/1", "l/b/2", "l/c/1", "l/d"], "everything below a prefix")
    folders = client.list_blobs(here, prefix="l/", delimiter="/")
    check([blob.name for blob in folders] == ["l/a", "l/d"], "only what lies in the folder itself")
    check(folders.prefixes == {"l/b/", "l/c/"}, "and the folders in it")
    pages = [[blob.name for blob in page] for page in client.list_blobs(here, prefix="l/", page_size=2).pages]
    check(pages == [["l/a", "l/b/1"], ["l/b/2", "l/c/1"], ["l/d"]], f"{pages} are no pages of two")
    check(names(here, prefix="l/", start_offset="l/b/2", end_offset="l/d") == ["l/b/2", "l/c/1"], "between two names")


def preconditions_hold_or_nothing_happens():
    blob = here.blob("conditions")
    blob.upload_from_string("one", if_generation_match=0)
    first = blob.generation
    refused(exceptions.PreconditionFailed, lambda: here.blob("conditions").upload_from_string("2", if_generation_match=0))
    blob.upload_from_string("two", if_generation_match=first)
    refused(exceptions.PreconditionFailed, lambda: blob.delete(if_generation_match=first))
    refused(exceptions.PreconditionFailed, lambda: blob.reload(if_metageneration_match=9))
    check(here.blob("conditions").download_as_bytes(if_generation_match=blob.generation) == b"two", "the second is live")


def objects_are_copied_rewritten_and_renamed():
    blob = here.blob("from")
    blob.metadata = {"k": "v"}
    blob.upload_from_string("copied", content_type="text/plain")
    there = client.bucket("bucket-b")
    copy = here.copy_blob(blob, there, "to")
    check(copy.content_type == "text/plain" and copy.metadata == {"k": "v"}, "a copy is like the original")
    rewritten = there.blob("rewritten")
    token, done, size = rewritten.rewrite(blob)
    check((token, done, size) == (None, 6, 6), "one call rewrites it")
    check(there.blob("rewritten").download_as_bytes() == b"copied", "it is all there")
    here.rename_blob(blob, "renamed")
    check(not here.blob("from").exists() and here.blob("renamed").download_as_bytes() == b"copied", "it has moved")


def objects_are_composed():
    parts = [here.blob(f"compose/{number}") for number in range(3)]
    for number, part in enumerate(parts):
        part.upload_from_string(f"part {number};")
    whole = here.blob("compose/whole")
    whole.content_type = "text/plain"
    whole.compose(parts)
    check(whole.download_as_bytes() == b"part 0;part 1;part 2;", "it holds them all")
    check(here.get_blob("compose/whole").component_count == 3, "it counts them")


def versions_are_kept_where_that_was_asked_for():
    bucket = client.get_bucket("bucket-b")
    bucket.versioning_enabled = True
    bucket.patch()
    try:
        blob = bucket.blob("versioned")
        blob.upload_from_string("one")
        first = blob.generation
        blob.upload_from_string("two")
        kept = [one.generation for one in client.list_blobs(bucket, prefix="versioned", versions=True)]
        check(kept == [first, blob.generation], "both are listed")
        check(bucket.blob("versioned", generation=first).download_as_bytes() == b"one", "the first can be read")
        bucket.blob("versioned").delete()
        check(names(bucket, prefix="versioned") == [], "the live one is gone")
        check(bucket.blob("versioned", generation=blob.generation).download_as_bytes() == b"two", "and kept")
    finally:
        bucket.versioning_enabled = False
        bucket.patch()


def notifications_are_made_found_and_deleted():
    bucket = client.bucket("bucket-b")
    made = bucket.notification(
        topic_name=EVENTS, topic_project=PROJECT, event_types=["OBJECT_DELETE"], custom_attributes={"of": "python"},
        blob_name_prefix="n/", payload_format="NONE",
    )
    made.create()
    found = bucket.get_notification(made.notification_id)
    check((found.event_types, found.custom_attributes) == (["OBJECT_DELETE"], {"of": "python"}), "it is kept")
    # The client's own listing takes no project id as short as this one's.
    listed = client._connection.api_request(method="GET", path=f"{bucket.path}/notificationConfigs")
    check(made.notification_id in [one["id"] for one in listed["items"]], "it is listed")
    made.delete()
    refused(exceptions.NotFound, lambda: bucket.get_notification(made.notification_id))


def a_batch_does_many_things_in_one_request():
    blobs = [here.blob(f"batch/{number}") for number in range(3)]
    for blob in blobs:
        blob.upload_from_string("x")
    with client.batch():
        for blob in blobs:
            blob.metadata = {"in": "batch"}
            blob.patch()
    check(all(here.get_blob(blob.name).metadata == {"in": "batch"} for blob in blobs), "each was changed")
    with client.batch():
        here.delete_blobs(blobs)
    check(names(here, prefix="batch/") == [], "each is gone")

    def one_is_missing():
        with client.batch():
            here.blob("batch/none").delete()

    refused(exceptions.NotFound, one_is_missing)


def what_is_deleted_is_gone():
    blob = here.blob("deleted")
    blob.upload_from_string("x")
    blob.delete()
    refused(exceptions.NotFound, blob.delete)


tour.run([
    buckets_are_made_found_and_deleted,
    a_bucket_that_is_there_is_found,
    a_small_object_comes_back_with_what_was_said_of_it,
    what_is_said_of_an_object_is_changed,
    a_large_object_is_sent_in_chunks,
    a_part_of_an_object_is_read,
    a_listing_knows_prefixes_folders_and_pages,
    preconditions_hold_or_nothing_happens,
    objects_are_copied_rewritten_and_renamed,
    objects_are_composed,
    versions_are_kept_where_that_was_asked_for,
    notifications_are_made_found_and_deleted,
    a_batch_does_many_things_in_one_request,
    what_is_deleted_is_gone,
])
