//! A disposable index of all letters in memory: whoever looks lists the bucket and reads only what has moved since.
//!
//! Owns filters and pages. Refuses to be the truth: what acts on a letter reads it from the ledger.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use carrel_schemas::campaign::LetterFilter;
use carrel_schemas::dead_letter::{DeadLetter, DeadLetterClass, DeadLetterState};
use carrel_schemas::ids::{DeadLetterId, TenantId};
use carrel_schemas::registry::Registry;
use carrel_schemas::timestamp::Timestamp;
use futures::stream::{StreamExt as _, TryStreamExt as _};
use schemars::JsonSchema;
use serde::Serialize;

use crate::flight::Flight;
use crate::ledger::{Ledger, LedgerError, Versioned};
use crate::place::Place;

/// Letters read before they are kept: each may have millions of bytes.
const BATCH: usize = 8;
/// Tenants listed at once.
const LISTS: usize = 16;

/// Whose letters; none is nobody's.
type Owner = Option<TenantId>;
type Letters = Arc<Vec<Arc<DeadLetter>>>;

/// Letters without the bytes of their messages.
#[derive(Debug)]
pub struct Index {
    ledger: Ledger,
    registry: Arc<Registry>,
    held: Mutex<HashMap<Owner, Held>>,
    /// However many look at once, an owner's letters are listed and read by one of them.
    flights: Mutex<HashMap<Owner, Arc<Flight<Letters>>>>,
    /// Held while a batch is read.
    reading: tokio::sync::Mutex<()>,
}

/// Of one owner, by their names in the control bucket.
type Held = HashMap<String, Versioned<Arc<DeadLetter>>>;

/// Some letters, the newest first.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DeadLetterPage")]
pub struct Page {
    /// The letters, without the bytes of their messages.
    pub dead_letters: Vec<DeadLetter>,
    /// The last of them, where more follow: what the next page comes after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Letters that failed alike.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "DeadLetterGroup")]
pub struct Group {
    /// Whose; `_unknown` is nobody's.
    pub tenant: String,
    /// The kind of failure.
    pub class: DeadLetterClass,
    /// The reason with ids, numbers and paths removed.
    pub fingerprint: String,
    /// What has become of them.
    pub state: DeadLetterState,
    /// How many there are.
    pub letters: usize,
    /// When the first of them was filed.
    pub oldest: Timestamp,
    /// When the last of them was filed.
    pub newest: Timestamp,
}

impl Index {
    /// An index of everybody's letters, and of nobody's.
    pub fn new(ledger: Ledger, registry: Arc<Registry>) -> Self {
        Self { ledger, registry, held: Mutex::default(), flights: Mutex::default(), reading: Default::default() }
    }

    /// Every letter that fits, the newest first.
    pub async fn find(&self, filter: &LetterFilter) -> Result<Vec<Arc<DeadLetter>>, LedgerError> {
        let owners: Vec<Owner> = match filter.tenant.as_deref() {
            Some(LetterFilter::NOBODY) => vec![None],
            Some(tenant) => TenantId::parse(tenant).ok().map(Some).into_iter().collect(),
            None => self.owners().await?,
        };
        let looks = owners.into_iter().map(|owner| async move {
            let flight = self.flight(&owner);
            flight.join(|_| self.look(owner)).await
        });
        let found: Vec<Letters> = futures::stream::iter(looks).buffered(LISTS).try_collect().await?;
        let all = found.iter().flat_map(|letters| letters.iter());
        let mut letters: Vec<_> = all.filter(|letter| filter.fits(letter)).cloned().collect();
        letters.sort_by_cached_key(|letter| place(letter));
        Ok(letters)
    }

    /// Everybody who may have letters: the registry's tenants, those that have left it, and nobody.
    async fn owners(&self) -> Result<Vec<Owner>, LedgerError> {
        let mut owners = self.ledger.owners().await?;
        owners.extend(self.registry.tenants().map(|tenant| tenant.id.clone()));
        Ok(owners.into_iter().map(Some).chain([None]).collect())
    }

    fn flight(&self, owner: &Owner) -> Arc<Flight<Letters>> {
        let mut flights = self.flights.lock().expect("no code panics while it holds the map");
        flights.entry(owner.clone()).or_default().clone()
    }

