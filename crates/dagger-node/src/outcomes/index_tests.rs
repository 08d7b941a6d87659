use dagger_ledger::OutcomeProof;

use super::*;
use crate::outcomes::{
    older::{Joined, Older},
    samples::{History, digest},
};

/// Small enough to fill some pages, and to have more than one transaction in a bucket.
const SMALL: Cut = Cut {
    page: 32,
    bucket_bits: 2,
};

fn open(dir: &tempfile::TempDir) -> (Index, Mark) {
    Index::open_with(&dir.path().join("outcomes"), SMALL).expect("it opens")
}

/// Whether the transaction is there and its proof leads to the first certificate after it.
fn is_proven(index: &Index, transaction: &Digest) -> bool {
    let Some(found) = index.find(transaction).unwrap() else {
        return false;
    };
    let link = found.head.link;
    let Some(certificate) = index.certificate(link.commit).unwrap() else {
        return false;
    };
    let until = certificate.checkpoint.commit.0;
    let later = index.links(link.commit, until).unwrap();
    let proof = OutcomeProof::new(
        found.head.previous,
        (link.commit, link.time_ms),
        &found.outcomes,
        found.position,
        later,
    );
    let root = Digest(certificate.checkpoint.outcomes_root.0);
    proof.is_some_and(|proof| proof.verify(&root).is_ok() && proof.outcome.digest == *transaction)
}

/// Commits `from..=to` of three transactions each, every fourth one certified.
fn some(history: &mut History, from: u64, to: u64) -> Vec<Note> {
    let mut notes = Vec::new();
    for commit in from..=to {
        notes.push(history.commit(commit, 3));
        if commit % 4 == 0 {
            notes.push(history.certificate(commit));
        }
    }
    notes
}

#[test]
fn what_was_applied_is_found_and_proven_with_how_it_came_about() {
    let dir = tempfile::tempdir().unwrap();
    let (index, mark) = open(&dir);
    let mut history = History::default();
    let mut notes = vec![Note::From(0)];
    notes.extend(some(&mut history, 1, 2));
    let first = index.apply(mark, &notes).unwrap();
    assert!(!is_proven(&index, &digest(1, 1)), "nothing is certified");
    assert!(index.find(&digest(1, 1)).unwrap().is_some());
    let notes = some(&mut history, 3, 9);
    let mark = index.apply(first, &notes).unwrap();
    for commit in 1..=8 {
        assert!((0..3).all(|n| is_proven(&index, &digest(commit, n))));
    }
    assert!(!is_proven(&index, &digest(9, 0)));
    assert_eq!((mark.applied, mark.transactions), (9, 27));
    assert_eq!(mark.known_from(), 1);
    let found = index.find(&digest(7, 2)).unwrap().unwrap();
    let stage = found.way.commit_stage(&found.head.link);
    assert_eq!((stage.index, stage.time_ms, stage.at_ms), (7, 70, 9));
    let Note::Executed(made) = &notes[notes.len() - 4] else {
        panic!("commit 7");
    };
    assert_eq!(stage, *made.stage);
    assert_eq!(found.way.event_stage(0), Some((*made.events[0]).clone()));
    assert_eq!(found.way.event_stage(2), Some((*made.events[2]).clone()));
    assert_eq!(found.way.event_stage(3), None);
    assert!(index.find(&Digest([9; 32])).unwrap().is_none());
}

#[test]
fn the_first_execution_counts_and_equal_beginnings_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (index, mark) = open(&dir);
    let mut history = History::default();
    let (one, mut like_one) = (digest(1, 0), digest(1, 0));
    like_one.0[31] ^= 1;
    let notes = [
        history.commit_of(1, &[one]),
        history.commit_of(2, &[like_one, one]),
    ];
    index.apply(mark, &notes).unwrap();
    let commit_of = |digest: &Digest| index.find(digest).unwrap().unwrap().head.link.commit;
    assert_eq!((commit_of(&one), commit_of(&like_one)), (1, 2));
}

