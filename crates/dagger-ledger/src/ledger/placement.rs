//! The placement rule: filter, then the operator with the fewest VMs of the spread group, then the tightest fit by memory, virtual CPUs
//! and disk, then a turn seeded with the commit's digest.
//!
//! Machines that may take VMs stand in pools by architecture, operator and region, ordered by room; a choice looks at operators in
//! the order of preference and within each at the machines from the tightest on, so it costs far less than a look at all of
//! them. `explain_rule.rs` states the same rule the slow way, and tests hold the two together.

use std::collections::{BTreeMap, BTreeSet};

use crate::action::{Arch, Placement};
use crate::ids::{AccountId, MachineId, OperatorId, VmId};
use crate::ledger::Ledger;
use crate::records::{MachineRecord, Resources, VmSpec};

/// Room of a machine in the order of preference, and which machine.
type Room = (u64, u32, u64, MachineId);

/// Eligible machines that have some of everything left.
#[derive(Clone, Default)]
pub(super) struct Pools {
    by_operator: BTreeMap<(Arch, OperatorId), BTreeMap<String, BTreeSet<Room>>>,
    /// Where each machine stands now.
    entries: Vec<Option<(Arch, OperatorId, Room)>>,
}

impl Pools {
    /// Equal but for regions that are empty.
    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        let rooms = |pools: &Self| -> BTreeSet<(Arch, OperatorId, String, Room)> {
            let mut all = BTreeSet::new();
            for ((arch, operator), regions) in &pools.by_operator {
                for (region, rooms) in regions {
                    all.extend(rooms.iter().map(|r| (*arch, *operator, region.clone(), *r)));
                }
            }
            all
        };
        rooms(self) == rooms(other)
    }
}

/// What is to be placed.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) account: AccountId,
    pub(super) spec: &'a VmSpec,
    pub(super) arch: Arch,
    /// Machines that let this placement fail before.
    pub(super) refused: &'a [MachineId],
    /// Decides what is otherwise equal.
    pub(super) seed: u64,
}

/// Free room of a machine.
pub(super) fn free(machine: &MachineRecord) -> Resources {
    machine
        .room_beside(&machine.used)
        .expect("never over capacity")
}

