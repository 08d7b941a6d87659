//! From decided leaders to commits: which events a commit outputs, in which order, at what time, and whether it is
//! a checkpoint. docs/protocol.md 5. Everything here is a function of the sequence of leaders and their histories.

use crate::commit::{Commit, Decision};
use crate::committee::Committee;
use crate::epoch::EpochStart;
use crate::event::VerifiedEvent;
use crate::graph::{Graph, Handle};
use crate::ids::{CommitIndex, Digest, Round};
use crate::parameters::Parameters;

/// A commit without transactions is a checkpoint once this part of the checkpoint interval has passed since the last one: a
/// lone transaction's is one at once, and a stream's are not with every wave of rounds. docs/protocol.md 9.1
const QUIET_SHARE: u64 = 20;
/// Or so many rounds: commit time may stand still, for clocks that were set back.
const QUIET_ROUNDS: u64 = 50;
/// A checkpoint also comes after so many intervals without one: state changes with time alone too, and epochs end at checkpoints.
const REST_INTERVALS: u64 = 60;

/// The state that one commit leaves to the next.
#[derive(Debug)]
pub(crate) struct Linearizer {
    committee: Committee,
    gc_depth_rounds: u64,
    checkpoint_interval_ms: u64,
    pub(crate) index: CommitIndex,
    pub(crate) digest: Digest,
    pub(crate) leader_round: Round,
    pub(crate) time_ms: u64,
    /// Whether a commit since the last checkpoint had transactions.
    unsealed: bool,
    last_checkpoint_ms: u64,
    last_checkpoint_round: Round,
}

impl Linearizer {
    pub(crate) fn new(committee: Committee, start: EpochStart, parameters: &Parameters) -> Self {
        Self {
            committee,
            gc_depth_rounds: parameters.gc_depth_rounds,
            checkpoint_interval_ms: parameters.checkpoint_interval_ms,
            index: start.commit,
            digest: start.commit_digest,
            leader_round: Round(0),
            time_ms: start.time_ms,
            unsealed: false,
            last_checkpoint_ms: start.time_ms,
            last_checkpoint_round: Round(0),
        }
    }

    /// Events of this round and below will never be output. docs/protocol.md 5.2
    pub(crate) fn floor(&self) -> Round {
        self.leader_round.back(self.gc_depth_rounds)
    }

    /// Whether transactions were committed that no checkpoint covers yet.
    pub(crate) fn is_unsealed(&self) -> bool {
        self.unsealed
    }

    /// Makes the next commit of a decided leader.
    pub(crate) fn commit(
        &mut self,
        graph: &mut Graph,
        leader: Handle,
        rank: u16,
        decision: Decision,
    ) -> Commit {
        let events = self.output(graph, leader);
        let time_ms = self.time_ms.max(self.median_ms(graph, leader));
        let transactions = events.iter().any(|event| event.transaction_count() > 0);
        let is_checkpoint = self.is_checkpoint(transactions, time_ms, leader.round);
        let leader = *graph
            .node(leader)
            .expect("leaders are above the floor")
            .event
            .reference();
        let mut commit = Commit {
            index: self.index.next(),
            epoch: self.committee.epoch(),
            leader,
            rank,
            time_ms,
            previous: self.digest,
            digest: Digest::default(),
            events,
            is_checkpoint,
            decision,
        };
        commit.digest = commit.compute_digest();
        self.index = commit.index;
        self.digest = commit.digest;
        self.time_ms = time_ms;
        assert!(
            leader.round >= self.leader_round,
            "leaders are decided in order of round"
        );
        self.leader_round = leader.round;
        commit
    }

    /// docs/protocol.md 5.1 to 5.4
    fn output(&self, graph: &mut Graph, leader: Handle) -> Vec<VerifiedEvent> {
        let floor = self.floor();
        let mut history = Vec::new();
        let mut open = Vec::new();
        if graph.mark_ordered(leader) {
            open.push(leader);
        }
        while let Some(handle) = open.pop() {
            let node = graph.node(handle).expect("above the floor");
            history.push((node.event.clone(), handle));
            let unseen = |parent: &Handle| {
                parent.round > floor && graph.node(*parent).is_some_and(|n| !n.ordered)
            };
            let parents: Vec<Handle> = node.parents().filter(unseen).collect();
            for parent in parents {
                graph.mark_ordered(parent);
                open.push(parent);
            }
        }
        history.sort_unstable_by_key(|(event, _)| *event.reference());
        let committee = &self.committee;
        let mut first_of_slot = |event: &VerifiedEvent| {
            let layer = graph.layer_mut(event.round()).expect("above the floor");
            layer.output.insert(committee, event.creator())
        };
        history
            .into_iter()
            .map(|(event, _)| event)
            .filter(|event| first_of_slot(event))
            .collect()
    }

    /// The weighted median of the timestamps of the leader's parents of the round before: no f can move it beyond
    /// what an honest clock said. docs/protocol.md 5.5
    fn median_ms(&self, graph: &Graph, leader: Handle) -> u64 {
        let node = graph.node(leader).expect("leaders are above the floor");
        let cited = node
            .parents()
            .filter(|parent| parent.round.next() == leader.round);
        let mut times: Vec<(u64, u64)> = cited
            .filter_map(|parent| graph.node(parent))
            .map(|parent| {
                (
                    parent.event.timestamp_ms(),
                    self.committee.weight(parent.creator),
                )
            })
            .collect();
        times.sort_unstable();
        let total: u64 = times.iter().map(|(_, weight)| weight).sum();
        let mut below = 0;
        for (time_ms, weight) in times {
            below += weight;
            if below * 2 >= total {
                return time_ms;
            }
        }
        // A leader of round 1 has no signed parents: time stands still.
        self.time_ms
    }

    /// docs/protocol.md 9.1
    fn is_checkpoint(&mut self, transactions: bool, time_ms: u64, round: Round) -> bool {
        self.unsealed |= transactions;
        let since_ms = time_ms - self.last_checkpoint_ms;
        let passed = since_ms >= self.checkpoint_interval_ms;
        let quiet = !transactions
            && (since_ms >= self.checkpoint_interval_ms / QUIET_SHARE
                || round >= self.last_checkpoint_round.ahead(QUIET_ROUNDS));
        let rested = since_ms / REST_INTERVALS >= self.checkpoint_interval_ms;
        let due = rested || (self.unsealed && (passed || quiet));
        if due {
            self.unsealed = false;
            self.last_checkpoint_ms = time_ms;
            self.last_checkpoint_round = round;
        }
        due
    }
}

#[cfg(test)]
#[path = "linearizer_tests.rs"]
mod tests;
