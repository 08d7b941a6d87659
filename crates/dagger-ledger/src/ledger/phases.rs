//! How a VM moves from phase to phase and from machine to machine. Everything that changes a VM's place goes through here, so
//! that sums, indexes and history cannot fall apart.

use crate::commit::Change;
use crate::ids::{MachineId, VmId};
use crate::ledger::Ledger;
use crate::ledger::placement::{Request, free};
use crate::records::{DisputeStatus, HistoryEntry, Phase, Power, Reason, Resources, VmRecord};

impl Ledger {
    /// Enters a phase; its deadline follows from the phase.
    pub(super) fn set_phase(&mut self, id: VmId, phase: Phase, reason: Reason) {
        let parameters = &self.parameters;
        let allowed_ms = match phase {
            Phase::Pending => Some(parameters.retry_ms),
            Phase::Placed => Some(parameters.accept_ms),
            Phase::Accepted | Phase::Starting => Some(parameters.start_ms),
            Phase::Stopping | Phase::Moving | Phase::Deleting => Some(parameters.stop_ms),
            Phase::Restarting => Some(self.restart_wait_ms(id)),
            Phase::Running | Phase::Stopped | Phase::Failed | Phase::Lost => None,
        };
        let history_max = parameters.history_max as usize;
        let clock = self.clock;
        let deadline = allowed_ms.map(|ms| clock.active_ms + ms);
        let vm = self.vm_mut(id);
        let old_deadline = std::mem::replace(&mut vm.deadline_active_ms, deadline);
        // A VM that is tried again and again for want of room has one history entry for it.
        let same = vm.phase == Phase::Pending && phase == Phase::Pending && vm.reason == reason;
        vm.phase = phase;
        vm.reason = reason;
        if !same {
            vm.phase_since_ms = clock.time_ms;
            if vm.history.len() >= history_max {
                let surplus = vm.history.len() + 1 - history_max;
                vm.history.drain(..surplus);
            }
            vm.history.push(HistoryEntry {
                commit: clock.commit_index.unwrap_or(0),
                time_ms: clock.time_ms,
                phase,
                reason,
                machine: vm.machine,
                lease_epoch: vm.lease_epoch,
            });
        }
        let (machine, lease_epoch) = (vm.machine, vm.lease_epoch);
        if phase != Phase::Running {
            self.close_dispute(id, DisputeStatus::Moot);
        }
        if let Some(old) = old_deadline {
            self.indexes.deadlines.remove(&(old, id));
        }
        if let Some(new) = deadline {
            self.indexes.deadlines.insert((new, id));
        }
        match (phase, machine) {
            (Phase::Placed, Some(machine)) => {
                self.changes.push(Change::VmPlaced {
                    vm: id,
                    machine,
                    lease_epoch,
                    reason,
                });
            }
            _ if !same => {
                self.changes.push(Change::VmPhase {
                    vm: id,
                    phase,
                    reason,
                    machine,
                    lease_epoch,
                });
            }
            _ => {}
        }
    }

    /// The next lease epoch: every older claim is void, and so is what an older instance said of itself.
    pub(super) fn fence(&mut self, id: VmId) {
        let vm = self.vm_mut(id);
        vm.lease_epoch += 1;
        vm.ssh_host_key = None;
        vm.started = None;
        vm.address = None;
        vm.ports.opened = Vec::new();
    }

    /// Takes room on a machine for a VM that has none. The caller has chosen the machine by the rule, so it fits.
    pub(super) fn take_room(&mut self, id: VmId, machine: MachineId) {
        let vm = self.vm_mut(id);
        assert!(vm.machine.is_none(), "a VM is in one place");
        vm.machine = Some(machine);
        let (account, size) = (vm.account, vm.spec.size);
        let group: Box<str> = vm.spec.spread.as_deref().unwrap_or("").into();
        self.settle(account.index(), machine);
        let record = self.machine_mut(machine);
        assert!(size.fits_in(&free(record)), "never over capacity");
        record.used = record.used.checked_add(&size).expect("within capacity");
        record.vms += 1;
        let operator = record.operator;
        self.hold(account.index(), operator.index(), |held| {
            held.checked_add(&size)
        });
        self.indexes.machine_vms[machine.index()].insert(id);
        self.count_spread(account, group, operator, true);
        self.refresh_pool(machine);
    }

    /// Gives up a VM's room.
    pub(super) fn release_room(&mut self, id: VmId) {
        let vm = self.vm_mut(id);
        let Some(machine) = vm.machine.take() else {
            return;
        };
        let (account, size) = (vm.account, vm.spec.size);
        let group: Box<str> = vm.spec.spread.as_deref().unwrap_or("").into();
        self.settle(account.index(), machine);
        let record = self.machine_mut(machine);
        record.used = record.used.checked_sub(&size).expect("what was taken");
        record.vms -= 1;
        let operator = record.operator;
        self.hold(account.index(), operator.index(), |held| {
            held.checked_sub(&size)
        });
        self.indexes.machine_vms[machine.index()].remove(&id);
        self.count_spread(account, group, operator, false);
        self.refresh_pool(machine);
    }

    /// Meters what an account and an operator held until now, before the amounts change.
    pub(super) fn settle(&mut self, account: usize, machine: MachineId) {
        let now_ms = self.clock.time_ms;
        let operator = self
            .machine(machine)
            .expect("the machine exists")
            .operator
            .index();
        let account = &mut self.accounts[account];
        account.usage.settle(&account.used, now_ms);
        self.dirty.accounts.insert(account.id);
        let operator = &mut self.operators[operator];
        operator.usage.settle(&operator.hosted, now_ms);
        self.dirty.operators.insert(operator.id);
    }

