//! What a node keeps on disk: an append-only log of events for each epoch, the proofs of how epochs ended, and snapshots
//! of the ledger that follows from the events.
//!
//! A log is a directory of segments; a segment is a header and records in the order in which the
//! replica gave them out, which is causal. Every record carries checksums of its header and of its
//! body, so that a torn tail (the process or the power went away while writing) and damage (bytes that
//! were once good) are told apart: the first is cut, the second is refused and named.
//!
//! What must not live here: what an event means. The log sees a key and bytes.

mod behind;
mod epochs;
mod frame;
mod log;
mod reader;
mod record;
mod salvage;
mod sealed;
mod segment;
mod snapshot;

#[cfg(test)]
mod epochs_tests;
#[cfg(test)]
mod log_tests;
#[cfg(test)]
mod sealed_tests;
#[cfg(test)]
mod snapshot_tests;

pub use epochs::{Epochs, SealReport};
pub(crate) use frame::key_of;
pub use log::{EventLog, OpenReport, Options};
pub use reader::{LogReader, Replay};
pub use record::EventKey;
pub(crate) use salvage::{Content, Salvage};
pub use snapshot::{OpenSnapshot, SnapshotHead, Snapshots};