#[test]
fn what_a_restart_executes_again_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut history = History::default();
    let (index, mark) = open(&dir);
    index.apply(mark, &some(&mut history, 1, 10)).unwrap();
    drop(index);
    // The snapshot that the restart begins with is of commit 4.
    let mut again = History::default();
    some(&mut again, 1, 4);
    let mut notes = vec![Note::From(4)];
    notes.extend(some(&mut again, 5, 12));
    let (index, mark) = open(&dir);
    // A second kill may come in the middle of that.
    let half = index.apply(mark, &notes[..5]).unwrap();
    assert_eq!((half.applied, half.transactions), (10, 30));
    drop(index);
    let (index, mark) = open(&dir);
    let mark = index.apply(mark, &notes).unwrap();
    assert_eq!((mark.applied, mark.transactions), (12, 36));
    assert_eq!(mark.known_from(), 1);
    assert_eq!(index.commits.iter().count(), 12);
    let places = index
        .places
        .iter()
        .map(|guard| guard.value().unwrap().len());
    let unwritten = index.page.lock().unwrap().len();
    assert_eq!(places.sum::<usize>() / 12 + unwritten, 36);
    assert!((1..=12).all(|commit| (0..3).all(|n| is_proven(&index, &digest(commit, n)))));
}

#[test]
fn a_jump_is_told_and_what_was_before_it_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (index, mark) = open(&dir);
    let mut history = History::default();
    let notes = some(&mut history, 1, 5);
    let mark = index.apply(mark, &notes).unwrap();
    // Trailing commits without transactions are no hole.
    let mark = index.apply(mark, &[Note::Empty(8), Note::From(8)]).unwrap();
    assert_eq!(mark.known_from(), 1);
    some(&mut history, 9, 100);
    let mut notes = vec![Note::From(100)];
    notes.extend(some(&mut history, 101, 104));
    let mark = index.apply(mark, &notes).unwrap();
    assert_eq!((mark.known_from(), mark.applied), (101, 104));
    assert!(is_proven(&index, &digest(102, 0)));
    assert!(is_proven(&index, &digest(4, 0)));
    // Its checkpoint was skipped, and the links up to the next one too.
    assert!(index.find(&digest(5, 0)).unwrap().is_some());
    assert!(!is_proven(&index, &digest(5, 0)));
}

#[test]
fn the_oldest_go_with_their_places_and_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let (index, mark) = open(&dir);
    let mut history = History::default();
    let notes = some(&mut history, 1, 100);
    let mark = index.apply(mark, &notes).unwrap();
    let mark = index.prune(mark, 300).unwrap();
    assert_eq!(mark.known_from(), 1);
    let mark = index.prune(mark, 60).unwrap();
    assert_eq!((mark.known_from(), mark.transactions), (81, 60));
    assert!(index.find(&digest(80, 2)).unwrap().is_none());
    assert!(is_proven(&index, &digest(81, 0)));
    assert_eq!(
        index.certificate(0).unwrap().unwrap().checkpoint.commit.0,
        84
    );
    // Places go when their tables are rewritten.
    let places = || index.places.iter().count();
    let before = places();
    index.places.rotate_memtable_and_wait().unwrap();
    index.places.major_compact().unwrap();
    assert!((1..before / 3).contains(&places()));
    assert!((81..=100).all(|commit| index.find(&digest(commit, 2)).unwrap().is_some()));
    drop(index);
    let (index, mark) = open(&dir);
    assert_eq!(mark.known_from(), 81);
    // Nothing that follows depends on what is gone.
    let notes = some(&mut history, 101, 104);
    let mark = index.prune(index.apply(mark, &notes).unwrap(), 0).unwrap();
    assert_eq!((mark.known_from(), mark.transactions), (105, 0));
    assert_eq!(index.commits.iter().count(), 0);
}

#[test]
fn few_are_taken_out_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (index, mark) = open(&dir);
    let mut history = History::default();
    let all = PRUNED_MAX as u64 + 500;
    let notes: Vec<_> = (1..=all).map(|commit| history.commit(commit, 1)).collect();
    let mark = index.apply(mark, &notes).unwrap();
    let mark = index.prune(mark, 10).unwrap();
    assert_eq!(mark.transactions, 500);
    let mark = index.prune(mark, 10).unwrap();
    assert_eq!((mark.transactions, mark.known_from()), (10, all - 9));
}

