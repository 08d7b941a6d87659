//! Sealed logs: the same events as before, in less room; a stop at every step, damage at every place, and both forms side by side.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use proptest::prelude::*;
use shadowgraph::{
    ChainId, Committee, Digest, Epoch, EventDraft, EventRef, Member, MemberIndex, Round, SigningKey,
};

use super::{
    EventKey, EventLog, LogReader, Options,
    frame::{FRAME_BYTES, FRAME_HEADER_BYTES, FrameHeader, key_of, pack, unpack},
    record::{KEY_BYTES, SEGMENT_HEADER_BYTES, encode_record, record_at},
    sealed::{SEALED_HEADER_BYTES, Sealing, remains, seal},
    segment::SegmentFile,
};
use crate::config::Durability;

const CHAIN: ChainId = ChainId([7; 32]);

fn options(segment_bytes: u64) -> Options {
    Options {
        segment_bytes,
        durability: Durability::Os,
        discard: false,
    }
}

fn signer(seat: u16) -> SigningKey {
    let mut seed = [1; 32];
    seed[..2].copy_from_slice(&seat.to_le_bytes());
    SigningKey::from_bytes(seed)
}

/// Rounds in which each of `seats` members cites all events of the round before; `payload` says what an event carries.
fn events(
    seats: u16,
    rounds: u64,
    payload: impl Fn(u64, u16) -> Vec<Bytes>,
) -> Vec<(EventKey, Bytes)> {
    let committee: Vec<Member> = (0..seats)
        .map(|seat| Member {
            key: signer(seat).public(),
            weight: 1,
        })
        .collect();
    let committee = Committee::new(Epoch(0), committee).unwrap();
    let genesis = |seat| EventRef {
        round: Round(0),
        creator: MemberIndex(seat),
        digest: Digest([seat as u8; 32]),
    };
    let mut before: Vec<EventRef> = (0..committee.len() as u16).map(genesis).collect();
    let mut events = Vec::new();
    for round in 1..=rounds {
        let mut names = Vec::new();
        for seat in 0..seats {
            let draft = EventDraft {
                chain_id: CHAIN,
                epoch: Epoch(0),
                round: Round(round),
                creator: MemberIndex(seat),
                timestamp_ms: 1_700_000_000_000 + 1_000 * round + u64::from(seat * 7 % 5),
                parents: before.clone(),
                checkpoint_votes: Vec::new(),
                transactions: payload(round, seat),
            };
            let event = draft.seal(&signer(seat));
            names.push(*event.reference());
            events.push((key_of(event.reference()), event.bytes().clone()));
        }
        before = names;
    }
    events
}

fn at_rest(seats: u16, rounds: u64) -> Vec<(EventKey, Bytes)> {
    events(seats, rounds, |_, _| Vec::new())
}

fn write(dir: &Path, events: &[(EventKey, Bytes)], segment_bytes: u64) {
    let (mut log, _) = EventLog::open(dir, CHAIN.0, options(segment_bytes)).unwrap();
    for (key, body) in events {
        log.append(*key, body);
        log.commit().unwrap();
    }
}

fn segments(dir: &Path) -> Vec<SegmentFile> {
    SegmentFile::list(dir).unwrap()
}

fn seal_all(dir: &Path) {
    let segments = segments(dir);
    for segment in &segments {
        let last = segment.number == segments.len() as u64;
        let sealing = seal(segment, &CHAIN.0, last, &mut || true).unwrap();
        assert!(matches!(sealing, Sealing::Done { .. }));
    }
}

fn read(dir: &Path) -> Vec<(EventKey, Bytes)> {
    let reader = LogReader::open(dir, CHAIN.0).unwrap();
    reader.replay().unwrap().map(Result::unwrap).collect()
}

fn names(dir: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    names.sort();
    names
}

fn records(events: &[(EventKey, Bytes)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, body) in events {
        encode_record(&mut out, key, body);
    }
    out
}

