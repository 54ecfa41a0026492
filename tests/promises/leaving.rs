//! What grows old and who leaves: terminal things are removed after their time, and all that is kept of a deleted tenant.

use carrel::plan::CONTROL_BUCKET;
use carrel_schemas::dead_letter::{DeadLetter, DeadLetterClass};
use carrel_schemas::outcome::Verdict;
use carrel_schemas::review_request::REVIEW_REQUESTED;
use carrel_schemas::seal::Seal;
use serde_json::{Value, json};

use crate::files::sales;
use crate::gate::Gate;
use crate::world::{World, eventually, tenant};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_and_old_is_removed_with_what_it_left_and_what_was_decided_and_delivered_stays() {
    let world = World::start(vec![tenant("acme", json!({}))], |setup| {
        setup.dispatcher.push(("CARREL_RETENTION".to_owned(), "2s".to_owned()));
    })
    .await;
    world.upload("acme", "empty", vec![]).await;
    world.dead_letter(Some("acme"), "the empty pack", |_| true).await;
    world.upload("acme", "refused", vec![("run.exe", b"MZ\x90\x00".to_vec())]).await;
    let refused = world.completion("acme", "refused").await.completion;
    assert_eq!(refused.verdict.state(), "refused");
    let refused = refused.review.to_string();
    let before = world.api("acme").get("/v1/tenants/acme/completions").await.expect("answered");
    let cursor = before["next"].as_str().expect("a cursor").to_owned();
    world.upload("acme", "q3", vec![("sales.csv", sales())]).await;
    let got = world.completion("acme", "q3").await.completion;
    let review = got.review.to_string();
    let stray = format!("reviews/{review}/1-7/half.html");
    world.objects.put("acme-outputs", &stray, "half".into(), "text/html").await.expect("written");
    // A second revision, so that the first seal is not the pack's last.
    world.upload("acme", "q3", vec![("more.csv", sales())]).await;
    eventually("its completion", async || (world.received().len() == 3).then_some(())).await;

    // Whoever deals with the letter of the refused one may want to look at it, or have it replayed. The second revision is
    // what q3 last came to.
    let last = world
        .received()
        .into_iter()
        .map(|got| got.completion.review)
        .find(|other| ![&refused, &review].contains(&&other.to_string()));
    let last = last.expect("the second revision's review").to_string();
    eventually("the ledger without other reviews, and without their log", async || {
        let kept = world.names(CONTROL_BUCKET, "tenants/acme/").await;
        let is_other = |name: &String| name.contains("/reviews/") && !name.contains(&refused) && !name.contains(&last);
        let is_over = |name: &String| is_other(name) || name.contains("/completions/");
        assert!(kept.contains(&format!("tenants/acme/reviews/{refused}.json")), "{kept:?}");
        (!kept.iter().any(is_over)).then_some(())
    })
    .await;
    let seals = eventually("one seal of each pack", async || {
        Some(world.names(CONTROL_BUCKET, "tenants/acme/seals/").await).filter(|seals| seals.len() == 3)
    })
    .await;
    for name in seals {
        let body = world.objects.get(CONTROL_BUCKET, &name, Seal::MAX_BYTES).await.expect("answered").expect("there");
        let seal: Seal = serde_json::from_slice(&body.bytes).expect("a seal");
        assert!(seal.pack.as_str() != "q3" || seal.revision.get() == 2, "{seal:?}");
    }
    let left = world.names("acme-outputs", "").await;
    let Verdict::Delivered { files, .. } = &got.verdict else { panic!("{:?}", got.verdict) };
    for file in files {
        assert!(left.contains(&file.object.to_string()), "what was delivered stays: {left:?}");
    }
    let is_decided = |name: &String| name.starts_with("outcomes/") || name.starts_with("reviews/");
    assert!(
        left.iter().all(|name| is_decided(name) || name.contains(&refused) || name.contains(&last))
            && !left.contains(&stray),
        "{left:?}"
    );
    assert_eq!(world.dead_letters(Some("acme")).await.len(), 2, "nobody has dealt with them");

    // Who had read nothing is told that something is missing; who begins anew is not.
    for after in [cursor.as_str(), "2026-01-01T00:00:00Z"] {
        let path = format!("/v1/tenants/acme/completions?after={after}");
        let refused = world.api("acme").get(&path).await.expect_err("a gap").to_string();
        assert!(refused.contains("410") && refused.contains("not kept any more"), "{refused}");
        let all = world.operator().get(&format!("/v1/completions?after={after}")).await.expect_err("a gap");
        assert!(all.to_string().contains("410"), "{all}");
    }
    let anew = world.api("acme").get("/v1/tenants/acme/completions").await.expect("answered");
    assert_eq!(anew["completions"], json!([]));
    // Not even when the pack is closed once more, and holds what it held.
    world.upload("acme", "q3", vec![]).await;
    eventually("its third seal", async || {
        let seals = world.names(CONTROL_BUCKET, "tenants/acme/seals/").await;
        seals.iter().any(|name| name.contains("3.json")).then_some(())
    })
    .await;
    world.settled().await;
    assert_eq!(world.received().len(), 3, "nothing is announced again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_that_is_over_is_removed_and_one_with_something_left_to_do_is_kept() {
    let world = World::start(vec![tenant("acme", json!({}))], |setup| {
        setup.agent = ["/bin/sh", "-c", "exit 3"].map(str::to_owned).to_vec();
        setup.dispatcher.push(("CARREL_RETENTION".to_owned(), "2s".to_owned()));
    })
    .await;
    for pack in ["a", "b"] {
        world.upload("acme", pack, vec![("sales.csv", sales())]).await;
    }
    let failed = eventually("a letter of each", async || {
        Some(world.dead_letters(Some("acme")).await).filter(|letters| letters.len() == 2)
    })
    .await;
    let begin = async |key: &str, wish: Value, state: &str| {
        let begun = world.operator().post("/v1/campaigns", key, &wish).await.expect("taken");
        let id = begun["id"].as_str().expect("an id").to_owned();
        eventually(state, async || {
            let campaign = world.operator().get(&format!("/v1/campaigns/{id}")).await.expect("answered");
            (campaign["state"] == state).then_some(())
        })
        .await;
        id
    };
    let letters: Vec<_> = failed.iter().map(|letter| &letter.id).collect();
    let open = begin("open", json!({ "letters": letters, "canary": 1 }), "halted").await;
    // Begun after that, so that whoever takes it away has found the other older.
    world.upload("acme", "empty", vec![]).await;
    let is_empty = |letter: &DeadLetter| letter.class == DeadLetterClass::EmptyPack;
    let letter = world.dead_letter(Some("acme"), "the empty pack", is_empty).await;
    let over = begin("over", json!({ "letters": [letter.id] }), "finished").await;
    eventually("nothing of the one that is over", async || {
        let left = world.names(CONTROL_BUCKET, "campaign").await;
        (!left.iter().any(|name| name.contains(&over))).then_some(())
    })
    .await;
    let gone = world.operator().get(&format!("/v1/campaigns/{over}")).await.expect_err("removed").to_string();
    assert!(gone.contains("no such campaign"), "{gone}");
    let kept = world.operator().get(&format!("/v1/campaigns/{open}")).await.expect("kept with its letters");
    assert_eq!((&kept["state"], &kept["counts"]), (&json!("halted"), &json!({ "failed": 1, "pending": 1 })));
}

/// Changes the registry of a fleet, for the next start of its dispatcher.
pub(crate) fn rewrite(world: &World, change: impl FnOnce(&mut Vec<Value>)) {
    let path = world.dir().join("tenants.yaml");
    let mut file: Value =
        serde_yaml_ng::from_str(&std::fs::read_to_string(&path).expect("written")).expect("a registry");
    change(file["tenants"].as_array_mut().expect("tenants"));
    std::fs::write(path, file.to_string()).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_tenant_ends_and_goes_and_its_id_is_never_used_again() {
    let one = json!({ "limits": { "max_concurrent": 1 } });
    let mut gate = None;
    let tenants = vec![tenant("acme", one), tenant("bolt", json!({})), tenant("cord", json!({}))];
    let mut world = World::start(tenants, |setup| gate = Some(Gate::install(setup))).await;
    let gate = gate.expect("installed");
    for pack in ["runs", "waits"] {
        world.upload("acme", pack, vec![("sales.csv", sales())]).await;
    }
    gate.is_reached_by(1).await;
    world.put("acme", "open/sales.csv", sales()).await;
    for who in ["acme", "bolt", "cord"] {
        world.upload(who, "empty", vec![]).await;
        world.dead_letter(Some(who), "its empty pack", |_| true).await;
    }
    // The packs that are filed are closed as well, or nobody would close cord's.
    for who in ["bolt", "cord"] {
        eventually("its pack closed", async || {
            world.names(CONTROL_BUCKET, &format!("open/packs/{who}/")).await.is_empty().then_some(())
        })
        .await;
    }
    let of_cord = world.names(CONTROL_BUCKET, "tenants/cord/").await.len();

    world.kill_dispatcher();
    rewrite(&world, |tenants| {
        tenants[0]["deleting"] = json!(true);
        tenants.pop();
    });
    world.restart_dispatcher().await;
    for pack in ["runs", "waits"] {
        let got = world.completion("acme", pack).await.completion;
        let Verdict::Cancelled { reason } = &got.verdict else { panic!("{:?}", got.verdict) };
        assert_eq!(reason, "tenant acme is being deleted");
    }
    eventually("an empty room", async || gate.is_deserted().then_some(())).await;
    eventually("the tombstone", async || {
        let buried = world.names(CONTROL_BUCKET, "tombstones/").await;
        (buried == ["tombstones/acme.json"]).then_some(())
    })
    .await;
    for prefix in ["tenants/acme/", "open/"] {
        let left = world.names(CONTROL_BUCKET, prefix).await;
        assert!(left.is_empty(), "{left:?}");
    }
    // Nothing more is taken in.
    world.put("acme", "late/sales.csv", sales()).await;
    let request = json!({ "tenant": "acme", "pack": "late", "idempotency_key": "late" }).to_string();
    let context =
        [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "//platform"), ("ce-type", REVIEW_REQUESTED)];
    world.publish("review-requests", request, &context).await;
    let letter = world.dead_letter(None, "the late request's letter", |_| true).await;
    assert_eq!(letter.class, DeadLetterClass::UnknownTenant);
    assert!(letter.reason.contains("tenant acme is being deleted"), "{}", letter.reason);
    let asked = world.operator().post("/v1/tenants/acme/reviews", "k", &json!({ "pack": "late" })).await;
    let asked = asked.expect_err("it leaves").to_string();
    assert!(asked.contains("409") && asked.contains("is being deleted"), "{asked}");

    // The others are as they were, and whoever left the registry without being deleted is not forgotten.
    assert_eq!(world.names(CONTROL_BUCKET, "tenants/cord/").await.len(), of_cord);
    let all = world.operator().get("/v1/dead-letters").await.expect("answered");
    let owners = all["dead_letters"].as_array().expect("letters").iter().map(|letter| letter["tenant"].as_str());
    let mut owners: Vec<_> = owners.collect();
    owners.sort_unstable();
    assert_eq!(owners, [None, Some("bolt"), Some("cord")]);

    world.kill_dispatcher();
    rewrite(&world, |tenants| tenants[0]["deleting"] = json!(false));
    world.fleet.start_dispatcher().await.expect_err("the id was used");
    let log = std::fs::read_to_string(world.dir().join("logs/dispatcher.log")).expect("a log");
    assert!(log.contains("tenant acme was deleted, and ids are never reused"), "{log}");
}
