//! Leases of machines: rivals' standing words renew them, active time ages them.
//!
//! A member's word about a machine is a bit that changes only by a transaction. While it stands it counts up to the last commit with
//! a new event of that member; when it is taken back its value stays what it was. A machine's lease is renewed up to the value that more than
//! f of its rivals' weight reaches: f liars can neither keep a dead machine alive, for one of those is honest, nor kill a live
//! one, for the honest rivals alone are enough.

use crate::action::Attest;
use crate::commit::Change;
use crate::ids::{MachineId, OperatorId};
use crate::ledger::Ledger;
use crate::ledger::execute::Done;
use crate::records::{Heard, MachineState, Sweep};

impl Ledger {
    /// Weight of all seats.
    fn total_weight(&self) -> u64 {
        self.members.iter().map(|seat| seat.weight).sum()
    }

    /// Weight that may be faulty: f = (W - 1) / 3.
    pub(super) fn fault_weight(&self) -> u64 {
        (self.total_weight() - 1) / 3
    }

    /// Whether a seat's word counts for a machine of that operator. Own words count only where the rivals alone could never be enough, as in
    /// a network of one.
    fn counts_for(&self, member: u16, owner: OperatorId) -> bool {
        let Some(seat) = self.members.get(usize::from(member)) else {
            return false;
        };
        if seat.operator != owner {
            return true;
        }
        let own: u64 = self
            .members
            .iter()
            .filter(|s| s.operator == owner)
            .map(|s| s.weight)
            .sum();
        self.total_weight() - own <= self.fault_weight()
    }

    /// Seats that attest a machine at present and count for it.
    pub fn attesting_members(&self, machine: MachineId) -> Vec<u16> {
        let Some(machine) = self.machine(machine) else {
            return Vec::new();
        };
        let standing = machine.heard_by.iter().filter(|heard| heard.standing);
        standing
            .map(|heard| heard.member)
            .filter(|m| self.counts_for(*m, machine.operator))
            .collect()
    }

    /// Active time up to which rivals of more than weight f have heard the machine.
    pub fn renewed_active_ms(&self, machine: MachineId) -> Option<u64> {
        let machine = self.machine(machine)?;
        let mut words: Vec<(u64, u64)> = Vec::with_capacity(machine.heard_by.len());
        for heard in &machine.heard_by {
            if !self.counts_for(heard.member, machine.operator) {
                continue;
            }
            let seat = &self.members[usize::from(heard.member)];
            let standing = if heard.standing {
                seat.fresh_active_ms
            } else {
                None
            };
            words.push((
                standing.unwrap_or(0).max(heard.until_active_ms),
                seat.weight,
            ));
        }
        words.sort_unstable_by(|a, b| b.cmp(a));
        let mut weight = 0;
        let enough = self.fault_weight();
        words.into_iter().find_map(|(until_ms, more)| {
            weight += more;
            (weight > enough).then_some(until_ms)
        })
    }

    /// Active time at which the machine's lease lapses if no further word comes.
    pub(super) fn lapse_at(&self, machine: MachineId) -> Option<u64> {
        let renewed_ms = self.renewed_active_ms(machine)?;
        Some(renewed_ms.saturating_add(self.parameters.lease_ms + self.parameters.margin_ms))
    }

    /// Ledger time at which a machine's lease would lapse if commits came without gaps.
    pub fn lease_until_ms(&self, machine: MachineId) -> Option<u64> {
        let lapse_ms = self.lapse_at(machine)?;
        Some(self.clock.time_ms + lapse_ms.saturating_sub(self.clock.active_ms))
    }

    /// A member's changes. Machines that are gone are passed over: they may have left while the word was on its way.
    pub(super) fn attest(&mut self, member: u16, attest: &Attest) -> Done {
        for (ids, standing) in [(&attest.lost, false), (&attest.hears, true)] {
            for id in ids {
                if self.machine(*id).is_some() {
                    self.note_word(*id, member, standing);
                }
            }
        }
        Ok(None)
    }

    fn note_word(&mut self, id: MachineId, member: u16, standing: bool) {
        let fresh_ms = self.members[usize::from(member)]
            .fresh_active_ms
            .unwrap_or(0);
        let heard_by = &self.machines[id.index()]
            .as_ref()
            .expect("checked")
            .heard_by;
        let at = heard_by.binary_search_by_key(&member, |heard| heard.member);
        match at {
            Ok(at) if heard_by[at].standing == standing => return,
            Ok(at) => {
                let heard = &mut self.machine_mut(id).heard_by[at];
                if !standing {
                    heard.until_active_ms = fresh_ms.max(heard.until_active_ms);
                }
                heard.standing = standing;
            }
            Err(at) => {
                if !standing {
                    return;
                }
                let heard = Heard {
                    member,
                    standing,
                    until_active_ms: 0,
                };
                self.machine_mut(id).heard_by.insert(at, heard);
            }
        }
        self.look_for_return(id);
    }