/// splitmix64: spreads the bits of what is known about a tie.
pub(super) fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Ledger {
    /// Seed of ties for a VM at this commit. A leader could steer it, and so ties only.
    pub(super) fn seed(&self, vm: VmId, lease_epoch: u64) -> u64 {
        let digest = self.clock.commit_digest;
        let first = u64::from_le_bytes(digest[..8].try_into().expect("eight bytes"));
        mix(first ^ mix(vm.0 ^ mix(lease_epoch)))
    }

    /// Turn of a machine among equals: the first at or after a seeded place, going round.
    pub(super) fn machine_turn(&self, seed: u64, id: MachineId) -> u32 {
        id.0.wrapping_sub((seed % (self.machines.len() as u64).max(1)) as u32)
    }

    /// Turn of an operator among equals.
    pub(super) fn operator_turn(&self, seed: u64, id: OperatorId) -> u32 {
        id.0.wrapping_sub((mix(seed) % (self.operators.len() as u64).max(1)) as u32)
    }

    /// Puts a machine where it belongs in the pools, or takes it out.
    pub(super) fn refresh_pool(&mut self, id: MachineId) {
        let pools = &mut self.indexes.pools;
        if pools.entries.len() <= id.index() {
            pools.entries.resize(id.index() + 1, None);
        }
        let machine = self.machines[id.index()].as_ref();
        let room = machine.filter(|m| m.is_eligible()).and_then(|machine| {
            let free = free(machine);
            let some = free.vcpus > 0 && free.memory_mib > 0 && free.disk_mib > 0;
            let room = (free.memory_mib, free.vcpus, free.disk_mib, id);
            some.then_some((machine.arch, machine.operator, room))
        });
        let old = std::mem::replace(&mut pools.entries[id.index()], room);
        if old == room {
            return;
        }
        if let Some((arch, operator, room)) = old {
            let regions = pools
                .by_operator
                .get_mut(&(arch, operator))
                .expect("it stood there");
            // A machine that is being removed no longer says which region it stood in.
            match machine.map(MachineRecord::region) {
                Some(region) => {
                    regions.get_mut(region).map(|set| set.remove(&room));
                }
                None => regions.values_mut().for_each(|set| {
                    set.remove(&room);
                }),
            }
        }
        if let Some((arch, operator, room)) = room {
            let region = machine.expect("eligible").region();
            let regions = pools.by_operator.entry((arch, operator)).or_default();
            match regions.get_mut(region) {
                Some(set) => {
                    set.insert(room);
                }
                None => {
                    regions.insert(region.to_string(), BTreeSet::from([room]));
                }
            }
        }
    }

    /// Takes a machine out of the pools, before its region changes.
    pub(super) fn leave_pool(&mut self, id: MachineId) {
        let pools = &mut self.indexes.pools;
        if let Some((arch, operator, room)) = pools.entries[id.index()].take()
            && let Some(regions) = pools.by_operator.get_mut(&(arch, operator))
        {
            regions.values_mut().for_each(|set| {
                set.remove(&room);
            });
        }
    }

    /// The machine for a request, if any fits.
    pub(super) fn choose(&self, request: &Request<'_>) -> Option<MachineId> {
        if let Some(named) = self.named_machines(request.spec) {
            return self.choose_among(request, &named);
        }
        let mut operators: Vec<(u64, u32, OperatorId)> = Vec::new();
        let counts = self.spread_counts(request.account, request.spec);
        let placement = request.spec.placement.as_deref();
        for operator in &self.operators {
            if placement.is_none_or(|p| operator_allowed(p, &operator.name)) {
                let count = counts
                    .and_then(|c| c.get(&operator.id))
                    .copied()
                    .unwrap_or(0);
                operators.push((
                    count,
                    self.operator_turn(request.seed, operator.id),
                    operator.id,
                ));
            }
        }
        operators.sort_unstable();
        operators
            .into_iter()
            .find_map(|(_, _, id)| self.tightest_of(request, id))
    }

    /// VMs of the request's spread group, per operator.
    pub(super) fn spread_counts(
        &self,
        account: AccountId,
        spec: &VmSpec,
    ) -> Option<&super::indexes::SpreadCounts> {
        let group = spec.spread.as_deref().unwrap_or("");
        self.indexes.spread.get(account.index())?.get(group)
    }

    /// Machines that the request is confined to by name, if it is.
    fn named_machines(&self, spec: &VmSpec) -> Option<BTreeSet<MachineId>> {
        let id = |name: &String| self.indexes.machine_names.get(name).copied();
        let named = spec.placement.as_deref().filter(|p| !p.machines.is_empty());
        let named = named.map(|p| p.machines.iter().filter_map(id).collect::<BTreeSet<_>>());
        let keyed = spec.user_data.as_deref();
        let keyed = keyed.map(|d| d.keys.iter().filter_map(|k| id(&k.machine)).collect());
        match (named, keyed) {
            (Some(named), Some(keyed)) => Some(&named & &keyed),
            (named, keyed) => named.or(keyed),
        }
    }

    fn choose_among(&self, request: &Request<'_>, ids: &BTreeSet<MachineId>) -> Option<MachineId> {
        let fitting = ids
            .iter()
            .filter_map(|id| self.machine(*id))
            .filter(|machine| {
                machine.is_eligible()
                    && machine.arch == request.arch
                    && request.spec.size.fits_in(&free(machine))
                    && self.allowed(request, machine)
            });
        fitting
            .min_by_key(|machine| self.preference(request, machine))
            .map(|machine| machine.id)
    }

    /// The order of preference, smallest first.
    pub(super) fn preference(
        &self,
        request: &Request<'_>,
        machine: &MachineRecord,
    ) -> (u64, u32, u64, u32, u64, u32) {
        let counts = self.spread_counts(request.account, request.spec);
        let count = counts
            .and_then(|c| c.get(&machine.operator))
            .copied()
            .unwrap_or(0);
        let free = free(machine);
        let operator_turn = self.operator_turn(request.seed, machine.operator);
        let turn = self.machine_turn(request.seed, machine.id);
        (
            count,
            operator_turn,
            free.memory_mib,
            free.vcpus,
            free.disk_mib,
            turn,
        )
    }

    /// Denials and refusals by name; regions are checked pool by pool, but are cheap to check again.
    fn allowed(&self, request: &Request<'_>, machine: &MachineRecord) -> bool {
        if request.refused.contains(&machine.id) {
            return false;
        }
        let Some(placement) = request.spec.placement.as_deref() else {
            return true;
        };
        let operator = &self.operators[machine.operator.index()].name;
        operator_allowed(placement, operator)
            && region_allowed(placement, machine.region())
            && !placement.deny_machines.contains(&machine.name)
    }

    /// Whether a VM's spec allows the machine, room and state apart.
    pub(super) fn within(&self, spec: &VmSpec, machine: &MachineRecord) -> bool {
        let placement = spec.placement.as_deref();
        let operator = &self.operators[machine.operator.index()].name;
        placement.is_none_or(|p| {
            (p.machines.is_empty() || p.machines.contains(&machine.name))
                && !p.deny_machines.contains(&machine.name)
                && operator_allowed(p, operator)
                && region_allowed(p, machine.region())
        })
    }

    fn tightest_of(&self, request: &Request<'_>, operator: OperatorId) -> Option<MachineId> {
        let regions = self
            .indexes
            .pools
            .by_operator
            .get(&(request.arch, operator))?;
        let placement = request.spec.placement.as_deref();
        let mut best: Option<((u64, u32, u64, u32), MachineId)> = None;
        for (region, rooms) in regions {
            if placement.is_some_and(|p| !region_allowed(p, region)) {
                continue;
            }
            let Some((memory, vcpus, disk, id)) = self.tightest_in(request, rooms) else {
                continue;
            };
            let key = (memory, vcpus, disk, self.machine_turn(request.seed, id));
            if best.is_none_or(|(other, _)| key < other) {
                best = Some((key, id));
            }
        }
        best.map(|(_, id)| id)
    }

    fn tightest_in(&self, request: &Request<'_>, rooms: &BTreeSet<Room>) -> Option<Room> {
        let size = &request.spec.size;
        let fits = |room: &&Room| {
            room.1 >= size.vcpus
                && room.2 >= size.disk_mib
                && (request.refused.is_empty() && request.spec.placement.is_none()
                    || self.allowed(request, self.machine(room.3).expect("in the pool")))
        };
        let least = (size.memory_mib, 0, 0, MachineId(0));
        let first = *rooms.range(least..).find(fits)?;
        // Among machines with exactly this room, the one whose turn it is.
        let pivot = MachineId((request.seed % (self.machines.len() as u64).max(1)) as u32);
        if first.3 >= pivot {
            return Some(first);
        }
        let (memory, vcpus, disk, _) = first;
        let later = (memory, vcpus, disk, pivot)..=(memory, vcpus, disk, MachineId(u32::MAX));
        Some(rooms.range(later).find(fits).copied().unwrap_or(first))
    }
}

/// Whether a placement allows an operator.
pub(super) fn operator_allowed(placement: &Placement, operator: &String) -> bool {
    (placement.operators.is_empty() || placement.operators.contains(operator))
        && !placement.deny_operators.contains(operator)
}

/// Whether a placement allows a region.
pub(super) fn region_allowed(placement: &Placement, region: &str) -> bool {
    let has = |names: &[String]| names.iter().any(|name| name == region);
    (placement.regions.is_empty() || has(&placement.regions)) && !has(&placement.deny_regions)
}
