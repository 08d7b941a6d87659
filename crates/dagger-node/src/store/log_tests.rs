//! The event log under crashes, damage and rotation.

use std::{fs, path::Path};

use bytes::Bytes;

use super::{EventKey, EventLog, Options};
use crate::config::Durability;

const CHAIN: [u8; 32] = [7; 32];

fn options(segment_bytes: u64) -> Options {
    Options {
        segment_bytes,
        durability: Durability::Os,
        discard: false,
    }
}

fn key(n: u64) -> EventKey {
    EventKey {
        round: n / 4,
        creator: u16::try_from(n % 4).unwrap(),
        digest: *blake3::hash(&n.to_le_bytes()).as_bytes(),
    }
}

fn first_of(round: u64) -> EventKey {
    EventKey {
        round,
        creator: 0,
        digest: [0; 32],
    }
}

fn body(n: u64) -> Bytes {
    let mut out = vec![0xa5; 100 + usize::try_from(n % 50).unwrap()];
    out[..8].copy_from_slice(&n.to_le_bytes());
    out.into()
}

fn fill(dir: &Path, events: std::ops::Range<u64>, segment_bytes: u64) {
    let (mut log, _) = EventLog::open(dir, CHAIN, options(segment_bytes)).unwrap();
    for n in events {
        log.append(key(n), &body(n));
        log.commit().unwrap();
    }
}

fn replayed(log: &EventLog) -> Vec<EventKey> {
    log.replay().unwrap().map(|r| r.unwrap().0).collect()
}

fn last_segment(dir: &Path) -> std::path::PathBuf {
    let mut logs: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().unwrap() == "log")
        .collect();
    logs.sort();
    logs.pop().unwrap()
}

#[test]
fn events_come_back_in_order_across_segments_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 0..100, 2000);
    fill(dir.path(), 100..200, 2000);
    let (log, report) = EventLog::open(dir.path(), CHAIN, options(2000)).unwrap();
    assert!(report.segments > 5);
    assert_eq!(report.cut_bytes, 0);
    assert_eq!(replayed(&log), (0..200).map(key).collect::<Vec<_>>());
    let reader = log.reader();
    for n in 0..200 {
        assert_eq!(reader.get(&key(n)).unwrap().unwrap(), body(n));
    }
    assert_eq!(reader.get(&key(200)).unwrap(), None);
    let mut expected: Vec<_> = (40..60).map(key).collect();
    expected.sort_unstable();
    assert_eq!(reader.keys(first_of(10), 14, 1000).unwrap(), expected);
    assert_eq!(reader.keys(first_of(10), 14, 3).unwrap(), expected[..3]);
}

/// More pieces than the kernel takes at once.
#[test]
fn a_large_batch_is_written_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = EventLog::open(dir.path(), CHAIN, options(1 << 30)).unwrap();
    for n in 0..3000 {
        log.append(key(n), &body(n));
    }
    log.commit().unwrap();
    let read: Vec<_> = log.replay().unwrap().map(|r| r.unwrap()).collect();
    let written: Vec<_> = (0..3000).map(|n| (key(n), body(n))).collect();
    assert_eq!(read, written);
}

#[test]
fn a_batch_is_readable_only_once_written() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = EventLog::open(dir.path(), CHAIN, options(1 << 20)).unwrap();
    log.append(key(1), &body(1));
    assert_eq!(log.reader().get(&key(1)).unwrap(), None);
    assert!(log.is_dirty());
    log.commit().unwrap();
    assert!(!log.is_dirty());
    assert_eq!(log.reader().get(&key(1)).unwrap().unwrap(), body(1));
}

#[test]
fn a_torn_tail_is_cut_at_every_length() {
    let whole = tempfile::tempdir().unwrap();
    fill(whole.path(), 0..5, 1 << 20);
    let bytes = fs::read(last_segment(whole.path())).unwrap();
    let four = tempfile::tempdir().unwrap();
    fill(four.path(), 0..4, 1 << 20);
    let good = fs::read(last_segment(four.path())).unwrap().len();
    for length in good + 1..bytes.len() {
        for zeros in [0, 300] {
            let dir = tempfile::tempdir().unwrap();
            let mut torn = bytes[..length].to_vec();
            torn.resize(length + zeros, 0);
            fs::write(dir.path().join("0000000001.log"), &torn).unwrap();
            // With zeros behind it a record whose missing part is shorter than a few bytes cannot be told from damage.
            if zeros > 0 && bytes.len() - length < 16 {
                continue;
            }
            let (log, report) = EventLog::open(dir.path(), CHAIN, options(1 << 20))
                .unwrap_or_else(|e| panic!("cut to {length} + {zeros} zeros: {e}"));
            assert_eq!(
                report.cut_bytes as usize,
                torn.len() - good,
                "cut to {length} + {zeros} zeros"
            );
            assert_eq!(replayed(&log).len(), 4);
        }
    }
}

