//! Own events: when the next one is due, what it cites and carries. docs/protocol.md 4.4 to 4.8, 6.3, 6.4.

use std::collections::VecDeque;

use super::{EpochReplica, Output};
use crate::commit::Commit;
use crate::event::{EventDraft, EventRef, VerifiedEvent};
use crate::graph::Node;
use crate::ids::{CommitIndex, Digest, MemberIndex, Round};
use crate::message::{Message, Peer, Recipient, Wake};
use crate::pacing::Pacing;
use crate::parameters::Config;

/// Rounds of a wave: what the events of its first round carry is ordered by the votes of the other two. docs/protocol.md 4.9
const WAVE_ROUNDS: u64 = 3;

#[derive(Debug)]
pub(super) struct Proposer {
    /// The last own event, the virtual genesis event at first.
    last: EventRef,
    last_timestamp_ms: u64,
    /// When it was made; the start, before the first.
    last_at_ms: u64,
    /// When the last own event was made that began a wave; the start, before the first.
    wave_at_ms: u64,
    /// Per seat, the highest round of its events that own events cite.
    cited: Vec<Round>,
    /// Since when `complete_round` has had its quorum.
    complete_round: Round,
    complete_at_ms: u64,
    /// Own events with payload that no commit has output yet, oldest first.
    in_flight: VecDeque<VerifiedEvent>,
    /// Own events that were output after a checkpoint which may still end the epoch before them. docs/protocol.md 10.2
    voidable: VecDeque<(CommitIndex, VerifiedEvent)>,
    /// The first own event that this process made, and the first commit that output one such.
    first_live: Option<Round>,
    first_live_commit: Option<CommitIndex>,
    /// A peer needs our events up to this round.
    wake_round: Round,
    /// The application needs a commit whose leader is of this round or above.
    wake_commit_round: Round,
    /// Whether the last own event was made at rest.
    rested: bool,
    hint_at_ms: u64,
    hint_wait_ms: u64,
    pub(super) signing: bool,
    pub(super) due_ms: Option<u64>,
    pub(super) looked_ms: u64,
}

impl Proposer {
    pub(super) fn new(config: &Config, now_ms: u64) -> Self {
        let last = config.me.map_or(
            EventRef {
                round: Round(0),
                creator: MemberIndex(0),
                digest: Digest::default(),
            },
            |me| EventRef::genesis(&config.chain_id, config.committee.epoch(), me),
        );
        Self {
            last,
            last_timestamp_ms: 0,
            last_at_ms: now_ms,
            wave_at_ms: now_ms,
            cited: vec![Round(0); config.committee.len()],
            complete_round: Round(0),
            complete_at_ms: now_ms,
            in_flight: VecDeque::new(),
            voidable: VecDeque::new(),
            first_live: None,
            first_live_commit: None,
            wake_round: Round(0),
            wake_commit_round: Round(0),
            rested: true,
            hint_at_ms: 0,
            hint_wait_ms: 0,
            signing: false,
            due_ms: None,
            looked_ms: now_ms,
        }
    }