    /// A machine that is not up comes up when its lease stands again.
    fn look_for_return(&mut self, id: MachineId) {
        let machine = self.machine(id).expect("the machine exists");
        if machine.state == MachineState::Up {
            return;
        }
        let Some(renewed_ms) = self.renewed_active_ms(id) else {
            return;
        };
        if renewed_ms == 0 || renewed_ms + self.parameters.lease_ms <= self.clock.active_ms {
            return;
        }
        self.indexes.not_up.remove(&id);
        let look_ms = self.lapse_at(id).expect("renewed");
        self.indexes.lease_looks.insert((look_ms, id));
        self.enter_machine_state(id, MachineState::Up);
    }

    fn enter_machine_state(&mut self, id: MachineId, state: MachineState) {
        let (time_ms, active_ms) = (self.clock.time_ms, self.clock.active_ms);
        let (lease_ms, calm_ms) = (self.parameters.lease_ms, self.parameters.calm_ms);
        let machine = self.machine_mut(id);
        let damped = machine.damped_until_active_ms.take();
        if state == MachineState::Lost {
            let soon = time_ms - machine.state_since_ms < calm_ms;
            machine.flaps = if soon { machine.flaps + 1 } else { 0 };
        } else if machine.flaps > 1 {
            // Once may happen to anybody.
            let wait_ms = lease_ms.saturating_mul(1 << (machine.flaps - 2).min(16));
            machine.damped_until_active_ms = Some(active_ms + wait_ms.min(calm_ms));
        }
        machine.state = state;
        machine.state_since_ms = time_ms;
        let until = machine.damped_until_active_ms;
        let old = machine.sweep.take();
        if machine.vms > 0 {
            machine.sweep = Some(Sweep {
                since_active_ms: active_ms,
                next: Default::default(),
            });
        }
        let new = machine.sweep;
        if let Some(until_ms) = damped {
            self.indexes.damped.remove(&(until_ms, id));
        }
        if let Some(until_ms) = until {
            self.indexes.damped.insert((until_ms, id));
        }
        if let Some(old) = old {
            self.indexes.sweeps.remove(&(old.since_active_ms, id));
        }
        if let Some(new) = new {
            self.indexes.sweeps.insert((new.since_active_ms, id));
        }
        self.changes
            .push(Change::MachineState { machine: id, state });
        self.refresh_pool(id);
    }

    /// Notes which members this commit shows alive.
    pub(super) fn note_fresh(&mut self, active_members: &[(u16, u64)]) {
        for (member, round) in active_members {
            let Some(seat) = self.members.get_mut(usize::from(*member)) else {
                continue;
            };
            if seat.newest_round.is_none_or(|newest| *round > newest) {
                seat.newest_round = Some(*round);
                seat.fresh_active_ms = Some(self.clock.active_ms);
            }
        }
    }

    /// Machines that have stood long enough after they flapped take VMs again.
    pub(super) fn end_damping(&mut self) {
        while let Some((until_ms, id)) = self.indexes.damped.first().copied() {
            if until_ms > self.clock.active_ms {
                return;
            }
            self.indexes.damped.pop_first();
            self.machine_mut(id).damped_until_active_ms = None;
            self.refresh_pool(id);
        }
    }

    /// Machines whose members came back, though no bit changed: looked at once per heartbeat of active time.
    pub(super) fn look_for_returns(&mut self) {
        let ids: Vec<MachineId> = self.indexes.not_up.iter().copied().collect();
        for id in ids {
            self.look_for_return(id);
        }
    }

    /// Looks again at the leases that could have lapsed by `now_ms` (Unix ms, after the last commit), and remembers until when they
    /// hold by what was said since they were last looked at. Changes what [`Ledger::next_deadline_ms`] knows and nothing else:
    /// no outcome and no root.
    pub fn look_ahead(&mut self, now_ms: u64) {
        let until_ms = self.clock.active_ms + now_ms.saturating_sub(self.clock.time_ms);
        let due = self.indexes.lease_looks.iter();
        let due: Vec<_> = due
            .take_while(|(look_ms, _)| *look_ms <= until_ms)
            .copied()
            .collect();
        for (look_ms, id) in due {
            if let Some(lapse_ms) = self.lapse_at(id).filter(|lapse_ms| *lapse_ms > look_ms) {
                self.indexes.lease_looks.remove(&(look_ms, id));
                self.indexes.lease_looks.insert((lapse_ms, id));
            }
        }
    }

    /// Lets leases lapse whose time has come. Costs the machines whose earliest possible lapse has passed, not all.
    pub(super) fn lapse_leases(&mut self) {
        let now_ms = self.clock.active_ms;
        self.look_ahead(self.clock.time_ms);
        let mut lapsed = Vec::new();
        while let Some(due) = self.indexes.lease_looks.first().copied()
            && due.0 <= now_ms
        {
            self.indexes.lease_looks.remove(&due);
            lapsed.push(due.1);
        }
        // The queue's order depends on when each was last looked at, which a restored ledger does not know.
        lapsed.sort_unstable();
        for id in lapsed {
            self.indexes.not_up.insert(id);
            self.machine_mut(id).lapses += 1;
            self.enter_machine_state(id, MachineState::Lost);
            self.brake_notes_lapse();
        }
    }
}
