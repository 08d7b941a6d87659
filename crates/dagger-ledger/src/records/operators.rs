//! Records of operators, their seats and proposals, and of the epoch.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use super::{Resources, Usage};
use crate::action::{ProposedChange, Quota};
use crate::ids::{Key, OperatorId};

/// A party with a seat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct OperatorRecord {
    /// Id.
    pub id: OperatorId,
    /// Unique name.
    pub name: String,
    /// Signs the operator's transactions.
    pub operator_key: Key,
    /// Signs events and checkpoints.
    pub consensus_key: Key,
    /// Transport identity of its member node; signs attestations.
    pub node_key: Key,
    /// Votes of its seat.
    pub weight: u64,
    /// Seat in the present committee.
    pub member: Option<u16>,
    /// Where its member node can be dialled, as genesis says.
    pub address: Option<String>,
    /// What VMs hold on its machines.
    pub hosted: Resources,
    /// What they have held so far.
    pub usage: Usage,
    /// Whether it has a say.
    pub status: OperatorStatus,
    /// The most that the accounts it sponsors may have together.
    pub allocation: Option<Quota>,
    /// VMs of the accounts it sponsors, and what they ask for.
    pub sponsored_vms: u64,
    /// See `sponsored_vms`.
    pub sponsored: Resources,
    /// Ledger time of the last change of its consensus key.
    pub rotated_ms: u64,
    /// Why it has no seat although it is active.
    pub unseated: Option<Unseated>,
}

impl OperatorRecord {
    /// Whether it has a seat from the next epoch on.
    pub fn is_seated(&self) -> bool {
        self.status == OperatorStatus::Active && self.unseated.is_none()
    }
}

/// The proof that cost an operator its seat.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize,
)]
pub struct Unseated {
    /// The consensus key that signed twice.
    pub consensus_key: Key,
    /// Epoch of the two events.
    pub epoch: u64,
    /// Their round.
    pub round: u64,
}

/// Where the network stands in epochs.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize,
)]
pub struct EpochRecord {
    /// Number of the present epoch.
    pub number: u64,
    /// Last commit of the epoch before; 0 for the first epoch.
    pub start_commit: u64,
    /// Time of that commit, or of genesis.
    pub start_ms: u64,
    /// Transactions ordered since then.
    pub transactions: u64,
    /// Seats of the epoch before, whose double signatures still count.
    pub former: Vec<FormerSeat>,
}

/// A seat of the epoch before.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize,
)]
pub struct FormerSeat {
    /// The operator.
    pub operator: OperatorId,
    /// Its consensus key then.
    pub consensus_key: Key,
}

/// Whether an operator has a say.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum OperatorStatus {
    /// It has a seat, or will have one with the next epoch.
    Active,
    /// It left or was removed: its keys mean nothing, and its seat goes with the next epoch.
    Removed,
}

/// A proposal of operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct ProposalRecord {
    /// Number.
    pub id: u64,
    /// Who proposed it.
    pub proposer: OperatorId,
    /// What would change.
    pub change: ProposedChange,
    /// Operators for it.
    pub approvals: Vec<OperatorId>,
    /// Operators against it.
    pub rejections: Vec<OperatorId>,
    /// What became of it.
    pub status: ProposalStatus,
    /// Ledger time at which it was opened.
    pub opened_ms: u64,
    /// Ledger time after which it expires.
    pub closes_ms: u64,
}

/// What became of a proposal.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum ProposalStatus {
    /// Votes are counted.
    Open,
    /// A quorum was for it; it is in force.
    Accepted,
    /// A quorum cannot be reached any more.
    Rejected,
    /// Time ran out.
    Expired,
    /// A quorum was for it, but it no longer made sense.
    Void,
}