#[test]
fn a_sealed_log_reads_as_before_and_an_event_at_rest_takes_less_than_a_hundred_bytes() {
    // Some seconds of 61 members and a quarter of an hour of four, each of several frames.
    for (seats, rounds) in [(4, 2_000), (61, 24)] {
        let dir = tempfile::tempdir().unwrap();
        let events = at_rest(seats, rounds);
        write(dir.path(), &events, 2_500_000);
        assert!(segments(dir.path()).len() > 1);
        seal_all(dir.path());
        assert_eq!(read(dir.path()), events);
        let reader = LogReader::open(dir.path(), CHAIN.0).unwrap();
        for (key, body) in events.iter().rev().step_by(97) {
            assert_eq!(reader.get(key).unwrap().as_ref(), Some(body));
        }
        let first = EventKey {
            round: 3,
            creator: 0,
            digest: [0; 32],
        };
        let mut keys: Vec<EventKey> = events.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        let wanted: Vec<_> = keys.iter().filter(|k| (3..=7).contains(&k.round)).collect();
        let found = reader.keys(first, 7, 10_000).unwrap();
        assert_eq!(found.iter().collect::<Vec<_>>(), wanted);
        for limit in [0, 1, 5, found.len() - 1] {
            assert_eq!(reader.keys(first, 7, limit).unwrap(), found[..limit]);
        }
        // Also of all rounds, where later frames are left alone.
        assert_eq!(reader.keys(keys[0], u64::MAX, 9).unwrap(), keys[..9]);
        assert_eq!(reader.keys(keys[0], u64::MAX, usize::MAX).unwrap(), keys);
        let bytes: u64 = segments(dir.path())
            .iter()
            .map(|s| fs::metadata(&s.path).unwrap().len())
            .sum();
        assert_eq!(reader.bytes(), bytes);
        let each = bytes / events.len() as u64;
        assert!(each < 100, "{seats} seats: {each} bytes an event");
        assert!(
            names(dir.path())
                .iter()
                .all(|p| p.extension().unwrap() == "log"),
            "no index and nothing half done is left"
        );
    }
}

#[test]
fn a_stop_at_any_step_leaves_a_log_that_reads_the_same_and_is_sealed_later() {
    let events = events(4, 30, |round, seat| {
        vec![vec![seat as u8; 20_000 + round as usize].into()]
    });
    let mut steps = 0;
    loop {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &events, 1 << 30);
        let [segment] = &segments(dir.path())[..] else {
            panic!("one segment")
        };
        let mut left = steps;
        let sealing = seal(segment, &CHAIN.0, true, &mut || {
            left -= 1;
            left >= 0
        });
        assert_eq!(read(dir.path()), events, "stopped at step {steps}");
        if sealing.unwrap() != Sealing::Left {
            break;
        }
        // A start after that opens the log to write, as if the epoch went on.
        write(dir.path(), &[], 1 << 30);
        seal_all(dir.path());
        assert_eq!(
            read(dir.path()),
            events,
            "sealed after a stop at step {steps}"
        );
        assert_eq!(names(dir.path()).len(), 1);
        steps += 1;
    }
    assert!(steps > 4, "{steps} steps: frames, and the change of files");
}

#[test]
fn a_reader_from_before_reads_on_while_its_log_is_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let events = at_rest(4, 1_000);
    write(dir.path(), &events, 500_000);
    let (log, _) = EventLog::open(dir.path(), CHAIN.0, options(500_000)).unwrap();
    let reader = log.reader();
    let mut replay = reader.replay().unwrap();
    let mut replayed = vec![replay.next().unwrap().unwrap()];
    seal_all(dir.path());
    for (key, body) in events.iter().step_by(41) {
        assert_eq!(reader.get(key).unwrap().as_ref(), Some(body));
    }
    replayed.extend(replay.map(Result::unwrap));
    assert_eq!(replayed, events);
}

#[test]
fn a_log_whose_last_segment_is_sealed_is_written_on_in_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let events = at_rest(4, 40);
    let (first, second) = events.split_at(100);
    write(dir.path(), first, 1 << 20);
    seal_all(dir.path());
    write(dir.path(), second, 1 << 20);
    assert_eq!(segments(dir.path()).len(), 2);
    assert_eq!(read(dir.path()), events);
}

