//! Events on their way into the graph, and the commits that follow. docs/protocol.md 7.2, 8, 3.8.

use std::collections::VecDeque;

use super::{EpochReplica, HaltReason, Output, PeerFault};
use crate::equivocation::EquivocationProof;
use crate::event::{EventRef, VerifiedEvent};
use crate::message::Peer;
use crate::sync::{Added, Step};

impl EpochReplica {
    pub(crate) fn on_events(&mut self, now_ms: u64, from: Peer, events: Vec<VerifiedEvent>) {
        let stood_for = self.me().is_none();
        let step = self.fetch.answer(now_ms, from, stood_for, &events);
        if step == Step::Unrelated && !events.is_empty() {
            self.gossip.fed(now_ms);
        }
        for event in events {
            self.accept(now_ms, from, event);
            if self.halted {
                return;
            }
        }
        if step == Step::Answered {
            self.fetch_next(now_ms);
        }
    }

    /// docs/protocol.md 7.2
    fn accept(&mut self, now_ms: u64, from: Peer, event: VerifiedEvent) {
        let reference = *event.reference();
        let known =
            self.graph.find(&reference).is_some() || self.pending.contains(&reference.digest);
        if event.epoch() != self.committee().epoch()
            || reference.round <= self.graph.floor()
            || known
        {
            return;
        }
        if self.me() == Some(reference.creator) {
            // docs/protocol.md 8.5: every own event above the floor is in the log and so in the graph.
            self.halt(HaltReason::OwnEventUnknown(reference));
            return;
        }
        self.fetch.saw(reference.creator, reference.round);
        if !self.admit(from, &event) {
            return;
        }
        let missing = self.graph.missing(&event);
        if missing.is_empty() {
            self.insert_all(now_ms, from, event);
            return;
        }
        let delay_ms = self.pacing.arrival_ms(self.parameters().pull_delay_ms);
        self.pending.ask_after(delay_ms);
        let added = self.pending.add(now_ms, from, event, &missing);
        // While we are far behind, an honest peer's news pile up too.
        if added == Added::Overflow && !self.fetch.behind() {
            self.output(Output::PeerFault {
                peer: from,
                fault: PeerFault::PendingOverflow,
            });
        }
    }

    /// Whether an event may enter. Whatever honest members may have cited must, or this replica could never follow them
    /// again: what is wrong with an event only decides whether it enters unasked.
    fn admit(&mut self, from: Peer, event: &VerifiedEvent) -> bool {
        let clean = !self.is_twin(event) && self.time_holds(from, event);
        (clean || self.is_needed(event.reference())) && self.graph.has_room(event.round())
    }

    /// Whether the slot has another event, in the graph or waiting; then both are proof. docs/protocol.md 8.1
    fn is_twin(&mut self, event: &VerifiedEvent) -> bool {
        let (round, seat) = (event.round(), event.creator());
        let first = self.graph.first(round, seat).map(|node| &node.event);
        let taken = first.is_some();
        let Some(other) = first.or_else(|| self.pending.twin_of(event)).cloned() else {
            return false;
        };
        if self.equivocators.insert(&self.config.committee, seat) {
            self.output(Output::Equivocation(EquivocationProof::new(&other, event)));
        }
        taken
    }

    /// Whether an event waits for this one that honest members may have cited: one whose creator is not known to have
    /// signed twins, or that is needed itself. Such a member has one event a slot, so the twins that enter are bounded
    /// without a cap, which a culprit could fill to keep the twin out that everybody else cites. docs/protocol.md 8.4
    fn is_needed(&self, reference: &EventRef) -> bool {
        self.pending
            .is_needed(reference, |seat| !self.equivocators.contains(seat))
    }

    /// Inserts a complete event and all that waited for it alone, and commits what can be.
    pub(super) fn insert_all(&mut self, now_ms: u64, from: Peer, event: VerifiedEvent) {
        let mut complete = VecDeque::from([(from, event)]);
        while let Some((from, event)) = complete.pop_front() {
            let reference = *event.reference();
            let useless =
                reference.round <= self.graph.floor() || self.graph.find(&reference).is_some();
            if useless || !self.admit(from, &event) {
                continue;
            }
            self.insert(now_ms, event);
            complete.extend(self.pending.arrived(&reference));
            complete.extend(self.commit_all());
            if self.halted {
                return;
            }
        }
    }

