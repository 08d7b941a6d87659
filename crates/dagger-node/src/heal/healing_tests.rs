//! Whatever bits flip in a log: what is healed is the log as it was, and own events are never made up for.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use proptest::prelude::*;
use shadowgraph::{
    ChainId, Committee, Epoch, EventDraft, EventRef, Member, MemberIndex, Round, SigningKey,
    VerifiedEvent,
};

use super::{Healed, Healing};
use crate::{
    config::Durability,
    error::NodeError,
    store::{Epochs, EventLog, LogReader, Options, key_of},
};

const CHAIN: ChainId = ChainId([7; 32]);
const ROUNDS: u64 = 12;
const RECORD_HEADER_BYTES: usize = 58;

fn key(seat: u16) -> SigningKey {
    SigningKey::from_bytes([u8::try_from(seat).unwrap() + 1; 32])
}

fn committee() -> Committee {
    let member = |seat| Member {
        key: key(seat).public(),
        weight: 1,
    };
    Committee::new(Epoch(0), (0..4).map(member).collect()).unwrap()
}

/// A graph of four members in a causal order; in every round `skips` says whom each does not cite, if anybody.
fn graph(skips: &[u8], payload_bytes: usize) -> Vec<(EventRef, Bytes)> {
    let genesis = |seat| EventRef::genesis(&CHAIN, Epoch(0), MemberIndex(seat));
    let mut before: Vec<EventRef> = (0..4).map(genesis).collect();
    let mut events = Vec::new();
    for round in 1..=ROUNDS {
        let mut names = Vec::new();
        for seat in 0..4u16 {
            let skip = skips[usize::try_from(round).unwrap() * 4 + usize::from(seat)];
            // Nothing comes before the first round but each member's own beginning.
            let cited = |parent: &&EventRef| {
                parent.creator.0 == seat || (round > 1 && parent.creator.0 != u16::from(skip))
            };
            let draft = EventDraft {
                chain_id: CHAIN,
                epoch: Epoch(0),
                round: Round(round),
                creator: MemberIndex(seat),
                timestamp_ms: 1_000 + round,
                parents: before.iter().filter(cited).copied().collect(),
                checkpoint_votes: Vec::new(),
                transactions: vec![Bytes::from(vec![skip + 1; payload_bytes + 1])],
            };
            let event = draft.seal(&key(seat));
            names.push(*event.reference());
            events.push((*event.reference(), event.bytes().clone()));
        }
        before = names;
    }
    events
}

fn options() -> Options {
    Options {
        segment_bytes: 4_000,
        durability: Durability::Os,
        discard: false,
    }
}

fn write(dir: &Path, events: &[(EventRef, Bytes)]) {
    let (mut log, _) = EventLog::open(dir, CHAIN.0, options()).unwrap();
    for (name, bytes) in events {
        log.append(key_of(name), bytes);
        log.commit().unwrap();
    }
}

fn read(dir: &Path) -> Result<Vec<VerifiedEvent>, NodeError> {
    let (log, _) = EventLog::open(dir, CHAIN.0, options())?;
    log.replay()?
        .map(|record| record.map(|(_, bytes)| VerifiedEvent::from_own_log(bytes).unwrap()))
        .collect()
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|p| p.extension().is_some_and(|e| e == extension))
        .collect();
    files.sort();
    files
}

/// Where each event stands: file, offset, length with its header.
fn places(dir: &Path, events: &[(EventRef, Bytes)]) -> Vec<(usize, usize, usize)> {
    let files = files(dir, "log");
    let contents: Vec<_> = files.iter().map(|f| fs::read(f).unwrap()).collect();
    let find = |bytes: &Bytes| {
        let in_file = |content: &Vec<u8>| {
            let mut windows = content.windows(bytes.len());
            windows.position(|w| w == &bytes[..])
        };
        let found = contents
            .iter()
            .enumerate()
            .find_map(|(file, content)| Some((file, in_file(content)?)));
        let (file, body) = found.unwrap();
        (
            file,
            body - RECORD_HEADER_BYTES,
            bytes.len() + RECORD_HEADER_BYTES,
        )
    };
    events.iter().map(|(_, bytes)| find(bytes)).collect()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1 << (at % 8);
    fs::write(path, bytes).unwrap();
}

