//! aleph-bft: units carry payloads, or their digests; then the payload travels right before the unit on the same connection.
//!
//! In the latter case every message takes along the payloads of its units that are at hand, and one whose payloads are not there is
//! dropped, which the library allows for: what it orders is there. Units are signed with Ed25519 and hashed with BLAKE3, as the
//! product's events are. Backups go nowhere.

mod carry;

use crate::payloads::Payloads;
use crate::pool::Pool;
use crate::wire::Wire;
use crate::{Digest, Ordered, Seat};
use aleph_bft::{
    Config, DataProvider, DelayConfig, Hasher, Index, Keychain, LocalIO, MultiKeychain, Network,
    NetworkData, NodeCount, NodeIndex, OrderedUnit, PartialMultisignature as _, Recipient,
    SignatureSet, SpawnHandle, TaskHandle, Terminator, UnitFinalizationHandler, create_config,
    default_delay_config, run_session,
};
use anyhow::anyhow;
use bytes::Bytes;
use carry::Carry;
use ed25519_zebra::{SigningKey, VerificationKey};
use futures::channel::{mpsc, oneshot};
use futures::{FutureExt as _, StreamExt as _};
use parity_scale_codec::{Encode as _, decode_from_bytes};
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

const PAYLOAD: u8 = 0;
const MESSAGE: u8 = 1;
/// Bytes of a unit's payload. Only past saturation is it ever reached.
const PAYLOAD_BYTES_MAX: usize = 4 << 20;
/// Rounds have 16 bits.
const ROUND_MAX: u16 = u16::MAX;

type Signature = [u8; 64];
type Message<D> = NetworkData<Blake3, D, Signature, SignatureSet<Signature>>;

/// Starts a member; returns once it is connected to all others.
pub async fn start(
    unit_delay_ms: u64,
    payload_inside: bool,
    seat: Seat,
) -> anyhow::Result<Arc<Wire>> {
    if payload_inside {
        start_with::<Bytes>(unit_delay_ms, seat).await
    } else {
        start_with::<Digest>(unit_delay_ms, seat).await
    }
}

async fn start_with<D: Carry>(unit_delay_ms: u64, seat: Seat) -> anyhow::Result<Arc<Wire>> {
    let (index, n) = (seat.seat, seat.addresses.len());
    let payloads = Arc::new(Payloads::default());
    let (messages, received) = mpsc::unbounded();
    let incoming = {
        let payloads = Arc::clone(&payloads);
        Arc::new(move |_, (channel, bytes): (u8, Bytes)| {
            if channel == PAYLOAD {
                payloads.insert(bytes);
            } else {
                let message: Message<D> = decode_from_bytes(bytes).expect("members are honest");
                // The session has ended when nobody takes it.
                let _ = messages.unbounded_send(message);
            }
        })
    };
    let wire = Wire::connect(index, seat.listener, &seat.addresses, incoming).await?;
    let network = Links {
        wire: Arc::clone(&wire),
        payloads: Arc::clone(&payloads),
        received,
    };
    let provider = Provider::<D> {
        pool: seat.pool,
        payloads: Arc::clone(&payloads),
        carries: PhantomData,
    };
    let finalized = Finalized::<D> {
        ordered: seat.ordered,
        payloads,
        carries: PhantomData,
    };
    let config = config(usize::from(index), n, unit_delay_ms)?;
    let io = LocalIO::new_with_unit_finalization_handler(
        provider,
        finalized,
        futures::io::sink(),
        futures::io::empty(),
    );
    let keys = Keys::make(usize::from(index), n);
    tokio::spawn(async move {
        // Held for as long as the session runs: it would end without.
        let (_exit, exited) = oneshot::channel();
        let terminator = Terminator::create_root(exited, "peers");
        run_session(config, io, network, keys, Tasks, terminator).await;
    });
    Ok(wire)
}

fn config(index: usize, n: usize, unit_delay_ms: u64) -> anyhow::Result<Config> {
    let unit_delay = Duration::from_millis(unit_delay_ms);
    let delays = DelayConfig {
        unit_creation_delay: Arc::new(move |_| unit_delay),
        ..default_delay_config()
    };
    let (n, index) = (NodeCount(n), NodeIndex(index));
    create_config(n, index, 0, ROUND_MAX, delays, Duration::ZERO)
        .map_err(|error| anyhow!("{error:?}"))
}

struct Links<D: Carry> {
    wire: Arc<Wire>,
    payloads: Arc<Payloads>,
    received: mpsc::UnboundedReceiver<Message<D>>,
}

