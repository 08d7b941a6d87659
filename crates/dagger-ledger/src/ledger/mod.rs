//! The state machine: its parts, its start from genesis and its queries. What changes it lives in the files beside this
//! one; the only ways in are [`Ledger::execute`] and [`Ledger::restore`].

mod dirty;
mod disputes;
mod epochs;
mod equivocation;
mod execute;
mod explain_rule;
mod failover;
mod governance;
mod indexes;
mod invariants;
mod keys;
mod leases;
mod objects;
mod operators;
pub(crate) mod outcomes;
mod phases;
mod placement;
mod replay;
mod reports;
mod snapshot;
mod state_root;
pub(crate) mod state_tree;
mod versions;
mod vms;

use std::collections::BTreeMap;
use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};

pub use snapshot::{FrozenLedger, RestoreError};
pub use state_root::{BadStateKey, StateKey};
pub use versions::NEWEST_PROTOCOL_VERSION;

use crate::commit::Change;
use crate::genesis::Genesis;
use crate::ids::{AccountId, Digest, ImageId, Key, MachineId, OperatorId, VmId};
use crate::parameters::Parameters;
use crate::records::{
    AccountRecord, EpochRecord, ImageRecord, MachineRecord, OperatorRecord, OperatorStatus,
    ProposalRecord, Resources, Usage, VmRecord,
};
use dirty::Dirty;
use failover::Brake;
use indexes::{Indexes, Principal};
use replay::Replay;
use state_tree::StateTree;

/// The whole state of a network after some commit.
#[derive(Clone)]
pub struct Ledger {
    chain_id: Digest,
    network: String,
    parameters: Parameters,
    clock: Clock,
    operators: Vec<OperatorRecord>,
    members: Vec<Seat>,
    epoch: EpochRecord,
    machines: Vec<Option<MachineRecord>>,
    accounts: Vec<AccountRecord>,
    images: Vec<ImageRecord>,
    /// Shared with states that are being written down ([`Ledger::freeze`]).
    vms: Vec<Option<Arc<VmRecord>>>,
    proposals: BTreeMap<u64, ProposalRecord>,
    /// Proposals ever made.
    proposal_ids: u64,
    /// Versions of the rules, by the first epoch that is under each.
    protocol_versions: BTreeMap<u64, u32>,
    brake: Brake,
    replay: Replay,
    /// Derived from the records; rebuilt on restore.
    indexes: Indexes,
    tree: StateTree,
    dirty: Dirty,
    /// Changes of the commit that is being executed.
    changes: Vec<Change>,
}

/// Where the ledger stands in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Clock {
    commit_index: Option<u64>,
    commit_digest: [u8; 32],
    time_ms: u64,
    /// Ledger time with gaps between commits cut short: the time in which leases age.
    active_ms: u64,
    outcomes_root: [u8; 32],
}

/// A seat of the committee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Seat {
    operator: OperatorId,
    consensus_key: Key,
    weight: u64,
    newest_round: Option<u64>,
    /// Active time of the last commit that held a new event of it.
    fresh_active_ms: Option<u64>,
}

impl Ledger {
    /// The state before the first commit.
    pub fn from_genesis(genesis: &Genesis) -> Self {
        let operator = |(i, o): (usize, &crate::genesis::GenesisOperator)| OperatorRecord {
            id: OperatorId(i as u32),
            name: o.name.clone(),
            operator_key: o.operator_key,
            consensus_key: o.consensus_key,
            node_key: o.node_key,
            weight: o.weight,
            member: Some(i as u16),
            address: o.address.clone(),
            hosted: Resources::default(),
            usage: Usage {
                until_ms: genesis.time_ms,
                ..Usage::default()
            },
            status: OperatorStatus::Active,
            allocation: None,
            sponsored_vms: 0,
            sponsored: Resources::default(),
            rotated_ms: 0,
            unseated: None,
        };
        let operators: Vec<OperatorRecord> =
            genesis.operators.iter().enumerate().map(operator).collect();
        let seat = |o: &OperatorRecord| Seat {
            operator: o.id,
            consensus_key: o.consensus_key,
            weight: o.weight,
            newest_round: None,
            fresh_active_ms: None,
        };
        let mut ledger = Self {
            chain_id: genesis.chain_id,
            network: genesis.network.clone(),
            parameters: genesis.parameters.clone(),
            clock: Clock {
                commit_index: None,
                commit_digest: genesis.chain_id.0,
                time_ms: genesis.time_ms,
                active_ms: 0,
                outcomes_root: [0; 32],
            },
            members: operators.iter().map(seat).collect(),
            operators,
            epoch: EpochRecord {
                start_ms: genesis.time_ms,
                ..EpochRecord::default()
            },
            machines: Vec::new(),
            accounts: Vec::new(),
            images: Vec::new(),
            vms: Vec::new(),
            proposals: BTreeMap::new(),
            proposal_ids: 0,
            protocol_versions: BTreeMap::from([(0, versions::FIRST_VERSION)]),
            brake: Brake::default(),
            replay: Replay::default(),
            indexes: Indexes::default(),
            tree: StateTree::default(),
            dirty: Dirty::default(),
            changes: Vec::new(),
        };
        ledger.rebuild_indexes();
        ledger.mark_everything();
        ledger
    }

