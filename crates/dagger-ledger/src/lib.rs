//! The DAGGER ledger: everything that the cloud decides, decided here, deterministically.
//!
//! The same commits give the same outcomes, the same placements and the same state root on every node and platform.
//!
//! **Architecture invariant.** This crate reads no clock, socket, disk or source of randomness and never logs: time and entropy arrive in
//! [`CommitInput`], effects leave in [`CommitOutput`]. Arithmetic is on integers and checked; nothing that decides iterates over a hash map.

#![deny(clippy::iter_over_hash_type)]

mod action;
mod action_check;
mod code;
mod commit;
mod explain;
mod genesis;
mod hash;
mod ids;
pub mod json;
mod ledger;
mod manifest;
mod names;
mod parameters;
mod proof;
mod records;
mod signature;
mod transaction;

pub use action::*;
pub use action_check::*;
pub use code::Code;
pub use commit::*;
pub use explain::*;
pub use genesis::*;
pub use ids::*;
pub use ledger::{
    BadStateKey, FrozenLedger, Ledger, NEWEST_PROTOCOL_VERSION, RestoreError, StateKey,
};
pub use manifest::*;
pub use names::{LABEL_BYTES_MAX, check_key, check_label, check_ssh_key, check_text};
pub use parameters::*;
pub use proof::*;
pub use records::*;
pub use transaction::*;