/// Heals with peers that hold `events`.
fn heal(
    dir: &Path,
    events: &[(EventRef, Bytes)],
    own: Option<MemberIndex>,
) -> Result<Healed, NodeError> {
    let peers: BTreeMap<EventRef, Bytes> = events.iter().cloned().collect();
    let mut healing = Healing::examine(dir, CHAIN, committee(), own)?;
    let mut asked = BTreeSet::new();
    loop {
        let wanted = healing.wanted(&asked, 3);
        if wanted.is_empty() {
            break;
        }
        asked.extend(wanted.iter().copied());
        let given = wanted.iter().filter_map(|name| peers.get(name)).cloned();
        healing.take(given.collect());
    }
    assert_eq!(healing.lacks(), 0, "the peers hold everything");
    healing.finish()
}

/// What is there is in causal order, and what is missing nothing refers to.
fn assert_causal(log: &[VerifiedEvent]) {
    let mut held = HashSet::new();
    for event in log {
        let parents = event.parents().iter().filter(|p| p.round.0 > 0);
        for parent in parents {
            assert!(
                held.contains(&parent.digest),
                "{:?} before {parent:?}",
                event.reference()
            );
        }
        assert!(
            held.insert(*event.digest()),
            "twice: {:?}",
            event.reference()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bits_are_healed_or_refused(
        skips in prop::collection::vec(0u8..6, usize::try_from((ROUNDS + 1) * 4).unwrap()),
        payload_bytes in 0usize..300,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..4),
        keeps_indexes in any::<bool>(),
        has_seat in any::<bool>(),
    ) {
        let own = has_seat.then_some(MemberIndex(2));
        let events = graph(&skips, payload_bytes);
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &events);
        let (logs, places) = (files(dir.path(), "log"), places(dir.path(), &events));
        if !keeps_indexes {
            files(dir.path(), "idx").iter().for_each(|f| fs::remove_file(f).unwrap());
        }
        let (mut own_hit, mut header_hit) = (false, false);
        for (file, at) in flips {
            let file = file.index(logs.len());
            let at = at.index(fs::metadata(&logs[file]).unwrap().len() as usize);
            flip(&logs[file], at);
            let hit = places.iter().position(|(f, start, length)| *f == file && (*start..start + length).contains(&at));
            if let Some(hit) = hit {
                own_hit |= Some(events[hit].0.creator) == own;
                header_hit |= at < places[hit].1 + RECORD_HEADER_BYTES;
            }
        }
        let before = read(dir.path());
        match heal(dir.path(), &events, own) {
            Err(error) => {
                prop_assert_eq!(error.code(), "E_OWN_EVENT_DAMAGED");
                prop_assert!(own.is_some() && (own_hit || header_hit), "refused without need");
                prop_assert!(before.is_err());
            }
            Ok(healed) => {
                // Two flips may undo each other.
                prop_assert!(!own_hit || before.is_ok(), "an own event was made up for");
                let after = read(dir.path()).unwrap();
                assert_causal(&after);
                let there: HashSet<_> = after.iter().map(|e| *e.reference()).collect();
                let missing: Vec<_> = events.iter().filter(|(name, _)| !there.contains(name)).collect();
                prop_assert!(header_hit || missing.is_empty(), "{missing:?} with {healed:?}");
                prop_assert!(missing.iter().all(|(name, _)| Some(name.creator) != own));
            }
        }
    }
}

