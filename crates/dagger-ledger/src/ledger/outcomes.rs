//! The chained root over outcomes: what a receipt hangs on.
//!
//! The outcomes of one commit are the leaves of a binary tree; an odd node at a level's end moves up as it is. The chain's
//! next link is the hash of the last link, the commit's index and time, the number of outcomes, and that tree's root.

use crate::commit::Outcome;
use crate::hash;

type Hash = [u8; 32];

/// Hash of one outcome with its place in the commit.
pub(crate) fn leaf(position: u64, outcome: &Outcome) -> Hash {
    hash::keyed(hash::OUTCOME, &hash::encode(&(position, outcome)))
}

/// The next link of the chain.
pub(crate) fn link(previous: &Hash, commit: u64, time_ms: u64, count: u64, root: &Hash) -> Hash {
    hash::keyed(
        hash::OUTCOME_LINK,
        &hash::encode(&(previous, commit, time_ms, count, root)),
    )
}

/// Root of the tree over a commit's outcomes; at least one.
pub(crate) fn root(mut level: Vec<Hash>) -> Hash {
    while level.len() > 1 {
        level = next_level(&level);
    }
    level[0]
}

fn next_level(level: &[Hash]) -> Vec<Hash> {
    let join = |two: &[Hash]| match two {
        [left, right] => hash::pair(hash::OUTCOME_NODE, left, right),
        [single] => *single,
        _ => unreachable!("chunks of two"),
    };
    level.chunks(2).map(join).collect()
}

/// Root of the tree over a commit's outcomes, and the siblings on the way to it, lowest first.
pub(crate) fn path(mut level: Vec<Hash>, mut at: usize) -> (Hash, Vec<Hash>) {
    let mut siblings = Vec::new();
    while level.len() > 1 {
        siblings.extend(level.get(at ^ 1));
        level = next_level(&level);
        at /= 2;
    }
    (level[0], siblings)
}