#[test]
fn the_log_goes_on_after_a_cut() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 0..5, 1 << 20);
    let path = last_segment(dir.path());
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 7]).unwrap();
    fill(dir.path(), 10..12, 1 << 20);
    let (log, _) = EventLog::open(dir.path(), CHAIN, options(1 << 20)).unwrap();
    assert_eq!(replayed(&log), [0, 1, 2, 3, 10, 11].map(key));
}

#[test]
fn every_flipped_bit_is_found_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 0..3, 1 << 20);
    let path = last_segment(dir.path());
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(&path, &bad).unwrap();
        let error = EventLog::open(dir.path(), CHAIN, options(1 << 20))
            .err()
            .unwrap_or_else(|| panic!("flip at {at} not found"));
        assert_eq!(error.code(), "E_STORE_DAMAGED", "flip at {at}: {error}");
        assert_eq!(fs::read(&path).unwrap(), bad);
    }
}

#[test]
fn zeros_in_front_of_a_record_are_damage_and_no_tail() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 0..4, 1 << 20);
    let path = last_segment(dir.path());
    let good = fs::read(&path).unwrap();
    // The segment's header, records, and parts of them; what stands behind is whole.
    for range in [0..60, 56..114, 56..200, 150..400] {
        let mut bad = good.clone();
        bad[range.clone()].fill(0);
        fs::write(&path, &bad).unwrap();
        let opened = EventLog::open(dir.path(), CHAIN, options(1 << 20)).err();
        let error = opened.unwrap_or_else(|| panic!("zeros at {range:?} not found"));
        assert_eq!(error.code(), "E_STORE_DAMAGED", "{range:?}");
        assert_eq!(fs::read(&path).unwrap(), bad);
    }
}

#[test]
fn damage_in_a_closed_segment_is_found_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 0..100, 2000);
    let path = dir.path().join("0000000002.log");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 4;
    fs::write(&path, bytes).unwrap();
    let (log, _) = EventLog::open(dir.path(), CHAIN, options(2000)).unwrap();
    let error = log.replay().unwrap().find_map(Result::err).unwrap();
    assert_eq!(error.code(), "E_STORE_DAMAGED");
    let wrong = (0..100)
        .filter(|n| log.reader().get(&key(*n)).is_err())
        .count();
    assert_eq!(wrong, 1);
}

#[test]
fn a_lost_index_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 0..100, 2000);
    fs::remove_file(dir.path().join("0000000001.idx")).unwrap();
    fs::write(dir.path().join("0000000002.idx"), b"nonsense").unwrap();
    let (log, _) = EventLog::open(dir.path(), CHAIN, options(2000)).unwrap();
    assert!((0..100).all(|n| log.reader().get(&key(n)).unwrap().is_some()));
}

#[test]
fn a_missing_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 0..100, 2000);
    fs::remove_file(dir.path().join("0000000002.log")).unwrap();
    let error = EventLog::open(dir.path(), CHAIN, options(2000))
        .err()
        .unwrap();
    assert_eq!(error.code(), "E_STORE_DAMAGED");
}

#[test]
fn another_network_and_a_newer_format_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), 0..3, 1 << 20);
    assert_eq!(
        EventLog::open(dir.path(), [8; 32], options(1 << 20))
            .err()
            .unwrap()
            .code(),
        "E_WRONG_NETWORK"
    );
    let path = last_segment(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 99;
    let crc = crc32c::crc32c(&bytes[..52]);
    bytes[52..56].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    assert_eq!(
        EventLog::open(dir.path(), CHAIN, options(1 << 20))
            .err()
            .unwrap()
            .code(),
        "E_NEWER_FORMAT"
    );
    assert_eq!(fs::read(&path).unwrap(), bytes);
}
