//! What a worker may write, written by whoever took it over: claims and outcomes in its own bucket, and wake-ups. The
//! dispatcher reads them with rights over every tenant, so what they name must not lead it to another's.

use std::collections::BTreeMap;

use carrel::plan;
use carrel_schemas::cloud_event::EventContext;
use carrel_schemas::completion::{COMPLETED, OUTCOME_WRITTEN};
use carrel_schemas::ids::{Attempt, Epoch, EventId, PackId, ReviewId, TenantId};
use carrel_schemas::layout;
use carrel_schemas::outcome::{DecidedBy, DeliveredFile, FailureClass, Verdict};
use carrel_schemas::seal::{Member, review_id};
use serde_json::{Value, json};

use super::run::execution;
use super::wire::{Call, Hand, OK, nested, text};
use super::{ATTACKER, VICTIM, owner, two, worker};
use crate::files::sales;
use crate::gate::{Gate, Open};
use crate::world::{Received, World, eventually};

const OWN: &str = "acme-outputs";
const NONCE: &str = "00000000000000000000000000000000";

/// A fleet whose victim has a review under way, held at the gate.
struct Held {
    world: World,
    gate: Gate,
    owner: Hand,
    attacker: Hand,
    review: ReviewId,
    /// The victim's execution, by its full name.
    execution: String,
}

impl Held {
    async fn new(limits: Value) -> Self {
        let mut gate = None;
        let world = World::start(two(limits), |setup| gate = Some(Gate::install(setup))).await;
        let gate = gate.expect("installed");
        let review = member(&world, VICTIM, "q3").await;
        close(&world, VICTIM, "q3").await;
        gate.is_reached_by(1).await;
        let (owner, attacker) = (owner(&world), worker(&world, ATTACKER));
        let execution = execution(&owner, VICTIM).await["name"].as_str().expect("a name").to_owned();
        Self { world, gate, owner, attacker, review, execution }
    }

    /// What the ledger says of the victim's review.
    async fn record(&self) -> Value {
        let path = format!("/v1/tenants/{VICTIM}/reviews/{}", self.review);
        self.world.operator().get(&path).await.expect("the API answers")
    }

    /// Lets the victim's review end; it must be its own worker's work, announced once.
    async fn ends_as_if_nothing_had_been(self) {
        let running = execution(&self.owner, VICTIM).await;
        assert!(running["completionTime"].is_null(), "it still runs: {running}");
        let _open: Open = self.gate.open();
        let got = self.world.completion(VICTIM, "q3").await.completion;
        assert_eq!((got.verdict.state(), &got.event), ("delivered", &EventId::of(&self.review, Epoch::FIRST)));
        let DecidedBy::Worker { execution, attempt } = self.world.outcome(&got).await.decided_by else {
            panic!("its worker decided")
        };
        assert_eq!((execution.as_str(), attempt), (self.execution.as_str(), Attempt::FIRST));
        self.world.settled().await;
        let of_victim = |got: &Received| got.completion.tenant.as_str() == VICTIM;
        assert_eq!(self.world.received().iter().filter(|got| of_victim(got)).count(), 1);
    }
}

/// Uploads the one file of a pack that is not complete yet; the review that it will be.
async fn member(world: &World, tenant: &str, pack: &str) -> ReviewId {
    let name = format!("{pack}/sales.csv");
    let generation = world.put(tenant, &name, sales()).await;
    let member = json!({ "name": name, "generation": generation, "size": 0, "crc32c": 0 });
    let member: Member = serde_json::from_value(member).expect("a member");
    let (tenant, pack) = (TenantId::parse(tenant).expect("a tenant"), PackId::parse(pack).expect("a pack"));
    review_id(&tenant, &pack, &[member], None, None)
}

