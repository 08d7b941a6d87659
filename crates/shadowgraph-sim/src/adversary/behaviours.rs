//! The behaviours themselves, each as small as it can be.

use std::collections::VecDeque;

use bytes::Bytes;
use shadowgraph::{
    After, Checkpoint, CommitIndex, Digest, EventDraft, EventRef, Exchange, Frontier, MemberIndex,
    Message, Request, Round, SyncRequest, VerifiedEvent, Wake,
};

use super::{Adversary, Publication, Raw, View};
use crate::queue::MS;
use crate::rng::SimRng;

/// Signs two events for a round and sends both to everybody.
pub struct Equivocator;

impl Adversary for Equivocator {
    fn publish(&mut self, _view: &View<'_>, publications: &mut Vec<Publication>, rng: &mut SimRng) {
        let twins: Vec<Publication> = publications
            .iter()
            .map(|original| twin(original, rng))
            .collect();
        publications.extend(twins);
        if rng.chance(500) {
            publications.reverse();
        }
    }
}

/// The same event with another payload.
fn twin(original: &Publication, rng: &mut SimRng) -> Publication {
    let mut twin = original.clone();
    twin.draft
        .transactions
        .push(Bytes::from(format!("byzantine twin {:016x}", rng.bits())));
    twin
}

/// Signs two events for a round and shows each to one half of the committee.
pub struct SplitBrain;

impl Adversary for SplitBrain {
    fn publish(&mut self, _view: &View<'_>, publications: &mut Vec<Publication>, rng: &mut SimRng) {
        let mut twins = Vec::new();
        for original in publications.iter_mut() {
            let mut other = twin(original, rng);
            rng.shuffle(&mut original.to);
            other.to = original.to.split_off(original.to.len() / 2);
            twins.push(other);
        }
        publications.extend(twins);
    }
}

/// Hides its event from one member, and stuffs that one with twins of it.
#[derive(Default)]
pub struct TwinStuffer {
    hidden: Option<(Publication, usize)>,
}

impl Adversary for TwinStuffer {
    fn publish(&mut self, view: &View<'_>, publications: &mut Vec<Publication>, rng: &mut SimRng) {
        let next = publications[0].clone();
        if let Some((hidden, victim)) = self
            .hidden
            .take()
            .filter(|(p, _)| p.draft.round.ahead(1) == next.draft.round)
        {
            let count = view.seat.committee.len().max(4) + 2;
            let twins: Vec<Publication> = (0..count)
                .map(|_| Publication {
                    to: vec![victim],
                    delay_us: 0,
                    ..twin(&hidden, rng)
                })
                .collect();
            // First the events that cite the twins, so that all of them wait; then what they wait for.
            let citing = twins.iter().map(|twin| {
                let mut citing = next.clone();
                citing.to = vec![victim];
                for parent in &mut citing.draft.parents {
                    if parent.creator.0 == view.seat.member {
                        *parent = *twin.draft.seal(&view.seat.key).reference();
                    }
                }
                citing
            });
            let stuffing: Vec<Publication> = citing.collect();
            publications[0].to.retain(|to| *to != victim);
            publications.extend(stuffing);
            publications.extend(twins);
            return;
        }
        let victim = *rng.choose(&view.seat.others());
        publications[0].to.retain(|to| *to != victim);
        self.hidden = Some((publications[0].clone(), victim));
    }
}

/// Sends its events to some members only.
pub struct Withholder;

impl Adversary for Withholder {
    fn publish(&mut self, _view: &View<'_>, publications: &mut Vec<Publication>, rng: &mut SimRng) {
        for publication in publications {
            rng.shuffle(&mut publication.to);
            let keep = rng.between(0, publication.to.len() as u64) as usize;
            publication.to.truncate(keep);
        }
    }
}

/// Sends many twins with large payloads, and floods with hints.
pub struct Flooder;

impl Adversary for Flooder {
    fn publish(&mut self, _view: &View<'_>, publications: &mut Vec<Publication>, rng: &mut SimRng) {
        let original = publications[0].clone();
        for _ in 0..rng.between(2, 12) {
            let mut copy = twin(&original, rng);
            let mut payload = vec![0; 4096];
            rng.fill(&mut payload);
            copy.draft.transactions.push(Bytes::from(payload));
            publications.push(copy);
        }
    }

