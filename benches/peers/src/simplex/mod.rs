//! commonware-consensus, simplex: one leader a view proposes a block, which names payloads by their digests.
//!
//! Every member sends its payloads to all others as they come; a block names those that its leader has and that no ancestor names, and members
//! vote for it once they have all of them. Simplex has leaders propose at the speed of the network; here they wait a little, so that
//! blocks are worth their votes. Votes are signed with Ed25519. The library's journal of own votes cannot be turned off: it lies in
//! memory (a directory on a tmpfs).

mod chain;
mod network;

use crate::Seat;
use crate::pool::Pool;
use crate::wire::{Frame, Wire};
use anyhow::Context as _;
use bytes::Bytes;
use chain::{Chain, Member};
use commonware_consensus::simplex::config::{Config, Floor, ForwardPolicy, SkipPolicy};
use commonware_consensus::simplex::elector::RoundRobin;
use commonware_consensus::simplex::{Engine, scheme::ed25519::Scheme};
use commonware_consensus::types::{Epoch, ViewDelta};
use commonware_cryptography::{Sha256, Signer as _, ed25519};
use commonware_parallel::Sequential;
use commonware_runtime::buffer::paged::CacheRef;
use commonware_runtime::{Runner as _, Supervisor as _, tokio as runtime};
use commonware_utils::ordered::Set;
use commonware_utils::{NZDuration, NZU16, NZUsize};
use network::{Lane, Nobody, lanes};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

const PAYLOAD: u8 = 0;
const BLOCK: u8 = 1;
/// The library's three channels follow.
const LANES: u8 = 2;
/// Bytes of a payload. Only past saturation is it ever reached.
const PAYLOAD_BYTES_MAX: usize = 4 << 20;
const NAMESPACE: &[u8] = b"peers";

/// Starts a member; returns once it is connected to all others.
pub async fn start(pace_ms: u64, seat: Seat) -> anyhow::Result<Arc<Wire>> {
    let (connected, wire) = oneshot::channel();
    // The library brings a runtime of its own.
    std::thread::spawn(move || {
        let config = runtime::Config::new().with_storage_directory(&seat.memory_dir);
        runtime::Runner::new(config).start(|context| async move {
            let engine = match open(context, pace_ms, seat).await {
                Ok((wire, engine)) => {
                    // The caller may have given up meanwhile.
                    let _ = connected.send(Ok(wire));
                    engine
                }
                Err(error) => {
                    let _ = connected.send(Err(error));
                    return;
                }
            };
            // It ends with the process.
            let _ = engine.await;
        });
    });
    wire.await.context("the library's runtime ended")?
}

type Handle = commonware_runtime::Handle<()>;

async fn open(
    context: runtime::Context,
    pace_ms: u64,
    seat: Seat,
) -> anyhow::Result<(Arc<Wire>, Handle)> {
    let pace = Duration::from_millis(pace_ms);
    let (index, n) = (seat.seat, seat.addresses.len() as u64);
    let keys: Vec<ed25519::PrivateKey> = (0..n).map(ed25519::PrivateKey::from_seed).collect();
    let public: Arc<[ed25519::PublicKey]> = keys.iter().map(|key| key.public_key()).collect();
    let chain = Arc::new(Chain::new(seat.ordered));
    let (takers, receivers) = lanes();
    let incoming = {
        let (chain, public) = (Arc::clone(&chain), Arc::clone(&public));
        Arc::new(move |from: u16, (channel, bytes): Frame| match channel {
            PAYLOAD => chain.add_payload(from, bytes),
            BLOCK => chain.add_block(bytes),
            lane => {
                let message = (public[usize::from(from)].clone(), bytes.into());
                // The engine has ended when nobody takes it.
                let _ = takers[usize::from(lane - LANES)].unbounded_send(message);
            }
        })
    };
    let wire = Wire::connect(index, seat.listener, &seat.addresses, incoming).await?;
    let member = Member::new(Arc::clone(&chain), Arc::clone(&wire), pace);
    let participants = Set::from_iter_dedup(public.iter().cloned());
    let own = keys[usize::from(index)].clone();
    let scheme = Scheme::signer(NAMESPACE, participants, own).context("a member without a key")?;
    let config = config(scheme, member);
    let engine = Engine::new(context.child("engine"), config);
    let [votes, certificates, resolver] = receivers;
    let lane = |number: u8| {
        Lane::new(
            LANES + number,
            Arc::clone(&wire),
            Arc::clone(&public),
            index,
        )
    };
    let engine = engine.start(
        (lane(0), votes),
        (lane(1), certificates),
        (lane(2), resolver),
    );
    tokio::spawn(disseminate(
        seat.pool,
        chain,
        Arc::clone(&wire),
        index,
        pace,
    ));
    Ok((wire, engine))
}

type SimplexConfig =
    Config<Scheme, RoundRobin<Sha256>, Nobody, chain::Digest, Member, Member, Member, Sequential>;

fn config(scheme: Scheme, member: Member) -> SimplexConfig {
    Config {
        scheme,
        elector: RoundRobin::default(),
        blocker: Nobody,
        automaton: member.clone(),
        relay: member.clone(),
        reporter: member,
        track_historical_votes: false,
        strategy: Sequential,
        partition: "member".to_owned(),
        mailbox_size: NZUsize!(1024),
        epoch: Epoch::new(1),
        floor: Floor::Genesis(chain::genesis()),
        replay_buffer: NZUsize!(1 << 20),
        write_buffer: NZUsize!(1 << 20),
        page_cache: CacheRef::new(NZU16!(1024), NZUsize!(1024)),
        leader_timeout: Duration::from_secs(1),
        certification_timeout: Duration::from_secs(2),
        timeout_retry: Duration::from_secs(5),
        view_retention: ViewDelta::new(64),
        skip: SkipPolicy::Disabled,
        fetch_timeout: NZDuration!(Duration::from_secs(1)),
        fetch_retry_delay: Duration::from_millis(100),
        forward: ForwardPolicy::Disabled,
    }
}

/// Sends what waits to all others, again and again.
async fn disseminate(
    pool: Arc<Pool>,
    chain: Arc<Chain>,
    wire: Arc<Wire>,
    own: u16,
    pace: Duration,
) {
    let mut ticks = tokio::time::interval(pace.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(payload) = pool.take(PAYLOAD_BYTES_MAX) else {
            continue;
        };
        wire.broadcast(&(PAYLOAD, Bytes::clone(&payload)));
        chain.add_payload(own, payload);
    }
}
