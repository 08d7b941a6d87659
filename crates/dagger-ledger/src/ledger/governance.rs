//! What operators decide together: proposals, votes, and the committee of the next epoch.
//!
//! Votes weigh as the seats of the present committee do; a quorum is W - f. An accepted change of operators takes effect on keys at once and on
//! seats with the next epoch, which the consensus layer begins through [`Ledger::begin_epoch`].

use crate::action::{OperatorAdd, Propose, ProposedChange, Vote};
use crate::code::Code;
use crate::commit::{Change, Subject};
use crate::genesis::OPERATORS_MAX;
use crate::ids::{Key, OperatorId};
use crate::ledger::execute::Done;
use crate::ledger::indexes::Principal;
use crate::ledger::{Ledger, Seat};
use crate::records::{
    OperatorRecord, OperatorStatus, ProposalRecord, ProposalStatus, Resources, Usage,
};

/// Open proposals of one operator at most.
const OPEN_MAX: usize = 8;
/// Closed proposals that are kept.
const CLOSED_MAX: usize = 256;

/// A seat of the next committee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextSeat {
    /// The operator.
    pub operator: OperatorId,
    /// Its consensus key.
    pub consensus_key: Key,
    /// Its votes.
    pub weight: u64,
}

impl Ledger {
    fn seat_weight(&self, operator: OperatorId) -> u64 {
        let seats = self.members.iter().filter(|seat| seat.operator == operator);
        seats.map(|seat| seat.weight).sum()
    }

    /// The committee as accepted proposals want it, in the order of operators' ids; `None` while it is the present one.
    pub fn pending_committee(&self) -> Option<Vec<NextSeat>> {
        let active = self
            .operators
            .iter()
            .filter(|o| o.status == OperatorStatus::Active);
        let seats: Vec<NextSeat> = active
            .map(|o| NextSeat {
                operator: o.id,
                consensus_key: o.consensus_key,
                weight: o.weight,
            })
            .collect();
        let now = self.members.iter().map(|seat| (seat.operator, seat.weight));
        let same = now.eq(seats.iter().map(|seat| (seat.operator, seat.weight)));
        (!same).then_some(seats)
    }