    fn disturb(&mut self, view: &View<'_>, rng: &mut SimRng) -> Vec<Raw> {
        let Some(event) = view.heard.iter().next() else {
            return Vec::new();
        };
        // A whole round's worth of old events again and again, as one message.
        let bytes = Message::Events(vec![event.bytes().clone(); 64]).encode();
        let copies = rng.between(1, 8) as usize;
        let to = view
            .seat
            .others()
            .into_iter()
            .flat_map(|to| std::iter::repeat_n(to, copies));
        to.map(|to| Raw {
            to,
            bytes: bytes.clone(),
            delay_us: 0,
        })
        .collect()
    }
}

/// Sends its events long after their time.
pub struct Laggard;

impl Adversary for Laggard {
    fn publish(&mut self, _view: &View<'_>, publications: &mut Vec<Publication>, rng: &mut SimRng) {
        for publication in publications {
            publication.delay_us += rng.between(100, 3_000) * MS;
        }
    }
}

/// Cites parents of long ago, some of which never existed.
pub struct AncientParent;

impl Adversary for AncientParent {
    fn draft(&mut self, view: &View<'_>, draft: &mut EventDraft, rng: &mut SimRng) {
        let me = view.seat.member;
        let committee = &view.seat.committee;
        let recent = |draft: &EventDraft| -> u64 {
            let parents = draft
                .parents
                .iter()
                .filter(|parent| parent.round.ahead(1) == draft.round);
            parents.map(|parent| committee.weight(parent.creator)).sum()
        };
        for position in 0..draft.parents.len() {
            let parent = draft.parents[position];
            let spare =
                recent(draft) >= committee.quorum_weight() + committee.weight(parent.creator);
            if parent.creator.0 != me && spare && draft.round.0 > 3 {
                draft.parents[position] = ancient(view, parent.creator, draft.round.0, rng);
            }
        }
        let missing = (0..committee.len() as u16).filter(|member| {
            draft
                .parents
                .iter()
                .all(|parent| parent.creator.0 != *member)
        });
        let missing: Vec<u16> = missing.collect();
        for member in missing {
            if draft.round.0 > 3 && rng.chance(500) {
                draft
                    .parents
                    .push(ancient(view, MemberIndex(member), draft.round.0, rng));
            }
        }
        draft.parents.sort_by_key(|parent| parent.creator);
    }
}

fn ancient(view: &View<'_>, creator: MemberIndex, round: u64, rng: &mut SimRng) -> EventRef {
    let real: Vec<&VerifiedEvent> = view
        .heard
        .iter()
        .filter(|event| event.creator() == creator && event.round().0 < round)
        .collect();
    if real.is_empty() || rng.chance(300) {
        return phantom(Round(rng.between(1, round - 1)), creator, rng);
    }
    *real[rng.index(real.len().min(5))].reference()
}

/// Cites an own parent from about where events are collected, with a timestamp just below that parent's.
pub struct StaleOwnParent {
    pub(super) rounds: u64,
}

impl Adversary for StaleOwnParent {
    fn draft(&mut self, view: &View<'_>, draft: &mut EventDraft, rng: &mut SimRng) {
        let back = rng.between(self.rounds.saturating_sub(1), self.rounds + 2);
        let round = draft.round.0.saturating_sub(back);
        let Some(stale) = view.heard.own(round).copied() else {
            return;
        };
        let me = view.seat.member;
        let Some(event) = view.heard.event(round, me) else {
            return;
        };
        let recent = draft
            .parents
            .iter()
            .filter(|parent| parent.round.ahead(1) == draft.round && parent.creator.0 != me);
        let recent: u64 = recent
            .map(|parent| view.seat.committee.weight(parent.creator))
            .sum();
        if recent >= view.seat.committee.quorum_weight() && event.timestamp_ms() > 0 {
            draft.timestamp_ms = event.timestamp_ms() - 1;
            for parent in &mut draft.parents {
                if parent.creator.0 == me {
                    *parent = stale;
                }
            }
        }
    }
}

/// A reference to an event that never was.
fn phantom(round: Round, creator: MemberIndex, rng: &mut SimRng) -> EventRef {
    let mut digest = [0; 32];
    rng.fill(&mut digest);
    EventRef {
        round,
        creator,
        digest: Digest(digest),
    }
}

/// Claims rounds that nobody has reached, on made-up parents.
pub struct FutureRound;

