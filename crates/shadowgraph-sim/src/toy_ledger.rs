//! The toy state machine of the simulator: a hash over everything committed, and the epochs of the plan.

use std::sync::Arc;

use shadowgraph::{Commit, CommitIndex, Committee, Digest, Epoch, EpochEnd};

use crate::epochs::Epochs;

/// The roots after a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// Which commit.
    pub commit: CommitIndex,
    /// Chained digest of all outcomes.
    pub outcomes_root: Digest,
    /// Digest of the toy state.
    pub state_root: Digest,
    /// Who votes next, if the commit ends its epoch.
    pub next: Option<Committee>,
}

/// The toy state machine: a hash over everything committed, and the epochs of the plan.
#[derive(Clone, Debug)]
pub struct ToyLedger {
    epochs: Arc<Epochs>,
    state: Digest,
    outcomes: Digest,
    epoch: Epoch,
    start: u64,
    /// The newest rules that its program knows.
    knows: u32,
}

impl ToyLedger {
    /// Before the first commit.
    pub fn new(epochs: Arc<Epochs>, knows: u32) -> Self {
        Self {
            epochs,
            state: Digest::default(),
            outcomes: Digest::default(),
            epoch: Epoch(0),
            start: 0,
            knows,
        }
    }

    /// The state that an end certifies.
    pub fn after(epochs: Arc<Epochs>, end: &EpochEnd, knows: u32) -> Self {
        let checkpoint = &end.certificate.checkpoint;
        Self {
            epochs,
            state: checkpoint.state_root,
            outcomes: checkpoint.outcomes_root,
            epoch: end.next.epoch(),
            start: checkpoint.commit.0,
            knows,
        }
    }

    /// Executes a commit; nothing if it is void.
    pub fn execute(&mut self, commit: &Commit) -> Option<Executed> {
        if commit.epoch < self.epoch {
            return None;
        }
        let mut state = blake3::Hasher::new_derive_key("dagger simulator state v1");
        state.update(&self.state.0);
        // Whoever went on with rules that it does not know would come to other roots.
        let version = self.epochs.version(commit.epoch).min(self.knows);
        state.update(&version.to_le_bytes());
        let mut count = 0u64;
        for transaction in commit
            .events
            .iter()
            .flat_map(|event| event.transactions().collect::<Vec<_>>())
        {
            state.update(&(transaction.len() as u64).to_le_bytes());
            state.update(&transaction);
            count += 1;
        }
        let mut outcomes = blake3::Hasher::new_derive_key("dagger simulator outcomes v1");
        outcomes.update(&self.outcomes.0);
        outcomes.update(&count.to_le_bytes());
        self.state = Digest(*state.finalize().as_bytes());
        self.outcomes = Digest(*outcomes.finalize().as_bytes());
        let next = self.epochs.next(self.start, commit).cloned();
        if let Some(next) = &next {
            (self.epoch, self.start) = (next.epoch(), commit.index.0);
        }
        Some(Executed {
            commit: commit.index,
            outcomes_root: self.outcomes,
            state_root: self.state,
            next,
        })
    }
}
