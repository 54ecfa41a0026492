//! What every method that speaks to the cloud returns.

use std::pin::Pin;

/// A call that is made when it is awaited. Boxed here, so that the state machines of Google's clients, tens of
/// thousands of functions, are compiled once and not again in every crate that awaits one; beside a round trip to the
/// cloud one allocation is nothing.
pub type Call<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