    /// Lists an owner's letters, and reads those that have moved since the last look.
    async fn look(&self, owner: Owner) -> Result<Letters, LedgerError> {
        let listed = self.ledger.letters_of(owner.as_ref()).await?;
        let names: HashSet<String> = listed.iter().map(|meta| meta.name.clone()).collect();
        let moved: Vec<_> = {
            let mut held = self.held();
            let held = held.entry(owner.clone()).or_default();
            held.retain(|name, _| names.contains(name));
            let is_known = |name: &str, at: i64| held.get(name).is_some_and(|held| held.generation == at);
            listed.into_iter().filter(|meta| !is_known(&meta.name, meta.generation)).collect()
        };
        // In batches, each kept at once: whoever gives up waiting leaves the next caller less to read.
        for some in moved.chunks(BATCH) {
            let _one_at_a_time = self.reading.lock().await;
            let read = self.ledger.read_letters(some.to_vec()).await?;
            let kept = read.into_iter().map(|(name, Versioned { value, generation })| {
                (name, Versioned { value: Arc::new(value), generation })
            });
            self.held().entry(owner.clone()).or_default().extend(kept);
        }
        let held = self.held();
        let letters = held.get(&owner).into_iter().flat_map(|held| held.values());
        Ok(Arc::new(letters.map(|held| held.value.clone()).collect()))
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Owner, Held>> {
        self.held.lock().expect("no code panics while it holds the index")
    }

    /// A letter that was looked at before, as it then was.
    fn remembered(&self, id: &DeadLetterId) -> Option<Arc<DeadLetter>> {
        let held = self.held();
        held.values().flat_map(|of| of.values()).map(|held| &held.value).find(|letter| letter.id == *id).cloned()
    }

    /// One page of what fits. Pages stay as they are while letters are filed: new ones come before the first.
    pub async fn page(
        &self,
        filter: &LetterFilter,
        after: Option<&Place<DeadLetterId>>,
        limit: usize,
    ) -> Result<Page, LedgerError> {
        Ok(page(self.find(filter).await?, after, limit))
    }

    /// The letter with this id, whosever it is.
    pub async fn owner_of(&self, id: &DeadLetterId) -> Result<Option<Arc<DeadLetter>>, LedgerError> {
        if let Some(letter) = self.remembered(id)
            && self.ledger.dead_letter(letter.tenant.as_ref(), id).await?.is_some()
        {
            return Ok(Some(letter));
        }
        Ok(self.find(&LetterFilter::default()).await?.into_iter().find(|letter| letter.id == *id))
    }

    /// What fits, grouped by how it failed; the largest group first.
    pub async fn groups(&self, filter: &LetterFilter) -> Result<Vec<Group>, LedgerError> {
        Ok(groups(&self.find(filter).await?))
    }
}

fn owner(letter: &DeadLetter) -> &str {
    letter.tenant.as_ref().map_or(LetterFilter::NOBODY, TenantId::as_str)
}

fn place(letter: &DeadLetter) -> Place<DeadLetterId> {
    Place::new(letter.filed_at, letter.id.clone())
}

fn page(all: Vec<Arc<DeadLetter>>, after: Option<&Place<DeadLetterId>>, limit: usize) -> Page {
    let from = after.map_or(0, |after| all.partition_point(|letter| place(letter) <= *after));
    let more = all.len() > from + limit;
    let dead_letters: Vec<_> = all.iter().skip(from).take(limit).map(|letter| DeadLetter::clone(letter)).collect();
    let next = dead_letters.last().filter(|_| more).map(|letter| place(letter).to_string());
    Page { dead_letters, next }
}

fn groups(letters: &[Arc<DeadLetter>]) -> Vec<Group> {
    let mut groups: BTreeMap<_, Group> = BTreeMap::new();
    for letter in letters {
        let tenant = owner(letter).to_owned();
        let (class, state, filed_at) = (letter.class, letter.state, letter.filed_at);
        let key = (tenant.clone(), class, letter.fingerprint.clone(), state);
        let group = groups.entry(key).or_insert_with(|| Group {
            tenant,
            class,
            fingerprint: letter.fingerprint.clone(),
            state,
            letters: 0,
            oldest: filed_at,
            newest: filed_at,
        });
        group.letters += 1;
        group.oldest = group.oldest.min(filed_at);
        group.newest = group.newest.max(filed_at);
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.letters));
    groups
}

#[cfg(test)]
mod tests {
    use carrel_schemas::dead_letter::DeadLetterSource;
    use carrel_schemas::ids::{BucketName, PackId, Revision};

    use super::*;

    fn letter(number: u32, filed_at: i64) -> Arc<DeadLetter> {
        let source = DeadLetterSource::Pack {
            pack: PackId::parse(format!("q{number}")).expect("id"),
            revision: Revision::FIRST,
            bucket: BucketName::parse("acme-uploads").expect("name"),
        };
        let now = Timestamp::from_unix_seconds(filed_at).expect("in range");
        let reason = format!("pack \"q{number}\" is empty");
        let tenant = TenantId::parse("acme").expect("id");
        Arc::new(crate::dead_letters::letter(Some(tenant), DeadLetterClass::EmptyPack, reason, source, now))
    }

    #[test]
    fn pages_hold_every_letter_once_though_new_ones_are_filed_between_them() {
        let mut all: Vec<_> = (0..7).map(|number| letter(number, 100 - i64::from(number))).collect();
        let (mut seen, mut after): (Vec<DeadLetterId>, Option<Place<DeadLetterId>>) = (Vec::new(), None);
        loop {
            let got = page(all.clone(), after.as_ref(), 3);
            seen.extend(got.dead_letters.iter().map(|letter| letter.id.clone()));
            let Some(next) = got.next else { break };
            after = Some(next.parse().expect("a place"));
            // A new one is filed, and the last that was seen leaves the filter, or is removed.
            all.retain(|letter| Some(&letter.id) != seen.last());
            all.insert(0, letter(u32::try_from(100 + all.len()).expect("small"), 200));
        }
        let wanted: Vec<_> = (0..7).map(|number| letter(number, 100 - i64::from(number)).id.clone()).collect();
        assert_eq!(seen, wanted);
    }

    #[test]
    fn a_place_that_is_none_is_refused() {
        let id = letter(1, 100).id.to_string();
        for wrong in [id.clone(), format!("{id}@soon"), "x@1970-01-01T00:00:00Z".to_owned()] {
            let refused = wrong.parse::<Place<DeadLetterId>>().expect_err("no place");
            assert!(refused.contains(&wrong), "{refused}");
        }
    }

    #[test]
    fn letters_that_failed_alike_are_one_group() {
        let mut all: Vec<_> = (0..4).map(|number| letter(number, i64::from(number))).collect();
        let mut other = DeadLetter::clone(&all[3]);
        other.state = DeadLetterState::Discarded;
        all[3] = Arc::new(other);
        let groups = groups(&all);
        assert_eq!(groups.iter().map(|group| group.letters).collect::<Vec<_>>(), [3, 1]);
        assert_eq!((groups[0].oldest.unix_seconds(), groups[0].newest.unix_seconds()), (0, 2));
    }
}
