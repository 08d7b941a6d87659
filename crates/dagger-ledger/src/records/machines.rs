//! Records of machines: what they offer, and who hears them.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use super::Resources;
use crate::action::{Arch, Labels};
use crate::ids::{Key, MachineId, OperatorId, VmId};

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
    /// Disputes about VMs there that rivals upheld.
    pub disputes_upheld: u32,
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
