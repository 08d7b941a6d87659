//! Actions on accounts, machines and images.

use std::collections::{BTreeMap, BTreeSet};

use crate::action::{
    AccountCreate, ImageAttest, ImagePublish, ImageShare, MachineAdd, MachineUpdate,
};
use crate::action_check::SHARES_MAX;
use crate::code::Code;
use crate::commit::{Change, Subject};
use crate::ids::{AccountId, ImageId, MachineId, OperatorId};
use crate::ledger::Ledger;
use crate::ledger::execute::{Done, refuse};
use crate::ledger::indexes::Principal;
use crate::ledger::state_root::StateKey;
use crate::records::{
    AccountRecord, ImageRecord, MachineRecord, MachineState, OperatorStatus, Resources, Usage,
};

impl Ledger {
    pub(super) fn account_create(&mut self, sponsor: OperatorId, create: &AccountCreate) -> Done {
        if self.indexes.account_names.contains_key(&create.account) {
            return Err(Code::NameTaken.into());
        }
        if self.indexes.keys.contains_key(&create.key) {
            return Err(Code::KeyInUse.into());
        }
        let id = AccountId(self.accounts.len() as u32);
        self.accounts.push(AccountRecord {
            id,
            name: create.account.clone(),
            key: create.key,
            sponsor,
            created_ms: self.clock.time_ms,
            vms: 0,
            asked: Resources::default(),
            used: Resources::default(),
            usage: Usage {
                until_ms: self.clock.time_ms,
                ..Usage::default()
            },
            quota: None,
            delegations: Vec::new(),
        });
        self.indexes
            .account_names
            .insert(create.account.clone(), id);
        self.indexes.keys.insert(create.key, Principal::Account(id));
        self.indexes.account_vms.push(BTreeMap::new());
        self.indexes.spread.push(BTreeMap::new());
        self.dirty.accounts.insert(id);
        self.changes.push(Change::AccountCreated { account: id });
        Ok(Some(Subject::Account(id)))
    }

    /// Sponsors an account whose sponsor is gone, within the operator's own allocation.
    pub(super) fn account_adopt(&mut self, sponsor: OperatorId, name: &str) -> Done {
        let account = self.account_by_name(name).ok_or(Code::UnknownAccount)?;
        let (id, old, vms, asked) = (account.id, account.sponsor, account.vms, account.asked);
        if old == sponsor {
            return Err(Code::AlreadyDone.into());
        }
        if self.operators[old.index()].status == OperatorStatus::Active {
            return refuse(Code::Unauthorised, "it has a sponsor");
        }
        let new = &self.operators[sponsor.index()];
        let held = new.sponsored.checked_add(&asked);
        let held = held.ok_or(Code::QuotaExceeded)?;
        let fits = new.allocation.is_none_or(|most| {
            new.sponsored_vms + vms <= most.vms
                && u64::from(held.vcpus) <= most.vcpus
                && held.memory_mib <= most.memory_mib
                && held.disk_mib <= most.disk_mib
        });
        if !fits {
            return refuse(Code::QuotaExceeded, "sponsor");
        }
        self.operators[sponsor.index()].sponsored = held;
        self.operators[sponsor.index()].sponsored_vms += vms;
        let left = &mut self.operators[old.index()];
        left.sponsored = left.sponsored.checked_sub(&asked).expect("sums of specs");
        left.sponsored_vms -= vms;
        self.dirty.operators.extend([old, sponsor]);
        self.accounts[id.index()].sponsor = sponsor;
        self.account_changed(id)
    }

    pub(super) fn machine_add(&mut self, operator: OperatorId, add: &MachineAdd) -> Done {
        if self.indexes.machine_names.contains_key(&add.machine) {
            return Err(Code::NameTaken.into());
        }
        // One daemon may be both: the member's node key may stand for one machine of the same operator.
        match self.indexes.keys.get(&add.node_key) {
            None => {}
            Some(Principal::Node {
                member: Some(of),
                machine: None,
            }) if *of == operator => {}
            Some(_) => return Err(Code::KeyInUse.into()),
        }
        let id = MachineId(self.machines.len() as u32);
        self.machines.push(Some(MachineRecord {
            id,
            name: add.machine.clone(),
            operator,
            node_key: add.node_key,
            arch: add.arch,
            capacity: Resources {
                vcpus: add.vcpus,
                memory_mib: add.memory_mib,
                disk_mib: add.disk_mib,
            },
            cpu_permille: add.cpu_permille,
            used: Resources::default(),
            labels: add.labels.clone(),
            state: MachineState::Joining,
            draining: false,
            state_since_ms: self.clock.time_ms,
            lapses: 0,
            disputes_upheld: 0,
            vms: 0,
            heard_by: Vec::new(),
            flaps: 0,
            damped_until_active_ms: None,
            sweep: None,
        }));
        self.indexes.machine_vms.push(BTreeSet::new());
        self.index_machine(id);
        self.dirty.machines.insert(id);
        self.changes.push(Change::MachineAdded { machine: id });
        Ok(Some(Subject::Machine(id)))
    }

    /// A machine that the operator owns, by name.
    pub(super) fn own_machine(&self, operator: OperatorId, name: &str) -> Result<MachineId, Code> {
        let machine = self.machine_by_name(name).ok_or(Code::UnknownMachine)?;
        if machine.operator == operator {
            Ok(machine.id)
        } else {
            Err(Code::Unauthorised)
        }
    }

