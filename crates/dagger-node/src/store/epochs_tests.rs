//! Epochs on disk: their ends form a chain, logs go and ends stay, damage is named.

use std::fs;

use bytes::Bytes;
use shadowgraph::{
    ChainId, Checkpoint, CheckpointCertificate, CommitIndex, Committee, Digest, Epoch, EpochEnd,
    Member, MemberIndex, SigningKey,
};

use super::{Epochs, EventKey, Options};
use crate::config::Durability;

const CHAIN: [u8; 32] = [1; 32];

fn open(dir: &std::path::Path) -> Epochs {
    let options = Options {
        segment_bytes: 1 << 20,
        durability: Durability::Os,
        discard: false,
    };
    Epochs::open(dir, CHAIN, options).unwrap()
}

fn committee(epoch: u64) -> Committee {
    let key = SigningKey::from_bytes([7; 32]).public();
    Committee::new(Epoch(epoch), vec![Member { key, weight: 1 }]).unwrap()
}

fn end(epoch: u64) -> EpochEnd {
    let next = committee(epoch + 1);
    let checkpoint = Checkpoint {
        epoch: Epoch(epoch),
        commit: CommitIndex(10 * (epoch + 1)),
        commit_digest: Digest([2; 32]),
        outcomes_root: Digest([3; 32]),
        state_root: Digest([4; 32]),
        time_ms: 5,
        next_committee: Some(next.digest()),
    };
    let vote = checkpoint.sign(&ChainId(CHAIN), &SigningKey::from_bytes([7; 32]));
    let certificate = CheckpointCertificate {
        checkpoint,
        signatures: vec![(MemberIndex(0), vote.signature)],
    };
    EpochEnd { certificate, next }
}

fn key(round: u64) -> EventKey {
    EventKey {
        round,
        creator: 0,
        digest: [9; 32],
    }
}

#[test]
fn the_present_epoch_follows_the_last_end_of_an_unbroken_chain() {
    let dir = tempfile::tempdir().unwrap();
    let epochs = open(dir.path());
    assert_eq!(epochs.last_end().unwrap(), None);
    // Written from the last to the first, as an installation does: nothing counts before the chain is whole.
    for epoch in [2, 1] {
        epochs.save_end(&end(epoch)).unwrap();
        assert_eq!(epochs.last_end().unwrap(), None);
    }
    epochs.save_end(&end(0)).unwrap();
    assert_eq!(open(dir.path()).last_end().unwrap(), Some(end(2)));
    assert_eq!(epochs.end(Epoch(3)).unwrap(), None);
}

#[test]
fn pruning_takes_logs_and_leaves_ends() {
    let dir = tempfile::tempdir().unwrap();
    let epochs = open(dir.path());
    for epoch in 0..4 {
        let mut log = epochs.log(Epoch(epoch)).unwrap();
        log.append(key(epoch + 1), &Bytes::from_static(b"an event"));
        log.commit().unwrap();
        epochs.save_end(&end(epoch)).unwrap();
    }
    assert_eq!(epochs.prune(Epoch(2)).unwrap(), 2);
    assert_eq!(epochs.prune(Epoch(2)).unwrap(), 0);
    let again = open(dir.path());
    assert!(again.reader(Epoch(0)).unwrap().is_none());
    assert!(again.reader(Epoch(1)).unwrap().is_none());
    let kept = again.reader(Epoch(2)).unwrap().unwrap();
    assert_eq!(kept.get(&key(3)).unwrap().unwrap(), "an event");
    assert_eq!(again.last_end().unwrap(), Some(end(3)));
}

#[test]
fn a_damaged_end_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let epochs = open(dir.path());
    epochs.save_end(&end(0)).unwrap();
    let path = dir.path().join("0000000000/end");
    let good = fs::read(&path).unwrap();
    for at in [0, 20, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, bad).unwrap();
        let error = epochs.last_end().unwrap_err();
        assert_eq!(error.code(), "E_STORE_DAMAGED", "flip at {at}");
    }
    let mut newer = good;
    newer[8] = 2;
    fs::write(&path, newer).unwrap();
    assert_eq!(epochs.last_end().unwrap_err().code(), "E_NEWER_FORMAT");
}
