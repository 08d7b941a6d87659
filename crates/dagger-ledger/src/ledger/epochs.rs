//! Epochs: when one ends, with which seats the next begins, and which seats may go.
//!
//! An epoch ends only at a checkpoint, so that a certificate covers the end. The state after that commit is the next epoch's already: whoever
//! has the certified state has the committee that goes on from it.

use crate::code::Code;
use crate::commit::{Change, CommitInput, NextEpoch, NextSeat};
use crate::ids::OperatorId;
use crate::ledger::{Ledger, Seat};
use crate::records::{EpochRecord, FormerSeat};

/// Weight that may be faulty among seats of such weights: f = (W - 1) / 3.
fn fault_weight(weights: impl Iterator<Item = u64>) -> u64 {
    weights.sum::<u64>().saturating_sub(1) / 3
}

/// Whether any one of the seats may fail.
fn bears_any_seat(weights: &[u64]) -> bool {
    let most = weights.iter().max().copied().unwrap_or(0);
    most <= fault_weight(weights.iter().copied())
}

impl Ledger {
    /// The present epoch.
    pub fn epoch(&self) -> &EpochRecord {
        &self.epoch
    }

    /// The seats of the present epoch, in their order.
    pub fn committee(&self) -> Vec<NextSeat> {
        let seat = |seat: &Seat| NextSeat {
            operator: seat.operator,
            consensus_key: seat.consensus_key,
            weight: seat.weight,
        };
        self.members.iter().map(seat).collect()
    }

    /// The seats of the next epoch as things stand, in the order of operators' ids.
    fn next_committee(&self) -> Vec<NextSeat> {
        let seated = self.operators.iter().filter(|o| o.is_seated());
        let seat = |o: &crate::records::OperatorRecord| NextSeat {
            operator: o.id,
            consensus_key: o.consensus_key,
            weight: o.weight,
        };
        seated.map(seat).collect()
    }

    /// The committee that the next checkpoint will seat; `None` while it is the present one.
    pub fn pending_committee(&self) -> Option<Vec<NextSeat>> {
        let next = self.next_committee();
        (next != self.committee()).then_some(next)
    }

    /// Whether a seat may go with this epoch, on its operator's wish or by a vote. An operator without a seat may always go.
    pub(super) fn check_seat_goes(&self, going: OperatorId) -> Result<(), Code> {
        if !self.operators[going.index()].is_seated() {
            return Ok(());
        }
        let next = self.next_committee();
        let left: Vec<u64> = next
            .iter()
            .filter(|seat| seat.operator != going)
            .map(|seat| seat.weight)
            .collect();
        if left.is_empty() {
            return Err(Code::LastOperator);
        }
        // One that is dead costs less as a seat that may fail than gone from a committee in which none may.
        let now: Vec<u64> = self.members.iter().map(|seat| seat.weight).collect();
        if bears_any_seat(&now) && !bears_any_seat(&left) {
            return Err(Code::TooFewSeats);
        }
        self.check_epoch_ends_without(going)
    }

    /// Who goes may switch off at once, and the epoch must end without him and those that go already. One seat may always go.
    pub(super) fn check_epoch_ends_without(&self, going: OperatorId) -> Result<(), Code> {
        let gone = self.weight_going();
        if gone > 0 && gone + self.seat_weight(going) > self.fault_weight() {
            return Err(Code::TooManyLeave);
        }
        Ok(())
    }

    /// Weight of the present seats whose operators have none in the next epoch.
    pub(super) fn weight_going(&self) -> u64 {
        let going = |seat: &&Seat| !self.operators[seat.operator.index()].is_seated();
        self.members
            .iter()
            .filter(going)
            .map(|seat| seat.weight)
            .sum()
    }

    /// Ends the epoch if this commit may and something wants it to.
    pub(super) fn end_epoch(&mut self, input: &CommitInput<'_>) -> Option<NextEpoch> {
        self.epoch.transactions += input.transactions.len() as u64;
        if !input.is_checkpoint {
            return None;
        }
        let lasted_ms = self.clock.time_ms - self.epoch.start_ms;
        let long_enough = lasted_ms >= self.parameters.epoch_ms
            || self.epoch.transactions >= self.parameters.epoch_transactions;
        let changed = self.pending_committee();
        if changed.is_none() && !long_enough {
            return None;
        }
        let former = |seat: &Seat| FormerSeat {
            operator: seat.operator,
            consensus_key: seat.consensus_key,
        };
        self.epoch = EpochRecord {
            number: self.epoch.number + 1,
            start_commit: input.index,
            start_ms: self.clock.time_ms,
            transactions: 0,
            former: self.members.iter().map(former).collect(),
        };
        match changed {
            Some(next) => self.seat(&next),
            None => self
                .members
                .iter_mut()
                .for_each(|seat| seat.newest_round = None),
        }
        let seats = self.committee();
        self.changes.push(Change::EpochEnded {
            next: self.epoch.number,
            seats: seats.len() as u16,
            fault_weight: fault_weight(seats.iter().map(|seat| seat.weight)),
        });
        Some(NextEpoch {
            epoch: self.epoch.number,
            seats,
        })
    }

    /// Seats another committee. Standing words of members that keep a seat stand on; rounds start anew.
    fn seat(&mut self, next: &[NextSeat]) {
        let old = std::mem::take(&mut self.members);
        for seat in next {
            let before = old.iter().find(|o| o.operator == seat.operator);
            self.members.push(Seat {
                operator: seat.operator,
                consensus_key: seat.consensus_key,
                weight: seat.weight,
                newest_round: None,
                fresh_active_ms: before.and_then(|seat| seat.fresh_active_ms),
            });
        }
        for operator in &mut self.operators {
            let at = next.iter().position(|seat| seat.operator == operator.id);
            operator.member = at.map(|at| at as u16);
            self.dirty.operators.insert(operator.id);
        }
        let members = &self.members;
        let new_seat = |member: u16| {
            let operator = old.get(usize::from(member))?.operator;
            members.iter().position(|seat| seat.operator == operator)
        };
        for machine in self.machines.iter_mut().flatten() {
            machine
                .heard_by
                .retain_mut(|heard| match new_seat(heard.member) {
                    Some(at) => {
                        heard.member = at as u16;
                        true
                    }
                    None => false,
                });
            machine.heard_by.sort_unstable_by_key(|heard| heard.member);
            self.dirty.machines.insert(machine.id);
        }
        // Fewer words may mean an earlier lapse: look at every lease once.
        let ups = std::mem::take(&mut self.indexes.lease_looks);
        for (_, id) in ups {
            let look_ms = self.lapse_at(id).unwrap_or(0);
            self.indexes.lease_looks.insert((look_ms, id));
        }
    }
}
