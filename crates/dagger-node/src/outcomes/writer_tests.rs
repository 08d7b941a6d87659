//! The index as a node uses it: behind execution, across kills, on a disk that fails it.

use std::{fs, path::Path};

use dagger_ledger::Digest;

use super::{
    Note, OutcomeIndex,
    samples::{History, digest},
};
use crate::config::{NodeConfig, Outcomes};

fn config(dir: &Path) -> NodeConfig {
    NodeConfig::new(dir)
}

fn start(config: &NodeConfig) -> OutcomeIndex {
    OutcomeIndex::start(config, std::sync::Arc::default())
}

fn holds(index: &OutcomeIndex, transaction: &Digest) -> bool {
    let index = index.read().expect("it is open");
    index.find(transaction).unwrap().is_some()
}

/// Notes commits of two transactions each.
fn execute(index: &OutcomeIndex, history: &mut History, from: u64, to: u64) {
    for commit in from..=to {
        index.note(history.commit(commit, 2));
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn overwrite(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            overwrite(&path);
        } else {
            fs::write(&path, [0xA5; 300]).unwrap();
        }
    }
}

#[test]
fn more_than_fits_the_queue_is_written_in_order_and_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut history = History::default();
    let index = start(&config(dir.path()));
    index.note(Note::From(0));
    execute(&index, &mut history, 1, 1_000);
    index.settle(1_000);
    assert_eq!(index.reached(), 1_000);
    assert!(holds(&index, &digest(1_000, 1)));
    execute(&index, &mut history, 1_001, 1_010);
    index.close();
    let index = start(&config(dir.path()));
    assert!(holds(&index, &digest(1, 0)) && holds(&index, &digest(1_010, 1)));
    let status = index.status().unwrap();
    assert_eq!((status.from_commit, status.transactions), (1, 2_020));
    index.close();
}

#[test]
fn a_kill_between_execution_and_index_leaves_no_hole_and_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    let index = start(&config(&whole));
    let mut history = History::default();
    index.note(Note::From(0));
    execute(&index, &mut history, 1, 300);
    // What a snapshot waits for.
    index.settle(300);
    execute(&index, &mut history, 301, 400);
    // The disk as a kill at this moment leaves it: some of the last hundred are there, or none.
    copy(&whole.join("outcomes"), &killed.join("outcomes"));
    index.close();
    let index = start(&config(&killed));
    let mut again = History::default();
    (1..=300).for_each(|commit| drop(again.commit(commit, 2)));
    index.note(Note::From(300));
    execute(&index, &mut again, 301, 420);
    index.settle(420);
    let status = index.status().unwrap();
    assert_eq!((status.from_commit, status.transactions), (1, 840));
    assert!((1..=420).all(|commit| holds(&index, &digest(commit, 1))));
    index.close();
}

#[test]
fn a_damaged_index_is_set_aside_and_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut history = History::default();
    let index = start(&config(dir.path()));
    execute(&index, &mut history, 1, 50);
    index.close();
    overwrite(&dir.path().join("outcomes"));
    let index = start(&config(dir.path()));
    index.note(Note::From(30));
    let mut again = History::default();
    (1..=30).for_each(|commit| drop(again.commit(commit, 2)));
    execute(&index, &mut again, 31, 60);
    index.settle(60);
    assert_eq!(index.status().unwrap().from_commit, 31);
    assert!(holds(&index, &digest(31, 0)) && !holds(&index, &digest(30, 0)));
    assert!(dir.path().join("outcomes.damaged").is_dir());
    index.close();
}

#[test]
fn an_index_that_cannot_be_made_is_done_without() {
    let dir = tempfile::tempdir().unwrap();
    // Neither can it be made there, nor can what is there be moved away.
    let config = config(&dir.path().join("file"));
    fs::write(dir.path().join("file"), "no directory").unwrap();
    let problems = std::sync::Arc::default();
    let index = OutcomeIndex::start(&config, std::sync::Arc::clone(&problems));
    execute(&index, &mut History::default(), 1, 1_000);
    index.settle(1_000);
    assert_eq!(index.reached(), u64::MAX);
    assert!(index.read().is_none() && index.status().is_none());
    let problems = problems.lock().unwrap();
    assert!(problems["E_OUTCOME_INDEX"].contains("cannot be used"));
    drop(problems);
    index.close();
}

#[test]
fn none_is_kept_where_none_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.store.outcomes = Outcomes::Newest(0);
    let index = start(&config);
    execute(&index, &mut History::default(), 1, 1_000);
    index.settle(1_000);
    assert!(index.read().is_none());
    index.close();
    assert!(!dir.path().join("outcomes").exists());
}

const SMALL_DISK: &str = "DAGGER_TEST_SMALL_DISK";

/// Not a test of its own: what `a_full_disk_is_waited_for` runs on a file system of its own.
#[test]
fn on_a_small_disk() {
    let Some(dir) = std::env::var_os(SMALL_DISK) else {
        return;
    };
    let dir = Path::new(&dir);
    let problems = std::sync::Arc::default();
    let index = OutcomeIndex::start(&config(dir), std::sync::Arc::clone(&problems));
    let is_waiting = || problems.lock().unwrap().contains_key("E_OUTCOME_INDEX");
    let mut history = History::default();
    execute(&index, &mut history, 1, 10);
    index.settle(10);
    let filler = fs::write(dir.join("filler"), vec![1; 8 << 20]);
    assert!(filler.is_err(), "the disk is not small");
    // No more than the queue takes: nobody may wait for ever in a test.
    for commit in 11..=210 {
        index.note(history.commit(commit, 20));
    }
    while !is_waiting() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    fs::remove_file(dir.join("filler")).unwrap();
    index.settle(210);
    assert!(!is_waiting());
    let status = index.status().unwrap();
    assert_eq!((status.from_commit, status.transactions), (1, 4_020));
    assert!((11..=210).all(|commit| holds(&index, &digest(commit, 19))));
    // Neither does a disk that stays full keep the node from stopping.
    fs::write(dir.join("filler"), vec![1; 8 << 20]).unwrap_err();
    for commit in 211..=330 {
        index.note(history.commit(commit, 20));
    }
    while !is_waiting() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    index.stop();
    // More than the queue takes.
    for commit in 331..=900 {
        index.note(history.commit(commit, 20));
    }
    index.close();
    assert!(!dir.with_extension("damaged").exists());
}

#[test]
fn a_full_disk_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=4m none "$0" && exec "$1" --exact outcomes::writer_tests::on_a_small_disk --nocapture"#;
    let output = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .env(SMALL_DISK, dir.path())
        .output()
        .expect("`unshare` of util-linux");
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("Operation not permitted") || text.contains("permission denied") {
        eprintln!("not tried: no file system can be mounted here: {text}");
        return;
    }
    assert!(output.status.success(), "{text}");
}
