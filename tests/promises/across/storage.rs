//! Another's buckets, objects and uploads, and the ledger's bucket, for whoever holds a worker's token.

use axum::body::{Body, Bytes};
use carrel::plan;
use futures::channel::mpsc;
use futures::{SinkExt as _, StreamExt as _};
use serde_json::json;

use super::wire::{
    Answer, Call, FAILED_PRECONDITION, Hand, INVALID_ARGUMENT, NOT_FOUND, NOT_SERVED, OK, PERMISSION_DENIED,
    UNIMPLEMENTED, escaped, nested, text,
};
use super::{ATTACKER, Allowed, Attack, Stage, Thing, VICTIM, belongings, owner, two, worker};
use crate::files::sales;
use crate::world::{World, eventually};

const OWN: &str = "acme-outputs";

fn object(thing: &Thing) -> String {
    format!("/storage/v1/b/{}/o/{}", thing.of, escaped(&thing.item))
}

fn upload(thing: &Thing, kind: &str, name: &str) -> String {
    format!("/upload/storage/v1/b/{}/o?uploadType={kind}&name={}", thing.of, escaped(name))
}

fn bucket(thing: &Thing) -> String {
    format!("projects/_/buckets/{}", thing.of)
}

fn storage(method: &str, message: &[Vec<u8>]) -> Call {
    Call::grpc(&format!("storage.v2.Storage/{method}"), message)
}

