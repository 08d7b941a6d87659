//! ShadowGraph orders opaque transactions among members who do not trust one another.
//!
//! Every member signs events; an event cites events of the round before; who cites whom is the vote, so there are
//! no vote messages. The rules stand in `docs/protocol.md` and the code cites them by number.
//!
//! **Architecture invariant.** This crate owns no clock, socket, disk, random numbers or log. Time comes in with
//! each input, effects go out as values in [`Output`], and equal inputs give equal outputs. Only a
//! [`VerifiedEvent`] enters the graph, and only [`verify_events`] makes one of foreign bytes.
//!
//! # Four replicas order strings
//!
//! ```
//! use bytes::Bytes;
//! use shadowgraph::*;
//!
//! // Four seats of equal weight.
//! let keys: Vec<SigningKey> = (1..=4).map(|seed| SigningKey::from_bytes([seed; 32])).collect();
//! let seats = keys.iter().map(|key| Member { key: key.public(), weight: 1 }).collect();
//! let committee = Committee::new(Epoch(0), seats)?;
//! let chain_id = ChainId([7; 32]);
//! let mut now_ms = 0;
//! let mut replicas: Vec<Replica> = (0..4)
//!     .map(|seat| {
//!         let config = Config {
//!             chain_id,
//!             committee: committee.clone(),
//!             me: Some(MemberIndex(seat)),
//!             start: EpochStart::default(),
//!             parameters: Parameters::default(),
//!         };
//!         Replica::new(config, Some(keys[usize::from(seat)].clone()), now_ms)
//!     })
//!     .collect();
//!
//! // Each member is told one string.
//! for (replica, text) in replicas.iter_mut().zip(["all", "in", "one", "order"]) {
//!     replica.submit(now_ms, Bytes::from(text))?;
//! }
//!
//! // The driver carries messages, verifies events, and keeps each log and each order.
//! let mut order: Vec<Vec<String>> = vec![Vec::new(); 4];
//! let mut logs: Vec<Vec<VerifiedEvent>> = vec![Vec::new(); 4];
//! while order.iter().any(|strings| strings.len() < 4) {
//!     now_ms += 1;
//!     for at in 0..4 {
//!         replicas[at].handle(now_ms, Input::Timeout);
//!         while let Some(output) = replicas[at].poll_output() {
//!             match output {
//!                 Output::Persist(event) => logs[at].push(event),
//!                 Output::Send { to, message } => {
//!                     let wire = message.encode();
//!                     for peer in (0..4).filter(|peer| *peer != at) {
//!                         let seat = Peer::Member(MemberIndex(peer as u16));
//!                         if to != Recipient::All && to != Recipient::One(seat) {
//!                             continue;
//!                         }
//!                         let from = Peer::Member(MemberIndex(at as u16));
//!                         let input = match Message::decode(wire.clone())? {
//!                             Message::Events(events) => {
//!                                 let decoded: Result<Vec<_>, _> =
//!                                     events.into_iter().map(UnverifiedEvent::decode).collect();
//!                                 let verified = verify_events(decoded?, &chain_id, &committee);
//!                                 let events = verified.into_iter().collect::<Result<_, _>>()?;
//!                                 Input::Events { from, events }
//!                             }
//!                             message => Input::Message { from, message },
//!                         };
//!                         replicas[peer].handle(now_ms, input);
//!                     }
//!                 }
//!                 Output::Commit(commit) => {
//!                     let strings = commit.events.iter().flat_map(VerifiedEvent::transactions);
//!                     order[at].extend(strings.map(|text| String::from_utf8_lossy(&text).into_owned()));
//!                 }
//!                 _ => {}
//!             }
//!         }
//!     }
//! }
//! assert!(order.iter().all(|strings| *strings == order[0]));
//!
//! // A crash loses nothing: the log gives the same order again.
//! let (me, start) = (Some(MemberIndex(2)), EpochStart::default());
//! let config = Config { chain_id, committee, me, start, parameters: Parameters::default() };
//! let mut replica = Replica::recover(config, Some(keys[2].clone()), now_ms, logs[2].drain(..));
//! let mut again = Vec::new();
//! while let Some(output) = replica.poll_output() {
//!     if let Output::Commit(commit) = output {
//!         again.extend(commit.events.iter().flat_map(VerifiedEvent::transactions));
//!     }
//! }
//! assert_eq!(again.len(), 4);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]
#![deny(clippy::iter_over_hash_type)]

mod checkpoint;
mod clocks;
mod commit;
mod committee;
mod committer;
#[cfg(test)]
mod committer_naive_tests;
#[cfg(test)]
mod dag_text;
mod epoch;
mod epochs;
mod equivocation;
mod event;
mod graph;
mod ids;
mod index_set;
mod keys;
mod linearizer;
mod message;
mod pacing;
mod parameters;
mod pool;
mod replica;
mod schedule;
mod sync;
mod tally;
mod vote_book;

pub use checkpoint::{CertificateError, Checkpoint, CheckpointCertificate, CheckpointVote};
pub use commit::{Commit, Decision};
pub use committee::{
    COMMITTEE_MEMBERS_MAX, COMMITTEE_WEIGHT_MAX, Committee, CommitteeError, Member, MemberSet,
};
pub use epoch::{EpochEnd, EpochEndError, EpochStart};
pub use epochs::{Recovery, Replica};
pub use equivocation::{EquivocationProof, ProofError, SignedHeader};
pub use event::{
    DecodeError, EVENT_BYTES_MAX, EVENT_TRANSACTIONS_MAX, EVENT_VERSION, EVENT_VOTES_MAX,
    EventDraft, EventRef, UnverifiedEvent, VerifiedEvent, VerifyError, verify_events,
};
pub use ids::{ChainId, CommitIndex, Digest, Epoch, MemberIndex, Round};
pub use keys::{PublicKey, Signature, SigningKey};
pub use message::{
    After, Exchange, Frontier, MESSAGE_BYTES_MAX, MESSAGE_EVENTS_MAX, Message, MessageError, Peer,
    REQUEST_EVENTS_MAX, Recipient, Request, StoreRequest, SyncRequest, Wake,
};
pub use parameters::{Config, Parameters};
pub use replica::{HaltReason, Input, Output, PeerFault, ReplicaStatus, SubmitError};
