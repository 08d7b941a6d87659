//! The values that go into a replica and come out of it.

use bytes::Bytes;
use thiserror::Error;

use crate::checkpoint::CheckpointCertificate;
use crate::commit::Commit;
use crate::committee::Committee;
use crate::epoch::EpochEnd;
use crate::equivocation::EquivocationProof;
use crate::event::{EventRef, UnverifiedEvent, VerifiedEvent};
use crate::ids::{CommitIndex, Digest, Epoch, Round};
use crate::message::{Message, Peer, Recipient, StoreRequest};

/// What a driver tells a replica.
#[derive(Clone, Debug)]
pub enum Input {
    /// The deadline has come.
    Timeout,
    /// Events from a `Message::Events`, verified, in the message's order; empty if the message was.
    Events {
        /// Who sent them.
        from: Peer,
        /// Those that verified.
        events: Vec<VerifiedEvent>,
    },
    /// Any other message.
    Message {
        /// Who sent it.
        from: Peer,
        /// What it says.
        message: Message,
    },
    /// Well-formed events of another epoch than the replica's, which its committee cannot verify. It keeps a few of the
    /// next epoch until that begins, and tells or asks the sender how epochs ended.
    Foreign {
        /// Who sent them.
        from: Peer,
        /// All of one epoch or of several, in the message's order.
        events: Vec<UnverifiedEvent>,
    },
    /// The answer to a commit with `is_checkpoint`.
    Executed {
        /// Which commit.
        commit: CommitIndex,
        /// The chained root of all outcomes up to it.
        outcomes_root: Digest,
        /// The root of the state after it.
        state_root: Digest,
        /// Set if the commit ends the epoch: who votes in the next, whose number follows this one's. Every later commit of
        /// this epoch, output already or not, is void, and its transactions pend again. docs/protocol.md 10.1
        next: Option<Committee>,
    },
    /// The application wants a commit soon although it has no transaction.
    Wake,
}

/// What a replica asks of its driver, in order. Seats of peers are those of the epoch the replica is in at that output.
#[derive(Clone, Debug)]
pub enum Output {
    /// Append to the log; on disk before any later `Send` is carried out.
    Persist(VerifiedEvent),
    /// Send a message; it may be lost.
    Send {
        /// To whom.
        to: Recipient,
        /// What.
        message: Message,
    },
    /// Answer the peer from the log: the graph no longer holds what it asks for.
    ReadStore {
        /// Who asks.
        to: Peer,
        /// For what.
        request: StoreRequest,
    },
    /// The next commit.
    Commit(Commit),
    /// A quorum signed a checkpoint.
    Certificate(CheckpointCertificate),
    /// The epoch ended, and all outputs from here on are of the next: its events go to a log of their own, its committee
    /// verifies what comes in and numbers the peers. The old log is synced, then this is on disk, before anything of the new
    /// epoch is written or sent. docs/protocol.md 10.4
    EpochEnded(EpochEnd),
    /// Answer the peer with `Message::EpochEnd` of an epoch that ended, if the end is on disk.
    ReadEpochEnd {
        /// Who asks.
        to: Peer,
        /// Which epoch's end.
        epoch: Epoch,
    },
    /// The seat is gone with the epoch: these transactions of ours pend, and somebody else must order them.
    Returned(Vec<Bytes>),
    /// A quorum has left the epoch and nobody serves its events: take the ledger's state from a peer and begin with a later
    /// epoch. Repeated while it lasts; a driver without a snapshot may wait.
    NeedsSnapshot {
        /// The epoch whose last commit is out of reach.
        epoch: Epoch,
        /// That commit.
        end: CommitIndex,
    },
    /// A member signed two events of one round. Once per member.
    Equivocation(EquivocationProof),
    /// A peer broke the protocol; the driver may disconnect it.
    PeerFault {
        /// Who.
        peer: Peer,
        /// How.
        fault: PeerFault,
    },
    /// The replica has stopped for good: it neither signs nor sends from here on.
    Halt(HaltReason),
}