    pub(super) fn machine_drain(
        &mut self,
        operator: OperatorId,
        name: &str,
        draining: bool,
    ) -> Done {
        let id = self.own_machine(operator, name)?;
        if self.machine(id).expect("own").draining != draining {
            self.machine_mut(id).draining = draining;
            if draining {
                self.indexes.draining.insert(id);
            } else {
                self.indexes.draining.remove(&id);
            }
            self.changes.push(Change::MachineDraining {
                machine: id,
                draining,
            });
            self.refresh_pool(id);
        }
        Ok(Some(Subject::Machine(id)))
    }

    pub(super) fn machine_update(&mut self, operator: OperatorId, update: &MachineUpdate) -> Done {
        let id = self.own_machine(operator, &update.machine)?;
        let capacity = Resources {
            vcpus: update.vcpus,
            memory_mib: update.memory_mib,
            disk_mib: update.disk_mib,
        };
        let new = MachineRecord {
            capacity,
            cpu_permille: update.cpu_permille,
            ..self.machine(id).expect("own").clone()
        };
        let largest = self.vms_on(id).map(|vm| vm.spec.size.vcpus).max();
        if !new.used.fits_in(&new.limit()) || largest > Some(capacity.vcpus) {
            return refuse(Code::OutOfRange, "its VMs hold more");
        }
        self.leave_pool(id);
        let machine = self.machine_mut(id);
        machine.capacity = capacity;
        machine.cpu_permille = update.cpu_permille;
        machine.labels = update.labels.clone();
        self.refresh_pool(id);
        self.changes.push(Change::MachineChanged { machine: id });
        Ok(Some(Subject::Machine(id)))
    }

    pub(super) fn machine_remove(&mut self, operator: OperatorId, name: &str) -> Done {
        let id = self.own_machine(operator, name)?;
        if self.machine(id).expect("own").vms > 0 {
            return Err(Code::MachineNotEmpty.into());
        }
        self.machine_goes(id);
        Ok(Some(Subject::Machine(id)))
    }

    /// Takes an empty machine out of the state.
    pub(super) fn machine_goes(&mut self, id: MachineId) {
        let machine = self.machines[id.index()].take().expect("it is there");
        assert!(machine.vms == 0, "its VMs would be nowhere");
        self.indexes.machine_names.remove(&machine.name);
        self.node_key_goes(&machine.node_key, false);
        self.indexes.not_up.remove(&id);
        self.indexes.draining.remove(&id);
        self.indexes
            .lease_looks
            .retain(|(_, machine)| *machine != id);
        if let Some(until_ms) = machine.damped_until_active_ms {
            self.indexes.damped.remove(&(until_ms, id));
        }
        if let Some(sweep) = machine.sweep {
            self.indexes.sweeps.remove(&(sweep.since_active_ms, id));
        }
        self.refresh_pool(id);
        self.dirty
            .removed
            .push(StateKey::Machine(machine.name).hash());
        self.changes.push(Change::MachineRemoved { machine: id });
    }

    pub(super) fn image_publish(&mut self, account: AccountId, publish: &ImagePublish) -> Done {
        let name = format!("{}/{}", self.accounts[account.index()].name, publish.image);
        if self.indexes.image_names.contains_key(&name) {
            return Err(Code::NameTaken.into());
        }
        let id = ImageId(self.images.len() as u32);
        self.images.push(ImageRecord {
            id,
            account,
            name: name.clone(),
            digest: publish.manifest.digest(),
            manifest: publish.manifest.clone(),
            private: publish.private,
            shared_with: Vec::new(),
            retired: false,
            replicas: Vec::new(),
            created_ms: self.clock.time_ms,
        });
        self.indexes.image_names.insert(name, id);
        self.dirty.images.insert(id);
        self.changes.push(Change::ImagePublished { image: id });
        Ok(Some(Subject::Image(id)))
    }

    pub(super) fn image_attest(&mut self, operator: OperatorId, attest: &ImageAttest) -> Done {
        let id = self
            .image_by_name(&attest.image)
            .ok_or(Code::UnknownImage)?
            .id;
        let image = &mut self.images[id.index()];
        if image.digest != attest.digest {
            return Err(Code::ImageDigestMismatch.into());
        }
        if let Err(at) = image.replicas.binary_search(&operator) {
            image.replicas.insert(at, operator);
            self.dirty.images.insert(id);
            self.changes.push(Change::ImageReplica {
                image: id,
                operator,
            });
        }
        Ok(Some(Subject::Image(id)))
    }

    pub(super) fn image_share(&mut self, account: AccountId, share: &ImageShare) -> Done {
        let name = format!("{}/{}", self.accounts[account.index()].name, share.image);
        let image = self.image_by_name(&name).ok_or(Code::UnknownImage)?;
        let id = image.id;
        let mut shared: BTreeSet<AccountId> = image.shared_with.iter().copied().collect();
        let named = |name: &String| {
            let account = self.account_by_name(name);
            account
                .map(|account| account.id)
                .ok_or(Code::UnknownAccount)
        };
        for name in &share.with {
            shared.insert(named(name)?);
        }
        for name in &share.without {
            shared.remove(&named(name)?);
        }
        if shared.len() > SHARES_MAX {
            return Err(Code::TooMany.into());
        }
        self.images[id.index()].shared_with = shared.into_iter().collect();
        self.dirty.images.insert(id);
        self.changes.push(Change::ImageShared { image: id });
        Ok(Some(Subject::Image(id)))
    }

    pub(super) fn image_retire(&mut self, account: AccountId, image: &str) -> Done {
        let name = format!("{}/{}", self.accounts[account.index()].name, image);
        let id = *self
            .indexes
            .image_names
            .get(&name)
            .ok_or(Code::UnknownImage)?;
        if !self.images[id.index()].retired {
            self.images[id.index()].retired = true;
            self.dirty.images.insert(id);
            self.changes.push(Change::ImageRetired { image: id });
        }
        Ok(Some(Subject::Image(id)))
    }
}
