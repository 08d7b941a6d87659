//! Words between replicas of different epochs: who is behind is shown how its epoch ended, who is ahead is asked.
//! docs/protocol.md 10.6

use std::collections::{BTreeMap, VecDeque};

use super::Replica;
use super::early::Item;
use crate::epoch::EpochEnd;
use crate::event::{UnverifiedEvent, verify_events};
use crate::ids::Epoch;
use crate::message::{Exchange, Message, Peer, Recipient, Request, StoreRequest};
use crate::replica::{Output, PeerFault};
use crate::sync::Tokens;

/// Ends kept in memory; older ones are on the driver's disk.
const ENDS_MAX: usize = 4;
/// Answers and questions between epochs that one peer causes in a row, and the time after which it may cause one more.
const WORDS_MAX: u64 = 8;
const WORDS_REFILL_MS: u64 = 100;
/// Peers whose words are counted one by one; further ones share a count.
const PEERS_MAX: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Strangers {
    ends: VecDeque<EpochEnd>,
    words: BTreeMap<Peer, Tokens>,
}

impl Strangers {
    pub(super) fn epoch_ended(&mut self, end: EpochEnd) {
        self.ends.push_back(end);
        if self.ends.len() > ENDS_MAX {
            self.ends.pop_front();
        }
        // The peers have new numbers.
        self.words.clear();
    }

    fn grant(&mut self, now_ms: u64, peer: Peer) -> bool {
        let crowded = self.words.len() >= PEERS_MAX && !self.words.contains_key(&peer);
        let peer = if crowded {
            Peer::Follower(u64::MAX)
        } else {
            peer
        };
        let new = || Tokens::new(WORDS_MAX, WORDS_REFILL_MS, now_ms);
        self.words.entry(peer).or_insert_with(new).take(now_ms)
    }
}

impl Replica {
    pub(super) fn on_message(&mut self, now_ms: u64, from: Peer, message: Message) {
        let current = self.epoch();
        let epoch = match &message {
            Message::Events(_) => return, // unverified: the driver hands them on as inputs of their own
            Message::EpochEnd(_) => current,
            Message::Request(request) => request.epoch,
            Message::Frontier(frontier) => frontier.epoch,
            Message::Wake(wake) => wake.epoch,
        };
        match message {
            Message::EpochEnd(end) => self.on_epoch_end(now_ms, from, *end),
            message if epoch == current => self.current.on_message(now_ms, from, message),
            Message::Request(request) if epoch < current => {
                self.serve_ended(now_ms, from, request);
            }
            // An answer needs none.
            Message::Frontier(frontier)
                if epoch < current && matches!(frontier.exchange, Exchange::Answer(_)) => {}
            _ if epoch < current => self.show_end(now_ms, from, epoch),
            message => {
                if epoch == current.next() && !matches!(message, Message::Request(_)) {
                    self.early.keep(from, Item::Message(message));
                }
                self.ask_end(now_ms, from);
            }
        }
    }

    pub(super) fn on_foreign(&mut self, now_ms: u64, from: Peer, events: Vec<UnverifiedEvent>) {
        let current = self.epoch();
        let lowest = events.iter().map(UnverifiedEvent::epoch).min();
        let highest = events.iter().map(UnverifiedEvent::epoch).max();
        for event in events {
            if event.epoch() == current.next() {
                self.early.keep(from, Item::Event(event));
            }
        }
        if highest.is_some_and(|epoch| epoch > current) {
            self.ask_end(now_ms, from);
        } else if let Some(epoch) = lowest.filter(|epoch| *epoch < current) {
            self.show_end(now_ms, from, epoch);
        }
    }

    /// A peer is behind: it is shown how its epoch ended.
    fn show_end(&mut self, now_ms: u64, to: Peer, epoch: Epoch) {
        if !self.strangers.grant(now_ms, to) {
            return;
        }
        let kept = self.strangers.ends.iter().find(|end| end.epoch() == epoch);
        let output = match kept {
            Some(end) => Output::Send {
                to: Recipient::One(to),
                message: Message::EpochEnd(Box::new(end.clone())),
            },
            None => Output::ReadEpochEnd { to, epoch },
        };
        self.current.output(output);
    }

    /// A peer is ahead: told how far we are, it shows how our epoch ended.
    fn ask_end(&mut self, now_ms: u64, to: Peer) {
        if self.current.lacks_end() && self.strangers.grant(now_ms, to) {
            self.current.ask_frontier(now_ms, to);
        }
    }

    fn serve_ended(&mut self, now_ms: u64, to: Peer, request: Request) {
        if !self.current.grant_request(now_ms, to) {
            return;
        }
        let request = StoreRequest {
            epoch: request.epoch,
            wanted: request.wanted,
            bytes_max: self.current.parameters().answer_bytes_max,
        };
        self.current.output(Output::ReadStore { to, request });
    }

    /// docs/protocol.md 10.5
    fn on_epoch_end(&mut self, now_ms: u64, from: Peer, end: EpochEnd) {
        if end.epoch() != self.epoch() {
            return;
        }
        if self.current.lacks_end() {
            let config = &self.current.config;
            if !self.strangers.grant(now_ms, from) {
                return;
            }
            if end.verify(&config.chain_id, &config.committee).is_err() {
                self.current.fault(from, PeerFault::Malformed);
                return;
            }
            self.current.learn_end(now_ms, end.certificate);
        }
        self.current.peer_is_past_end(now_ms, from);
    }

    /// Takes in what was said of the new epoch before it began here.
    pub(super) fn greet_early(&mut self, now_ms: u64) {
        for (from, items) in self.early.take() {
            let mut events = Vec::new();
            for item in items {
                match item {
                    Item::Event(event) => events.push(event),
                    // Without a seat in the new epoch nobody knows whom an answer would be for.
                    Item::Message(message) if from.is_member() => {
                        self.current.on_message(now_ms, from, message);
                    }
                    Item::Message(_) => {}
                }
            }
            let config = &self.current.config;
            let verified = verify_events(events, &config.chain_id, &config.committee);
            for event in verified.into_iter().flatten() {
                let from = Peer::Member(event.creator());
                self.current.on_events(now_ms, from, vec![event]);
            }
            if self.current.halted {
                return;
            }
        }
        self.current.progress(now_ms);
    }
}
