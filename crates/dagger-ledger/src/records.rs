//! The records of the state: what the ledger knows of each object, as the API shows it and as the state root hashes it.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::action::{
    Arch, Ended, Failover, Labels, OnIsolation, Placement, ProposedChange, Quota, Restart,
    Starting, UserData,
};
use crate::ids::{AccountId, Digest, ImageId, Key, MachineId, OperatorId, VmId};
use crate::manifest::ImageManifest;

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

/// A physical host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct MachineRecord {
    /// Id.
    pub id: MachineId,
    /// Unique name.
    pub name: String,
    /// Who owns it.
    pub operator: OperatorId,
    /// Transport identity of its node; signs its reports.
    pub node_key: Key,
    /// Architecture of its guests.
    pub arch: Arch,
    /// What it has to offer.
    pub capacity: Resources,
    /// Virtual CPUs that VMs may hold together for each thousand of its own.
    pub cpu_permille: u32,
    /// What VMs placed on it hold.
    pub used: Resources,
    /// Labels; `region` is the one that placement knows.
    pub labels: Labels,
    /// Whether rivals hear it.
    pub state: MachineState,
    /// No new VMs; those that may move are moved.
    pub draining: bool,
    /// Ledger time of the last change of `state`.
    pub state_since_ms: u64,
    /// How often it lapsed.
    pub lapses: u32,
    /// Lapses in a row that came soon after a return; see [`Parameters::calm_ms`](crate::Parameters::calm_ms).
    pub flaps: u32,
    /// Active time until which it gets no new VMs, for it flapped.
    pub damped_until_active_ms: Option<u64>,
    /// VMs placed on it.
    pub vms: u32,
    /// What members attest, in the order of seats; a member that has never said a word is not in it.
    pub heard_by: Vec<Heard>,
    /// The round through its VMs after it lapsed or returned, while that is under way. No new VMs
    /// meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<Sweep>,
}

impl MachineRecord {
    /// The region that placement knows; empty without the label.
    pub fn region(&self) -> &str {
        self.labels.get("region").map_or("", String::as_str)
    }

    /// What VMs may hold there together: what it offers, with its CPUs promised as often as it says.
    pub fn limit(&self) -> Resources {
        let vcpus = u64::from(self.capacity.vcpus) * u64::from(self.cpu_permille) / 1_000;
        Resources {
            vcpus: u32::try_from(vcpus).unwrap_or(u32::MAX),
            ..self.capacity
        }
    }

    /// Room for one more VM beside those that hold `used`; it never gets more virtual CPUs than the machine has. `None` if they hold
    /// more than they may.
    pub fn room_beside(&self, used: &Resources) -> Option<Resources> {
        let left = self.limit().checked_sub(used)?;
        Some(Resources {
            vcpus: left.vcpus.min(self.capacity.vcpus),
            ..left
        })
    }

    /// True when new VMs may be placed on it, room permitting.
    pub fn is_eligible(&self) -> bool {
        self.state == MachineState::Up
            && !self.draining
            && self.sweep.is_none()
            && self.damped_until_active_ms.is_none()
    }
}

/// The round through a machine's VMs after its state changed, a bounded chunk per commit.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize,
)]
pub struct Sweep {
    /// Active time of the change: older rounds come first.
    pub since_active_ms: u64,
    /// VMs below this id are done.
    pub next: VmId,
}

/// One member's standing word about a machine.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize,
)]
pub struct Heard {
    /// The member's seat.
    pub member: u16,
    /// It hears the machine now.
    pub standing: bool,
    /// While not standing: active time up to which its word counted.
    pub until_active_ms: u64,
}

/// Whether a machine can be trusted with VMs at present.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    BorshSerialize,
    BorshDeserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum MachineState {
    /// Added; too few rivals have heard it yet.
    Joining,
    /// Its lease stands.
    Up,
    /// Its lease lapsed.
    Lost,
}

/// Amounts that placement counts.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    BorshSerialize,
    BorshDeserialize,
)]
pub struct Resources {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Disk, MiB.
    pub disk_mib: u64,
}

impl Resources {
    /// True when each amount is within the other's.
    pub fn fits_in(&self, room: &Resources) -> bool {
        self.vcpus <= room.vcpus
            && self.memory_mib <= room.memory_mib
            && self.disk_mib <= room.disk_mib
    }

    /// What is left after taking `other` away; `None` if it does not fit.
    pub fn checked_sub(&self, other: &Resources) -> Option<Resources> {
        Some(Resources {
            vcpus: self.vcpus.checked_sub(other.vcpus)?,
            memory_mib: self.memory_mib.checked_sub(other.memory_mib)?,
            disk_mib: self.disk_mib.checked_sub(other.disk_mib)?,
        })
    }

