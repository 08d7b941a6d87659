//! Messages: frontier exchange, requests made and answered, wake hints, and the question for the own latest event
//! before signing. docs/protocol.md 7.6 to 7.11, 8.5.

use super::{EpochReplica, Output, PeerFault};
use crate::committee::{MemberSet, seat_of};
use crate::event::EventRef;
use crate::ids::{MemberIndex, Round};
use crate::keys::Domain;
use crate::message::{
    After, Exchange, Frontier, MESSAGE_EVENTS_MAX, Message, Peer, REQUEST_EVENTS_MAX, Recipient,
    Request, StoreRequest, SyncRequest, Wake,
};
use crate::parameters::Config;
use crate::sync::Tokens;

/// Requests a peer may make at once, and the time after which one more is granted.
const REQUESTS_MAX: u64 = 256;
const REQUEST_REFILL_MS: u64 = 2;
/// Wake hints of a peer that are heeded in a row, and in a heartbeat.
const WAKES_MAX: u64 = 8;
/// Questions whose seat is remembered while they may be answered in its stead.
const QUESTIONS_MAX: usize = 64;
/// Followers whose requests are counted one by one; further ones share a count.
const FOLLOWERS_MAX: usize = 1_024;

#[derive(Debug)]
pub(super) struct Gossip {
    requests: std::collections::BTreeMap<Peer, Tokens>,
    wakes: Vec<Tokens>,
    /// The number of the last frontier asked for.
    asked: u64,
    /// Without a seat: whom the last questions were for, by number. docs/protocol.md 7.10
    questions: std::collections::VecDeque<(u64, MemberIndex)>,
    exchange_at_ms: u64,
    /// When a peer last sent events that no running fetch had asked for.
    fed_ms: Option<u64>,
    /// While the own latest event is asked for: the first number asked, and who has answered.
    probe: Option<(u64, MemberSet)>,
    probe_at_ms: u64,
    /// The state of a generator that picks peers: spreads, need not be unpredictable.
    state: u64,
}

impl Gossip {
    pub(super) fn new(config: &Config, now_ms: u64) -> Self {
        let seat = config.me.map_or(u16::MAX, |me| me.0);
        let seed = Domain::Genesis.digest(&[&config.chain_id.0, &seat.to_le_bytes(), b"gossip"]);
        let refill_ms = config.parameters.heartbeat_ms / WAKES_MAX;
        Self {
            requests: std::collections::BTreeMap::new(),
            wakes: vec![Tokens::new(WAKES_MAX, refill_ms, now_ms); config.committee.len()],
            // Numbers of an earlier life are smaller: its answers do not count.
            asked: now_ms << 16,
            questions: std::collections::VecDeque::new(),
            exchange_at_ms: now_ms + config.parameters.frontier_interval_ms,
            fed_ms: None,
            probe: None,
            probe_at_ms: now_ms,
            state: u64::from_le_bytes(seed.0[..8].try_into().expect("eight bytes")) | 1,
        }
    }

    pub(super) fn next_due_ms(&self) -> Option<u64> {
        let probe_ms = self.probe.as_ref().map(|_| self.probe_at_ms);
        probe_ms.into_iter().chain([self.exchange_at_ms]).min()
    }

    /// Events have come that no running fetch had asked for.
    pub(super) fn fed(&mut self, now_ms: u64) {
        self.fed_ms = Some(now_ms);
    }

    fn asks(&mut self, number: u64, seat: MemberIndex) {
        self.questions.push_back((number, seat));
        if self.questions.len() > QUESTIONS_MAX {
            self.questions.pop_front();
        }
    }

    fn number(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    fn pick(&mut self, count: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state % count as u64) as usize
    }

    /// Whether a peer may make one more request.
    fn grant(&mut self, now_ms: u64, peer: Peer) -> bool {
        let crowded = self.requests.len() >= FOLLOWERS_MAX && !self.requests.contains_key(&peer);
        let peer = if crowded && !peer.is_member() {
            Peer::Follower(u64::MAX)
        } else {
            peer
        };
        let new = || Tokens::new(REQUESTS_MAX, REQUEST_REFILL_MS, now_ms);
        self.requests.entry(peer).or_insert_with(new).take(now_ms)
    }
}

