//! Execution of one commit: time first, then the transactions in order, then what became due.

use crate::action::Action;
use crate::code::Code;
use crate::commit::{CommitInput, CommitOutput, Outcome, Subject};
use crate::ids::{AccountId, Key, MachineId, OperatorId};
use crate::ledger::indexes::Principal;
use crate::ledger::{Ledger, outcomes};
use crate::transaction::{CheckedTransaction, Transaction};

/// Why an action was refused. Nothing was changed.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) detail: String,
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        Self {
            code,
            detail: String::new(),
        }
    }
}

/// What an action did: the object it was about.
pub(super) type Done = Result<Option<Subject>, Refusal>;

/// A refusal that says what in particular.
pub(super) fn refuse<T>(code: Code, detail: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal {
        code,
        detail: detail.into(),
    })
}

impl Ledger {
    /// Executes one commit. The only way in which the state moves.
    ///
    /// # Panics
    /// If the commit is not the one after the last, or not of the present epoch: the caller would fork the ledger.
    pub fn execute(&mut self, input: &CommitInput<'_>) -> CommitOutput {
        if let Some(last) = self.clock.commit_index {
            assert!(
                input.index == last + 1,
                "commit {} after {last}",
                input.index
            );
        }
        assert!(
            input.epoch == self.epoch.number,
            "commit {} of epoch {} in epoch {}: it is void",
            input.index,
            input.epoch,
            self.epoch.number
        );
        let passed_ms = self.advance_clock(input);
        self.note_fresh(input.active_members);
        self.replay.expire(self.clock.time_ms);
        let beat_ms = self.parameters.heartbeat_ms;
        let active_ms = self.clock.active_ms;
        let beat = active_ms / beat_ms != (active_ms - passed_ms) / beat_ms;
        if beat {
            self.end_damping();
            self.look_for_returns();
        }
        self.lapse_leases();
        let outcomes: Vec<Outcome> = input
            .transactions
            .iter()
            .map(|transaction| self.run(transaction))
            .collect();
        self.sweep_machines(passed_ms);
        self.pass_deadlines();
        self.close_late_disputes();
        if beat {
            self.drain_machines();
            self.expire_proposals();
        }
        self.chain_outcomes(&outcomes);
        let next_epoch = self.end_epoch(input);
        CommitOutput {
            outcomes,
            changes: std::mem::take(&mut self.changes),
            outcomes_root: self.clock.outcomes_root,
            next_epoch,
        }
    }

    /// Moves the clock; returns how far active time moved.
    fn advance_clock(&mut self, input: &CommitInput<'_>) -> u64 {
        let time_ms = input.time_ms.max(self.clock.time_ms);
        let passed_ms = (time_ms - self.clock.time_ms).min(self.parameters.gap_cap_ms);
        self.clock.commit_index = Some(input.index);
        self.clock.commit_digest = input.digest;
        self.clock.time_ms = time_ms;
        self.clock.active_ms += passed_ms;
        passed_ms
    }

    fn chain_outcomes(&mut self, all: &[Outcome]) {
        if all.is_empty() {
            return;
        }
        let leaves = (0..)
            .zip(all)
            .map(|(i, outcome)| outcomes::leaf(i, outcome))
            .collect();
        let root = outcomes::root(leaves);
        let commit = self.clock.commit_index.unwrap_or(0);
        let count = all.len() as u64;
        let previous = self.clock.outcomes_root;
        self.clock.outcomes_root =
            outcomes::link(&previous, commit, self.clock.time_ms, count, &root);
    }

    fn run(&mut self, checked: &CheckedTransaction) -> Outcome {
        let digest = checked.digest();
        let result = match &checked.verdict {
            Ok(transaction) => self
                .admit(checked)
                .map_err(Refusal::from)
                .and_then(|principal| {
                    self.replay.insert(digest, transaction.valid_until_ms);
                    self.act(principal, transaction)
                }),
            Err((code, at)) => refuse(*code, &**at),
        };
        let (code, subject, detail) = match result {
            Ok(subject) => (Code::Ok, subject, String::new()),
            Err(refusal) => (refusal.code, None, refusal.detail),
        };
        Outcome {
            digest,
            code,
            subject,
            detail,
        }
    }

    /// What needs no look at the action: time, repetition, and whom the key speaks for.
    fn admit(&self, checked: &CheckedTransaction) -> Result<Principal, Code> {
        let transaction = checked.verdict.as_ref().map_err(|(code, _)| *code)?;
        let (now_ms, until_ms) = (self.clock.time_ms, transaction.valid_until_ms);
        if until_ms < now_ms {
            return Err(Code::Expired);
        }
        if until_ms - now_ms > self.parameters.horizon_ms {
            return Err(Code::TooFarAhead);
        }
        if self.replay.contains(&checked.digest, until_ms) {
            return Err(Code::Repeated);
        }
        self.principal(&transaction.signer)
    }

