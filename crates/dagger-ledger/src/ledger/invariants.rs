//! Checks that records, sums and indexes agree. Linear in the state: on in tests, on restore, and on demand.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{MachineId, VmId};
use crate::ledger::Ledger;
use crate::records::{DisputeStatus, MachineState, Phase, Resources};

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

impl Ledger {
    /// That ids point where they should: what the indexes are built on.
    pub(super) fn check_references(&self) -> Result<(), String> {
        for (slot, operator) in self.operators.iter().enumerate() {
            ensure(operator.id.index() == slot, || format!("operator {slot}"))?;
        }
        for (slot, seat) in self.members.iter().enumerate() {
            let operator = self.operator(seat.operator);
            let seated = operator.is_some_and(|o| o.member.map(usize::from) == Some(slot));
            ensure(seated && seat.weight > 0, || format!("seat {slot}"))?;
        }
        for (slot, machine) in self.machines.iter().enumerate() {
            let Some(machine) = machine else { continue };
            let sound = machine.id.index() == slot && self.operator(machine.operator).is_some();
            ensure(sound, || format!("machine {slot}"))?;
            let room = machine.used.fits_in(&machine.limit());
            ensure(room, || format!("machine {slot} is over capacity"))?;
        }
        for (slot, account) in self.accounts.iter().enumerate() {
            let sound = account.id.index() == slot && self.operator(account.sponsor).is_some();
            ensure(sound, || format!("account {slot}"))?;
        }
        for (slot, image) in self.images.iter().enumerate() {
            let sound = image.id.index() == slot && self.account(image.account).is_some();
            ensure(sound, || format!("image {slot}"))?;
        }
        for vm in self.vms() {
            let sound = self.account(vm.account).is_some()
                && self.image(vm.spec.image).is_some()
                && vm
                    .machine
                    .is_none_or(|machine| self.machine(machine).is_some());
            ensure(sound, || format!("VM {}", vm.id))?;
        }
        Ok(())
    }

    /// Checks that indexes, sums and records agree; says what does not.
    pub fn invariants(&self) -> Result<(), String> {
        self.check_references()?;
        self.check_vms()?;
        self.check_sums()?;
        self.check_indexes()
    }

    fn check_vms(&self) -> Result<(), String> {
        for vm in self.vms() {
            let id = vm.id;
            let placed = !matches!(vm.phase, Phase::Pending | Phase::Stopped | Phase::Failed);
            ensure(!placed || vm.machine.is_some(), || {
                format!("VM {id} {} nowhere", vm.phase)
            })?;
            ensure(vm.phase != Phase::Pending || vm.machine.is_none(), || {
                format!("VM {id} waits for a machine and has one")
            })?;
            let waits = matches!(
                vm.phase,
                Phase::Pending
                    | Phase::Placed
                    | Phase::Accepted
                    | Phase::Starting
                    | Phase::Stopping
                    | Phase::Moving
                    | Phase::Deleting
                    | Phase::Restarting
            );
            ensure(vm.deadline_active_ms.is_some() == waits, || {
                format!("VM {id}: deadline")
            })?;
            ensure(vm.disk_epoch <= vm.lease_epoch, || {
                format!("VM {id}: disk epoch")
            })?;
            let named = self.vm_by_name(vm.account, &vm.spec.name).map(|vm| vm.id);
            ensure(named == Some(id), || format!("VM {id}: name index"))?;
            let open = vm.dispute.as_ref();
            let open = open.filter(|dispute| dispute.status == DisputeStatus::Open);
            let about = open.is_none_or(|dispute| {
                vm.phase == Phase::Running
                    && vm.machine == Some(dispute.machine)
                    && vm.lease_epoch == dispute.lease_epoch
            });
            ensure(about, || format!("VM {id}: its dispute is about another"))?;
            self.check_history(vm)?;
        }
        Ok(())
    }

    /// A VM is placed on at most one machine per lease epoch.
    fn check_history(&self, vm: &crate::records::VmRecord) -> Result<(), String> {
        let mut places: BTreeMap<u64, MachineId> = BTreeMap::new();
        let mut last = 0;
        for entry in &vm.history {
            ensure(entry.lease_epoch >= last, || {
                format!("VM {}: epochs go back", vm.id)
            })?;
            last = entry.lease_epoch;
            let Some(machine) = entry.machine.filter(|_| entry.phase == Phase::Placed) else {
                continue;
            };
            let other = places.insert(entry.lease_epoch, machine);
            ensure(other.is_none_or(|other| other == machine), || {
                format!(
                    "VM {} was placed twice in lease epoch {}",
                    vm.id, entry.lease_epoch
                )
            })?;
        }
        Ok(())
    }

