//! A deliberately naive council: who may vote, what is proposed, and when an epoch ends. Lists and full scans; it states the rules of
//! governance a second time so that the real ones have something to be compared with.
#![allow(dead_code, missing_docs)]

use dagger_ledger::*;

const OPEN_MAX: usize = 8;
const CLOSED_MAX: usize = 256;

type Done = Result<(), Code>;

struct Operator {
    name: String,
    /// The number that its keys are made of.
    number: u64,
    weight: u64,
    active: bool,
    allocation: Option<Quota>,
}

struct Proposal {
    id: u64,
    proposer: u32,
    change: ProposedChange,
    approvals: Vec<u32>,
    rejections: Vec<u32>,
    status: ProposalStatus,
    closes: u64,
}

pub struct Council {
    operators: Vec<Operator>,
    proposals: Vec<Proposal>,
    pub proposal_ids: u64,
    /// Operator and weight.
    pub seats: Vec<(u32, u64)>,
    pub epoch: u64,
    epoch_start: u64,
    epoch_transactions: u64,
    pub parameters: Parameters,
    /// From which epoch on which version.
    versions: Vec<(u64, u32)>,
    /// Name and sponsor.
    pub accounts: Vec<(String, u32)>,
    time: u64,
    active_time: u64,
}

fn fault(weight: u64) -> u64 {
    weight.saturating_sub(1) / 3
}

fn bears_any(weights: &[u64]) -> bool {
    weights.iter().max().copied().unwrap_or(0) <= fault(weights.iter().sum())
}

impl Council {
    pub fn new(operators: u64, parameters: Parameters, time: u64) -> Self {
        let operator = |number| Operator {
            name: format!("operator-{number}"),
            number,
            weight: 1,
            active: true,
            allocation: None,
        };
        Self {
            operators: (0..operators).map(operator).collect(),
            proposals: Vec::new(),
            proposal_ids: 0,
            seats: (0..operators as u32)
                .map(|operator| (operator, 1))
                .collect(),
            epoch: 0,
            epoch_start: time,
            epoch_transactions: 0,
            parameters,
            versions: vec![(0, 1)],
            accounts: Vec::new(),
            time,
            active_time: 0,
        }
    }

    /// The key numbers of those who count.
    pub fn active(&self) -> Vec<u64> {
        let active = self.operators.iter().filter(|o| o.active);
        active.map(|o| o.number).collect()
    }

    pub fn operators(&self) -> Vec<(String, u64, bool, Option<Quota>)> {
        let operators = self.operators.iter();
        operators
            .map(|o| (o.name.clone(), o.weight, o.active, o.allocation))
            .collect()
    }

    pub fn proposals(&self) -> Vec<(u64, ProposalStatus, Vec<u32>, Vec<u32>)> {
        let proposals = self.proposals.iter();
        proposals
            .map(|p| (p.id, p.status, p.approvals.clone(), p.rejections.clone()))
            .collect()
    }

    pub fn version(&self) -> u32 {
        let begun = self.versions.iter().filter(|(from, _)| *from <= self.epoch);
        begun.map(|(_, version)| *version).max().expect("the first")
    }

    pub fn decided(&self) -> u32 {
        let versions = self.versions.iter();
        versions.map(|(_, version)| *version).max().expect("one")
    }

    /// The codes of the transactions, and whether the epoch ended.
    pub fn execute(
        &mut self,
        time: u64,
        transactions: &[(u64, Action)],
        is_checkpoint: bool,
    ) -> (Vec<Code>, bool) {
        let passed = (time - self.time).min(self.parameters.gap_cap_ms);
        let beat = self.parameters.heartbeat_ms;
        let beats = (self.active_time + passed) / beat > self.active_time / beat;
        (self.time, self.active_time) = (time, self.active_time + passed);
        let codes = transactions
            .iter()
            .map(|(signer, action)| self.act(*signer, action).err().unwrap_or(Code::Ok))
            .collect();
        if beats {
            self.expire();
        }
        self.epoch_transactions += transactions.len() as u64;
        (codes, is_checkpoint && self.end_epoch())
    }

