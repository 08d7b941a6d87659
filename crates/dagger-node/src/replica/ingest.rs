//! From a peer's bytes to verified inputs: decoding and signatures, off the replica's thread.
//!
//! Signatures of events and of their transactions are checked here, in parallel between peers; what was
//! checked is kept for the executor, which would otherwise check it a second time.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, atomic::Ordering},
};

use bytes::Bytes;
use dagger_ledger::{CheckedTransaction, Key};
use shadowgraph::{ChainId, Digest, Message, Peer, UnverifiedEvent, VerifiedEvent, verify_events};

use super::{ReplicaInput, Said, recent::Recent};
use crate::{
    attest::Attestor,
    error::NodeError,
    handle::Shared,
    transport::{Directory, Frame, Inbound, Link},
};

/// Transactions whose check is remembered until they are executed.
const CACHE_TRANSACTIONS_MAX: usize = 1 << 17;
/// Below this many bytes checking at once costs less than handing it to another thread.
const INLINE_BYTES_MAX: usize = 16 << 10;

/// The checked transactions of one event, and when this node first held it.
#[derive(Clone)]
pub struct Checked {
    pub transactions: Arc<[CheckedTransaction]>,
    pub at_ms: u64,
}

/// Checked transactions by event, bounded; the oldest go first.
#[derive(Default)]
pub struct CheckedCache(Mutex<CacheInner>);

#[derive(Default)]
struct CacheInner {
    by_event: HashMap<Digest, Checked>,
    order: VecDeque<Digest>,
    transactions: usize,
}

impl CheckedCache {
    pub fn put(&self, event: Digest, checked: Checked) {
        let mut inner = self.0.lock().expect("no holder panics");
        inner.transactions += checked.transactions.len();
        if let Some(old) = inner.by_event.insert(event, checked) {
            inner.transactions -= old.transactions.len();
        } else {
            inner.order.push_back(event);
        }
        while inner.transactions > CACHE_TRANSACTIONS_MAX && inner.order.len() > 1 {
            let oldest = inner.order.pop_front().expect("not empty");
            if let Some(old) = inner.by_event.remove(&oldest) {
                inner.transactions -= old.transactions.len();
            }
        }
    }

    pub fn take(&self, event: &Digest) -> Option<Checked> {
        let mut inner = self.0.lock().expect("no holder panics");
        let checked = inner.by_event.remove(event)?;
        inner.transactions -= checked.transactions.len();
        // Its place in `order` is left behind; drop such places when they pile up at the front.
        while inner
            .order
            .front()
            .is_some_and(|d| !inner.by_event.contains_key(d))
        {
            inner.order.pop_front();
        }
        Some(checked)
    }
}

/// Where the frames of all peers arrive.
pub(crate) struct Ingest {
    pub shared: Arc<Shared>,
    pub cache: Arc<CheckedCache>,
    pub attestor: Arc<Attestor>,
    pub instance: u64,
    pub fatal: tokio::sync::mpsc::Sender<NodeError>,
    pub verified: Arc<Verified>,
}

/// The events that were verified lately.
#[derive(Default)]
pub(crate) struct Verified(Mutex<Recent<VerifiedEvent>>);

impl Directory for Ingest {
    fn name_of(&self, node_key: &Key) -> Option<String> {
        self.shared.node_name(node_key)
    }
}

impl Inbound for Ingest {
    async fn receive(&self, link: &Arc<Link>, frame: Frame) {
        let from = link.peer();
        match frame {
            Frame::Consensus(bytes) => self.consensus(link, bytes).await,
            Frame::Heartbeat { machine, seq } => self.attestor.heartbeat(link, machine, seq).await,
            Frame::HeartbeatAck {
                machine: _,
                seq,
                epoch,
                round,
            } => self.attestor.acknowledged(from, seq, epoch, round),
            Frame::Transaction(wire) => self.transaction(wire).await,
            Frame::Subscribe { on } => {
                link.subscribes.store(on, Ordering::Relaxed);
                if on {
                    self.shared.feed.want();
                }
            }
            Frame::Hello(_) => unreachable!("the session ends on a second greeting"),
        }
    }