    /// docs/protocol.md 2.8: at the floor and below the own parent's time is not known, and not asked for. So this must not
    /// decide on validity, which would depend on how far a replica has come.
    fn time_holds(&mut self, from: Peer, event: &VerifiedEvent) -> bool {
        let own_parent = self
            .graph
            .find(event.own_parent())
            .and_then(|handle| self.graph.node(handle));
        let holds =
            own_parent.is_none_or(|parent| parent.event.timestamp_ms() <= event.timestamp_ms());
        // Whoever passes it on may not have been able to see it.
        if !holds && from == Peer::Member(event.creator()) {
            let fault = PeerFault::TimestampBelowOwnParent(*event.reference());
            self.output(Output::PeerFault { peer: from, fault });
        }
        holds
    }

    /// One event enters the graph: persisted, counted, its votes read.
    pub(super) fn insert(&mut self, now_ms: u64, event: VerifiedEvent) {
        let handle = self.graph.insert(event.clone());
        self.ending.progressed(now_ms);
        self.output(Output::Persist(event.clone()));
        self.committer.observe(&self.graph, handle);
        let quorum = self.committee().quorum_weight();
        if handle.round > self.complete && self.graph.weight(handle.round) >= quorum {
            self.complete = handle.round;
            let by_other = self.me() != Some(event.creator());
            self.proposer
                .round_complete(now_ms, handle.round, by_other, &mut self.pacing);
        }
        self.count_votes(&event);
    }

    /// Outputs every commit that is decided. Returns waiting events that a risen floor has made complete.
    pub(super) fn commit_all(&mut self) -> Vec<(Peer, VerifiedEvent)> {
        let mut complete = Vec::new();
        while let Some(decided) = self.committer.next(&self.graph) {
            let commit = self.linearizer.commit(
                &mut self.graph,
                decided.leader,
                decided.slot.rank,
                decided.decision,
            );
            self.committer
                .committed(commit.leader.round, &commit.events);
            self.pacing.committed(commit.leader.round);
            self.settle_own(&commit);
            // docs/protocol.md 10.1: after the end commits only move the floor.
            if !self.ending.voids(commit.index) {
                self.checkpoints.committed(&commit);
                self.output(Output::Commit(commit));
            }
            complete.extend(self.collect());
        }
        complete
    }

    /// docs/protocol.md 6: the floor follows the last leader.
    fn collect(&mut self) -> Vec<(Peer, VerifiedEvent)> {
        let floor = self.linearizer.floor();
        if floor <= self.graph.floor() {
            return Vec::new();
        }
        self.graph.raise_floor(floor);
        self.committer.raise_floor(floor);
        for event in self.proposer.fallen(floor).into_iter().rev() {
            // docs/protocol.md 6.4: only now is it sure that no commit will output them.
            let transactions: Vec<_> = event.transactions().collect();
            self.pool.put_back(transactions.into_iter());
        }
        self.pending.raise_floor(floor)
    }

    /// Takes an event of the own log, which holds ancestors first.
    pub(crate) fn restore(&mut self, now_ms: u64, event: VerifiedEvent) {
        let reference = *event.reference();
        let useless =
            reference.round <= self.graph.floor() || self.graph.find(&reference).is_some();
        if useless || !self.graph.missing(&event).is_empty() {
            return;
        }
        if self.me() == Some(reference.creator) {
            self.proposer.made(&event);
            // What an ended epoch left pending may have gone into this one.
            for transaction in event.transactions() {
                self.pool.remove(&transaction);
            }
        }
        if self
            .graph
            .first(reference.round, reference.creator)
            .is_some()
        {
            let committee = self.committee().clone();
            self.equivocators.insert(&committee, reference.creator);
        }
        self.insert(now_ms, event);
        self.commit_all();
    }
}
