//! Where a thing stands in a list of the newest first, as the API's `next` names it. It holds all that tells, so that the
//! thing itself may be gone.

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;

use carrel_schemas::timestamp::Timestamp;

/// When the thing began, and which it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place<Id>(Reverse<Timestamp>, Id);

impl<Id> Place<Id> {
    /// That of a thing of this time.
    pub fn new(at: Timestamp, id: Id) -> Self {
        Self(Reverse(at), id)
    }
}

impl<Id: fmt::Display> fmt::Display for Place<Id> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Reverse(at), id) = self;
        write!(f, "{id}@{at}")
    }
}

impl<Id: FromStr> FromStr for Place<Id> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("page {text:?} is not the `next` of a page before");
        let (id, at) = text.split_once('@').ok_or_else(wrong)?;
        let at = Timestamp::parse(at).map_err(|_| wrong())?;
        Ok(Self::new(at, id.parse().map_err(|_| wrong())?))
    }
}