    /// The round of the last own event.
    pub(super) fn round(&self) -> Round {
        self.last.round
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(super) fn wake_application(&mut self, top: Round) {
        self.wake_commit_round = top.next();
    }

    pub(super) fn wake_peer(&mut self, round: Round) {
        self.wake_round = self.wake_round.max(round);
    }

    /// An own event goes into the graph, made now or read back.
    pub(super) fn made(&mut self, event: &VerifiedEvent) {
        if event.round() > self.last.round {
            self.last = *event.reference();
            self.last_timestamp_ms = event.timestamp_ms();
        }
        for parent in event.parents() {
            let cited = &mut self.cited[parent.creator.index()];
            *cited = parent.round.max(*cited);
        }
        if event.transaction_count() > 0 {
            self.in_flight.push_back(event.clone());
        }
    }

    pub(super) fn committed(&mut self, commit: &Commit, voidable: bool) {
        let watched = self.first_live.is_some() && self.first_live_commit.is_none();
        if self.in_flight.is_empty() && !watched {
            return;
        }
        for event in commit
            .events
            .iter()
            .filter(|event| event.creator() == self.last.creator)
        {
            if watched && self.first_live.is_some_and(|first| event.round() >= first) {
                self.first_live_commit.get_or_insert(commit.index);
            }
            let own = |own: &VerifiedEvent| own.digest() == event.digest();
            if let Some(position) = self.in_flight.iter().position(own) {
                self.in_flight.remove(position);
                if voidable {
                    self.voidable.push_back((commit.index, event.clone()));
                }
            }
        }
    }

    pub(super) fn first_live_commit(&self) -> Option<CommitIndex> {
        self.first_live_commit
    }

    /// Commits up to `first_open`, the first checkpoint that is not executed, are final; all are if there is none.
    pub(super) fn settled(&mut self, first_open: Option<CommitIndex>) {
        self.voidable
            .retain(|(commit, _)| first_open.is_some_and(|open| *commit > open));
    }

    /// Takes out the own events that no commit up to `last` has output.
    pub(super) fn take_uncommitted(&mut self, last: Option<CommitIndex>) -> Vec<VerifiedEvent> {
        let void = self.voidable.drain(..);
        let void = void.filter(|(commit, _)| last.is_some_and(|last| *commit > last));
        let mut events: Vec<_> = void.map(|(_, event)| event).collect();
        events.extend(self.in_flight.drain(..));
        events
    }

    /// Takes out the own events that have fallen to the floor uncommitted, oldest first.
    pub(super) fn fallen(&mut self, floor: Round) -> Vec<VerifiedEvent> {
        let count = self
            .in_flight
            .iter()
            .take_while(|event| event.round() <= floor)
            .count();
        self.in_flight.drain(..count).collect()
    }

    /// A round has a quorum; `by_other` says that it was not an own event that made it complete.
    pub(super) fn round_complete(
        &mut self,
        now_ms: u64,
        round: Round,
        by_other: bool,
        pacing: &mut Pacing,
    ) {
        self.complete_round = round;
        self.complete_at_ms = now_ms;
        if round == self.last.round && by_other && !self.rested {
            pacing.measured(now_ms.saturating_sub(self.last_at_ms));
        }
    }

    fn due(&mut self, due_ms: u64) {
        self.due_ms = Some(self.due_ms.map_or(due_ms, |earlier| earlier.min(due_ms)));
    }
}

impl EpochReplica {
    /// Whether there is something to order. docs/protocol.md 4.6
    pub(super) fn is_awake(&self) -> bool {
        // docs/protocol.md 10.3: nothing that pends can be ordered before the next epoch.
        if self.ending.is_known() {
            return self.ending.is_certified()
                || self.checkpoints.needs_rounds(self.linearizer.leader_round)
                || self.proposer.wake_round > self.proposer.round();
        }
        self.pool.len() > 0
            || self.proposer.in_flight() > 0
            || self.graph.unordered_payload() > 0
            || self.linearizer.is_unsealed()
            || self.checkpoints.needs_rounds(self.linearizer.leader_round)
            || self.proposer.wake_round > self.proposer.round()
            || self.proposer.wake_commit_round > self.linearizer.leader_round
    }

    /// Makes every own event that is due, and notes when the next may be.
    pub(super) fn propose(&mut self, now_ms: u64) {
        self.proposer.due_ms = None;
        self.proposer.looked_ms = now_ms;
        if self.signer.is_none() || !self.proposer.signing || self.halted {
            return;
        }
        // docs/protocol.md 10.3: once the certificate is here nobody needs more events of this epoch.
        if self.ending.is_certified() {
            return;
        }
        if self.fetch.holds_back(now_ms) {
            return; // the fetch's own deadline comes back here
        }
        while self.is_due(now_ms) {
            self.make_event(now_ms);
            if self.halted || self.ending.is_certified() {
                return;
            }
        }
    }

    /// docs/protocol.md 4.1: every round above the floor; what lies below it cannot count any more.
    fn next_round(&self) -> Round {
        let resumed = self.graph.floor().ahead(2);
        let next = self.proposer.round().next();
        if self.graph.floor() == Round(0) {
            next
        } else {
            next.max(resumed)
        }
    }

    fn is_due(&mut self, now_ms: u64) -> bool {
        let next = self.next_round();
        let quorum = self.committee().quorum_weight();
        if !self.has_parents(now_ms, next) {
            self.ask_for_parents(now_ms, next);
            return false;
        }
        // docs/protocol.md 4.5: who is behind a quorum of the others waits for nothing.
        if self.graph.weight(next) >= quorum {
            return true;
        }
        let at_ms = if self.is_awake() {
            self.awake_at_ms(now_ms, next)
        } else {
            self.resting_at_ms(next)
        };
        if at_ms > now_ms {
            self.proposer.due(at_ms);
        }
        at_ms <= now_ms
    }

