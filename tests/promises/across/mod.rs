//! One tenant's code against another's things, through every surface it can reach, live against a whole fleet.
//!
//! | file | who attacks |
//! |---|---|
//! | `storage`, `pubsub`, `run` | a worker that was taken over: whoever holds its token, on the wire |
//! | `decided` | the same, by what it writes where it may: claims, outcomes, wake-ups |
//! | `api` | a client with another tenant's token, or none |
//! | `room` | a task that was taken over, in its room |
//!
//! Every attack is made twice, on what is another's and on what nobody has, and must be answered in the same words: a
//! refusal that differs tells what exists. Beside it the same call is made where it is allowed, so that an attack which
//! fails for a reason of its own is seen. Which role may do what is the table of `tests/conformance`.

mod api;
mod decided;
mod pubsub;
mod room;
mod run;
mod storage;
mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use carrel::plan;
use carrel_local::iam::{Iam, Principal};
use serde_json::json;

use crate::world::{World, tenant};
use wire::{Call, Hand};

/// Who attacks.
const ATTACKER: &str = "acme";
/// Whose things are attacked.
const VICTIM: &str = "bolt";

/// The two tenants; `limits` are the attacker's.
fn two(limits: serde_json::Value) -> Vec<serde_json::Value> {
    vec![tenant(ATTACKER, json!({ "limits": limits })), tenant(VICTIM, json!({}))]
}

/// What a call is about: a bucket and an object, a topic and a subscription, a job and an execution.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Thing {
    of: String,
    item: String,
}

impl Thing {
    fn new(of: impl Into<String>, item: impl Into<String>) -> Self {
        Self { of: of.into(), item: item.into() }
    }

    /// What was answered about it, with its names taken out.
    fn nameless(&self, text: &str) -> String {
        let encoded = self.item.replace('/', "%2F");
        text.replace(&self.item, "ITEM").replace(&encoded, "ITEM").replace(&self.of, "OF")
    }
}

/// Where a call that is refused to the attacker goes through.
#[derive(Clone, Copy)]
enum Allowed {
    /// On the attacker's own thing: the answer's code.
    Own(u16),
    /// Not even there: the attacker is refused, and who may do everything is answered with this code.
    Owner(u16),
}

/// One call, the code it is refused with, and where it is allowed.
#[derive(Clone, Copy)]
struct Attack(&'static str, fn(&Thing) -> Call, u16, Allowed);

/// Who tries what on whose.
struct Stage<'a> {
    attacker: &'a Hand,
    owner: &'a Hand,
    /// The attacker's own.
    own: Thing,
    theirs: Vec<Thing>,
    nobodys: Thing,
}

impl Stage<'_> {
    /// Makes every attack, then each where it is allowed, in order.
    async fn play(&self, attacks: &[Attack]) {
        let mut wrong = Vec::new();
        for Attack(what, call, refused, allowed) in attacks {
            let nothing = self.attacker.call(call(&self.nobodys)).await;
            let of_nothing = (nothing.code, self.nobodys.nameless(&nothing.text));
            for thing in &self.theirs {
                let got = self.attacker.call(call(thing)).await;
                let told = (got.code, thing.nameless(&got.text));
                if got.code != *refused || told != of_nothing {
                    wrong.push(format!("{what} {thing:?}: {told:?} instead of {refused}, of nothing {of_nothing:?}"));
                }
            }
            let (who, code) = match allowed {
                Allowed::Own(code) => (self.attacker, *code),
                Allowed::Owner(code) => {
                    let own = self.attacker.call(call(&self.own)).await;
                    if own.code != *refused {
                        wrong.push(format!("{what} its own {:?}: {own:?} instead of {refused}", self.own));
                    }
                    (self.owner, *code)
                }
            };
            let control = who.call(call(&self.own)).await;
            if control.code != code {
                wrong.push(format!("{what} {:?} where it is allowed: {control:?} instead of {code}", self.own));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

/// The cloud, for whoever has taken over the worker of a tenant: with the token that its metadata server gives.
fn worker(world: &World, tenant: &str) -> Hand {
    Hand::new(&world.fleet.address().cloud, &token(world, &format!("worker-{tenant}")))
}

/// The cloud, for its owner.
fn owner(world: &World) -> Hand {
    Hand::new(&world.fleet.address().cloud, &world.fleet.address().owner_token)
}

/// A token of a service account of the fleet's project.
fn token(world: &World, account: &str) -> String {
    let iam = Iam::open(&world.dir().join("cloud"), &BTreeMap::new(), &[]).expect("the cloud's own secret");
    let email = format!("{account}@{}.iam.gserviceaccount.com", plan::PROJECT);
    iam.mint(&Principal::service_account(&email), Duration::from_secs(3600))
}

/// Every object of the victim's, and of the ledger's on it, by generation.
async fn belongings(world: &World) -> Vec<(String, i64)> {
    let mut found = Vec::new();
    for (bucket, prefix) in [
        (format!("{VICTIM}-uploads"), String::new()),
        (format!("{VICTIM}-outputs"), String::new()),
        (plan::CONTROL_BUCKET.to_owned(), format!("tenants/{VICTIM}/reviews/")),
        (plan::CONTROL_BUCKET.to_owned(), format!("tenants/{VICTIM}/seals/")),
    ] {
        let listed = world.objects.list(&bucket, &prefix).await.expect("the bucket answers");
        found.extend(listed.into_iter().map(|object| (format!("{bucket}/{}", object.name), object.generation)));
    }
    found
}
