//! Google's clients, built once: Cloud Storage, Pub/Sub, Cloud Run. One retry policy, one way to read an error.
//!
//! Owns how this code base talks to the cloud; endpoints and credentials are arguments, so the same calls reach
//! Google and the loopback cloud alike. Refuses product nouns: no tenant, review or pack here.

mod call;
mod connect;
mod error;
mod folder;
mod jobs;
mod objects;
mod publish;
mod range;
mod subscribe;

pub use call::Call;
pub use connect::{ConnectError, Connector, Endpoints, install_crypto};
pub use error::CallError;
pub use folder::Folder;
pub use jobs::{Ended, Execution, Jobs, Launch, LaunchError, Limit};
pub use objects::{Body, Created, DownloadError, Downloaded, ObjectMeta, Objects, Page, ReadError, Swapped};
pub use publish::Topic;
pub use range::{Arriving, RangeError};
pub use subscribe::{Delivery, Messages, Receipt, Subscription};
