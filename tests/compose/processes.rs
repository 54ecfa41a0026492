//! Both services of ours, started as plain processes with the very commands and settings of the file.
//!
//! What a container would give is put in place by hand: its paths become a temporary directory, its ports free ones,
//! its programs the one under test, which is all of them.

use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use bytes::Bytes;
use carrel::client::Api;
use carrel_cloud::{Connector, Endpoints};
use serde_json::Value;
use tempfile::TempDir;

use crate::{ours, read, strings};

const AT_LAST: Duration = Duration::from_secs(60);

/// A process that ends with the test.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        self.0.kill().expect("it is ours");
        self.0.wait().expect("it is ours");
    }
}

/// What the containers' paths, ports and host names are on this machine.
struct Stage {
    dir: TempDir,
    replaced: Vec<(String, String)>,
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.local_addr().expect("bound").port()
}

impl Stage {
    fn set() -> Self {
        let dir = TempDir::with_prefix("carrel-compose-").expect("a temporary directory");
        let [cloud, metadata, api] = [free_port(), free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
        let path = |name: &str| dir.path().join(name).display().to_string();
        let program = env!("CARGO_BIN_EXE_carrel");
        let internal = |name: &str| format!(r#""{program}", "internal", "{name}""#);
        let escaped = |name: &str| internal(name).replace('"', r#"\""#);
        let replaced = vec![
            ("0.0.0.0:8085".to_owned(), cloud.clone()),
            ("127.0.0.1:8085".to_owned(), cloud.clone()),
            ("cloud:8085".to_owned(), cloud),
            ("0.0.0.0:8087".to_owned(), metadata.clone()),
            ("cloud:8087".to_owned(), metadata),
            ("0.0.0.0:8080".to_owned(), api),
            ("/var/lib/carrel".to_owned(), path("data")),
            ("/etc/carrel".to_owned(), path("etc")),
            (r#"\"/usr/local/bin/analyst\""#.to_owned(), escaped("analyst")),
            (r#""/usr/local/bin/worker""#.to_owned(), internal("worker")),
        ];
        let stage = Self { dir, replaced };
        std::fs::create_dir_all(stage.path("etc")).expect("a directory");
        std::fs::create_dir_all(stage.path("data")).expect("a directory");
        for name in ["cloud.json", "registry.json"] {
            let text = stage.here(&read(&format!("infra/images/compose/{name}")));
            std::fs::write(stage.path("etc").join(name), text).expect("written");
        }
        stage
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn here(&self, text: &str) -> String {
        self.replaced.iter().fold(text.to_owned(), |text, (there, here)| text.replace(there, here))
    }

    /// Starts a service as its image and the compose file say.
    fn start(&self, name: &str) -> Service {
        let (_, service) = ours().into_iter().find(|(found, _)| found == name).expect("a service of ours");
        let recipe = read(service["build"]["dockerfile"].as_str().expect("a dockerfile"));
        let entry = recipe.lines().find_map(|line| line.strip_prefix("ENTRYPOINT ")).expect("an entry point");
        let entry: Vec<String> = serde_json::from_str(entry).expect("its exec form");
        let mut command = Command::new(env!("CARGO_BIN_EXE_carrel"));
        match entry.first().and_then(|program| Path::new(program).file_name()?.to_str()) {
            Some("carrel") => {}
            Some(part) => {
                command.args(["internal", part]);
            }
            None => panic!("{name} has no program"),
        }
        command.args(&entry[1..]).args(strings(&service["command"]).iter().map(|arg| self.here(arg)));
        let log = std::fs::File::create(self.path(&format!("{name}.log"))).expect("a log");
        command.env_clear().env("PATH", "/usr/bin:/bin").stdout(log.try_clone().expect("a log")).stderr(log);
        for (variable, value) in service["environment"].as_mapping().into_iter().flatten() {
            // One without a value comes from the caller's shell, where it is not set.
            if let (Some(variable), Some(value)) = (variable.as_str(), value.as_str()) {
                command.env(variable, self.here(value));
            }
        }
        Service(command.spawn().expect("it starts"))
    }
}

async fn eventually<T>(what: &str, stage: &Stage, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let search = async {
        let mut turn = tokio::time::interval(Duration::from_millis(20));
        loop {
            turn.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    match tokio::time::timeout(AT_LAST, search).await {
        Ok(found) => found,
        Err(_) => {
            let logs = ["cloud", "dispatcher"].map(|name| std::fs::read_to_string(stage.path(&format!("{name}.log"))));
            panic!("never saw {what}; the logs: {logs:#?}")
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_services_commands_review_a_pack_as_plain_processes() {
    let stage = Stage::set();
    let _cloud = stage.start("cloud");
    let ready: Value = eventually("the cloud's ready file", &stage, async || {
        serde_json::from_slice(&std::fs::read(stage.path("data/ready.json")).ok()?).ok()
    })
    .await;
    let _dispatcher = stage.start("dispatcher");
    let endpoint = ready["endpoint"].as_str().expect("an endpoint").to_owned();
    let owner = ready["owner_token"].as_str().expect("a token");
    let endpoints = Endpoints { storage: Some(endpoint.clone()), pubsub: Some(endpoint.clone()), run: Some(endpoint) };
    let objects = Connector::with_token(endpoints, owner).objects().await.expect("a client");
    for (name, body) in [("q3/sales.csv", "sku,net_sales\n1,10.50\n2,20.25\n"), ("q3/_COMPLETE", "")] {
        let wrote = objects.put("acme-foods-uploads", name, Bytes::from(body), "text/csv").await;
        wrote.unwrap_or_else(|error| panic!("upload {name}: {error:?}"));
    }
    let delivered = eventually("the deck", &stage, async || {
        let listed = objects.list("acme-foods-outputs", "reviews/").await.expect("the bucket answers");
        listed.into_iter().find(|object| object.name.ends_with("/deck.html"))
    })
    .await;
    assert!(delivered.size > 1000, "{delivered:?}");

    let api = stage.here("http://0.0.0.0:8080");
    // The token that docker-compose.yml tells its reader to use.
    let asked = Api::new(&api, "compose-operator").expect("a client").reviews("acme-foods").await;
    assert_eq!(asked.expect("an operator").len(), 1);
    let refused = Api::new(&api, "nobody's token").expect("a client").get("/v1/tenants/acme-foods/reviews").await;
    let refused = refused.expect_err("no token of the registry").to_string();
    assert!(refused.contains("401"), "{refused}");
}
