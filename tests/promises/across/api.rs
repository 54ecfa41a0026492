//! The dispatcher's API for whoever holds another tenant's token, a made-up one, or none.

use carrel_schemas::outcome::Verdict;
use serde_json::{Value, json};

use super::wire::{Call, Hand, escaped};
use super::{ATTACKER, Allowed, Attack, Stage, Thing, VICTIM, two};
use crate::files::sales;
use crate::world::World;

fn review(thing: &Thing) -> String {
    format!("/v1/tenants/{}/reviews/{}", thing.of, thing.item)
}

fn letter(thing: &Thing) -> String {
    format!("/v1/tenants/{}/dead-letters/{}", thing.of, thing.item)
}

fn ask(tenant: &str, pack: &str, key: &str) -> Call {
    let call = Call::post(format!("/v1/tenants/{tenant}/reviews"), json!({ "pack": pack }).to_string());
    call.with("idempotency-key", key)
}

const TENANTS: &[Attack] = &[
    Attack("list reviews of", |t| Call::get(format!("/v1/tenants/{}/reviews", t.of)), 404, Allowed::Own(200)),
    Attack("list letters of", |t| Call::get(format!("/v1/tenants/{}/dead-letters", t.of)), 404, Allowed::Own(200)),
    Attack("read completions of", |t| Call::get(format!("/v1/tenants/{}/completions", t.of)), 404, Allowed::Own(200)),
    Attack(
        "listen to",
        // A cursor that is none, for whoever may listen is never told that it is over.
        |t| Call::get(format!("/v1/tenants/{}/events", t.of)).with("last-event-id", "no cursor"),
        404,
        Allowed::Own(400),
    ),
    Attack("ask for", |t| ask(&t.of, "q3", "one"), 404, Allowed::Own(202)),
    Attack("ask badly for", |t| Call::post(format!("/v1/tenants/{}/reviews", t.of), "no JSON"), 404, Allowed::Own(400)),
];

const REVIEWS: &[Attack] = &[
    Attack("show review", |t| Call::get(review(t)), 404, Allowed::Own(200)),
    Attack(
        "cancel review",
        |t| Call::post(format!("{}/cancel", review(t)), "{\"reason\":\"r\"}"),
        404,
        Allowed::Own(409),
    ),
    Attack("listen to review", |t| Call::get(format!("{}/events", review(t))), 404, Allowed::Own(200)),
    Attack(
        "explain review",
        |t| Call::get(format!("/v1/tenants/{}/explain?what={}", t.of, t.item)),
        404,
        Allowed::Own(200),
    ),
];

const LETTERS: &[Attack] = &[Attack("show letter", |t| Call::get(letter(t)), 404, Allowed::Own(200))];

/// By the attacker's own path with another's pack, under a key that the other has used.
const PACKS: &[Attack] = &[Attack("ask for pack", |t| ask(ATTACKER, &t.item, "theirs"), 404, Allowed::Own(202))];

/// Names that lead out of a tenant's records, were they paths.
const ASTRAY: &[Attack] = &[
    Attack(
        "lead out to",
        |t| Call::get(format!("/v1/tenants/{ATTACKER}/reviews/{}", out(t))),
        400,
        Allowed::Owner(400),
    ),
    Attack(
        "lead out to letters of",
        |t| Call::get(format!("/v1/tenants/{ATTACKER}/dead-letters/{}", out(t))),
        400,
        Allowed::Owner(400),
    ),
];

fn out(thing: &Thing) -> String {
    escaped(&format!("../../{}/reviews/{}", thing.of, thing.item))
}

/// The page after a place of another's letter, before any of its own: it must be what the page after no letter is.
const PAGES: &[Attack] = &[Attack(
    "leaf on from",
    |t| Call::get(format!("/v1/tenants/{ATTACKER}/dead-letters?page={}@2100-01-01T00:00:00Z", t.item)),
    200,
    Allowed::Own(200),
)];

