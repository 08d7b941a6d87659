//! Indexes over the records: derived, never hashed, rebuilt on restore. Hash maps here serve look-ups only; nothing
//! iterates over them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::ids::{AccountId, ImageId, Key, MachineId, OperatorId, VmId};
use crate::ledger::Ledger;
use crate::ledger::placement::Pools;
use crate::records::{DisputeStatus, OperatorStatus};

/// What a key may speak for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Principal {
    /// An operator's cold key.
    Operator(OperatorId),
    /// A member's consensus key; signs no transactions.
    Consensus(OperatorId),
    /// An account's key.
    Account(AccountId),
    /// A key that may act for an account within bounds.
    Delegate(AccountId),
    /// A node: of a member, of a machine, or of both.
    Node {
        member: Option<OperatorId>,
        machine: Option<MachineId>,
    },
}

/// VMs of one spread group, per operator.
pub(super) type SpreadCounts = BTreeMap<OperatorId, u64>;

#[derive(Clone, Default)]
pub(super) struct Indexes {
    pub(super) operator_names: HashMap<String, OperatorId>,
    pub(super) machine_names: HashMap<String, MachineId>,
    pub(super) account_names: HashMap<String, AccountId>,
    pub(super) image_names: HashMap<String, ImageId>,
    pub(super) keys: HashMap<Key, Principal>,
    /// Per account: its VMs by name.
    pub(super) account_vms: Vec<BTreeMap<Box<str>, VmId>>,
    /// Per account: its spread groups; the group of VMs without one is "".
    pub(super) spread: Vec<BTreeMap<Box<str>, SpreadCounts>>,
    /// Per machine: VMs placed on it.
    pub(super) machine_vms: Vec<BTreeSet<VmId>>,
    /// Eligible machines by room.
    pub(super) pools: Pools,
    /// Machines that are up, by the earliest active time at which their lease could lapse.
    pub(super) lease_looks: BTreeSet<(u64, MachineId)>,
    /// Machines that are not up.
    pub(super) not_up: BTreeSet<MachineId>,
    pub(super) draining: BTreeSet<MachineId>,
    /// Machines that flapped, by the active time until which they get no new VMs.
    pub(super) damped: BTreeSet<(u64, MachineId)>,
    /// Machines with a round through their VMs under way, oldest first.
    pub(super) sweeps: BTreeSet<(u64, MachineId)>,
    /// VMs by the active time of their deadline.
    pub(super) deadlines: BTreeSet<(u64, VmId)>,
    /// VMs with an open dispute, by the active time of its deadline.
    pub(super) disputes: BTreeSet<(u64, VmId)>,
}

impl Ledger {
    /// Builds every index from the records.
    pub(super) fn rebuild_indexes(&mut self) {
        let mut indexes = Indexes::default();
        for operator in &self.operators {
            if operator.status == OperatorStatus::Removed {
                continue;
            }
            indexes
                .operator_names
                .insert(operator.name.clone(), operator.id);
            indexes
                .keys
                .insert(operator.operator_key, Principal::Operator(operator.id));
            indexes
                .keys
                .insert(operator.consensus_key, Principal::Consensus(operator.id));
            let node = Principal::Node {
                member: Some(operator.id),
                machine: None,
            };
            indexes.keys.insert(operator.node_key, node);
        }
        for account in &self.accounts {
            indexes
                .account_names
                .insert(account.name.clone(), account.id);
            indexes
                .keys
                .insert(account.key, Principal::Account(account.id));
            for delegation in &account.delegations {
                let delegate = Principal::Delegate(account.id);
                indexes.keys.insert(delegation.key, delegate);
            }
            indexes.account_vms.push(BTreeMap::new());
            indexes.spread.push(BTreeMap::new());
        }
        for image in &self.images {
            indexes.image_names.insert(image.name.clone(), image.id);
        }
        self.indexes = indexes;
        for slot in 0..self.machines.len() {
            self.indexes.machine_vms.push(BTreeSet::new());
            if self.machines[slot].is_some() {
                self.index_machine(MachineId(slot as u32));
            }
        }
        for slot in 0..self.vms.len() {
            if self.vms[slot].is_some() {
                self.index_vm(VmId(slot as u64));
            }
        }
    }

    /// Enters a machine everywhere; its slot in `machine_vms` exists already.
    pub(super) fn index_machine(&mut self, id: MachineId) {
        let machine = self.machines[id.index()]
            .as_ref()
            .expect("the machine exists");
        self.indexes.machine_names.insert(machine.name.clone(), id);
        let node = Principal::Node {
            member: None,
            machine: Some(id),
        };
        let entry = self.indexes.keys.entry(machine.node_key).or_insert(node);
        if let Principal::Node { machine, .. } = entry {
            *machine = Some(id);
        }
        if machine.draining {
            self.indexes.draining.insert(id);
        }
        if let Some(until_ms) = machine.damped_until_active_ms {
            self.indexes.damped.insert((until_ms, id));
        }
        if let Some(sweep) = machine.sweep {
            self.indexes.sweeps.insert((sweep.since_active_ms, id));
        }
        if machine.state == crate::records::MachineState::Up {
            let look_ms = self.lapse_at(id).unwrap_or(0);
            self.indexes.lease_looks.insert((look_ms, id));
        } else {
            self.indexes.not_up.insert(id);
        }
        self.refresh_pool(id);
    }

    fn index_vm(&mut self, id: VmId) {
        let vm = self.vms[id.index()].as_ref().expect("the VM exists");
        let account = vm.account.index();
        self.indexes.account_vms[account].insert(vm.spec.name.as_str().into(), id);
        if let Some(deadline_ms) = vm.deadline_active_ms {
            self.indexes.deadlines.insert((deadline_ms, id));
        }
        if let Some(dispute) = vm.dispute.as_deref()
            && dispute.status == DisputeStatus::Open
        {
            let deadline_ms = dispute.deadline_active_ms;
            self.indexes.disputes.insert((deadline_ms, id));
        }
        if let Some(machine) = vm.machine {
            self.indexes.machine_vms[machine.index()].insert(id);
            let operator = self.machines[machine.index()]
                .as_ref()
                .expect("placed")
                .operator;
            let group = vm.spec.spread.as_deref().unwrap_or("");
            self.count_spread(vm.account, group.into(), operator, true);
        }
    }

    /// Counts a VM of a spread group in or out.
    pub(super) fn count_spread(
        &mut self,
        account: AccountId,
        group: Box<str>,
        operator: OperatorId,
        more: bool,
    ) {
        let groups = &mut self.indexes.spread[account.index()];
        if more {
            *groups
                .entry(group)
                .or_default()
                .entry(operator)
                .or_default() += 1;
            return;
        }
        let counts = groups.get_mut(&group).expect("counted before");
        let count = counts.get_mut(&operator).expect("counted before");
        *count -= 1;
        if *count == 0 {
            counts.remove(&operator);
        }
        if counts.is_empty() {
            groups.remove(&group);
        }
    }
}
