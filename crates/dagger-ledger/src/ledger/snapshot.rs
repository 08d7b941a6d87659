//! The whole state as bytes, and back, with identical roots: also from the formats of earlier versions.

mod format_4;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::ids::Digest;
use crate::ledger::failover::Brake;
use crate::ledger::replay::ReplayImage;
use crate::ledger::{Clock, Ledger, Seat};
use crate::parameters::Parameters;
use crate::records::{
    AccountRecord, EpochRecord, ImageRecord, MachineRecord, OperatorRecord, ProposalRecord,
    VmRecord,
};

/// The format that is written: the head, every VM's record with its length before it, the tail. Format 4, which is read too,
/// has no lengths; 5 was never released.
const VERSION: u32 = 6;
/// The most bytes of a VM's record: what is in it came in a few transactions, of 64 KiB at most each.
const VM_BYTES_MAX: u32 = 1 << 20;

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

/// What stands before the VMs.
#[derive(BorshSerialize, BorshDeserialize)]
struct Head {
    chain_id: Digest,
    network: String,
    parameters: Parameters,
    clock: Clock,
    operators: Vec<OperatorRecord>,
    members: Vec<Seat>,
    epoch: EpochRecord,
    /// Slots, so that ids of removed machines are not given again.
    machines: Vec<Option<MachineRecord>>,
    accounts: Vec<AccountRecord>,
    images: Vec<ImageRecord>,
    /// How many VM ids were given out.
    vm_ids: u64,
    /// How many records of VMs follow, one after the other.
    vms: u32,
}

/// What stands behind them.
#[derive(BorshSerialize, BorshDeserialize)]
struct Tail {
    proposals: BTreeMap<u64, ProposalRecord>,
    proposal_ids: u64,
    protocol_versions: BTreeMap<u64, u32>,
    brake: Brake,
    replay: ReplayImage,
}

/// The most VM ids that a snapshot may say were given out, deleted VMs' among them: a slot each, 2 GiB in all. A snapshot is read
/// before it is known to be true, so a stranger's count must not decide how much is allocated.
const VM_IDS_MAX: u64 = 1 << 28;

/// A state that stands still while the ledger goes on: what a snapshot is written from.
pub struct FrozenLedger {
    head: Head,
    vms: Vec<Option<Arc<VmRecord>>>,
    tail: Tail,
}

impl FrozenLedger {
    /// Writes what [`Ledger::snapshot`] returns, record by record: nothing large is made for it.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        out.write_all(&VERSION.to_le_bytes())?;
        self.head.serialize(out)?;
        let mut record = Vec::new();
        for vm in self.vms.iter().flatten() {
            record.clear();
            vm.serialize(&mut record)?;
            record.as_slice().serialize(out)?;
        }
        self.tail.serialize(out)
    }
}

/// The next of the VMs' records.
fn next_vm<R: Read>(bytes: &mut R) -> std::io::Result<VmRecord> {
    let length = u32::deserialize_reader(bytes)?;
    // A stranger's count must not decide how much is allocated.
    if length > VM_BYTES_MAX {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut record = vec![0; length as usize];
    bytes.read_exact(&mut record)?;
    borsh::from_slice(&record)
}

impl Ledger {
    /// The whole state as bytes; [`Ledger::restore`] gives a ledger with the same roots.
    ///
    /// # Panics
    /// Never: memory takes whatever is written to it.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.freeze()
            .write(&mut bytes)
            .expect("writing to memory does not fail");
        bytes
    }

    /// The state as it is now, to be written down while this goes on. Copies everything but the VMs, which are shared until one
    /// of both changes; linear in the number of records, and one word of memory for each VM.
    ///
    /// # Panics
    /// If there are more VMs than ids, which are bounded.
    pub fn freeze(&self) -> FrozenLedger {
        let count = self.vms().count();
        FrozenLedger {
            head: Head {
                chain_id: self.chain_id,
                network: self.network.clone(),
                parameters: self.parameters.clone(),
                clock: self.clock,
                operators: self.operators.clone(),
                members: self.members.clone(),
                epoch: self.epoch.clone(),
                machines: self.machines.clone(),
                accounts: self.accounts.clone(),
                images: self.images.clone(),
                vm_ids: self.vms.len() as u64,
                vms: u32::try_from(count).expect("no more than ids, which are bounded"),
            },
            vms: self.vms.clone(),
            tail: Tail {
                proposals: self.proposals.clone(),
                proposal_ids: self.proposal_ids,
                protocol_versions: self.protocol_versions.clone(),
                brake: self.brake.clone(),
                replay: ReplayImage::from(&self.replay),
            },
        }
    }

    /// The state that a snapshot holds. It is consistent, but not therefore true: compare [`Ledger::state_root`] with a certificate
    /// before trusting it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn restore(bytes: &[u8]) -> Result<Self, RestoreError> {
        Self::restore_from(&mut &bytes[..])
    }

    /// As [`Ledger::restore`], from a stream that ends with the snapshot.
    ///
    /// # Errors
    /// What is wrong with it; a stream that fails counts as malformed.
    pub fn restore_from(bytes: &mut impl Read) -> Result<Self, RestoreError> {
        let malformed = |_| RestoreError::Malformed;
        let mut version = [0; 4];
        bytes.read_exact(&mut version).map_err(malformed)?;
        let version = u32::from_le_bytes(version);
        let next_vm = match version {
            VERSION => next_vm,
            format_4::VERSION => format_4::next_vm,
            _ => return Err(RestoreError::Version(version)),
        };
        let bad = |what: &str| RestoreError::Inconsistent(what.to_string());
        let head = Head::deserialize_reader(bytes).map_err(malformed)?;
        // A count from a stranger must not decide how much is allocated.
        if head.vm_ids > VM_IDS_MAX {
            return Err(bad("VM ids"));
        }
        let mut vms = vec![None; head.vm_ids as usize];
        for _ in 0..head.vms {
            let vm = next_vm(bytes).map_err(malformed)?;
            let slot = vms.get_mut(vm.id.index()).ok_or_else(|| bad("VM ids"))?;
            if slot.replace(Arc::new(vm)).is_some() {
                return Err(bad("VM ids"));
            }
        }
        let tail = Tail::deserialize_reader(bytes).map_err(malformed)?;
        if bytes.read(&mut [0]).map_err(malformed)? != 0 {
            return Err(RestoreError::Malformed);
        }
        if !tail.protocol_versions.contains_key(&0) {
            return Err(bad("protocol versions"));
        }
        let replay = tail.replay.restore().ok_or_else(|| bad("replay memory"))?;
        let mut ledger = Self {
            chain_id: head.chain_id,
            network: head.network,
            parameters: head.parameters,
            clock: head.clock,
            operators: head.operators,
            members: head.members,
            epoch: head.epoch,
            machines: head.machines,
            accounts: head.accounts,
            images: head.images,
            vms,
            proposals: tail.proposals,
            proposal_ids: tail.proposal_ids,
            protocol_versions: tail.protocol_versions,
            brake: tail.brake,
            replay,
            indexes: Default::default(),
            tree: Default::default(),
            dirty: Default::default(),
            changes: Vec::new(),
        };
        ledger.check_references().map_err(|what| bad(&what))?;
        ledger.rebuild_indexes();
        ledger.mark_everything();
        ledger.invariants().map_err(RestoreError::Inconsistent)?;
        Ok(ledger)
    }
}