    /// Seats the pending committee, if there is one. Called between commits, at the same commit on every node. Standing words of members that
    /// keep a seat stand on; rounds start anew.
    pub fn begin_epoch(&mut self) {
        let Some(next) = self.pending_committee() else {
            return;
        };
        let old = std::mem::take(&mut self.members);
        let seat_of = |operator: OperatorId| old.iter().position(|seat| seat.operator == operator);
        for seat in &next {
            let before = seat_of(seat.operator).map(|at| old[at]);
            self.members.push(Seat {
                operator: seat.operator,
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
        let ups: Vec<_> = std::mem::take(&mut self.indexes.lease_looks)
            .into_iter()
            .collect();
        for (_, id) in ups {
            self.indexes
                .lease_looks
                .insert((self.lapse_at(id).unwrap_or(0), id));
        }
    }

    pub(super) fn propose(&mut self, proposer: OperatorId, propose: &Propose) -> Done {
        if self.seat_weight(proposer) == 0 {
            return Err(Code::Unauthorised.into());
        }
        self.check_change(&propose.change)?;
        let open = |p: &&ProposalRecord| p.status == ProposalStatus::Open && p.proposer == proposer;
        if self.proposals.values().filter(open).count() >= OPEN_MAX {
            return Err(Code::TooMany.into());
        }
        let id = self.proposal_ids;
        self.proposal_ids += 1;
        let proposal = ProposalRecord {
            id,
            proposer,
            change: propose.change.clone(),
            approvals: vec![proposer],
            rejections: Vec::new(),
            status: ProposalStatus::Open,
            opened_ms: self.clock.time_ms,
            closes_ms: self
                .clock
                .time_ms
                .saturating_add(self.parameters.proposal_ms),
        };
        self.proposals.insert(id, proposal);
        self.count_votes(id);
        Ok(Some(Subject::Proposal(id)))
    }

    pub(super) fn vote(&mut self, operator: OperatorId, vote: &Vote) -> Done {
        if self.seat_weight(operator) == 0 {
            return Err(Code::Unauthorised.into());
        }
        let proposal = self.proposals.get_mut(&vote.proposal);
        let proposal = proposal.filter(|p| p.status == ProposalStatus::Open);
        let proposal = proposal.ok_or(Code::UnknownProposal)?;
        if proposal.approvals.contains(&operator) || proposal.rejections.contains(&operator) {
            return Err(Code::AlreadyVoted.into());
        }
        let side = if vote.approve {
            &mut proposal.approvals
        } else {
            &mut proposal.rejections
        };
        side.push(operator);
        self.count_votes(vote.proposal);
        Ok(Some(Subject::Proposal(vote.proposal)))
    }

    fn count_votes(&mut self, id: u64) {
        let total: u64 = self.members.iter().map(|seat| seat.weight).sum();
        let quorum = total - (total - 1) / 3;
        let proposal = &self.proposals[&id];
        let weigh = |who: &[OperatorId]| who.iter().map(|o| self.seat_weight(*o)).sum::<u64>();
        let (approved, rejected) = (weigh(&proposal.approvals), weigh(&proposal.rejections));
        let status = if approved >= quorum {
            let change = proposal.change.clone();
            match self.check_change(&change) {
                Ok(()) => {
                    self.enact(change);
                    ProposalStatus::Accepted
                }
                Err(_) => ProposalStatus::Void,
            }
        } else if rejected > total - quorum {
            ProposalStatus::Rejected
        } else {
            ProposalStatus::Open
        };
        self.close_proposal(id, status);
    }

    fn close_proposal(&mut self, id: u64, status: ProposalStatus) {
        self.proposals
            .get_mut(&id)
            .expect("the proposal exists")
            .status = status;
        self.dirty.proposals.insert(id);
        self.changes.push(Change::Proposal {
            proposal: id,
            status,
        });
        let closed = |p: &&ProposalRecord| p.status != ProposalStatus::Open;
        while self.proposals.values().filter(closed).count() > CLOSED_MAX {
            let oldest = self.proposals.values().find(closed).expect("counted").id;
            self.proposals.remove(&oldest);
            self.dirty.proposals.insert(oldest);
        }
    }

    /// Closes proposals whose time has run out.
    pub(super) fn expire_proposals(&mut self) {
        let now_ms = self.clock.time_ms;
        let late = |p: &&ProposalRecord| p.status == ProposalStatus::Open && p.closes_ms < now_ms;
        let ids: Vec<u64> = self.proposals.values().filter(late).map(|p| p.id).collect();
        for id in ids {
            self.close_proposal(id, ProposalStatus::Expired);
        }
    }

    /// Whether a change makes sense now.
    fn check_change(&self, change: &ProposedChange) -> Result<(), Code> {
        let active = self
            .operators
            .iter()
            .filter(|o| o.status == OperatorStatus::Active);
        match change {
            ProposedChange::OperatorAdd(add) => {
                let total: u64 = active.clone().map(|o| o.weight).sum();
                // A name is never given twice: records of the past stay readable.
                if self.operators.iter().any(|o| o.name == add.name) {
                    return Err(Code::NameTaken);
                }
                let keys = [&add.operator_key, &add.consensus_key, &add.node_key];
                if keys.iter().any(|key| self.indexes.keys.contains_key(key)) {
                    return Err(Code::KeyInUse);
                }
                let fits = active.count() < OPERATORS_MAX
                    && total.saturating_add(add.weight) <= u64::from(u32::MAX);
                if fits { Ok(()) } else { Err(Code::TooMany) }
            }
            ProposedChange::OperatorRemove(remove) => {
                self.operator_by_name(&remove.operator)
                    .ok_or(Code::UnknownOperator)?;
                if active.count() > 1 {
                    Ok(())
                } else {
                    Err(Code::LastOperator)
                }
            }
            ProposedChange::Allocation(of) => {
                let operator = self.operator_by_name(&of.operator);
                operator.map(|_| ()).ok_or(Code::UnknownOperator)
            }
            ProposedChange::Parameters(parameters) => parameters.check(),
            ProposedChange::ProtocolVersion(to) => {
                if to.version > self.protocol_version {
                    Ok(())
                } else {
                    Err(Code::OutOfRange)
                }
            }
        }
    }

    fn enact(&mut self, change: ProposedChange) {
        match change {
            ProposedChange::OperatorAdd(add) => self.operator_add(add),
            ProposedChange::OperatorRemove(remove) => self.operator_remove(&remove.operator),
            ProposedChange::Allocation(of) => {
                let id = self.operator_by_name(&of.operator).expect("checked").id;
                self.operators[id.index()].allocation = of.allocation;
                self.operator_changed(id);
            }
            ProposedChange::Parameters(parameters) => {
                self.parameters = parameters;
                self.dirty.parameters = true;
                self.changes.push(Change::ParametersChanged);
                // Another lease length may bring a lapse forward.
                let looks = std::mem::take(&mut self.indexes.lease_looks);
                for (_, id) in looks {
                    self.indexes
                        .lease_looks
                        .insert((self.lapse_at(id).unwrap_or(0), id));
                }
            }
            ProposedChange::ProtocolVersion(to) => {
                self.protocol_version = to.version;
                self.dirty.parameters = true;
                self.changes.push(Change::ParametersChanged);
            }
        }
    }

    fn operator_changed(&mut self, id: OperatorId) {
        self.dirty.operators.insert(id);
        self.changes.push(Change::OperatorChanged { operator: id });
    }

    fn operator_add(&mut self, add: OperatorAdd) {
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
        });
        self.operator_changed(id);
    }

    /// Its keys mean nothing from now on; its machines drain; its seat goes with the next epoch.
    fn operator_remove(&mut self, name: &str) {
        let id = self.indexes.operator_names.remove(name).expect("checked");
        let operator = &mut self.operators[id.index()];
        operator.status = OperatorStatus::Removed;
        for key in [operator.operator_key, operator.consensus_key] {
            self.indexes.keys.remove(&key);
        }
        // The node goes on reporting on the VMs that are still there.
        match self.indexes.keys.get_mut(&operator.node_key) {
            Some(Principal::Node {
                member,
                machine: Some(_),
            }) => *member = None,
            _ => drop(self.indexes.keys.remove(&operator.node_key)),
        }
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
}
