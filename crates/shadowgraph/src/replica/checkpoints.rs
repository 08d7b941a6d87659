//! The replica's part in checkpoints: its own votes, the certificates, and the halt when they disagree.
//! docs/protocol.md 9.

use std::collections::BTreeMap;

use super::{EpochReplica, HaltReason, Output};
use crate::checkpoint::{Checkpoint, CheckpointCertificate, CheckpointVote};
use crate::commit::Commit;
use crate::committee::Committee;
use crate::event::{EVENT_VOTES_MAX, VerifiedEvent};
use crate::ids::{CommitIndex, Digest, Epoch, Round};
use crate::vote_book::VoteBook;

/// The most certificates kept for commits that are not executed here yet.
const CERTIFICATES_AHEAD_MAX: usize = 64;

/// Rounds for which a certificate that does not come keeps a replica awake.
const CERTIFICATE_ROUNDS_MAX: u64 = 50;

/// A checkpoint before its roots are known.
#[derive(Debug)]
struct Unexecuted {
    epoch: Epoch,
    digest: Digest,
    time_ms: u64,
}

#[derive(Debug)]
pub(super) struct Checkpoints {
    book: VoteBook,
    /// Output with `is_checkpoint`, and not executed yet.
    unexecuted: BTreeMap<CommitIndex, Unexecuted>,
    /// Executed, and not certified yet.
    executed: BTreeMap<CommitIndex, Checkpoint>,
    /// Certified before they were executed here.
    ahead: BTreeMap<CommitIndex, CheckpointCertificate>,
    /// Own votes that no own event carries yet.
    unsent: Vec<CheckpointVote>,
    /// The last commit that an own event votes for.
    voted: CommitIndex,
    /// The last checkpoint.
    last: CommitIndex,
    /// The round of the last leader when the last own vote went out.
    voted_at: Round,
}

impl Checkpoints {
    pub(super) fn new(committee: Committee) -> Self {
        Self {
            book: VoteBook::new(committee),
            unexecuted: BTreeMap::new(),
            executed: BTreeMap::new(),
            ahead: BTreeMap::new(),
            unsent: Vec::new(),
            voted: CommitIndex(0),
            last: CommitIndex(0),
            voted_at: Round(0),
        }
    }

    pub(super) fn committed(&mut self, commit: &Commit) {
        if commit.is_checkpoint {
            self.last = commit.index;
            let unexecuted = Unexecuted {
                epoch: commit.epoch,
                digest: commit.digest,
                time_ms: commit.time_ms,
            };
            self.unexecuted.insert(commit.index, unexecuted);
        }
    }

    /// No commit above this one counts. docs/protocol.md 10.1
    pub(super) fn end_at(&mut self, last: CommitIndex) {
        self.last = last;
        self.unexecuted.retain(|commit, _| *commit <= last);
    }

    /// A certificate for `commit` came from elsewhere than from votes.
    pub(super) fn seal(&mut self, commit: CommitIndex) {
        self.book.seal(commit);
    }

    /// Whether a checkpoint before `commit` is not executed yet, and so may end the epoch.
    pub(super) fn may_end_before(&self, commit: CommitIndex) -> bool {
        let first = self.first_unexecuted();
        first.is_some_and(|first| first < commit)
    }

    fn first_unexecuted(&self) -> Option<CommitIndex> {
        self.unexecuted.keys().next().copied()
    }

    pub(super) fn certified(&self) -> Option<CommitIndex> {
        self.book.certified()
    }

    /// See [`VoteBook::split`].
    pub(super) fn split(&self) -> Option<CommitIndex> {
        self.book.split()
    }

    /// Whether a vote waits to go out, or went out and its certificate is still to come. docs/protocol.md 4.6
    pub(super) fn needs_rounds(&self, leader_round: Round) -> bool {
        let open = self.certified().unwrap_or_default() < self.last && self.voted >= self.last;
        let recent = leader_round < self.voted_at.ahead(CERTIFICATE_ROUNDS_MAX);
        !self.unsent.is_empty() || (open && recent)
    }