    /// docs/protocol.md 4.4 and 4.9
    fn awake_at_ms(&self, now_ms: u64, next: Round) -> u64 {
        let proposer = &self.proposer;
        let alone = self.me().map_or(0, |me| self.committee().weight(me))
            >= self.committee().quorum_weight();
        let interval_ms = self
            .parameters()
            .min_round_interval_ms
            .max(u64::from(alone));
        // docs/protocol.md 4.9: one honest member has begun the wave, so all do.
        let is_begun = self.graph.weight(next) >= self.committee().validity_weight();
        let paced_ms = if begins_wave(next) && !is_begun {
            proposer.wave_at_ms + WAVE_ROUNDS * interval_ms
        } else {
            now_ms
        };
        let voted = next.back(1);
        let present = |seat| {
            let citable = |node| self.is_citable(now_ms, node);
            // Who equivocated is not cited, so there is nothing to wait for.
            self.equivocators.contains(seat) || self.graph.first(voted, seat).is_some_and(citable)
        };
        if voted == Round(0) || self.committer.schedule.round(voted).all(present) {
            return paced_ms;
        }
        let complete_ms = if proposer.complete_round == voted {
            proposer.complete_at_ms
        } else {
            0
        };
        paced_ms.max(complete_ms + self.pacing.wait_ms())
    }

    /// docs/protocol.md 4.7: at rest one event a heartbeat, all members' in one burst.
    fn resting_at_ms(&self, next: Round) -> u64 {
        let heartbeat_ms = self.parameters().heartbeat_ms;
        let followed = self.graph.weight(next) > 0;
        self.proposer.last_at_ms
            + if followed {
                heartbeat_ms / 2
            } else {
                heartbeat_ms
            }
    }

    /// docs/protocol.md 2.9
    fn is_of_the_present(&self, now_ms: u64, node: &Node) -> bool {
        let time_ms = self.clocks.time_ms(now_ms);
        node.event.timestamp_ms() <= time_ms.saturating_add(self.parameters().future_tolerance_ms)
    }

    /// docs/protocol.md 2.9 and 8.3
    fn is_citable(&self, now_ms: u64, node: &Node) -> bool {
        self.is_of_the_present(now_ms, node) && !self.equivocators.contains(node.creator)
    }

    fn has_parents(&mut self, now_ms: u64, next: Round) -> bool {
        let quorum = self.committee().quorum_weight();
        if next == Round(1) {
            return true;
        }
        let Some(layer) = self.graph.layer(next.back(1)) else {
            return false;
        };
        if layer.creators.weight() < quorum {
            return false;
        }
        let (mut weight, mut clock_ms) = (0, u64::MAX);
        for seat in layer.creators.iter() {
            let node = self
                .graph
                .first(next.back(1), seat)
                .expect("it has an event here");
            if self.is_citable(now_ms, node) {
                weight += self.committee().weight(seat);
            } else {
                clock_ms = clock_ms.min(node.event.timestamp_ms());
            }
        }
        if weight >= quorum || self.must_cite_equivocators(now_ms, next) {
            return true;
        }
        if clock_ms != u64::MAX {
            let tolerance_ms = self.parameters().future_tolerance_ms;
            let shown_ms = self.clocks.shown_ms(clock_ms.saturating_sub(tolerance_ms));
            self.proposer.due(shown_ms.max(now_ms + 1));
        }
        false
    }

    /// docs/protocol.md 8.3: whoever comes back to rounds that others completed with an equivocator's events, which they did not
    /// know for one, has no other quorum to cite. Its own event would complete it, and is not there.
    fn must_cite_equivocators(&self, now_ms: u64, next: Round) -> bool {
        let quorum = self.committee().quorum_weight();
        if next == Round(1) || self.graph.weight(next) < quorum {
            return false;
        }
        let below = next.back(1);
        let weight_of = |citable: &dyn Fn(&Node) -> bool| -> u64 {
            let members = self.committee().members();
            let cited =
                members.filter(|(seat, _)| self.graph.first(below, *seat).is_some_and(citable));
            cited.map(|(_, member)| member.weight).sum()
        };
        weight_of(&|node| self.is_citable(now_ms, node)) < quorum
            && weight_of(&|node| self.is_of_the_present(now_ms, node)) >= quorum
    }

    /// The event cited of a creator: its newest below `next` that own events do not cover. docs/protocol.md 4.8
    fn parent_of(
        &self,
        next: Round,
        seat: MemberIndex,
        citable: &dyn Fn(&Node) -> bool,
    ) -> Option<EventRef> {
        let lowest = self.proposer.cited[seat.index()].max(self.graph.floor());
        let mut round = next.back(1).min(self.graph.highest(seat));
        while round > lowest {
            if let Some(node) = self.graph.first(round, seat)
                && citable(node)
            {
                return Some(*node.event.reference());
            }
            round = round.back(1);
        }
        None
    }

