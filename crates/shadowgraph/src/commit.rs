//! A commit as it leaves the replica, and its chained digest. How it comes about is not decided here.

use crate::event::{EventRef, VerifiedEvent};
use crate::ids::{CommitIndex, Digest, Epoch, MemberIndex};
use crate::keys::Domain;

/// One decided leader and the part of its causal history that was not output before.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Counts from 1.
    pub index: CommitIndex,
    /// The epoch of the committee.
    pub epoch: Epoch,
    /// The event of the leader slot.
    pub leader: EventRef,
    /// The slot's rank in its round.
    pub rank: u16,
    /// Never goes back, and no minority can push it. docs/protocol.md 5.5
    pub time_ms: u64,
    /// The digest of the commit before; zero for the first.
    pub previous: Digest,
    /// Chains everything above and the events.
    pub digest: Digest,
    /// By round, creator, digest: the leader is the last. At most one per (round, creator).
    pub events: Vec<VerifiedEvent>,
    /// Whether the driver owes an `Input::Executed` for it.
    pub is_checkpoint: bool,
    /// How this replica came to know. Others may know it otherwise: not part of the digest.
    pub decision: Decision,
}

impl Commit {
    /// How many transactions its events carry.
    #[must_use]
    pub fn transaction_count(&self) -> u64 {
        self.events
            .iter()
            .map(|event| u64::from(event.transaction_count()))
            .sum()
    }

    /// docs/protocol.md 5.6
    pub(crate) fn compute_digest(&self) -> Digest {
        let mut hasher = Domain::Commit.hasher();
        hasher.update(&self.previous.0);
        hasher.update(&self.index.0.to_le_bytes());
        hasher.update(&self.epoch.0.to_le_bytes());
        hasher.update(&self.leader.round.0.to_le_bytes());
        hasher.update(&self.leader.creator.0.to_le_bytes());
        hasher.update(&self.leader.digest.0);
        hasher.update(&self.rank.to_le_bytes());
        hasher.update(&self.time_ms.to_le_bytes());
        hasher.update(&[u8::from(self.is_checkpoint)]);
        hasher.update(&(self.events.len() as u64).to_le_bytes());
        for event in &self.events {
            hasher.update(&event.digest().0);
        }
        Digest(*hasher.finalize().as_bytes())
    }
}

/// How a leader was decided, as this replica saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// By certificates of quorum weight.
    Direct {
        /// The members whose events of round r + 2 are certificates.
        certifiers: Vec<MemberIndex>,
        /// Their votes together.
        weight: u64,
    },
    /// By a certificate in the history of a later committed leader.
    Indirect {
        /// That leader.
        anchor: EventRef,
    },
}
