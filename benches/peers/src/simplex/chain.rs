//! Blocks: what a leader makes of payloads, what members vote for, and what comes out once a block is final.

use super::BLOCK;
use crate::payloads::Payloads;
use crate::wire::Wire;
use crate::{Digest as PayloadDigest, Ordered};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use commonware_actor::Feedback;
use commonware_consensus::simplex::Plan;
use commonware_consensus::simplex::scheme::ed25519::Scheme;
use commonware_consensus::simplex::types::{Activity, Context};
use commonware_consensus::types::View;
use commonware_consensus::{Automaton, CertifiableAutomaton, Relay, Reporter, Viewable as _};
use commonware_cryptography::ed25519::PublicKey;
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

/// What the library knows blocks by.
pub use commonware_cryptography::blake3::Digest;

/// With nothing to name, a leader waits this long before it proposes an empty block.
const EMPTY_AFTER: Duration = Duration::from_millis(100);
/// Delivered blocks that are kept, for members that still vote on their children.
const DELIVERED_KEPT: u64 = 256;

/// The block before the first.
pub fn genesis() -> Digest {
    Digest([0; 32])
}

struct Block {
    height: u64,
    parent: Digest,
    /// Creators and digests.
    payloads: Vec<(u16, PayloadDigest)>,
    bytes: Bytes,
}

impl Block {
    fn new(height: u64, view: View, parent: Digest, payloads: Vec<(u16, PayloadDigest)>) -> Self {
        let mut bytes = BytesMut::new();
        bytes.put_u64_le(height);
        bytes.put_u64_le(view.get());
        bytes.put_slice(&parent);
        for (creator, digest) in &payloads {
            bytes.put_u16_le(*creator);
            bytes.put_slice(digest);
        }
        Self {
            height,
            parent,
            payloads,
            bytes: bytes.freeze(),
        }
    }

    fn decode(bytes: Bytes) -> Self {
        let mut rest = bytes.clone();
        let (height, _view) = (rest.get_u64_le(), rest.get_u64_le());
        let digest = |rest: &mut Bytes| {
            let mut digest = [0; 32];
            rest.copy_to_slice(&mut digest);
            digest
        };
        let parent = Digest(digest(&mut rest));
        let mut payloads = Vec::new();
        while rest.has_remaining() {
            payloads.push((rest.get_u16_le(), digest(&mut rest)));
        }
        Self {
            height,
            parent,
            payloads,
            bytes,
        }
    }

    fn digest(&self) -> Digest {
        Digest(*blake3::hash(&self.bytes).as_bytes())
    }
}

/// One member's blocks and payloads.
pub struct Chain {
    payloads: Payloads,
    ordered: Arc<dyn Ordered>,
    /// Something arrived.
    changed: Notify,
    state: Mutex<State>,
}

struct State {
    blocks: HashMap<Digest, Block>,
    /// Payloads that were not delivered yet, as they came.
    fresh: Vec<(u16, PayloadDigest)>,
    /// The newest block that is final.
    tip: Option<(View, Digest)>,
    delivered: Digest,
    delivered_height: u64,
}

