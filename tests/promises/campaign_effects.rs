//! Every effect of the dispatcher while a campaign replays a letter: refused, its reply lost, and the dispatcher killed
//! after it. Whichever it is, the letter is replayed once, and the campaign ends as it would have without.
//!
//! No worker runs: a message is taken, and a review's job is not there.

use carrel::plan::CONTROL_BUCKET;
use carrel_schemas::dead_letter::{DeadLetter, DeadLetterSource, DeadLetterState};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::line::{Armed, Fault, Line, every_lasting_effect};
use crate::world::{Prepared, World, eventually, tenant};

/// Messages, of each of which every effect but one goes well; a few more than there are.
const MESSAGES: usize = 12;
/// What a campaign does before it comes to the letter itself: chunk, marker, head, begun, the letter taken.
const SHARED: usize = 5;
/// What a review's letter has that a message's has not: the record of the next epoch, and its marker. The rest of its way
/// is that of any review.
const REVIEWS: usize = 2;

/// A fleet with letters of uploads to a bucket that nobody knew, and of reviews whose job is not there.
async fn with_letters() -> (World, Line, Vec<DeadLetter>, Vec<DeadLetter>) {
    let line = Line::open(every_lasting_effect).await;
    let once = tenant("acme", json!({ "limits": { "max_attempts": 1, "max_concurrent": REVIEWS } }));
    let prepared = Prepared::new(vec![once, tenant("late", json!({}))], |setup| {
        for service in ["CARREL_STORAGE_ENDPOINT", "CARREL_PUBSUB_ENDPOINT", "CARREL_RUN_ENDPOINT"] {
            setup.dispatcher.push((service.to_owned(), line.address()));
        }
    });
    line.lead_to(&prepared.fleet.address().cloud);
    prepared.reconfigure(|config| {
        config["jobs"].as_array_mut().expect("jobs").retain(|job| job["name"] != "review-acme");
    });
    let registry = prepared.fleet.dir().join("tenants.yaml");
    let whole = std::fs::read_to_string(&registry).expect("written");
    let mut file: Value = serde_yaml_ng::from_str(&whole).expect("a registry");
    file["tenants"].as_array_mut().expect("tenants").pop();
    std::fs::write(&registry, file.to_string()).expect("written");
    let mut world = prepared.start().await;
    for at in 0..MESSAGES {
        world.put("late", &format!("pack-{at}/sales.csv"), "a,b\n1,2\n").await;
    }
    for at in 0..REVIEWS {
        world.upload("acme", &format!("pack-{at}"), vec![("sales.csv", b"a,b\n1,2\n".to_vec())]).await;
    }
    let all = async |world: &World, owner: Option<&str>, count: usize| {
        eventually("every letter", async || Some(world.dead_letters(owner).await).filter(|found| found.len() == count))
            .await
    };
    let (messages, reviews) = (all(&world, None, MESSAGES).await, all(&world, Some("acme"), REVIEWS).await);
    world.kill_dispatcher();
    std::fs::write(&registry, whole).expect("written");
    world.restart_dispatcher().await;
    // The sweep finds the uploads as well; once it has, it does nothing more.
    eventually("the swept packs", async || {
        (world.names(CONTROL_BUCKET, "open/packs/late/").await.len() == MESSAGES).then_some(())
    })
    .await;
    (world, line, messages, reviews)
}

/// A campaign over one letter, once nothing of it is left to do.
async fn finished(world: &World, key: &str, letter: &DeadLetter) -> Value {
    let wish = json!({ "letters": [letter.id], "per_minute": 1_000_000 });
    let operator = world.operator();
    // Where an effect of asking failed, it is asked for again under the same key.
    let begun = eventually("a campaign", async || operator.post("/v1/campaigns", key, &wish).await.ok()).await;
    let id = begun["id"].as_str().expect("an id");
    for marker in [format!("open/campaigns/{id}.json"), "open/reviews/".to_owned()] {
        eventually(&format!("{marker} gone"), async || {
            world.names(CONTROL_BUCKET, &marker).await.is_empty().then_some(())
        })
        .await;
    }
    operator.get(&format!("/v1/campaigns/{id}")).await.expect("answered")
}

/// Fails one effect of a campaign over each of the letters, from effect `from` on; returns how many there were.
async fn fail_each(
    (world, line): (&mut World, &Line),
    fault: Fault,
    letters: &[DeadLetter],
    from: usize,
    counts: Value,
) -> usize {
    for (at, letter) in (from..).zip(letters) {
        let key = format!("{}-{at}", letter.id);
        line.arm(at, fault);
        let ended = tokio::select! {
            () = line.holds() => None,
            ended = finished(world, &key, letter) => Some(ended),
        };
        let ended = match line.disarm() {
            Armed::Unused => return at - from,
            Armed::Failed => ended,
            Armed::Holding => {
                world.kill_dispatcher();
                world.restart_dispatcher().await;
                None
            }
        };
        let ended = match ended {
            Some(ended) => ended,
            None => finished(world, &key, letter).await,
        };
        assert_eq!(
            (&ended["state"], &ended["counts"]),
            (&json!("finished"), &counts),
            "{fault:?} at effect {at}: {ended}"
        );
    }
    letters.len()
}

async fn holds_whichever_fails(fault: Fault) {
    let (mut world, line, messages, reviews) = with_letters().await;
    let passed = json!({ "passed": 1 });
    let effects = fail_each((&mut world, &line), fault, &messages, 0, passed).await;
    // And, after those, open pack, the letter dealt with, chunk, head, no marker.
    assert!((SHARED + 4..MESSAGES).contains(&effects), "{fault:?}: {effects} effects");
    let failed = json!({ "failed": 1 });
    assert_eq!(fail_each((&mut world, &line), fault, &reviews, SHARED, failed).await, REVIEWS, "{fault:?}");

    let letters = world.dead_letters(None).await;
    assert_eq!(letters.len(), MESSAGES, "{fault:?}: a message that is taken files nothing");
    let replayed: Vec<_> = messages.iter().take(SHARED + 4).map(|letter| &letter.id).collect();
    let dealt = |letter: &&DeadLetter| letter.state == DeadLetterState::Resolved;
    assert!(letters.iter().filter(|letter| replayed.contains(&&letter.id)).all(|letter| dealt(&letter)), "{letters:?}");
    assert_eq!(world.names(CONTROL_BUCKET, "open/packs/late/").await.len(), MESSAGES, "{fault:?}");
    for letter in &reviews {
        let DeadLetterSource::Review { review, .. } = &letter.source else { panic!("{letter:?}") };
        let shown = world.operator().get(&format!("/v1/tenants/acme/reviews/{review}")).await.expect("answered");
        assert_eq!((&shown["epoch"], &shown["status"]), (&json!(2), &json!("failed")), "{fault:?}: {shown}");
        let all = world.dead_letters(Some("acme")).await;
        let of_it = all.iter().filter(|other| other.id == letter.id || other.replay_of.as_ref() == Some(&letter.id));
        let states: Vec<_> = of_it.map(|letter| letter.state).collect();
        assert_eq!(states.len(), 2, "{fault:?}: one letter of each epoch");
        assert!(states.contains(&DeadLetterState::Resolved) && states.contains(&DeadLetterState::Open), "{states:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_effect_of_a_campaign_fails_each_letter_is_replayed_once() {
    // Killed before an effect is killed after the one before it, and done twice is as if its reply were lost.
    join_all([Fault::Refused, Fault::Lost, Fault::HeldAfter].map(holds_whichever_fails)).await;
}
