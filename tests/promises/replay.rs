//! Dead letters replayed by campaigns: once, at their pace, stopped where it does not help, and carried on by whoever
//! leads after a kill.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use carrel::fleet::Setup;
use carrel::plan;
use carrel_schemas::dead_letter::{DeadLetter, DeadLetterClass, DeadLetterSource, DeadLetterState};
use carrel_schemas::ids::{DeadLetterId, Epoch, EventId, PackId};
use carrel_schemas::outcome::Verdict;
use carrel_schemas::review_request::REVIEW_REQUESTED;
use futures::stream::StreamExt as _;
use serde_json::{Value, json};

use crate::files::sales;
use crate::leaving::rewrite;
use crate::world::{Prepared, World, eventually, program, tenant};

/// An agent that fails as long as it is broken, and is the analyst once it is mended.
struct Flaw(PathBuf);

impl Flaw {
    fn install(setup: &mut Setup) -> Self {
        let flag = setup.dir.join("flaw");
        std::fs::write(&flag, "broken").expect("written");
        let script = "read -r flaw < \"$2\"; [ \"$flaw\" != broken ] || { echo no luck >&2; exit 3; }\n\
                      exec \"$1\" internal analyst \"$3\"";
        let words = ["/bin/sh", "-c", script, "flawed", &program().display().to_string(), &flag.display().to_string()];
        setup.agent = words.map(str::to_owned).to_vec();
        Self(flag)
    }

    fn mend(&self) {
        // In place: rooms show the file, not its name.
        std::fs::write(&self.0, "mended\n").expect("written");
    }
}

async fn flawed(tenants: Vec<Value>) -> (World, Flaw) {
    let mut flaw = None;
    let world = World::start(tenants, |setup| flaw = Some(Flaw::install(setup))).await;
    (world, flaw.expect("installed"))
}

/// Uploads packs that fail, and returns their letters, the newest first.
async fn failed(world: &World, packs: &[&str]) -> Vec<DeadLetter> {
    for pack in packs {
        world.upload("acme", pack, vec![("sales.csv", sales())]).await;
    }
    eventually("a letter of each pack", async || {
        let letters = world.dead_letters(Some("acme")).await;
        (letters.len() == packs.len()).then_some(letters)
    })
    .await
}

async fn replay(world: &World, key: &str, wish: Value) -> Value {
    world.operator().post("/v1/campaigns", key, &wish).await.expect("taken")
}

async fn campaign(world: &World, id: &Value) -> Value {
    world.operator().get(&format!("/v1/campaigns/{}", id.as_str().expect("an id"))).await.expect("answered")
}