    fn replaced(&self, by: Peer) {
        let Peer::Member(seat) = by else { return };
        let members = self.shared.links.note_replaced(seat);
        let membership = self.shared.membership();
        let weight: u64 = members
            .iter()
            .map(|m| membership.committee.weight(*m))
            .sum();
        let name = self.shared.seat_name(seat);
        tracing::error!(code = "E_DUPLICATE_KEY", peer = %name, "a member reports another process under this node's key");
        // One liar must not be able to stop an honest node: f + 1 hold an honest one.
        if weight >= membership.committee.validity_weight() {
            let detail = format!(
                "{} members are connected to another process under this node key",
                members.len()
            );
            let _ = self.fatal.try_send(NodeError::DuplicateKey { detail });
        }
    }

    fn chain_id(&self) -> [u8; 32] {
        self.shared.genesis.chain_id.0
    }

    fn instance(&self) -> u64 {
        self.instance
    }
}

impl Ingest {
    async fn consensus(&self, link: &Arc<Link>, bytes: Bytes) {
        let length = bytes.len();
        match Message::decode(bytes) {
            Ok(Message::Events(events)) => {
                // Of opaque bytes there is only the event's one signature to check.
                let inline = length <= INLINE_BYTES_MAX || self.shared.opaque.is_some();
                let (verified, foreign) = if inline {
                    verify(&self.shared, &self.cache, &self.verified, events)
                } else {
                    self.verify_elsewhere(events).await
                };
                if !foreign.is_empty() {
                    self.tell(link, Said::Foreign(foreign)).await;
                    if verified.is_empty() {
                        return;
                    }
                }
                self.shared
                    .metrics
                    .events_received
                    .inc_by(verified.len() as u64);
                self.tell(link, Said::Events(verified)).await;
            }
            Ok(message) => self.tell(link, Said::Message(message)).await,
            Err(error) => self.fault(link.peer(), &error),
        }
    }

    async fn tell(&self, by: &Arc<Link>, what: Said) {
        let by = Arc::clone(by);
        let said = ReplicaInput::Said { by, what };
        self.shared.replica.input(said).await;
    }

    fn fault(&self, from: Peer, error: &dyn std::fmt::Display) {
        self.shared.metrics.peer_faults.inc();
        tracing::warn!(code = "E_PEER_FAULT", peer = ?from, %error, "a peer sent what no honest one sends; dropped");
    }

    async fn verify_elsewhere(
        &self,
        events: Vec<Bytes>,
    ) -> (Vec<VerifiedEvent>, Vec<UnverifiedEvent>) {
        let (shared, cache) = (Arc::clone(&self.shared), Arc::clone(&self.cache));
        let verified = Arc::clone(&self.verified);
        // One job a peer at most, and threads that sleep while there is none: a pool that looks for work spins.
        let job = tokio::task::spawn_blocking(move || verify(&shared, &cache, &verified, events));
        job.await.unwrap_or_default()
    }

    /// A transaction that a node without a seat handed on.
    async fn transaction(&self, wire: Bytes) {
        let checked = CheckedTransaction::check(&self.shared.genesis.chain_id, &wire);
        let admitted = checked.code().is_ok()
            && self
                .shared
                .ledger
                .read()
                .expect("no holder panics")
                .check_admission(&checked)
                .is_ok();
        if !admitted {
            return;
        }
        if self.shared.seat().is_none() {
            self.hand_on(&checked, &wire);
        } else {
            self.shared
                .replica
                .input(ReplicaInput::Submit { wire, reply: None })
                .await;
        }
    }
}

impl Ingest {
    /// Hands a transaction on towards a member; once only, so that it cannot go round among nodes without a seat.
    fn hand_on(&self, checked: &CheckedTransaction, wire: &[u8]) {
        let digest = checked.digest();
        let stage = dagger_client::api::AcceptedStage {
            node: self.shared.name.clone(),
            at_ms: self.shared.clock.now_ms(),
        };
        let mut transactions = self.shared.transactions.lock().expect("no holder panics");
        if transactions.status(&digest).is_some() {
            return;
        }
        transactions.accepted(digest, stage);
        drop(transactions);
        if let Err(error) = self.shared.links.forward(wire) {
            let mut transactions = self.shared.transactions.lock().expect("no holder panics");
            transactions.refused(&digest);
            tracing::debug!(%error, "a transaction could not be handed on");
        }
    }
}

