//! What happens by time: rounds through the VMs of machines that lapsed or returned, deadlines of phases, drains, and the brake
//! on mass failover. All of it in bounded chunks per commit.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::action::Failover;
use crate::commit::Change;
use crate::ids::{MachineId, VmId};
use crate::ledger::Ledger;
use crate::records::{MachineState, OperatorStatus, Phase, Reason, Sweep};

/// The mass-failover brake: a flood of lapses is more likely a fault of the network than of so many machines, and must not move everything at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Brake {
    /// Active times of the lapses in the window.
    lapses: Vec<u64>,
    on: bool,
    /// Thousandths of a VM that may be re-placed now.
    allowance: u64,
}

impl Ledger {
    /// Notes one machine's lapse.
    pub(super) fn brake_notes_lapse(&mut self) {
        self.brake.lapses.push(self.clock.active_ms);
    }

    /// True while re-placement is rate-limited because too many machines lapsed at once.
    pub fn brake_is_on(&self) -> bool {
        self.brake.on
    }

    /// VMs on machines whose round is under way.
    pub fn failover_waiting(&self) -> u64 {
        let machines = self
            .indexes
            .sweeps
            .iter()
            .filter_map(|(_, id)| self.machine(*id));
        machines.map(|machine| u64::from(machine.vms)).sum()
    }

    /// Decides whether the brake is on, and lets its allowance grow.
    fn apply_brake(&mut self, passed_ms: u64) {
        let window_ms = self.parameters.brake_window_ms;
        let since_ms = self.clock.active_ms.saturating_sub(window_ms);
        self.brake.lapses.retain(|lapse_ms| *lapse_ms >= since_ms);
        let machines = self.indexes.machine_names.len() as u64;
        let share = u64::from(self.parameters.brake_percent);
        let lapses = self.brake.lapses.len() as u64;
        // One machine is never a flood, however small the network.
        let flood = lapses > 1 && lapses * 100 > share * machines;
        let on = flood || (self.brake.on && !self.indexes.sweeps.is_empty());
        // Opened by vote, it is open at once.
        let on = on && share < 100;
        if on != self.brake.on {
            self.brake.on = on;
            self.brake.allowance = 0;
            let waiting = self.failover_waiting();
            self.changes.push(Change::Brake { on, waiting });
        }
        if on {
            let more = passed_ms.saturating_mul(u64::from(self.parameters.brake_vms_per_s));
            let most = u64::from(self.parameters.failover_chunk_max) * 1_000;
            self.brake.allowance = self.brake.allowance.saturating_add(more).min(most);
        }
    }

    /// Goes on with the rounds, oldest first.
    pub(super) fn sweep_machines(&mut self, passed_ms: u64) {
        self.apply_brake(passed_ms);
        let mut budget = self.parameters.failover_chunk_max as usize;
        let queue: Vec<MachineId> = self.indexes.sweeps.iter().map(|(_, id)| *id).collect();
        for machine in queue {
            if budget == 0 {
                break;
            }
            budget = self.sweep_machine(machine, budget);
        }
    }

    /// Goes on with one machine's round; returns what is left of the budget. A round that the brake
    /// holds does not hold those behind it: a machine that came back gets its VMs at once.
    fn sweep_machine(&mut self, machine: MachineId, mut budget: usize) -> usize {
        let record = self.machine(machine).expect("the machine exists");
        let sweep = record.sweep.expect("its round is under way");
        let up = record.state == MachineState::Up;
        let vms = &self.indexes.machine_vms[machine.index()];
        let ids: Vec<VmId> = vms.range(sweep.next..).take(budget).copied().collect();
        let all = ids.len() < budget;
        for id in ids {
            let braked = self.brake.on && !up && self.would_move(id);
            if braked && self.brake.allowance < 1_000 {
                self.machine_mut(machine).sweep = Some(Sweep { next: id, ..sweep });
                return budget;
            }
            if braked {
                self.brake.allowance -= 1_000;
            }
            if up {
                self.vm_returns(id);
            } else {
                self.vm_lapses(id);
            }
            budget -= 1;
            let next = VmId(id.0 + 1);
            self.machine_mut(machine).sweep = Some(Sweep { next, ..sweep });
        }
        if all {
            self.machine_mut(machine).sweep = None;
            self.indexes
                .sweeps
                .remove(&(sweep.since_active_ms, machine));
            self.refresh_pool(machine);
        }
        budget
    }

    /// Whether a lapse of its machine's lease places the VM elsewhere.
    fn would_move(&self, id: VmId) -> bool {
        let vm = self.vm(id).expect("indexed");
        match vm.phase {
            Phase::Moving => true,
            Phase::Placed
            | Phase::Accepted
            | Phase::Starting
            | Phase::Running
            | Phase::Restarting => vm.spec.failover == Failover::Recreate,
            _ => false,
        }
    }