    /// The sum; `None` on overflow.
    pub fn checked_add(&self, other: &Resources) -> Option<Resources> {
        Some(Resources {
            vcpus: self.vcpus.checked_add(other.vcpus)?,
            memory_mib: self.memory_mib.checked_add(other.memory_mib)?,
            disk_mib: self.disk_mib.checked_add(other.disk_mib)?,
        })
    }
}

/// A customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct AccountRecord {
    /// Id.
    pub id: AccountId,
    /// Unique name.
    pub name: String,
    /// Signs the account's transactions; its tokens are checked against it.
    pub key: Key,
    /// The operator that sponsors it.
    pub sponsor: OperatorId,
    /// Ledger time of its creation.
    pub created_ms: u64,
    /// VMs it has.
    pub vms: u64,
    /// What they ask for, placed or not: what quotas count.
    pub asked: Resources,
    /// What its VMs hold on machines.
    pub used: Resources,
    /// What they have held so far.
    pub usage: Usage,
    /// The most it may have, as its sponsor says.
    pub quota: Option<Quota>,
    /// Keys that may act for it.
    pub delegations: Vec<Delegation>,
}

/// A key that may act for an account, within bounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Delegation {
    /// The key.
    pub key: Key,
    /// Kinds of action that it may sign.
    pub actions: Vec<String>,
    /// VMs that it may act on; empty: all.
    pub vms: Vec<String>,
    /// Ledger time until which it may.
    pub until_ms: u64,
}

/// Exact metering: amounts held, integrated over ledger time in ms.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    BorshSerialize,
    BorshDeserialize,
)]
pub struct Usage {
    /// Virtual CPUs times ms.
    #[serde(with = "decimal")]
    pub vcpu_ms: u128,
    /// MiB of memory times ms.
    #[serde(with = "decimal")]
    pub memory_mib_ms: u128,
    /// MiB of disk times ms.
    #[serde(with = "decimal")]
    pub disk_mib_ms: u128,
    /// Ledger time up to which it is counted.
    pub until_ms: u64,
}

impl Usage {
    /// Counts what was held from `until_ms` to `now_ms`. 2^32 MiB for 2^63 ms stay far below 2^128.
    pub fn settle(&mut self, held: &Resources, now_ms: u64) {
        let span_ms = u128::from(now_ms.saturating_sub(self.until_ms));
        self.vcpu_ms += u128::from(held.vcpus) * span_ms;
        self.memory_mib_ms += u128::from(held.memory_mib) * span_ms;
        self.disk_mib_ms += u128::from(held.disk_mib) * span_ms;
        self.until_ms = self.until_ms.max(now_ms);
    }
}

/// Large numbers stand as decimal strings in JSON.
mod decimal {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<u128, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct ImageRecord {
    /// Id.
    pub id: ImageId,
    /// Who published it.
    pub account: AccountId,
    /// Full name, `account/name`.
    pub name: String,
    /// Digest of the manifest.
    pub digest: Digest,
    /// What it is made of.
    pub manifest: ImageManifest,
    /// No new VMs from it.
    pub retired: bool,
    /// Operators that hold a verified copy.
    pub replicas: Vec<OperatorId>,
    /// Ledger time of its publication.
    pub created_ms: u64,
}

/// A virtual machine: what was asked, where it is, and what is observed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct VmRecord {
    /// Id.
    pub id: VmId,
    /// Whose it is.
    pub account: AccountId,
    /// What was asked.
    pub spec: VmSpec,
    /// What is observed.
    pub phase: Phase,
    /// Ledger time since which the phase stands.
    pub phase_since_ms: u64,
    /// Why the phase was entered.
    pub reason: Reason,
    /// Where it is placed; kept while `lost` or `stopped`, for the disk is there.
    pub machine: Option<MachineId>,
    /// Fences older claims: goes up with every new placement, and when a lease lapses.
    pub lease_epoch: u64,
    /// The lease epoch in which its present disk was made; a machine that still has that disk uses it again.
    pub disk_epoch: u64,
    /// Active time at which the phase's owner must have acted; see [`Phase`].
    pub deadline_active_ms: Option<u64>,
    /// Machines that let this placement fail, newest last; they are passed over until it runs.
    pub refused_by: Vec<MachineId>,
    /// Machines in a row that could not run it.
    pub attempts: u32,
    /// It has been up since its disk was made, so the disk may hold something.
    pub ran: bool,
    /// Restarts in a row after it stopped of itself.
    pub restarts: u32,
    /// Goes up with every reboot that the customer asks for.
    pub boots: u64,
    /// The customer wants it on.
    pub power: Power,
    /// The guest's OpenSSH host key of this lease epoch.
    pub ssh_host_key: Option<String>,
    /// How it was started in this lease epoch.
    pub started: Option<Box<Starting>>,
    /// An address of the guest.
    pub address: Option<String>,
    /// What its machine last said when it stopped or failed.
    pub ended: Option<Box<Ended>>,
    /// Ledger time of its creation.
    pub created_ms: u64,
    /// Commit of its creation.
    pub created_commit: u64,
    /// Latest changes of phase, oldest first.
    pub history: Vec<HistoryEntry>,
}

