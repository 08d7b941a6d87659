//! Messages on their way, and what nodes ask for carried out.

use std::rc::Rc;

use bytes::Bytes;
use shadowgraph::{
    Commit, Digest, Epoch, EpochEnd, EquivocationProof, EventRef, Input, MemberIndex, Message,
    Peer, PeerFault, Recipient, Round, VerifiedEvent,
};

use super::{EXECUTION_US, Happening, Slot, World};
use crate::adversary::Raw;
use crate::checkers::ledger::{Finding, LedgerChecker};
use crate::checkers::naive::{NaiveGraph, Vertex};
use crate::checkers::replay;
use crate::disk::CrashKind;
use crate::node::Effect;
use crate::packet::Packet;
use crate::queue::{MS, SECOND};

/// One in so many reported decisions is recounted at once; in a large committee each decision at one node.
const DECISIONS_CHECKED: u64 = 4;
/// A slow node drops what it could not even begin within this time, in microseconds: its buffers are bounded.
const BACKLOG_US: u64 = SECOND;
/// How long events are gathered for those who subscribe, and how long those stay with one source, in microseconds.
const GATHER_US: u64 = 50 * MS;
const TURN_US: u64 = 2 * SECOND;

impl World {
    /// How one node numbers another, in its epoch.
    fn peer(&self, viewer: usize, node: usize) -> Peer {
        let seat = self.epochs.seat(self.epoch_of(viewer), node);
        seat.map_or(Peer::Follower(node as u64), |(seat, _)| Peer::Member(seat))
    }

    /// Whom a node means; nobody if it cannot know.
    fn node_of(&self, viewer: usize, peer: Peer) -> Option<usize> {
        match peer {
            Peer::Member(seat) => self.epochs.node_of(self.epoch_of(viewer), seat),
            Peer::Follower(number) => usize::try_from(number).ok(),
        }
        .filter(|node| *node < self.slots.len())
    }

    fn epoch_of(&self, node: usize) -> Epoch {
        match &self.slots[node] {
            Slot::Honest(driver) => driver.epoch(),
            Slot::Puppet(_) => Epoch(0),
        }
    }

    /// Puts a message on one link.
    pub(super) fn transmit(&mut self, from: usize, to: usize, packet: &Rc<Packet>, extra_us: u64) {
        let now_us = self.queue.now_us();
        for delay_us in self.network.arrivals(from, to).into_iter().flatten() {
            self.queue.push(
                now_us + delay_us + extra_us,
                Happening::Deliver {
                    from,
                    to,
                    packet: Rc::clone(packet),
                },
            );
        }
    }

    /// A message arrives: at once for most nodes, in the queue of a slow one.
    pub(super) fn deliver(&mut self, from: usize, to: usize, packet: Rc<Packet>) {
        let now_us = self.queue.now_us();
        if let Slot::Honest(driver) = &mut self.slots[to] {
            if !driver.is_up() || driver.disk_full {
                return;
            }
            if driver.slow_us > 0 {
                let at_us = driver.busy_until_us.max(now_us) + driver.slow_us;
                if at_us - now_us <= BACKLOG_US {
                    driver.busy_until_us = at_us;
                    let incarnation = driver.incarnation();
                    self.queue.push(
                        at_us,
                        Happening::Process {
                            node: to,
                            incarnation,
                            from,
                            packet,
                        },
                    );
                }
                return;
            }
        }
        self.process(from, to, &packet);
    }

    /// A node reads a message.
    pub(super) fn process(&mut self, from: usize, to: usize, packet: &Packet) {
        let now_us = self.queue.now_us();
        self.trace.step(now_us, to, "receive", packet.digest(), || {
            format!("from n{from}: {}", describe(packet.message()))
        });
        let events = packet.verified(&mut self.verifier);
        if matches!(self.slots[to], Slot::Puppet(_)) {
            self.puppet_hears(to, packet.bytes(), events.to_vec());
            return;
        }
        let epoch = self.epoch_of(to);
        let from = self.peer(to, from);
        match packet.message() {
            Ok(Message::Events(_)) => {
                let foreign = packet.decoded().iter();
                let foreign: Vec<_> = foreign
                    .filter(|event| event.epoch() != epoch)
                    .cloned()
                    .collect();
                let none = foreign.is_empty();
                if !none {
                    let events = foreign;
                    self.input(to, Input::Foreign { from, events });
                }
                let here = |event: &&VerifiedEvent| event.epoch() == epoch;
                let events: Vec<_> = events.iter().filter(here).cloned().collect();
                if (none || !events.is_empty()) && self.epoch_of(to) == epoch {
                    self.input(to, Input::Events { from, events });
                }
            }
            Ok(message) => {
                let message = message.clone();
                self.input(to, Input::Message { from, message });
            }
            Err(_) => {}
        }
    }

