//! Everything a customer, a publisher or an attacker may send: each ends in a named refusal, and the fleet goes on.

use std::collections::BTreeMap;

use carrel::plan;
use carrel_schemas::dead_letter::{DeadLetter, DeadLetterClass, DeadLetterSource};
use carrel_schemas::ids::PackId;
use carrel_schemas::outcome::{InputVerdict, Outcome, RefusalCode, Verdict};
use carrel_schemas::review_request::REVIEW_REQUESTED;
use carrel_schemas::seal::Seal;
use futures::future::FutureExt as _;
use futures::stream::StreamExt as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::files;
use crate::world::{Prepared, World, eventually, tenant};

const FINALIZED: [(&str, &str); 5] = [
    ("eventType", "OBJECT_FINALIZE"),
    ("payloadFormat", "NONE"),
    ("bucketId", "acme-uploads"),
    ("objectId", "q3/a.csv"),
    ("objectGeneration", "7"),
];

/// A notification's attributes with some of them changed or, if empty, left out.
fn notification<'a>(changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut attributes: BTreeMap<&str, &str> = FINALIZED.into();
    attributes.extend(changes.iter().copied());
    attributes.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

async fn goes_on(world: &World) {
    world.upload("acme", "good", vec![("sales.csv", files::sales())]).await;
    assert_eq!(world.completion("acme", "good").await.completion.verdict.state(), "delivered");
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_no_notification_of_ours_is_a_dead_letter_that_says_why() {
    let world = World::start(vec![tenant("acme", json!({}))], |_| {}).await;
    let malformed = DeadLetterClass::Malformed;
    /// Changed attributes, payload, and what its letter is and says.
    type Case = (&'static [(&'static str, &'static str)], &'static [u8], DeadLetterClass, &'static str);
    let table: [Case; 7] = [
        (&[("bucketId", "nobodys-uploads")], b"", DeadLetterClass::UnknownTenant, "nobodys-uploads"),
        (&[("eventType", "")], b"", malformed, "\"eventType\" is missing"),
        (&[("eventType", "OBJECT_EATEN")], b"", malformed, "OBJECT_EATEN"),
        (&[("payloadFormat", "JSON_API_V1")], b"{", malformed, "payload is not a JSON object resource"),
        (&[("objectId", "q3/a\nb.csv")], b"", malformed, "object name"),
        (&[("objectGeneration", "soon")], b"", malformed, "soon"),
        (&[("objectId", "")], b"", malformed, "\"objectId\" is missing"),
    ];
    for (changes, payload, class, said) in table {
        world.publish("uploads", payload, &notification(changes)).await;
        let letter = world.dead_letter(None, said, |letter| letter.reason.contains(said)).await;
        assert_eq!(letter.class, class, "{}", letter.reason);
    }
    // Known, and of no consequence: nothing is filed for it.
    world.publish("uploads", Vec::new(), &notification(&[("eventType", "OBJECT_DELETE")])).await;
    goes_on(&world).await;
    let page = world.operator().get("/v1/dead-letters").await.expect("answered");
    assert_eq!(page["dead_letters"].as_array().map(Vec::len), Some(table.len()), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_message_is_one_letter_however_often_it_comes_and_whoever_gave_it_up() {
    let world = World::start(vec![tenant("acme", json!({}))], |_| {}).await;
    let bad = notification(&[("objectGeneration", "soon")]);
    let given_up = [
        ("CloudPubSubDeadLetterSourceDeliveryCount", "5"),
        ("CloudPubSubDeadLetterSourceSubscription", "uploads-dispatcher"),
        ("CloudPubSubDeadLetterSourceSubscriptionProject", plan::PROJECT),
        ("CloudPubSubDeadLetterSourceTopicPublishTime", "2026-03-01T12:00:00Z"),
    ];
    for _ in 0..2 {
        world.publish("uploads", Vec::new(), &bad).await;
    }
    world.publish("uploads-dead", Vec::new(), &[&bad[..], &given_up[..]].concat()).await;
    // One more by each way tells when those before it were taken.
    for (topic, generation) in [("uploads", "sooner"), ("uploads-dead", "later")] {
        world.publish(topic, Vec::new(), &notification(&[("objectGeneration", generation)])).await;
        world.dead_letter(None, generation, |letter| letter.reason.contains(generation)).await;
    }
    let letters = world.dead_letters(None).await;
    assert_eq!(letters.len(), 3, "{letters:?}");
    goes_on(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_notification_that_was_given_up_is_reviewed_after_all_and_is_no_letter() {
    let prepared = Prepared::new(vec![tenant("acme", json!({}))], |setup| {
        // No sweep but the first: what is found is found by the message.
        setup.dispatcher.push(("CARREL_RECONCILE_MS".to_owned(), "600000".to_owned()));
    });
    prepared.reconfigure(|config| {
        for bucket in config["buckets"].as_array_mut().expect("buckets") {
            bucket["notifications"] = json!([]);
        }
    });
    let world = prepared.start().await;
    world.put("acme", "q3/sales.csv", files::sales()).await;
    let generation = world.put("acme", "q3/_COMPLETE", Vec::new()).await.to_string();
    let good = notification(&[("objectId", "q3/_COMPLETE"), ("objectGeneration", &generation)]);
    let given_up = [("CloudPubSubDeadLetterSourceDeliveryCount", "5")];
    world.publish("uploads-dead", Vec::new(), &[&good[..], &given_up[..]].concat()).await;
    assert_eq!(world.completion("acme", "q3").await.completion.verdict.state(), "delivered");
    for who in [None, Some("acme")] {
        assert!(world.dead_letters(who).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_reaches_for_another_tenant_is_refused_by_name() {
    let world = World::start(vec![tenant("acme", json!({})), tenant("bolt", json!({}))], |_| {}).await;
    world.put("bolt", "q3/secret.csv", files::sales()).await;
    let context =
        [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "//platform"), ("ce-type", REVIEW_REQUESTED)];
    let ask = |tenant: &str, bucket: &str| {
        json!({ "tenant": tenant, "pack": "q3", "bucket": bucket, "idempotency_key": format!("{tenant}-1") })
            .to_string()
    };
    world.publish("review-requests", ask("acme", "bolt-uploads"), &context).await;
    let letter = world.dead_letter(Some("acme"), "the refusal", |letter| letter.reason.contains("bolt-uploads")).await;
    assert_eq!(letter.class, DeadLetterClass::Forbidden);
    world.publish("review-requests", ask("stranger", "bolt-uploads"), &context).await;
    let letter = world.dead_letter(None, "the refusal", |letter| letter.reason.contains("stranger")).await;
    assert_eq!(letter.class, DeadLetterClass::UnknownTenant);
    world.publish("review-requests", "no json", &context).await;
    world.dead_letter(None, "the refusal", |letter| letter.class == DeadLetterClass::Malformed).await;
    world.upload("acme", "good", vec![("sales.csv", files::sales())]).await;
    assert_eq!(world.completion("acme", "good").await.completion.verdict.state(), "delivered");
    assert!(world.received().iter().all(|got| got.completion.tenant.as_str() == "acme"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_or_replaced_before_the_seal_is_sealed_as_it_then_is() {
    let world = World::start(vec![tenant("acme", json!({}))], |_| {}).await;
    world.put("acme", "gone/a.csv", files::sales()).await;
    world.objects.delete("acme-uploads", "gone/a.csv", None).await.expect("deleted");
    world.put("acme", "gone/_COMPLETE", Vec::new()).await;
    let letter = world.dead_letter(Some("acme"), "the empty pack", |l| l.class == DeadLetterClass::EmptyPack).await;
    assert!(letter.reason.contains("gone") && letter.reason.contains("_COMPLETE"), "{}", letter.reason);

    world.put("acme", "new/a.csv", "too,early\n1,2\n").await;
    world.put("acme", "new/a.csv", files::sales()).await;
    world.put("acme", "new/_COMPLETE", Vec::new()).await;
    let got = world.completion("acme", "new").await;
    assert_eq!(got.completion.verdict.state(), "delivered");
    let usage = world.outcome(&got.completion).await.usage.expect("measured");
    assert_eq!(usage.input_bytes, files::sales().len() as u64, "the newer version was reviewed");
    goes_on(&world).await;
}

fn refusals(outcome: &Outcome) -> BTreeMap<String, RefusalCode> {
    let refused = outcome.inputs.iter().filter_map(|input| match &input.verdict {
        InputVerdict::Accepted => None,
        InputVerdict::Refused { code, message } => {
            assert!(message.len() > 20, "a refusal says what to do: {message:?}");
            Some((input.name.to_string(), *code))
        }
    });
    refused.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_reviewed_is_refused_by_name_and_its_neighbours_are_reviewed() {
    let limits = json!({ "limits": { "max_file_bytes": 3 << 20, "max_inflated_bytes": 32 << 20 } });
    let world = World::start(vec![tenant("acme", limits)], |_| {}).await;
    let too_large = (3 << 20) + 7;
    let bad: Vec<(&str, Vec<u8>, RefusalCode)> = vec![
        ("empty.csv", Vec::new(), RefusalCode::Empty),
        ("large.csv", vec![b'1'; too_large], RefusalCode::TooLarge),
        ("bomb.xlsx", files::bomb(64 << 20), RefusalCode::ArchiveBomb),
        ("locked.xlsx", files::encrypted(), RefusalCode::Encrypted),
        ("picture.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec(), RefusalCode::TypeMismatch),
        ("table.pdf", files::sales(), RefusalCode::TypeMismatch),
        ("program.exe", b"MZ".to_vec(), RefusalCode::UnsupportedType),
    ];
    for (name, bytes, _) in &bad {
        world.put("acme", &format!("q3/{name}"), bytes.clone()).await;
    }
    // Refused from its metadata: the cloud no longer has the bytes, so that reading them would fail the review.
    let blobs = std::fs::read_dir(world.dir().join("cloud/blobs")).expect("blobs");
    let large = blobs
        .map(|blob| blob.expect("an entry").path())
        .find(|path| std::fs::metadata(path).is_ok_and(|meta| meta.len() == too_large as u64));
    std::fs::write(large.expect("the large file's bytes"), b"").expect("emptied");
    world.upload("acme", "q3", vec![("sales.csv", files::sales())]).await;
    let got = world.completion("acme", "q3").await;
    assert_eq!(got.completion.verdict.state(), "delivered");
    let found = refusals(&world.outcome(&got.completion).await);
    let wanted: BTreeMap<_, _> = bad.iter().map(|(name, _, code)| (format!("q3/{name}"), *code)).collect();
    assert_eq!(found, wanted);
    goes_on(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_of_refused_files_only_is_refused_with_reasons_and_is_a_dead_letter() {
    let world = World::start(vec![tenant("acme", json!({}))], |_| {}).await;
    world.upload("acme", "q3", vec![("empty.csv", Vec::new()), ("locked.xlsx", files::encrypted())]).await;
    let got = world.completion("acme", "q3").await;
    let Verdict::Refused { reason } = &got.completion.verdict else { panic!("{:?}", got.completion.verdict) };
    assert!(reason.contains("empty.csv") && reason.contains("locked.xlsx"), "{reason}");
    let letter = world.dead_letter(Some("acme"), "its letter", |l| l.class == DeadLetterClass::Refused).await;
    assert_eq!(letter.reason, *reason);
    goes_on(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_parsers_choke_on_end_in_a_delivered_review_that_names_them() {
    let world = World::start(vec![tenant("acme", json!({}))], |_| {}).await;
    let far = files::far_cell();
    assert!(far.len() < 2048, "{} bytes", far.len());
    let packs = [("far.xlsx", far), ("garbage.pdf", files::garbage_pdf()), ("wide.csv", files::wide_utf16(500))];
    for (name, bytes) in packs {
        world.upload("acme", name, vec![(name, bytes), ("sales.csv", files::sales())]).await;
        let got = world.completion("acme", name).await;
        let Verdict::Delivered { files, .. } = &got.completion.verdict else { panic!("{:?}", got.completion.verdict) };
        let outcome = world.outcome(&got.completion).await;
        let usage = outcome.usage.clone().expect("measured");
        assert!(usage.agent_peak_bytes < 256 << 20, "{name}: {} bytes of memory", usage.agent_peak_bytes);
        let findings = files.iter().find(|file| file.name == "findings.json").expect("findings");
        let body = world.objects.get("acme-outputs", findings.object.as_str(), findings.size).await.expect("answered");
        let document: serde_json::Value = serde_json::from_slice(&body.expect("there").bytes).expect("JSON");
        let unread = document["not_computed"].to_string().contains(name) || !refusals(&outcome).is_empty();
        assert_eq!(unread, name != "wide.csv", "{name}: {}", document["not_computed"]);
    }
    goes_on(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_only_a_reader_can_refuse_says_why() {
    let world = World::start(vec![tenant("acme", json!({}))], |_| {}).await;
    world.upload("acme", "far", vec![("far.xlsx", files::far_cell())]).await;
    let got = world.completion("acme", "far").await;
    let Verdict::Refused { reason } = &got.completion.verdict else { panic!("{:?}", got.completion.verdict) };
    assert!(reason.contains("far.xlsx") && !reason.contains("reading files"), "{reason}");
    goes_on(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_is_held_against_its_manifest_and_a_corrected_one_is_heard() {
    let world = World::start(vec![tenant("acme", json!({}))], |_| {}).await;
    let verdict = async |what: &str, wanted: &str| {
        eventually(what, async || {
            world.received().into_iter().find(|got| {
                let completion = &got.completion;
                completion.pack.as_str() == "q3" && completion.verdict.state() == wanted
            })
        })
        .await
        .completion
    };
    world.put("acme", "q3/sales.csv", files::sales()).await;
    world.put("acme", "q3/_manifest.json", "{ not JSON").await;
    let Verdict::Refused { reason } = verdict("the refusal", "refused").await.verdict else { panic!("it is refused") };
    assert!(reason.contains("_manifest.json"), "{reason}");
    let sha256 = hex::encode(Sha256::digest(files::sales()));
    let manifest = json!({ "files": [{ "name": "sales.csv", "sha256": sha256 }] }).to_string();
    world.put("acme", "q3/_manifest.json", manifest).await;
    assert_eq!(verdict("the review", "delivered").await.revision.get(), 2);
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_made_to_escape_or_to_deceive_are_only_names() {
    let world = World::start(vec![tenant("acme", json!({}))], |_| {}).await;
    let long = format!("names/{}.csv", "n".repeat(1024 - "names/.csv".len()));
    let names = ["names/../../../etc/cron.d/x.csv", "names//b.csv", "names/\u{202E}fdp.csv", "names/$(id).csv", &long];
    for name in names {
        world.put("acme", name, files::sales()).await;
    }
    world.put("acme", "names/_COMPLETE", Vec::new()).await;
    let got = world.completion("acme", "names").await;
    assert_eq!(got.completion.verdict.state(), "delivered");
    assert_eq!(world.outcome(&got.completion).await.inputs.len(), names.len());

    // A folder called `..` is a pack like any other, in every bucket it leaves a trace in.
    world.upload("acme", "..", vec![("sales.csv", files::sales())]).await;
    assert_eq!(world.completion("acme", "..").await.completion.verdict.state(), "delivered");
    goes_on(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_of_more_files_than_a_seal_names_is_a_letter_and_no_review() {
    let world = World::start(vec![tenant("acme", json!({}))], |_| {}).await;
    let names: Vec<String> = (0..=Seal::MAX_MEMBERS).map(|at| format!("many/{at}.csv")).collect();
    let uploads = names.iter().map(|name| world.put("acme", name, "a,b\n1,2\n").boxed());
    futures::stream::iter(uploads).buffer_unordered(64).collect::<Vec<_>>().await;
    world.put("acme", "many/_COMPLETE", Vec::new()).await;
    let letter = world.dead_letter(Some("acme"), "its letter", |l| l.class == DeadLetterClass::Refused).await;
    assert!(letter.reason.contains("many") && letter.reason.contains("smaller packs"), "{}", letter.reason);
    let context =
        [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "//platform"), ("ce-type", REVIEW_REQUESTED)];
    let request = json!({ "tenant": "acme", "pack": "many", "idempotency_key": "once" }).to_string();
    world.publish("review-requests", request, &context).await;
    let asked = world.dead_letter(Some("acme"), "that of the request", |l| l.reason.contains("too many files")).await;
    let wish = json!({ "letters": [asked.id], "dry_run": true });
    let forecast = world.operator().post("/v1/campaigns", "dry", &wish).await.expect("answered");
    assert_eq!(forecast["counts"], json!({ "still_invalid": 1 }), "{forecast}");
    goes_on(&world).await;
    assert_eq!(world.received().len(), 1, "nothing reviewed it");
    let seals = format!("tenants/acme/seals/{}/", PackId::parse("many").expect("id").key());
    assert_eq!(world.names(plan::CONTROL_BUCKET, &seals).await.len(), 1, "no sweep takes it for unsealed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_noted_however_often_it_comes_is_filed() {
    let world = World::start(vec![tenant("acme", json!({}))], |_| {}).await;
    for pack in ["q3", "q4"] {
        let key = PackId::parse(pack).expect("id").key();
        let broken = format!("tenants/acme/seals/{key}/0000000001.json");
        world.objects.put(plan::CONTROL_BUCKET, &broken, "{".into(), "application/json").await.expect("written");
        world.put("acme", &format!("{pack}/sales.csv"), files::sales()).await;
        let letter = world.dead_letter(Some("acme"), "its letter", |letter| letter.reason.contains(&broken)).await;
        assert_eq!(letter.class, DeadLetterClass::Undeliverable, "{}", letter.reason);
        let DeadLetterSource::Message { attributes, .. } = &letter.source else { panic!("{:?}", letter.source) };
        assert_eq!(attributes["objectId"], format!("{pack}/sales.csv"), "it can be replayed");
    }
    // Which helps only once the seals are mended: what comes back as it was halts the campaign.
    let dry = json!({ "all": true, "dry_run": true });
    let forecast = world.operator().post("/v1/campaigns", "dry", &dry).await.expect("answered");
    assert_eq!(forecast["counts"], json!({ "still_invalid": 2 }), "{forecast}");
    let wish = json!({ "all": true, "canary": 1 });
    let begun = world.operator().post("/v1/campaigns", "too-early", &wish).await.expect("taken");
    let path = format!("/v1/campaigns/{}", begun["id"].as_str().expect("an id"));
    let halted = eventually("the campaign halted", async || {
        let campaign = world.operator().get(&path).await.expect("answered");
        (campaign["state"] == "halted").then_some(campaign)
    })
    .await;
    assert!(halted["reason"].as_str().is_some_and(|why| why.contains("failed again as it had")), "{halted}");
    assert_eq!(halted["counts"], json!({ "failed": 1, "pending": 1 }));
    world.operator().post(&format!("{path}/cancel"), "cancel", &json!({})).await.expect("cancelled");
    goes_on(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_of_millions_of_bytes_hides_no_other() {
    let world = World::start(vec![tenant("acme", json!({}))], |_| {}).await;
    let (large, small) = (vec![b'x'; 8 << 20], b"y".to_vec());
    world.publish("review-requests", large.clone(), &[]).await;
    world.publish("review-requests", small, &[]).await;
    let two = async || {
        let page = world.operator().get("/v1/dead-letters").await.expect("answered");
        let letters: Vec<DeadLetter> = serde_json::from_value(page["dead_letters"].clone()).expect("letters");
        (letters.len() == 2).then_some(letters)
    };
    for letter in eventually("both letters", two).await {
        let DeadLetterSource::Message { data, .. } = &letter.source else { panic!("{:?}", letter.source) };
        assert!(data.is_empty(), "a list holds no bodies");
        let whole = world.operator().get(&format!("/v1/dead-letters/{}", letter.id)).await.expect("answered");
        let whole: DeadLetter = serde_json::from_value(whole).expect("a letter");
        let DeadLetterSource::Message { data, .. } = &whole.source else { panic!("{:?}", whole.source) };
        assert!(data.len() == 4 || data.len() == large.len().div_ceil(3) * 4, "{} bytes", data.len());
    }
    goes_on(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_sealed_and_deleted_before_it_was_a_review_ends_in_one() {
    let world = World::start(vec![tenant("acme", json!({ "policy": { "close": "each" } }))], |_| {}).await;
    let generation = world.put("acme", "a.csv", files::sales()).await.to_string();
    let first = world.completion("acme", "a.csv").await.completion;
    world.settled().await;
    // As a dispatcher leaves it that dies right after the seal: no record, no marker, and by now no file.
    let record = format!("tenants/acme/reviews/{}.json", first.review);
    world.objects.delete(plan::CONTROL_BUCKET, &record, None).await.expect("deleted");
    world.objects.delete("acme-uploads", "a.csv", None).await.expect("deleted");
    let copy = notification(&[("objectId", "a.csv"), ("objectGeneration", &generation)]);
    world.publish("uploads", Vec::new(), &copy).await;
    let names = async || world.names(plan::CONTROL_BUCKET, &record).await.pop();
    eventually("its record", names).await;
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_copy_of_the_event_of_a_file_that_was_reviewed_and_deleted_is_forgotten() {
    let world = World::start(vec![tenant("acme", json!({ "policy": { "close": "each" } }))], |_| {}).await;
    let generation = world.put("acme", "a.csv", files::sales()).await.to_string();
    assert_eq!(world.completion("acme", "a.csv").await.completion.verdict.state(), "delivered");
    world.objects.delete("acme-uploads", "a.csv", None).await.expect("deleted");
    let copy = notification(&[("objectId", "a.csv"), ("objectGeneration", &generation)]);
    world.publish("uploads", Vec::new(), &copy).await;
    // One that was never reviewed is filed; messages of one publisher are taken in their order.
    let never = notification(&[("objectId", "never.csv")]);
    world.publish("uploads", Vec::new(), &never).await;
    world.dead_letter(Some("acme"), "the other's letter", |l| l.reason.contains("never.csv")).await;
    let page = world.operator().get("/v1/tenants/acme/dead-letters").await.expect("answered");
    assert_eq!(page["dead_letters"].as_array().map(Vec::len), Some(1), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marker_that_never_comes_is_ended_by_the_maximum_age() {
    let policy = json!({ "policy": { "close": "marker", "max_age_seconds": 1 } });
    let world = World::start(vec![tenant("acme", policy)], |_| {}).await;
    world.put("acme", "q3/sales.csv", files::sales()).await;
    let got = world.completion("acme", "q3").await;
    assert_eq!(got.completion.verdict.state(), "delivered");
    let path = format!("/v1/tenants/acme/reviews/{}", got.completion.review);
    assert_eq!(world.api("acme").get(&path).await.expect("answered")["closed_by"], "max_age");
    goes_on(&world).await;
}
