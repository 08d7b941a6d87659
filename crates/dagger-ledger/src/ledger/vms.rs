//! A customer's actions on VMs.

use std::sync::Arc;

use crate::action::{Failover, VmCreate, VmPlace, VmRename, VmResize};
use crate::code::Code;
use crate::commit::{Change, Subject};
use crate::ids::{AccountId, VmId};
use crate::ledger::Ledger;
use crate::ledger::execute::{Done, Refusal, refuse};
use crate::ledger::placement::Request;
use crate::records::{MachineState, Phase, Ports, Power, Reason, Resources, VmRecord, VmSpec};

impl Ledger {
    /// The spec that a request describes, with its image found and checked against the digest that was signed.
    pub fn spec_of(&self, account: AccountId, create: &VmCreate) -> Result<VmSpec, Code> {
        let own;
        let name = if create.image.contains('/') {
            &create.image
        } else {
            let account = self.account(account).ok_or(Code::UnknownAccount)?;
            own = format!("{}/{}", account.name, create.image);
            &own
        };
        let image = self.image_by_name(name).ok_or(Code::UnknownImage)?;
        if image.digest != create.image_digest {
            return Err(Code::ImageDigestMismatch);
        }
        if !image.is_for(account) {
            return Err(Code::ImagePrivate);
        }
        if image.retired {
            return Err(Code::ImageRetired);
        }
        if image.replicas.len() < self.parameters.image_replicas_min as usize {
            return Err(Code::ImageNotReady);
        }
        let placement = Some(&create.placement).filter(|placement| !placement.is_empty());
        Ok(VmSpec {
            name: create.name.clone(),
            image: image.id,
            image_digest: create.image_digest,
            size: Resources {
                vcpus: create.vcpus,
                memory_mib: create.memory_mib,
                disk_mib: create.disk_mib,
            },
            ssh_keys: create.ssh_keys.clone(),
            user_data: create.user_data.clone().map(Box::new),
            failover: create.failover,
            on_isolation: create.on_isolation,
            restart: create.restart,
            spread: create.spread.clone(),
            placement: placement.cloned().map(Box::new),
            labels: create.labels.clone(),
        })
    }

    pub(super) fn vm_create(&mut self, account: AccountId, create: &VmCreate) -> Done {
        if self.indexes.account_vms[account.index()].contains_key(create.name.as_str()) {
            return Err(Code::NameTaken.into());
        }
        let spec = self.spec_of(account, create)?;
        self.check_quota(account, 1, &Resources::default(), &spec.size)?;
        let id = VmId(self.vms.len() as u64);
        let request = Request {
            account,
            spec: &spec,
            arch: self.images[spec.image.index()].manifest.arch,
            refused: &[],
            seed: self.seed(id, 1),
        };
        let machine = self.choose(&request).ok_or(Code::NoMachineFits)?;
        let size = spec.size;
        self.indexes.account_vms[account.index()].insert(spec.name.as_str().into(), id);
        self.vms.push(Some(Arc::new(VmRecord {
            id,
            account,
            spec,
            phase: Phase::Pending,
            phase_since_ms: self.clock.time_ms,
            reason: Reason::Requested,
            machine: None,
            lease_epoch: 1,
            disk_epoch: 1,
            deadline_active_ms: None,
            refused_by: Vec::new(),
            attempts: 0,
            ran: false,
            restarts: 0,
            boots: 0,
            power: Power::On,
            ssh_host_key: None,
            started: None,
            address: None,
            ended: None,
            created_ms: self.clock.time_ms,
            created_commit: self.clock.commit_index.unwrap_or(0),
            history: Vec::new(),
            dispute: None,
            ports: Ports {
                asked: create.publish.clone(),
                opened: Vec::new(),
            },
        })));
        self.accounts[account.index()].vms += 1;
        self.count_sponsored(account, 1, &Resources::default(), &size);
        self.take_room(id, machine);
        self.set_phase(id, Phase::Placed, Reason::Requested);
        Ok(Some(Subject::Vm(id)))
    }

    /// Whether the account's quota and its sponsor's allocation allow `vms` more VMs and `more` in place of `less`.
    fn check_quota(
        &self,
        account: AccountId,
        vms: u64,
        less: &Resources,
        more: &Resources,
    ) -> Result<(), Refusal> {
        let account = &self.accounts[account.index()];
        let sponsor = &self.operators[account.sponsor.index()];
        let allocated = sponsor
            .allocation
            .map(|q| (q, sponsor.sponsored_vms, sponsor.sponsored));
        let quota = account
            .quota
            .map(|quota| (quota, account.vms, account.asked));
        for ((most, had, held), whose) in quota
            .into_iter()
            .zip(["account"])
            .chain(allocated.into_iter().zip(["sponsor"]))
        {
            let held = held.checked_sub(less).expect("it is part of the sum");
            let fits = had + vms <= most.vms
                && u64::from(held.vcpus) + u64::from(more.vcpus) <= most.vcpus
                && held.memory_mib + more.memory_mib <= most.memory_mib
                && held.disk_mib + more.disk_mib <= most.disk_mib;
            if !fits {
                return refuse(Code::QuotaExceeded, whose);
            }
        }
        Ok(())
    }