#[async_trait::async_trait]
impl<D: Carry> Network<Message<D>> for Links<D> {
    fn send(&self, message: Message<D>, recipient: Recipient) {
        let data = message.included_data();
        let payloads = data.iter().filter_map(|data| data.beside(&self.payloads));
        let frames = payloads
            .map(|payload| (PAYLOAD, payload))
            .chain([(MESSAGE, Bytes::from(message.encode()))]);
        for frame in frames {
            match recipient {
                Recipient::Everyone => self.wire.broadcast(&frame),
                Recipient::Node(to) => self.wire.send(seat_of(to), frame),
            }
        }
    }

    async fn next_event(&mut self) -> Option<Message<D>> {
        loop {
            let message = self.received.next().await?;
            let data = message.included_data();
            if data.iter().all(|data| data.is_here(&self.payloads)) {
                return Some(message);
            }
        }
    }
}

fn seat_of(index: NodeIndex) -> u16 {
    u16::try_from(index.0).expect("seats are small")
}

struct Provider<D> {
    pool: Arc<Pool>,
    payloads: Arc<Payloads>,
    carries: PhantomData<D>,
}

#[async_trait::async_trait]
impl<D: Carry> DataProvider for Provider<D> {
    type Output = D;

    async fn get_data(&mut self) -> Option<D> {
        let payload = self.pool.take(PAYLOAD_BYTES_MAX)?;
        Some(D::carry(payload, &self.payloads))
    }
}

struct Finalized<D> {
    ordered: Arc<dyn Ordered>,
    payloads: Arc<Payloads>,
    carries: PhantomData<D>,
}

impl<D: Carry> UnitFinalizationHandler for Finalized<D> {
    type Data = D;
    type Hasher = Blake3;

    fn batch_finalized(&mut self, batch: Vec<OrderedUnit<D, Blake3>>) {
        for unit in batch {
            if let Some(data) = unit.data {
                let payload = data.ordered(&self.payloads);
                let creator = seat_of(unit.creator);
                self.ordered.ordered(creator, &unit.hash, &payload);
            }
        }
    }
}

/// What the library hashes units with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Blake3;

impl Hasher for Blake3 {
    type Hash = Digest;

    fn hash(bytes: &[u8]) -> Digest {
        *blake3::hash(bytes).as_bytes()
    }
}

#[derive(Clone)]
struct Keys {
    index: usize,
    own: SigningKey,
    all: Arc<[VerificationKey]>,
}

impl Keys {
    /// Keys follow from seats: nothing hangs on them.
    fn make(index: usize, n: usize) -> Self {
        let key = |seat: usize| {
            let seed = blake3::hash(format!("peers {seat}").as_bytes());
            SigningKey::from(*seed.as_bytes())
        };
        Self {
            index,
            own: key(index),
            all: (0..n)
                .map(|seat| VerificationKey::from(&key(seat)))
                .collect(),
        }
    }
}

impl Index for Keys {
    fn index(&self) -> NodeIndex {
        NodeIndex(self.index)
    }
}

impl Keychain for Keys {
    type Signature = Signature;

    fn node_count(&self) -> NodeCount {
        NodeCount(self.all.len())
    }

    fn sign(&self, message: &[u8]) -> Signature {
        self.own.sign(message).to_bytes()
    }

    fn verify(&self, message: &[u8], signature: &Signature, index: NodeIndex) -> bool {
        let signature = ed25519_zebra::Signature::from_bytes(signature);
        let key = self.all.get(index.0);
        key.is_some_and(|key| key.verify(&signature, message).is_ok())
    }
}

impl MultiKeychain for Keys {
    type PartialMultisignature = SignatureSet<Signature>;

    fn bootstrap_multi(&self, signature: &Signature, index: NodeIndex) -> SignatureSet<Signature> {
        SignatureSet::with_size(self.node_count()).add_signature(signature, index)
    }

    fn is_complete(&self, message: &[u8], partial: &SignatureSet<Signature>) -> bool {
        partial.iter().count() >= self.node_count().consensus_threshold().0
            && partial
                .iter()
                .all(|(index, signature)| self.verify(message, signature, index))
    }
}

/// The library's tasks run in the runtime of the process.
#[derive(Clone)]
struct Tasks;

impl SpawnHandle for Tasks {
    fn spawn(&self, _: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    fn spawn_essential(
        &self,
        _: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> TaskHandle {
        let task = tokio::spawn(task);
        async move { task.await.map_err(|_| ()) }.boxed()
    }
}
