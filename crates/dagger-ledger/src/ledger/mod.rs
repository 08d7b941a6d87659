//! The state machine: its parts, its start from genesis and its queries. What changes it lives in the files beside this one;
//! the only ways in are [`Ledger::execute`] and [`Ledger::restore`].

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::code::Code;
use crate::commit::{CommitInput, CommitOutput};
use crate::explain::Explanation;
use crate::genesis::{Genesis, Parameters};
use crate::ids::{AccountId, Digest, ImageId, Key, MachineId, OperatorId, VmId};
use crate::records::{AccountRecord, ImageRecord, MachineRecord, OperatorRecord, VmRecord, VmSpec};
use crate::transaction::CheckedTransaction;

/// The whole state of a network after some commit.
#[derive(Clone, Debug)]
pub struct Ledger {
    chain_id: Digest,
    network: String,
    parameters: Parameters,
    operators: Vec<OperatorRecord>,
    machines: Vec<Option<MachineRecord>>,
    accounts: Vec<AccountRecord>,
    images: Vec<ImageRecord>,
    vms: Vec<Option<Box<VmRecord>>>,
}

impl Ledger {
    /// The state before the first commit.
    pub fn from_genesis(_genesis: &Genesis) -> Self {
        unimplemented!()
    }

    /// Executes one commit. The only way in which the state moves.
    pub fn execute(&mut self, _input: &CommitInput<'_>) -> CommitOutput {
        unimplemented!()
    }

    /// Root over the whole state. Hashes what changed since it was last asked for.
    pub fn state_root(&mut self) -> [u8; 32] {
        unimplemented!()
    }

    /// Chained root over all outcomes so far.
    pub fn outcomes_root(&self) -> [u8; 32] {
        unimplemented!()
    }

    /// Ledger time at which something would lapse if a commit came then. `None`: nothing waits.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        unimplemented!()
    }

    /// Advice before a transaction is gossiped: the code it would certainly get now. Says nothing about what the action itself would do.
    pub fn check_admission(&self, _transaction: &CheckedTransaction) -> Result<(), Code> {
        unimplemented!()
    }

    /// Where a VM would go if it were placed anew now, and why.
    pub fn explain(&self, _vm: VmId) -> Option<Explanation> {
        unimplemented!()
    }

    /// Where a VM of that account and spec would go now, and why.
    pub fn explain_spec(&self, _account: AccountId, _spec: &VmSpec) -> Explanation {
        unimplemented!()
    }

    /// The whole state as bytes; [`Ledger::restore`] gives a ledger with the same roots.
    pub fn snapshot(&self) -> Vec<u8> {
        unimplemented!()
    }

    /// The state that a snapshot holds. Compare its roots with a certificate before trusting it.
    pub fn restore(_bytes: &[u8]) -> Result<Self, RestoreError> {
        unimplemented!()
    }

    /// Checks that indexes, sums and records agree. Linear in the state; for tests and on demand.
    pub fn invariants(&self) -> Result<(), String> {
        unimplemented!()
    }

    /// Members' seats that attest a machine at present and count for it (rivals of its operator).
    pub fn attesting_members(&self, _machine: MachineId) -> Vec<u16> {
        unimplemented!()
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
        unimplemented!()
    }
    /// Time with commits, see [`Parameters::gap_cap_ms`].
    pub fn active_ms(&self) -> u64 {
        unimplemented!()
    }
    /// Index of the last commit executed; `None` before the first.
    pub fn commit_index(&self) -> Option<u64> {
        unimplemented!()
    }
    /// Digest of the last commit executed; the chain id before the first.
    pub fn commit_digest(&self) -> [u8; 32] {
        unimplemented!()
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
    /// All machines, by id.
    pub fn machines(&self) -> impl Iterator<Item = &MachineRecord> {
        self.machines.iter().flatten()
    }
    /// A machine.
    pub fn machine(&self, id: MachineId) -> Option<&MachineRecord> {
        self.machines.get(id.index())?.as_ref()
    }
    /// A machine, by its name.
    pub fn machine_by_name(&self, _name: &str) -> Option<&MachineRecord> {
        unimplemented!()
    }
    /// The machine whose node has that key.
    pub fn machine_by_node_key(&self, _key: &Key) -> Option<&MachineRecord> {
        unimplemented!()
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
    pub fn account_by_name(&self, _name: &str) -> Option<&AccountRecord> {
        unimplemented!()
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
    pub fn image_by_name(&self, _name: &str) -> Option<&ImageRecord> {
        unimplemented!()
    }
    /// All VMs, by id.
    pub fn vms(&self) -> impl Iterator<Item = &VmRecord> {
        self.vms.iter().flatten().map(Box::as_ref)
    }
    /// A VM.
    pub fn vm(&self, id: VmId) -> Option<&VmRecord> {
        self.vms.get(id.index())?.as_deref()
    }
    /// A VM, by account and name.
    pub fn vm_by_name(&self, _account: AccountId, _name: &str) -> Option<&VmRecord> {
        unimplemented!()
    }
    /// The VMs of an account, by name.
    pub fn vms_of(&self, _account: AccountId) -> impl Iterator<Item = &VmRecord> {
        self.vms()
    }
    /// The VMs that a machine holds, by id.
    pub fn vms_on(&self, _machine: MachineId) -> impl Iterator<Item = &VmRecord> {
        self.vms()
    }
}

/// A snapshot cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Not a snapshot.
    #[error("these bytes are not a ledger snapshot; fetch it again from another node")]
    Malformed,
    /// Of a version that this program does not read.
    #[error(
        "the snapshot has format version {0}, which this version does not read; upgrade this node"
    )]
    Version(u32),
    /// It contradicts itself.
    #[error("the snapshot is inconsistent ({0}); fetch it again from another node")]
    Inconsistent(String),
}

#[allow(unused)]
type Unused = (
    BTreeMap<u8, u8>,
    BTreeSet<u8>,
    HashMap<u8, u8>,
    VecDeque<u8>,
);
