//! Proofs that hold offline: a record (or its absence) under a state root, and an outcome under an outcomes root. The roots
//! themselves are what checkpoint certificates sign. Verifying needs this file and a hash function, no ledger.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::commit::Outcome;
use crate::hash;
use crate::ids::Digest;
use crate::ledger::StateKey;
use crate::ledger::outcomes;
use crate::ledger::state_tree::{DEPTH, bucket_hash, bucket_of, node_hash};

/// Why a proof does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Not the shape of a proof.
    #[error("the proof is malformed; ask another node for it")]
    Malformed,
    /// Its record is not the one in the tree.
    #[error("the proof's record is not the one that the root covers; do not trust this node")]
    Record,
    /// It says that something is absent which is there.
    #[error("the proof calls a record absent that the root covers; do not trust this node")]
    NotAbsent,
    /// It leads to another root.
    #[error("the proof leads to another root; compare the checkpoints, and do not trust this node")]
    Root,
}

/// That a record is in the state, or that there is none under its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(deny_unknown_fields)]
pub struct StateProof {
    /// The record's key.
    pub key: StateKey,
    /// The record's borsh form; `None` claims its absence.
    #[serde(with = "hex_bytes")]
    pub record: Option<Vec<u8>>,
    /// Everything in the key's bucket: hashes of keys and records, sorted.
    pub bucket: Vec<(Digest, Digest)>,
    /// Siblings from the bucket up to the root.
    pub siblings: Vec<Digest>,
}

impl StateProof {
    /// Checks the proof against a state root.
    pub fn verify(&self, state_root: &Digest) -> Result<(), ProofError> {
        let key = self.key.hash();
        let bucket = bucket_of(&key);
        let sorted = self.bucket.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let together = self
            .bucket
            .iter()
            .all(|(key, _)| bucket_of(&key.0) == bucket);
        if self.siblings.len() != DEPTH as usize || !sorted || !together {
            return Err(ProofError::Malformed);
        }
        let found = self
            .bucket
            .iter()
            .find(|(other, _)| other.0 == key)
            .map(|(_, record)| record);
        match (&self.record, found) {
            (None, None) => {}
            (None, Some(_)) => return Err(ProofError::NotAbsent),
            (Some(record), Some(hash)) if hash::keyed(hash::STATE_RECORD, record) == hash.0 => {}
            (Some(_), _) => return Err(ProofError::Record),
        }
        let pairs: Vec<_> = self
            .bucket
            .iter()
            .map(|(key, record)| (key.0, record.0))
            .collect();
        let mut node = bucket_hash(&pairs);
        for (level, sibling) in self.siblings.iter().enumerate() {
            node = if bucket >> level & 1 == 0 {
                node_hash(&node, &sibling.0)
            } else {
                node_hash(&sibling.0, &node)
            };
        }
        if node == state_root.0 {
            Ok(())
        } else {
            Err(ProofError::Root)
        }
    }

    /// The record itself. Verify first.
    pub fn record<T: BorshDeserialize>(&self) -> Result<Option<T>, ProofError> {
        let decode = |bytes: &Vec<u8>| borsh::from_slice(bytes).map_err(|_| ProofError::Malformed);
        self.record.as_ref().map(decode).transpose()
    }
}

/// What the chain of outcome roots takes from one commit with transactions.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize,
)]
#[serde(deny_unknown_fields)]
pub struct CommitLink {
    /// Index of the commit.
    pub commit: u64,
    /// Its time.
    pub time_ms: u64,
    /// Number of its outcomes.
    pub count: u64,
    /// Root of the tree over them.
    pub root: Digest,
}

impl CommitLink {
    /// The link of a commit; `None` without outcomes, which leave the chain as it was.
    pub fn of(commit: u64, time_ms: u64, all: &[Outcome]) -> Option<Self> {
        let leaves: Vec<_> = (0..).zip(all).map(|(i, o)| outcomes::leaf(i, o)).collect();
        let root = (!leaves.is_empty()).then(|| Digest(outcomes::root(leaves)))?;
        Some(Self {
            commit,
            time_ms,
            count: all.len() as u64,
            root,
        })
    }

    /// The chained root after this commit.
    pub fn after(&self, previous: &Digest) -> Digest {
        let Self {
            commit,
            time_ms,
            count,
            root,
        } = self;
        Digest(outcomes::link(
            &previous.0,
            *commit,
            *time_ms,
            *count,
            &root.0,
        ))
    }
}

/// That a transaction was ordered at a place of a commit, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
#[serde(deny_unknown_fields)]
pub struct OutcomeProof {
    /// The outcome.
    pub outcome: Outcome,
    /// Its place in the commit, from 0.
    pub position: u64,
    /// Siblings from the outcome up to its commit's root; a level without one is left out.
    pub siblings: Vec<Digest>,
    /// The commit.
    pub link: CommitLink,
    /// The chained root before it.
    pub previous: Digest,
    /// Later commits with transactions, up to the checkpoint.
    pub later: Vec<CommitLink>,
}

impl OutcomeProof {
    /// Proves the outcome at `position` of a commit. `later` are the links up to the checkpoint to be used. `None` if there is
    /// no such outcome.
    pub fn new(
        previous: Digest,
        (commit, time_ms): (u64, u64),
        all: &[Outcome],
        position: usize,
        later: Vec<CommitLink>,
    ) -> Option<Self> {
        let outcome = all.get(position)?.clone();
        let leaves: Vec<_> = (0..).zip(all).map(|(i, o)| outcomes::leaf(i, o)).collect();
        let (root, siblings) = outcomes::path(leaves, position);
        let link = CommitLink {
            commit,
            time_ms,
            count: all.len() as u64,
            root: Digest(root),
        };
        let siblings = siblings.into_iter().map(Digest).collect();
        Some(Self {
            outcome,
            position: position as u64,
            siblings,
            link,
            previous,
            later,
        })
    }

    /// Checks the proof against a checkpoint's outcomes root.
    pub fn verify(&self, outcomes_root: &Digest) -> Result<(), ProofError> {
        if self.position >= self.link.count {
            return Err(ProofError::Malformed);
        }
        let mut node = outcomes::leaf(self.position, &self.outcome);
        let mut siblings = self.siblings.iter();
        let (mut at, mut width) = (self.position, self.link.count);
        while width > 1 {
            // The last node of an odd level moves up as it is.
            if at != width - 1 || width.is_multiple_of(2) {
                let sibling = siblings.next().ok_or(ProofError::Malformed)?;
                node = if at.is_multiple_of(2) {
                    hash::pair(hash::OUTCOME_NODE, &node, &sibling.0)
                } else {
                    hash::pair(hash::OUTCOME_NODE, &sibling.0, &node)
                };
            }
            (at, width) = (at / 2, width.div_ceil(2));
        }
        if siblings.next().is_some() {
            return Err(ProofError::Malformed);
        }
        if node != self.link.root.0 {
            return Err(ProofError::Record);
        }
        let first = self.link.after(&self.previous);
        let last = self
            .later
            .iter()
            .fold(first, |root, link| link.after(&root));
        if last == *outcomes_root {
            Ok(())
        } else {
            Err(ProofError::Root)
        }
    }
}

/// Bytes as hex in JSON.
mod hex_bytes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        bytes.as_ref().map(hex::encode).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| hex::decode(text).map_err(serde::de::Error::custom))
            .transpose()
    }
}
