//! What cannot be read is put aside: it moves out of its table into one of its service's, under table and key.
//!
//! Owns the move and its name in the log; what else follows is said by each service. What lies aside is kept for whoever
//! can make something of it: nothing reads, replaces or removes it.

use std::fmt::Display;

use redb::{Key, ReadableTable as _, Table, TableDefinition, WriteTransaction};
use serde::de::DeserializeOwned;

use crate::store::StoreError;

/// Table and key of an unreadable record, and a number where one lay there before, to what it held.
pub(crate) type Aside = TableDefinition<'static, &'static str, &'static [u8]>;

/// Whether this is such a record.
pub(crate) fn is_json<R: DeserializeOwned>(bytes: &[u8]) -> Result<(), serde_json::Error> {
    serde_json::from_slice::<R>(bytes).map(drop)
}

/// Puts aside every record of a table that cannot be read; the keys of those.
pub(crate) fn set_unreadable_aside<K: Key + 'static, E: Display>(
    txn: &WriteTransaction,
    aside: Aside,
    definition: TableDefinition<'static, K, &'static [u8]>,
    read: impl Fn(&[u8]) -> Result<(), E>,
    named: impl Fn(K::SelfType<'_>) -> String,
) -> Result<Vec<String>, StoreError> {
    let mut aside = txn.open_table(aside)?;
    let mut table = txn.open_table(definition)?;
    let table_name = redb::TableHandle::name(&definition);
    let mut unreadable = Vec::new();
    for entry in table.iter()? {
        let (key, bytes) = entry?;
        if let Err(error) = read(bytes.value()) {
            let key = named(key.value());
            put(&mut aside, &format!("{table_name}/{key}"), bytes.value(), error)?;
            unreadable.push(key);
        }
    }
    if !unreadable.is_empty() {
        table.retain(|_, bytes| read(bytes).is_ok())?;
    }
    Ok(unreadable)
}

/// Keeps what was found under a name, beside what lay there before. No name that is looked up there holds the sign before
/// the number.
pub(crate) fn put(
    aside: &mut Table<'_, &'static str, &'static [u8]>,
    name: &str,
    bytes: &[u8],
    why: impl Display,
) -> Result<(), StoreError> {
    tracing::error!(record = name, error = %why, "a record cannot be read and is put aside");
    let mut place = name.to_owned();
    let mut number = 0;
    while aside.get(place.as_str())?.is_some() {
        number += 1;
        place = format!("{name}#{number}");
    }
    aside.insert(place.as_str(), bytes)?;
    Ok(())
}