/// What the customer asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct VmSpec {
    /// Name within the account.
    pub name: String,
    /// The image.
    pub image: ImageId,
    /// The digest of its manifest that was signed.
    pub image_digest: Digest,
    /// Virtual CPUs, memory and disk.
    #[serde(flatten)]
    pub size: Resources,
    /// OpenSSH public keys that may log in.
    pub ssh_keys: Vec<String>,
    /// Commitment to sealed user-data.
    pub user_data: Option<Box<UserData>>,
    /// What happens when its machine is lost.
    pub failover: Failover,
    /// What its machine does without a lease.
    pub on_isolation: OnIsolation,
    /// What happens when it stops of itself.
    pub restart: Restart,
    /// Spread group within the account.
    pub spread: Option<String>,
    /// Where it may run.
    pub placement: Option<Box<Placement>>,
    /// For people and tools.
    pub labels: Labels,
}

/// What is observed of a VM. Each phase says who must act next; when the deadline passes the ledger acts instead.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    BorshSerialize,
    BorshDeserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Has no machine; the ledger tries again at the deadline.
    Pending,
    /// A machine was chosen; it must accept by the deadline, or the next candidate gets it.
    Placed,
    /// The machine took it and must start it by the deadline.
    Accepted,
    /// The hypervisor runs; the guest must be up by the deadline.
    Starting,
    /// The guest is up. Fenced by the machine's lease.
    Running,
    /// The customer wants it off; the machine must report it stopped by the deadline.
    Stopping,
    /// It is off and keeps its place. The customer may start or delete it.
    Stopped,
    /// Its machine drains; it must report the VM stopped by the deadline, then the VM is placed elsewhere.
    Moving,
    /// Its machines could not run it. The customer may start it again or delete it.
    Failed,
    /// Its machine's lease lapsed and it may not be recreated; it comes back with the machine.
    Lost,
    /// Its machine must stop it and release its disk by the deadline.
    Deleting,
    /// It stopped of itself; the ledger starts it again on its machine at the deadline.
    Restarting,
}

impl Phase {
    /// As in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Pending => "pending",
            Phase::Placed => "placed",
            Phase::Accepted => "accepted",
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Stopping => "stopping",
            Phase::Stopped => "stopped",
            Phase::Moving => "moving",
            Phase::Failed => "failed",
            Phase::Lost => "lost",
            Phase::Deleting => "deleting",
            Phase::Restarting => "restarting",
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a VM's machine has to do about it. See [`VmRecord::duty`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duty {
    /// Report `accepted` (or `failed`). Do not start it yet.
    Accept,
    /// Have it running: start it if it is not.
    Run,
    /// Have it stopped with its disk kept, and report `stopped`.
    Stop,
    /// Stop it, remove its disk, and report `stopped`.
    Release,
    /// Keep its disk; nothing runs.
    Keep,
}

impl VmRecord {
    /// What the machine it is placed on has to do. For every other machine, and for every older lease epoch, the duty is to stop it and
    /// to remove it.
    pub fn duty(&self) -> Duty {
        match self.phase {
            Phase::Placed => Duty::Accept,
            Phase::Accepted | Phase::Starting | Phase::Running => Duty::Run,
            Phase::Stopping => Duty::Stop,
            Phase::Moving | Phase::Deleting => Duty::Release,
            Phase::Stopped | Phase::Failed | Phase::Lost | Phase::Pending | Phase::Restarting => {
                Duty::Keep
            }
        }
    }
}

/// On or off.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    /// It should run.
    On,
    /// It should not.
    Off,
}

/// Why a VM is in its phase.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    BorshSerialize,
    BorshDeserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The customer asked for it.
    Requested,
    /// Its machine reported it.
    Reported,
    /// The machine's lease lapsed: rivals no longer hear it.
    LeaseLapsed,
    /// The machine did not accept in time.
    NotAccepted,
    /// The machine did not have it running in time.
    NotStarted,
    /// The machine did not report it stopped in time.
    NotStopped,
    /// The machine reported that it cannot run it.
    MachineFailed,
    /// As many machines as are tried could not run it.
    AttemptsExhausted,
    /// No machine fits at present.
    NoMachineFits,
    /// Room was found.
    RoomFound,
    /// Its lost machine came back.
    MachineReturned,
    /// Its machine drains.
    Draining,
    /// It stopped of itself and is started again.
    Restarted,
}

/// One change of phase.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize,
)]
pub struct HistoryEntry {
    /// Commit.
    pub commit: u64,
    /// Ledger time.
    pub time_ms: u64,
    /// Phase entered.
    pub phase: Phase,
    /// Why.
    pub reason: Reason,
    /// Machine at that moment.
    pub machine: Option<MachineId>,
    /// Lease epoch at that moment.
    pub lease_epoch: u64,
}