    fn principal(&self, key: &Key) -> Result<Principal, Code> {
        match self.indexes.keys.get(key) {
            None => Err(Code::UnknownSigner),
            // It signs events and votes, and nothing else.
            Some(Principal::Consensus(_)) => Err(Code::Unauthorised),
            Some(principal) => Ok(*principal),
        }
    }

    /// Advice before a transaction is gossiped: the code it would certainly get now. Says nothing about what the action itself
    /// would do.
    pub fn check_admission(&self, transaction: &CheckedTransaction) -> Result<(), Code> {
        self.admit(transaction).map(|_| ())
    }

    fn act(&mut self, principal: Principal, transaction: &Transaction) -> Done {
        let principal = self.undelegate(principal, transaction)?;
        match &transaction.action {
            Action::Propose(a) => self.propose(principal.operator()?, a),
            Action::Vote(a) => self.vote(principal.operator()?, a),
            Action::OperatorKeys(a) => self.operator_keys(principal.operator()?, a),
            Action::OperatorLeave(_) => self.operator_leave(principal.operator()?),
            Action::MachineKey(a) => self.machine_key(principal.operator()?, a),
            Action::Equivocation(a) => self.equivocation(a),
            Action::AccountQuota(a) => self.account_quota(principal.operator()?, a),
            Action::MachineUpdate(a) => self.machine_update(principal.operator()?, a),
            Action::AccountRotate(a) => self.account_rotate(principal.account()?, a),
            Action::KeyDelegate(a) => self.key_delegate(principal.account()?, a),
            Action::KeyRevoke(a) => self.key_revoke(principal.account()?, a),
            Action::ImageAttest(a) => {
                let operator = match principal {
                    Principal::Node {
                        member: Some(operator),
                        ..
                    } => operator,
                    Principal::Node {
                        machine: Some(machine),
                        ..
                    } => self.machine(machine).expect("indexed").operator,
                    _ => return Err(Code::Unauthorised.into()),
                };
                self.image_attest(operator, a)
            }
            Action::AccountCreate(a) => self.account_create(principal.operator()?, a),
            Action::MachineAdd(a) => self.machine_add(principal.operator()?, a),
            Action::MachineDrain(a) => self.machine_drain(principal.operator()?, &a.machine, true),
            Action::MachineUndrain(a) => {
                self.machine_drain(principal.operator()?, &a.machine, false)
            }
            Action::MachineRemove(a) => self.machine_remove(principal.operator()?, &a.machine),
            Action::ImagePublish(a) => self.image_publish(principal.account()?, a),
            Action::ImageShare(a) => self.image_share(principal.account()?, a),
            Action::ImageRetire(a) => self.image_retire(principal.account()?, &a.image),
            Action::VmCreate(a) => self.vm_create(principal.account()?, a),
            Action::VmDelete(a) => self.vm_delete(principal.account()?, &a.vm),
            Action::VmStop(a) => self.vm_stop(principal.account()?, &a.vm),
            Action::VmStart(a) => self.vm_start(principal.account()?, &a.vm),
            Action::VmReboot(a) => self.vm_reboot(principal.account()?, &a.vm),
            Action::VmRename(a) => self.vm_rename(principal.account()?, a),
            Action::VmResize(a) => self.vm_resize(principal.account()?, a),
            Action::VmPlace(a) => self.vm_place(principal.account()?, a),
            Action::AccountAdopt(a) => self.account_adopt(principal.operator()?, &a.account),
            Action::VmDispute(a) => self.vm_dispute(principal.account()?, a),
            Action::VmProbe(a) => self.vm_probe(principal.member()?, a),
            Action::VmReport(a) => self.vm_report(principal.machine()?, a),
            Action::Attest(a) => {
                let operator = principal.member()?;
                let member = self.operators[operator.index()]
                    .member
                    .ok_or(Code::Unauthorised)?;
                self.attest(member, a)
            }
        }
    }
}

impl Principal {
    fn operator(self) -> Result<OperatorId, Code> {
        match self {
            Principal::Operator(id) => Ok(id),
            _ => Err(Code::Unauthorised),
        }
    }

    fn account(self) -> Result<AccountId, Code> {
        match self {
            Principal::Account(id) => Ok(id),
            _ => Err(Code::Unauthorised),
        }
    }

    fn machine(self) -> Result<MachineId, Code> {
        match self {
            Principal::Node {
                machine: Some(id), ..
            } => Ok(id),
            _ => Err(Code::Unauthorised),
        }
    }

    fn member(self) -> Result<OperatorId, Code> {
        match self {
            Principal::Node {
                member: Some(id), ..
            } => Ok(id),
            _ => Err(Code::Unauthorised),
        }
    }
}
