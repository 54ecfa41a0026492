//! How many bytes may be in memory: some for readers that wait, some for what is fetched ahead of others.
//!
//! Two purses, because what is fetched ahead is held until its reader comes, perhaps never: a waiting reader must not
//! need it back. What is asked for on demand is given back with the answer.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Limits;

/// Bytes for one permit: a semaphore counts no further than 2^29 on a small machine.
const UNIT: u64 = 1024;

/// Memory spoken for; given back when dropped.
pub(crate) type Room = OwnedSemaphorePermit;

#[derive(Debug)]
pub(crate) struct Budget {
    ahead: Arc<Semaphore>,
    demand: Arc<Semaphore>,
    demand_units: u32,
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Self {
        let demand_units = units(limits.demand_bytes as u64);
        let semaphore = |units: u32| Arc::new(Semaphore::new(units as usize));
        Self { ahead: semaphore(units(limits.ahead_bytes as u64)), demand: semaphore(demand_units), demand_units }
    }

    /// Room to fetch ahead, if there is any.
    pub(crate) fn ahead(&self, bytes: u64) -> Option<Room> {
        self.ahead.clone().try_acquire_many_owned(units(bytes)).ok()
    }

    /// Room for what a reader waits for. One that wants more than there is gets all there is.
    pub(crate) async fn demand(&self, bytes: u64) -> Room {
        let wanted = units(bytes).min(self.demand_units);
        self.demand.clone().acquire_many_owned(wanted).await.expect("nobody closes the semaphore")
    }
}