/// What is deleted goes last.
const ATTACKS: &[Attack] = &[
    Attack("read", |t| Call::get(format!("{}?alt=media", object(t))), 403, Allowed::Own(200)),
    Attack("read a version", |t| Call::get(format!("{}?alt=media&generation=1", object(t))), 403, Allowed::Own(404)),
    Attack("download", |t| Call::get(format!("/download{}?alt=media", object(t))), 403, Allowed::Own(200)),
    Attack("stat", |t| Call::get(object(t)), 403, Allowed::Own(200)),
    Attack("stat unless it is", |t| Call::get(format!("{}?ifGenerationMatch=0", object(t))), 403, Allowed::Own(412)),
    Attack("list", |t| Call::get(format!("/storage/v1/b/{}/o", t.of)), 403, Allowed::Own(200)),
    Attack("list folders of", |t| Call::get(format!("/storage/v1/b/{}/o?delimiter=/", t.of)), 403, Allowed::Own(200)),
    Attack("create in", |t| Call::post(upload(t, "media", "new"), "planted"), 403, Allowed::Own(200)),
    Attack("overwrite", |t| Call::post(upload(t, "media", &t.item), "planted"), 403, Allowed::Own(200)),
    Attack(
        "create if absent",
        |t| Call::post(format!("{}&ifGenerationMatch=0", upload(t, "media", &t.item)), "planted"),
        403,
        Allowed::Own(412),
    ),
    Attack("begin an upload to", |t| Call::post(upload(t, "resumable", "new"), ""), 403, Allowed::Own(200)),
    Attack("patch", |t| Call::patch(object(t), r#"{"contentType":"text/html"}"#), 403, Allowed::Owner(200)),
    Attack("steal", |t| Call::post(format!("{}/rewriteTo/b/{OWN}/o/loot", object(t)), ""), 403, Allowed::Own(200)),
    Attack("copy", |t| Call::post(format!("{}/copyTo/b/{OWN}/o/loot", object(t)), ""), 403, Allowed::Own(200)),
    Attack(
        "plant in",
        |t| Call::post(format!("/storage/v1/b/{OWN}/o/bait/rewriteTo/b/{}/o/new", t.of), ""),
        403,
        Allowed::Own(200),
    ),
    Attack(
        "replace",
        |t| Call::post(format!("/storage/v1/b/{OWN}/o/bait/copyTo/b/{}/o/{}", t.of, escaped(&t.item)), ""),
        403,
        Allowed::Own(200),
    ),
    Attack("look at", |t| Call::get(format!("/storage/v1/b/{}", t.of)), 403, Allowed::Owner(200)),
    Attack(
        "find",
        |t| Call::get(format!("/storage/v1/b?project={}&prefix={}", plan::PROJECT, t.of)),
        403,
        Allowed::Owner(200),
    ),
    Attack("compose", |t| Call::post(format!("{}/compose", object(t)), "{}"), 403, Allowed::Own(400)),
    Attack("update", |t| Call::put(object(t), "{}"), 403, Allowed::Owner(200)),
    Attack(
        "list versions of",
        |t| Call::get(format!("/storage/v1/b/{}/o?versions=true", t.of)),
        403,
        Allowed::Own(200),
    ),
    Attack("see who is told of", |t| Call::get(notifications(t)), 403, Allowed::Owner(200)),
    Attack("be told of", |t| Call::post(notifications(t), "{}"), 403, Allowed::Owner(400)),
    Attack("silence", |t| Call::delete(format!("{}/999", notifications(t))), 403, Allowed::Owner(404)),
    Attack("see who may", |t| Call::get(policy(t)), 403, Allowed::Owner(200)),
    Attack("say who may", |t| Call::put(policy(t), "{}"), 403, Allowed::Owner(200)),
    Attack("label", |t| Call::patch(format!("/storage/v1/b/{}", t.of), "{}"), 403, Allowed::Owner(200)),
    Attack(
        "make",
        |t| Call::post(format!("/storage/v1/b?project={}", plan::PROJECT), format!(r#"{{"name":"{}"}}"#, t.of)),
        403,
        Allowed::Owner(409),
    ),
    // Not served to anybody.
    Attack("give away", |t| Call::post(format!("{}/acl", object(t)), "{}"), NOT_SERVED, Allowed::Owner(NOT_SERVED)),
    Attack("destroy", |t| Call::delete(format!("/storage/v1/b/{}", t.of)), 403, Allowed::Owner(409)),
    Attack(
        "GetObject",
        |t| storage("GetObject", &[text(1, &bucket(t)), text(2, &t.item)]),
        PERMISSION_DENIED,
        Allowed::Own(OK),
    ),
    Attack("ListObjects", |t| storage("ListObjects", &[text(1, &bucket(t))]), PERMISSION_DENIED, Allowed::Own(OK)),
    Attack(
        "ReadObject",
        |t| storage("ReadObject", &[text(1, &bucket(t)), text(2, &t.item)]),
        UNIMPLEMENTED,
        Allowed::Owner(UNIMPLEMENTED),
    ),
    Attack(
        "BidiReadObject",
        |t| storage("BidiReadObject", &[nested(1, &[text(1, &bucket(t)), text(2, &t.item)].concat())]),
        PERMISSION_DENIED,
        Allowed::Own(OK),
    ),
    Attack(
        "ComposeObject",
        |t| storage("ComposeObject", &[nested(1, &[text(1, &t.item), text(2, &bucket(t))].concat())]),
        PERMISSION_DENIED,
        Allowed::Own(INVALID_ARGUMENT),
    ),
    Attack(
        "UpdateBucket",
        |t| storage("UpdateBucket", &[nested(1, &text(1, &bucket(t))), nested(6, &text(1, "versioning"))]),
        PERMISSION_DENIED,
        Allowed::Owner(OK),
    ),
    Attack(
        "DeleteBucket",
        |t| storage("DeleteBucket", &[text(1, &bucket(t))]),
        PERMISSION_DENIED,
        Allowed::Owner(FAILED_PRECONDITION),
    ),
    Attack(
        "UpdateObject",
        |t| {
            let object = [text(1, &t.item), text(2, &bucket(t))].concat();
            storage("UpdateObject", &[nested(1, &object), nested(7, &text(1, "content_type"))])
        },
        PERMISSION_DENIED,
        Allowed::Owner(OK),
    ),
    Attack(
        "RewriteObject out of",
        |t| rewrite(&bucket(t), &t.item, &format!("projects/_/buckets/{OWN}"), "loot"),
        PERMISSION_DENIED,
        Allowed::Own(OK),
    ),
    Attack(
        "RewriteObject into",
        |t| rewrite(&format!("projects/_/buckets/{OWN}"), "bait", &bucket(t), "new"),
        PERMISSION_DENIED,
        Allowed::Own(OK),
    ),
    Attack("GetBucket", |t| storage("GetBucket", &[text(1, &bucket(t))]), PERMISSION_DENIED, Allowed::Owner(OK)),
    Attack(
        "ListBuckets",
        |t| storage("ListBuckets", &[text(1, &format!("projects/{}", plan::PROJECT)), text(4, &t.of)]),
        PERMISSION_DENIED,
        Allowed::Owner(OK),
    ),
    Attack("delete", |t| Call::delete(object(t)), 403, Allowed::Own(204)),
    Attack(
        "DeleteObject",
        |t| storage("DeleteObject", &[text(1, &bucket(t)), text(2, &t.item)]),
        PERMISSION_DENIED,
        Allowed::Own(NOT_FOUND),
    ),
];

fn notifications(thing: &Thing) -> String {
    format!("/storage/v1/b/{}/notificationConfigs", thing.of)
}

fn policy(thing: &Thing) -> String {
    format!("/storage/v1/b/{}/iam", thing.of)
}

fn rewrite(from: &str, object: &str, to: &str, name: &str) -> Call {
    storage("RewriteObject", &[text(2, from), text(3, object), text(24, name), text(25, to)])
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_in_another_s_buckets_nor_in_the_ledger_is_touched_or_told_of() {
    let world = World::start(two(json!({})), |_| {}).await;
    for tenant in [ATTACKER, VICTIM] {
        world.upload(tenant, "q3", vec![("secret.csv", sales())]).await;
    }
    let (victims, attackers) = (world.completion(VICTIM, "q3").await, world.completion(ATTACKER, "q3").await);
    world.settled().await;
    let (owner, attacker) = (owner(&world), worker(&world, ATTACKER));
    for name in ["bait", "mine"] {
        assert_eq!(attacker.create(OWN, name, "mine".to_owned()).await.code, 200);
    }
    let before = belongings(&world).await;
    let record = |tenant: &str, review: &str| format!("tenants/{tenant}/reviews/{review}.json");
    let (review, own_review) = (victims.completion.review.as_str(), attackers.completion.review.as_str());
    let mut theirs: Vec<Thing> = before
        .iter()
        .map(|(path, _)| path.split_once('/').expect("a bucket and a name"))
        .map(|(bucket, name)| Thing::new(bucket, name))
        .collect();
    for wanted in ["bolt-uploads", "bolt-outputs", plan::CONTROL_BUCKET] {
        assert!(theirs.iter().any(|thing| thing.of == wanted), "nothing of {wanted} is attacked: {theirs:?}");
    }
    assert!(theirs.contains(&Thing::new(plan::CONTROL_BUCKET, record(VICTIM, review))), "{theirs:?}");
    // The ledger is nobody's: a worker that could write its own record would be its own judge.
    theirs.push(Thing::new(plan::CONTROL_BUCKET, record(ATTACKER, own_review)));
    theirs.push(Thing::new(plan::CONTROL_BUCKET, "leader.json"));
    let nobodys = Thing::new("nobodys-uploads", "q3/none.csv");
    let stage = Stage { attacker: &attacker, owner: &owner, own: Thing::new(OWN, "mine"), theirs, nobodys };
    stage.play(ATTACKS).await;
    assert_eq!(belongings(&world).await, before, "what is the victim's is as it was");
}

fn session(thing: &Thing) -> String {
    format!("/upload/storage/v1/b/{}/o?uploadType=resumable&upload_id={}", thing.of, thing.item)
}

const GOING_ON: &[Attack] = &[
    Attack(
        "ask how far it is",
        |t| Call::put(session(t), "").with("content-range", "bytes */*"),
        403,
        Allowed::Own(308),
    ),
    Attack(
        "send a part of",
        |t| Call::put(session(t), "forged").with("content-range", "bytes 0-5/20"),
        403,
        Allowed::Own(308),
    ),
    Attack("finish", |t| Call::put(session(t), "forged").with("content-range", "bytes 0-5/6"), 403, Allowed::Own(200)),
    Attack("cancel", |t| Call::delete(session(t)), 403, Allowed::Own(404)),
];

/// The id of an upload that was just begun.
async fn begin(hand: &Hand, bucket: &str, name: &str) -> String {
    let begun = hand.call(Call::post(upload(&Thing::new(bucket, name), "resumable", name), "")).await;
    let location = begun.location.unwrap_or_else(|| panic!("{} {}", begun.code, begun.text));
    location.rsplit_once("upload_id=").expect("it names the upload").1.to_owned()
}

async fn status(hand: &Hand, thing: &Thing) -> Answer {
    hand.call(Call::put(session(thing), "").with("content-range", "bytes */*")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_another_began_is_neither_continued_nor_told_of() {
    let world = World::start(two(json!({})), |_| {}).await;
    let (owner, attacker, victim) = (owner(&world), worker(&world, ATTACKER), worker(&world, VICTIM));
    let (id, none) = (begin(&victim, "bolt-outputs", "half").await, "0".repeat(64));
    let own = Thing::new(OWN, begin(&attacker, OWN, "half").await);
    let (theirs, nobodys) = (Thing::new("bolt-outputs", &id), Thing::new("nobodys-outputs", &none));
    let stage = Stage { attacker: &attacker, owner: &owner, own, theirs: vec![theirs.clone()], nobodys };
    stage.play(GOING_ON).await;

    // Through its own bucket the attacker may write; the upload is not there, whether its owner is at it or not.
    let (astray, unknown) = (Thing::new(OWN, &id), Thing::new(OWN, &none));
    let same = async || {
        let (got, nothing) = (status(&attacker, &astray).await, status(&attacker, &unknown).await);
        assert_eq!((got.code, astray.nameless(&got.text)), (404, unknown.nameless(&nothing.text)));
    };
    same().await;
    let (mut sender, body) = mpsc::channel::<Bytes>(1);
    let body = Body::from_stream(body.map(Ok::<_, std::io::Error>));
    let sending = victim.call(Call::put(session(&theirs), body).with("content-range", "bytes 0-9/10"));
    let meanwhile = async {
        sender.send(Bytes::from_static(b"12345")).await.expect("it is read");
        let busy = async || (status(&victim, &theirs).await.code == 503).then_some(());
        eventually("the victim's upload under way", busy).await;
        same().await;
        sender.send(Bytes::from_static(b"67890")).await.expect("it is read");
        sender.close_channel();
    };
    let (sent, ()) = tokio::join!(sending, meanwhile);
    assert_eq!(sent.code, 200, "{sent:?}");
    let body = world.objects.get("bolt-outputs", "half", 100).await.expect("answered").expect("there");
    assert_eq!(body.bytes, "1234567890", "it is the victim's, whole");
}
