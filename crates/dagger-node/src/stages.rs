//! A commit as it is shown and kept: its leader, events and certifiers by name.

use dagger_client::api::{CommitStage, DecisionView, EventName, MemberName};
use shadowgraph::{Commit, Decision, EventRef, MemberIndex};

use crate::membership::Membership;

impl Membership {
    /// Name of the operator that holds a seat.
    pub fn seat_name(&self, seat: MemberIndex) -> String {
        let holder = self.holder(seat);
        holder.map_or_else(|| format!("member-{}", seat.0), |h| h.name.clone())
    }

    /// An event's name with that of its creator.
    pub fn event_name(&self, event: &EventRef) -> EventName {
        EventName {
            round: event.round.0,
            creator: event.creator.0,
            creator_name: self.seat_name(event.creator),
            digest: event.digest.to_string(),
        }
    }

    /// How a commit of this membership's epoch was decided; `at_ms` is when.
    pub fn commit_stage(&self, commit: &Commit, at_ms: u64) -> CommitStage {
        let decision = match &commit.decision {
            Decision::Direct { certifiers, weight } => DecisionView::Direct {
                certifiers: certifiers
                    .iter()
                    .map(|m| MemberName {
                        index: m.0,
                        name: self.seat_name(*m),
                        weight: self.committee.weight(*m),
                    })
                    .collect(),
                weight: *weight,
                quorum_weight: self.committee.quorum_weight(),
                total_weight: self.committee.total_weight(),
            },
            Decision::Indirect { anchor } => DecisionView::Indirect {
                anchor: self.event_name(anchor),
            },
        };
        CommitStage {
            index: commit.index.0,
            leader: self.event_name(&commit.leader),
            decision,
            time_ms: commit.time_ms,
            at_ms,
        }
    }
}