const OPERATORS: &[Attack] = &[
    Attack("count letters", |_| Call::get("/v1/dead-letters/stats".to_owned()), 403, Allowed::Owner(200)),
    Attack("read everybody's completions", |_| Call::get("/v1/completions".to_owned()), 403, Allowed::Owner(200)),
    Attack("list campaigns", |_| Call::get("/v1/campaigns".to_owned()), 403, Allowed::Owner(200)),
    Attack(
        "replay all",
        |_| Call::post("/v1/campaigns".to_owned(), "{\"all\":true,\"dry_run\":true}"),
        403,
        Allowed::Owner(200),
    ),
    Attack(
        "explain anything",
        |_| Call::get("/v1/explain?what=gs://bolt-uploads/q3/sales.csv".to_owned()),
        403,
        Allowed::Owner(200),
    ),
    Attack("list letters of nobody", |_| Call::get("/v1/dead-letters".to_owned()), 403, Allowed::Owner(200)),
    Attack("show letter of nobody", |t| Call::get(format!("/v1/dead-letters/{}", t.item)), 403, Allowed::Owner(200)),
    Attack(
        "discard letter of nobody",
        |t| Call::post(format!("/v1/dead-letters/{}/discard", t.item), "{\"reason\":\"r\"}"),
        403,
        Allowed::Owner(200),
    ),
];

/// One campaign; where it is allowed none is steered, so that what the attacker might have done to one is seen.
const CAMPAIGNS: &[Attack] = &[
    Attack("show", |t| Call::get(format!("/v1/campaigns/{}", t.item)), 403, Allowed::Owner(404)),
    Attack("list letters of", |t| Call::get(format!("/v1/campaigns/{}/letters", t.item)), 403, Allowed::Owner(404)),
    Attack("pause", |t| Call::post(format!("/v1/campaigns/{}/pause", t.item), ""), 403, Allowed::Owner(404)),
    Attack("resume", |t| Call::post(format!("/v1/campaigns/{}/resume", t.item), ""), 403, Allowed::Owner(404)),
    Attack("cancel", |t| Call::post(format!("/v1/campaigns/{}/cancel", t.item), ""), 403, Allowed::Owner(404)),
];