    /// The votes for the next own event.
    pub(super) fn take_votes(&mut self, leader_round: Round) -> Vec<CheckpointVote> {
        if !self.unsent.is_empty() {
            self.voted_at = leader_round;
        }
        let most = self.unsent.len().min(EVENT_VOTES_MAX as usize);
        self.unsent.drain(..most).collect()
    }
}

impl EpochReplica {
    /// docs/protocol.md 9.2
    pub(crate) fn on_executed(
        &mut self,
        commit: CommitIndex,
        outcomes_root: Digest,
        state_root: Digest,
        next: Option<Committee>,
    ) {
        let Some(unexecuted) = self.checkpoints.unexecuted.remove(&commit) else {
            return;
        };
        let checkpoint = Checkpoint {
            epoch: unexecuted.epoch,
            commit,
            commit_digest: unexecuted.digest,
            outcomes_root,
            state_root,
            time_ms: unexecuted.time_ms,
            next_committee: next.as_ref().map(Committee::digest),
        };
        // Answers come in order: an earlier checkpoint without one was executed in an earlier life.
        self.checkpoints
            .unexecuted
            .retain(|earlier, _| *earlier > commit);
        self.checkpoints.executed.insert(commit, checkpoint);
        match next {
            None => self.proposer.settled(self.checkpoints.first_unexecuted()),
            Some(next) => self.end_executed(checkpoint, next),
        }
        if self.halted {
            return;
        }
        if let Some(certificate) = self.checkpoints.ahead.remove(&commit) {
            self.compare(&certificate);
            return;
        }
        let settled = self
            .checkpoints
            .certified()
            .is_some_and(|certified| certified >= commit);
        if settled {
            self.checkpoints.executed.remove(&commit);
            return;
        }
        if commit > self.checkpoints.voted
            && let Some(signer) = &self.signer
        {
            self.checkpoints
                .unsent
                .push(checkpoint.sign(&self.config.chain_id, signer));
            self.checkpoints.voted = commit;
        }
    }

    /// docs/protocol.md 9.3
    pub(super) fn count_votes(&mut self, event: &VerifiedEvent) {
        let own = self.me() == Some(event.creator());
        for vote in event.checkpoint_votes() {
            if own {
                self.checkpoints.voted = self.checkpoints.voted.max(vote.checkpoint.commit);
            }
            if let Some(certificate) = self.checkpoints.book.vote(event.creator(), vote) {
                self.certify(certificate);
            }
        }
    }

    pub(super) fn certify(&mut self, certificate: CheckpointCertificate) {
        let commit = certificate.checkpoint.commit;
        self.output(Output::Certificate(certificate.clone()));
        if certificate.checkpoint.next_committee.is_some() {
            self.end_certified(certificate.clone());
            if self.halted {
                return;
            }
        }
        self.checkpoints
            .unsent
            .retain(|vote| vote.checkpoint.commit > commit);
        if self.checkpoints.executed.contains_key(&commit) {
            self.compare(&certificate);
            return;
        }
        self.checkpoints.ahead.insert(commit, certificate);
        if self.checkpoints.ahead.len() > CERTIFICATES_AHEAD_MAX {
            self.checkpoints.ahead.pop_first();
        }
    }

    /// docs/protocol.md 9.5: other roots than a quorum's are a reason to stop at once.
    fn compare(&mut self, certificate: &CheckpointCertificate) {
        let commit = certificate.checkpoint.commit;
        let own = self.checkpoints.executed[&commit];
        self.checkpoints
            .executed
            .retain(|executed, _| *executed > commit);
        if own != certificate.checkpoint {
            self.halt(HaltReason::Diverged {
                commit,
                certificate: Box::new(certificate.clone()),
                state_root: own.state_root,
                outcomes_root: own.outcomes_root,
            });
        }
    }
}