    fn check_sums(&self) -> Result<(), String> {
        let mut machines = vec![(Resources::default(), 0u32); self.machines.len()];
        let mut accounts = vec![(Resources::default(), 0u64); self.accounts.len()];
        let mut operators = vec![Resources::default(); self.operators.len()];
        let mut asked = vec![Resources::default(); self.accounts.len()];
        let mut sponsored = vec![(Resources::default(), 0u64); self.operators.len()];
        let sum = |a: &Resources, b: &Resources| a.checked_add(b).ok_or("a sum overflows");
        for vm in self.vms() {
            accounts[vm.account.index()].1 += 1;
            let asks = &mut asked[vm.account.index()];
            *asks = sum(asks, &vm.spec.size)?;
            if let Some(machine) = vm.machine {
                let size = &vm.spec.size;
                let entry = &mut machines[machine.index()];
                *entry = (sum(&entry.0, size)?, entry.1 + 1);
                let held = &mut accounts[vm.account.index()].0;
                *held = sum(held, size)?;
                let operator = self.machine(machine).expect("checked").operator;
                let hosted = &mut operators[operator.index()];
                *hosted = sum(hosted, size)?;
            }
        }
        for machine in self.machines() {
            let (used, vms) = machines[machine.id.index()];
            ensure(machine.used == used && machine.vms == vms, || {
                format!("machine {}: sum of its VMs", machine.name)
            })?;
        }
        for account in self.accounts() {
            let (used, vms) = accounts[account.id.index()];
            let asks = asked[account.id.index()];
            ensure(
                account.used == used && account.vms == vms && account.asked == asks,
                || format!("account {}: sum of its VMs", account.name),
            )?;
            let entry = &mut sponsored[account.sponsor.index()];
            *entry = (sum(&entry.0, &asks)?, entry.1 + vms);
        }
        for operator in self.operators() {
            let (asks, vms) = sponsored[operator.id.index()];
            ensure(
                operator.sponsored == asks && operator.sponsored_vms == vms,
                || format!("operator {}: sum of what it sponsors", operator.name),
            )?;
            ensure(operator.hosted == operators[operator.id.index()], || {
                format!("operator {}: sum of its VMs", operator.name)
            })?;
        }
        Ok(())
    }

    fn check_indexes(&self) -> Result<(), String> {
        let mut fresh = Ledger {
            tree: Default::default(),
            ..self.clone()
        };
        fresh.rebuild_indexes();
        let (old, new) = (&self.indexes, &fresh.indexes);
        let same = [
            ("keys", old.keys == new.keys),
            ("operator names", old.operator_names == new.operator_names),
            ("machine names", old.machine_names == new.machine_names),
            ("account names", old.account_names == new.account_names),
            ("image names", old.image_names == new.image_names),
            ("VM names", old.account_vms == new.account_vms),
            ("spread counts", old.spread == new.spread),
            ("VMs of machines", old.machine_vms == new.machine_vms),
            ("machines not up", old.not_up == new.not_up),
            ("draining machines", old.draining == new.draining),
            ("rounds", old.sweeps == new.sweeps),
            ("deadlines", old.deadlines == new.deadlines),
            ("disputes", old.disputes == new.disputes),
            ("pools", old.pools.agrees_with(&new.pools)),
        ];
        for (what, agrees) in same {
            ensure(agrees, || format!("index of {what}"))?;
        }
        let looked_at: BTreeSet<MachineId> = old.lease_looks.iter().map(|(_, id)| *id).collect();
        ensure(looked_at.len() == old.lease_looks.len(), || {
            "two looks at a lease".to_string()
        })?;
        for machine in self.machines() {
            let up = machine.state == MachineState::Up;
            ensure(looked_at.contains(&machine.id) == up, || {
                format!("machine {}: its lease is not watched", machine.name)
            })?;
        }
        for (look_ms, id) in &old.lease_looks {
            ensure(
                self.lapse_at(*id)
                    .is_none_or(|lapse_ms| *look_ms <= lapse_ms),
                || format!("machine {id}: its lease is looked at too late"),
            )?;
        }
        let ids: BTreeSet<VmId> = self.vms().map(|vm| vm.id).collect();
        ensure(ids.len() == self.vms().count(), || "VM ids".to_string())
    }
}
