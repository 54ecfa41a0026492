//! How a pack must end on each way, whatever failed on it. Each returns once it has, and may be called again: the
//! dispatcher may have been killed in between.
//!
//! Owns what is seen from outside; refuses to look into the dispatcher.

use std::collections::BTreeSet;

use carrel::plan::CONTROL_BUCKET;
use carrel_schemas::completion::Completion;
use carrel_schemas::dead_letter::{DeadLetter, DeadLetterClass, DeadLetterSource};
use carrel_schemas::outcome::{FailureClass, Verdict};
use rustix::process::{Signal, kill_process};
use serde_json::json;

use crate::files::sales;
use crate::gate::agents;
use crate::steps::ends_as_ever;
use crate::world::{World, eventually};

/// Returns once a pack has ended as one must whose first revision was replaced: each told once, and only the last
/// delivered. May be called again.
pub(super) async fn ends_as_superseded(world: &World, pack: &str, what: &str) {
    let first = eventually(&format!("{what}: the first review"), async || {
        let reviews = world.operator().reviews("acme").await.ok()?;
        reviews.into_iter().rfind(|review| review.pack == pack).map(|review| review.id)
    })
    .await;
    // Only once the first is sealed, or both would be one revision.
    // Once: another version of it would be a revision of its own.
    if !world.names("acme-uploads", &format!("{pack}/")).await.contains(&format!("{pack}/last.csv")) {
        world.put("acme", &format!("{pack}/last.csv"), sales()).await;
    }
    world.upload("acme", pack, vec![]).await;
    let told = eventually(&format!("{what}: both told"), async || {
        let mut told: Vec<_> = world.received().into_iter().map(|got| got.completion).collect();
        told.retain(|got| got.pack.as_str() == pack);
        told.iter().any(|got| got.verdict.state() == "delivered").then_some(told)
    })
    .await;
    for got in &told {
        let wanted = if got.review.as_str() == first { "superseded" } else { "delivered" };
        assert_eq!(got.verdict.state(), wanted, "{what}: {told:?}");
        assert_eq!(world.names("acme-outputs", &format!("outcomes/{}", got.review)).await.len(), 1, "{what}");
    }
    let events: BTreeSet<_> = told.iter().map(|got| &got.event).collect();
    assert!(events.len() <= 2, "{what}: {told:?}");
    assert!(world.dead_letters(Some("acme")).await.is_empty(), "{what}: nobody has to look at it");
}

pub(super) async fn ends_as_expired(world: &World, pack: &str, what: &str) {
    ends_as_failed(world, pack, (FailureClass::Expired, DeadLetterClass::Expired), what).await;
}

/// The review of a pack, once it is beyond the queue.
async fn taken_up(world: &World, pack: &str, what: &str) -> String {
    eventually(&format!("{what}: a worker has it"), async || {
        let reviews = world.operator().reviews("acme").await.ok()?;
        let waits = |status: &str| ["queued", "launching"].contains(&status);
        reviews.into_iter().find(|review| review.pack == pack && !waits(&review.status)).map(|review| review.id)
    })
    .await
}

pub(super) async fn ends_as_cancelled(world: &World, pack: &str, what: &str) {
    let path = format!("/v1/tenants/acme/reviews/{}/cancel", taken_up(world, pack, what).await);
    let wish = json!({ "reason": "sent by mistake" });
    // Whoever is not answered asks again.
    eventually(&format!("{what}: cancelled"), async || world.operator().post(&path, "cancel", &wish).await.ok()).await;
    let got = world.completion("acme", pack).await.completion;
    assert_eq!(got.verdict, Verdict::Cancelled { reason: "sent by mistake".to_owned() }, "{what}");
    is_told_once(world, &got, what).await;
    assert!(world.dead_letters(Some("acme")).await.is_empty(), "{what}: nobody has to look at what was wished");
}

/// Returns once a pack has ended as one must whose only file was deleted: told once, and looked at once more, since a
/// deletion sends no event. May be called again.
pub(super) async fn ends_as_changed(world: &World, pack: &str, what: &str) {
    // Not before: whatever still waits makes way for what the pack holds then.
    taken_up(world, pack, what).await;
    world.objects.delete("acme-uploads", &format!("{pack}/sales.csv"), None).await.expect("deleted");
    let got = eventually(&format!("{what}: told"), async || {
        let_agents_go_on(world);
        world.received().into_iter().map(|got| got.completion).find(|got| got.pack.as_str() == pack)
    })
    .await;
    assert_eq!(got.verdict.state(), "inputs_changed", "{what}: {:?}", got.verdict);
    is_told_once(world, &got, what).await;
    let of_it = |letter: &DeadLetter| matches!(&letter.source, DeadLetterSource::Review { review, .. } if *review == got.review);
    assert_eq!(world.dead_letter(Some("acme"), what, of_it).await.class, DeadLetterClass::InputsGone, "{what}");
    ends_as_empty(world, pack, what).await;
}