impl EpochReplica {
    /// Begins to take part: unless it is `proven` that this key has signed nothing else in the epoch, first asks a quorum
    /// for the own latest event. docs/protocol.md 8.5, 10.8
    pub(crate) fn start(&mut self, now_ms: u64, proven: bool) {
        let committee = self.committee().clone();
        if proven {
            self.proposer.signing = true;
        } else if let Some(me) = self.me() {
            let mut answered = MemberSet::default();
            answered.insert(&committee, me);
            self.gossip.probe = Some((self.gossip.asked + 1, answered));
            self.gossip.probe_at_ms = now_ms;
            self.probed();
        } else {
            self.gossip.exchange_at_ms = now_ms;
        }
        self.progress(now_ms);
    }

    /// Asks everyone who has not answered yet.
    pub(super) fn probe(&mut self, now_ms: u64) {
        let Some((_, answered)) = self
            .gossip
            .probe
            .filter(|_| now_ms >= self.gossip.probe_at_ms)
        else {
            return;
        };
        self.gossip.probe_at_ms = now_ms + self.parameters().frontier_interval_ms.max(1);
        let number = self.question(now_ms);
        let silent = |seat: &MemberIndex| !answered.contains(*seat);
        let seats: Vec<_> = self
            .committee()
            .members()
            .map(|(seat, _)| seat)
            .filter(silent)
            .collect();
        for seat in seats {
            let frontier = self.frontier(now_ms, Exchange::Ask(number));
            self.send(Recipient::One(Peer::Member(seat)), frontier);
        }
    }

    fn probed(&mut self) {
        let quorum = self.committee().quorum_weight();
        if self
            .gossip
            .probe
            .as_ref()
            .is_some_and(|(_, answered)| answered.weight() >= quorum)
        {
            self.gossip.probe = None;
            self.proposer.signing = true;
            self.resend_last();
        }
    }

    /// Asks a peer how far it is.
    pub(crate) fn ask_frontier(&mut self, now_ms: u64, to: Peer) {
        let number = self.question(now_ms);
        let frontier = self.frontier(now_ms, Exchange::Ask(number));
        self.send(Recipient::One(to), frontier);
    }

    /// The number of a new question.
    fn question(&mut self, now_ms: u64) -> u64 {
        let number = self.gossip.number();
        self.clocks.ask(number, now_ms);
        number
    }

    fn frontier(&self, now_ms: u64, exchange: Exchange) -> Message {
        Message::Frontier(Frontier {
            epoch: self.committee().epoch(),
            exchange,
            floor: self.graph.floor(),
            commit: self.linearizer.index,
            time_ms: now_ms,
            highest: self.graph.highest_rounds().to_vec(),
        })
    }

    /// docs/protocol.md 7.6
    pub(super) fn exchange_frontier(&mut self, now_ms: u64) {
        if now_ms < self.gossip.exchange_at_ms {
            return;
        }
        let parameters = self.parameters();
        let rested_ms = parameters.heartbeat_ms.max(parameters.frontier_interval_ms);
        let fed = self.gossip.fed_ms;
        let interval_ms = match self.me() {
            Some(_) if self.is_awake() => parameters.frontier_interval_ms,
            Some(_) => rested_ms,
            // Fed by its source, it asks only to notice that it is not: there may be many like it for each member.
            None if fed.is_some_and(|at_ms| now_ms <= at_ms + 2 * rested_ms) => 2 * rested_ms,
            None => parameters.frontier_interval_ms,
        };
        self.gossip.exchange_at_ms = now_ms + interval_ms.max(1);
        let members = self.committee().len();
        let others = members - usize::from(self.me().is_some());
        if others == 0 {
            return;
        }
        let picked = self.gossip.pick(others);
        let skipped = self.me().is_some_and(|me| picked >= me.index());
        let seat = seat_of(picked + usize::from(skipped));
        let number = self.question(now_ms);
        if self.me().is_none() {
            self.gossip.asks(number, seat);
        }
        let frontier = self.frontier(now_ms, Exchange::Ask(number));
        self.send(Recipient::One(Peer::Member(seat)), frontier);
    }

    pub(crate) fn on_message(&mut self, now_ms: u64, from: Peer, message: Message) {
        match message {
            Message::Events(_) => {} // unverified: the driver hands them on as `Input::Events`
            Message::Request(request) => self.on_request(now_ms, from, request),
            Message::EpochEnd(_) => {} // of the replica around this one
            Message::Frontier(frontier) => self.on_frontier(now_ms, from, frontier),
            Message::Wake(wake) => self.on_wake(now_ms, from, wake),
        }
    }

    pub(crate) fn fault(&mut self, peer: Peer, fault: PeerFault) {
        self.output(Output::PeerFault { peer, fault });
    }

