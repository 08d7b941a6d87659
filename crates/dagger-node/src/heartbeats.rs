//! A machine reduced to its heartbeats: the node's own endpoint and links, and nothing behind them. For a benchmark of what
//! machines cost a member.
//!
//! What must not live here: what a heartbeat means (`attest`).

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use dagger_ledger::Key;
use ed25519_zebra::SigningKey;
use shadowgraph::{MemberIndex, Peer};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    error::NodeError,
    transport::{
        ConsensusProtocol, Directory, Frame, Inbound, Link, Links, PeerEntry, bind, dial_all,
    },
};

/// Whom a machine's heartbeats go to.
#[derive(Clone)]
pub struct HeardBy {
    /// The network.
    pub chain_id: [u8; 32],
    /// The member's node key.
    pub node_key: Key,
    /// Where it can be dialled.
    pub address: SocketAddr,
}

/// A machine's end of its connection to one member.
pub struct Heartbeats {
    links: Links,
    ear: Arc<Ear>,
    stop: CancellationToken,
    _endpoint: iroh::Endpoint,
}

impl Heartbeats {
    /// Dials the member, as long as it takes. `answered` is told how long the answer to each heartbeat took.
    ///
    /// # Errors
    /// `E_TRANSPORT` if there is no socket for it.
    pub async fn start(
        node_key: &SigningKey,
        member: &HeardBy,
        answered: Arc<dyn Fn(Duration) + Send + Sync>,
    ) -> Result<Self, NodeError> {
        let endpoint = bind(node_key, (Ipv4Addr::LOCALHOST, 0).into()).await?;
        let entry = PeerEntry {
            key: member.node_key,
            name: "member".into(),
            seat: Some(MemberIndex(0)),
            addresses: vec![member.address.to_string()],
        };
        let links = Links::new(vec![entry], false);
        let ear = Arc::new(Ear {
            chain_id: member.chain_id,
            instance: rand::random::<u64>() | 1,
            awaited: Mutex::default(),
            answered,
        });
        let stop = CancellationToken::new();
        let protocol = ConsensusProtocol {
            links: links.clone(),
            inbound: Arc::clone(&ear),
            tasks: TaskTracker::new(),
            stop: stop.clone(),
        };
        dial_all(&protocol, &endpoint);
        Ok(Self {
            links,
            ear,
            stop,
            _endpoint: endpoint,
        })
    }

    /// Whether the member has been reached.
    pub fn is_connected(&self) -> bool {
        !self.links.connected_members().is_empty()
    }

    /// Has the member send on its events, as machines do with one member at a time.
    pub fn subscribe(&self) {
        self.links.send_to_members(&Frame::Subscribe { on: true });
    }

    /// Sends a heartbeat of a machine; one that was not answered until then no longer counts.
    pub fn beat(&self, machine: u32) {
        let seq = {
            let mut awaited = self.ear.awaited.lock().expect("no holder panics");
            awaited.seq += 1;
            awaited.since = Some(Instant::now());
            awaited.seq
        };
        self.links
            .send_to_members(&Frame::Heartbeat { machine, seq });
    }
}

impl Drop for Heartbeats {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The heartbeat sent last, until it is answered.
#[derive(Default)]
struct Awaited {
    seq: u64,
    since: Option<Instant>,
}

/// Hears answers to heartbeats, and lets go of all else.
struct Ear {
    chain_id: [u8; 32],
    instance: u64,
    awaited: Mutex<Awaited>,
    answered: Arc<dyn Fn(Duration) + Send + Sync>,
}

impl Directory for Ear {
    fn name_of(&self, _: &Key) -> Option<String> {
        None
    }
}

impl Inbound for Ear {
    async fn receive(&self, _: &Arc<Link>, frame: Frame) {
        let Frame::HeartbeatAck { seq, .. } = frame else {
            return;
        };
        let since = {
            let mut awaited = self.awaited.lock().expect("no holder panics");
            (awaited.seq == seq).then(|| awaited.since.take()).flatten()
        };
        if let Some(since) = since {
            (self.answered)(since.elapsed());
        }
    }

    fn replaced(&self, _: Peer) {}

    fn chain_id(&self) -> [u8; 32] {
        self.chain_id
    }

    fn instance(&self) -> u64 {
        self.instance
    }
}