    fn puppet_hears(&mut self, member: usize, bytes: &Bytes, mut events: Vec<VerifiedEvent>) {
        let epoch = self.puppet_epoch;
        events.retain(|event| event.epoch() == epoch);
        let now_ms = super::START_MS + self.queue.now_us() / crate::queue::MS;
        let schedule = &self.schedule;
        let Slot::Puppet(puppet) = &mut self.slots[member] else {
            return;
        };
        puppet.hear(bytes, events);
        let leads = |round: u64| schedule.of_round(round).contains(&(member as u16));
        let sent = puppet.advance(now_ms, &leads);
        self.puppet_sends(member, sent);
    }

    /// An adversary gets its turn to send what it likes.
    pub(super) fn disturb(&mut self, member: usize) {
        let now_us = self.queue.now_us();
        self.queue
            .push(now_us + super::DISTURB_US, Happening::Disturb(member));
        let now_ms = super::START_MS + now_us / crate::queue::MS;
        let schedule = &self.schedule;
        let Slot::Puppet(puppet) = &mut self.slots[member] else {
            return;
        };
        let leads = |round: u64| schedule.of_round(round).contains(&(member as u16));
        let mut sent = puppet.advance(now_ms, &leads);
        sent.extend(puppet.disturb(now_ms, &leads));
        self.puppet_sends(member, sent);
    }

    fn puppet_sends(&mut self, member: usize, sent: Vec<Raw>) {
        let now_us = self.queue.now_us();
        let Slot::Puppet(puppet) = &mut self.slots[member] else {
            return;
        };
        let transactions = std::mem::take(&mut puppet.transactions);
        self.clients.byzantine(transactions);
        for Raw {
            to,
            bytes,
            delay_us,
        } in sent
        {
            self.trace.step(now_us, member, "mischief", &bytes, || {
                format!("to n{to}: {} bytes", bytes.len())
            });
            self.transmit(member, to, &Rc::new(Packet::new(bytes)), delay_us);
        }
    }

    /// Does what a node asks for, in order.
    pub(super) fn carry_out(&mut self, node: usize, effects: Vec<Effect>) {
        for effect in effects {
            self.carry_out_one(node, effect);
        }
        self.arm_timer(node);
    }

    fn carry_out_one(&mut self, node: usize, effect: Effect) {
        let now_us = self.queue.now_us();
        let incarnation = self.honest(node).incarnation();
        match effect {
            Effect::Send(to, bytes) => self.send(node, to, Packet::new(bytes)),
            Effect::Sync(position) => {
                let at_us = now_us + self.plan.sync_us;
                self.queue.push(
                    at_us,
                    Happening::Synced {
                        node,
                        incarnation,
                        position,
                    },
                );
            }
            Effect::Execute(executed) => {
                let finding = self.ledger.executed(node, &executed);
                self.check(finding);
                self.queue.push(
                    now_us + EXECUTION_US,
                    Happening::Executed {
                        node,
                        incarnation,
                        executed: Box::new(executed),
                    },
                );
            }
            Effect::Committed(commit) => self.committed(node, &commit),
            Effect::Persisted(event) => self.persisted(node, &event),
            Effect::News(events) => self.feed(node, events),
            Effect::Certificate(certificate) => {
                let index = certificate.checkpoint.commit.0;
                self.trace
                    .step(now_us, node, "certificate", &index.to_le_bytes(), || {
                        format!("of commit {index}")
                    });
                let finding = self.ledger.certified(node, &certificate);
                self.check(finding);
            }
            Effect::EpochEnded(end) => self.epoch_ended(node, &end),
            Effect::Outdated(version) => {
                self.trace
                    .step(now_us, node, "outdated", &version.to_le_bytes(), || {
                        format!("does not know the rules of version {version}")
                    });
                self.report.outdated += 1;
                self.crash(node, CrashKind::Process);
            }
            Effect::Returned(transactions) => self.returned.extend(transactions),
            Effect::NeedsSnapshot => self.fetch_snapshot(node),
            Effect::Equivocation(proof) => {
                let epoch = proof_epoch(&proof);
                let finding = self.limits.equivocation(
                    node,
                    &proof,
                    &self.chain_id,
                    &self.epochs,
                    epoch,
                    &self.plan,
                );
                self.trace.step(now_us, node, "equivocation", &[], || {
                    format!("proven: {finding:?}")
                });
                self.check(finding);
            }
            Effect::Fault(peer, fault) => self.blamed(node, peer, &fault),
            Effect::Halt(reason) => {
                self.trace
                    .step(now_us, node, "halt", &[], || reason.to_string());
                if self.plan.is_correct(node) {
                    self.check(Err(("halt", format!("n{node} halted: {reason}"))));
                }
            }
            Effect::Refused => {
                self.trace.step(now_us, node, "refuse", &[], || {
                    "the disk is damaged".to_owned()
                });
                self.refusals += 1;
                if self.plan.is_correct(node) {
                    self.check(Err(("disk", format!("n{node} does not start"))));
                }
            }
            Effect::Broken(text) => {
                self.check(Err(("persist before send", format!("n{node}: {text}"))))
            }
        }
    }

