//! `docker-compose.yml` and the image recipes, checked without Docker: the files parse, what they name exists, what runs
//! in a container of ours is an ordinary uid without capabilities, and the services do their work as plain processes.

mod processes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use carrel_schemas::registry::{Registry, RegistryFile};
use serde_yaml_ng::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("read {path}: {error}"))
}

/// The services by name.
fn services() -> Vec<(String, Value)> {
    let file: Value = serde_yaml_ng::from_str(&read("docker-compose.yml")).expect("docker-compose.yml is YAML");
    let services = file["services"].as_mapping().expect("services").clone();
    services.into_iter().map(|(name, service)| (name.as_str().expect("a name").to_owned(), service)).collect()
}

fn strings(list: &Value) -> Vec<String> {
    let items = list.as_sequence().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(|item| item.as_str().expect("a string").to_owned()).collect()
}

fn cloud() -> serde_json::Value {
    serde_json::from_str(&read("infra/images/compose/cloud.json")).expect("the cloud's configuration is JSON")
}

fn list(of: &serde_json::Value) -> Vec<serde_json::Value> {
    of.as_array().cloned().unwrap_or_default()
}

/// Ours are those that are built here.
fn ours() -> Vec<(String, Value)> {
    services().into_iter().filter(|(_, service)| !service["build"].is_null()).collect()
}

#[test]
fn an_ordinary_up_starts_only_what_is_built_here() {
    let names: Vec<String> = ours().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["cloud", "dispatcher"]);
    for (name, service) in services() {
        let profiles = strings(&service["profiles"]);
        assert_eq!(profiles.is_empty(), names.contains(&name), "{name} is in profiles {profiles:?}");
    }
}

#[test]
fn our_services_have_a_recipe_no_capability_and_files_that_exist() {
    for (name, service) in ours() {
        let recipe = service["build"]["dockerfile"].as_str().expect("a dockerfile");
        assert!(root().join(recipe).is_file(), "{name}: {recipe} is missing");
        assert_eq!(service["image"].as_str(), Some(format!("carrel/{name}").as_str()));
        assert_eq!(strings(&service["cap_drop"]), ["ALL"], "{name} keeps capabilities");
        let relaxed = strings(&service["security_opt"]).iter().any(|option| option.ends_with("=unconfined"));
        assert_eq!(relaxed, name == "cloud", "only who builds rooms needs what Docker's profiles refuse: {name}");
        for port in strings(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name} publishes {port} beyond this machine");
        }
        for volume in strings(&service["volumes"]).iter().filter(|volume| volume.starts_with("./")) {
            let (from, to) = volume[2..].split_once(':').expect("from:to");
            assert!(root().join(from).exists(), "{name}: {from} is missing");
            assert!(to.ends_with(":ro"), "{name}: {from} can be written to from the container");
        }
    }
}

#[test]
fn images_run_as_nobody_and_carry_no_toolchain() {
    let mut seen = BTreeSet::new();
    for entry in std::fs::read_dir(root().join("infra/images")).expect("infra/images") {
        let path = entry.expect("a readable entry").path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".Dockerfile")) else { continue };
        let recipe = std::fs::read_to_string(&path).expect("UTF-8");
        let (build, last) = recipe.rsplit_once("\nFROM ").expect("two stages");
        assert!(build.contains("--locked"), "{name} may build other versions than were tested");
        assert!(!last.starts_with("rust"), "{name} ships the toolchain");
        assert!(last.contains(":nonroot") || last.contains("\nUSER 65532:65532\n"), "{name} runs as root");
        assert!(last.contains("\nENTRYPOINT [\"/usr/local/bin/"), "{name} has no entry point of ours");
        seen.insert(name.to_owned());
    }
    assert_eq!(seen, ["analyst", "cloud", "dispatcher", "worker"].map(str::to_owned).into());
}

