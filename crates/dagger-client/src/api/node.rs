//! What one node says of itself.

use super::Reason;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Answer to `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeStatus {
    /// Version of the daemon.
    pub version: String,
    /// Name of the network, from its genesis file.
    pub network: String,
    /// Digest of the genesis file, hex; every signature is bound to it.
    pub chain_id: String,
    /// Name of the node: that of the operator whose seat it holds, else the start of its key.
    pub name: String,
    /// The node's public key, hex.
    pub node_key: String,
    /// Whether it takes part, and if not, why.
    pub state: NodeState,
    /// The node's clock.
    pub now_ms: u64,
    /// When the process started.
    pub started_at_ms: u64,
    /// Its seat, if it is a member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seat: Option<u16>,
    /// Name of its machine on the ledger, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// What holds the VMs that it runs; absent if it runs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guests: Option<GuestsView>,
    /// State of consensus.
    pub consensus: ConsensusStatus,
    /// State of execution.
    pub ledger: LedgerStatus,
    /// What it holds of older outcomes; absent while it holds the newest ones in memory only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcomes: Option<OutcomesStatus>,
    /// The last checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointView>,
    /// The other nodes that it knows.
    pub peers: Vec<PeerView>,
    /// What keeps it from doing its whole job; empty when all is well.
    pub problems: Vec<Reason>,
}

/// Whether a node takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Reading its log, or too few peers are connected for a quorum.
    Starting,
    /// Behind the others and fetching what it missed.
    CatchingUp,
    /// Committing with the others.
    Ready,
    /// Stopped for good; `problems` says why.
    Halted,
}

/// What holds the VMs on a node's host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GuestsView {
    /// What a control group bounds for each of them: some of `memory`, `cpu`, `pids`.
    pub bounds: Vec<String>,
    /// Where the groups are, or why there are none and what to do.
    pub text: String,
}

/// State of consensus on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConsensusStatus {
    /// Epoch of the committee.
    pub epoch: u64,
    /// Highest round this node has entered.
    pub round: u64,
    /// Last commit decided, 0 for none.
    pub commit: u64,
    /// Weight that a decision needs.
    pub quorum_weight: u64,
    /// Weight of the whole committee.
    pub total_weight: u64,
    /// Whether rounds advance at full speed (there is something to order).
    pub awake: bool,
    /// How long this node waits for a leader.
    pub leader_timeout_ms: u64,
    /// Transactions waiting to be proposed, in bytes.
    pub pool_bytes: u64,
    /// Events held whose ancestors are missing.
    pub pending_events: u64,
    /// The seats.
    pub members: Vec<MemberView>,
}

/// One seat as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberView {
    /// The seat.
    pub index: u16,
    /// Name of the operator that holds it.
    pub name: String,
    /// Votes of the seat.
    pub weight: u64,
    /// Highest round of which this node holds an event of it.
    pub round: u64,
}

/// State of execution on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LedgerStatus {
    /// Last commit executed, 0 for none.
    pub commit: u64,
    /// Ledger time after it.
    pub time_ms: u64,
    /// Transactions executed by this process since it started, those of its log included.
    pub transactions: u64,
}

/// The index of outcomes on a node's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutcomesStatus {
    /// The outcomes of all commits from this one on are held.
    pub from_commit: u64,
    /// Transactions held.
    pub transactions: u64,
    /// Bytes on disk, as of a few seconds ago.
    pub disk_bytes: u64,
    /// While older ones are read from the node's logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuild: Option<OutcomesRebuild>,
}

/// How far a node has read its logs for outcomes that its index lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutcomesRebuild {
    /// The first commit that they can give.
    pub from_commit: u64,
    /// The commit that was executed again last.
    pub at_commit: u64,
    /// The last commit that is missing.
    pub to_commit: u64,
}

/// A checkpoint as this node computed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckpointView {
    /// The commit after which it was taken.
    pub commit: u64,
    /// Chained digest of that commit, hex.
    pub commit_digest: String,
    /// Root of the ledger's state, hex.
    pub state_root: String,
    /// Root of all outcomes so far, hex.
    pub outcomes_root: String,
    /// Ledger time.
    pub time_ms: u64,
    /// Whether a quorum has signed it.
    pub certified: bool,
    /// Weight of those who have.
    pub signed_weight: u64,
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerView {
    /// Its name, as above.
    pub name: String,
    /// Its public key, hex.
    pub node_key: String,
    /// Whether there is a connection.
    pub connected: bool,
    /// Round trip, when connected and measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<u64>,
    /// Address in use, when connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// If it is a member, the highest round of which the asked node holds an event of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<u64>,
    /// If it is a member, how far its clock is ahead of the asked node's, as last measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_ahead_ms: Option<i64>,
    /// Frames for it that were dropped because it is too slow, since the asked node started.
    pub dropped_frames: u64,
}

/// How well something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Well.
    Ok,
    /// The node does its job; somebody should look at it.
    Warn,
    /// Wrong: the node does not do its whole job, or soon will not.
    Fail,
}

/// One line of a node's look at itself: `GET /v1/checks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckView {
    /// What was looked at.
    pub name: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was seen and, unless it is well, what to do.
    pub text: String,
}
