//! Every permission there is, by itself and missing alone: what a verb needs is what its row of the table says.
//!
//! Made of the roles that the cloud knows, so that a permission without a verb, or a verb without a row, fails.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carrel_local::iam::{Iam, Principal, predefined_roles};
use google_cloud_auth::credentials::{CacheableResource, Credentials, CredentialsProvider};
use google_cloud_auth::errors::CredentialsError;
use http::{Extensions, HeaderMap};

use crate::bearer::Bearer;
use crate::calls::Caller;
use crate::iam::{A, B, Hand, PROJECT, Row, TABLE};
use crate::world::{World, bind};

/// Every permission that a role grants.
fn granted() -> BTreeSet<&'static str> {
    predefined_roles().into_values().flatten().copied().collect()
}

/// A token that is another's from one call to the next, so that one set of clients speaks for everybody.
#[derive(Debug, Clone, Default)]
struct Disguise(Arc<Mutex<String>>);

impl Disguise {
    /// Calls send this token from now on.
    fn wear(&self, token: String) {
        *self.0.lock().expect("nobody panics while it is changed") = token;
    }

    fn credentials(&self) -> Credentials {
        self.clone().into()
    }
}

impl CredentialsProvider for Disguise {
    async fn headers(&self, extensions: Extensions) -> Result<CacheableResource<HeaderMap>, CredentialsError> {
        let token = self.0.lock().expect("nobody panics while it is changed").clone();
        CredentialsProvider::headers(&Bearer(token), extensions).await
    }

    async fn universe_domain(&self) -> Option<String> {
        None
    }
}

/// A custom role and who holds it, on everything.
struct Trial {
    row: &'static Row,
    account: String,
    role: Vec<String>,
    expected: u16,
}

fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    let mut add = |row: &'static Row, role: Vec<String>, expected| {
        let account = format!("trial-{}@demo.iam.gserviceaccount.com", trials.len());
        trials.push(Trial { row, account, role, expected });
    };
    for row in TABLE {
        add(row, row.needs.iter().map(|one| (*one).to_owned()).collect(), row.allowed);
        for missing in row.needs {
            add(row, granted().iter().filter(|one| *one != missing).map(|one| (*one).to_owned()).collect(), 403);
        }
    }
    trials
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verb_needs_the_permissions_of_its_row_all_of_them_and_no_other() {
    let trials = trials();
    let world = World::with(|config| {
        for (number, trial) in trials.iter().enumerate() {
            let role = format!("roles/trial{number}");
            config.bindings.extend([PROJECT, A, B].map(|resource| bind(resource, &role, &trial.account)));
            config.roles.insert(role, trial.role.clone());
        }
    })
    .await;
    let storage = world.as_owner().storage().await;
    for bucket in [A, B] {
        storage.write_object(bucket, "x", "1").send_unbuffered().await.expect("is stored");
    }
    let seal = Iam::open(&world.config().data_dir, &BTreeMap::new(), &[]).expect("the cloud's own secret");
    let disguise = Disguise::default();
    let hand = Hand::new("trial", Caller::with(world.endpoint(), disguise.credentials())).await;
    let mut wrong = Vec::new();
    for Trial { row, account, role, expected } in &trials {
        disguise.wear(seal.mint(&Principal::service_account(account), Duration::from_secs(600)));
        let got = hand.tries(row.verb).await;
        if got != *expected {
            let held = if *expected == 403 { "all but one of its permissions".to_owned() } else { role.join(", ") };
            wrong.push(format!("{} with {held}: {got} instead of {expected}", row.verb));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    world.stop().await;
}

#[test]
fn every_permission_of_every_role_has_a_verb_in_the_table() {
    let needed: BTreeSet<&str> = TABLE.iter().flat_map(|row| row.needs).copied().collect();
    let idle: Vec<_> = granted().difference(&needed).copied().collect();
    assert!(idle.is_empty(), "{idle:?}: a role grants them and no row of the table needs them; add one for each");
    let nobodys: Vec<_> = needed.difference(&granted()).copied().collect();
    assert!(nobodys.is_empty(), "{nobodys:?}: no role grants them");
}

/// Words in quotes that look like a permission, in the code of a folder.
fn asked_for(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            asked_for(&path, found);
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("UTF-8 source");
        // Tables are named alike.
        for line in text.lines().filter(|line| !line.contains("TableDefinition")) {
            let words = line.split('"').skip(1).step_by(2).filter(|word| {
                let parts: Vec<&str> = word.split('.').collect();
                matches!(parts[..], ["storage" | "pubsub" | "run" | "iam", noun, verb] if !matches!(noun, "" | "googleapis")
                    && !verb.is_empty() && verb.chars().all(|letter| letter.is_ascii_alphabetic()))
            });
            found.extend(words.map(str::to_owned));
        }
    }
}

#[test]
fn every_permission_that_the_code_asks_for_is_granted_by_some_role() {
    let mut asked = BTreeSet::new();
    asked_for(&Path::new(env!("CARGO_MANIFEST_DIR")).join("infra/local/src"), &mut asked);
    assert!(asked.len() > 30, "the walk lost its way: {asked:?}");
    let granted = granted();
    let unknown: Vec<_> = asked.iter().filter(|one| !granted.contains(one.as_str())).collect();
    assert!(
        unknown.is_empty(),
        "{unknown:?}: no role of infra/local/src/iam/roles.rs grants them, so nobody can have them"
    );
}