impl Chain {
    /// Nothing but genesis.
    pub fn new(ordered: Arc<dyn Ordered>) -> Self {
        let state = State {
            blocks: HashMap::new(),
            fresh: Vec::new(),
            tip: None,
            delivered: genesis(),
            delivered_height: 0,
        };
        Self {
            payloads: Payloads::default(),
            ordered,
            changed: Notify::new(),
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// A payload came, or was made here.
    pub fn add_payload(&self, creator: u16, payload: Bytes) {
        let digest = self.payloads.insert(payload);
        let mut state = self.state();
        state.fresh.push((creator, digest));
        self.deliver(&mut state);
        drop(state);
        self.changed.notify_waiters();
    }

    /// A block came.
    pub fn add_block(&self, bytes: Bytes) {
        let block = Block::decode(bytes);
        let mut state = self.state();
        state.blocks.insert(block.digest(), block);
        self.deliver(&mut state);
        drop(state);
        self.changed.notify_waiters();
    }

    /// A block on this parent that names all payloads at hand; none yet if an ancestor is missing, or there is nothing to name.
    fn build(&self, view: View, parent: Digest, may_be_empty: bool) -> Option<Digest> {
        let mut state = self.state();
        let mut named: HashSet<PayloadDigest> = HashSet::new();
        for ancestor in state.undelivered(parent)? {
            named.extend(state.blocks[&ancestor].payloads.iter().map(|(_, d)| *d));
        }
        let fresh = state.fresh.iter().filter(|(_, d)| !named.contains(d));
        let payloads: Vec<_> = fresh.copied().collect();
        if payloads.is_empty() && !may_be_empty {
            return None;
        }
        let height = state.height(&parent) + 1;
        let block = Block::new(height, view, parent, payloads);
        let digest = block.digest();
        state.blocks.insert(digest, block);
        Some(digest)
    }

    /// Whether a block is good, once it and all it names are here.
    fn verdict(&self, parent: &Digest, block: &Digest) -> Option<bool> {
        let state = self.state();
        let block = state.blocks.get(block)?;
        let here = |(_, digest): &(u16, PayloadDigest)| self.payloads.has(digest);
        let complete = block.payloads.iter().all(here);
        complete.then_some(block.parent == *parent)
    }

    fn finalize(&self, view: View, block: Digest) {
        let mut state = self.state();
        if state.tip.is_none_or(|(newest, _)| newest < view) {
            state.tip = Some((view, block));
            self.deliver(&mut state);
        }
    }

    /// Delivers what is final and here.
    fn deliver(&self, state: &mut State) {
        let Some((_, tip)) = state.tip else { return };
        let Some(mut blocks) = state.undelivered(tip) else {
            return;
        };
        blocks.reverse();
        for digest in blocks {
            let block = &state.blocks[&digest];
            let missing = |(_, digest): &&(u16, PayloadDigest)| !self.payloads.has(digest);
            if block.payloads.iter().any(|payload| missing(&payload)) {
                return;
            }
            let mut named = HashSet::new();
            for (creator, digest) in &block.payloads {
                named.insert(*digest);
                // Two blocks may name one payload, if leaders did not know of each other's.
                if let Some(payload) = self.payloads.order(digest) {
                    self.ordered.ordered(*creator, digest, &payload);
                }
            }
            (state.delivered, state.delivered_height) = (digest, block.height);
            state.fresh.retain(|(_, digest)| !named.contains(digest));
        }
        let kept_from = state.delivered_height.saturating_sub(DELIVERED_KEPT);
        state.blocks.retain(|_, block| block.height >= kept_from);
    }
}

impl State {
    /// This block and its ancestors that were not delivered, newest first; nothing if one is missing.
    fn undelivered(&self, newest: Digest) -> Option<Vec<Digest>> {
        let (mut all, mut at) = (Vec::new(), newest);
        while at != self.delivered && at != genesis() {
            let block = self.blocks.get(&at)?;
            if block.height <= self.delivered_height {
                break;
            }
            all.push(at);
            at = block.parent;
        }
        Some(all)
    }

    fn height(&self, block: &Digest) -> u64 {
        self.blocks.get(block).map_or(0, |block| block.height)
    }
}

/// What the library asks of a member.
#[derive(Clone)]
pub struct Member {
    chain: Arc<Chain>,
    wire: Arc<Wire>,
    pace: Duration,
}

impl Member {
    /// Leaders wait for `pace` before they propose.
    pub fn new(chain: Arc<Chain>, wire: Arc<Wire>, pace: Duration) -> Self {
        Self { chain, wire, pace }
    }
}

/// Answers as soon as `answer` has one; asks again whenever something arrived, and at `until`.
fn answer_when<T: Send + 'static>(
    chain: Arc<Chain>,
    wait: Duration,
    mut answer: impl FnMut(&Chain, bool) -> Option<T> + Send + 'static,
) -> oneshot::Receiver<T> {
    let (sender, receiver) = oneshot::channel();
    tokio::spawn(async move {
        tokio::time::sleep(wait).await;
        let until = Instant::now() + EMPTY_AFTER;
        while !sender.is_closed() {
            let mut changed = pin!(chain.changed.notified());
            // What arrives while `answer` looks is not missed.
            changed.as_mut().enable();
            let late = Instant::now() >= until;
            if let Some(answer) = answer(&chain, late) {
                // The view may be over.
                let _ = sender.send(answer);
                return;
            }
            let rest = until.saturating_duration_since(Instant::now());
            let _ = tokio::time::timeout(rest.max(Duration::from_millis(1)), changed).await;
        }
    });
    receiver
}

impl Automaton for Member {
    type Context = Context<Digest, PublicKey>;
    type Digest = Digest;

    fn propose(
        &mut self,
        context: Self::Context,
    ) -> impl Future<Output = oneshot::Receiver<Digest>> + Send {
        let (view, parent) = (context.view(), context.parent.1);
        let receiver = answer_when(Arc::clone(&self.chain), self.pace, move |chain, late| {
            chain.build(view, parent, late)
        });
        std::future::ready(receiver)
    }

    fn verify(
        &mut self,
        context: Self::Context,
        block: Digest,
    ) -> impl Future<Output = oneshot::Receiver<bool>> + Send {
        let parent = context.parent.1;
        let receiver = answer_when(Arc::clone(&self.chain), Duration::ZERO, move |chain, _| {
            chain.verdict(&parent, &block)
        });
        std::future::ready(receiver)
    }
}

impl CertifiableAutomaton for Member {}

impl Relay for Member {
    type Digest = Digest;
    type Plan = Plan<PublicKey>;
    type PublicKey = PublicKey;

    fn broadcast(&mut self, block: Digest, plan: Plan<PublicKey>) -> Feedback {
        if let Plan::Propose { .. } = plan {
            let bytes = self.chain.state().blocks[&block].bytes.clone();
            self.wire.broadcast(&(BLOCK, bytes));
        }
        Feedback::Ok
    }
}

impl Reporter for Member {
    type Activity = Activity<Scheme, Digest>;

    fn report(&mut self, activity: Self::Activity) -> Feedback {
        if let Activity::Finalization(finalization) = activity {
            let view = finalization.view();
            self.chain.finalize(view, finalization.proposal.payload);
        }
        Feedback::Ok
    }
}
