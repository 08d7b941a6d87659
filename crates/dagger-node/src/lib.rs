//! The DAGGER daemon: everything around the pure cores that touches a clock, a socket or a disk.
//!
//! One process is a consensus member, a machine that runs VMs, or both. [`node::run`] composes the
//! pieces; [`NodeHandle`] is what the HTTP API, the host agent and the tunnel see of a running node.
//!
//! What must not live here: rules. Ordering is `shadowgraph`, state is `dagger-ledger`, QEMU is
//! `dagger-vmm`; this crate moves bytes between them, in the order that durability asks for.

mod accuse;
mod alarms;
pub mod api;
pub mod attest;
mod catchup;
pub mod clock;
pub mod config;
mod consensus_keys;
mod copies;
#[cfg(test)]
mod copies_tests;
mod cores;
pub mod data_dir;
#[cfg(test)]
mod data_dir_tests;
mod digest_map;
mod disputes;
mod doctor;
pub mod error;
pub mod executor;
mod faults;
mod feed;
pub mod handle;
mod heal;
pub mod heartbeats;
pub mod host;
mod identity;
pub mod images;
mod intake;
mod kept_commits;
pub mod keys;
mod membership;
pub mod metrics;
pub mod node;
pub mod opaque;
mod outcomes;
mod parking;
mod peers;
mod receipts;
pub mod replay;
pub mod replica;
mod rules;
mod sealing;
mod stages;
mod statement;
mod status;
pub mod store;
pub mod transactions;
pub mod transport;
pub mod tunnel;

pub use config::NodeConfig;
pub use error::{NodeError, SubmitError};
pub use handle::{Accepted, CommitRecord, NodeHandle};
pub use outcomes::Answer;
