//! A transaction's way from submission to outcome, as one node saw it.

use super::Reason;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A signed transaction on its way to a node.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitRequest {
    /// The exact JSON text that was signed.
    pub body: String,
    /// ed25519 signature over `"dagger transaction v1\0"` and the body, 128 hex characters.
    pub signature: String,
}

/// The node has taken the transaction and will propose it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Submitted {
    /// Digest of the transaction's body, hex.
    pub digest: String,
    /// Name of the node that took it.
    pub node: String,
    /// When it was taken, by that node's clock.
    pub at_ms: u64,
}

/// What this node knows of a transaction. Stages fill in order; a stage that has not happened is absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransactionStatus {
    /// Digest of the transaction's body, hex.
    pub digest: String,
    /// This node took it from a client (absent when another node did).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<AcceptedStage>,
    /// The event that carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<EventStage>,
    /// The commit that put it in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitStage>,
    /// What execution made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeStage>,
}

/// A node took the transaction from a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AcceptedStage {
    /// Name of the node.
    pub node: String,
    /// When, by that node's clock.
    pub at_ms: u64,
}

/// An event of the ShadowGraph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventName {
    /// Round of the event.
    pub round: u64,
    /// Seat of its creator.
    pub creator: u16,
    /// Name of the operator that holds the seat.
    pub creator_name: String,
    /// Digest of the event, hex.
    pub digest: String,
}

/// The transaction is in an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventStage {
    /// Which event.
    #[serde(flatten)]
    pub event: EventName,
    /// When this node first held that event.
    pub at_ms: u64,
}

/// The transaction is in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CommitStage {
    /// Index of the commit.
    pub index: u64,
    /// The leader that this commit decided.
    pub leader: EventName,
    /// How this node saw the decision.
    pub decision: DecisionView,
    /// Ledger time of the commit.
    pub time_ms: u64,
    /// When this node decided it.
    pub at_ms: u64,
}

/// How a leader was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "rule")]
pub enum DecisionView {
    /// Certificates of quorum weight.
    Direct {
        /// Members whose events certify the leader.
        certifiers: Vec<MemberName>,
        /// Their weight together.
        weight: u64,
        /// The weight that a decision needs.
        quorum_weight: u64,
        /// The weight of the whole committee.
        total_weight: u64,
    },
    /// A later decided leader has a certificate for this one in its history.
    Indirect {
        /// That later leader.
        anchor: EventName,
    },
}

/// A member by seat and name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberName {
    /// Its seat.
    pub index: u16,
    /// Name of the operator that holds the seat.
    pub name: String,
    /// Votes of the seat.
    pub weight: u64,
}

/// The transaction was executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutcomeStage {
    /// `ok`, or the stable code of the refusal.
    pub code: String,
    /// What was made, or why it was refused and what to do.
    pub detail: String,
    /// Whether the ledger did what was asked.
    pub ok: bool,
    /// When this node executed it.
    pub at_ms: u64,
}

/// One executed commit, as the ledger's stream carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CommitView {
    /// Index of the commit; the cursor of the stream.
    pub index: u64,
    /// Chained digest of the commit, hex.
    pub digest: String,
    /// Ledger time.
    pub time_ms: u64,
    /// The leader that this commit decided.
    pub leader: EventName,
    /// One for each transaction, in order.
    pub outcomes: Vec<OutcomeView>,
    /// What execution changed, in order.
    pub changes: Vec<ChangeView>,
}

/// One change of the ledger's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeView {
    /// What kind of change: `vm_placed`, `vm_phase`, `machine_state` and so on.
    pub kind: String,
    /// The change in words, with names as they are now.
    pub text: String,
    /// The change as the ledger has it: numbers of objects, words for states.
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
}

/// What became of one transaction of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutcomeView {
    /// Digest of the transaction's body, hex.
    pub digest: String,
    /// `ok`, or the stable code of the refusal.
    pub code: String,
    /// Kind of the action (`vm_create`, ...), where it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// What it made or changed: `vm demo/web` and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The code in words.
    pub detail: String,
}

/// A page of commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CommitPage {
    /// The commits, ascending; empty when there are none from the index asked for.
    pub commits: Vec<CommitView>,
    /// Ask from here for what follows.
    pub next: u64,
    /// Set when the node no longer keeps commits from the index asked for: the first it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<u64>,
}

impl TransactionStatus {
    /// The refusal, when the ledger executed the transaction and said no.
    pub fn refusal(&self) -> Option<Reason> {
        let outcome = self.outcome.as_ref()?;
        (!outcome.ok).then(|| Reason {
            code: outcome.code.clone(),
            text: outcome.detail.clone(),
        })
    }
}