#[test]
fn no_demo_tenant_is_bound_to_anothers_bucket() {
    let registry: RegistryFile =
        serde_json::from_str(&read("infra/images/compose/registry.json")).expect("a registry file");
    let registry = Registry::check(registry).expect("tenants that share nothing");
    let cloud = cloud();
    let bindings = list(&cloud["bindings"]);
    for tenant in registry.tenants() {
        let allowed = [tenant.service_account.as_str(), "dispatcher@carrel-local.iam.gserviceaccount.com"]
            .map(|account| format!("serviceAccount:{account}"));
        for bucket in [&tenant.uploads_bucket, &tenant.outputs_bucket] {
            let resource = format!("projects/_/buckets/{bucket}");
            let mut members =
                bindings.iter().filter(|one| one["resource"] == *resource).flat_map(|one| list(&one["members"]));
            assert!(members.clone().count() >= 2, "{bucket} is bound to nobody");
            assert!(
                members.all(|member| allowed.contains(&member.as_str().unwrap_or_default().to_owned())),
                "{bucket}"
            );
        }
        let job = list(&cloud["jobs"]).into_iter().find(|job| {
            let name = job["name"].as_str().unwrap_or_default();
            tenant.job.as_str() == format!("projects/carrel-local/locations/us-central1/jobs/{name}")
        });
        let job = job.unwrap_or_else(|| panic!("tenant {} has no job", tenant.id));
        assert_eq!(job["service_account"], *tenant.service_account);
        assert_eq!(job["env"]["CARREL_JOB"], *tenant.job.as_str());
        assert_eq!(job["env"]["CARREL_UPLOADS_BUCKET"], *tenant.uploads_bucket.as_str());
        assert_eq!(job["env"]["CARREL_OUTPUTS_BUCKET"], *tenant.outputs_bucket.as_str());
    }
    let anywhere = |one: &serde_json::Value| one["resource"] == "projects/carrel-local";
    let broad: Vec<_> = bindings.iter().filter(|one| anywhere(one)).flat_map(|one| list(&one["members"])).collect();
    assert_eq!(
        broad,
        ["serviceAccount:dispatcher@carrel-local.iam.gserviceaccount.com"],
        "held by a tenant everywhere"
    );
}

#[test]
fn the_dispatcher_is_told_all_it_needs() {
    let (_, service) = ours().into_iter().find(|(name, _)| name == "dispatcher").expect("the service");
    let registry = root().join("infra/images/compose/registry.json").display().to_string();
    let lookup = |name: &str| match name {
        "CARREL_REGISTRY" => Some(registry.clone()),
        _ => service["environment"][name].as_str().map(str::to_owned),
    };
    let config = carrel_dispatcher::config::Config::read(&lookup).expect("a complete environment");
    let cloud = cloud();
    assert_eq!(cloud["project"], *config.project);
    let control = config.control_bucket.as_str();
    assert!(list(&cloud["buckets"]).iter().any(|bucket| bucket["name"] == control), "{control} is not made");
    assert_eq!(list(&cloud["metadata_servers"])[0]["listen"], "0.0.0.0:8087");
    assert_eq!(service["environment"]["GCE_METADATA_HOST"], "cloud:8087");
}

#[test]
fn tasks_are_divided_by_rooms() {
    assert_eq!(cloud()["isolation"], "namespaces");
    for job in list(&cloud()["jobs"]) {
        assert!(job["env"].get("CARREL_ISOLATION").is_none(), "absent is the room: {job}");
    }
}

#[test]
fn every_job_is_told_all_it_needs() {
    for job in list(&cloud()["jobs"]) {
        let mut variables: BTreeMap<String, String> =
            serde_json::from_value(job["env"].clone()).expect("variables are text");
        let name = job["name"].as_str().expect("a name");
        variables.insert("CLOUD_RUN_JOB".into(), name.into());
        variables.insert("CLOUD_RUN_EXECUTION".into(), format!("{name}-x1"));
        let review = format!("rv_{}", "0".repeat(32));
        let args = ["--review", &review, "--epoch", "1", "--attempt", "1"].map(str::to_owned);
        let config =
            carrel_worker::Config::parse(args, &variables, "/tmp".into(), Vec::new()).expect("a complete environment");
        assert_eq!(config.execution.job().as_str(), variables["CARREL_JOB"]);
    }
}
