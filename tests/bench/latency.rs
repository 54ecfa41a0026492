//! From the sign of completion to the completion event, for a review whose agent does next to nothing.

use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use carrel_schemas::claim::Claim;
use carrel_schemas::layout;
use carrel_schemas::seal::Seal;
use carrel_schemas::timestamp::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::world::{World, program, tenant};
use crate::{Row, ms, percentile};

const WARM_UP: usize = 10;
const REVIEWS: usize = 100;

/// An agent that states nothing: no parser, no rendering.
const AGENT: &str = r#"cd "$(dirname "$1")/output" && echo empty > deck.html &&
echo '{"schema":1,"agent":"empty/1","title":"t","summary":"s","findings":[],"not_computed":[]}' > findings.json"#;

pub(crate) async fn empty_review() -> Vec<Row> {
    let world = World::start(vec![tenant("acme", json!({}))], |setup| {
        setup.agent = ["/bin/sh", "-c", AGENT, "empty"].map(str::to_owned).to_vec();
    })
    .await;
    let mut walks = Vec::new();
    for at in 0..WARM_UP + REVIEWS {
        let walk = review(&world, &format!("pack-{at}")).await;
        walks.extend((at >= WARM_UP).then_some(walk));
    }
    let of = |part: fn(&Walk) -> Duration, share| {
        let mut samples: Vec<_> = walks.iter().map(part).collect();
        ms(percentile(&mut samples, share))
    };
    let mut starts: Vec<_> = (0..REVIEWS).map(|_| start_of_a_process()).collect();
    let both = format!("{} / {}", of(|walk| walk.whole, 50), of(|walk| walk.whole, 95));
    vec![
        Row::new("empty review, marker sent to event received, p50 / p95", both, "goal p50 <= 50 ms"),
        Row::new("  marker sent, durable, heard of, pack sealed, p50", of(|walk| walk.sealed, 50), ""),
        Row::new("  authorised, execution started, attempt claimed, p50", of(|walk| walk.claimed, 50), ""),
        Row::new("  checked, scanned, agent run, delivered, decided, p50", of(|walk| walk.decided, 50), ""),
        Row::new("  verified, announced, received, p50", of(|walk| walk.received, 50), ""),
        Row::new("  peer: `carrel --version` as a process, p50", ms(percentile(&mut starts, 50)), ""),
    ]
}

struct Walk {
    whole: Duration,
    sealed: Duration,
    claimed: Duration,
    decided: Duration,
    received: Duration,
}

async fn review(world: &World, pack: &str) -> Walk {
    world.put("acme", &format!("{pack}/a.csv"), "a\n1\n").await;
    let sent = SystemTime::now();
    world.put("acme", &format!("{pack}/_COMPLETE"), "").await;
    let got = world.completion("acme", pack).await;
    let (completion, received) = (got.completion, got.at);
    assert_eq!(completion.verdict.state(), "delivered");
    let review = &completion.review;
    let seal: Seal = read(world, layout::seal(review).as_str()).await;
    let attempt = carrel_schemas::ids::Attempt::FIRST;
    let claim: Claim = read(world, layout::claim(review, completion.epoch, attempt).as_str()).await;
    let between = |from: Timestamp, to: Timestamp| to.since(from);
    Walk {
        whole: received.duration_since(sent).unwrap_or_default(),
        sealed: between(sent.into(), seal.sealed_at),
        claimed: between(seal.sealed_at, claim.claimed_at),
        decided: between(claim.claimed_at, completion.decided_at),
        received: between(completion.decided_at, received.into()),
    }
}

async fn read<T: DeserializeOwned>(world: &World, name: &str) -> T {
    let body = world.objects.get("acme-outputs", name, 1 << 20).await.expect("answered").expect("there");
    serde_json::from_slice(&body.bytes).expect("what its name says")
}

fn start_of_a_process() -> Duration {
    let began = Instant::now();
    let ended = Command::new(program()).arg("--version").stdout(std::process::Stdio::null()).status();
    assert!(ended.expect("it starts").success());
    began.elapsed()
}
