//! The placement rule stated the slow way, machine by machine, for people and for tests.

use crate::action::Arch;
use crate::explain::{Explanation, Filter, MachineVerdict};
use crate::ids::{AccountId, MachineId, VmId};
use crate::ledger::Ledger;
use crate::ledger::placement::{Request, free, operator_allowed, region_allowed};
use crate::records::{MachineRecord, MachineState, Resources, VmSpec};

impl Ledger {
    /// Where a VM would go if it stood nowhere yet, and why: for one that is placed, why it may stay where it is.
    pub fn explain(&self, vm: VmId) -> Option<Explanation> {
        let vm = self.vm(vm)?;
        let request = Request {
            account: vm.account,
            spec: &vm.spec,
            arch: self.image(vm.spec.image)?.manifest.arch,
            refused: &vm.refused_by,
            seed: self.seed(vm.id, vm.lease_epoch + 1),
        };
        Some(self.explain_request(&request, vm.machine))
    }

    /// Where a new VM of that account and spec would go now, and why.
    pub fn explain_spec(&self, account: AccountId, spec: &VmSpec) -> Explanation {
        let arch = self
            .image(spec.image)
            .map_or(Arch::X86_64, |image| image.manifest.arch);
        let seed = self.seed(VmId(self.vms.len() as u64), 1);
        let request = Request {
            account,
            spec,
            arch,
            refused: &[],
            seed,
        };
        self.explain_request(&request, None)
    }

    /// `own` is the machine where the VM in question holds room already.
    fn explain_request(&self, request: &Request<'_>, own: Option<MachineId>) -> Explanation {
        let own_operator = own.and_then(|id| Some(self.machine(id)?.operator));
        let mut machines: Vec<MachineVerdict> = self
            .machines()
            .map(|machine| {
                let mut room = free(machine);
                if own == Some(machine.id) {
                    let others = machine.used.checked_sub(&request.spec.size);
                    let others = others.expect("part of the sum");
                    room = machine.room_beside(&others).expect("within capacity");
                }
                let mut verdict = self.verdict(request, machine, room);
                verdict.spread_count -= u64::from(own_operator == Some(machine.operator));
                verdict
            })
            .collect();
        machines.sort_by_key(|verdict| {
            (
                !verdict.filtered.is_empty(),
                verdict.spread_count,
                self.operator_turn(request.seed, verdict.operator),
                (
                    verdict.left_memory_mib,
                    verdict.left_vcpus,
                    verdict.left_disk_mib,
                ),
                self.machine_turn(request.seed, verdict.machine),
            )
        });
        let first = machines
            .first()
            .filter(|verdict| verdict.filtered.is_empty());
        Explanation {
            commit: self.clock.commit_index.unwrap_or(0),
            chosen: first.map(|verdict| verdict.machine),
            machines,
        }
    }

    fn verdict(
        &self,
        request: &Request<'_>,
        machine: &MachineRecord,
        room: Resources,
    ) -> MachineVerdict {
        let left = room.checked_sub(&request.spec.size);
        let counts = self.spread_counts(request.account, request.spec);
        MachineVerdict {
            machine: machine.id,
            name: machine.name.clone(),
            operator: machine.operator,
            filtered: self.filters(request, machine, room),
            spread_count: counts
                .and_then(|c| c.get(&machine.operator))
                .copied()
                .unwrap_or(0),
            left_memory_mib: left.map(|left| left.memory_mib),
            left_vcpus: left.map(|left| left.vcpus),
            left_disk_mib: left.map(|left| left.disk_mib),
        }
    }

    fn filters(
        &self,
        request: &Request<'_>,
        machine: &MachineRecord,
        room: Resources,
    ) -> Vec<Filter> {
        let size = &request.spec.size;
        let mut filters = Vec::new();
        let mut note = |bad: bool, filter| {
            if bad {
                filters.push(filter);
            }
        };
        note(
            machine.state != MachineState::Up || machine.sweep.is_some(),
            Filter::NotUp,
        );
        note(machine.draining, Filter::Draining);
        note(machine.damped_until_active_ms.is_some(), Filter::Flapping);
        note(machine.arch != request.arch, Filter::Arch);
        note(size.vcpus > room.vcpus, Filter::Vcpus);
        note(size.memory_mib > room.memory_mib, Filter::Memory);
        note(size.disk_mib > room.disk_mib, Filter::Disk);
        note(request.refused.contains(&machine.id), Filter::Refused);
        if let Some(placement) = request.spec.placement.as_deref() {
            let operator = &self.operators[machine.operator.index()].name;
            let unnamed = |names: &[String], name: &str| {
                !names.is_empty() && !names.iter().any(|n| n == name)
            };
            note(
                unnamed(&placement.machines, &machine.name),
                Filter::NotNamed,
            );
            note(
                unnamed(&placement.operators, operator),
                Filter::OperatorNotNamed,
            );
            note(
                unnamed(&placement.regions, machine.region()),
                Filter::RegionNotNamed,
            );
            let denied = placement.deny_machines.contains(&machine.name)
                || placement.deny_operators.contains(operator)
                || placement
                    .deny_regions
                    .iter()
                    .any(|region| region == machine.region());
            note(denied, Filter::Denied);
            debug_assert!(
                !filters.is_empty()
                    || operator_allowed(placement, operator)
                        && region_allowed(placement, machine.region())
            );
        }
        if let Some(data) = request.spec.user_data.as_deref()
            && !data.keys.iter().any(|key| key.machine == machine.name)
        {
            filters.push(Filter::NoUserDataKey);
        }
        filters
    }
}