#[test]
fn a_damaged_body_is_healed_in_its_place() {
    let events = graph(&[9; 64], 100);
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &events);
    let good: Vec<_> = files(dir.path(), "log")
        .iter()
        .map(|f| fs::read(f).unwrap())
        .collect();
    assert!(good.len() > 4);
    let places = places(dir.path(), &events);
    // One of a closed segment, and one of the newest.
    let newest = places.iter().rposition(|p| p.0 == good.len() - 1).unwrap();
    for hit in [5, newest] {
        let (file, start, length) = places[hit];
        flip(&files(dir.path(), "log")[file], start + length / 2);
    }
    assert_eq!(read(dir.path()).unwrap_err().code(), "E_STORE_DAMAGED");
    let healed = heal(dir.path(), &events, None).unwrap();
    let (events, dropped, segments) = (2, 0, 2);
    assert_eq!(
        healed,
        Healed {
            events,
            dropped,
            segments
        }
    );
    let after = files(dir.path(), "log")
        .iter()
        .map(|f| fs::read(f).unwrap())
        .collect::<Vec<_>>();
    assert!(after == good, "not the bytes that were there");
}

#[test]
fn zeros_in_the_newest_segment_do_not_cut_off_what_stands_behind_them() {
    let events = graph(&[9; 64], 100);
    // Three whole records, the segment's header with the first record, and two blocks at once.
    for blocks in [&[(8, 11)][..], &[(0, 1)], &[(4, 5), (13, 15)]] {
        let dir = tempfile::tempdir().unwrap();
        let one = Options {
            segment_bytes: 1 << 20,
            ..options()
        };
        let (mut log, _) = EventLog::open(dir.path(), CHAIN.0, one).unwrap();
        for (name, bytes) in &events {
            log.append(key_of(name), bytes);
        }
        log.commit().unwrap();
        drop(log);
        let path = &files(dir.path(), "log")[0];
        let good = fs::read(path).unwrap();
        let places = places(dir.path(), &events);
        let mut bad = good.clone();
        for (first, end) in blocks {
            let start = if *first == 0 { 0 } else { places[*first].1 };
            let last = places[end - 1];
            bad[start..last.1 + last.2].fill(0);
        }
        fs::write(path, &bad).unwrap();
        assert_eq!(read(dir.path()).unwrap_err().code(), "E_STORE_DAMAGED");
        let own = Some(events[blocks[0].0].0.creator);
        let refused = heal(dir.path(), &events, own).unwrap_err();
        assert_eq!(refused.code(), "E_OWN_EVENT_DAMAGED");
        heal(dir.path(), &events, None).unwrap();
        let after = read(dir.path()).unwrap();
        assert_causal(&after);
        assert_eq!(after.len(), events.len());
    }
}

#[test]
fn a_segment_that_is_gone_comes_back() {
    let events = graph(&[9; 64], 100);
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &events);
    let gone = &files(dir.path(), "log")[2];
    fs::remove_file(gone).unwrap();
    fs::remove_file(gone.with_extension("idx")).unwrap();
    assert_eq!(read(dir.path()).unwrap_err().code(), "E_STORE_DAMAGED");
    // It held events of every member.
    let own = Some(MemberIndex(1));
    let refused = heal(dir.path(), &events, own).unwrap_err();
    assert_eq!(refused.code(), "E_OWN_EVENT_DAMAGED");
    assert!(refused.to_string().contains("consensus key"), "{refused}");
    heal(dir.path(), &events, None).unwrap();
    let after = read(dir.path()).unwrap();
    assert_causal(&after);
    assert_eq!(after.len(), events.len());
}

