//! A tenant that is suspended: what it uploads is taken in and waits, says why, and goes on once the registry lets it.

use std::process::Command;

use carrel::plan;
use serde_json::json;

use crate::files::sales;
use crate::leaving::rewrite;
use crate::world::{World, eventually, program, tenant};

#[tokio::test(flavor = "multi_thread")]
async fn a_review_of_a_suspended_tenant_waits_and_says_so_until_the_registry_lets_it_go_on() {
    let tenants = vec![tenant("acme", json!({ "suspended": true })), tenant("bolt", json!({}))];
    let mut world = World::start(tenants, |_| {}).await;
    world.upload("acme", "q3", vec![("sales.csv", sales())]).await;
    // It would be its turn before anybody else's.
    let review = eventually("its review", async || {
        world.operator().reviews("acme").await.expect("answered").pop().map(|review| review.id)
    })
    .await;
    world.upload("bolt", "q3", vec![("sales.csv", sales())]).await;
    assert_eq!(world.completion("bolt", "q3").await.completion.verdict.state(), "delivered");

    let jobs = world.fleet.address().connector().jobs().await.expect("a client");
    let job = plan::tenant("acme")["job"].as_str().expect("a job").to_owned();
    assert!(jobs.executions(&job).await.expect("answered").is_empty(), "nothing of it was launched");
    assert!(world.names("acme-outputs", "").await.is_empty(), "nor made ready");
    let told = explained(&world, "gs://acme-uploads/q3/sales.csv");
    assert!(told.contains(&review) && told.contains("It waits: the tenant is suspended"), "{told}");

    world.kill_dispatcher();
    rewrite(&world, |tenants| tenants[0]["suspended"] = json!(false));
    world.restart_dispatcher().await;
    let got = world.completion("acme", "q3").await.completion;
    assert_eq!((got.verdict.state(), got.review.as_str()), ("delivered", review.as_str()));
    assert_eq!(jobs.executions(&job).await.expect("answered").len(), 1);
    world.settled().await;
}

/// What `carrel reviews explain` says of an upload.
fn explained(world: &World, what: &str) -> String {
    let asked = Command::new(program()).args(["reviews", "explain", what, "--dir"]).arg(world.dir()).output();
    let asked = asked.expect("carrel starts");
    assert!(asked.status.success(), "{asked:?}");
    String::from_utf8(asked.stdout).expect("text")
}