    fn act(&mut self, signer: u64, action: &Action) -> Done {
        let mut all = self.operators.iter();
        let signer = all.position(|o| o.active && o.number == signer);
        let signer = signer.ok_or(Code::UnknownSigner)? as u32;
        match action {
            Action::Propose(propose) => self.propose(signer, &propose.change),
            Action::Vote(vote) => self.vote(signer, vote),
            Action::OperatorLeave(_) => {
                if self.active().len() == 1 {
                    return Err(Code::LastOperator);
                }
                self.may_go(signer)?;
                self.operators[signer as usize].active = false;
                Ok(())
            }
            Action::AccountCreate(create) => {
                if self
                    .accounts
                    .iter()
                    .any(|(name, _)| *name == create.account)
                {
                    return Err(Code::NameTaken);
                }
                self.accounts.push((create.account.clone(), signer));
                Ok(())
            }
            Action::AccountAdopt(adopt) => {
                let mut accounts = self.accounts.iter_mut();
                let account = accounts.find(|(name, _)| *name == adopt.account);
                let (_, sponsor) = account.ok_or(Code::UnknownAccount)?;
                if *sponsor == signer {
                    return Err(Code::AlreadyDone);
                }
                if self.operators[*sponsor as usize].active {
                    return Err(Code::Unauthorised);
                }
                *sponsor = signer;
                Ok(())
            }
            other => unreachable!("{other:?} is not played"),
        }
    }

    fn votes_of(&self, operator: u32) -> u64 {
        let seats = self.seats.iter().filter(|(of, _)| *of == operator);
        seats.map(|(_, weight)| weight).sum()
    }

    fn propose(&mut self, proposer: u32, change: &ProposedChange) -> Done {
        if self.votes_of(proposer) == 0 {
            return Err(Code::Unauthorised);
        }
        self.makes_sense(change)?;
        let open = |p: &&Proposal| p.status == ProposalStatus::Open && p.proposer == proposer;
        if self.proposals.iter().filter(open).count() >= OPEN_MAX {
            return Err(Code::TooMany);
        }
        let id = self.proposal_ids;
        self.proposal_ids += 1;
        self.proposals.push(Proposal {
            id,
            proposer,
            change: change.clone(),
            approvals: vec![proposer],
            rejections: Vec::new(),
            status: ProposalStatus::Open,
            closes: self.time + self.parameters.proposal_ms,
        });
        self.count(id);
        Ok(())
    }

    fn vote(&mut self, voter: u32, vote: &Vote) -> Done {
        if self.votes_of(voter) == 0 {
            return Err(Code::Unauthorised);
        }
        let open = |p: &&mut Proposal| p.id == vote.proposal && p.status == ProposalStatus::Open;
        let proposal = self.proposals.iter_mut().find(open);
        let proposal = proposal.ok_or(Code::UnknownProposal)?;
        if proposal.approvals.contains(&voter) || proposal.rejections.contains(&voter) {
            return Err(Code::AlreadyVoted);
        }
        match vote.approve {
            true => proposal.approvals.push(voter),
            false => proposal.rejections.push(voter),
        }
        self.count(vote.proposal);
        Ok(())
    }

    fn count(&mut self, id: u64) {
        let total: u64 = self.seats.iter().map(|(_, weight)| weight).sum();
        let quorum = total - fault(total);
        let proposal = self.proposals.iter().find(|p| p.id == id).expect("there");
        let weigh = |who: &[u32]| who.iter().map(|o| self.votes_of(*o)).sum::<u64>();
        let change = proposal.change.clone();
        if weigh(&proposal.approvals) >= quorum {
            let status = if self.makes_sense(&change).is_ok() {
                self.enact(change);
                ProposalStatus::Accepted
            } else {
                ProposalStatus::Void
            };
            self.close(id, status);
        } else if weigh(&proposal.rejections) > total - quorum {
            self.close(id, ProposalStatus::Rejected);
        }
    }

    fn close(&mut self, id: u64, status: ProposalStatus) {
        let proposal = self.proposals.iter_mut().find(|p| p.id == id);
        proposal.expect("there").status = status;
        let closed = |p: &Proposal| p.status != ProposalStatus::Open;
        while self.proposals.iter().filter(|p| closed(p)).count() > CLOSED_MAX {
            let oldest = self.proposals.iter().position(closed).expect("counted");
            self.proposals.remove(oldest);
        }
    }

    fn expire(&mut self) {
        let late = |p: &&Proposal| p.status == ProposalStatus::Open && p.closes < self.time;
        let late: Vec<u64> = self.proposals.iter().filter(late).map(|p| p.id).collect();
        for id in late {
            self.close(id, ProposalStatus::Expired);
        }
    }

    fn named(&self, name: &str) -> Result<u32, Code> {
        let mut all = self.operators.iter();
        let position = all.position(|o| o.active && o.name == name);
        position.map(|at| at as u32).ok_or(Code::UnknownOperator)
    }