    fn on_frontier(&mut self, now_ms: u64, from: Peer, frontier: Frontier) {
        if frontier.epoch != self.committee().epoch() {
            return;
        }
        if frontier.highest.len() != self.committee().len() {
            self.fault(from, PeerFault::Malformed);
            return;
        }
        if let Exchange::Ask(number) = frontier.exchange {
            if !self.grant_request(now_ms, from) {
                return;
            }
            let answer = self.frontier(now_ms, Exchange::Answer(number));
            self.send(Recipient::One(from), answer);
        }
        let Peer::Member(seat) = from else {
            if let Some(seat) = self.asked_of(frontier.exchange) {
                self.fetch.heard(now_ms, seat, frontier.highest);
            }
            return;
        };
        self.compare_clocks(now_ms, seat, &frontier);
        self.count_probe(seat, &frontier);
        self.fetch.heard(now_ms, seat, frontier.highest);
    }

    /// The member that a question was for which a node without a seat answers in its stead. docs/protocol.md 7.10
    fn asked_of(&self, exchange: Exchange) -> Option<MemberIndex> {
        let Exchange::Answer(number) = exchange else {
            return None;
        };
        let questions = self.gossip.questions.iter();
        let mut asked = questions.filter(|(asked, _)| *asked == number);
        asked.next().map(|(_, seat)| *seat)
    }

    /// The member that a node without a seat stands for, if it may: the one that was asked last. docs/protocol.md 7.10
    pub(super) fn stands_for(&self, peer: Peer) -> Option<MemberIndex> {
        match peer {
            Peer::Member(seat) => Some(seat),
            Peer::Follower(_) => self.gossip.questions.back().map(|(_, seat)| *seat),
        }
    }

    /// docs/protocol.md 2.11
    fn compare_clocks(&mut self, now_ms: u64, seat: MemberIndex, frontier: &Frontier) {
        let Exchange::Answer(number) = frontier.exchange else {
            return;
        };
        let tolerance_ms = self.parameters().future_tolerance_ms;
        let theirs_ms = frontier.time_ms;
        self.clocks
            .answered(seat, number, theirs_ms, now_ms, tolerance_ms);
        let slack_ms = i64::try_from(tolerance_ms / 4).unwrap_or(i64::MAX);
        let config = &self.config;
        self.clocks.reckon(&config.committee, config.me, slack_ms);
    }

    /// docs/protocol.md 8.5: a peer that holds a later own event than we do counts only once it has shown it, and
    /// then we halt.
    fn count_probe(&mut self, seat: MemberIndex, frontier: &Frontier) {
        let (Some(me), Exchange::Answer(number)) = (self.me(), frontier.exchange) else {
            return;
        };
        let committee = self.committee().clone();
        let honest = frontier.highest[me.index()] <= self.proposer.round();
        let fresh = self.clocks.has_asked(number);
        if let Some((first, answered)) = &mut self.gossip.probe
            && number >= *first
            && fresh
            && honest
        {
            answered.insert(&committee, seat);
        }
        self.probed();
    }

    /// docs/protocol.md 4.7
    fn on_wake(&mut self, now_ms: u64, from: Peer, wake: Wake) {
        let Peer::Member(seat) = from else {
            return;
        };
        let heeded =
            wake.epoch == self.committee().epoch() && self.gossip.wakes[seat.index()].take(now_ms);
        let Some(me) = self.me().filter(|_| heeded) else {
            return;
        };
        if wake.round > self.proposer.round() {
            self.proposer
                .wake_peer(wake.round.min(self.complete.next()));
            return;
        }
        // It is made already: its first sending must have been lost.
        if let Some(node) = self.graph.first(wake.round, me) {
            let bytes = node.event.bytes().clone();
            self.send(Recipient::One(from), Message::Events(vec![bytes]));
        }
    }

    fn on_request(&mut self, now_ms: u64, from: Peer, request: Request) {
        if !self.grant_request(now_ms, from) {
            return;
        }
        match request.wanted {
            SyncRequest::Events(events)
                if events.iter().any(|event| !self.has_seat(event.creator)) =>
            {
                self.fault(from, PeerFault::Malformed);
            }
            SyncRequest::Events(events) => self.serve_events(from, events),
            SyncRequest::After(after) if after.after.len() != self.committee().len() => {
                self.fault(from, PeerFault::Malformed);
            }
            SyncRequest::After(after) => self.serve_after(from, after),
        }
    }

    /// Whether a peer may make one more request; says so if not. docs/protocol.md 7.9
    pub(crate) fn grant_request(&mut self, now_ms: u64, from: Peer) -> bool {
        let granted = self.gossip.grant(now_ms, from);
        if !granted {
            self.fault(from, PeerFault::RequestFlood);
        }
        granted
    }

