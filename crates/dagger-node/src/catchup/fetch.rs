//! The fetching side: the chain of ends, then the snapshot's chunks from all peers that have it, resumable.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use dagger_ledger::Key;
use futures_util::future::join_all;
use iroh::endpoint::Connection;
use shadowgraph::{ChainId, Committee, Epoch, EpochEnd, MemberIndex};
use tokio::time::timeout;

use super::{
    ALPN,
    install::Catchup,
    wire::{Answer, Manifest, Request, WireError, ask},
};
use crate::{
    cores::{Ground, blocking},
    error::NodeError,
    handle::{NodeHandle, Shared},
    transport::LinkView,
};

/// Peers asked at once.
const PEERS_MAX: usize = 8;
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Snapshots beyond this are refused.
const SNAPSHOT_BYTES_MAX: u64 = 64 << 30;
/// How often progress is said.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// A peer that answers.
#[derive(Clone)]
pub(crate) struct Source {
    pub name: String,
    /// Its seat in the present epoch.
    pub seat: Option<MemberIndex>,
    connection: Connection,
}

impl Source {
    pub async fn ask(&self, request: &Request) -> Result<Answer, WireError> {
        let slow = |_| WireError::Connection("no answer in time".into());
        timeout(PATIENCE, ask(&self.connection, request))
            .await
            .map_err(slow)?
    }
}

/// Looks for the start of a later epoch than this node's and fetches it. `None` if no peer that answers has one.
///
/// # Errors
/// `E_DISK_FULL`, `E_IO`; `E_TRANSPORT` if no peer answers at all.
pub(crate) async fn fetch(ground: &Ground) -> Result<Option<Catchup>, NodeError> {
    let sources = connect(ground).await;
    if sources.is_empty() {
        return Err(NodeError::Transport(
            "no peer answers; check the addresses in the genesis file and [peers] in node.toml"
                .into(),
        ));
    }
    let own = ground.epochs.last_end()?;
    let (from, committee) = match own {
        Some(end) => (end.next.epoch().0, end.next),
        None => (0, ground.origin.genesis.committee.clone()),
    };
    let chain_id = ground.origin.genesis.chain_id;
    let chains = join_all(
        sources
            .iter()
            .map(|source| chain(source, chain_id, from, committee.clone())),
    );
    let mut ends = chains
        .await
        .into_iter()
        .max_by_key(Vec::len)
        .unwrap_or_default();
    if ends.is_empty() {
        return Ok(None);
    }
    tracing::info!(
        from,
        to = from + ends.len() as u64,
        peers = sources.len(),
        "epochs have ended that this node has not seen"
    );
    // The newest start may not be on any disk yet.
    while let Some(end) = ends.last() {
        let epoch = end.next.epoch().0;
        for (manifest, transactions, having) in offers(&sources, end).await {
            if let Some(body) = download(ground, &manifest, &having).await? {
                let (ends, checked) = (ends.clone(), manifest.clone());
                let verified = blocking("checking a snapshot", move || {
                    Ok(Catchup::verify(ends, &checked, transactions, body))
                });
                match verified.await? {
                    Ok(catchup) => return Ok(Some(catchup)),
                    Err(why) => {
                        let peers: Vec<&str> = having.iter().map(|s| s.name.as_str()).collect();
                        tracing::error!(code = "E_PEER_FAULT", ?peers, epoch, %why, "a snapshot is not what was certified");
                    }
                }
            }
            discard(ground);
        }
        ends.pop();
    }
    Ok(None)
}

/// Connections to the peers that answer, members first.
pub(crate) async fn connect(ground: &Ground) -> Vec<Source> {
    connect_to(&ground.shared, |_| true).await
}

/// As [`connect`], to those of the peers that `which` takes.
pub(crate) async fn connect_to(
    shared: &Arc<Shared>,
    which: impl Fn(&LinkView) -> bool,
) -> Vec<Source> {
    let node = NodeHandle {
        shared: Arc::clone(shared),
    };
    let mut peers = shared.links.views();
    peers.retain(which);
    peers.sort_by_key(|p| (!p.connected, p.seat.is_none()));
    let dial = peers.into_iter().take(PEERS_MAX).map(|peer| {
        let node = node.clone();
        async move {
            let addr = node.addr_of(&Key(peer.key.0))?;
            let connection = timeout(PATIENCE, node.endpoint().connect(addr, ALPN)).await;
            let connection = connection.ok()?.ok()?;
            Some(Source {
                name: peer.name,
                seat: peer.seat,
                connection,
            })
        }
    });
    join_all(dial).await.into_iter().flatten().collect()
}

/// The ends that a peer knows from an epoch on, as far as they verify.
async fn chain(
    source: &Source,
    chain_id: ChainId,
    from: u64,
    mut committee: Committee,
) -> Vec<EpochEnd> {
    let mut ends: Vec<EpochEnd> = Vec::new();
    loop {
        let next = from + ends.len() as u64;
        let more = match source.ask(&Request::Ends(next)).await {
            Ok(Answer::Ends(more)) if !more.is_empty() => more,
            _ => return ends,
        };
        for end in more {
            let follows = end.epoch() == Epoch(from + ends.len() as u64);
            if !follows || end.verify(&chain_id, &committee).is_err() {
                tracing::warn!(code = "E_PEER_FAULT", peer = %source.name, "a peer's chain of epochs does not verify");
                return ends;
            }
            committee = end.next.clone();
            ends.push(end);
        }
    }
}