#[test]
fn a_torn_tail_is_left_out_and_a_torn_closed_segment_refused() {
    let dir = tempfile::tempdir().unwrap();
    let events = at_rest(4, 10);
    write(dir.path(), &events, 1 << 20);
    let segment = &segments(dir.path())[0];
    let bytes = fs::read(&segment.path).unwrap();
    fs::write(&segment.path, &bytes[..bytes.len() - 5]).unwrap();
    let refused = seal(segment, &CHAIN.0, false, &mut || true).unwrap_err();
    assert_eq!(refused.code(), "E_STORE_DAMAGED");
    assert_eq!(names(dir.path()).len(), 1, "nothing half done is left");
    seal_all(dir.path());
    assert_eq!(read(dir.path()), events[..events.len() - 1]);
}

#[test]
fn a_flipped_bit_is_not_sealed() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &at_rest(4, 10), 1 << 20);
    let segment = &segments(dir.path())[0];
    let mut bytes = fs::read(&segment.path).unwrap();
    bytes[1_000] ^= 1;
    fs::write(&segment.path, &bytes).unwrap();
    let refused = seal(segment, &CHAIN.0, true, &mut || true).unwrap_err();
    assert_eq!(refused.code(), "E_STORE_DAMAGED");
    assert_eq!(fs::read(&segment.path).unwrap(), bytes);
}

#[test]
fn every_flipped_bit_of_a_sealed_segment_is_found_and_costs_its_frame_only() {
    let dir = tempfile::tempdir().unwrap();
    // Two frames of one event each.
    let events = events(1, 2, |round, _| {
        vec![vec![round as u8; FRAME_BYTES + 10].into()]
    });
    write(dir.path(), &events, 1 << 30);
    seal_all(dir.path());
    let segment = &segments(dir.path())[0];
    let good = fs::read(&segment.path).unwrap();
    let whole = remains(&good).unwrap();
    assert!(whole.gaps.is_empty());
    assert_eq!(whole.tips, [events[1].0]);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(&segment.path, &bad).unwrap();
        let opened = LogReader::open(dir.path(), CHAIN.0);
        let read = opened.and_then(|log| log.replay()?.collect::<Result<Vec<_>, _>>());
        let error = read.expect_err("a flipped bit was not found");
        assert_eq!(error.code(), "E_STORE_DAMAGED", "flip at {at}: {error}");
        let left = remains(&bad).unwrap();
        let lost = whole.records.len() - left.records.len();
        let in_frames = at >= SEALED_HEADER_BYTES && at < good.len() - (KEY_BYTES + 8);
        assert_eq!(lost > FRAME_BYTES, in_frames, "flip at {at}: {lost} lost");
        assert!(lost < 2 * FRAME_BYTES, "flip at {at}: {lost} lost");
        // The checksum of the first bytes counts for itself; whatever else is wrong leaves a gap.
        let in_header = at < SEGMENT_HEADER_BYTES;
        assert_eq!(left.gaps.len(), usize::from(!in_header), "flip at {at}");
    }
}

#[test]
fn a_sealed_log_of_another_network_or_a_newer_form_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &at_rest(4, 3), 1 << 20);
    seal_all(dir.path());
    let code = |chain| LogReader::open(dir.path(), chain).err().unwrap().code();
    assert_eq!(code([8; 32]), "E_WRONG_NETWORK");
    let path = &segments(dir.path())[0].path;
    let mut bytes = fs::read(path).unwrap();
    bytes[8] = 3;
    let crc = crc32c::crc32c(&bytes[..52]);
    bytes[52..56].copy_from_slice(&crc.to_le_bytes());
    fs::write(path, &bytes).unwrap();
    assert_eq!(code(CHAIN.0), "E_NEWER_FORMAT");
}