#[test]
fn what_is_in_the_payload_of_a_lost_event_is_no_event() {
    // Whoever writes a record into a transaction must not get it into a log.
    let mut events = graph(&[9; 64], 10);
    let forged = {
        let mut draft_bytes = events[9].1.to_vec();
        let last = draft_bytes.len() - 1;
        draft_bytes[last] ^= 1;
        draft_bytes
    };
    let inner = tempfile::tempdir().unwrap();
    write(inner.path(), &[(events[9].0, forged.into())]);
    let record = fs::read(&files(inner.path(), "log")[0]).unwrap()[56..].to_vec();
    let (name, bytes) = events.pop().unwrap();
    let parents = VerifiedEvent::from_own_log(bytes)
        .unwrap()
        .parents()
        .to_vec();
    let draft = EventDraft {
        chain_id: CHAIN,
        epoch: Epoch(0),
        round: name.round,
        creator: name.creator,
        timestamp_ms: 2_000,
        parents,
        checkpoint_votes: Vec::new(),
        transactions: vec![record.into()],
    };
    let carrier = draft.seal(&key(name.creator.0));
    events.remove(9);
    // It comes before what would be cited, so that nothing but the forged record looks like event 9.
    events.push((*carrier.reference(), carrier.bytes().clone()));
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &events);
    let newest = files(dir.path(), "log").pop().unwrap();
    let (_, start, _) = *places(dir.path(), &events).last().unwrap();
    flip(&newest, start + 20);
    let mut healing = Healing::examine(dir.path(), CHAIN, committee(), None).unwrap();
    healing.take(Vec::new());
    assert!(!healing.is_sound() && healing.has_unknown());
    healing.finish().unwrap();
    assert_eq!(read(dir.path()).unwrap().len(), events.len() - 1);
}

/// Writes the log of the first epoch below `dir` and seals it; returns where it is.
fn write_sealed(dir: &Path, events: &[(EventRef, Bytes)]) -> PathBuf {
    let epochs = Epochs::open(dir, CHAIN.0, options()).unwrap();
    let log = epochs.path(Epoch(0));
    write(&log, events);
    let plain = files(&log, "log").len() as u64;
    let report = epochs.seal(Epoch(0), &mut || true).unwrap();
    assert_eq!(report.segments, plain);
    log
}

fn read_ended(log: &Path) -> Result<Vec<VerifiedEvent>, NodeError> {
    let events = LogReader::open(log, CHAIN.0)?.replay()?;
    events
        .map(|record| record.map(|(_, bytes)| VerifiedEvent::from_own_log(bytes).unwrap()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// One flip costs a frame, here a whole segment, and all of it comes back: by those that refer to what is lost, and by the
    /// names at the segment's end. More of them may take these too, and leave a log that is causal.
    #[test]
    fn flipped_bits_of_a_sealed_log_are_healed(
        skips in prop::collection::vec(0u8..6, usize::try_from((ROUNDS + 1) * 4).unwrap()),
        payload_bytes in 0usize..300,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..4),
    ) {
        let events = graph(&skips, payload_bytes);
        let dir = tempfile::tempdir().unwrap();
        let log = write_sealed(dir.path(), &events);
        let segments = files(&log, "log");
        for (segment, at) in &flips {
            let segment = &segments[segment.index(segments.len())];
            flip(segment, at.index(fs::metadata(segment).unwrap().len() as usize));
        }
        prop_assert!(flips.len() > 1 || read_ended(&log).is_err());
        heal(&log, &events, None).unwrap();
        let after = read_ended(&log).unwrap();
        assert_causal(&after);
        let there: HashSet<_> = after.iter().map(|event| *event.reference()).collect();
        let missing = events.iter().filter(|(name, _)| !there.contains(name));
        prop_assert!(flips.len() > 1 || missing.count() == 0);
        // What was healed is plain, and can be sealed again.
        let epochs = Epochs::open(dir.path(), CHAIN.0, options()).unwrap();
        epochs.seal(Epoch(0), &mut || true).unwrap();
        let sealed: Vec<_> = read_ended(&log).unwrap().iter().map(|e| *e.reference()).collect();
        prop_assert_eq!(sealed, after.iter().map(|e| *e.reference()).collect::<Vec<_>>());
    }
}

#[test]
fn a_sealed_log_without_its_first_blocks_is_healed() {
    let events = graph(&[9; 64], 3_000);
    let dir = tempfile::tempdir().unwrap();
    let log = write_sealed(dir.path(), &events);
    for segment in files(&log, "log") {
        let mut bytes = fs::read(&segment).unwrap();
        let lost = bytes.len().min(100);
        bytes[..lost].fill(0);
        fs::write(&segment, bytes).unwrap();
    }
    let healed = heal(&log, &events, None).unwrap();
    assert!(healed.dropped == 0 && healed.segments > 1, "{healed:?}");
    assert_causal(&read_ended(&log).unwrap());
}
