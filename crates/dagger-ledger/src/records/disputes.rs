//! Records of disputes: what a customer claims of a running VM, and what rivals of its host found.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::ids::{MachineId, OperatorId};

/// A customer's claim that a VM cannot be reached although its machine reports it as running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct DisputeRecord {
    /// What the customer says of it.
    pub claim: String,
    /// The machine that reported the VM running.
    pub machine: MachineId,
    /// The lease epoch it did so in; a dispute is about no other.
    pub lease_epoch: u64,
    /// Operators drawn to probe the VM, in the order of the draw.
    pub rivals: Vec<OperatorId>,
    /// What they found, in the order in which they said it.
    pub probes: Vec<Probe>,
    /// What became of it.
    pub status: DisputeStatus,
    /// Ledger time at which it was opened.
    pub opened_ms: u64,
    /// Active time by which rivals must have probed.
    pub deadline_active_ms: u64,
    /// Ledger time at which it was closed.
    pub closed_ms: Option<u64>,
}

impl DisputeRecord {
    /// Operators that were drawn and have not said a word: who must act while it is open.
    pub fn waits_for(&self) -> impl Iterator<Item = OperatorId> {
        let has_said = |rival: &OperatorId| self.probes.iter().any(|p| p.operator == *rival);
        self.rivals
            .iter()
            .copied()
            .filter(move |rival| !has_said(rival))
    }
}

/// What one rival found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Probe {
    /// The rival.
    pub operator: OperatorId,
    /// The VM answered.
    pub reached: bool,
    /// What it saw, for people.
    pub detail: String,
    /// Ledger time of its report.
    pub time_ms: u64,
}

/// What became of a dispute.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum DisputeStatus {
    /// The rivals that were drawn must probe the VM by the deadline.
    Open,
    /// Rivals of more than weight f could not reach it. A VM with `failover = recreate` moves to another machine.
    Upheld,
    /// Rivals of more than weight f reached it.
    Dismissed,
    /// Too few probed it in time, or they were of too little weight.
    Undecided,
    /// The VM left that machine or stopped running before rivals had decided.
    Moot,
}
