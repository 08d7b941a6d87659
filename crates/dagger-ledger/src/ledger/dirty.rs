//! What has changed since the state root was last computed.

use std::collections::BTreeSet;

use crate::ids::{AccountId, ImageId, MachineId, OperatorId, VmId};
use crate::ledger::Ledger;

#[derive(Clone, Default)]
pub(super) struct Dirty {
    pub(super) parameters: bool,
    pub(super) operators: BTreeSet<OperatorId>,
    pub(super) machines: BTreeSet<MachineId>,
    pub(super) accounts: BTreeSet<AccountId>,
    pub(super) images: BTreeSet<ImageId>,
    pub(super) proposals: BTreeSet<u64>,
    /// In the order of their first change; `vm_marks` keeps each from standing here twice.
    pub(super) vms: Vec<VmId>,
    vm_marks: Vec<u64>,
    /// Key hashes of records that are gone or have another key now.
    pub(super) removed: Vec<[u8; 32]>,
}

impl Dirty {
    pub(super) fn vm(&mut self, id: VmId) {
        let (word, bit) = (id.index() / 64, 1u64 << (id.index() % 64));
        if word >= self.vm_marks.len() {
            self.vm_marks.resize(word + 1, 0);
        }
        if self.vm_marks[word] & bit == 0 {
            self.vm_marks[word] |= bit;
            self.vms.push(id);
        }
    }

    /// Takes the changed VMs and unmarks them.
    pub(super) fn take_vms(&mut self) -> Vec<VmId> {
        for id in &self.vms {
            self.vm_marks[id.index() / 64] = 0;
        }
        std::mem::take(&mut self.vms)
    }
}

impl Ledger {
    /// Marks every record: the tree is to be built anew.
    pub(super) fn mark_everything(&mut self) {
        self.dirty.parameters = true;
        self.dirty.operators = self.operators.iter().map(|o| o.id).collect();
        self.dirty.machines = self.machines.iter().flatten().map(|m| m.id).collect();
        self.dirty.accounts = self.accounts.iter().map(|a| a.id).collect();
        self.dirty.images = self.images.iter().map(|i| i.id).collect();
        self.dirty.proposals = self.proposals.keys().copied().collect();
        for vm in self.vms.iter().flatten() {
            self.dirty.vm(vm.id);
        }
    }
}
