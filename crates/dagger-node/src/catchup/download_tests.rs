//! Chunks from several peers, some of which fail or lie, and an attempt that goes on where another one ended.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    catchup_tests::manifest_of,
    download::{Download, Peer, download},
    wire::{Answer, CHUNK_BYTES, Manifest, Request, WireError},
};
use crate::store::Snapshots;

const CHUNKS: usize = 12;

/// All chunks differ, and the last one is short.
fn chunk(index: u32) -> Vec<u8> {
    let is_last = index as usize == CHUNKS - 1;
    let bytes = if is_last { 3 } else { CHUNK_BYTES as usize };
    vec![index as u8 + 1; bytes]
}

fn body() -> Vec<u8> {
    (0..CHUNKS as u32).flat_map(chunk).collect()
}

#[derive(Clone, Copy, PartialEq)]
enum Conduct {
    Honest,
    /// Gives so many chunks and is gone.
    Leaves(usize),
    /// Changes a byte of every chunk.
    Forges,
    /// Gives another chunk than the one asked for.
    Confuses,
}

struct Player {
    name: &'static str,
    conduct: Conduct,
    asked: AtomicUsize,
    given: Mutex<BTreeSet<u32>>,
}

fn player(name: &'static str, conduct: Conduct) -> Player {
    Player {
        name,
        conduct,
        asked: AtomicUsize::new(0),
        given: Mutex::default(),
    }
}

impl Peer for Player {
    fn name(&self) -> &str {
        self.name
    }

    async fn ask(&self, request: &Request) -> Result<Answer, WireError> {
        let Request::Chunk { epoch: 1, index } = *request else {
            panic!("only chunks are asked for: {request:?}");
        };
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        let bytes = match self.conduct {
            Conduct::Honest => chunk(index),
            Conduct::Leaves(after) if asked >= after => {
                return Err(WireError::Malformed);
            }
            Conduct::Leaves(_) => chunk(index),
            Conduct::Forges => {
                let mut bytes = chunk(index);
                bytes[1] ^= 1;
                bytes
            }
            Conduct::Confuses => chunk((index + 1) % CHUNKS as u32),
        };
        self.given.lock().unwrap().insert(index);
        Ok(Answer::Chunk(Some(bytes)))
    }
}

async fn attempt(file: &Path, players: &[Player]) -> Download {
    let manifest: Manifest = manifest_of(&body());
    assert_eq!(manifest.chunks.len(), CHUNKS);
    download(file.to_owned(), &manifest, players).await.unwrap()
}

fn part(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("incoming.part")
}

fn holds_the_body(file: &Path) -> bool {
    fs::read(file).unwrap()[usize::try_from(Snapshots::body_offset()).unwrap()..] == body()
}

#[tokio::test]
async fn all_peers_share_the_work_and_one_that_leaves_is_made_up_for() {
    let dir = tempfile::tempdir().unwrap();
    let players = [
        player("a", Conduct::Honest),
        player("b", Conduct::Honest),
        player("c", Conduct::Leaves(1)),
    ];
    let download = attempt(&part(&dir), &players).await;
    assert!(download.whole && download.blamed.is_empty());
    assert!(holds_the_body(&part(&dir)));
    for player in &players {
        assert!(!player.given.lock().unwrap().is_empty(), "{}", player.name);
    }
    let asked: usize = players
        .iter()
        .map(|p| p.asked.load(Ordering::Relaxed))
        .sum();
    // The peer that left was asked for one chunk more, or two at once, in vain.
    assert!(asked <= CHUNKS + 2, "{asked}");
}

#[tokio::test]
async fn a_forged_chunk_is_refused_and_its_giver_blamed_and_left() {
    let dir = tempfile::tempdir().unwrap();
    let players = [
        player("liar", Conduct::Forges),
        player("muddler", Conduct::Confuses),
        player("honest", Conduct::Honest),
    ];
    let download = attempt(&part(&dir), &players).await;
    assert!(download.whole);
    let blamed: Vec<_> = download.blamed.iter().map(String::as_str).collect();
    assert_eq!(blamed, ["liar", "muddler"]);
    assert!(holds_the_body(&part(&dir)));
    // Two requests at a time: none follows the first false answer.
    for false_one in &players[..2] {
        assert!(false_one.asked.load(Ordering::Relaxed) <= 2);
    }
}

#[tokio::test]
async fn liars_alone_end_the_attempt_without_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let players = [player("liar", Conduct::Forges)];
    let download = attempt(&part(&dir), &players).await;
    assert!(!download.whole);
    assert_eq!(download.blamed.len(), 1);
}

#[tokio::test]
async fn an_attempt_goes_on_with_what_is_good_of_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let first = [player("first", Conduct::Leaves(8))];
    assert!(!attempt(&part(&dir), &first).await.whole);
    let kept = first[0].given.lock().unwrap().clone();
    assert_eq!(kept.len(), 8);
    // One of the chunks that came is damaged meanwhile.
    let damaged = *kept.first().unwrap();
    let at = Snapshots::body_offset() + u64::from(damaged) * CHUNK_BYTES;
    let file = fs::OpenOptions::new().write(true).open(part(&dir)).unwrap();
    file.write_all_at(&[0], at).unwrap();
    let second = [player("second", Conduct::Honest)];
    assert!(attempt(&part(&dir), &second).await.whole);
    assert!(holds_the_body(&part(&dir)));
    let mut due: BTreeSet<u32> = (0..CHUNKS as u32).filter(|i| !kept.contains(i)).collect();
    due.insert(damaged);
    assert_eq!(*second[0].given.lock().unwrap(), due);
    // What is whole is not asked for again.
    let third = [player("third", Conduct::Honest)];
    assert!(attempt(&part(&dir), &third).await.whole);
    assert_eq!(third[0].asked.load(Ordering::Relaxed), 0);
}
