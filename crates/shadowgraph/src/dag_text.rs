//! Graphs as small texts, for tests: one event a line, names like `B3` (member B, round 3) and `B3'` for a twin.
//!
//! ```text
//! weights 1 1 1 1
//! leaders 1
//! depth 50
//! A1 B1 C1 D1               first events
//! A2 B2 C2 <- A1 B1 C1      these cite exactly those (and their own last event)
//! D2 <- *                   cites all of the round before
//! ```

use std::collections::BTreeMap;

use crate::committee::{Committee, Member, seat_of};
use crate::event::{EventDraft, EventRef, VerifiedEvent};
use crate::ids::{ChainId, Epoch, MemberIndex, Round};
use crate::keys::SigningKey;

pub(crate) const CHAIN: ChainId = ChainId([5; 32]);

/// Makes signed events of a test committee.
pub(crate) struct Maker {
    pub(crate) committee: Committee,
    keys: Vec<SigningKey>,
}

impl Maker {
    pub(crate) fn new(weights: &[u64]) -> Self {
        let key = |seat: usize| {
            let mut seed = [3; 32];
            seed[0] = seat as u8;
            SigningKey::from_bytes(seed)
        };
        let keys: Vec<SigningKey> = (0..weights.len()).map(key).collect();
        let member = |(key, weight): (&SigningKey, &u64)| Member {
            key: key.public(),
            weight: *weight,
        };
        let members = keys.iter().zip(weights).map(member).collect();
        Self {
            committee: Committee::new(Epoch(0), members).expect("a committee"),
            keys,
        }
    }

    pub(crate) fn genesis(&self, seat: MemberIndex) -> EventRef {
        EventRef::genesis(&CHAIN, Epoch(0), seat)
    }

    pub(crate) fn key(&self, seat: MemberIndex) -> &SigningKey {
        &self.keys[seat.index()]
    }

    pub(crate) fn draft(
        &self,
        seat: MemberIndex,
        round: Round,
        mut parents: Vec<EventRef>,
    ) -> EventDraft {
        parents.sort_by_key(|parent| parent.creator);
        EventDraft {
            chain_id: CHAIN,
            epoch: Epoch(0),
            round,
            creator: seat,
            timestamp_ms: round.0 * 1_000 + u64::from(seat.0),
            parents,
            checkpoint_votes: vec![],
            transactions: vec![],
        }
    }

    pub(crate) fn sign(&self, draft: &EventDraft) -> VerifiedEvent {
        VerifiedEvent::own(draft, self.key(draft.creator))
    }
}

/// A graph read from its text.
pub(crate) struct Dag {
    pub(crate) maker: Maker,
    pub(crate) leaders: u16,
    pub(crate) depth: u64,
    /// Ancestors first, as in the text.
    pub(crate) events: Vec<(String, VerifiedEvent)>,
}

impl Dag {
    pub(crate) fn parse(text: &str) -> Self {
        let mut dag = Self {
            maker: Maker::new(&[1; 4]),
            leaders: u16::MAX,
            depth: 50,
            events: Vec::new(),
        };
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [] => {}
                ["weights", weights @ ..] => {
                    let weights: Vec<u64> = weights
                        .iter()
                        .map(|word| word.parse().expect("a weight"))
                        .collect();
                    dag.maker = Maker::new(&weights);
                }
                ["leaders", count] => dag.leaders = count.parse().expect("a count"),
                ["depth", rounds] => dag.depth = rounds.parse().expect("rounds"),
                _ => dag.line(&words),
            }
        }
        dag
    }

    fn line(&mut self, words: &[&str]) {
        let arrow = words
            .iter()
            .position(|word| *word == "<-")
            .unwrap_or(words.len());
        let cited = words.get(arrow + 1..).unwrap_or_default();
        for name in &words[..arrow] {
            let (seat, round) = read_name(name);
            let mut parents: BTreeMap<MemberIndex, EventRef> = BTreeMap::new();
            for (_, event) in &self.events {
                let own = event.creator() == seat && event.round() < round;
                let starred = cited == ["*"] && event.round().next() == round;
                if own || (starred && event.creator() != seat) {
                    parents.insert(event.creator(), *event.reference());
                }
            }
            for word in cited.iter().filter(|word| **word != "*") {
                let event = self.find(word);
                parents.insert(event.creator(), *event.reference());
            }
            parents
                .entry(seat)
                .or_insert_with(|| self.maker.genesis(seat));
            let mut draft = self
                .maker
                .draft(seat, round, parents.into_values().collect());
            draft.timestamp_ms += name.matches('\'').count() as u64;
            let event = self.maker.sign(&draft);
            self.events.push(((*name).to_owned(), event));
        }
    }

    pub(crate) fn find(&self, name: &str) -> &VerifiedEvent {
        let found = self.events.iter().find(|(known, _)| known == name);
        &found
            .unwrap_or_else(|| panic!("no event {name} above this line"))
            .1
    }

    pub(crate) fn name(&self, reference: &EventRef) -> &str {
        let found = self
            .events
            .iter()
            .find(|(_, event)| event.reference() == reference);
        &found.expect("every event has a name").0
    }
}

pub(crate) fn letter(seat: MemberIndex) -> char {
    char::from(b'A' + seat.0 as u8)
}

fn read_name(name: &str) -> (MemberIndex, Round) {
    let seat = seat_of(usize::from(name.as_bytes()[0] - b'A'));
    let round = name[1..]
        .trim_end_matches('\'')
        .parse()
        .unwrap_or_else(|_| panic!("{name} is no event"));
    (seat, Round(round))
}
