//! The whole state as bytes, and back, with identical roots.

use std::collections::BTreeMap;

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

const VERSION: u32 = 4;

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

#[derive(BorshSerialize, BorshDeserialize)]
struct Image {
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
    vms: Vec<VmRecord>,
    proposals: BTreeMap<u64, ProposalRecord>,
    proposal_ids: u64,
    protocol_versions: BTreeMap<u64, u32>,
    brake: Brake,
    replay: ReplayImage,
}

/// The most VM ids that a snapshot may say were given out, deleted VMs' among them: a slot each, 2 GiB in all. A snapshot is read
/// before it is known to be true, so a stranger's count must not decide how much is allocated.
const VM_IDS_MAX: u64 = 1 << 28;

impl Ledger {
    /// The whole state as bytes; [`Ledger::restore`] gives a ledger with the same roots.
    pub fn snapshot(&self) -> Vec<u8> {
        let image = Image {
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
            vms: self.vms().cloned().collect(),
            proposals: self.proposals.clone(),
            proposal_ids: self.proposal_ids,
            protocol_versions: self.protocol_versions.clone(),
            brake: self.brake.clone(),
            replay: ReplayImage::from(&self.replay),
        };
        let mut bytes = VERSION.to_le_bytes().to_vec();
        image.serialize(&mut bytes).expect("borsh writes to memory");
        bytes
    }

    /// The state that a snapshot holds. It is consistent, but not therefore true: compare [`Ledger::state_root`] with a certificate
    /// before trusting it.
    pub fn restore(bytes: &[u8]) -> Result<Self, RestoreError> {
        let (version, bytes) = bytes
            .split_first_chunk::<4>()
            .ok_or(RestoreError::Malformed)?;
        let version = u32::from_le_bytes(*version);
        if version != VERSION {
            return Err(RestoreError::Version(version));
        }
        let image: Image = borsh::from_slice(bytes).map_err(|_| RestoreError::Malformed)?;
        let bad = |what: &str| RestoreError::Inconsistent(what.to_string());
        let replay = image.replay.restore().ok_or_else(|| bad("replay memory"))?;
        // A count from a stranger must not decide how much is allocated.
        if image.vm_ids > VM_IDS_MAX {
            return Err(bad("VM ids"));
        }
        if !image.protocol_versions.contains_key(&0) {
            return Err(bad("protocol versions"));
        }
        let mut vms = vec![None; image.vm_ids as usize];
        for vm in image.vms {
            let slot = vms.get_mut(vm.id.index()).ok_or_else(|| bad("VM ids"))?;
            if slot.replace(Box::new(vm)).is_some() {
                return Err(bad("VM ids"));
            }
        }
        let mut ledger = Self {
            chain_id: image.chain_id,
            network: image.network,
            parameters: image.parameters,
            clock: image.clock,
            operators: image.operators,
            members: image.members,
            epoch: image.epoch,
            machines: image.machines,
            accounts: image.accounts,
            images: image.images,
            vms,
            proposals: image.proposals,
            proposal_ids: image.proposal_ids,
            protocol_versions: image.protocol_versions,
            brake: image.brake,
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
