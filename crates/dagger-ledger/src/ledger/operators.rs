//! Operators come, go and change their keys.

use crate::action::{MachineKey, OperatorAdd, OperatorKeys};
use crate::code::Code;
use crate::commit::{Change, Subject};
use crate::ids::{Key, OperatorId};
use crate::ledger::Ledger;
use crate::ledger::execute::{Done, refuse};
use crate::ledger::indexes::Principal;
use crate::records::{OperatorRecord, OperatorStatus, Resources, Usage};

impl Ledger {
    pub(super) fn operator_changed(&mut self, id: OperatorId) {
        self.dirty.operators.insert(id);
        self.changes.push(Change::OperatorChanged { operator: id });
    }

    pub(super) fn operator_add(&mut self, add: OperatorAdd) {
        let id = OperatorId(self.operators.len() as u32);
        self.indexes.operator_names.insert(add.name.clone(), id);
        self.indexes
            .keys
            .insert(add.operator_key, Principal::Operator(id));
        self.indexes
            .keys
            .insert(add.consensus_key, Principal::Consensus(id));
        let node = Principal::Node {
            member: Some(id),
            machine: None,
        };
        self.indexes.keys.insert(add.node_key, node);
        self.operators.push(OperatorRecord {
            id,
            name: add.name,
            operator_key: add.operator_key,
            consensus_key: add.consensus_key,
            node_key: add.node_key,
            weight: add.weight,
            member: None,
            address: add.address,
            hosted: Resources::default(),
            usage: Usage {
                until_ms: self.clock.time_ms,
                ..Usage::default()
            },
            status: OperatorStatus::Active,
            allocation: None,
            sponsored_vms: 0,
            sponsored: Resources::default(),
            rotated_ms: 0,
            unseated: None,
        });
        self.operator_changed(id);
    }

    /// Its keys mean nothing from now on; its machines drain; its seat goes with the next epoch.
    pub(super) fn operator_goes(&mut self, id: OperatorId) {
        let operator = &mut self.operators[id.index()];
        self.indexes.operator_names.remove(&operator.name);
        operator.status = OperatorStatus::Removed;
        for key in [operator.operator_key, operator.consensus_key] {
            self.indexes.keys.remove(&key);
        }
        // The node goes on reporting on the VMs that are still there.
        let node_key = operator.node_key;
        self.node_key_goes(&node_key, true);
        self.operator_changed(id);
        let machines: Vec<_> = self
            .machines()
            .filter(|m| m.operator == id && !m.draining)
            .map(|m| m.id)
            .collect();
        for machine in machines {
            self.machine_mut(machine).draining = true;
            self.indexes.draining.insert(machine);
            self.changes.push(Change::MachineDraining {
                machine,
                draining: true,
            });
            self.refresh_pool(machine);
        }
    }

    /// An operator goes of its own accord.
    pub(super) fn operator_leave(&mut self, id: OperatorId) -> Done {
        let active = |o: &&OperatorRecord| o.status == OperatorStatus::Active;
        if self.operators.iter().filter(active).count() == 1 {
            return Err(Code::LastOperator.into());
        }
        self.check_seat_goes(id)?;
        self.operator_goes(id);
        Ok(Some(Subject::Operator(id)))
    }

    /// Other keys for an operator. The cold and the node key change at once, the consensus key with the next epoch.
    pub(super) fn operator_keys(&mut self, id: OperatorId, new: &OperatorKeys) -> Done {
        let operator = &self.operators[id.index()];
        let named = [new.operator_key, new.consensus_key, new.node_key];
        for key in named.iter().flatten() {
            match self.indexes.keys.get(key) {
                None => {}
                // One daemon may be both: the member's node and that of a machine of the same operator.
                Some(Principal::Node {
                    member: None,
                    machine: Some(machine),
                }) if new.node_key == Some(*key)
                    && self.machine(*machine).expect("indexed").operator == id => {}
                Some(_) => return Err(Code::KeyInUse.into()),
            }
        }
        if new.consensus_key.is_some()
            && operator.rotated_ms > 0
            && self.clock.time_ms
                < operator
                    .rotated_ms
                    .saturating_add(self.parameters.rotate_ms)
        {
            return refuse(Code::TooSoon, "consensus_key");
        }
        if let Some(key) = new.operator_key {
            let old = std::mem::replace(&mut self.operators[id.index()].operator_key, key);
            self.indexes.keys.remove(&old);
            self.indexes.keys.insert(key, Principal::Operator(id));
        }
        if let Some(key) = new.consensus_key {
            let operator = &mut self.operators[id.index()];
            operator.rotated_ms = self.clock.time_ms;
            let old = std::mem::replace(&mut operator.consensus_key, key);
            self.indexes.keys.remove(&old);
            self.indexes.keys.insert(key, Principal::Consensus(id));
        }
        if let Some(key) = new.node_key {
            let old = std::mem::replace(&mut self.operators[id.index()].node_key, key);
            self.node_key_goes(&old, true);
            let node = Principal::Node {
                member: None,
                machine: None,
            };
            if let Principal::Node { member, .. } = self.indexes.keys.entry(key).or_insert(node) {
                *member = Some(id);
            }
        }
        if let Some(address) = &new.address {
            self.operators[id.index()].address = Some(address.clone());
        }
        self.operator_changed(id);
        Ok(Some(Subject::Operator(id)))
    }

    /// Another node key for a machine; what the old one signs from now on is not the machine's word.
    pub(super) fn machine_key(&mut self, operator: OperatorId, new: &MachineKey) -> Done {
        let id = self.own_machine(operator, &new.machine)?;
        match self.indexes.keys.get(&new.node_key) {
            None => {}
            Some(Principal::Node {
                member: Some(of),
                machine: None,
            }) if *of == operator => {}
            Some(_) => return Err(Code::KeyInUse.into()),
        }
        let old = std::mem::replace(&mut self.machine_mut(id).node_key, new.node_key);
        self.node_key_goes(&old, false);
        let node = Principal::Node {
            member: None,
            machine: None,
        };
        let entry = self.indexes.keys.entry(new.node_key).or_insert(node);
        if let Principal::Node { machine, .. } = entry {
            *machine = Some(id);
        }
        self.changes.push(Change::MachineChanged { machine: id });
        Ok(Some(Subject::Machine(id)))
    }

    /// A node key no longer stands for a member, or no longer for a machine; it may still stand for the other.
    pub(super) fn node_key_goes(&mut self, key: &Key, of_member: bool) {
        match self.indexes.keys.get_mut(key) {
            Some(Principal::Node {
                member,
                machine: Some(_),
            }) if of_member => *member = None,
            Some(Principal::Node {
                member: Some(_),
                machine,
            }) if !of_member => *machine = None,
            _ => drop(self.indexes.keys.remove(key)),
        }
    }
}
