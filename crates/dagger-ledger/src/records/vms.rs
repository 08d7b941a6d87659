//! Records of virtual machines: what was asked, where they are, what is observed.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use super::{DisputeRecord, Resources, later};
use crate::action::{
    Ended, Failover, Labels, OnIsolation, Placement, Publish, Published, Restart, Starting,
    UserData,
};
use crate::ids::{AccountId, Digest, ImageId, MachineId, VmId};

/// A virtual machine: what was asked, where it is, and what is observed. Grows at its end only, by parts that are left out
/// while they are empty: so the records of VMs that use nothing new keep their bytes and hashes.
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
    /// The customer's latest dispute about it.
    pub dispute: Option<Box<DisputeRecord>>,
    /// TCP ports of the guest that its machine opens; since format 5 of snapshots.
    #[borsh(
        serialize_with = "later::serialize",
        deserialize_with = "later::deserialize"
    )]
    pub ports: Ports,
}

/// Ports of a guest that its machine opens to everybody.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize,
)]
pub struct Ports {
    /// What the customer asked for.
    pub asked: Vec<Publish>,
    /// What became of it, as the machine says.
    pub opened: Vec<Published>,
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
    /// It must leave its machine, which must report it stopped by the deadline; then it is placed elsewhere.
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
    /// Rivals could not reach it, as its customer claimed.
    DisputeUpheld,
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
