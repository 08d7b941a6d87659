//! Disputes: a customer claims that a VM which its machine reports as running cannot be reached; rivals drawn by the commit's digest probe
//! it, and more than weight f of one mind decide, for one of those is honest.
//!
//! A probe proves that something at the machine answered for the VM, never that it is the customer's guest.

use std::sync::Arc;

use crate::action::{Failover, VmDispute, VmProbe};
use crate::code::Code;
use crate::commit::{Change, Subject};
use crate::ids::{AccountId, OperatorId, VmId};
use crate::ledger::Ledger;
use crate::ledger::execute::{Done, refuse};
use crate::ledger::placement::mix;
use crate::records::{DisputeRecord, DisputeStatus, Phase, Probe, Reason, VmRecord};

impl Ledger {
    pub(super) fn vm_dispute(&mut self, account: AccountId, dispute: &VmDispute) -> Done {
        let vm = self.vm_by_name(account, &dispute.vm);
        let vm = vm.ok_or(Code::UnknownVm)?;
        let (id, lease_epoch) = (vm.id, vm.lease_epoch);
        let Some(machine) = vm.machine.filter(|_| vm.phase == Phase::Running) else {
            return refuse(Code::WrongPhase, vm.phase.as_str());
        };
        let now_ms = self.clock.time_ms;
        let wait_ms = self.parameters.dispute_ms;
        let soon = |last: &DisputeRecord| now_ms < last.opened_ms.saturating_add(wait_ms);
        if vm
            .dispute
            .as_deref()
            .is_some_and(|last| last.status == DisputeStatus::Open || soon(last))
        {
            return Err(Code::TooSoon.into());
        }
        let host = self.machine(machine).expect("placed").operator;
        let rivals = self.draw_rivals(host, self.seed(id, lease_epoch));
        if rivals.is_empty() {
            return Err(Code::NoRivals.into());
        }
        let deadline_active_ms = self.clock.active_ms + wait_ms;
        self.vm_mut(id).dispute = Some(Box::new(DisputeRecord {
            claim: dispute.claim.clone(),
            machine,
            lease_epoch,
            rivals,
            probes: Vec::new(),
            status: DisputeStatus::Open,
            opened_ms: now_ms,
            deadline_active_ms,
            closed_ms: None,
        }));
        self.indexes.disputes.insert((deadline_active_ms, id));
        self.changes.push(Change::VmDispute {
            vm: id,
            status: DisputeStatus::Open,
        });
        Ok(Some(Subject::Vm(id)))
    }

    /// Seats of other operators than the host, in a seeded order, until they weigh more than 2 f: with f liars among them, more than f
    /// are honest.
    fn draw_rivals(&self, host: OperatorId, seed: u64) -> Vec<OperatorId> {
        let seats = self.members.iter().filter(|seat| seat.operator != host);
        let mut order: Vec<(u64, OperatorId, u64)> = seats
            .map(|seat| {
                (
                    mix(seed ^ u64::from(seat.operator.0)),
                    seat.operator,
                    seat.weight,
                )
            })
            .collect();
        order.sort_unstable();
        let enough = 2 * self.fault_weight();
        let mut weight = 0;
        let mut rivals = Vec::new();
        for (_, operator, more) in order {
            if weight > enough {
                break;
            }
            weight += more;
            rivals.push(operator);
        }
        rivals
    }

    pub(super) fn vm_probe(&mut self, rival: OperatorId, probe: &VmProbe) -> Done {
        let vm = self.vm(probe.vm).ok_or(Code::UnknownVm)?;
        let id = vm.id;
        let dispute = vm.dispute.as_deref();
        let dispute = dispute.filter(|d| d.status == DisputeStatus::Open);
        let dispute = dispute.ok_or(Code::NoDispute)?;
        if dispute.lease_epoch != probe.lease_epoch {
            return refuse(Code::StaleEpoch, dispute.lease_epoch.to_string());
        }
        if !dispute.rivals.contains(&rival) {
            return refuse(Code::Unauthorised, "not drawn");
        }
        if dispute.waits_for().all(|waited| waited != rival) {
            return Err(Code::AlreadyDone.into());
        }
        let time_ms = self.clock.time_ms;
        let dispute = self.vm_mut(id).dispute.as_deref_mut().expect("open");
        dispute.probes.push(Probe {
            operator: rival,
            reached: probe.reached,
            detail: probe.detail.clone(),
            time_ms,
        });
        if let Some(status) = self.verdict_of(id) {
            self.close_dispute(id, status);
        }
        Ok(Some(Subject::Vm(id)))
    }

    /// What the probes of a VM decide, once they do.
    fn verdict_of(&self, id: VmId) -> Option<DisputeStatus> {
        let dispute = self.vm(id)?.dispute.as_deref()?;
        let weigh = |reached: bool| -> u64 {
            let probes = dispute.probes.iter().filter(|p| p.reached == reached);
            probes.map(|p| self.seat_weight(p.operator)).sum()
        };
        let enough = self.fault_weight();
        if weigh(true) > enough {
            Some(DisputeStatus::Dismissed)
        } else if weigh(false) > enough {
            Some(DisputeStatus::Upheld)
        } else {
            let all = dispute.waits_for().next().is_none();
            all.then_some(DisputeStatus::Undecided)
        }
    }

    /// Closes the open dispute about a VM, if there is one, and does what follows.
    pub(super) fn close_dispute(&mut self, id: VmId, status: DisputeStatus) {
        let time_ms = self.clock.time_ms;
        let vm = Arc::make_mut(self.vms[id.index()].as_mut().expect("the VM exists"));
        let open = vm.dispute.as_deref_mut();
        let Some(dispute) = open.filter(|d| d.status == DisputeStatus::Open) else {
            return;
        };
        dispute.status = status;
        dispute.closed_ms = Some(time_ms);
        let (deadline_ms, machine) = (dispute.deadline_active_ms, dispute.machine);
        self.indexes.disputes.remove(&(deadline_ms, id));
        self.dirty.vm(id);
        self.changes.push(Change::VmDispute { vm: id, status });
        if status == DisputeStatus::Upheld {
            let machine = self.machine_mut(machine);
            machine.disputes_upheld = machine.disputes_upheld.saturating_add(1);
            self.leave_disputed_machine(id);
        }
    }

    /// A VM whose disk may be left behind goes to another machine, if one fits; any other is its customer's to decide about.
    fn leave_disputed_machine(&mut self, id: VmId) {
        let vm = self.vm(id).expect("the VM exists");
        if vm.spec.failover != Failover::Recreate {
            return;
        }
        let machine = vm.machine.expect("it runs there");
        self.vm_mut(id).refused_by.push(machine);
        if self
            .candidate(self.vm(id).expect("the VM exists"))
            .is_some()
        {
            self.set_phase(id, Phase::Moving, Reason::DisputeUpheld);
        } else {
            self.vm_mut(id).refused_by.pop();
        }
    }

    /// Closes disputes whose time has run out.
    pub(super) fn close_late_disputes(&mut self) {
        while let Some((deadline_ms, id)) = self.indexes.disputes.first().copied() {
            if deadline_ms > self.clock.active_ms {
                return;
            }
            self.close_dispute(id, DisputeStatus::Undecided);
        }
    }

    /// VMs with an open dispute, the most urgent first.
    pub fn disputed_vms(&self) -> impl Iterator<Item = &VmRecord> {
        let ids = self.indexes.disputes.iter();
        ids.filter_map(|(_, id)| self.vm(*id))
    }
}
