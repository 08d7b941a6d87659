//! What is kept of a commit with transactions, and its form on disk.

use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use dagger_client::api::{CommitStage, DecisionView, EventName, EventStage, MemberName};
use dagger_ledger::{CommitLink, Digest};

use crate::handle::CommitRecord;

/// An executed commit with transactions, as the executor hands it over.
pub(crate) struct Executed {
    pub link: CommitLink,
    /// The chained outcomes root before it.
    pub previous: Digest,
    pub record: Arc<CommitRecord>,
    pub stage: Arc<CommitStage>,
    /// The event that carried each transaction; one after the other, mostly the same.
    pub events: Vec<Arc<EventStage>>,
}

/// The first part of a commit's value: all that a proof needs of a commit that only lies between.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct Head {
    pub link: CommitLink,
    pub previous: Digest,
}

/// How the commit came about. Names are those of the time: seats change hands.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Way {
    decided_at_ms: u64,
    names: Vec<(u16, String)>,
    leader: Event,
    decision: Decision,
    carriers: Vec<Carrier>,
}

#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Event {
    round: u64,
    creator: u16,
    digest: [u8; 32],
}

#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
enum Decision {
    Direct {
        certifiers: Vec<(u16, u64)>,
        weight: u64,
        quorum_weight: u64,
        total_weight: u64,
    },
    Indirect {
        anchor: Event,
    },
}

/// An event and how many of the commit's transactions came in it, in order.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Carrier {
    event: Event,
    at_ms: u64,
    count: u32,
}

impl Way {
    pub fn of(executed: &Executed) -> Self {
        let mut names = Vec::new();
        let stage = &executed.stage;
        let leader = Event::of(&stage.leader, &mut names);
        let decision = match &stage.decision {
            DecisionView::Direct {
                certifiers,
                weight,
                quorum_weight,
                total_weight,
            } => Decision::Direct {
                certifiers: certifiers
                    .iter()
                    .map(|member| {
                        note_name(member.index, &member.name, &mut names);
                        (member.index, member.weight)
                    })
                    .collect(),
                weight: *weight,
                quorum_weight: *quorum_weight,
                total_weight: *total_weight,
            },
            DecisionView::Indirect { anchor } => Decision::Indirect {
                anchor: Event::of(anchor, &mut names),
            },
        };
        let mut carriers: Vec<Carrier> = Vec::new();
        let mut last: Option<&Arc<EventStage>> = None;
        for event in &executed.events {
            match carriers.last_mut() {
                Some(carrier) if last.is_some_and(|last| Arc::ptr_eq(last, event)) => {
                    carrier.count += 1;
                }
                _ => carriers.push(Carrier {
                    event: Event::of(&event.event, &mut names),
                    at_ms: event.at_ms,
                    count: 1,
                }),
            }
            last = Some(event);
        }
        Self {
            decided_at_ms: stage.at_ms,
            names,
            leader,
            decision,
            carriers,
        }
    }

    /// The commit as a transaction's status shows it.
    pub fn commit_stage(&self, link: &CommitLink) -> CommitStage {
        let decision = match &self.decision {
            Decision::Direct {
                certifiers,
                weight,
                quorum_weight,
                total_weight,
            } => DecisionView::Direct {
                certifiers: certifiers
                    .iter()
                    .map(|(index, weight)| MemberName {
                        index: *index,
                        name: self.name(*index),
                        weight: *weight,
                    })
                    .collect(),
                weight: *weight,
                quorum_weight: *quorum_weight,
                total_weight: *total_weight,
            },
            Decision::Indirect { anchor } => DecisionView::Indirect {
                anchor: self.event_name(anchor),
            },
        };
        CommitStage {
            index: link.commit,
            leader: self.event_name(&self.leader),
            decision,
            time_ms: link.time_ms,
            at_ms: self.decided_at_ms,
        }
    }

    /// The event that carried the transaction at `position`.
    pub fn event_stage(&self, position: usize) -> Option<EventStage> {
        let mut before = 0;
        let carrier = self.carriers.iter().find(|carrier| {
            before += carrier.count as usize;
            position < before
        })?;
        Some(EventStage {
            event: self.event_name(&carrier.event),
            at_ms: carrier.at_ms,
        })
    }

    fn name(&self, seat: u16) -> String {
        let name = self.names.iter().find(|(index, _)| *index == seat);
        name.map_or_else(|| format!("member-{seat}"), |(_, name)| name.clone())
    }

    fn event_name(&self, event: &Event) -> EventName {
        EventName {
            round: event.round,
            creator: event.creator,
            creator_name: self.name(event.creator),
            digest: hex::encode(event.digest),
        }
    }
}

impl Event {
    fn of(name: &EventName, names: &mut Vec<(u16, String)>) -> Self {
        note_name(name.creator, &name.creator_name, names);
        let mut digest = [0; 32];
        hex::decode_to_slice(&name.digest, &mut digest).expect("a digest's own text");
        Self {
            round: name.round,
            creator: name.creator,
            digest,
        }
    }
}

fn note_name(seat: u16, name: &str, names: &mut Vec<(u16, String)>) {
    if names.iter().all(|(known, _)| *known != seat) {
        names.push((seat, name.to_owned()));
    }
}
