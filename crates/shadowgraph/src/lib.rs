//! ShadowGraph orders opaque transactions among members who do not trust one another.
//!
//! Every member signs events; an event cites events of the round before; who cites whom is the vote, so there are
//! no vote messages. The rules stand in `docs/protocol.md` and the code cites them by number.
//!
//! **Architecture invariant.** This crate owns no clock, socket, disk, random numbers or log. Time comes in with
//! each input, effects go out as values in [`Output`], and equal inputs give equal outputs. Only a
//! [`VerifiedEvent`] enters the graph, and only [`verify_events`] makes one of foreign bytes.

#![forbid(unsafe_code)]

mod checkpoint;
mod commit;
mod committee;
mod equivocation;
mod event;
mod ids;
mod keys;
mod message;
mod parameters;
mod replica;

pub use checkpoint::{CertificateError, Checkpoint, CheckpointCertificate, CheckpointVote};
pub use commit::{Commit, Decision};
pub use committee::{
    COMMITTEE_MEMBERS_MAX, COMMITTEE_WEIGHT_MAX, Committee, CommitteeError, Member, MemberSet,
};
pub use equivocation::{EquivocationProof, ProofError, SignedHeader};
pub use event::{
    DecodeError, EVENT_BYTES_MAX, EVENT_TRANSACTIONS_MAX, EVENT_VERSION, EVENT_VOTES_MAX,
    EventDraft, EventRef, UnverifiedEvent, VerifiedEvent, VerifyError, verify_events,
};
pub use ids::{ChainId, CommitIndex, Digest, Epoch, MemberIndex, Round};
pub use keys::{PublicKey, Signature, SigningKey};
pub use message::{
    After, Frontier, MESSAGE_BYTES_MAX, MESSAGE_EVENTS_MAX, Message, MessageError, Peer,
    REQUEST_EVENTS_MAX, Recipient, StoreRequest, SyncRequest, Wake,
};
pub use parameters::{Config, Parameters};
pub use replica::{HaltReason, Input, Output, PeerFault, Replica, ReplicaStatus, SubmitError};