async fn is(world: &World, id: &Value, state: &str) -> Value {
    eventually(&format!("campaign {state}"), async || {
        let campaign = campaign(world, id).await;
        (campaign["state"] == state).then_some(campaign)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_review_is_replayed_once_it_can_pass_and_its_pack_is_delivered_in_the_next_epoch() {
    let (world, flaw) = flawed(vec![tenant("acme", json!({}))]).await;
    let letter = failed(&world, &["q3"]).await.remove(0);
    assert_eq!((letter.class, letter.state), (DeadLetterClass::AgentFailed, DeadLetterState::Open));
    let evidence = letter.evidence.expect("what is known of its end");
    assert_eq!(evidence.stage.as_deref(), Some("review"));
    assert!(evidence.log_tail.is_some_and(|tail| tail.contains("no luck")));
    assert!(evidence.usage.is_some_and(|usage| usage.agent_peak_bytes > 0));

    flaw.mend();
    let begun = replay(&world, "mended", json!({ "letters": [letter.id] })).await;
    let again = replay(&world, "mended", json!({ "letters": [letter.id] })).await;
    assert_eq!(begun["id"], again["id"], "asking twice is asking once");
    let over = is(&world, &begun["id"], "finished").await;
    assert_eq!(over["counts"], json!({ "passed": 1 }));
    let events = deliveries(&world, 1).await;
    assert_eq!(events.iter().map(|(_, epoch, _)| epoch.get()).collect::<Vec<_>>(), [2]);
    let letters = world.dead_letters(Some("acme")).await;
    assert_eq!(letters.len(), 1, "the letter itself is resolved: {letters:?}");
    assert_eq!(letters[0].state, DeadLetterState::Resolved);

    // A delivered review is not replayed, whoever asks for it.
    let refused = world.operator().post("/v1/campaigns", "once-more", &json!({ "letters": [letter.id] })).await;
    assert!(refused.expect_err("it is dealt with").to_string().contains("is not open"));
    let refused = world.operator().post("/v1/campaigns", "mended", &json!({ "all": true })).await;
    assert!(refused.expect_err("the key is taken").to_string().contains("stands for another campaign"));
    let refused = world.operator().post("/v1/campaigns", "none", &json!({})).await;
    assert!(refused.expect_err("nothing is named").to_string().contains("say which"));
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_halts_when_its_canary_fails_as_before_and_goes_on_when_told_to() {
    let (world, flaw) = flawed(vec![tenant("acme", json!({ "limits": { "max_concurrent": 3 } }))]).await;
    failed(&world, &["a", "b", "c"]).await;
    let begun = replay(&world, "halts", json!({ "all": true, "canary": 1 })).await;
    let halted = is(&world, &begun["id"], "halted").await;
    assert!(halted["reason"].as_str().is_some_and(|why| why.contains("failed again as it had")), "{halted}");
    assert_eq!(halted["counts"], json!({ "failed": 1, "pending": 2 }), "nothing but the canary was begun");
    let letters = world.dead_letters(Some("acme")).await;
    let second = letters.iter().find(|letter| letter.replay_of.is_some()).expect("a letter of the second epoch");
    let first = letters.iter().find(|letter| Some(&letter.id) == second.replay_of.as_ref()).expect("of the first");
    assert_eq!((first.state, second.state), (DeadLetterState::Resolved, DeadLetterState::Open));

    flaw.mend();
    let path = format!("/v1/campaigns/{}/resume", begun["id"].as_str().expect("an id"));
    world.operator().post(&path, "resume", &json!({})).await.expect("resumed");
    let over = is(&world, &begun["id"], "finished").await;
    assert_eq!(over["counts"], json!({ "failed": 1, "passed": 2 }));
    // The second letter of the canary was filed after the campaign began, which does not feed itself.
    let open = world.dead_letters(Some("acme")).await;
    let open: Vec<_> = open.into_iter().filter(|letter| letter.state == DeadLetterState::Open).collect();
    assert_eq!(open.iter().map(|letter| &letter.id).collect::<Vec<_>>(), [&second.id]);
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_become_of_each_letter_and_disturbs_none() {
    let (world, flaw) = flawed(vec![tenant("acme", json!({}))]).await;
    let both = failed(&world, &["kept", "replaced"]).await;
    let of_kept =
        |source: &DeadLetterSource| matches!(source, DeadLetterSource::Review { pack, .. } if pack.as_str() == "kept");
    let kept = both.iter().find(|letter| of_kept(&letter.source)).expect("its letter");
    world.put("acme", "replaced/sales.csv", "other,bytes\n1,2\n").await;
    let stranger = [("eventType", "OBJECT_FINALIZE"), ("payloadFormat", "NONE"), ("bucketId", "nobodys-uploads")];
    let of_it = [("objectId", "a/b.csv"), ("objectGeneration", "7")];
    world.publish("uploads", Vec::new(), &[&stranger[..], &of_it[..]].concat()).await;
    world.dead_letter(None, "the stranger's letter", |_| true).await;
    flaw.mend();
    let generations = async || {
        let listed = world.objects.list(plan::CONTROL_BUCKET, "tenants/").await.expect("answered");
        let letters = listed.into_iter().filter(|meta| meta.name.contains("/dead-letters/"));
        letters.map(|meta| (meta.name, meta.generation)).collect::<BTreeSet<_>>()
    };
    let before = generations().await;
    for path in ["".to_owned(), "/stats".to_owned(), format!("/{}", kept.id)] {
        world.operator().get(&format!("/v1/dead-letters{path}")).await.expect("answered");
    }
    let exported = Command::new(program()).args(["dead-letters", "export", "--dir"]).arg(world.dir()).output();
    let exported = String::from_utf8(exported.expect("carrel starts").stdout).expect("text");
    assert_eq!(exported.lines().count(), 3, "{exported}");
    let unknown = DeadLetterId::derive(&[b"none"]);
    let named = replay(&world, "named", json!({ "letters": [kept.id, unknown], "dry_run": true })).await;
    assert_eq!(named["counts"], json!({ "would_run": 1, "not_open": 1 }), "{named}");
    assert_eq!(named["letters"][1]["letter"], json!(unknown), "what is not there is told");
    let forecast = replay(&world, "dry", json!({ "all": true, "dry_run": true })).await;
    assert_eq!(forecast["counts"], json!({ "would_run": 1, "inputs_gone": 1, "still_invalid": 1 }), "{forecast}");
    assert!(forecast["seconds"].is_u64(), "{forecast}");
    let gone =
        forecast["letters"].as_array().expect("letters").iter().find(|letter| letter["foresight"] == "inputs_gone");
    assert!(gone.is_some_and(|gone| gone["why"].as_str().is_some_and(|why| why.contains("replaced/sales.csv"))));
    assert_eq!(generations().await, before);
    let campaigns = world.operator().get("/v1/campaigns").await.expect("answered");
    assert_eq!(campaigns["campaigns"], json!([]));

    // What the dry run has said is what a campaign does.
    let begun = replay(&world, "wet", json!({ "all": true })).await;
    let over = is(&world, &begun["id"], "finished").await;
    assert_eq!(over["counts"], json!({ "passed": 1, "skipped": 2 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_came_to_nothing_is_replayed_once_it_holds_files_unless_it_has_closed_again() {
    let world = World::start(vec![tenant("acme", json!({}))], |_| {}).await;
    for pack in ["asked", "closed", "empty"] {
        world.upload("acme", pack, vec![]).await;
    }
    let request = json!({ "tenant": "acme", "pack": "later", "idempotency_key": "once" }).to_string();
    let context =
        [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "//platform"), ("ce-type", REVIEW_REQUESTED)];
    world.publish("review-requests", request, &context).await;
    eventually("four letters", async || (world.dead_letters(Some("acme")).await.len() == 4).then_some(())).await;
    // One closes again by itself; of the others, two hold files now that no marker says are complete.
    world.upload("acme", "closed", vec![("sales.csv", sales())]).await;
    world.completion("acme", "closed").await;
    world.put("acme", "later/sales.csv", sales()).await;
    let forecast = replay(&world, "dry", json!({ "all": true, "dry_run": true })).await;
    assert_eq!(forecast["counts"], json!({ "would_run": 1, "already_done": 1, "inputs_gone": 2 }), "{forecast}");
    let begun = replay(&world, "once", json!({ "all": true })).await;
    let over = is(&world, &begun["id"], "finished").await;
    assert_eq!(over["counts"], json!({ "passed": 1, "skipped": 3 }), "{over}");
    let letters = world.dead_letters(Some("acme")).await;
    let open = letters.iter().filter(|letter| letter.state == DeadLetterState::Open).count();
    assert_eq!((letters.len(), open), (4, 2), "what has closed again is dealt with: {letters:?}");
    let closed = |letter: &&DeadLetter| letter.reason.contains("pack \"closed\"");
    let closed = letters.iter().find(closed).expect("its letter");
    assert_eq!(closed.state, DeadLetterState::Resolved);
    assert!(closed.resolution.as_ref().is_some_and(|how| how.contains("has closed again")), "{closed:?}");
    assert_eq!(world.completion("acme", "later").await.completion.verdict.state(), "delivered");
    assert_eq!(deliveries(&world, 2).await.len(), 2, "nothing was delivered twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_of_a_review_that_a_replay_asked_for_names_the_letter_that_was_replayed() {
    let prepared = Prepared::new(vec![tenant("acme", json!({})), tenant("bolt", json!({}))], |setup| {
        // The second sweep, which opens packs whose events were lost, comes after all of this.
        setup.dispatcher.push(("CARREL_RECONCILE_MS".to_owned(), "8000".to_owned()));
    });
    prepared.reconfigure(|config| {
        let buckets = config["buckets"].as_array_mut().expect("buckets");
        let uploads = buckets.iter_mut().find(|bucket| bucket["name"] == "acme-uploads").expect("acme's");
        uploads["notifications"] = json!([]);
    });
    let world = prepared.start().await;
    world.upload("bolt", "q3", vec![("sales.csv", sales())]).await;
    world.completion("bolt", "q3").await;
    // An empty pack closes; then a file lands in it that nobody hears of, and that no review can use.
    let generation = world.put("acme", "q3/_COMPLETE", Vec::new()).await.to_string();
    let heard = [
        ("eventType", "OBJECT_FINALIZE"),
        ("payloadFormat", "NONE"),
        ("bucketId", "acme-uploads"),
        ("objectId", "q3/_COMPLETE"),
        ("objectGeneration", generation.as_str()),
    ];
    world.publish("uploads", Vec::new(), &heard).await;
    let empty = world.dead_letter(Some("acme"), "the empty pack", |_| true).await;
    world.settled().await;
    world.put("acme", "q3/empty.csv", Vec::new()).await;
    let begun = replay(&world, "asks", json!({ "letters": [empty.id] })).await;
    let over = is(&world, &begun["id"], "finished").await;
    assert_eq!(over["counts"], json!({ "failed": 1 }), "{over}");
    let of_review = |letter: &DeadLetter| matches!(letter.source, DeadLetterSource::Review { .. });
    let refused = world.dead_letter(Some("acme"), "the letter of the review", of_review).await;
    assert_eq!((refused.class, refused.replay_of), (DeadLetterClass::Refused, Some(empty.id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_that_is_paused_begins_nothing_until_it_goes_on_and_a_suspended_tenant_is_left_alone() {
    let (world, flaw) = flawed(vec![tenant("acme", json!({})), tenant("bolt", json!({ "suspended": true }))]).await;
    failed(&world, &["a", "b", "c"]).await;
    world.upload("bolt", "waits", vec![]).await;
    world.dead_letter(Some("bolt"), "the empty pack", |_| true).await;
    world.put("bolt", "waits/sales.csv", sales()).await;
    let forecast = replay(&world, "dry", json!({ "all": true, "dry_run": true })).await;
    assert_eq!(forecast["counts"], json!({ "would_run": 3, "tenant_suspended": 1 }), "{forecast}");
    flaw.mend();
    let begun = replay(&world, "slow", json!({ "all": true, "per_minute": 1 })).await;
    let steer = async |wish: &str| {
        let path = format!("/v1/campaigns/{}/{wish}", begun["id"].as_str().expect("an id"));
        world.operator().post(&path, wish, &json!({})).await
    };
    eventually("the first to pass", async || {
        (campaign(&world, &begun["id"]).await["counts"]["passed"] == 1).then_some(())
    })
    .await;
    assert_eq!(steer("pause").await.expect("paused")["state"], "paused");
    assert_eq!(steer("resume").await.expect("resumed")["state"], "running");
    assert_eq!(steer("cancel").await.expect("cancelled")["state"], "cancelled");
    let late = steer("resume").await.expect_err("it is over").to_string();
    assert!(late.contains("409") && late.contains("is over"), "{late}");
    let open: Vec<_> = world.dead_letters(Some("acme")).await;
    let open = open.iter().filter(|letter| letter.state == DeadLetterState::Open).count();
    assert_eq!(open, 2, "one a minute, and then none");
    let rest = replay(&world, "rest", json!({ "all": true })).await;
    let over = is(&world, &rest["id"], "finished").await;
    assert_eq!(over["counts"]["passed"], 2, "{over}");
    assert!(world.received().iter().all(|got| got.completion.tenant.as_str() == "acme"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_intake_would_make_of_each_message() {
    let tenants = vec![tenant("acme", json!({})), tenant("late", json!({})), tenant("gone", json!({}))];
    let prepared = Prepared::new(tenants, |_| {});
    let registry = prepared.fleet.dir().join("tenants.yaml");
    let whole = without_last_tenant(&registry);
    without_last_tenant(&registry);
    let mut world = prepared.start().await;
    let context =
        [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "//platform"), ("ce-type", REVIEW_REQUESTED)];
    let ask = async |pack: &str, key: &str, said: &str| {
        let request = json!({ "tenant": "acme", "pack": pack, "idempotency_key": key }).to_string();
        world.publish("review-requests", request, &context).await;
        world.dead_letter(Some("acme"), said, |letter| letter.reason.contains(said)).await;
    };
    world.upload("acme", "q3", vec![("sales.csv", sales())]).await;
    let asked = json!({ "pack": "q3" });
    world.operator().post("/v1/tenants/acme/reviews", "taken", &asked).await.expect("taken");
    ask("empty", "one", "pack \"empty\": it holds no file").await;
    ask("other", "taken", "stands for pack \"q3\"").await;
    ask("later", "two", "pack \"later\": it holds no file").await;
    // Asked for once more when it held a file.
    world.put("acme", "later/sales.csv", sales()).await;
    let asked = json!({ "pack": "later" });
    world.operator().post("/v1/tenants/acme/reviews", "two", &asked).await.expect("taken");
    // Nobody's by now: both events of a pack that the sweep will seal, and one of a tenant that will leave.
    world.upload("late", "q3", vec![("sales.csv", sales())]).await;
    world.put("gone", "q3/sales.csv", sales()).await;
    eventually("three letters of nobody", async || (world.dead_letters(None).await.len() == 3).then_some(())).await;
    world.kill_dispatcher();
    std::fs::write(&registry, whole).expect("written");
    rewrite(&world, |tenants| tenants[2]["deleting"] = json!(true));
    world.restart_dispatcher().await;
    world.completion("late", "q3").await;

    let forecast = replay(&world, "dry", json!({ "all": true, "dry_run": true })).await;
    let fates = json!({ "inputs_gone": 1, "still_invalid": 1, "already_done": 3, "unknown_tenant": 1 });
    assert_eq!(forecast["counts"], fates, "{forecast}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_over_messages_pauses_between_no_two_of_its_turns() {
    // Turn by turn, with a pause before each, they would take longer than a test has.
    const LETTERS: usize = 400;
    let late = tenant("late", json!({}));
    let prepared = Prepared::new(vec![tenant("acme", json!({})), late], |setup| {
        setup.dispatcher.push(("CARREL_RECONCILE_MS".to_owned(), "10000".to_owned()));
    });
    let registry = prepared.fleet.dir().join("tenants.yaml");
    let whole = without_last_tenant(&registry);
    let mut world = prepared.start().await;
    put_packs(&world, LETTERS).await;
    eventually("every letter", async || (world.dead_letters(None).await.len() == LETTERS).then_some(())).await;
    world.kill_dispatcher();
    std::fs::write(&registry, whole).expect("written");
    world.restart_dispatcher().await;
    let begun = replay(&world, "all", json!({ "all": true, "per_minute": 1_000_000 })).await;
    let over = is(&world, &begun["id"], "finished").await;
    assert_eq!(over["counts"], json!({ "passed": LETTERS }), "{over}");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_letters_are_replayed_though_the_dispatcher_is_killed_midway_none_lost_none_twice() {
    many_letters(500, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: cargo test --test promises -- --ignored --nocapture ten_thousand_letters"]
async fn ten_thousand_letters() {
    let began = std::time::Instant::now();
    many_letters(10_000, 200).await;
    println!("10000 letters, 200 of them reviews, each replayed once in {} s", began.elapsed().as_secs());
}

/// Replays letters of uploads to a bucket that nobody knew, and of reviews that failed.
async fn many_letters(all: usize, reviews: usize) {
    let mut flaw = None;
    let late = tenant("late", json!({}));
    let prepared = Prepared::new(vec![tenant("acme", json!({})), late.clone()], |setup| {
        flaw = Some(Flaw::install(setup));
    });
    // The cloud knows late's buckets, the dispatcher does not yet.
    let registry = prepared.fleet.dir().join("tenants.yaml");
    let whole = without_last_tenant(&registry);
    let mut world = prepared.start().await;
    let packs = put_packs(&world, all - reviews).await;
    for at in 0..reviews {
        world.upload("acme", &format!("pack-{at}"), vec![("sales.csv", sales())]).await;
    }
    let letters = async |world: &World| {
        let of_acme = every_letter(world, "acme").await;
        [every_letter(world, "_unknown").await, of_acme].concat()
    };
    let filed =
        eventually("every letter", async || Some(letters(&world).await).filter(|found| found.len() == all)).await;
    let ids: BTreeSet<_> = filed.iter().map(|letter| letter.id.clone()).collect();
    assert_eq!(ids.len(), all);

    flaw.expect("installed").mend();
    world.kill_dispatcher();
    std::fs::write(&registry, whole).expect("written");
    world.restart_dispatcher().await;
    let begun = replay(&world, "all", json!({ "all": true, "per_minute": 1_000_000 })).await;
    assert_eq!(begun["letters"], all);
    let pass = async |world: &World, goal: usize| {
        let mut passed = 0;
        while passed < goal {
            passed = eventually("one more that passed", async || {
                let now = campaign(world, &begun["id"]).await["counts"]["passed"].as_u64()? as usize;
                (now > passed).then_some(now)
            })
            .await;
        }
    };
    for share in [3, 2] {
        pass(&world, all / share).await;
        world.kill_dispatcher();
        world.restart_dispatcher().await;
    }
    pass(&world, all).await;
    let over = is(&world, &begun["id"], "finished").await;
    assert_eq!(over["counts"], json!({ "passed": all }), "{over}");
    let resolved = letters(&world).await;
    assert_eq!(resolved.len(), all, "a replay that passes files no letter");
    assert!(resolved.iter().all(|letter| letter.state == DeadLetterState::Resolved && ids.contains(&letter.id)));
    let is_message = |letter: &&DeadLetter| matches!(letter.source, DeadLetterSource::Message { .. });
    assert_eq!(resolved.iter().filter(is_message).count(), packs.len());

    let open: BTreeSet<String> = world.names(plan::CONTROL_BUCKET, "open/packs/late/").await.into_iter().collect();
    assert_eq!(open.len(), packs.len(), "each upload has opened its pack, and opened it once");
    deliveries(&world, reviews).await;
    assert_eq!(world.names("acme-outputs", "outcomes/").await.len(), 2 * reviews, "one outcome of each epoch");
}

/// Waits for so many packs to be delivered, and holds that each has one completion id.
async fn deliveries(world: &World, packs: usize) -> BTreeSet<(PackId, Epoch, EventId)> {
    let events = eventually("every delivery", async || {
        let delivered = world.received().into_iter().map(|got| got.completion);
        let delivered = delivered.filter(|got| matches!(got.verdict, Verdict::Delivered { .. }));
        let events: BTreeSet<_> = delivered.map(|got| (got.pack, got.epoch, got.event)).collect();
        let named: BTreeSet<_> = events.iter().map(|(pack, ..)| pack).collect();
        (named.len() == packs).then_some(events)
    })
    .await;
    assert_eq!(events.len(), packs, "each pack is delivered under one completion id: {events:?}");
    events
}

/// Every letter of an owner, page by page.
async fn every_letter(world: &World, owner: &str) -> Vec<DeadLetter> {
    let (mut letters, mut page) = (Vec::new(), String::new());
    loop {
        let mut found =
            world.operator().get(&format!("/v1/dead-letters?tenant={owner}{page}")).await.expect("answered");
        let some: Vec<DeadLetter> = serde_json::from_value(found["dead_letters"].take()).expect("letters");
        letters.extend(some);
        let Some(next) = found["next"].as_str() else { return letters };
        page = format!("&page={next}");
    }
}

/// Uploads a file of so many packs of late's.
async fn put_packs(world: &World, count: usize) -> Vec<String> {
    let packs: Vec<String> = (0..count).map(|at| format!("pack-{at}")).collect();
    futures::stream::iter(&packs)
        .for_each_concurrent(16, async |pack| {
            world.put("late", &format!("{pack}/sales.csv"), sales()).await;
        })
        .await;
    packs
}

/// Takes the last tenant from a registry, and returns what it was before.
fn without_last_tenant(registry: &Path) -> String {
    let text = std::fs::read_to_string(registry).expect("written");
    let mut file: Value = serde_yaml_ng::from_str(&text).expect("a registry");
    file["tenants"].as_array_mut().expect("tenants").pop();
    std::fs::write(registry, file.to_string()).expect("written");
    text
}
