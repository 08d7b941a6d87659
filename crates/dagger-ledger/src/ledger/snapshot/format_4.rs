//! Format 4: before ports could be published. Records of VMs follow one another without their lengths, and nothing was ever
//! added to them.

use std::io::{Read, Result};

use borsh::BorshDeserialize;

use crate::action::{Ended, Starting};
use crate::ids::{AccountId, MachineId, VmId};
use crate::records::{DisputeRecord, HistoryEntry, Phase, Ports, Power, Reason, VmRecord, VmSpec};

pub(super) const VERSION: u32 = 4;

/// [`VmRecord`] as it was.
#[derive(BorshDeserialize)]
struct Vm {
    id: VmId,
    account: AccountId,
    spec: VmSpec,
    phase: Phase,
    phase_since_ms: u64,
    reason: Reason,
    machine: Option<MachineId>,
    lease_epoch: u64,
    disk_epoch: u64,
    deadline_active_ms: Option<u64>,
    refused_by: Vec<MachineId>,
    attempts: u32,
    ran: bool,
    restarts: u32,
    boots: u64,
    power: Power,
    ssh_host_key: Option<String>,
    started: Option<Box<Starting>>,
    address: Option<String>,
    ended: Option<Box<Ended>>,
    created_ms: u64,
    created_commit: u64,
    history: Vec<HistoryEntry>,
    dispute: Option<Box<DisputeRecord>>,
}

/// The next of the VMs' records, as it is now.
pub(super) fn next_vm<R: Read>(bytes: &mut R) -> Result<VmRecord> {
    let was = Vm::deserialize_reader(bytes)?;
    Ok(VmRecord {
        id: was.id,
        account: was.account,
        spec: was.spec,
        phase: was.phase,
        phase_since_ms: was.phase_since_ms,
        reason: was.reason,
        machine: was.machine,
        lease_epoch: was.lease_epoch,
        disk_epoch: was.disk_epoch,
        deadline_active_ms: was.deadline_active_ms,
        refused_by: was.refused_by,
        attempts: was.attempts,
        ran: was.ran,
        restarts: was.restarts,
        boots: was.boots,
        power: was.power,
        ssh_host_key: was.ssh_host_key,
        started: was.started,
        address: was.address,
        ended: was.ended,
        created_ms: was.created_ms,
        created_commit: was.created_commit,
        history: was.history,
        dispute: was.dispute,
        ports: Ports::default(),
    })
}