#[test]
fn every_call_of_the_api_that_asks_for_a_token_is_attacked() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/json/openapi.json");
    let document: Value = serde_json::from_slice(&std::fs::read(file).expect("the document")).expect("JSON");
    let tables = [TENANTS, REVIEWS, LETTERS, PACKS, OPERATORS, CAMPAIGNS];
    let made: Vec<Call> =
        tables.concat().into_iter().map(|Attack(_, call, ..)| call(&Thing::new("{of}", "{item}"))).collect();
    let mut left = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            // What says that it needs none is open to all.
            let is_open = operation["security"].as_array().is_some_and(Vec::is_empty);
            let wishes: &[&str] = if path.contains("{wish}") { &["pause", "resume", "cancel"] } else { &[""] };
            for path in wishes.iter().map(|wish| path.replace("{wish}", wish)) {
                if !is_open && !made.iter().any(|call| call.is_of(method, &path)) {
                    left.push(format!("{method} {path}"));
                }
            }
        }
    }
    assert!(left.is_empty(), "nobody attacks {left:?}; add them to a table above");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_its_own_tenant_and_tells_nothing_of_any_other() {
    let world = World::start(two(json!({})), |_| {}).await;
    let mut refused = Vec::new();
    for tenant in [ATTACKER, VICTIM] {
        world.upload(tenant, "q3", vec![("sales.csv", sales())]).await;
        world.upload(tenant, "empty", vec![("empty.csv", Vec::new())]).await;
        let got = world.completion(tenant, "empty").await;
        assert!(matches!(got.completion.verdict, Verdict::Refused { .. }), "{:?}", got.completion.verdict);
        let letter = world.dead_letter(Some(tenant), "a letter", |_| true).await;
        refused.push(letter.id.to_string());
    }
    world.upload(VICTIM, "secret", vec![("sales.csv", sales())]).await;
    world.publish("uploads", "no notification", &[]).await;
    let strays = world.dead_letter(None, "a letter of nobody", |_| true).await.id.to_string();
    let reviewed = async |tenant| world.completion(tenant, "q3").await.completion.review.to_string();
    let (own_review, their_review) = (reviewed(ATTACKER).await, reviewed(VICTIM).await);
    let (no_review, no_letter) = (format!("rv_{}", "0".repeat(32)), format!("dl_{}", "0".repeat(32)));

    let api = &world.fleet.address().api;
    let hand = |who: &str| Hand::new(api, &world.fleet.tokens()[who]);
    let (attacker, operator, victim) = (hand(ATTACKER), hand("operator"), hand(VICTIM));
    assert_eq!(victim.call(ask(VICTIM, "secret", "theirs")).await.code, 202);
    let stage = |own: Thing, theirs: Vec<Thing>, nobodys: Thing| Stage {
        attacker: &attacker,
        owner: &operator,
        own,
        theirs,
        nobodys,
    };
    let of_tenant = |id: &str| Thing::new(id, "-none-");
    stage(of_tenant(ATTACKER), vec![of_tenant(VICTIM)], of_tenant("nobody")).play(TENANTS).await;
    let named = |item: &str| Thing::new(ATTACKER, item);
    // What is another's is not there: neither below its own tenant nor below the attacker's.
    let theirs = vec![Thing::new(VICTIM, &their_review)];
    let own = named(&own_review);
    stage(own.clone(), theirs, Thing::new("nobody", &no_review)).play(REVIEWS).await;
    stage(own.clone(), vec![named(&their_review)], named(&no_review)).play(REVIEWS).await;
    let theirs = vec![Thing::new(VICTIM, &refused[1])];
    stage(named(&refused[0]), theirs, Thing::new("nobody", &no_letter)).play(LETTERS).await;
    let theirs = vec![named(&refused[1]), named(&strays)];
    stage(named(&refused[0]), theirs, named(&no_letter)).play(LETTERS).await;
    stage(named(&refused[0]), vec![named(&refused[1])], named(&no_letter)).play(PAGES).await;
    stage(named("q3"), vec![named("secret")], named("none")).play(PACKS).await;
    let nobodys = Thing::new("nobody", &no_review);
    stage(own, vec![Thing::new(VICTIM, &their_review)], nobodys).play(ASTRAY).await;
    stage(named(&strays), vec![named(&strays)], named(&no_letter)).play(OPERATORS).await;
    let replay = Call::post("/v1/campaigns".to_owned(), json!({ "letters": [refused[0]] }).to_string());
    let opened = operator.call(replay.with("idempotency-key", "one")).await;
    assert_eq!(opened.code, 202, "{opened:?}");
    let campaign = serde_json::from_str::<Value>(&opened.text).expect("JSON")["id"].take();
    let campaign = campaign.as_str().expect("an id").to_owned();
    let none = |digit: &str| named(&format!("cp_{}", digit.repeat(32)));
    stage(none("0"), vec![named(&campaign)], none("1")).play(CAMPAIGNS).await;
    let stands = operator.call(Call::get(format!("/v1/campaigns/{campaign}"))).await;
    assert!(!stands.text.contains("\"cancelled\"") && !stands.text.contains("\"paused\""), "{stands:?}");

    // Who has no token, or none of the registry's, is told the same of everything.
    let made_up = Hand::new(api, "carrel-0");
    let of_cloud = Hand::new(api, &super::token(&world, "worker-acme"));
    for (who, stranger) in [("nobody", Hand::stranger(api)), ("a guesser", made_up), ("a worker", of_cloud)] {
        let mut told = std::collections::BTreeSet::new();
        let victims = Thing::new(VICTIM, &their_review);
        for thing in [&victims, &Thing::new("nobody", &no_review)] {
            for Attack(_, call, ..) in TENANTS.iter().chain(REVIEWS).chain(LETTERS).chain(OPERATORS).chain(CAMPAIGNS) {
                let got = stranger.call(call(thing)).await;
                told.insert((got.code, got.text));
            }
        }
        assert_eq!(told.len(), 1, "{who}: {told:?}");
        assert_eq!(told.first().map(|(code, _)| *code), Some(401), "{who}: {told:?}");
    }
}
