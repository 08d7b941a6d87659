//! The records of the state: what the ledger knows of each object, as the API shows it and as the state root hashes it.

mod accounts;
mod disputes;
mod later;
mod machines;
mod operators;
mod vms;

pub use accounts::*;
pub use disputes::*;
pub use machines::*;
pub use operators::*;
pub use vms::*;
