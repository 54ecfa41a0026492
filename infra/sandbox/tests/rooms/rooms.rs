//! What whoever opens a room relies on: endings, handed out things, rooms in rooms.

use carrel_sandbox::Tier;
use libtest_mimic::Trial;

pub(crate) fn trials(_tier: Tier) -> Vec<Trial> {
    Vec::new()
}