    /// Chained root over all outcomes so far.
    pub fn outcomes_root(&self) -> [u8; 32] {
        self.clock.outcomes_root
    }

    /// The chain id.
    pub fn chain_id(&self) -> Digest {
        self.chain_id
    }

    /// Name of the network.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// Ledger time: that of the last commit, or of genesis.
    pub fn time_ms(&self) -> u64 {
        self.clock.time_ms
    }

    /// Time with commits, see [`Parameters::gap_cap_ms`].
    pub fn active_ms(&self) -> u64 {
        self.clock.active_ms
    }

    /// Index of the last commit executed; `None` before the first.
    pub fn commit_index(&self) -> Option<u64> {
        self.clock.commit_index
    }

    /// Digest of the last commit executed; the chain id before the first.
    pub fn commit_digest(&self) -> [u8; 32] {
        self.clock.commit_digest
    }

    /// Open proposals, and the latest of the closed ones, by number.
    pub fn proposals(&self) -> impl Iterator<Item = &ProposalRecord> {
        self.proposals.values()
    }

    /// Parameters in force.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// All operators, by id.
    pub fn operators(&self) -> impl Iterator<Item = &OperatorRecord> {
        self.operators.iter()
    }

    /// An operator.
    pub fn operator(&self, id: OperatorId) -> Option<&OperatorRecord> {
        self.operators.get(id.index())
    }

    /// An operator, by its name.
    pub fn operator_by_name(&self, name: &str) -> Option<&OperatorRecord> {
        self.operator(*self.indexes.operator_names.get(name)?)
    }

    /// The operator in a seat of the present committee.
    pub fn operator_of_member(&self, member: u16) -> Option<&OperatorRecord> {
        self.operator(self.members.get(usize::from(member))?.operator)
    }

    /// All machines, by id.
    pub fn machines(&self) -> impl Iterator<Item = &MachineRecord> {
        self.machines.iter().flatten()
    }

    /// A machine.
    pub fn machine(&self, id: MachineId) -> Option<&MachineRecord> {
        self.machines.get(id.index())?.as_ref()
    }

    /// A machine, by its name.
    pub fn machine_by_name(&self, name: &str) -> Option<&MachineRecord> {
        self.machine(*self.indexes.machine_names.get(name)?)
    }

    /// The machine whose node has that key.
    pub fn machine_by_node_key(&self, key: &Key) -> Option<&MachineRecord> {
        match self.indexes.keys.get(key)? {
            Principal::Node {
                machine: Some(machine),
                ..
            } => self.machine(*machine),
            _ => None,
        }
    }

    /// All accounts, by id.
    pub fn accounts(&self) -> impl Iterator<Item = &AccountRecord> {
        self.accounts.iter()
    }

    /// An account.
    pub fn account(&self, id: AccountId) -> Option<&AccountRecord> {
        self.accounts.get(id.index())
    }

    /// An account, by its name.
    pub fn account_by_name(&self, name: &str) -> Option<&AccountRecord> {
        self.account(*self.indexes.account_names.get(name)?)
    }

    /// The account with that key.
    pub fn account_by_key(&self, key: &Key) -> Option<&AccountRecord> {
        match self.indexes.keys.get(key)? {
            Principal::Account(account) => self.account(*account),
            _ => None,
        }
    }

    /// All images, by id.
    pub fn images(&self) -> impl Iterator<Item = &ImageRecord> {
        self.images.iter()
    }

    /// An image.
    pub fn image(&self, id: ImageId) -> Option<&ImageRecord> {
        self.images.get(id.index())
    }

    /// An image, by its full name `account/name`.
    pub fn image_by_name(&self, name: &str) -> Option<&ImageRecord> {
        self.image(*self.indexes.image_names.get(name)?)
    }

    /// All VMs, by id.
    pub fn vms(&self) -> impl Iterator<Item = &VmRecord> {
        self.vms.iter().flatten().map(Arc::as_ref)
    }

    /// A VM.
    pub fn vm(&self, id: VmId) -> Option<&VmRecord> {
        self.vms.get(id.index())?.as_deref()
    }

    /// A VM, by account and name.
    pub fn vm_by_name(&self, account: AccountId, name: &str) -> Option<&VmRecord> {
        self.vm(*self.indexes.account_vms.get(account.index())?.get(name)?)
    }

    /// The VMs of an account, by name.
    pub fn vms_of(&self, account: AccountId) -> impl Iterator<Item = &VmRecord> {
        let ids = self.indexes.account_vms.get(account.index()).into_iter();
        ids.flat_map(|names| names.values())
            .filter_map(|id| self.vm(*id))
    }

    /// The VMs that a machine holds, by id.
    pub fn vms_on(&self, machine: MachineId) -> impl Iterator<Item = &VmRecord> {
        let ids = self.indexes.machine_vms.get(machine.index()).into_iter();
        ids.flatten().filter_map(|id| self.vm(*id))
    }

    fn vm_mut(&mut self, id: VmId) -> &mut VmRecord {
        self.dirty.vm(id);
        Arc::make_mut(self.vms[id.index()].as_mut().expect("the VM exists"))
    }

    fn machine_mut(&mut self, id: MachineId) -> &mut MachineRecord {
        self.dirty.machines.insert(id);
        self.machines[id.index()]
            .as_mut()
            .expect("the machine exists")
    }
}
