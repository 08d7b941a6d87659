//! How a replica gets the events it lacks: events that wait for ancestors, fetching what lies between a peer and
//! us, and the limits on both. docs/protocol.md 7. What is sent and when is decided in `replica`.

mod fetch;
mod pending;
mod tokens;

pub(crate) use fetch::{Fetch, Step};
pub(crate) use pending::{Added, Pending};
pub(crate) use tokens::Tokens;
