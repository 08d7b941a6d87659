//! Snapshots: the newest whole one counts, damage is passed over.

use std::{fs, io::Write};

use super::{SnapshotHead, Snapshots};

const BODY: [u8; 1000] = [7; 1000];

fn snapshot(commit: u64) -> SnapshotHead {
    SnapshotHead {
        commit,
        commit_digest: [3; 32],
        transactions: commit * 2,
        epoch: 4,
        starts_epoch: false,
    }
}

fn newest(snapshots: &Snapshots) -> Option<u64> {
    snapshots
        .newest(|_, body| {
            let mut read = Vec::new();
            body.read_to_end(&mut read).unwrap();
            Ok(read)
        })
        .unwrap()
        .map(|(s, body)| {
            assert_eq!(body, BODY);
            s.commit
        })
}

#[test]
fn the_newest_counts_and_old_ones_go() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(dir.path(), [1; 32]).unwrap();
    assert_eq!(newest(&snapshots), None);
    for commit in [9, 10, 100] {
        snapshots
            .save(&snapshot(commit), |out| out.write_all(&BODY))
            .unwrap();
    }
    assert_eq!(
        snapshots.newest(|_, _| Ok(())).unwrap().unwrap().0,
        snapshot(100)
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn the_newest_two_of_each_kind_stay() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(dir.path(), [1; 32]).unwrap();
    for commit in 1..=8 {
        let starts_epoch = commit % 4 < 2;
        snapshots
            .save(
                &SnapshotHead {
                    starts_epoch,
                    ..snapshot(commit)
                },
                |out| out.write_all(&BODY),
            )
            .unwrap();
    }
    // 1, 4, 5, 8 start epochs.
    let start = |commit| snapshots.epoch_start(commit).unwrap();
    assert!(start(8).is_some_and(|s| s.head.starts_epoch) && start(5).is_some());
    assert!(start(4).is_none() && start(7).is_none());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
    assert_eq!(newest(&snapshots), Some(8));
}

#[test]
fn a_damaged_or_refused_one_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(dir.path(), [1; 32]).unwrap();
    snapshots
        .save(&snapshot(9), |out| out.write_all(&BODY))
        .unwrap();
    snapshots
        .save(&snapshot(10), |out| out.write_all(&BODY))
        .unwrap();
    let path = dir.path().join("ledger-0000000000000010.snap");
    let good = fs::read(&path).unwrap();
    for at in [0, 50, 110, 500, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, bad).unwrap();
        assert_eq!(newest(&snapshots), Some(9), "flip at {at}");
    }
    fs::write(&path, &good[..good.len() - 1]).unwrap();
    assert_eq!(newest(&snapshots), Some(9));
    fs::write(&path, &good).unwrap();
    let refused = snapshots.newest(|s, _| {
        if s.commit == 10 {
            Err("no".to_owned())
        } else {
            Ok(())
        }
    });
    assert_eq!(refused.unwrap().unwrap().0.commit, 9);
}

#[test]
fn another_network_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    Snapshots::open(dir.path(), [1; 32])
        .unwrap()
        .save(&snapshot(9), |out| out.write_all(&BODY))
        .unwrap();
    let other = Snapshots::open(dir.path(), [2; 32]).unwrap();
    assert_eq!(
        other.newest(|_, _| Ok(())).unwrap_err().code(),
        "E_WRONG_NETWORK"
    );
}
