//! The fetching side: which peers answer, the chain of ends, and who has the state to fetch.

use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

use dagger_ledger::Key;
use futures_util::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use iroh::endpoint::Connection;
use shadowgraph::{ChainId, Committee, Epoch, EpochEnd, MemberIndex};
use tokio::time::timeout;

use super::{
    ALPN,
    download::{Download, Peer, download},
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
/// How long those that can be reached wait for the next one: a node that is gone must not hold up whoever joins.
const GRACE: Duration = Duration::from_secs(2);
/// Snapshots beyond this are refused.
const SNAPSHOT_BYTES_MAX: u64 = 64 << 30;

/// A peer that answers.
#[derive(Clone)]
pub(crate) struct Source {
    pub name: String,
    /// Its seat in the present epoch.
    pub seat: Option<MemberIndex>,
    connection: Connection,
}

impl Peer for Source {
    fn name(&self) -> &str {
        &self.name
    }

    async fn ask(&self, request: &Request) -> Result<Answer, WireError> {
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
            let file = ground.snapshots.incoming("part");
            let Download { whole, blamed } = download(file.clone(), &manifest, &having).await?;
            if !blamed.is_empty() {
                tracing::error!(code = "E_PEER_FAULT", peers = ?blamed, epoch, "peers gave chunks that are not of the snapshot that they offered");
            }
            if whole {
                let (ends, checked) = (ends.clone(), manifest.clone());
                let verified = blocking("checking a snapshot", move || {
                    Ok(Catchup::verify(ends, &checked, transactions, file))
                });
                match verified.await? {
                    Ok(catchup) => return Ok(Some(catchup)),
                    Err(why) => {
                        let peers: Vec<&str> = having.iter().map(|s| s.name.as_str()).collect();
                        tracing::error!(code = "E_PEER_FAULT", ?peers, epoch, %why, "a snapshot is not what was certified");
                    }
                }
            }
            let _ = fs::remove_file(ground.snapshots.incoming("part"));
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
    let dial = peers
        .into_iter()
        .take(PEERS_MAX)
        .zip(0..)
        .map(|(peer, at)| {
            let node = node.clone();
            async move {
                let addr = node.addr_of(&Key(peer.key.0))?;
                let connection = timeout(PATIENCE, node.endpoint().connect(addr, ALPN)).await;
                let connection = connection.ok()?.ok()?;
                let source = Source {
                    name: peer.name,
                    seat: peer.seat,
                    connection,
                };
                Some((at, source))
            }
        });
    let mut dials: FuturesUnordered<_> = dial.collect();
    let mut sources: BTreeMap<usize, Source> = BTreeMap::new();
    loop {
        let patience = if sources.is_empty() { PATIENCE } else { GRACE };
        match timeout(patience, dials.next()).await {
            Ok(Some(answered)) => sources.extend(answered),
            Ok(None) | Err(_) => return sources.into_values().collect(),
        }
    }
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