    fn parents(&self, now_ms: u64, next: Round, me: MemberIndex) -> Vec<EventRef> {
        let forgives = self.must_cite_equivocators(now_ms, next);
        let citable = |node: &Node| {
            self.is_citable(now_ms, node) || (forgives && self.is_of_the_present(now_ms, node))
        };
        let cited = |seat: MemberIndex| match (seat == me, next) {
            (true, _) => Some(self.proposer.last),
            (false, Round(1)) => None,
            (false, _) => self.parent_of(next, seat, &citable),
        };
        self.committee()
            .members()
            .filter_map(|(seat, _)| cited(seat))
            .collect()
    }

    fn make_event(&mut self, now_ms: u64) {
        let (me, next) = (self.me().expect("a signer has a seat"), self.next_round());
        // docs/protocol.md 4.5: who is further behind makes up rounds that others may not cite in time.
        let overtaken = self.graph.weight(next.next()) >= self.committee().quorum_weight();
        let uncommitted = next.0 - self.linearizer.leader_round.0.min(next.0);
        // docs/protocol.md 6.3: nothing to order is added to what cannot be ordered.
        let ordered = uncommitted <= self.parameters().payload_rounds_max;
        let carries = !overtaken && ordered && !self.ending.is_known();
        let was_awake = self.is_awake();
        let draft = EventDraft {
            chain_id: self.config.chain_id,
            epoch: self.committee().epoch(),
            round: next,
            creator: me,
            timestamp_ms: self
                .clocks
                .time_ms(now_ms)
                .max(self.proposer.last_timestamp_ms),
            parents: self.parents(now_ms, next, me),
            checkpoint_votes: self.checkpoints.take_votes(self.linearizer.leader_round),
            transactions: if carries {
                self.pool.take()
            } else {
                Vec::new()
            },
        };
        let event =
            VerifiedEvent::own(&draft, self.signer.as_ref().expect("checked by the caller"));
        self.proposer.made(&event);
        self.proposer.first_live.get_or_insert(next);
        self.proposer.last_at_ms = now_ms;
        if begins_wave(next) {
            self.proposer.wave_at_ms = now_ms;
        }
        self.proposer.rested = !was_awake;
        self.proposer.hint_wait_ms = 0;
        self.pacing.advanced(next, self.linearizer.leader_round);
        self.insert(now_ms, event.clone());
        self.send(Recipient::All, Message::Events(vec![event.bytes().clone()]));
        let mut complete = self.pending.arrived(event.reference());
        complete.extend(self.commit_all());
        for (from, event) in complete {
            self.insert_all(now_ms, from, event);
        }
    }

    /// Awake and short of parents: those who rest are asked for theirs, at once when we rested too, later when they
    /// do not come. docs/protocol.md 4.7
    fn ask_for_parents(&mut self, now_ms: u64, next: Round) {
        if !self.is_awake() || next == Round(1) {
            return;
        }
        // Never longer than a heartbeat: a time without a quorum makes quorums seem slow.
        let heartbeat_ms = self.parameters().heartbeat_ms.max(1);
        let patience_ms = self.pacing.patience_ms().min(heartbeat_ms);
        let patience_ms = patience_ms.max(self.parameters().pull_retry_ms / 2);
        let proposer = &mut self.proposer;
        if proposer.hint_wait_ms == 0 {
            proposer.hint_wait_ms = patience_ms;
            proposer.hint_at_ms = if proposer.rested {
                now_ms
            } else {
                now_ms + patience_ms
            };
        }
        if now_ms < proposer.hint_at_ms {
            let at_ms = proposer.hint_at_ms;
            proposer.due(at_ms);
            return;
        }
        proposer.hint_at_ms = now_ms + proposer.hint_wait_ms;
        proposer.hint_wait_ms = (proposer.hint_wait_ms * 2).min(heartbeat_ms);
        let at_ms = proposer.hint_at_ms;
        proposer.due(at_ms);
        let round = next.back(1);
        let epoch = self.committee().epoch();
        let lacking = |seat: &MemberIndex| {
            self.graph.first(round, *seat).is_none() && Some(*seat) != self.me()
        };
        let seats = self.committee().members().map(|(seat, _)| seat);
        let sleepers: Vec<_> = seats.filter(lacking).collect();
        for seat in sleepers {
            let to = Recipient::One(Peer::Member(seat));
            self.send(to, Message::Wake(Wake { epoch, round }));
        }
    }

    /// Sends the last own event again: it may never have left before a crash.
    pub(super) fn resend_last(&mut self) {
        let last = self.proposer.last;
        if let Some(node) = self
            .graph
            .find(&last)
            .and_then(|handle| self.graph.node(handle))
        {
            let bytes = node.event.bytes().clone();
            self.output(Output::Send {
                to: Recipient::All,
                message: Message::Events(vec![bytes]),
            });
        }
    }
}

fn begins_wave(round: Round) -> bool {
    round.0 % WAVE_ROUNDS == 1
}