/// What a peer did that no honest one does.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PeerFault {
    /// An event's timestamp is below that of its own parent.
    #[error("event {0:?} has a timestamp below its own parent's")]
    TimestampBelowOwnParent(EventRef),
    /// The peer's share of waiting events is used up; further ones are dropped.
    #[error("too many events wait for ancestors")]
    PendingOverflow,
    /// More requests than an honest peer makes.
    #[error("too many requests")]
    RequestFlood,
    /// A request or frontier that does not fit the committee.
    #[error("a message that does not fit the committee")]
    Malformed,
}

/// Why a replica must not go on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HaltReason {
    /// A peer holds an event under our key that our log does not: the log was lost, rolled back or copied,
    /// or another process signs with the key.
    #[error(
        "event {0:?} carries our signature and is not in our log: lost log, or a second signer"
    )]
    OwnEventUnknown(EventRef),
    /// A quorum certified other roots than ours for a commit.
    #[error("commit {commit}: our roots differ from the certified ones")]
    Diverged {
        /// Which commit.
        commit: CommitIndex,
        /// What the quorum signed.
        certificate: Box<CheckpointCertificate>,
        /// Our state root.
        state_root: Digest,
        /// Our outcomes root.
        outcomes_root: Digest,
    },
}

/// Why a transaction was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SubmitError {
    /// Try again later.
    #[error("the pool is full")]
    PoolFull,
    /// It fits in no event.
    #[error("the transaction is too large")]
    TooLarge,
    /// It has no bytes.
    #[error("the transaction is empty")]
    Empty,
    /// This replica has no seat, or has halted.
    #[error("this replica makes no events")]
    NotAMember,
}

/// What a replica is doing: for operators, metrics and tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// The epoch it is in.
    pub epoch: Epoch,
    /// The commit that ends the epoch, once it is known here: executed, or certified by a quorum.
    pub epoch_end: Option<CommitIndex>,
    /// The round of the last own event (a follower: the highest round with a quorum).
    pub round: Round,
    /// The last commit.
    pub last_commit: CommitIndex,
    /// That commit's digest.
    pub last_commit_digest: Digest,
    /// The round of its leader.
    pub last_leader_round: Round,
    /// Events of this round and below no longer count.
    pub floor: Round,
    /// Events in the graph.
    pub graph_events: usize,
    /// Events that wait for ancestors.
    pub pending_events: usize,
    /// Bytes of transactions that wait.
    pub pool_bytes: usize,
    /// Transactions that wait.
    pub pool_transactions: usize,
    /// Own events with payload that are not committed yet.
    pub own_uncommitted_events: usize,
    /// Per seat, the highest round of its events.
    pub highest_rounds: Vec<Round>,
    /// How long the leaders of a round are waited for now.
    pub leader_timeout_ms: u64,
    /// Whether there is something to order.
    pub awake: bool,
    /// Whether it is behind and fetching.
    pub catching_up: bool,
    /// Whether it may sign: after a start it first asks a quorum for its own latest event.
    pub signing: bool,
    /// Whether it has stopped for good.
    pub halted: bool,
    /// The last certified checkpoint.
    pub last_certified: Option<CommitIndex>,
    /// A checkpoint of which no roots can be certified any more: members of more weight than may be faulty disagree.
    pub split_checkpoint: Option<CommitIndex>,
    /// How many seats lead in the current schedule.
    pub leaders: usize,
    /// Per seat, how far its clock is ahead of ours, as last measured; nothing is measured of our own.
    pub clock_offsets_ms: Vec<Option<i64>>,
    /// How far the weighted median of the members' clocks is ahead of ours, once a quorum of them is known.
    pub clock_median_ms: Option<i64>,
    /// What is added to our clock for what we write into events and compare them with. docs/protocol.md 2.11
    pub clock_correction_ms: i64,
}
