//! Who one is, and what follows from it: metadata, tokens, default deny, restarts.

use carrel_local::iam::Principal;
use google_cloud_auth::credentials::{anonymous, mds};
use google_cloud_gax::error::rpc::Code;
use google_cloud_gax::retry_policy::NeverRetry;
use google_cloud_run_v2::client::{Executions, Jobs};
use google_cloud_run_v2::model::run_job_request::Overrides;
use google_cloud_run_v2::model::run_job_request::overrides::ContainerOverride;
use google_cloud_storage::client::Storage;
use reqwest::StatusCode;
use serde_json::Value;

use crate::bearer::Bearer;
use crate::calls::Caller;
use crate::world::{ALICE, BOB, JOB, World};

const METADATA: &str = "computeMetadata/v1/instance/service-accounts";

#[tokio::test(flavor = "multi_thread")]
async fn default_credentials_are_those_of_ones_own_metadata_server() {
    let world = World::start().await;
    for (account, status) in [(ALICE, None), (BOB, Some(403))] {
        let host = world.cloud().metadata_host(account).expect("it is configured");
        let credentials = mds::Builder::default().with_endpoint(format!("http://{host}")).build().expect("they build");
        assert_eq!(credentials.universe_domain().await.as_deref(), Some("googleapis.com"));
        let builder = Storage::builder().with_endpoint(world.endpoint()).with_credentials(credentials);
        let client = builder.build().await.expect("the client builds");
        let write = client.write_object("projects/_/buckets/bucket-a", "x", "one").set_if_generation_match(0);
        let written = write.with_retry_policy(NeverRetry).send_unbuffered().await;
        assert_eq!(written.err().and_then(|error| error.http_status_code()), status, "{account}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metadata_server_knows_one_account_and_answers_no_browser() {
    let world = World::start().await;
    let host = world.cloud().metadata_host(BOB).expect("it is configured");
    let http = reqwest::Client::new();
    let ask = |path: String| http.get(format!("http://{host}/{path}"));
    let flavoured = |path: String| ask(path).header("Metadata-Flavor", "Google");
    let ping = ask(String::new()).send().await.expect("it answers");
    assert_eq!(
        (ping.status(), &ping.headers()["metadata-flavor"]),
        (StatusCode::OK, &"Google".parse().expect("is one"))
    );
    let bare = ask(format!("{METADATA}/default/token")).send().await.expect("it answers");
    assert_eq!(bare.status(), StatusCode::FORBIDDEN);
    let proxied = flavoured(format!("{METADATA}/default/token")).header("X-Forwarded-For", "1.2.3.4").send().await;
    assert_eq!(proxied.expect("it answers").status(), StatusCode::FORBIDDEN);
    let other = flavoured(format!("{METADATA}/{ALICE}/token")).send().await.expect("it answers");
    assert_eq!(other.status(), StatusCode::NOT_FOUND);
    for (path, text) in [
        (format!("{METADATA}/default/email"), BOB),
        (format!("{METADATA}/{BOB}/email"), BOB),
        (format!("{METADATA}/default/?recursive=false"), "aliases\nemail\nscopes\ntoken\n"),
        ("computeMetadata/v1/project/project-id".to_owned(), "demo"),
        ("computeMetadata/v1/instance".to_owned(), "attributes/\nid\nregion\nservice-accounts/\nzone\n"),
        ("computeMetadata/v1/universe/universe-domain".to_owned(), "googleapis.com"),
    ] {
        let answer = flavoured(path).send().await.expect("it answers");
        assert_eq!(answer.headers()["metadata-flavor"], "Google");
        assert_eq!(answer.text().await.expect("is text"), text);
    }
    // What the libraries of Python and Go begin with.
    let asked = flavoured(format!("{METADATA}/default/?recursive=true")).send().await.expect("it answers");
    assert_eq!(asked.json::<Value>().await.expect("is JSON")["email"], BOB);
    let token =
        flavoured(format!("{METADATA}/default/token?scopes=https://www.googleapis.com/auth/pubsub")).send().await;
    assert_eq!(token.expect("it answers").json::<Value>().await.expect("is JSON")["token_type"], "Bearer");
    let number =
        flavoured("computeMetadata/v1/project/numeric-project-id".to_owned()).send().await.expect("it answers");
    assert!(number.text().await.expect("is text").parse::<u64>().is_ok());
    let region = flavoured("computeMetadata/v1/instance/region".to_owned()).send().await.expect("it answers");
    assert!(region.text().await.expect("is text").ends_with("/regions/us-central1"));
    let identity = flavoured(format!("{METADATA}/default/identity?audience=x")).send().await.expect("it answers");
    assert_eq!(identity.status(), StatusCode::NOT_FOUND);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_no_token_is_whom_the_cloud_was_told_and_otherwise_learns_how_to_tell_it() {
    let nobody = World::start().await;
    let somebody = World::with(|config| {
        config.anonymous = Some(Principal::parse(&format!("serviceAccount:{ALICE}")).expect("a principal"));
    })
    .await;
    let http = reqwest::Client::new();
    for (path, granted) in
        [("storage/v1/b/bucket-a/o", 200), ("storage/v1/b/bucket-b/o", 403), ("v1/projects/demo/topics", 403)]
    {
        let refused = http.get(format!("{}/{path}", nobody.endpoint())).send().await.expect("it answers");
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert!(refused.text().await.expect("is text").contains("--anonymous-as"), "{path}");
        let answer = http.get(format!("{}/{path}", somebody.endpoint())).send().await.expect("it answers");
        assert_eq!(answer.status().as_u16(), granted, "{path}");
    }
    // The same over gRPC, in a call and in a stream.
    for (world, code) in [(&nobody, Code::Unauthenticated), (&somebody, Code::PermissionDenied)] {
        let without = Caller::with(world.endpoint(), anonymous::Builder::new().build());
        let listed = without.topics().await.list_topics().set_project("projects/demo").send().await;
        let heard = without.inbox("projects/demo/subscriptions/inbox").await.heard().await;
        for refused in [listed.map(drop).expect_err("is refused"), heard.map(drop).expect_err("is refused")] {
            assert_eq!(refused.status().map(|status| status.code), Some(code), "{refused}");
        }
    }
    let forged = http.get(format!("{}/storage/v1/b/bucket-a/o", somebody.endpoint())).bearer_auth("ya29.other").send();
    assert_eq!(forged.await.expect("it answers").status(), StatusCode::UNAUTHORIZED);
    // A page that somebody looks at on this machine is nobody.
    let page =
        http.get(format!("{}/storage/v1/b/bucket-a/o", somebody.endpoint())).header("origin", "https://evil.example");
    assert_eq!(page.send().await.expect("it answers").status(), StatusCode::FORBIDDEN);
    // What nothing serves is no success, which is what a client of JSON takes an empty 200 for.
    let nothing = http.post(format!("{}/storage/v9/x", somebody.endpoint())).send().await.expect("it answers");
    assert_eq!(nothing.status(), StatusCode::NOT_FOUND);
    assert_eq!(nothing.json::<Value>().await.expect("is JSON")["error"]["status"], "UNIMPLEMENTED");
    nobody.stop().await;
    somebody.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_binding_grants_is_denied_in_every_service() {
    let world = World::start().await;
    let (alice, bob) = (world.token(ALICE).await, world.token(BOB).await);
    let owner = world.owner().to_owned();
    let http = reqwest::Client::new();
    for (path, of_alice) in [
        ("storage/v1/b/bucket-a/o", StatusCode::OK),
        ("storage/v1/b/bucket-b/o", StatusCode::FORBIDDEN),
        ("storage/v1/b/no-such-bucket/o", StatusCode::FORBIDDEN),
        ("v1/projects/demo/topics", StatusCode::FORBIDDEN),
        ("v1/projects/demo/topics/no-such-topic", StatusCode::FORBIDDEN),
        ("v2/projects/demo/locations/us-central1/jobs", StatusCode::FORBIDDEN),
        ("v2/projects/demo/locations/us-central1/jobs/shell/executions", StatusCode::FORBIDDEN),
        ("v2/projects/demo/locations/us-central1/jobs/no-such-job/executions", StatusCode::FORBIDDEN),
    ] {
        let ask = async |token: Option<&str>| {
            let request = http.get(format!("{}/{path}", world.endpoint()));
            let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
            request.send().await.expect("it answers").status()
        };
        assert_eq!(ask(Some(&alice)).await, of_alice, "{path}");
        assert_eq!(ask(Some(&bob)).await, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(ask(Some("ya29.local.forged.token")).await, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(ask(None).await, StatusCode::UNAUTHORIZED, "{path}");
        let of_owner = if path.contains("no-such") { StatusCode::NOT_FOUND } else { StatusCode::OK };
        assert_eq!(ask(Some(&owner)).await, of_owner, "{path}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn executions_and_tokens_survive_a_restart_and_what_ran_has_failed() {
    let mut world = World::start().await;
    let (token, owner) = (world.token(ALICE).await, world.owner().to_owned());
    let overrides =
        |script: &str| Overrides::new().set_container_overrides([ContainerOverride::new().set_args([script])]);
    let builder = Jobs::builder().with_endpoint(world.endpoint()).with_credentials(Bearer::credentials(&owner));
    let jobs = builder.build().await.expect("the client builds");
    let launched = jobs.run_job().set_name(JOB).set_overrides(overrides("exec /bin/sleep 600")).send().await;
    let metadata = launched.expect("it launches").metadata.expect("it names its execution");
    let name = metadata.to_msg::<google_cloud_run_v2::model::Execution>().expect("it is one").name;
    world.restart().await;
    let builder = Executions::builder().with_endpoint(world.endpoint()).with_credentials(Bearer::credentials(&owner));
    let executions = builder.build().await.expect("the client builds");
    let execution = executions.get_execution().set_name(name).send().await.expect("it is remembered");
    assert_eq!((execution.failed_count, execution.running_count), (1, 0));
    assert!(execution.completion_time.is_some());
    let list = reqwest::Client::new().get(format!("{}/storage/v1/b/bucket-a/o", world.endpoint())).bearer_auth(token);
    assert_eq!(list.send().await.expect("it answers").status(), StatusCode::OK);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ready_file_says_where_everything_is_and_is_nobody_elses_to_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::start().await;
    let path = world.config().ready_file.as_ref().expect("it is configured");
    let ready: Value = serde_json::from_slice(&std::fs::read(path).expect("it is written")).expect("is JSON");
    assert_eq!(ready["endpoint"], world.endpoint());
    assert_eq!(ready["owner_token"], world.owner());
    assert_eq!(ready["metadata"][ALICE].as_str(), world.cloud().metadata_host(ALICE));
    assert_eq!(std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777, 0o600);
    world.stop().await;
}
