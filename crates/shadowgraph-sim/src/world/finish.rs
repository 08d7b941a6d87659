//! The end of a run: what must hold once everything has healed, and the recomputation of the commits from the events.

use std::collections::BTreeMap;

use shadowgraph::{EventRef, VerifiedEvent};

use super::{Slot, World};
use crate::checkers::ledger::{Finding, ensure};
use crate::checkers::naive::NaiveGraph;
use crate::checkers::replay;
use crate::report::Report;
use crate::rng::SimRng;

/// Earlier moments of single nodes at which the commits are recomputed, too.
const PREFIXES: usize = 3;

impl World {
    /// Whether the committee has healed and done all its duties.
    pub(super) fn is_settled(&self) -> bool {
        if !self.healed || !self.clients.open().is_empty() {
            return false;
        }
        let wanted = self.clients.last_commit;
        let Some(checkpoint) = self.ledger.checkpoint_after(wanted) else {
            return wanted == 0;
        };
        let mut honest = (0..self.slots.len()).filter(|node| self.plan.is_correct(*node));
        self.ledger.certified >= checkpoint
            && honest.all(|node| self.ledger.position[node] >= checkpoint)
    }

    /// Time is up and the run has not settled: says what is missing.
    pub(super) fn check_liveness(&mut self) {
        let open = self.clients.open();
        let first = open.first().map(|id| self.clients.describe(*id));
        let wanted = self.clients.last_commit;
        let checkpoint = self.ledger.checkpoint_after(wanted);
        let mut text = format!(
            "{} accepted transactions never committed, the first {first:?}; last needed commit {wanted}, its checkpoint \
             {checkpoint:?}, certified {}; commits by node {:?}",
            open.len(),
            self.ledger.certified,
            self.ledger.position
        );
        for (node, slot) in self.slots.iter().enumerate() {
            if let Slot::Honest(driver) = slot {
                text.push_str(&format!("\n  n{node}: {:?}", driver.status()));
            }
        }
        self.check(Err(("liveness", text)));
    }

    /// At the end of the chaos phase: did it disturb what the scenario says it disturbs?
    pub(super) fn check_chaos(&self) -> Finding {
        let commits = self.ledger.sequence.len();
        let expect = self.plan.expect;
        ensure!(
            "scenario",
            !expect.no_commit_in_chaos || commits == 0,
            "{commits} commits without a quorum"
        );
        ensure!(
            "chaos liveness",
            !expect.commits_in_chaos || commits > 0,
            "no commit during the whole chaos phase"
        );
        Ok(())
    }

    /// The last checks, and the report.
    pub(super) fn finish(mut self) -> Report {
        let logs: Vec<Vec<VerifiedEvent>> = self.slots.iter().map(Slot::log).collect();
        let mut union: BTreeMap<EventRef, VerifiedEvent> = BTreeMap::new();
        for event in logs.iter().flatten() {
            union.insert(*event.reference(), event.clone());
        }
        if self.report.violations.is_empty() {
            let finding = self.recompute(&logs, &union);
            self.check(finding);
            let finding = self.check_honest_signers();
            self.check(finding);
            let expect = self.plan.expect.equivocation_proven;
            let finding = self
                .limits
                .finish(expect, !self.verifier.twins().is_empty());
            self.check(finding);
        }
        self.report.virtual_us = self.queue.now_us();
        self.report.commits = self.ledger.sequence.len() as u64;
        self.report.events = union.len() as u64;
        self.report.accepted = self.clients.accepted;
        self.report.steps = self.trace.steps();
        self.report.audit = self.trace.hash();
        self.report.lines = self.trace.into_lines();
        self.report
    }

    fn check_honest_signers(&self) -> Finding {
        for (round, creator) in self.verifier.twins() {
            ensure!(
                "honest equivocation",
                !self.plan.is_honest(usize::from(*creator)),
                "honest n{creator} signed two events of round {round}"
            );
        }
        Ok(())
    }

    /// The commit rule on the union of all logs and on beginnings of single logs.
    fn recompute(
        &self,
        logs: &[Vec<VerifiedEvent>],
        union: &BTreeMap<EventRef, VerifiedEvent>,
    ) -> Finding {
        let reported = &self.ledger.sequence;
        let whole = self.naive(union.values());
        replay::compare("all events", &whole, reported)?;
        ensure!(
            "commit rule",
            whole.len() >= reported.len(),
            "the naive rule decides {} commits on all events, nodes reported {}",
            whole.len(),
            reported.len()
        );
        let mut rng = SimRng::stream(union.len() as u64, "prefixes", 0);
        let logs: Vec<&Vec<VerifiedEvent>> = logs.iter().filter(|log| !log.is_empty()).collect();
        for _ in 0..PREFIXES.min(logs.len()) {
            let log = *rng.choose(&logs);
            let length = rng.between(1, log.len() as u64) as usize;
            let part = self.naive(log[..length].iter());
            replay::compare("the beginning of one log", &part, reported)?;
        }
        Ok(())
    }

    fn naive<'a>(
        &self,
        events: impl Iterator<Item = &'a VerifiedEvent>,
    ) -> Vec<crate::checkers::naive::NaiveCommit> {
        let mut graph = NaiveGraph::new(self.plan.weights.clone());
        events.for_each(|event| graph.insert(replay::vertex(event)));
        let mut schedule = super::naive_schedule(&self.plan);
        replay::recompute(
            &graph,
            &mut schedule,
            self.plan.parameters.gc_depth_rounds,
            super::START_MS,
        )
    }
}

impl Slot {
    fn log(&self) -> Vec<VerifiedEvent> {
        match self {
            Self::Honest(driver) => driver.log(),
            Self::Puppet(_) => Vec::new(),
        }
    }
}
