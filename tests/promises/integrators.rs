//! What an integrator builds on: the document of the API, completions read again, and streams of events.

use std::collections::{BTreeMap, BTreeSet};

use carrel_schemas::completion::Completion;
use carrel_schemas::dead_letter::DeadLetter;
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};

use crate::files::sales;
use crate::gate::Gate;
use crate::world::{AT_LAST, World, eventually, tenant};

fn client() -> Client {
    carrel_cloud::install_crypto();
    Client::builder().no_proxy().build().expect("a client")
}

/// One event of a stream.
#[derive(Debug, Clone, Default)]
struct Told {
    event: String,
    id: String,
    data: String,
}

/// A stream of server-sent events, read as the standard says.
struct Listener {
    answer: Response,
    text: String,
    /// It ended in the middle, as when its server dies.
    was_cut: bool,
}

impl Listener {
    async fn open(world: &World, who: &str, path: &str, last: Option<&str>) -> Self {
        let call = client().get(format!("{}{path}", world.fleet.address().api)).bearer_auth(&world.fleet.tokens()[who]);
        let call = last.into_iter().fold(call, |call, last| call.header("last-event-id", last));
        let answer = call.send().await.expect("the API answers");
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { answer, text: String::new(), was_cut: false }
    }

    /// The next event; none once the stream is over.
    async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let mut told = Told::default();
                for (field, value) in block.lines().filter_map(|line| line.split_once(": ")) {
                    match field {
                        "event" => told.event = value.to_owned(),
                        "id" => told.id = value.to_owned(),
                        "data" => told.data.push_str(value),
                        _ => {}
                    }
                }
                self.text = rest.to_owned();
                if !told.data.is_empty() {
                    return Some(told);
                }
                continue;
            }
            let chunk = tokio::time::timeout(AT_LAST, self.answer.chunk()).await.expect("an event or an end");
            self.was_cut = chunk.is_err();
            let chunk = chunk.ok().flatten()?;
            self.text.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
        }
    }

    async fn completion(&mut self) -> (String, Completion) {
        let told = self.next().await.expect("a completion");
        assert_eq!(told.event, "completion");
        (told.id, serde_json::from_str(&told.data).expect("a completion"))
    }
}