/// What peers offer as the start of the epoch after `end`: equal offers together, the most frequent first.
async fn offers(sources: &[Source], end: &EpochEnd) -> Vec<(Manifest, u64, Vec<Source>)> {
    let epoch = end.next.epoch().0;
    let request = Request::Manifest(epoch);
    let answers = join_all(sources.iter().map(|source| source.ask(&request))).await;
    let mut offers: BTreeMap<Manifest, (u64, Vec<Source>)> = BTreeMap::new();
    for (source, answer) in sources.iter().zip(answers) {
        let Ok(Answer::Manifest(Some((manifest, transactions)))) = answer else {
            continue;
        };
        let fits = manifest.epoch == epoch
            && manifest.commit == end.certificate.checkpoint.commit.0
            && manifest.is_sound(SNAPSHOT_BYTES_MAX);
        if fits {
            let offer = offers.entry(manifest).or_insert((transactions, Vec::new()));
            offer.1.push(source.clone());
        }
    }
    let mut offers: Vec<_> = offers.into_iter().map(|(m, (t, s))| (m, t, s)).collect();
    offers.sort_by_key(|(_, _, having)| std::cmp::Reverse(having.len()));
    offers
}

/// A snapshot on its way to a file, whose good chunks survive a restart.
struct Incoming {
    manifest: Manifest,
    file: fs::File,
    path: std::path::PathBuf,
}

impl Incoming {
    /// Opens the file; returns which chunks are missing. A file of another snapshot is begun anew.
    fn open(ground: &Ground, manifest: &Manifest) -> Result<(Self, Vec<u32>), NodeError> {
        let path = ground.snapshots.incoming("part");
        let fail = |e| NodeError::io("write", &path, e);
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(fail)?;
        file.set_len(manifest.bytes).map_err(fail)?;
        let incoming = Self {
            manifest: manifest.clone(),
            file,
            path: path.clone(),
        };
        let count = u32::try_from(manifest.chunks.len()).unwrap_or(u32::MAX);
        let missing = (0..count).filter(|index| !incoming.has(*index)).collect();
        Ok((incoming, missing))
    }

    /// Whether a chunk is there: its bytes say so themselves.
    fn has(&self, index: u32) -> bool {
        let range = self.manifest.range(index);
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, range.start).is_ok()
            && blake3::hash(&bytes).as_bytes() == &self.manifest.chunks[index as usize]
    }

    /// Keeps a chunk if it is the right one.
    fn put(&self, index: u32, bytes: &[u8]) -> Result<bool, NodeError> {
        if blake3::hash(bytes).as_bytes() != &self.manifest.chunks[index as usize] {
            return Ok(false);
        }
        let offset = self.manifest.range(index).start;
        self.file
            .write_all_at(bytes, offset)
            .map_err(|e| NodeError::io("write", &self.path, e))?;
        Ok(true)
    }
}

fn discard(ground: &Ground) {
    let _ = fs::remove_file(ground.snapshots.incoming("part"));
}

/// Fetches the chunks of a snapshot; `None` if the peers went away before it was whole (what came is kept).
async fn download(
    ground: &Ground,
    manifest: &Manifest,
    sources: &[Source],
) -> Result<Option<Vec<u8>>, NodeError> {
    let (open, of) = (ground.clone(), manifest.clone());
    let (incoming, missing) =
        blocking("opening a snapshot", move || Incoming::open(&open, &of)).await?;
    tracing::info!(
        epoch = manifest.epoch,
        bytes = manifest.bytes,
        chunks = manifest.chunks.len(),
        missing = missing.len(),
        peers = sources.len(),
        "fetching the ledger"
    );
    let shared = Progress {
        incoming,
        missing: Mutex::new(missing),
        said: Mutex::new(Instant::now()),
    };
    // Two requests of each peer under way at a time keep its line busy.
    let workers = sources
        .iter()
        .chain(sources)
        .map(|source| shared.fetch_from(source));
    for done in join_all(workers).await {
        done?;
    }
    if !shared.missing.lock().expect("no holder panics").is_empty() {
        return Ok(None);
    }
    let path = shared.incoming.path.clone();
    let body = blocking("reading a snapshot", move || {
        let body = fs::read(&path).map_err(|e| NodeError::io("read", &path, e))?;
        fs::remove_file(&path).map_err(|e| NodeError::io("remove", &path, e))?;
        Ok(body)
    });
    Ok(Some(body.await?))
}

struct Progress {
    incoming: Incoming,
    missing: Mutex<Vec<u32>>,
    said: Mutex<Instant>,
}

impl Progress {
    /// Takes chunks from one peer until none is missing or the peer fails.
    async fn fetch_from(&self, source: &Source) -> Result<(), NodeError> {
        loop {
            let Some(index) = self.missing.lock().expect("no holder panics").pop() else {
                return Ok(());
            };
            let request = Request::Chunk {
                epoch: self.incoming.manifest.epoch,
                index,
            };
            let kept = match source.ask(&request).await {
                Ok(Answer::Chunk(Some(bytes))) => self.incoming.put(index, &bytes),
                _ => Ok(false),
            };
            if !matches!(kept, Ok(true)) {
                self.missing.lock().expect("no holder panics").push(index);
                kept?;
                tracing::warn!(peer = %source.name, index, "a peer did not give a chunk of the ledger; asking others");
                return Ok(());
            }
            self.say();
        }
    }

    fn say(&self) {
        let mut said = self.said.lock().expect("no holder panics");
        if said.elapsed() < PROGRESS_INTERVAL {
            return;
        }
        *said = Instant::now();
        let missing = self.missing.lock().expect("no holder panics").len();
        let chunks = self.incoming.manifest.chunks.len();
        tracing::info!(chunks, missing, "fetching the ledger");
    }
}
