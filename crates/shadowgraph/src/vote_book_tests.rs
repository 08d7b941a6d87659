use super::*;
use crate::committee::Member;
use crate::ids::{ChainId, Digest, Epoch};
use crate::keys::SigningKey;

fn key(seat: u16) -> SigningKey {
    SigningKey::from_bytes([seat as u8 + 1; 32])
}

fn vote(seat: u16, commit: u64, root: u8) -> (MemberIndex, CheckpointVote) {
    let checkpoint = Checkpoint {
        epoch: Epoch(0),
        commit: CommitIndex(commit),
        commit_digest: Digest([0; 32]),
        outcomes_root: Digest([0; 32]),
        state_root: Digest([root; 32]),
        time_ms: 1,
        next_committee: None,
    };
    let vote = checkpoint.sign(&ChainId([0; 32]), &key(seat));
    (MemberIndex(seat), vote)
}

/// The split after these votes (seat, commit, root) of four members.
fn split(votes: &[(u16, u64, u8)]) -> Option<u64> {
    let member = |seat| Member {
        key: key(seat).public(),
        weight: 1,
    };
    let committee = Committee::new(Epoch(0), (0..4).map(member).collect()).unwrap();
    let mut book = VoteBook::new(committee);
    for (seat, commit, root) in votes {
        let (seat, vote) = vote(*seat, *commit, *root);
        book.vote(seat, &vote);
    }
    book.split().map(|commit| commit.0)
}

#[test]
fn votes_are_split_once_no_checkpoint_can_have_a_quorum() {
    assert_eq!(split(&[]), None);
    // One liar: the others can still agree, and do.
    assert_eq!(split(&[(0, 3, 1), (1, 3, 9)]), None);
    assert_eq!(split(&[(0, 3, 1), (1, 3, 9), (2, 3, 1)]), None);
    assert_eq!(split(&[(0, 3, 1), (1, 3, 9), (2, 3, 1), (3, 3, 1)]), None);
    // Two and two, or two and one and one before the last has spoken.
    assert_eq!(split(&[(0, 3, 1), (1, 3, 9), (2, 3, 9)]), None);
    assert_eq!(
        split(&[(0, 3, 1), (1, 3, 9), (2, 3, 9), (3, 3, 1)]),
        Some(3)
    );
    assert_eq!(split(&[(0, 3, 1), (1, 3, 9), (2, 3, 8)]), Some(3));
    // The votes for one commit say nothing of another's.
    assert_eq!(split(&[(0, 3, 1), (1, 4, 9), (2, 5, 8), (3, 6, 7)]), None);
}

#[test]
fn a_later_certificate_ends_a_split() {
    let split_at_3 = [(0, 3, 1), (1, 3, 9), (2, 3, 8)];
    let certified_at_5 = [(0, 5, 1), (1, 5, 1), (2, 5, 1)];
    assert_eq!(split(&[split_at_3, certified_at_5].concat()), None);
}