    /// An epoch ended at a node. The first to see it wakes the adversaries up to the next.
    fn epoch_ended(&mut self, node: usize, end: &EpochEnd) {
        let now_us = self.queue.now_us();
        let next = end.next.epoch();
        self.trace
            .step(now_us, node, "epoch", &next.0.to_le_bytes(), || {
                format!("{next:?} starts after commit {}", end.start().commit)
            });
        let finding = self.ledger.epoch_ended(node, end);
        self.check(finding);
        if next > self.puppet_epoch {
            self.puppet_epoch = next;
            for node in 0..self.slots.len() {
                if let Some(puppet) = self.make_puppet(node, next) {
                    self.slots[node] = Slot::Puppet(Box::new(puppet));
                }
            }
        }
    }

    /// A node that nobody can help with events takes the state of an epoch's start from whoever is furthest.
    fn fetch_snapshot(&mut self, node: usize) {
        if self.plan.retain.is_none() {
            return; // somebody has the events: it is only a matter of links
        }
        let honest = (0..self.slots.len()).filter(|peer| self.plan.is_correct(*peer));
        let ends = honest.filter_map(|peer| match &self.slots[peer] {
            Slot::Honest(driver) if driver.is_up() => Some(driver.ends().to_vec()),
            _ => None,
        });
        let Some(ends) = ends.max_by_key(Vec::len) else {
            return;
        };
        if ends.len() as u64 > self.epoch_of(node).0 {
            self.snapshots.push((node, ends));
        }
    }

    fn send(&mut self, node: usize, to: Recipient, packet: Packet) {
        let now_us = self.queue.now_us();
        let packet = Rc::new(packet);
        self.trace.step(now_us, node, "send", packet.digest(), || {
            format!("to {to:?}: {}", describe(packet.message()))
        });
        match to {
            Recipient::One(peer) => {
                if let Some(to) = self.node_of(node, peer) {
                    self.transmit_to_key(node, to, &packet);
                }
            }
            Recipient::All => {
                let other = |to: &usize| {
                    self.plan.original(*to) != self.plan.original(node)
                        && self.peer(node, *to).is_member()
                };
                let others: Vec<usize> = (0..self.slots.len()).filter(other).collect();
                for to in others {
                    self.transmit_to_key(node, to, &packet);
                }
            }
        }
    }

    /// Sends events on to the nodes without a seat that have subscribed to this node. docs/protocol.md 7.11
    fn feed(&mut self, node: usize, events: Vec<Bytes>) {
        let subscribed =
            |to: &usize| !self.peer(node, *to).is_member() && self.source_of(*to) == Some(node);
        let subscribers: Vec<usize> = (0..self.slots.len()).filter(subscribed).collect();
        if subscribers.is_empty() {
            return;
        }
        let packet = Rc::new(Packet::new(Message::Events(events).encode()));
        for to in subscribers {
            self.transmit(node, to, &packet, GATHER_US);
        }
    }

    /// Whom a node without a seat subscribes to: one member after another, honest or not.
    fn source_of(&self, node: usize) -> Option<usize> {
        let epoch = self.epoch_of(node);
        let members: Vec<usize> = (0..self.slots.len())
            .filter(|member| self.epochs.seat(epoch, *member).is_some())
            .collect();
        if members.is_empty() || members.contains(&node) {
            return None;
        }
        let turn = usize::try_from(self.queue.now_us() / TURN_US).ok()?;
        members.get((turn + node) % members.len()).copied()
    }