    /// The lease of the VM's machine lapsed.
    fn vm_lapses(&mut self, id: VmId) {
        let vm = self.vm(id).expect("indexed");
        match vm.phase {
            Phase::Deleting => self.remove_vm(id),
            Phase::Moving => self.place_anew(id, Reason::LeaseLapsed),
            Phase::Stopping => {
                self.fence(id);
                self.set_stopped(id, Reason::LeaseLapsed);
            }
            Phase::Placed
            | Phase::Accepted
            | Phase::Starting
            | Phase::Running
            | Phase::Restarting => {
                if vm.spec.failover == Failover::Recreate {
                    self.place_anew(id, Reason::LeaseLapsed);
                } else {
                    self.fence(id);
                    self.set_phase(id, Phase::Lost, Reason::LeaseLapsed);
                }
            }
            Phase::Stopped | Phase::Failed | Phase::Lost | Phase::Pending => {}
        }
    }

    /// The VM's machine came back before the VM was placed elsewhere: it goes on there, under a new lease epoch.
    fn vm_returns(&mut self, id: VmId) {
        match self.vm(id).expect("indexed").phase {
            // Its epoch went up when the lease lapsed, and it was placed nowhere since.
            Phase::Lost => self.place_again(id, Reason::MachineReturned, false),
            Phase::Placed | Phase::Accepted | Phase::Starting | Phase::Running => {
                self.place_again(id, Reason::MachineReturned, true);
            }
            _ => {}
        }
    }

    /// Acts for everyone who missed a deadline.
    pub(super) fn pass_deadlines(&mut self) {
        let now_ms = self.clock.active_ms;
        for _ in 0..self.parameters.failover_chunk_max {
            match self.indexes.deadlines.first().copied() {
                Some((deadline_ms, id)) if deadline_ms <= now_ms => self.pass_deadline(id),
                _ => return,
            }
        }
    }

    fn pass_deadline(&mut self, id: VmId) {
        match self.vm(id).expect("indexed").phase {
            Phase::Pending => match self.candidate(self.vm(id).expect("indexed")) {
                Some(_) => self.place_anew(id, Reason::RoomFound),
                None => self.set_phase(id, Phase::Pending, Reason::NoMachineFits),
            },
            Phase::Placed => self.try_next_machine(id, Reason::NotAccepted),
            Phase::Accepted | Phase::Starting => self.try_next_machine(id, Reason::NotStarted),
            Phase::Stopping => {
                self.fence(id);
                self.set_stopped(id, Reason::NotStopped);
            }
            Phase::Moving => self.place_anew(id, Reason::NotStopped),
            Phase::Restarting => self.restart(id),
            Phase::Deleting => self.remove_vm(id),
            phase => unreachable!("{phase} has no deadline"),
        }
    }

    /// Moves the next VM off each draining machine, one at a time, and only if there is room elsewhere.
    pub(super) fn drain_machines(&mut self) {
        let machines: Vec<MachineId> = self.indexes.draining.iter().copied().collect();
        for machine in machines {
            let record = self.machine(machine).expect("indexed");
            let owner = &self.operators[record.operator.index()];
            if record.vms == 0 && owner.status == OperatorStatus::Removed {
                // Nobody is left who could take it out.
                self.machine_goes(machine);
                continue;
            }
            if self.machine(machine).expect("indexed").state != MachineState::Up {
                continue;
            }
            if self.vms_on(machine).any(|vm| vm.phase == Phase::Moving) {
                continue;
            }
            let may_move = |phase| {
                matches!(
                    phase,
                    Phase::Placed
                        | Phase::Accepted
                        | Phase::Starting
                        | Phase::Running
                        | Phase::Restarting
                )
            };
            let next = self.vms_on(machine).find(|vm| {
                vm.spec.failover == Failover::Recreate
                    && may_move(vm.phase)
                    && self.candidate(vm).is_some()
            });
            if let Some(id) = next.map(|vm| vm.id) {
                self.set_phase(id, Phase::Moving, Reason::Draining);
            }
        }
    }

    /// Ledger time from which on something may lapse with the next commit; for leases see [`Ledger::look_ahead`]. `None`: nothing waits.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let sweep = match (self.indexes.sweeps.is_empty(), self.brake.on) {
            (true, _) => None,
            (false, false) => Some(self.clock.active_ms + 1),
            (false, true) => {
                let missing = 1_000u64.saturating_sub(self.brake.allowance).max(1);
                let rate = u64::from(self.parameters.brake_vms_per_s);
                (rate > 0).then(|| self.clock.active_ms + missing.div_ceil(rate))
            }
        };
        let lease = self
            .indexes
            .lease_looks
            .first()
            .map(|(look_ms, _)| *look_ms);
        let deadline = self
            .indexes
            .deadlines
            .first()
            .map(|(deadline_ms, _)| *deadline_ms);
        let dispute = self.indexes.disputes.first();
        let dispute = dispute.map(|(deadline_ms, _)| *deadline_ms);
        let due = sweep.into_iter().chain(lease).chain(deadline);
        let next_ms = due.chain(dispute).min()?;
        Some(self.clock.time_ms + next_ms.saturating_sub(self.clock.active_ms))
    }
}