impl Adversary for FutureRound {
    fn publish(&mut self, view: &View<'_>, publications: &mut Vec<Publication>, rng: &mut SimRng) {
        let mut ahead = publications[0].clone();
        let jump = *rng.choose(&[1, 2, 10, 1_000, u64::MAX / 2, u64::MAX - 1, u64::MAX]);
        ahead.draft.round = Round(ahead.draft.round.0.saturating_add(jump));
        let below = Round(ahead.draft.round.0 - 1);
        let own = ahead
            .draft
            .parents
            .iter()
            .find(|parent| parent.creator.0 == view.seat.member)
            .copied();
        let members = (0..view.seat.committee.len() as u16).map(MemberIndex);
        ahead.draft.parents = members
            .map(|creator| match own {
                Some(own) if creator == own.creator => own,
                _ => phantom(below, creator, rng),
            })
            .collect();
        // Not remembered as its own last event: the next event would build on it.
        publications.insert(0, ahead);
    }
}

/// Writes false timestamps: far ahead, or before its own last one.
pub struct TimestampLiar;

impl Adversary for TimestampLiar {
    fn draft(&mut self, _view: &View<'_>, draft: &mut EventDraft, rng: &mut SimRng) {
        draft.timestamp_ms = match rng.between(0, 99) {
            0 => 0,
            1 => u64::MAX,
            2 => draft.timestamp_ms.saturating_add(365 * 86_400_000),
            3..10 => draft.timestamp_ms.saturating_sub(5_000),
            10..60 => draft.timestamp_ms.saturating_add(rng.between(1, 10_000)),
            _ => draft.timestamp_ms,
        };
    }
}

/// Claims to hold everything there could ever be, and asks for it.
pub struct Boaster;

impl Adversary for Boaster {
    fn disturb(&mut self, view: &View<'_>, rng: &mut SimRng) -> Vec<Raw> {
        let epoch = view.seat.committee.epoch();
        let members = view.seat.committee.len();
        let extreme =
            |rng: &mut SimRng| Round(*rng.choose(&[0, 1, 1 << 40, u64::MAX - 1, u64::MAX]));
        let mut sent = Vec::new();
        for to in view.seat.others() {
            let rounds: Vec<Round> = (0..members).map(|_| extreme(rng)).collect();
            let (round, creator) = (
                extreme(rng),
                MemberIndex(rng.between(0, members as u64) as u16),
            );
            let message = match rng.between(0, 4) {
                0 => Message::Frontier(Frontier {
                    epoch,
                    exchange: *rng.choose(&[
                        Exchange::Ask(u64::MAX),
                        Exchange::Answer(u64::MAX),
                        Exchange::Answer(0),
                    ]),
                    floor: extreme(rng),
                    commit: CommitIndex(extreme(rng).0),
                    time_ms: extreme(rng).0,
                    highest: rounds,
                }),
                1 => Message::Wake(Wake {
                    epoch,
                    round: extreme(rng),
                }),
                2 => Message::Request(Request {
                    epoch,
                    wanted: SyncRequest::After(After {
                        from: extreme(rng),
                        to: extreme(rng),
                        after: rounds,
                    }),
                }),
                3 => Message::Request(Request {
                    epoch,
                    wanted: SyncRequest::Events(vec![phantom(round, creator, rng); 3]),
                }),
                _ => Message::Events(Vec::new()),
            };
            sent.push(Raw {
                to,
                bytes: message.encode(),
                delay_us: 0,
            });
        }
        sent
    }
}

/// Sends random bytes and damaged messages.
#[derive(Default)]
pub struct GarbageBytes {
    sample: Option<Bytes>,
}

impl Adversary for GarbageBytes {
    fn overhear(&mut self, bytes: &Bytes, _events: &[VerifiedEvent]) {
        self.sample = Some(bytes.clone());
    }

    fn disturb(&mut self, view: &View<'_>, rng: &mut SimRng) -> Vec<Raw> {
        let mut sent = Vec::new();
        for to in view.seat.others() {
            let mut bytes = match &self.sample {
                Some(sample) if rng.chance(800) => sample.to_vec(),
                _ => vec![0; rng.between(0, 600) as usize],
            };
            match rng.between(0, 3) {
                0 => rng.fill(&mut bytes),
                1 => bytes.truncate(rng.between(0, bytes.len() as u64) as usize),
                2 => bytes.extend_from_slice(&[0; 3]),
                _ => {
                    for _ in 0..rng.between(1, 4) {
                        if !bytes.is_empty() {
                            let position = rng.index(bytes.len());
                            bytes[position] ^= 1 << rng.between(0, 7);
                        }
                    }
                }
            }
            sent.push(Raw {
                to,
                bytes: Bytes::from(bytes),
                delay_us: 0,
            });
        }
        sent
    }
}

