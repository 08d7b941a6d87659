//! The index of outcomes on disk: what became of each transaction, and what proves it, for as long as this node's owner wants
//! (`[store] outcomes`), across restarts.
//!
//! It is an index, not the truth: all of it follows from the event logs. It is written behind execution, by a thread of its own,
//! and a restart writes the same again ([why](../../../../docs/adr/0009-outcomes-are-an-index-on-disk.md)). One that is lost or
//! damaged begins anew with what the start executes, is filled with what older logs say, and says from which commit on it knows.
//!
//! What must not live here: anything that the ledger or consensus depends on.

mod answers;
mod index;
mod older;
mod page;
mod queue;
mod rebuild;
mod record;
#[cfg(test)]
mod samples;
mod writer;
#[cfg(test)]
mod writer_tests;

pub use answers::Answer;
pub(crate) use answers::is_repetition;
pub(crate) use queue::Note;
pub(crate) use rebuild::start as rebuild;
pub(crate) use record::Executed;
pub(crate) use writer::OutcomeIndex;
