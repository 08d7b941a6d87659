//! What operators decide together: proposals and votes.
//!
//! Votes weigh as the seats of the present committee do; a quorum is W - f. An accepted change of operators takes effect on keys at once and on
//! seats with the next epoch.

use crate::action::{Propose, ProposedChange, Vote};
use crate::code::Code;
use crate::commit::{Change, Subject};
use crate::genesis::OPERATORS_MAX;
use crate::ids::OperatorId;
use crate::ledger::Ledger;
use crate::ledger::execute::Done;
use crate::records::{OperatorStatus, ProposalRecord, ProposalStatus};

/// Open proposals of one operator at most.
const OPEN_MAX: usize = 8;
/// Closed proposals that are kept.
const CLOSED_MAX: usize = 256;

impl Ledger {
    pub(super) fn seat_weight(&self, operator: OperatorId) -> u64 {
        let seats = self.members.iter().filter(|seat| seat.operator == operator);
        seats.map(|seat| seat.weight).sum()
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
            ProposedChange::OperatorRemove(remove)
            | ProposedChange::OperatorRemoveAnyway(remove) => {
                let operator = self.operator_by_name(&remove.operator);
                let id = operator.ok_or(Code::UnknownOperator)?.id;
                if active.count() == 1 {
                    return Err(Code::LastOperator);
                }
                let anyway = matches!(change, ProposedChange::OperatorRemoveAnyway(_));
                match self.check_seat_goes(id) {
                    Err(Code::TooFewSeats) if anyway => self.check_epoch_ends_without(id),
                    checked => checked,
                }
            }
            ProposedChange::OperatorReseat(of) => {
                let operator = self.operator_by_name(&of.operator);
                let operator = operator.ok_or(Code::UnknownOperator)?;
                match operator.unseated {
                    None => Err(Code::AlreadyDone),
                    Some(by) if by.consensus_key == operator.consensus_key => Err(Code::KeyInUse),
                    Some(_) => Ok(()),
                }
            }
            ProposedChange::Allocation(of) => {
                let operator = self.operator_by_name(&of.operator);
                operator.map(|_| ()).ok_or(Code::UnknownOperator)
            }
            ProposedChange::Parameters(change) => change.applied_to(&self.parameters).check(),
            ProposedChange::ProtocolVersion(to) => {
                if to.version > self.protocol_version_decided() {
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
            ProposedChange::OperatorRemove(remove)
            | ProposedChange::OperatorRemoveAnyway(remove) => {
                let id = self.operator_by_name(&remove.operator).expect("checked").id;
                self.operator_goes(id);
            }
            ProposedChange::OperatorReseat(of) => {
                let id = self.operator_by_name(&of.operator).expect("checked").id;
                self.operators[id.index()].unseated = None;
                self.operator_changed(id);
            }
            ProposedChange::Allocation(of) => {
                let id = self.operator_by_name(&of.operator).expect("checked").id;
                self.operators[id.index()].allocation = of.allocation;
                self.operator_changed(id);
            }
            ProposedChange::Parameters(change) => {
                self.parameters = change.applied_to(&self.parameters);
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
                self.raise_protocol_version(to.version);
                self.changes.push(Change::ParametersChanged);
            }
        }
    }
}
