//! Reviews that end, or are tried again, for a reason of the fleet's own: superseded, past their deadline, out of memory.

use carrel::plan::CONTROL_BUCKET;
use carrel_schemas::dead_letter::{DeadLetter, DeadLetterClass};
use carrel_schemas::ids::{PackId, ReviewId};
use carrel_schemas::layout;
use carrel_schemas::outcome::{DecidedBy, FailureClass, Verdict};
use serde_json::{Value, json};

use crate::files::sales;
use crate::gate::Gate;
use crate::leaving::rewrite;
use crate::world::{Prepared, Received, World, eventually, program, tenant};

/// The first completion of a pack in this state that `wanted` accepts.
async fn ended(world: &World, pack: (&str, &str), state: &str, wanted: impl Fn(&Received) -> bool) -> Received {
    eventually(&format!("{pack:?} {state}"), async || {
        world.received().into_iter().find(|got| {
            let of = (got.completion.tenant.as_str(), got.completion.pack.as_str());
            of == pack && got.completion.verdict.state() == state && wanted(got)
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_makes_way_for_a_later_revision_and_is_given_up_at_its_deadline() {
    let one = json!({ "max_concurrent": 1 });
    let tenants = vec![
        tenant("acme", json!({ "limits": one })),
        tenant("bolt", json!({ "supersede_running": true })),
        tenant("cord", json!({ "limits": one, "deadline_seconds": 3 })),
    ];
    let mut gate = None;
    let world = World::start(tenants, |setup| gate = Some(Gate::install(setup))).await;
    let gate = gate.expect("installed");

    // While it waits, in any case.
    world.upload("acme", "runs", vec![("sales.csv", sales())]).await;
    gate.is_reached_by(1).await;
    world.upload("acme", "q3", vec![("sales.csv", sales())]).await;
    let waits = eventually("the first review", async || {
        let reviews = world.operator().reviews("acme").await.expect("answered");
        reviews.into_iter().find(|review| review.pack == "q3").map(|review| review.id)
    })
    .await;
    world.upload("acme", "q3", vec![("more.csv", sales())]).await;
    let first = ended(&world, ("acme", "q3"), "superseded", |_| true).await.completion;
    assert_eq!(first.review.as_str(), waits);
    let Verdict::Superseded { by: second } = &first.verdict else { panic!("{:?}", first.verdict) };
    // Until the pack holds just its files again.
    world.objects.delete("acme-uploads", "q3/more.csv", None).await.expect("deleted");
    world.put("acme", "q3/_COMPLETE", Vec::new()).await;
    let again = ended(&world, ("acme", "q3"), "superseded", |got| got.completion.review == *second).await.completion;
    assert_eq!(again.verdict, Verdict::Superseded { by: first.review.clone() });

    // While it runs, where the tenant wishes it so.
    world.upload("bolt", "q3", vec![("sales.csv", sales())]).await;
    gate.is_reached_by(2).await;
    world.upload("bolt", "q3", vec![("more.csv", sales())]).await;
    ended(&world, ("bolt", "q3"), "superseded", |_| true).await;
    gate.is_reached_by(3).await;

    // At its deadline, whether it runs or waits.
    for pack in ["runs", "waits"] {
        world.upload("cord", pack, vec![("sales.csv", sales())]).await;
    }
    for pack in ["runs", "waits"] {
        let got = ended(&world, ("cord", pack), "failed", |_| true).await.completion;
        let Verdict::Failed { class, message, .. } = &got.verdict else { panic!("{:?}", got.verdict) };
        assert_eq!(*class, FailureClass::Expired);
        assert!(message.contains("the deadline of 3 s passed"), "{message}");
    }
    let letters = eventually("a letter of each", async || {
        let letters = world.dead_letters(Some("cord")).await;
        (letters.len() == 2).then_some(letters)
    })
    .await;
    assert!(letters.iter().all(|letter| letter.class == DeadLetterClass::Expired), "{letters:?}");

    let _open = gate.open();
    for pack in [("acme", "runs"), ("bolt", "q3")] {
        ended(&world, pack, "delivered", |_| true).await;
    }
    let last = ended(&world, ("acme", "q3"), "delivered", |_| true).await.completion;
    assert_eq!((last.review, last.epoch), (first.review, first.epoch.next()));
    world.settled().await;
    for quiet in ["acme", "bolt"] {
        assert!(world.dead_letters(Some(quiet)).await.is_empty(), "nobody has to look at what was replaced");
    }
    let claims = world.names("cord-outputs", "claims/").await.len();
    assert!(claims <= 1, "what waited was never launched: {claims}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_that_runs_out_of_memory_is_tried_once_more_with_more_and_then_filed() {
    // It ends as one whose allocation was refused, unless it has the larger limits; for one pack even then.
    let script = "seconds=$(sed -n 's/.*\"timeout_seconds\": \\([0-9]*\\).*/\\1/p' \"$2\")\n\
                  if [ \"$seconds\" -lt 1000 ] || grep -q '\"pack\": \"never\"' \"$2\"; then\n\
                  echo 'hungry: memory exhausted' >&2; exit 1; fi\n\
                  exec \"$1\" internal analyst \"$2\"";
    let acme = json!({ "retry_limits": { "agent_memory_bytes": 2_u64 << 30, "timeout_seconds": 1800 } });
    let world = World::start(vec![tenant("acme", acme)], |setup| {
        setup.agent = ["/bin/sh", "-c", script, "hungry", &program().display().to_string()].map(str::to_owned).to_vec();
    })
    .await;
    for pack in ["once", "never"] {
        world.upload("acme", pack, vec![("sales.csv", sales())]).await;
    }
    let got = ended(&world, ("acme", "once"), "delivered", |_| true).await.completion;
    assert_eq!(got.epoch.get(), 2, "nobody was told of the first try");
    let DecidedBy::Worker { execution, .. } = world.outcome(&got).await.decided_by else { panic!("a worker delivers") };
    assert!(execution.job().as_str().ends_with("/review-acme-large"), "{execution}");

    let got = ended(&world, ("acme", "never"), "failed", |_| true).await.completion;
    let is_hungry = matches!(got.verdict, Verdict::Failed { class: FailureClass::OutOfMemory, .. });
    assert!(is_hungry && got.epoch.get() == 2, "{got:?}");
    let letter: DeadLetter = world.dead_letter(Some("acme"), "its letter", |_| true).await;
    assert_eq!((letter.class, letter.replay_of.clone()), (DeadLetterClass::OutOfMemory, None));
    let causes: Vec<_> = letter.attempts.iter().map(|attempt| attempt.cause.as_str()).collect();
    assert!(matches!(causes[..], [first] if first.contains("once more with larger limits")), "{causes:?}");
    let of_both = [letter.attempts[0].evidence.clone(), letter.evidence.clone()];
    for evidence in of_both.map(|evidence| evidence.expect("what each try left behind")) {
        assert_eq!(evidence.exit.as_deref(), Some("exit code 1, beyond its memory"));
        assert!(evidence.usage.is_some() && evidence.log_tail.is_some_and(|tail| tail.contains("memory exhausted")));
    }
    world.settled().await;
    assert_eq!(world.received().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cloud_ends_for_its_memory_or_time_is_told_from_a_crash_and_not_tried_again_as_it_was() {
    let larger = json!({ "retry_limits": { "agent_memory_bytes": 2_u64 << 30, "timeout_seconds": 1800 } });
    let prepared = Prepared::new(vec![tenant("acme", larger.clone()), tenant("bolt", larger)], |setup| {
        setup.agent = ["/bin/sh", "-c", "exec sleep 600"].map(str::to_owned).to_vec();
    });
    prepared.reconfigure(|config| {
        // In place of acme's worker, one whose processes each hold less than its memory, and all of them more.
        let script = "for at in 1 2 3 4; do
                (head -c 40000000 /dev/zero; exec sleep 600) | tail >/dev/null &
                pids=\"$pids $!\"
            done
            while kill -0 $pids 2>/dev/null; do sleep 0.1; done
            exit 1";
        config["images"]["greedy"] = json!({ "argv": ["/bin/sh", "-c", script, "greedy"] });
        for job in config["jobs"].as_array_mut().expect("jobs") {
            // Its larger job is no larger: what runs out of time once does so again.
            if job["name"].as_str().is_some_and(|name| name.starts_with("review-bolt")) {
                job["timeout_seconds"] = json!(10);
            } else {
                (job["image"], job["memory_bytes"]) = (json!("greedy"), json!(64 << 20));
            }
        }
    });
    let world = prepared.start().await;
    world.upload("acme", "hungry", vec![("sales.csv", sales())]).await;
    world.upload("bolt", "slow", vec![("sales.csv", sales())]).await;

    let got = ended(&world, ("bolt", "slow"), "failed", |_| true).await.completion;
    let Verdict::Failed { class, message, .. } = &got.verdict else { panic!("{:?}", got.verdict) };
    assert_eq!((*class, got.epoch.get()), (FailureClass::TimedOut, 2), "nobody was told of the first try");
    assert!(
        message.starts_with("the last of 1 execution(s), ") && message.contains("at the timeout of its job"),
        "{message}"
    );
    let letter = world.dead_letter(Some("bolt"), "its letter", |_| true).await;
    assert_eq!((letter.class, letter.attempts.len()), (DeadLetterClass::TimedOut, 1), "one larger try");
    for evidence in [letter.attempts[0].evidence.clone(), letter.evidence] {
        let evidence = evidence.expect("what is known of each end");
        assert!(evidence.exit.is_some_and(|exit| exit.contains("The configured timeout was reached.")));
        assert!(evidence.stage.is_some(), "as the worker last said");
    }

    let got = ended(&world, ("acme", "hungry"), "failed", |_| true).await.completion;
    let is_hungry = matches!(got.verdict, Verdict::Failed { class: FailureClass::OutOfMemory, .. });
    assert!(is_hungry && got.epoch.get() == 2, "nobody was told of the first try: {got:?}");
    assert_eq!(world.outcome(&got).await.decided_by, DecidedBy::Dispatcher);
    let letter = world.dead_letter(Some("acme"), "its letter", |_| true).await;
    assert_eq!((letter.class, letter.attempts.len()), (DeadLetterClass::OutOfMemory, 1));
    for evidence in [letter.attempts[0].evidence.clone(), letter.evidence] {
        let exit = evidence.and_then(|evidence| evidence.exit).expect("how each try ended");
        assert!(exit.ends_with("The configured memory limit was reached."), "{exit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_decides_nothing_says_why_and_one_that_cannot_succeed_is_not_made_again() {
    let tenants = vec![
        tenant("acme", json!({ "limits": { "max_attempts": 2 } })),
        tenant("bolt", json!({})),
        tenant("cord", json!({ "suspended": true })),
    ];
    let prepared = Prepared::new(tenants, |setup| {
        // As one whose model is away.
        setup.agent = ["/bin/sh", "-c", "exit 30"].map(str::to_owned).to_vec();
    });
    prepared.reconfigure(|config| {
        for job in config["jobs"].as_array_mut().expect("jobs") {
            if job["name"] == "review-bolt" {
                job["env"]["CARREL_LIMITS"] = json!("none");
            }
        }
    });
    let mut world = prepared.start().await;
    // Before it is cord's turn, somebody puts a seal over acme's files into the place of its own.
    world.upload("cord", "q3", vec![("sales.csv", sales())]).await;
    let review = eventually("cord's review", async || {
        world.operator().reviews("cord").await.expect("answered").pop().map(|review| review.id)
    })
    .await;
    let own = format!("tenants/cord/seals/{}/0000000001.json", PackId::parse("q3").expect("id").key());
    let seal = world.objects.get(CONTROL_BUCKET, &own, 1 << 20).await.expect("answered").expect("a seal");
    let mut seal: Value = serde_json::from_slice(&seal.bytes).expect("JSON");
    seal["bucket"] = json!("acme-uploads");
    let copy = layout::seal(&ReviewId::parse(review).expect("id"));
    let forged = seal.to_string().into();
    world.objects.put("cord-outputs", copy.as_str(), forged, "application/json").await.expect("written");
    world.kill_dispatcher();
    rewrite(&world, |tenants| tenants[2]["suspended"] = json!(false));
    world.restart_dispatcher().await;
    for who in ["acme", "bolt"] {
        world.upload(who, "q3", vec![("sales.csv", sales())]).await;
    }

    for (who, code, what) in [("bolt", 64, "settings are wrong"), ("cord", 65, "does not trust the seal")] {
        let letter = world.dead_letter(Some(who), what, |letter| letter.class == DeadLetterClass::Crashed).await;
        assert!(letter.reason.contains(what), "{}", letter.reason);
        assert!(letter.attempts.is_empty(), "the first was the last: {letter:?}");
        let exit = letter.evidence.and_then(|evidence| evidence.exit).expect("how it ended");
        assert!(exit.contains(&format!("exit code: {code} ")), "{exit}");
    }
    let letter = world.dead_letter(Some("acme"), "its letter", |_| true).await;
    assert_eq!((letter.class, letter.attempts.len()), (DeadLetterClass::Crashed, 1));
    for evidence in [letter.attempts[0].evidence.clone(), letter.evidence] {
        let evidence = evidence.expect("what each attempt left behind");
        assert!(evidence.exit.is_some_and(|exit| exit.contains("exit code: 75 ")));
        assert_eq!(evidence.log_tail.as_deref(), Some("the agent's model did not answer"));
    }
}