    fn has_seat(&self, seat: MemberIndex) -> bool {
        self.committee().member(seat).is_some()
    }

    fn read_store(&mut self, to: Peer, wanted: SyncRequest) {
        let bytes_max = self.parameters().answer_bytes_max;
        self.output(Output::ReadStore {
            to,
            request: StoreRequest {
                epoch: self.committee().epoch(),
                wanted,
                bytes_max,
            },
        });
    }

    fn serve_events(&mut self, from: Peer, events: Vec<EventRef>) {
        let floor = self.graph.floor();
        let (old, recent): (Vec<_>, Vec<_>) =
            events.into_iter().partition(|event| event.round <= floor);
        let mut answer = Vec::new();
        let mut room = self.parameters().answer_bytes_max;
        for node in recent
            .iter()
            .filter_map(|event| self.graph.node(self.graph.find(event)?))
        {
            let bytes = node.event.bytes();
            if bytes.len() > room && !answer.is_empty() {
                break;
            }
            room = room.saturating_sub(bytes.len());
            answer.push(bytes.clone());
        }
        if !answer.is_empty() || old.is_empty() {
            self.send(Recipient::One(from), Message::Events(answer));
        }
        if !old.is_empty() {
            self.read_store(from, SyncRequest::Events(old));
        }
    }

    /// docs/protocol.md 7.7
    fn serve_after(&mut self, from: Peer, after: After) {
        if after.from <= self.graph.floor() {
            self.read_store(from, SyncRequest::After(after));
            return;
        }
        let mut answer = Vec::new();
        let mut room = self.parameters().answer_bytes_max;
        let rounds = (after.from.0..=after.to.min(self.graph.top()).0).map(Round);
        let nodes = rounds
            .filter_map(|round| self.graph.layer(round))
            .flat_map(|layer| &layer.nodes);
        for event in nodes
            .map(|node| &node.event)
            .filter(|event| after.wants(event.round(), event.creator()))
        {
            let bytes = event.bytes();
            if answer.len() >= MESSAGE_EVENTS_MAX || (bytes.len() > room && !answer.is_empty()) {
                break;
            }
            room = room.saturating_sub(bytes.len());
            answer.push(bytes.clone());
        }
        self.send(Recipient::One(from), Message::Events(answer));
    }

    /// Asks for what is due: single ancestors, and ranges that peers claim. docs/protocol.md 7.4, 7.8
    pub(super) fn pull(&mut self, now_ms: u64) {
        // Far behind, the ancestors of the newest events come by ranges.
        let up_to = if self.fetch.behind() {
            self.complete.next()
        } else {
            Round(u64::MAX)
        };
        let due = self.pending.take_due(now_ms, up_to, REQUEST_EVENTS_MAX);
        let mut asked: std::collections::BTreeMap<MemberIndex, Vec<EventRef>> =
            std::collections::BTreeMap::new();
        for (reference, referrer, attempts) in due {
            if let Some(seat) = self.source(&reference, referrer, attempts) {
                asked.entry(seat).or_default().push(reference);
            }
        }
        for (seat, references) in asked {
            let request = self.request(SyncRequest::Events(references));
            self.send(Recipient::One(Peer::Member(seat)), request);
        }
        self.fetch_next(now_ms);
    }

    /// First whoever referred to it, then its creator, then the others in turn. docs/protocol.md 7.4
    fn source(&self, reference: &EventRef, referrer: Peer, attempts: u32) -> Option<MemberIndex> {
        let members = self.committee().len();
        let seat = match (attempts, referrer) {
            (0, Peer::Member(seat)) => seat,
            (0 | 1, _) => reference.creator,
            _ => seat_of((reference.creator.index() + attempts as usize) % members),
        };
        let other = |seat: &MemberIndex| Some(*seat) != self.me();
        Some(seat)
            .filter(other)
            .or_else(|| Some(seat_of((seat.index() + 1) % members)).filter(other))
    }

    fn request(&self, wanted: SyncRequest) -> Message {
        Message::Request(Request {
            epoch: self.committee().epoch(),
            wanted,
        })
    }

    pub(super) fn fetch_next(&mut self, now_ms: u64) {
        let highest = self.graph.highest_rounds();
        let next = self
            .fetch
            .next(now_ms, self.graph.floor(), self.complete, highest);
        if let Some((seat, after)) = next {
            let request = self.request(SyncRequest::After(after));
            self.send(Recipient::One(Peer::Member(seat)), request);
        }
    }
}