/// Everything that a reader gets from a cursor on, by event id, and where it stands then.
async fn read_from(world: &World, who: &str, path: &str, cursor: Option<&str>) -> (BTreeMap<String, Value>, String) {
    let (mut read, mut cursor) = (BTreeMap::new(), cursor.map(str::to_owned));
    loop {
        let after = cursor.as_deref().map(|cursor| format!("&after={cursor}")).unwrap_or_default();
        let page = world.api(who).get(&format!("{path}?limit=1{after}")).await.expect("the API answers");
        for completion in page["completions"].as_array().expect("a list") {
            read.insert(completion["event"].as_str().expect("an id").to_owned(), completion.clone());
        }
        let next = page["next"].as_str().expect("a cursor").to_owned();
        if page["more"] == false {
            return (read, next);
        }
        cursor = Some(next);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_that_is_documented_exists_knows_a_stranger_and_answers_nonsense_as_documented() {
    let world = World::start(vec![tenant("acme", json!({}))], |_| {}).await;
    let base = &world.fleet.address().api;
    let document = client().get(format!("{base}/v1/openapi.json")).send().await.expect("answered");
    let document: Value = document.json().await.expect("JSON");
    let mut calls = 0;
    for (path, operations) in document["paths"].as_object().expect("paths") {
        let url = format!("{base}{}", path.replace("{tenant}", "acme").replace(['{', '}'], ""));
        for (method, operation) in operations.as_object().expect("operations") {
            let method = method.to_uppercase().parse().expect("a method");
            let is_open = operation["security"] == json!([]);
            for token in [None, Some("made-up"), Some("a.b.c")] {
                let call = client().request(http::Method::clone(&method), &url);
                let call = token.into_iter().fold(call, |call, token| call.bearer_auth(token));
                let status = call.send().await.expect("answered").status();
                let wanted = if is_open { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
                assert_eq!(status, wanted, "{method} {path} with {token:?}");
                calls += 1;
            }
            // No id of its path is one, nor is its cursor, and it has no body.
            let call = client().request(method.clone(), &url).bearer_auth(&world.fleet.tokens()["operator"]);
            let status = call.header("last-event-id", "nonsense").send().await.expect("answered").status();
            assert!(operation["responses"][status.as_str()].is_object(), "{method} {path}: {status} is not documented");
            let is_wrong = path.replace("{tenant}", "").contains('{') || path.ends_with("/events");
            assert!(status.is_client_error() || !is_wrong, "{method} {path}: {status}");
        }
    }
    assert!(calls > 40, "only {calls} calls");
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_are_read_again_from_a_cursor_even_after_a_restart_and_each_tenant_reads_its_own() {
    let mut world = World::start(vec![tenant("acme", json!({})), tenant("bolt", json!({}))], |_| {}).await;
    let (own, all) = ("/v1/tenants/acme/completions", "/v1/completions");
    let (none, start) = read_from(&world, "acme", own, None).await;
    assert!(none.is_empty(), "{none:?}");
    for (tenant, pack) in [("acme", "q1"), ("acme", "q2"), ("bolt", "q1")] {
        world.upload(tenant, pack, vec![("sales.csv", sales())]).await;
        world.completion(tenant, pack).await;
    }
    let (_, midway) = read_from(&world, "acme", own, Some(&start)).await;
    world.kill_dispatcher();
    world.restart_dispatcher().await;
    world.upload("acme", "q3", vec![("sales.csv", sales())]).await;
    world.completion("acme", "q3").await;

    let published: BTreeSet<(String, String)> = world
        .received()
        .into_iter()
        .map(|got| (got.completion.tenant.to_string(), got.completion.event.to_string()))
        .collect();
    let of = |tenant: &str| -> BTreeSet<String> {
        published.iter().filter(|(of, _)| of == tenant).map(|(_, event)| event.clone()).collect()
    };
    let keys = |read: BTreeMap<String, Value>| read.into_keys().collect::<BTreeSet<String>>();
    assert_eq!(keys(read_from(&world, "acme", own, Some(&start)).await.0), of("acme"));
    assert_eq!(keys(read_from(&world, "bolt", "/v1/tenants/bolt/completions", None).await.0), of("bolt"));
    let everything: BTreeSet<String> = published.iter().map(|(_, event)| event.clone()).collect();
    assert_eq!(everything.len(), 4);
    assert_eq!(keys(read_from(&world, "operator", all, None).await.0), everything);
    let (since, _) = read_from(&world, "acme", own, Some(&midway)).await;
    assert!(since.values().any(|completion| completion["pack"] == "q3"), "{since:?}");

    for (who, path, refusal) in
        [("bolt", own, "404"), ("acme", all, "403"), ("acme", "/v1/tenants/acme/completions?after=nonsense", "400")]
    {
        let error = world.api(who).get(path).await.expect_err("refused").to_string();
        assert!(error.contains(refusal), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_is_told_from_its_queue_to_its_end() {
    let mut gate = None;
    let world = World::start(vec![tenant("acme", json!({})), tenant("bolt", json!({}))], |setup| {
        gate = Some(Gate::install(setup));
    })
    .await;
    let gate = gate.expect("installed");
    world.upload("acme", "q3", vec![("sales.csv", sales())]).await;
    gate.is_reached_by(1).await;
    let review = eventually("the review", async || {
        world.api("acme").reviews("acme").await.expect("answered").into_iter().next()
    })
    .await
    .id;
    let path = format!("/v1/tenants/acme/reviews/{review}/events");
    let mut stream = Listener::open(&world, "acme", &path, None).await;
    let first = stream.next().await.expect("where it stands");
    assert_eq!(first.event, "review");
    let _open = gate.open();
    let mut last = first;
    while let Some(told) = stream.next().await {
        assert_ne!(told.id, last.id, "told twice");
        last = told;
    }
    let url = format!("{}{path}", world.fleet.address().api);
    let again = client().get(url).bearer_auth(&world.fleet.tokens()["acme"]).header("last-event-id", &last.id);
    assert_eq!(again.send().await.expect("answered").status(), StatusCode::NO_CONTENT);
    let last: Value = serde_json::from_str(&last.data).expect("a review");
    assert_eq!(last["state"]["completion"]["verdict"]["state"], "delivered", "{last}");
    assert!(last["state"]["announced_at"].is_string(), "{last}");
    let error = world.api("bolt").get(&path).await.expect_err("another's").to_string();
    assert!(error.contains("404"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_comes_back_after_a_restart_misses_no_completion() {
    let mut world = World::start(vec![tenant("acme", json!({})), tenant("bolt", json!({}))], |_| {}).await;
    let path = "/v1/tenants/acme/events";
    let mut stream = Listener::open(&world, "acme", path, None).await;
    for (tenant, pack) in [("bolt", "q1"), ("acme", "q1")] {
        world.upload(tenant, pack, vec![("sales.csv", sales())]).await;
        world.completion(tenant, pack).await;
    }
    let (id, first) = stream.completion().await;
    assert_eq!((first.tenant.as_str(), first.pack.as_str()), ("acme", "q1"));
    world.kill_dispatcher();
    assert!(stream.next().await.is_none() && stream.was_cut, "the line is cut");
    world.restart_dispatcher().await;
    // It is announced while nobody listens.
    world.upload("acme", "q2", vec![("sales.csv", sales())]).await;
    world.completion("acme", "q2").await;
    let mut stream = Listener::open(&world, "acme", path, Some(&id)).await;
    loop {
        let (_, told) = stream.completion().await;
        assert_eq!(told.tenant.as_str(), "acme");
        if told.pack.as_str() == "q2" {
            break;
        }
    }
    world.fleet.stop().expect("it drains");
    assert!(stream.next().await.is_none() && !stream.was_cut, "a dispatcher that drains ends its streams");
}

#[tokio::test(flavor = "multi_thread")]
async fn campaigns_are_leafed_through_the_newest_first() {
    let world = World::start(vec![tenant("acme", json!({}))], |_| {}).await;
    let operator = world.operator();
    let mut begun = Vec::new();
    for pack in ["a", "b", "c"] {
        world.upload("acme", pack, vec![]).await;
        let its = |letter: &DeadLetter| letter.reason.contains(&format!("{pack:?}"));
        let letter = world.dead_letter(Some("acme"), pack, its).await;
        let wish = json!({ "letters": [letter.id] });
        begun.insert(0, operator.post("/v1/campaigns", pack, &wish).await.expect("taken")["id"].clone());
    }
    let ids = |page: &Value| -> Vec<Value> {
        page["campaigns"].as_array().expect("a list").iter().map(|campaign| campaign["id"].clone()).collect()
    };
    let whole = operator.get("/v1/campaigns").await.expect("answered");
    assert_eq!((ids(&whole), &whole["next"]), (begun.clone(), &Value::Null));
    let first = operator.get("/v1/campaigns?limit=2").await.expect("answered");
    let rest = format!("/v1/campaigns?limit=2&page={}", first["next"].as_str().expect("more"));
    let rest = operator.get(&rest).await.expect("answered");
    assert_eq!(([ids(&first), ids(&rest)].concat(), &rest["next"]), (begun, &Value::Null));
    for wrong in ["page=nonsense", "limit=0", "limit=1001", "sort=id"] {
        let refused = operator.get(&format!("/v1/campaigns?{wrong}")).await.expect_err(wrong).to_string();
        assert!(refused.contains("400"), "{refused}");
    }
}