    /// Counts what an account asks for, for itself and for its sponsor.
    fn count_sponsored(&mut self, id: AccountId, vms: u64, less: &Resources, more: &Resources) {
        let change = |held: &Resources| {
            held.checked_sub(less)
                .and_then(|held| held.checked_add(more))
                .expect("sums of specs")
        };
        let account = &mut self.accounts[id.index()];
        account.asked = change(&account.asked);
        let sponsor = &mut self.operators[account.sponsor.index()];
        sponsor.sponsored = change(&sponsor.sponsored);
        sponsor.sponsored_vms += vms;
        self.dirty.accounts.insert(id);
        self.dirty.operators.insert(sponsor.id);
    }

    fn own_vm(&self, account: AccountId, name: &str) -> Result<&VmRecord, Code> {
        self.vm_by_name(account, name).ok_or(Code::UnknownVm)
    }

    /// Whether the VM's machine is there and up.
    pub(super) fn machine_is_up(&self, vm: &VmRecord) -> bool {
        let machine = vm.machine.and_then(|id| self.machine(id));
        machine.is_some_and(|machine| machine.state == MachineState::Up)
    }

    pub(super) fn vm_delete(&mut self, account: AccountId, name: &str) -> Done {
        let vm = self.own_vm(account, name)?;
        let id = vm.id;
        // A placement that was not accepted, and a machine without a lease, have nothing to release.
        let at_once = matches!(vm.phase, Phase::Pending | Phase::Placed) && !vm.ran
            || !self.machine_is_up(vm);
        if at_once {
            self.remove_vm(id);
        } else if vm.phase != Phase::Deleting {
            self.set_phase(id, Phase::Deleting, Reason::Requested);
        }
        Ok(Some(Subject::Vm(id)))
    }

    pub(super) fn vm_stop(&mut self, account: AccountId, name: &str) -> Done {
        let vm = self.own_vm(account, name)?;
        let id = vm.id;
        match vm.phase {
            Phase::Accepted | Phase::Starting | Phase::Running => {
                self.vm_mut(id).power = Power::Off;
                self.set_phase(id, Phase::Stopping, Reason::Requested);
            }
            Phase::Pending | Phase::Lost | Phase::Restarting => {
                self.set_stopped(id, Reason::Requested)
            }
            Phase::Placed => {
                // The machine may be about to accept: the next epoch makes that void.
                self.fence(id);
                self.set_stopped(id, Reason::Requested);
            }
            Phase::Stopping | Phase::Stopped => {}
            Phase::Failed | Phase::Moving | Phase::Deleting => return Err(Code::WrongPhase.into()),
        }
        Ok(Some(Subject::Vm(id)))
    }

    pub(super) fn vm_start(&mut self, account: AccountId, name: &str) -> Done {
        let vm = self.own_vm(account, name)?;
        let (id, phase) = (vm.id, vm.phase);
        if !matches!(phase, Phase::Stopped | Phase::Failed) {
            let on = matches!(
                phase,
                Phase::Pending
                    | Phase::Placed
                    | Phase::Accepted
                    | Phase::Starting
                    | Phase::Running
                    | Phase::Restarting
            );
            return if on {
                Ok(Some(Subject::Vm(id)))
            } else {
                Err(Code::WrongPhase.into())
            };
        }
        let keeps_disk = vm.machine.is_some()
            && (self.machine_is_up(vm) || vm.ran && vm.spec.failover == Failover::None);
        if !keeps_disk && self.candidate_without_place(vm).is_none() {
            return Err(Code::NoMachineFits.into());
        }
        let (up, has_host_key) = (self.machine_is_up(vm), vm.ssh_host_key.is_some());
        let record = self.vm_mut(id);
        record.power = Power::On;
        record.attempts = 0;
        record.restarts = 0;
        record.refused_by.clear();
        record.ended = None;
        if !keeps_disk {
            self.place_anew(id, Reason::Requested);
        } else if !up {
            self.set_phase(id, Phase::Lost, Reason::LeaseLapsed);
        } else if has_host_key && phase == Phase::Stopped {
            self.set_phase(id, Phase::Accepted, Reason::Requested);
        } else {
            self.place_again(id, Reason::Requested, true);
        }
        Ok(Some(Subject::Vm(id)))
    }

