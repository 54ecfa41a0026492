//! A server that takes every call and answers none: whoever calls gets an error in bounded time.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use carrel_cloud::{CallError, Connector, Endpoints, Launch, LaunchError, ReadError};
use tokio::net::TcpListener;

const JOB: &str = "projects/p/locations/l/jobs/j";

fn whole(error: &CallError) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |said, cause| format!("{said}: {cause}"))
}

#[tokio::test]
async fn a_server_that_holds_the_line_holds_no_caller() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    let server = tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            held.push(listener.accept().await.expect("a caller"));
        }
    });
    let endpoints =
        Endpoints { storage: Some(address.clone()), pubsub: Some(address.clone()), run: Some(address.clone()) };
    let connector = Connector::with_token(endpoints, "token").answer_within(Duration::from_millis(100));
    let objects = connector.objects().await.expect("a client");
    let topic = connector.topic("projects/p/topics/t").await.expect("a client");
    let jobs = connector.jobs().await.expect("a client");

    let launch = Launch { args: Vec::new(), env: Vec::new() };
    let Err(LaunchError::InDoubt(launch)) = jobs.run(JOB, launch).await else { panic!("it may run") };
    let Err(ReadError::Call(read)) = objects.get("bucket", "name", 1).await else { panic!("no answer") };
    let errors = [
        launch,
        objects.create("bucket", "name", Bytes::from_static(b"x"), "text/plain").await.expect_err("no answer"),
        objects.swap("bucket", "name", 1, Bytes::from_static(b"x"), "text/plain").await.expect_err("no answer"),
        objects.put("bucket", "name", Bytes::from_static(b"x"), "text/plain").await.expect_err("no answer"),
        read,
        objects.list("bucket", "").await.expect_err("no answer"),
        objects.delete("bucket", "name", None).await.expect_err("no answer"),
        topic.publish(Bytes::new(), BTreeMap::new()).await.expect_err("no answer"),
        jobs.executions(JOB).await.expect_err("no answer"),
        jobs.execution("projects/p/locations/l/jobs/j/executions/e").await.expect_err("no answer"),
    ];
    for error in errors {
        let said = whole(&error);
        assert!(said.contains("no answer within 100ms"), "{said}");
    }
    server.abort();
}
