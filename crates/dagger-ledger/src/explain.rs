//! Why a VM would go where it would go: the placement rule's own answers, machine by machine.

use serde::{Deserialize, Serialize};

use crate::ids::{MachineId, OperatorId};

/// The verdict on every machine for one request, as of one commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Commit after which this holds.
    pub commit: u64,
    /// The machine that would be chosen.
    pub chosen: Option<MachineId>,
    /// Every machine, in the order of preference; those filtered out last.
    pub machines: Vec<MachineVerdict>,
}

/// The verdict on one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineVerdict {
    /// The machine.
    pub machine: MachineId,
    /// Its name.
    pub name: String,
    /// Its operator.
    pub operator: OperatorId,
    /// Why not, if it is filtered out.
    pub filtered: Vec<Filter>,
    /// How many VMs of the spread group its operator holds: fewer is better, and decides first.
    pub spread_count: u64,
    /// Memory that would be left, MiB: less is better, and decides second.
    pub left_memory_mib: Option<u64>,
    /// Virtual CPUs that would be left: less is better, and decides third.
    pub left_vcpus: Option<u32>,
    /// Disk that would be left, MiB: less is better, and decides last; what is still equal is decided by the commit's digest.
    pub left_disk_mib: Option<u64>,
}

/// Why a machine is out of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// Rivals do not hear it (enough).
    NotUp,
    /// It drains.
    Draining,
    /// Another architecture.
    Arch,
    /// Too few free virtual CPUs.
    Vcpus,
    /// Too little free memory.
    Memory,
    /// Too little free disk.
    Disk,
    /// Not among the machines that the request names.
    NotNamed,
    /// Not of an operator that the request names.
    OperatorNotNamed,
    /// Not in a region that the request names.
    RegionNotNamed,
    /// Denied by name, operator or region.
    Denied,
    /// The user-data's key is not wrapped to it.
    NoUserDataKey,
    /// It let this placement fail before.
    Refused,
    /// Its lease lapsed again and again; it must stand for a while first.
    Flapping,
}