impl Verified {
    fn get(&self, digest: &Digest) -> Option<VerifiedEvent> {
        self.0.lock().expect("no holder panics").get(digest)
    }

    fn put(&self, event: &VerifiedEvent) {
        let mut recent = self.0.lock().expect("no holder panics");
        recent.put(*event.digest(), event.clone(), event.bytes().len());
    }
}

/// The events of the present epoch, verified, and those of others, which its committee cannot verify.
fn verify(
    shared: &Shared,
    cache: &CheckedCache,
    recent: &Verified,
    events: Vec<Bytes>,
) -> (Vec<VerifiedEvent>, Vec<UnverifiedEvent>) {
    let membership = shared.membership();
    let mut decoded = Vec::with_capacity(events.len());
    let mut foreign = Vec::new();
    // In their order, with gaps for those that are not verified yet.
    let mut verified = Vec::with_capacity(events.len());
    let mut places = Vec::new();
    for bytes in events {
        match UnverifiedEvent::decode(bytes) {
            Ok(event) if event.epoch() != membership.committee.epoch() => foreign.push(event),
            Ok(event) => {
                let known = recent.get(&event.reference().digest);
                if known.is_some() {
                    shared.metrics.events_repeated.inc();
                } else {
                    places.push(verified.len());
                    decoded.push(event);
                }
                verified.push(known);
            }
            Err(error) => bad_event(shared, &error),
        }
    }
    let results = verify_events(
        decoded,
        &ChainId(shared.genesis.chain_id.0),
        &membership.committee,
    );
    for (place, result) in places.into_iter().zip(results) {
        match result {
            Ok(event) => {
                check_transactions(shared, cache, &event);
                recent.put(&event);
                verified[place] = Some(event);
            }
            Err(error) => bad_event(shared, &error),
        }
    }
    (verified.into_iter().flatten().collect(), foreign)
}

fn bad_event(shared: &Shared, error: &dyn std::fmt::Display) {
    shared.metrics.peer_faults.inc();
    tracing::warn!(code = "E_BAD_EVENT", %error, "dropped an event that does not verify");
}

/// Checks the transactions of an event that this node now holds, and notes them for those who wait.
pub(super) fn check_transactions(shared: &Shared, cache: &CheckedCache, event: &VerifiedEvent) {
    if event.transaction_count() == 0 || shared.opaque.is_some() {
        return;
    }
    let wires: Vec<Bytes> = event.transactions().collect();
    let checked = CheckedTransaction::check_batch(&shared.genesis.chain_id, &wires);
    note_event(shared, cache, event, checked);
}

/// As [`check_transactions`] for an own event: its transactions were checked when they were taken.
pub(super) fn note_own_event(shared: &Shared, cache: &CheckedCache, event: &VerifiedEvent) {
    if event.transaction_count() == 0 || shared.opaque.is_some() {
        return;
    }
    let checked = event
        .transactions()
        .map(|wire| {
            CheckedTransaction::from_verified_body(
                &shared.genesis.chain_id,
                wire.get(64..).unwrap_or_default(),
            )
        })
        .collect();
    note_event(shared, cache, event, checked);
}

fn note_event(
    shared: &Shared,
    cache: &CheckedCache,
    event: &VerifiedEvent,
    checked: Vec<CheckedTransaction>,
) {
    let at_ms = shared.clock.now_ms();
    let stage = Arc::new(dagger_client::api::EventStage {
        event: shared.event_name(event.reference()),
        at_ms,
    });
    let mut transactions = shared.transactions.lock().expect("no holder panics");
    for one in &checked {
        transactions.in_event(one.digest(), &stage);
    }
    drop(transactions);
    cache.put(
        *event.digest(),
        Checked {
            transactions: checked.into(),
            at_ms,
        },
    );
}