    /// Where two daemons have one key, a message reaches whichever holds the connection.
    fn transmit_to_key(&mut self, from: usize, to: usize, packet: &Rc<Packet>) {
        let original = self.plan.original(to);
        if original != to {
            return; // it gets its part of what its original is sent
        }
        let mut holders = vec![to];
        let doubles = self.plan.doubles.iter();
        holders.extend(
            doubles
                .filter(|(_, of)| *of == to)
                .map(|(double, _)| double),
        );
        let up = |node: &usize| matches!(&self.slots[*node], Slot::Honest(n) if n.is_up());
        if holders.len() > 1 {
            holders.retain(up);
        }
        let holder = match holders[..] {
            [] => return,
            [only] => only,
            _ => *self.faults_rng.choose(&holders),
        };
        self.transmit(from, holder, packet, 0);
    }

    fn persisted(&mut self, node: usize, event: &VerifiedEvent) {
        let now_us = self.queue.now_us();
        let reference = *event.reference();
        self.trace
            .step(now_us, node, "persist", &reference.digest.0, || {
                format!("{reference:?}")
            });
        let epochs = &self.epochs;
        let weights = || super::weights(epochs, event.epoch());
        let graph = self.graphs.entry(event.epoch());
        let graph = graph.or_insert_with(|| NaiveGraph::new(weights()));
        if graph.get(&reference.digest.0).is_none() {
            graph.insert(replay::vertex(event));
        }
        if self.epochs.node_of(event.epoch(), event.creator()) == Some(node) {
            self.clients.own_event(node, event, now_us);
            self.limits.own_event(node, now_us);
        }
    }

    fn committed(&mut self, node: usize, commit: &Commit) {
        let now_us = self.queue.now_us();
        self.trace
            .step(now_us, node, "commit", &commit.digest.0, || {
                let direct = matches!(commit.decision, shadowgraph::Decision::Direct { .. });
                let how = if direct { "directly" } else { "by an anchor" };
                format!(
                    "{} leader {:?} rank {} {how}, {} events",
                    commit.index,
                    commit.leader,
                    commit.rank,
                    commit.events.len()
                )
            });
        match self.ledger.committed(node, commit, now_us) {
            Ok(true) => {
                let transactions = LedgerChecker::transactions(commit);
                let finding =
                    self.clients
                        .committed(commit.index.0, commit.leader.round.0, &transactions);
                self.check(finding);
                self.follow_schedule(commit);
            }
            Ok(false) => {}
            Err(violation) => self.check(Err(violation)),
        }
        let one_in = DECISIONS_CHECKED.max(self.slots.len() as u64);
        if (commit.index.0 + node as u64).is_multiple_of(one_in) {
            let finding = self.check_decision(node, commit);
            self.check(finding);
        }
        self.latency(node, commit);
    }

    fn check_decision(&self, node: usize, commit: &Commit) -> Finding {
        let Slot::Honest(driver) = &self.slots[node] else {
            return Ok(());
        };
        let held = |vertex: &Vertex| {
            let reference = EventRef {
                round: Round(vertex.round),
                creator: MemberIndex(vertex.creator),
                digest: Digest(vertex.id),
            };
            driver.holds(commit.epoch, &reference)
        };
        let Some(graph) = self.graphs.get(&commit.epoch) else {
            return Err((
                "decision",
                "nobody persisted an event of the epoch".to_string(),
            ));
        };
        replay::check_decision(graph, &held, commit)
    }

    /// An honest peer is never blamed.
    fn blamed(&mut self, node: usize, peer: Peer, fault: &PeerFault) {
        let now_us = self.queue.now_us();
        let Some(blamed) = self.node_of(node, peer) else {
            return;
        };
        self.trace.step(now_us, node, "fault", &[], || {
            format!("of n{blamed}: {fault}")
        });
        if self.plan.is_honest(blamed) {
            self.check(Err((
                "blame",
                format!("n{node} blames honest n{blamed}: {fault}"),
            )));
        }
    }
}

/// The epoch of the events that a proof is made of.
fn proof_epoch(proof: &EquivocationProof) -> Epoch {
    // Version and chain id come before it.
    let at = 1 + 32;
    let bytes = &proof.first.header[at..at + 8];
    Epoch(u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
}

fn describe(message: &Result<Message, shadowgraph::MessageError>) -> String {
    match message {
        Ok(Message::Events(events)) => {
            let names = events.iter().take(8).map(|bytes| {
                let event = shadowgraph::UnverifiedEvent::decode(bytes.clone());
                event.map_or_else(
                    |error| error.to_string(),
                    |event| format!("{:?}", event.reference()),
                )
            });
            format!(
                "{} events {}",
                events.len(),
                names.collect::<Vec<_>>().join(" ")
            )
        }
        Ok(other) => format!("{other:?}"),
        Err(error) => error.to_string(),
    }
}
