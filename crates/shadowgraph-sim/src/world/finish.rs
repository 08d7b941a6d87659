//! The end of a run: what must hold once everything has healed, and the recomputation of the commits from the events.

use std::collections::BTreeMap;

use shadowgraph::{Epoch, EventRef, MemberIndex, VerifiedEvent};

use super::{Slot, World};
use crate::checkers::ledger::{Finding, Reported, ensure};
use crate::checkers::naive::NaiveGraph;
use crate::checkers::replay;
use crate::node::LogReader;
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
        let epoch = self.ledger.epoch();
        let there = |node: usize| {
            let left = matches!(&self.slots[node], Slot::Honest(driver) if driver.epoch() == epoch);
            left && self.ledger.position[node] >= checkpoint
        };
        self.returned.is_empty() && self.ledger.certified >= checkpoint && honest.all(there)
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
        ensure!(
            "scenario",
            !expect.twins || !self.verifier.twins().is_empty(),
            "nobody signed twice"
        );
        ensure!(
            "scenario",
            self.refusals >= expect.refusals,
            "{} nodes refused to start",
            self.refusals
        );
        Ok(())
    }

    /// The last checks, and the report.
    pub(super) fn finish(mut self) -> Report {
        let mut reader = LogReader::default();
        let logs = self.slots.iter().map(|slot| slot.log(&mut reader));
        let logs: Vec<Vec<VerifiedEvent>> = logs.collect();
        let mut union: BTreeMap<(Epoch, EventRef), VerifiedEvent> = BTreeMap::new();
        for event in reader.events() {
            union.insert((event.epoch(), *event.reference()), event.clone());
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
        self.report.held = self.limits.held;
        self.report.steps = self.trace.steps();
        self.report.audit = self.trace.hash();
        self.report.lines = self.trace.into_lines();
        self.report
    }

    fn check_honest_signers(&self) -> Finding {
        for (epoch, round, creator) in self.verifier.twins() {
            let holder = self.epochs.node_of(Epoch(*epoch), MemberIndex(*creator));
            let holder = holder.expect("a seat is held");
            ensure!(
                "honest equivocation",
                !self.plan.is_honest(holder),
                "honest n{holder} signed two events of round {round} of epoch {epoch}"
            );
        }
        Ok(())
    }

    /// The commit rule on the union of all logs and on beginnings of single logs, epoch by epoch.
    fn recompute(
        &self,
        logs: &[Vec<VerifiedEvent>],
        union: &BTreeMap<(Epoch, EventRef), VerifiedEvent>,
    ) -> Finding {
        let mut start_ms = super::START_MS;
        for epoch in (0..=self.ledger.epoch().0).map(Epoch) {
            let of_epoch = |reported: &&Reported| reported.commit.epoch == epoch;
            let reported: Vec<Reported> = self
                .ledger
                .sequence
                .iter()
                .filter(of_epoch)
                .cloned()
                .collect();
            let here = |event: &&VerifiedEvent| event.epoch() == epoch;
            let whole = self.naive(epoch, start_ms, union.values().filter(here));
            replay::compare("all events", &whole, &reported)?;
            ensure!(
                "commit rule",
                whole.len() >= reported.len(),
                "the naive rule decides {} commits on all events of {epoch:?}, nodes reported {}",
                whole.len(),
                reported.len()
            );
            let mut rng = SimRng::stream(union.len() as u64 + epoch.0, "prefixes", 0);
            let logs = logs.iter().map(|log| log.iter().filter(here).collect());
            let logs: Vec<Vec<&VerifiedEvent>> =
                logs.filter(|log: &Vec<_>| !log.is_empty()).collect();
            for _ in 0..PREFIXES.min(logs.len()) {
                let log = rng.choose(&logs);
                let length = rng.between(1, log.len() as u64) as usize;
                let part = self.naive(epoch, start_ms, log[..length].iter().copied());
                replay::compare("the beginning of one log", &part, &reported)?;
            }
            start_ms = reported.last().map_or(start_ms, |last| last.commit.time_ms);
        }
        Ok(())
    }

    fn naive<'a>(
        &self,
        epoch: Epoch,
        start_ms: u64,
        events: impl Iterator<Item = &'a VerifiedEvent>,
    ) -> Vec<crate::checkers::naive::NaiveCommit> {
        let mut graph = NaiveGraph::new(super::weights(&self.epochs, epoch));
        events.for_each(|event| graph.insert(replay::vertex(event)));
        let mut schedule = super::naive_schedule(&self.plan, &self.epochs, epoch);
        let depth = self.plan.parameters.gc_depth_rounds;
        replay::recompute(&graph, &mut schedule, depth, start_ms)
    }
}

impl Slot {
    fn log(&self, reader: &mut LogReader) -> Vec<VerifiedEvent> {
        match self {
            Self::Honest(driver) => driver.log(reader),
            Self::Puppet(_) => Vec::new(),
        }
    }
}