    fn makes_sense(&self, change: &ProposedChange) -> Done {
        let refuse_if = |wrong: bool, code| if wrong { Err(code) } else { Ok(()) };
        match change {
            ProposedChange::OperatorAdd(add) => {
                let taken = self.operators.iter().any(|o| o.name == add.name);
                refuse_if(taken, Code::NameTaken)?;
                let number = number_of(add);
                refuse_if(self.active().contains(&number), Code::KeyInUse)
            }
            ProposedChange::OperatorRemove(of) => {
                let operator = self.named(&of.operator)?;
                refuse_if(self.active().len() == 1, Code::LastOperator)?;
                self.may_go(operator)
            }
            ProposedChange::OperatorRemoveAnyway(of) => {
                let operator = self.named(&of.operator)?;
                refuse_if(self.active().len() == 1, Code::LastOperator)?;
                self.may_switch_off(operator)
            }
            ProposedChange::Allocation(of) => self.named(&of.operator).map(|_| ()),
            ProposedChange::Parameters(change) => {
                let short = change.epoch_ms.is_some_and(|ms| ms < 1_000);
                refuse_if(short, Code::OutOfRange)
            }
            ProposedChange::ProtocolVersion(to) => {
                refuse_if(to.version <= self.decided(), Code::OutOfRange)
            }
            ProposedChange::OperatorReseat(_) => unreachable!("not played"),
        }
    }

    fn enact(&mut self, change: ProposedChange) {
        match change {
            ProposedChange::OperatorAdd(add) => self.operators.push(Operator {
                number: number_of(&add),
                name: add.name,
                weight: add.weight,
                active: true,
                allocation: None,
            }),
            ProposedChange::OperatorRemove(of) | ProposedChange::OperatorRemoveAnyway(of) => {
                let operator = self.named(&of.operator).expect("it makes sense");
                self.operators[operator as usize].active = false;
            }
            ProposedChange::Allocation(of) => {
                let operator = self.named(&of.operator).expect("it makes sense");
                self.operators[operator as usize].allocation = of.allocation;
            }
            ProposedChange::Parameters(change) => {
                let parameters = &mut self.parameters;
                parameters.epoch_ms = change.epoch_ms.unwrap_or(parameters.epoch_ms);
                parameters.proposal_ms = change.proposal_ms.unwrap_or(parameters.proposal_ms);
            }
            ProposedChange::ProtocolVersion(to) => {
                self.versions.push((self.epoch + 1, to.version));
            }
            ProposedChange::OperatorReseat(_) => unreachable!("not played"),
        }
    }

    fn next_seats(&self) -> Vec<(u32, u64)> {
        let all = (0..).zip(&self.operators);
        let active = all.filter(|(_, o)| o.active);
        active.map(|(id, o)| (id, o.weight)).collect()
    }

    /// Whether a seat may go: the next committee must bear what this one bears, and the epoch must be able to end.
    fn may_go(&self, going: u32) -> Done {
        let next = self.next_seats();
        let left = next.iter().filter(|(operator, _)| *operator != going);
        let left: Vec<u64> = left.map(|(_, weight)| *weight).collect();
        if left.is_empty() {
            return Err(Code::LastOperator);
        }
        let now: Vec<u64> = self.seats.iter().map(|(_, weight)| *weight).collect();
        if bears_any(&now) && !bears_any(&left) {
            return Err(Code::TooFewSeats);
        }
        self.may_switch_off(going)
    }

    fn may_switch_off(&self, going: u32) -> Done {
        let leaves = |operator: u32| !self.operators[operator as usize].active;
        let gone = self.seats.iter().filter(|(operator, _)| leaves(*operator));
        let gone: u64 = gone.map(|(_, weight)| weight).sum();
        let total = self.seats.iter().map(|(_, weight)| *weight).sum();
        if gone > 0 && gone + self.votes_of(going) > fault(total) {
            return Err(Code::TooManyLeave);
        }
        Ok(())
    }

    fn end_epoch(&mut self) -> bool {
        let next = self.next_seats();
        let long = self.time - self.epoch_start >= self.parameters.epoch_ms
            || self.epoch_transactions >= self.parameters.epoch_transactions;
        if next == self.seats && !long {
            return false;
        }
        self.seats = next;
        self.epoch += 1;
        (self.epoch_start, self.epoch_transactions) = (self.time, 0);
        true
    }
}

/// The number that the keys of a newcomer are made of.
fn number_of(add: &OperatorAdd) -> u64 {
    let key = |number: u64| crate::cloud::public(&crate::cloud::operator_key(number));
    (0..)
        .find(|number| key(*number) == add.operator_key)
        .expect("one of the play's keys")
}