    /// The candidate with the VM's refusals forgotten, as it will be when it is started.
    fn candidate_without_place(&self, vm: &VmRecord) -> Option<crate::ids::MachineId> {
        let request = Request {
            account: vm.account,
            spec: &vm.spec,
            arch: self.images[vm.spec.image.index()].manifest.arch,
            refused: &[],
            seed: self.seed(vm.id, vm.lease_epoch + 1),
        };
        self.choose(&request)
    }

    /// Another placement. A VM whose machine is within it stays; another moves, if its disk may be left behind.
    pub(super) fn vm_place(&mut self, account: AccountId, place: &VmPlace) -> Done {
        let vm = self.own_vm(account, &place.vm)?;
        let (id, phase) = (vm.id, vm.phase);
        if matches!(phase, Phase::Moving | Phase::Deleting) {
            return Err(Code::WrongPhase.into());
        }
        let new = Some(&place.placement).filter(|placement| !placement.is_empty());
        let spec = VmSpec {
            placement: new.cloned().map(Box::new),
            ..vm.spec.clone()
        };
        let machine = vm.machine.map(|id| self.machine(id).expect("placed"));
        let moves = machine.is_some_and(|machine| !self.within(&spec, machine));
        if moves {
            if vm.ran && spec.failover == Failover::None {
                return Err(Code::DiskStays.into());
            }
            let moved = VmRecord {
                spec: spec.clone(),
                ..vm.clone()
            };
            if self.candidate_without_place(&moved).is_none() {
                return Err(Code::NoMachineFits.into());
            }
        }
        self.vm_mut(id).spec = spec;
        self.changes.push(Change::VmChanged { vm: id });
        match phase {
            _ if !moves => {}
            // What is off has nothing that must stop; the old machine sees in the ledger that the disk is not wanted any more.
            Phase::Stopped | Phase::Failed => {
                self.release_room(id);
                self.fence(id);
                self.vm_mut(id).ran = false;
            }
            Phase::Lost => self.place_anew(id, Reason::Requested),
            Phase::Stopping => {
                self.fence(id);
                self.release_room(id);
                self.vm_mut(id).ran = false;
                self.set_stopped(id, Reason::Requested);
            }
            _ => self.set_phase(id, Phase::Moving, Reason::Requested),
        }
        Ok(Some(Subject::Vm(id)))
    }

    pub(super) fn vm_reboot(&mut self, account: AccountId, name: &str) -> Done {
        let vm = self.own_vm(account, name)?;
        let id = vm.id;
        if vm.phase != Phase::Running {
            return Err(Code::WrongPhase.into());
        }
        self.vm_mut(id).boots += 1;
        self.changes.push(Change::VmChanged { vm: id });
        Ok(Some(Subject::Vm(id)))
    }

    pub(super) fn vm_rename(&mut self, account: AccountId, rename: &VmRename) -> Done {
        let vm = self.own_vm(account, &rename.vm)?;
        let id = vm.id;
        let names = &mut self.indexes.account_vms[account.index()];
        if names.contains_key(rename.name.as_str()) {
            return Err(Code::NameTaken.into());
        }
        names.remove(rename.vm.as_str());
        names.insert(rename.name.as_str().into(), id);
        let account = &self.accounts[account.index()].name;
        self.dirty
            .removed
            .push(super::state_root::vm_key(account, &rename.vm));
        self.vm_mut(id).spec.name = rename.name.clone();
        self.changes.push(Change::VmChanged { vm: id });
        Ok(Some(Subject::Vm(id)))
    }

    pub(super) fn vm_resize(&mut self, account: AccountId, resize: &VmResize) -> Done {
        let vm = self.own_vm(account, &resize.vm)?;
        let (id, old, place) = (vm.id, vm.spec.size, vm.machine);
        if vm.phase != Phase::Stopped {
            return Err(Code::WrongPhase.into());
        }
        let size = Resources {
            vcpus: resize.vcpus,
            memory_mib: resize.memory_mib,
            disk_mib: resize.disk_mib,
        };
        if size.disk_mib < old.disk_mib {
            return refuse(Code::OutOfRange, "disk_mib");
        }
        self.check_quota(account, 0, &old, &size)?;
        if let Some(machine) = place {
            let record = self.machine(machine).expect("placed");
            let others = record.used.checked_sub(&old).expect("part of the sum");
            let room = record.room_beside(&others).expect("within capacity");
            if !size.fits_in(&room) {
                return Err(Code::NoMachineFits.into());
            }
            self.release_room(id);
            self.vm_mut(id).spec.size = size;
            self.take_room(id, machine);
        } else {
            self.vm_mut(id).spec.size = size;
        }
        self.count_sponsored(account, 0, &old, &size);
        self.changes.push(Change::VmChanged { vm: id });
        Ok(Some(Subject::Vm(id)))
    }
}