/// Sends again what it has heard before.
#[derive(Default)]
pub struct Replayer {
    heard: VecDeque<Bytes>,
}

impl Adversary for Replayer {
    fn overhear(&mut self, bytes: &Bytes, _events: &[VerifiedEvent]) {
        self.heard.push_back(bytes.clone());
        if self.heard.len() > 500 {
            self.heard.pop_front();
        }
    }

    fn disturb(&mut self, view: &View<'_>, rng: &mut SimRng) -> Vec<Raw> {
        if self.heard.is_empty() {
            return Vec::new();
        }
        let others = view.seat.others();
        let mut replay = || {
            let bytes = self.heard[rng.index(self.heard.len())].clone();
            Raw {
                to: *rng.choose(&others),
                bytes,
                delay_us: 0,
            }
        };
        (0..20).map(|_| replay()).collect()
    }
}

/// Signs events in the name of others, with its own key: a copy of a recent event with another payload.
pub struct Impersonator;

impl Adversary for Impersonator {
    fn disturb(&mut self, view: &View<'_>, rng: &mut SimRng) -> Vec<Raw> {
        let newest = view.heard.newest_round();
        let victim = rng.index(view.seat.committee.len()) as u16;
        let Some(event) = view
            .heard
            .event(newest, victim)
            .filter(|_| victim != view.seat.member)
        else {
            return Vec::new();
        };
        let forged = EventDraft {
            chain_id: view.seat.chain_id,
            epoch: event.epoch(),
            round: event.round(),
            creator: event.creator(),
            timestamp_ms: event.timestamp_ms(),
            parents: event.parents().to_vec(),
            checkpoint_votes: Vec::new(),
            transactions: vec![Bytes::from_static(b"never submitted")],
        };
        let forged = forged.seal(&view.seat.key).bytes().clone();
        // Among good ones, so that a batch has to be taken apart.
        let bytes =
            Message::Events(vec![event.bytes().clone(), forged, event.bytes().clone()]).encode();
        view.seat
            .others()
            .into_iter()
            .map(|to| Raw {
                to,
                bytes: bytes.clone(),
                delay_us: 0,
            })
            .collect()
    }
}

/// Never cites the events of one member, as long as it can reach a quorum without.
pub struct VoteCensor {
    pub(super) victim: u16,
}

impl Adversary for VoteCensor {
    fn draft(&mut self, view: &View<'_>, draft: &mut EventDraft, _rng: &mut SimRng) {
        let recent = draft
            .parents
            .iter()
            .filter(|parent| parent.round.ahead(1) == draft.round);
        let recent: u64 = recent
            .filter(|parent| parent.creator.0 != self.victim)
            .map(|parent| view.seat.committee.weight(parent.creator))
            .sum();
        if recent >= view.seat.committee.quorum_weight() && self.victim != view.seat.member {
            draft
                .parents
                .retain(|parent| parent.creator.0 != self.victim);
        }
    }
}

/// Keeps to the rules except where it leads: there it tells nobody, or too few.
pub struct SilentLeader;

impl Adversary for SilentLeader {
    fn publish(&mut self, view: &View<'_>, publications: &mut Vec<Publication>, rng: &mut SimRng) {
        if view.leads {
            for publication in publications {
                rng.shuffle(&mut publication.to);
                let keep = rng.between(0, view.seat.committee.len() as u64 / 3) as usize;
                publication.to.truncate(keep);
            }
        }
    }
}

/// Signs votes for checkpoints that never were.
pub struct FalseVoter;

impl Adversary for FalseVoter {
    fn draft(&mut self, view: &View<'_>, draft: &mut EventDraft, rng: &mut SimRng) {
        let mut root = [0; 32];
        rng.fill(&mut root);
        let checkpoint = Checkpoint {
            epoch: draft.epoch,
            commit: CommitIndex(rng.between(1, draft.round.0)),
            commit_digest: Digest(root),
            outcomes_root: Digest(root),
            state_root: Digest(root),
            time_ms: view.now_ms,
            next_committee: rng.chance(500).then_some(Digest(root)),
        };
        draft
            .checkpoint_votes
            .push(checkpoint.sign(&view.seat.chain_id, &view.seat.key));
    }
}