async fn close(world: &World, tenant: &str, pack: &str) {
    world.put(tenant, &format!("{pack}/{}", layout::MARKER), Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_in_the_name_of_another_s_execution_costs_only_its_forger() {
    let held = Held::new(json!({ "max_attempts": 2 })).await;
    let claim = |review: &ReviewId, attempt: Attempt, execution: &str| {
        let holder = json!({ "kind": "execution", "execution": execution });
        let claim = json!({ "schema": 1, "review": review, "epoch": 1, "attempt": attempt, "holder": holder,
            "nonce": NONCE, "claimed_at": "2026-01-01T00:00:00Z" });
        (layout::claim(review, Epoch::FIRST, attempt).to_string(), claim.to_string())
    };
    // The victim's own claims lie where the attacker cannot write, and in the attacker's bucket they are nobody's.
    let (name, body) = claim(&held.review, Attempt::FIRST.next(), &held.execution);
    let refused = held.attacker.create("bolt-outputs", &name, body.clone()).await;
    let nothing = held.attacker.create("nobodys-outputs", &name, body.clone()).await;
    assert_eq!(refused.code, 403, "{refused:?}");
    assert_eq!(refused.text.replace("bolt", ""), nothing.text.replace("nobodys", ""));
    assert_eq!(held.attacker.create(OWN, &name, body).await.code, 200);

    // Before they are authorised, the attacker's own attempts are claimed for the victim's execution: by its name, and by
    // one that an address would turn into it.
    let review = member(&held.world, ATTACKER, "q3").await;
    let own_job = held.execution.replace("review-bolt", "review-acme");
    let own_job = own_job.split("/executions/").next().expect("a job");
    let short = held.execution.rsplit('/').next().expect("a name has segments");
    let astray = format!("{own_job}/executions/..\\..\\review-bolt\\executions\\{short}");
    for (attempt, execution) in [(Attempt::FIRST, astray.as_str()), (Attempt::FIRST.next(), &held.execution)] {
        let (name, body) = claim(&review, attempt, execution);
        assert_eq!(held.attacker.create(OWN, &name, body).await.code, 200);
    }
    close(&held.world, ATTACKER, "q3").await;
    // It ends while the victim's runs: whether that execution exists, and how it goes, is nothing that it waits for.
    let got = held.world.completion(ATTACKER, "q3").await.completion;
    let Verdict::Failed { class: FailureClass::Crashed, message, .. } = &got.verdict else { panic!("{got:?}") };
    assert!(message.contains("review-acme") && !message.contains("review-bolt"), "{message}");
    held.ends_as_if_nothing_had_been().await;
}

/// An outcome of the attacker's making, of a review that it is told of as its own.
fn outcome(review: &ReviewId, pack: &str, verdict: Value) -> Value {
    json!({
        "schema": 1, "review": review, "tenant": ATTACKER, "pack": pack, "revision": 1, "epoch": 1,
        "decided_by": { "kind": "dispatcher" }, "nonce": NONCE, "decided_at": "2026-01-01T00:00:00Z",
        "verdict": verdict,
    })
}

fn delivered(file: &DeliveredFile) -> Value {
    json!({ "state": "delivered", "files": [file], "top_findings": [] })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_forged_in_ones_own_bucket_speaks_of_nothing_that_is_another_s() {
    let world = World::start(two(json!({})), |_| {}).await;
    let attacker = worker(&world, ATTACKER);
    world.upload(VICTIM, "q3", vec![("sales.csv", sales())]).await;
    let theirs = world.completion(VICTIM, "q3").await.completion;
    let Verdict::Delivered { files, .. } = &theirs.verdict else { panic!("{theirs:?}") };
    let refused = json!({ "state": "refused", "reason": "x" });
    let by_worker = json!({
        "kind": "worker", "attempt": 1,
        "execution": "projects/carrel-local/locations/us-central1/jobs/review-acme/executions/review-acme-22222222",
    });
    // Each is there before its pack is complete: whoever creates an outcome has decided.
    type Change<'a> = &'a dyn Fn(&mut Value);
    let forgeries: [(&str, Change<'_>, &str); 5] = [
        ("tenant", &|outcome| outcome["tenant"] = json!(VICTIM), "it speaks of another review"),
        ("review", &|outcome| outcome["review"] = json!(theirs.review), "it speaks of another review"),
        ("later", &|outcome| outcome["epoch"] = json!(2), "it speaks of another review"),
        ("files", &|outcome| outcome["verdict"] = delivered(&files[0]), "which is no file of this review"),
        ("early", &|outcome| outcome["decided_by"] = by_worker.clone(), "attempt 1 was never authorised"),
    ];
    for (pack, change, _) in &forgeries {
        let review = member(&world, ATTACKER, pack).await;
        let mut forged = outcome(&review, pack, refused.clone());
        change(&mut forged);
        let name = layout::outcome(&review, Epoch::FIRST);
        assert_eq!(attacker.create(OWN, name.as_str(), forged.to_string()).await.code, 200);
    }
    // And one where a later life of the review would look, which nothing has opened.
    let review = member(&world, ATTACKER, "honest").await;
    let mut forged = outcome(&review, "honest", refused.clone());
    forged["epoch"] = json!(2);
    let name = layout::outcome(&review, Epoch::FIRST.next());
    assert_eq!(attacker.create(OWN, name.as_str(), forged.to_string()).await.code, 200);
    // Where the victim's outcomes lie, none can be made.
    let name = layout::outcome(&theirs.review, Epoch::FIRST.next());
    assert_eq!(attacker.create("bolt-outputs", name.as_str(), forged.to_string()).await.code, 403);

    for (pack, _, why) in &forgeries {
        close(&world, ATTACKER, pack).await;
        let got = world.completion(ATTACKER, pack).await.completion;
        let Verdict::Failed { class: FailureClass::AgentFailed, message, .. } = &got.verdict else {
            panic!("{pack}: {got:?}")
        };
        assert!(message.contains(why), "{pack}: {message}");
        assert_eq!((got.outputs_bucket.as_str(), got.epoch), (OWN, Epoch::FIRST), "{pack}");
    }
    close(&world, ATTACKER, "honest").await;
    let got = world.completion(ATTACKER, "honest").await.completion;
    assert_eq!((got.verdict.state(), got.epoch), ("delivered", Epoch::FIRST));
    world.settled().await;
    assert_eq!(world.received().len(), 1 + forgeries.len() + 1, "one each, and no more for anybody");
    let record = format!("/v1/tenants/{VICTIM}/reviews/{}", theirs.review);
    assert_eq!(world.operator().get(&record).await.expect("the API answers")["status"], "delivered");
}

/// Publishes to the topic of wake-ups.
async fn publish(hand: &Hand, kind: &str, data: &str) {
    let context = EventContext {
        id: "forged".to_owned(),
        source: format!("//carrel/tenants/{VICTIM}/worker"),
        kind: kind.to_owned(),
        subject: None,
        time: None,
    };
    let attributes: BTreeMap<String, String> = context.to_attributes();
    let pairs = attributes.iter().map(|(key, value)| nested(2, &[text(1, key), text(2, value)].concat()));
    let message = [vec![text(1, data)], pairs.collect()].concat().concat();
    let topic = format!("projects/{}/topics/outcomes", plan::PROJECT);
    let sent = hand.call(Call::grpc("pubsub.v1.Publisher/Publish", &[text(1, &topic), nested(2, &message)])).await;
    assert_eq!(sent.code, OK, "{sent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_wake_up_wakes_and_nothing_more() {
    let held = Held::new(json!({})).await;
    let before = held.record().await;
    // What it points at: the victim's outcome, as the attacker would have it, in the attacker's bucket.
    let mut forged = outcome(&held.review, "q3", json!({ "state": "refused", "reason": "x" }));
    forged["tenant"] = json!(VICTIM);
    let name = layout::outcome(&held.review, Epoch::FIRST);
    assert_eq!(held.attacker.create(OWN, name.as_str(), forged.to_string()).await.code, 200);
    let nobodys = format!("rv_{}", "0".repeat(32));
    let hint = |bucket: &str, review: &str, epoch: u32| {
        json!({ "outputs_bucket": bucket, "review": review, "epoch": epoch, "attempt": 1 }).to_string()
    };
    let review = held.review.as_str();
    for data in [
        hint("bolt-outputs", review, 1),
        hint("bolt-outputs", review, 7),
        hint("bolt-outputs", &nobodys, 1),
        hint(OWN, review, 1),
        hint(plan::CONTROL_BUCKET, review, 1),
        forged.to_string(),
        "no JSON".to_owned(),
    ] {
        publish(&held.attacker, OUTCOME_WRITTEN, &data).await;
    }
    // A whole completion, as integrators would get it.
    let completion = json!({
        "schema": 1, "event": EventId::of(&held.review, Epoch::FIRST), "tenant": VICTIM, "review": review, "epoch": 1,
        "pack": "q3", "revision": 1, "outputs_bucket": OWN, "decided_at": "2026-01-01T00:00:00Z",
        "verdict": { "state": "refused", "reason": "x" },
    });
    publish(&held.attacker, COMPLETED, &completion.to_string()).await;
    publish(&held.attacker, OUTCOME_WRITTEN, &hint("the-last-outputs", review, 1)).await;
    let log = held.world.dir().join("logs/dispatcher.log");
    eventually("the last wake-up in the dispatcher's log", async || {
        std::fs::read_to_string(&log).expect("a log").contains("the-last-outputs").then_some(())
    })
    .await;
    assert_eq!(held.record().await, before, "the victim's record is as it was");
    assert!(held.world.received().is_empty(), "and nothing was announced");
    held.ends_as_if_nothing_had_been().await;
}
