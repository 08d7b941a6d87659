//! One peer: who it is in the present epoch, its connections, and what waits for it.
//!
//! What must not live here: which peers there are.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dagger_ledger::Key;
use iroh::{TransportAddr, endpoint::Connection};
use shadowgraph::{MemberIndex, Peer};
use tokio::sync::watch;

use super::{
    Frame,
    frame::Encoded,
    queue::{Lane, Queue},
};

/// Two connections made within this time are twins: both ends dialled.
const TWIN_WINDOW: Duration = Duration::from_secs(5);

/// A peer known beforehand.
#[derive(Debug, Clone)]
pub(crate) struct PeerEntry {
    pub key: Key,
    pub name: String,
    pub seat: Option<MemberIndex>,
    /// `host:port`, resolved at every attempt.
    pub addresses: Vec<String>,
}

/// An open connection.
pub(crate) struct Open {
    pub connection: Connection,
    pub since: Instant,
    /// The process at the other end, once it has greeted.
    pub instance: Option<u64>,
}

/// What a peer is in the present epoch.
#[derive(Debug, Clone)]
pub(super) struct Role {
    pub name: String,
    pub peer: Peer,
    pub addresses: Vec<String>,
    /// Addresses that a peer gave: they hold where no others are known.
    pub learnt: Vec<String>,
}

/// One peer.
pub(crate) struct Link {
    pub key: Key,
    /// What may change with an epoch.
    pub(super) role: RwLock<Role>,
    pub queue: Queue,
    /// The connection to send on: the newest.
    pub current: watch::Sender<Option<Connection>>,
    /// Every open connection.
    pub open: Mutex<Vec<Open>>,
    pub received_frames: AtomicU64,
    pub sent_bytes: AtomicU64,
    /// The peer is in this process and needs no connection.
    pub in_process: AtomicBool,
    /// Whether a task writes to it, and whether one dials it.
    pub has_writer: AtomicBool,
    pub is_dialled: AtomicBool,
    /// The peer does not admit this node: it said so the last time.
    pub has_refused: AtomicBool,
    /// The peer wants whatever enters this node's graph.
    pub subscribes: AtomicBool,
}

impl Link {
    pub(super) fn new(entry: PeerEntry, peer: Peer) -> Arc<Self> {
        Arc::new(Self {
            key: entry.key,
            role: RwLock::new(Role {
                name: entry.name,
                peer,
                addresses: entry.addresses,
                learnt: Vec::new(),
            }),
            queue: Queue::default(),
            current: watch::Sender::new(None),
            open: Mutex::default(),
            received_frames: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            in_process: AtomicBool::new(false),
            has_writer: AtomicBool::new(false),
            is_dialled: AtomicBool::new(false),
            has_refused: AtomicBool::new(false),
            subscribes: AtomicBool::new(false),
        })
    }