    /// Changes what an account and an operator hold.
    pub(super) fn hold(
        &mut self,
        account: usize,
        operator: usize,
        change: impl Fn(&Resources) -> Option<Resources>,
    ) {
        let account = &mut self.accounts[account];
        account.used = change(&account.used).expect("sums of what machines hold");
        let operator = &mut self.operators[operator];
        operator.hosted = change(&operator.hosted).expect("sums of what machines hold");
    }

    /// The machine a VM would get now in its next lease epoch.
    pub(super) fn candidate(&self, vm: &VmRecord) -> Option<MachineId> {
        let image = &self.images[vm.spec.image.index()];
        let request = Request {
            account: vm.account,
            spec: &vm.spec,
            arch: image.manifest.arch,
            refused: &vm.refused_by,
            seed: self.seed(vm.id, vm.lease_epoch + 1),
        };
        self.choose(&request)
    }

    /// A new place under a new lease epoch, with a new disk. `reason` says why it left the old one. Without room it waits.
    pub(super) fn place_anew(&mut self, id: VmId, reason: Reason) {
        self.release_room(id);
        let machine = self.candidate(self.vm(id).expect("the VM exists"));
        self.fence(id);
        let vm = self.vm_mut(id);
        vm.ran = false;
        vm.disk_epoch = vm.lease_epoch;
        match machine {
            Some(machine) => {
                self.take_room(id, machine);
                self.set_phase(id, Phase::Placed, reason);
            }
            None => {
                // Who refused may be asked again once nobody else is left.
                self.vm_mut(id).refused_by.clear();
                self.set_phase(id, Phase::Pending, Reason::NoMachineFits);
            }
        }
    }

    /// Its machine could not run it: the next candidate gets it, unless its disk would be lost or enough have tried.
    pub(super) fn try_next_machine(&mut self, id: VmId, reason: Reason) {
        let attempts_max = self.parameters.placement_attempts_max;
        let vm = self.vm_mut(id);
        let keep_disk = vm.ran && vm.spec.failover == crate::action::Failover::None;
        vm.attempts += 1;
        if let Some(machine) = vm.machine.filter(|m| !vm.refused_by.contains(m)) {
            vm.refused_by.push(machine);
        }
        if keep_disk {
            self.fence(id);
            self.set_phase(id, Phase::Failed, reason);
        } else if self.vm(id).expect("the VM exists").attempts >= attempts_max {
            self.release_room(id);
            self.fence(id);
            let vm = self.vm_mut(id);
            vm.refused_by.clear();
            vm.ran = false;
            self.set_phase(id, Phase::Failed, Reason::AttemptsExhausted);
        } else {
            self.place_anew(id, reason);
        }
    }

    /// Starts a VM again where its disk is, under a new lease epoch.
    pub(super) fn place_again(&mut self, id: VmId, reason: Reason, fence: bool) {
        if fence {
            self.fence(id);
        }
        self.set_phase(id, Phase::Placed, reason);
    }

    /// A VM that stopped of itself waits for its next start, the longer the oftener it did.
    pub(super) fn restart_later(&mut self, id: VmId) {
        let (now_ms, calm_ms) = (self.clock.time_ms, self.parameters.restart_max_ms);
        let vm = self.vm_mut(id);
        let ran_long = vm.phase == Phase::Running && now_ms - vm.phase_since_ms >= calm_ms;
        vm.restarts = if ran_long { 1 } else { vm.restarts + 1 };
        self.set_phase(id, Phase::Restarting, Reason::Reported);
    }

    fn restart_wait_ms(&self, id: VmId) -> u64 {
        let before = self.vm(id).expect("the VM exists").restarts.max(1) - 1;
        let wait_ms = self
            .parameters
            .restart_ms
            .saturating_mul(1 << before.min(30));
        wait_ms.min(self.parameters.restart_max_ms)
    }

    /// Starts a VM that stopped of itself, on its disk. Without a lease its machine cannot; then the lapse decides, or the next look.
    pub(super) fn restart(&mut self, id: VmId) {
        let vm = self.vm(id).expect("the VM exists");
        if self.machine_is_up(vm) {
            self.place_again(id, Reason::Restarted, true);
        } else {
            let reason = vm.reason;
            self.set_phase(id, Phase::Restarting, reason);
        }
    }

    /// The VM is off.
    pub(super) fn set_stopped(&mut self, id: VmId, reason: Reason) {
        self.vm_mut(id).power = Power::Off;
        self.set_phase(id, Phase::Stopped, reason);
    }

    /// Takes a VM out of the state.
    pub(super) fn remove_vm(&mut self, id: VmId) {
        let machine = self.vm(id).expect("the VM exists").machine;
        self.close_dispute(id, DisputeStatus::Moot);
        self.release_room(id);
        let vm = self.vms[id.index()].take().expect("the VM exists");
        if let Some(deadline) = vm.deadline_active_ms {
            self.indexes.deadlines.remove(&(deadline, id));
        }
        self.indexes.account_vms[vm.account.index()].remove(vm.spec.name.as_str());
        let account = &mut self.accounts[vm.account.index()];
        account.vms -= 1;
        account.asked = account
            .asked
            .checked_sub(&vm.spec.size)
            .expect("sums of specs");
        self.dirty.accounts.insert(account.id);
        let sponsor = &mut self.operators[account.sponsor.index()];
        sponsor.sponsored_vms -= 1;
        sponsor.sponsored = sponsor
            .sponsored
            .checked_sub(&vm.spec.size)
            .expect("sums of specs");
        self.dirty.operators.insert(sponsor.id);
        self.dirty
            .removed
            .push(super::state_root::vm_key(&account.name, &vm.spec.name));
        self.changes.push(Change::VmDeleted { vm: id, machine });
    }
}
