//! Collects checkpoint votes until a quorum agrees. docs/protocol.md 9.3.

use std::collections::{BTreeMap, VecDeque};

use crate::checkpoint::{Checkpoint, CheckpointCertificate, CheckpointVote};
use crate::committee::{Committee, MemberSet};
use crate::ids::{CommitIndex, MemberIndex};
use crate::keys::Signature;

/// The most open votes kept of one member; its newest push out its oldest.
pub(crate) const OPEN_VOTES_PER_MEMBER_MAX: usize = 64;

/// Votes for one checkpoint.
#[derive(Debug, Default)]
struct Ballot {
    signers: MemberSet,
    signatures: BTreeMap<MemberIndex, Signature>,
}

#[derive(Debug)]
pub(crate) struct VoteBook {
    committee: Committee,
    open: BTreeMap<(CommitIndex, Checkpoint), Ballot>,
    /// Per seat, the checkpoints it voted for that are open, oldest first.
    of_member: Vec<VecDeque<Checkpoint>>,
    certified: Option<CommitIndex>,
}

impl VoteBook {
    pub(crate) fn new(committee: Committee) -> Self {
        let of_member = vec![VecDeque::new(); committee.len()];
        Self {
            committee,
            open: BTreeMap::new(),
            of_member,
            certified: None,
        }
    }

    /// The last certified commit.
    pub(crate) fn certified(&self) -> Option<CommitIndex> {
        self.certified
    }

    /// Counts a vote whose signature is verified; returns the certificate that it completes.
    pub(crate) fn vote(
        &mut self,
        seat: MemberIndex,
        vote: &CheckpointVote,
    ) -> Option<CheckpointCertificate> {
        let checkpoint = vote.checkpoint;
        if self
            .certified
            .is_some_and(|certified| checkpoint.commit <= certified)
        {
            return None;
        }
        let voted = &self.of_member[seat.index()];
        if voted
            .iter()
            .any(|earlier| earlier.commit == checkpoint.commit)
        {
            return None; // docs/protocol.md 9.3: a member's first vote for a commit counts
        }
        if voted.len() >= OPEN_VOTES_PER_MEMBER_MAX {
            self.forget_oldest(seat);
        }
        self.of_member[seat.index()].push_back(checkpoint);
        let ballot = self
            .open
            .entry((checkpoint.commit, checkpoint))
            .or_default();
        ballot.signers.insert(&self.committee, seat);
        ballot.signatures.insert(seat, vote.signature);
        if ballot.signers.weight() < self.committee.quorum_weight() {
            return None;
        }
        let signatures = std::mem::take(&mut ballot.signatures).into_iter().collect();
        self.seal(checkpoint.commit);
        Some(CheckpointCertificate {
            checkpoint,
            signatures,
        })
    }

    fn forget_oldest(&mut self, seat: MemberIndex) {
        let Some(oldest) = self.of_member[seat.index()].pop_front() else {
            return;
        };
        // The ballot lives on for the others who signed it; without signers it goes.
        let key = (oldest.commit, oldest);
        let Some(ballot) = self.open.get_mut(&key) else {
            return;
        };
        ballot.signatures.remove(&seat);
        let mut signers = MemberSet::default();
        for signer in ballot.signatures.keys() {
            signers.insert(&self.committee, *signer);
        }
        ballot.signers = signers;
        if ballot.signatures.is_empty() {
            self.open.remove(&key);
        }
    }

    /// The newest commit for which members have voted so differently that no checkpoint can have a quorum any more.
    pub(crate) fn split(&self) -> Option<CommitIndex> {
        let (total, quorum) = (
            self.committee.total_weight(),
            self.committee.quorum_weight(),
        );
        let mut newest = None;
        let mut ballots = self.open.iter().peekable();
        while let Some(((commit, _), ballot)) = ballots.next() {
            let (mut voted, mut most) = (ballot.signers.weight(), ballot.signers.weight());
            while let Some((_, other)) = ballots.next_if(|((same, _), _)| same == commit) {
                voted += other.signers.weight();
                most = most.max(other.signers.weight());
            }
            if most + (total - voted) < quorum {
                newest = Some(*commit);
            }
        }
        newest
    }

    /// A certificate seals everything before it: older votes are of no use.
    pub(crate) fn seal(&mut self, commit: CommitIndex) {
        self.certified = self.certified.max(Some(commit));
        self.open.retain(|(open, _), _| *open > commit);
        for voted in &mut self.of_member {
            voted.retain(|checkpoint| checkpoint.commit > commit);
        }
    }
}

#[cfg(test)]
#[path = "vote_book_tests.rs"]
mod tests;
