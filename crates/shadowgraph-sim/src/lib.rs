//! Deterministic simulator, adversaries and independent checkers for [`shadowgraph`].
//!
//! One seed decides everything: virtual time, the network, the disks, the crashes, the adversaries, the workload. Two runs of
//! a seed give the same trace to the byte. Signatures are real. The checkers recompute quorums, causality and the commit rule
//! from the events themselves, the naive way, and share no code with the library.
//!
//! This crate is for tests and measurements. It must not be a dependency of anything that ships.

pub mod adversary;
pub mod bench;
pub mod by_digest;
pub mod checkers;
pub mod disk;
pub mod epochs;
pub mod network;
pub mod node;
pub mod packet;
pub mod plan;
pub mod queue;
pub mod regions;
pub mod report;
pub mod rng;
pub mod run;
pub mod scenario;
pub mod shrink;
#[cfg(test)]
mod shrink_tests;
#[cfg(test)]
mod substrate_tests;
pub mod toy_ledger;
pub mod trace;
pub mod verifier;
pub mod world;