/// What any file may hold: events, some of which refer to others, and bodies that are none.
fn any_records() -> impl Strategy<Value = Vec<(EventKey, Bytes)>> {
    let named = (
        any::<u64>(),
        any::<u16>(),
        any::<[u8; 32]>(),
        prop::collection::vec(any::<u8>(), 0..200),
    );
    let named = named.prop_map(|(round, creator, digest, body)| {
        let key = EventKey {
            round,
            creator,
            digest,
        };
        (key, Bytes::from(body))
    });
    let known = at_rest(4, 5);
    let event =
        any::<prop::sample::Index>().prop_map(move |at| known[at.index(known.len())].clone());
    prop::collection::vec(prop_oneof![1 => named, 3 => event], 1..40)
}

proptest! {
    #[test]
    fn records_come_back_from_a_frame(events in any_records()) {
        let records = records(&events);
        let (header, packed) = pack(&records, &mut BTreeSet::new()).expect("whole records");
        prop_assert_eq!(FrameHeader::decode(&header.encode()), Some(header));
        prop_assert_eq!(unpack(&header, &packed).unwrap(), records);
        let rounds = events.iter().map(|(key, _)| key.round);
        prop_assert_eq!(header.rounds.0, rounds.clone().min().unwrap());
        prop_assert_eq!(header.rounds.1, rounds.max().unwrap());
    }

    /// Past the checksum, which a stranger's file may have right: nothing panics, and what comes out is records of the size said.
    #[test]
    fn a_frame_of_anything_is_refused_or_is_records(
        content in prop::collection::vec(any::<u8>(), 0..400),
        events in any_records(),
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
        bytes in 0u32..20_000,
    ) {
        let (header, packed) = pack(&records(&events), &mut BTreeSet::new()).expect("whole records");
        let mut changed = zstd::bulk::decompress(&packed, header.bytes as usize).unwrap();
        let at = at.index(changed.len());
        changed[at] = with;
        for (content, bytes) in [(&content, bytes), (&changed, header.bytes), (&changed, bytes)] {
            let packed = zstd::bulk::compress(content, 1).unwrap();
            let header = FrameHeader { bytes, packed_crc: crc32c::crc32c(&packed), ..header };
            if let Ok(records) = unpack(&header, &packed) {
                prop_assert_eq!(records.len(), bytes as usize);
                let mut at = 0;
                while at < records.len() {
                    let (_, body) = record_at(&records, at).expect("a whole record");
                    at += super::record::RECORD_HEADER_BYTES + body.len();
                }
            }
        }
    }

    #[test]
    fn what_is_left_of_any_file_is_told_without_a_panic(
        mut tail in prop::collection::vec(any::<u8>(), 0..300),
        cut in any::<prop::sample::Index>(),
        is_sealed in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &at_rest(4, 3), 1 << 20);
        if is_sealed {
            seal_all(dir.path());
        }
        let path = &segments(dir.path())[0].path;
        let mut file = fs::read(path).unwrap();
        file.truncate(cut.index(file.len()));
        file.append(&mut tail);
        let _ = remains(&file);
        fs::write(path, &file).unwrap();
        let log = LogReader::open(dir.path(), CHAIN.0).and_then(|log| log.replay());
        if let Ok(replay) = log {
            let _ = replay.count();
        }
    }
}

#[test]
fn a_frame_that_would_grow_beyond_what_it_says_is_refused() {
    let packed = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    assert!(packed.len() < 10_000);
    let header = FrameHeader {
        packed_bytes: packed.len() as u32,
        bytes: 1_000,
        rounds: (0, 0),
        packed_crc: crc32c::crc32c(&packed),
    };
    assert_eq!(
        unpack(&header, &packed),
        Err("a frame cannot be decompressed")
    );
    // Nor may it say that it grows beyond any frame.
    let mut encoded = FrameHeader {
        bytes: u32::MAX,
        ..header
    }
    .encode();
    assert_eq!(FrameHeader::decode(&encoded), None);
    encoded[0] ^= 1;
    assert_eq!(FrameHeader::decode(&encoded[..FRAME_HEADER_BYTES]), None);
}