#[test]
fn a_newer_form_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let (index, mark) = open(&dir);
    let newer = Mark {
        format: FORMAT + 1,
        ..mark
    };
    index.marks.insert(MARK, encode(&newer)).unwrap();
    drop(index);
    let opened = Index::open(&dir.path().join("outcomes")).map(|_| ());
    assert!(matches!(opened, Err(IndexError::Format { found: 2 })));
}

/// What a node at full load writes: 100 transactions in each commit, eight in each event.
#[test]
#[ignore = "a measurement: run it alone, in release"]
fn what_a_transaction_costs() {
    use nix::sys::resource::{UsageWho, getrusage};
    const COMMITS: u64 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("outcomes");
    let (index, mut mark) = Index::open(&path).unwrap();
    let mut history = History::default();
    let cpu_us = |who| {
        let usage = getrusage(who).unwrap();
        let times = [usage.user_time(), usage.system_time()];
        let us = times.map(|t| t.tv_sec() * 1_000_000 + t.tv_usec());
        us.iter().sum::<i64>()
    };
    // That of this thread while it writes, and all of fjall's own.
    let others_us = || cpu_us(UsageWho::RUSAGE_SELF) - cpu_us(UsageWho::RUSAGE_THREAD);
    let mut spent_us = -others_us();
    for group in 0..COMMITS / 10 {
        let commits = 1..=10;
        let notes: Vec<_> = commits
            .map(|n| history.commit(group * 10 + n, 100))
            .collect();
        let before = cpu_us(UsageWho::RUSAGE_THREAD);
        mark = index.apply(mark, &notes).unwrap();
        mark = index.prune(mark, 1_000_000).unwrap();
        spent_us += cpu_us(UsageWho::RUSAGE_THREAD) - before;
    }
    spent_us += others_us();
    let before = std::time::Instant::now();
    for commit in COMMITS - 1_000..COMMITS {
        assert!(index.find(&digest(commit, 50)).unwrap().is_some());
    }
    let found_us = before.elapsed().as_micros() / 1_000;
    drop(index);
    println!(
        "{:.2} us of CPU a transaction, {} bytes for {} transactions, {found_us} us to find one",
        spent_us as f64 / (COMMITS * 100) as f64,
        crate::doctor::bytes_in(&path),
        mark.transactions,
    );
}

#[test]
fn what_is_older_counts_once_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (index, mark) = open(&dir);
    let mut history = History::default();
    let older = some(&mut history, 1, 40);
    let mut newer = vec![Note::From(40)];
    newer.extend(some(&mut history, 41, 60));
    let mark = index.apply(mark, &newer).unwrap();
    assert_eq!((mark.known_from(), mark.lacks()), (41, Some(40)));
    let mut part = Older::new(&index);
    index.write_older(&mut part, &older[..9]).unwrap();
    drop(index);

    // A start later none of it counts, and it is written again from the beginning.
    let (index, mark) = open(&dir);
    assert_eq!((mark.known_from(), mark.transactions), (41, 60));
    let mut part = Older::new(&index);
    for notes in older.chunks(7) {
        index.write_older(&mut part, notes).unwrap();
    }
    assert!(part.is_certified());
    let joined = index.finish_older(part, 1, 40).unwrap();
    let stale = Joined {
        identity: joined.identity + 1,
        ..joined
    };
    let not_yet = index.apply(mark, &[Note::Older(stale)]).unwrap();
    assert_eq!(not_yet, mark, "it was of an index that is gone");
    let mark = index.apply(mark, &[Note::Older(joined)]).unwrap();
    assert_eq!((mark.known_from(), mark.lacks()), (1, None));
    assert_eq!(mark.transactions, 180);
    let all_are_proven = |index: &Index| {
        let of = |commit| (0..3).all(|n| is_proven(index, &digest(commit, n)));
        (1..=60).all(of)
    };
    assert!(all_are_proven(&index));
    drop(index);
    let (index, again) = open(&dir);
    assert_eq!(again, mark);
    assert!(all_are_proven(&index));

    // The oldest go first, as if all had come in its time.
    let mark = index.prune(mark, 100).unwrap();
    assert_eq!((mark.known_from(), mark.transactions), (28, 99));
    assert!(index.find(&digest(27, 0)).unwrap().is_none());
    assert!(is_proven(&index, &digest(28, 0)) && is_proven(&index, &digest(60, 2)));
}