    pub(super) fn role(&self) -> std::sync::RwLockReadGuard<'_, Role> {
        self.role.read().expect("no holder panics")
    }

    /// Its name in logs.
    pub fn name(&self) -> String {
        self.role().name.clone()
    }

    /// What consensus calls it in the present epoch.
    pub fn peer(&self) -> Peer {
        self.role().peer
    }

    /// Where it can be dialled, `host:port`.
    pub fn addresses(&self) -> Vec<String> {
        let role = self.role();
        let known = if role.addresses.is_empty() {
            &role.learnt
        } else {
            &role.addresses
        };
        known.clone()
    }

    /// A new connection: the one to send on, unless there is one that was made at about the same time.
    ///
    /// Both ends may dial at once, and moving to the other connection would lose what is under way. An
    /// older connection is left, for the other end has dialled because it no longer sees that one.
    pub fn adopt(&self, connection: &Connection) {
        let now = Instant::now();
        let mut open = self.open.lock().expect("no holder panics");
        let young = |id: usize| {
            let entry = open.iter().find(|o| o.connection.stable_id() == id);
            entry.is_some_and(|o| o.since + TWIN_WINDOW > now)
        };
        let keep = self
            .current
            .borrow()
            .as_ref()
            .is_some_and(|c| c.close_reason().is_none() && young(c.stable_id()));
        open.push(Open {
            connection: connection.clone(),
            since: now,
            instance: None,
        });
        if !keep {
            self.current.send_replace(Some(connection.clone()));
        }
    }

    /// A connection has greeted, so somebody is there: sends on it, if the current one has not greeted yet.
    /// A peer that was killed as it connected leaves a connection that looks open until it times out.
    pub fn greeted(&self, connection: &Connection) {
        let open = self.open.lock().expect("no holder panics");
        let has_greeted = |id: usize| {
            open.iter()
                .any(|o| o.connection.stable_id() == id && o.instance.is_some())
        };
        self.current.send_if_modified(|current| {
            let silent = current.as_ref().is_none_or(|c| !has_greeted(c.stable_id()));
            if silent {
                *current = Some(connection.clone());
            }
            silent
        });
    }

    /// A connection has ended: sends on another one, if there is any.
    pub fn abandon(&self, connection: &Connection) {
        let ended = connection.stable_id();
        let mut open = self.open.lock().expect("no holder panics");
        open.retain(|o| o.connection.stable_id() != ended);
        let other = open.iter().max_by_key(|o| (o.instance.is_some(), o.since));
        let other = other.map(|o| o.connection.clone());
        self.current.send_if_modified(|current| {
            let was_current = current.as_ref().is_some_and(|c| c.stable_id() == ended);
            if was_current {
                *current = other;
            }
            was_current
        });
    }

    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        let current = self.current.borrow();
        let open = current.as_ref().is_some_and(|c| c.close_reason().is_none());
        open || self.in_process.load(Ordering::Relaxed)
    }

    /// Sends a frame to this peer.
    pub fn send(&self, frame: &Frame) {
        self.push(frame, &frame.encode(), Lane::Answers);
    }

    /// Puts a frame in its lane, or before all others if it is urgent.
    pub(super) fn push(&self, frame: &Frame, encoded: &Encoded, lane: Lane) {
        let lane = if frame.is_urgent() {
            Lane::Urgent
        } else {
            lane
        };
        self.queue.push(encoded.clone(), lane, self.is_connected());
    }
}

/// A peer as `status` shows it.
#[derive(Debug, Clone)]
pub struct LinkView {
    /// Its name.
    pub name: String,
    /// Its node key.
    pub key: Key,
    /// Its seat, if it is a member.
    pub seat: Option<MemberIndex>,
    /// Whether there is a connection.
    pub connected: bool,
    /// Round trip of the path in use.
    pub rtt: Option<Duration>,
    /// Remote address of the path in use.
    pub address: Option<SocketAddr>,
    /// Frames dropped because it is too slow.
    pub dropped_frames: u64,
    /// Bytes that wait for it.
    pub queued_bytes: usize,
    /// Frames received from it.
    pub received_frames: u64,
    /// Bytes sent to it.
    pub sent_bytes: u64,
}

impl Link {
    pub(super) fn view(&self) -> LinkView {
        let connection = self
            .current
            .borrow()
            .clone()
            .filter(|c| c.close_reason().is_none());
        let (rtt, address) = connection.as_ref().map_or((None, None), path_of);
        LinkView {
            name: self.name(),
            key: self.key,
            seat: match self.peer() {
                Peer::Member(seat) => Some(seat),
                Peer::Follower(_) => None,
            },
            connected: self.is_connected(),
            rtt,
            address,
            dropped_frames: self.queue.dropped(),
            queued_bytes: self.queue.bytes(),
            received_frames: self.received_frames.load(Ordering::Relaxed),
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
        }
    }
}

pub(super) fn path_of(connection: &Connection) -> (Option<Duration>, Option<SocketAddr>) {
    let paths = connection.paths();
    let path = paths
        .iter()
        .find(iroh::endpoint::Path::is_selected)
        .or_else(|| paths.iter().next());
    path.map_or((None, None), |path| {
        let address = match path.remote_addr() {
            TransportAddr::Ip(address) => Some(*address),
            _ => None,
        };
        (Some(path.rtt()), address)
    })
}