/// Opens the gate of a fleet to whoever waits at it now.
fn let_agents_go_on(world: &World) {
    for agent in agents(&format!("gate-{}", world.dir().display())) {
        match kill_process(agent, Signal::WINCH) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => panic!("open the gate: {error}"),
        }
    }
}

pub(super) async fn ends_as_flooded(world: &World, name: &str, what: &str) {
    for name in [format!("spent-{name}"), name.to_owned()] {
        ends_as_ever(world, "acme", &name, what).await;
    }
}

pub(super) async fn ends_in_epoch(world: &World, pack: &str, epoch: u32, what: &str) {
    let got = world.completion("acme", pack).await.completion;
    assert_eq!((got.verdict.state(), got.epoch.get()), ("delivered", epoch), "{what}: {:?}", got.verdict);
    let of_it = world.received().into_iter().filter(|other| other.completion.review == got.review);
    assert_eq!(of_it.map(|other| other.completion.event).collect::<BTreeSet<_>>().len(), 1, "{what}");
    assert!(world.dead_letters(Some("acme")).await.is_empty(), "{what}");
}

/// Returns once of a pack only its last revision is left, and of that what must stay. May be called again.
pub(super) async fn ends_as_collected(world: &World, pack: &str, what: &str) {
    let first = world.completion("acme", pack).await.completion;
    world.upload("acme", pack, vec![("more.csv", sales())]).await;
    eventually(&format!("{what}: the first revision gone"), async || {
        let kept = world.names(CONTROL_BUCKET, "tenants/acme/").await;
        let is_of_it = |name: &String| {
            name.ends_with(&format!("/reviews/{}.json", first.review)) || name.contains("/completions/")
        };
        let left = world.names("acme-outputs", "").await;
        let is_left = |name: &String| {
            name.contains(first.review.as_str()) && !name.starts_with("outcomes/") && !name.starts_with("reviews/")
        };
        (!kept.iter().any(is_of_it) && !left.iter().any(is_left)).then_some(())
    })
    .await;
    let Verdict::Delivered { files, .. } = &first.verdict else { panic!("{what}: {:?}", first.verdict) };
    let left = world.names("acme-outputs", &format!("reviews/{}/", first.review)).await;
    let mut named: Vec<_> = files.iter().map(|file| file.object.to_string()).collect();
    named.sort();
    assert_eq!(left, named, "{what}: what was delivered stays");
    assert_eq!(world.names("acme-outputs", &format!("outcomes/{}", first.review)).await.len(), 1, "{what}");
}

pub(super) async fn ends_as_empty(world: &World, pack: &str, what: &str) {
    let its = |letter: &DeadLetter| match &letter.source {
        DeadLetterSource::Pack { pack: of, .. } => of.as_str() == pack,
        DeadLetterSource::Message { .. } | DeadLetterSource::Review { .. } => false,
    };
    let letter = world.dead_letter(Some("acme"), what, its).await;
    assert_eq!(letter.class, DeadLetterClass::EmptyPack, "{what}");
    world.settled().await;
    let filed = world.dead_letters(Some("acme")).await;
    assert_eq!(filed.iter().filter(|letter| its(letter)).count(), 1, "{what}: {filed:?}");
}

/// Returns once a pack whose worker always dies has ended as such packs must: failed once, under one id, and filed.
pub(super) async fn ends_as_crashed(world: &World, pack: &str, what: &str) {
    ends_as_failed(world, pack, (FailureClass::Crashed, DeadLetterClass::Crashed), what).await;
}

async fn ends_as_failed(world: &World, pack: &str, (wanted, filed): (FailureClass, DeadLetterClass), what: &str) {
    let got = world.completion("acme", pack).await.completion;
    assert!(matches!(got.verdict, Verdict::Failed { class, .. } if class == wanted), "{what}: {:?}", got.verdict);
    is_told_once(world, &got, what).await;
    let its = |letter: &DeadLetter| matches!(&letter.source, DeadLetterSource::Review { review, .. } if *review == got.review);
    let letter = world.dead_letter(Some("acme"), what, its).await;
    assert_eq!(letter.class, filed, "{what}");
}

/// Decided by one outcome, and told under one id.
async fn is_told_once(world: &World, got: &Completion, what: &str) {
    assert_eq!(world.names("acme-outputs", &format!("outcomes/{}", got.review)).await.len(), 1, "{what}");
    let of_it = world.received().into_iter().filter(|other| other.completion.review == got.review);
    assert_eq!(of_it.map(|other| other.completion.event).collect::<BTreeSet<_>>().len(), 1, "{what}");
}
