//! A history of commits for tests of the index.

use std::sync::Arc;

use dagger_client::api::{CommitStage, DecisionView, EventName, EventStage, MemberName};
use dagger_ledger::{Code, CommitLink, Digest, Outcome};
use shadowgraph::{
    ChainId, Checkpoint, CheckpointCertificate, CommitIndex, Epoch, MemberIndex, SigningKey,
};

use super::{Executed, Note};
use crate::handle::CommitRecord;

/// Commits in order, each chained to the one before.
#[derive(Default)]
pub(super) struct History {
    root: Digest,
}

/// The digest of a transaction.
pub(super) fn digest(commit: u64, n: u64) -> Digest {
    let bytes = [commit.to_le_bytes(), n.to_le_bytes()].concat();
    Digest(*blake3::hash(&bytes).as_bytes())
}

fn event(round: u64) -> EventName {
    EventName {
        round,
        creator: 1,
        creator_name: "bravo".into(),
        digest: hex::encode([5; 32]),
    }
}

impl History {
    /// A commit with those transactions.
    pub fn commit_of(&mut self, commit: u64, digests: &[Digest]) -> Note {
        let outcome = |digest: &Digest| Outcome {
            digest: *digest,
            code: Code::Ok,
            subject: None,
            detail: String::new(),
        };
        let outcomes: Vec<_> = digests.iter().map(outcome).collect();
        let link = CommitLink::of(commit, 10 * commit, &outcomes).expect("it has transactions");
        let previous = self.root;
        self.root = link.after(&previous);
        let carrier = |round| {
            Arc::new(EventStage {
                event: event(round),
                at_ms: 7,
            })
        };
        // The first transaction came alone, the rest together.
        let (first, rest) = (carrier(100 + commit), carrier(200 + commit));
        let mut events = vec![first];
        events.resize(digests.len(), rest);
        Note::Executed(Box::new(Executed {
            link,
            previous,
            record: Arc::new(CommitRecord {
                index: commit,
                time_ms: link.time_ms,
                digest: Digest([1; 32]),
                leader: event(commit),
                actions: vec![None; outcomes.len()],
                outcomes,
                changes: Vec::new(),
            }),
            stage: Arc::new(CommitStage {
                index: commit,
                leader: event(commit),
                decision: DecisionView::Direct {
                    certifiers: vec![MemberName {
                        index: 3,
                        name: "delta".into(),
                        weight: 2,
                    }],
                    weight: 2,
                    quorum_weight: 2,
                    total_weight: 3,
                },
                time_ms: link.time_ms,
                at_ms: 9,
            }),
            events,
        }))
    }

    /// A commit with `count` transactions of its own.
    pub fn commit(&mut self, commit: u64, count: u64) -> Note {
        let digests: Vec<_> = (0..count).map(|n| digest(commit, n)).collect();
        self.commit_of(commit, &digests)
    }

    /// The certificate of a checkpoint after `commit`, the last one with transactions being the last one made here.
    pub fn certificate(&self, commit: u64) -> Note {
        let checkpoint = Checkpoint {
            epoch: Epoch(0),
            commit: CommitIndex(commit),
            commit_digest: shadowgraph::Digest([1; 32]),
            outcomes_root: shadowgraph::Digest(self.root.0),
            state_root: shadowgraph::Digest([2; 32]),
            time_ms: commit,
            next_committee: None,
        };
        let vote = checkpoint.sign(&ChainId([6; 32]), &SigningKey::from_bytes([3; 32]));
        Note::Certificate(Box::new(CheckpointCertificate {
            checkpoint,
            signatures: vec![(MemberIndex(0), vote.signature)],
        }))
    }
}
