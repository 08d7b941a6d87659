//! What goes into one execution step and what comes out of it.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::ids::{AccountId, Digest, ImageId, Key, MachineId, OperatorId, VmId};
use crate::records::{DisputeStatus, MachineState, Phase, ProposalStatus, Reason};
use crate::transaction::CheckedTransaction;

/// One commit of the ShadowGraph, as the ledger needs it.
#[derive(Clone, Copy, Debug)]
pub struct CommitInput<'a> {
    /// Index of the commit; the one after the last executed.
    pub index: u64,
    /// Its digest; seeds ties.
    pub digest: [u8; 32],
    /// Commit time, never below the one before.
    pub time_ms: u64,
    /// Members with events in this commit and the newest round of each.
    pub active_members: &'a [(u16, u64)],
    /// The transactions in order.
    pub transactions: &'a [CheckedTransaction],
    /// Epoch of the graph that it is of.
    pub epoch: u64,
    /// Whether members sign the state after it; only there can an epoch end.
    pub is_checkpoint: bool,
}

/// What a commit did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitOutput {
    /// One per transaction, in order.
    pub outcomes: Vec<Outcome>,
    /// What changed, in order; includes what lapsed by time.
    pub changes: Vec<Change>,
    /// Chained root over all outcomes so far. A commit without transactions leaves it as it was.
    pub outcomes_root: [u8; 32],
    /// The epoch that begins after this commit, which then is the last of its own. Later commits of the old graph are void; the state and
    /// its root are those of the new epoch already.
    pub next_epoch: Option<NextEpoch>,
}

/// An epoch about to begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextEpoch {
    /// Its number.
    pub epoch: u64,
    /// Its seats, in their order.
    pub seats: Vec<NextSeat>,
}

/// A seat of a committee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextSeat {
    /// The operator.
    pub operator: OperatorId,
    /// Its consensus key.
    pub consensus_key: Key,
    /// Its votes.
    pub weight: u64,
}

/// What became of one transaction. An outcome of `repeated` says nothing about the first execution: keep the first outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Outcome {
    /// Digest of the transaction.
    pub digest: Digest,
    /// The code.
    pub code: Code,
    /// The object that was made or changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
    /// What in particular, for people; part of the outcomes root.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// An object that an outcome is about.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// An operator.
    Operator(OperatorId),
    /// A machine.
    Machine(MachineId),
    /// An account.
    Account(AccountId),
    /// An image.
    Image(ImageId),
    /// A VM.
    Vm(VmId),
    /// A proposal.
    Proposal(u64),
}

/// One change of the state, for event streams. In JSON `{"vm_phase": {...}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A new account.
    AccountCreated {
        /// The account.
        account: AccountId,
    },
    /// A new machine.
    MachineAdded {
        /// The machine.
        machine: MachineId,
    },
    /// A machine's lease began, lapsed or began again.
    MachineState {
        /// The machine.
        machine: MachineId,
        /// What it is now.
        state: MachineState,
    },
    /// A drain began or ended.
    MachineDraining {
        /// The machine.
        machine: MachineId,
        /// On or off.
        draining: bool,
    },
    /// A machine left.
    MachineRemoved {
        /// The machine.
        machine: MachineId,
    },
    /// A new image.
    ImagePublished {
        /// The image.
        image: ImageId,
    },
    /// An image was shared with other accounts, or no longer is.
    ImageShared {
        /// The image.
        image: ImageId,
    },
    /// An image was retired.
    ImageRetired {
        /// The image.
        image: ImageId,
    },
    /// A dispute about a VM was opened or closed.
    VmDispute {
        /// The VM.
        vm: VmId,
        /// What became of it.
        status: DisputeStatus,
    },
    /// A VM was given to a machine.
    VmPlaced {
        /// The VM.
        vm: VmId,
        /// The machine.
        machine: MachineId,
        /// Its new lease epoch.
        lease_epoch: u64,
        /// Why.
        reason: Reason,
    },
    /// A VM entered a phase.
    VmPhase {
        /// The VM.
        vm: VmId,
        /// The phase.
        phase: Phase,
        /// Why.
        reason: Reason,
        /// Its machine.
        machine: Option<MachineId>,
        /// Its lease epoch.
        lease_epoch: u64,
    },
    /// A VM's name or size or boot counter changed.
    VmChanged {
        /// The VM.
        vm: VmId,
    },
    /// A VM is gone.
    VmDeleted {
        /// The VM.
        vm: VmId,
        /// Where it was.
        machine: Option<MachineId>,
    },
    /// An operator keeps a verified copy of an image.
    ImageReplica {
        /// The image.
        image: ImageId,
        /// The operator.
        operator: OperatorId,
    },
    /// A machine's capacity or labels changed.
    MachineChanged {
        /// The machine.
        machine: MachineId,
    },
    /// An account's key, quota or delegations changed.
    AccountChanged {
        /// The account.
        account: AccountId,
    },
    /// An operator was admitted or removed, or its allocation changed.
    OperatorChanged {
        /// The operator.
        operator: OperatorId,
    },
    /// A proposal was opened, voted on or closed.
    Proposal {
        /// Its number.
        proposal: u64,
        /// What became of it.
        status: ProposalStatus,
    },
    /// The ledger's parameters or the version of its rules changed.
    ParametersChanged,
    /// A member was proven to have signed two events of one round.
    Equivocation {
        /// The operator.
        operator: OperatorId,
        /// Epoch of the events.
        epoch: u64,
        /// Their round.
        round: u64,
    },
    /// An epoch ended with this commit.
    EpochEnded {
        /// The epoch that begins.
        next: u64,
        /// Its seats.
        seats: u16,
        /// Weight of members that may be faulty in it. 0: any faulty member stops the network or breaks it.
        fault_weight: u64,
    },
    /// The mass-failover brake went on or off.
    Brake {
        /// On or off.
        on: bool,
        /// VMs that wait for re-placement.
        waiting: u64,
    },
}
