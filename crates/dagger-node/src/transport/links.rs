//! The table of peers: who they are, how to reach them, what waits for them.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use dagger_ledger::Key;
use iroh::{TransportAddr, endpoint::Connection};
use shadowgraph::{MemberIndex, Message, Peer, Recipient};
use tokio::sync::watch;

use super::{Frame, queue::Queue};
use crate::error::SubmitError;

/// Two connections made within this time are twins: both ends dialled.
const TWIN_WINDOW: Duration = Duration::from_secs(5);
/// Followers served at once.
const FOLLOWERS_MAX: usize = 256;

/// A peer known beforehand.
#[derive(Debug, Clone)]
pub(crate) struct PeerEntry {
    pub key: Key,
    pub name: String,
    pub seat: Option<MemberIndex>,
    /// `host:port`, resolved at every attempt.
    pub addresses: Vec<String>,
}

/// Says who may connect, beyond those known beforehand.
pub(crate) trait Directory: Send + Sync + 'static {
    /// Name of the machine whose node has that key, if the ledger knows one.
    fn machine_of(&self, node_key: &Key) -> Option<String>;
}

/// An open connection.
pub(crate) struct Open {
    pub connection: Connection,
    pub since: Instant,
    /// The process at the other end, once it has greeted.
    pub instance: Option<u64>,
}

/// One peer.
pub(crate) struct Link {
    pub key: Key,
    pub name: String,
    pub peer: Peer,
    pub addresses: Vec<String>,
    pub queue: Queue,
    /// The connection to send on: the newest.
    pub current: watch::Sender<Option<Connection>>,
    /// Every open connection.
    pub open: Mutex<Vec<Open>>,
    pub received_frames: AtomicU64,
    pub sent_bytes: AtomicU64,
    /// The peer is in this process and needs no connection.
    pub in_process: AtomicBool,
}

impl Link {
    fn new(entry: PeerEntry, peer: Peer) -> Arc<Self> {
        Arc::new(Self {
            key: entry.key,
            name: entry.name,
            peer,
            addresses: entry.addresses,
            queue: Queue::default(),
            current: watch::Sender::new(None),
            open: Mutex::default(),
            received_frames: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            in_process: AtomicBool::new(false),
        })
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

    fn push(&self, frame: &Frame, encoded: &super::frame::Encoded) {
        self.queue
            .push(encoded.clone(), frame.is_urgent(), self.is_connected());
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

struct Table {
    by_key: BTreeMap<Key, Arc<Link>>,
    by_peer: BTreeMap<Peer, Arc<Link>>,
    next_follower: u64,
}

/// The links to all peers. Cheap to clone.
#[derive(Clone)]
pub struct Links {
    table: Arc<RwLock<Table>>,
    /// Members that closed a connection because another process runs under this node's key.
    replaced_by: Arc<Mutex<HashSet<MemberIndex>>>,
}

impl Links {
    /// A table of peers known beforehand; this node itself must not be among them.
    pub(crate) fn new(entries: Vec<PeerEntry>) -> Self {
        let mut table = Table {
            by_key: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            next_follower: 0,
        };
        for entry in entries {
            table.add(entry);
        }
        Self {
            table: Arc::new(RwLock::new(table)),
            replaced_by: Arc::default(),
        }
    }

    /// All links.
    pub(crate) fn all(&self) -> Vec<Arc<Link>> {
        self.table
            .read()
            .expect("no holder panics")
            .by_key
            .values()
            .cloned()
            .collect()
    }

    /// The link of a node that has connected; a new one for a machine of the ledger; `None` for a stranger.
    pub(crate) fn admit(&self, key: &Key, directory: &dyn Directory) -> Option<Arc<Link>> {
        if let Some(link) = self.table.read().expect("no holder panics").by_key.get(key) {
            return Some(Arc::clone(link));
        }
        let name = directory.machine_of(key)?;
        let mut table = self.table.write().expect("no holder panics");
        if table
            .by_peer
            .keys()
            .filter(|p| matches!(p, Peer::Follower(_)))
            .count()
            >= FOLLOWERS_MAX
        {
            return None;
        }
        Some(table.add(PeerEntry {
            key: *key,
            name,
            seat: None,
            addresses: Vec::new(),
        }))
    }

    /// Whether the node is a peer known beforehand or has been admitted.
    pub(crate) fn knows(&self, key: &Key) -> bool {
        self.table
            .read()
            .expect("no holder panics")
            .by_key
            .contains_key(key)
    }

    /// The link of a peer.
    pub(crate) fn by_key(&self, key: &Key) -> Option<Arc<Link>> {
        let table = self.table.read().expect("no holder panics");
        table.by_key.get(key).cloned()
    }

    /// The node key of a peer.
    pub(crate) fn key_of(&self, peer: Peer) -> Option<Key> {
        self.table
            .read()
            .expect("no holder panics")
            .by_peer
            .get(&peer)
            .map(|link| link.key)
    }

    /// Sends a consensus message; it may be lost.
    pub(crate) fn send(&self, to: Recipient, message: &Message) {
        let frame = Frame::Consensus(message.encode());
        let encoded = frame.encode();
        let table = self.table.read().expect("no holder panics");
        match to {
            Recipient::All => table
                .by_peer
                .values()
                .for_each(|link| link.push(&frame, &encoded)),
            Recipient::One(peer) => {
                if let Some(link) = table.by_peer.get(&peer) {
                    link.push(&frame, &encoded);
                }
            }
        }
    }

    /// Sends a frame to one peer.
    pub(crate) fn send_frame(&self, to: Peer, frame: &Frame) {
        if let Some(link) = self
            .table
            .read()
            .expect("no holder panics")
            .by_peer
            .get(&to)
        {
            link.push(frame, &frame.encode());
        }
    }

    /// Sends a frame to every other member.
    pub(crate) fn send_to_members(&self, frame: &Frame) {
        let encoded = frame.encode();
        let table = self.table.read().expect("no holder panics");
        let members = table
            .by_peer
            .iter()
            .filter(|(p, _)| matches!(p, Peer::Member(_)));
        members.for_each(|(_, link)| link.push(frame, &encoded));
    }

    /// Sends a transaction to a member that is connected.
    ///
    /// # Errors
    /// `E_NO_MEMBER` if there is none.
    pub fn forward(&self, wire: &[u8]) -> Result<(), SubmitError> {
        let table = self.table.read().expect("no holder panics");
        let member = table
            .by_peer
            .iter()
            .find(|(p, link)| matches!(p, Peer::Member(_)) && link.is_connected());
        let Some((_, link)) = member else {
            return Err(SubmitError::new(
                "E_NO_MEMBER",
                "this node has no seat and is connected to no member; check its network and [peers] in node.toml",
            ));
        };
        let frame = Frame::Transaction(Bytes::copy_from_slice(wire));
        link.push(&frame, &frame.encode());
        Ok(())
    }

    /// Addresses known for a node: those configured, and the one a present connection uses.
    pub fn addresses(&self, node_key: &Key) -> Vec<SocketAddr> {
        let table = self.table.read().expect("no holder panics");
        let Some(link) = table.by_key.get(node_key) else {
            return Vec::new();
        };
        let mut addresses: Vec<SocketAddr> = link
            .addresses
            .iter()
            .filter_map(|a| a.parse().ok())
            .collect();
        let observed = link.current.borrow().as_ref().and_then(|c| path_of(c).1);
        addresses.extend(observed.filter(|a| !addresses.contains(a)));
        addresses
    }

    /// Members connected at present.
    pub fn connected_members(&self) -> Vec<MemberIndex> {
        let table = self.table.read().expect("no holder panics");
        let seat = |(peer, link): (&Peer, &Arc<Link>)| match peer {
            Peer::Member(seat) if link.is_connected() => Some(*seat),
            _ => None,
        };
        table.by_peer.iter().filter_map(seat).collect()
    }

    /// Notes that a member saw another process under this node's key; returns all who did.
    pub(crate) fn note_replaced(&self, by: MemberIndex) -> Vec<MemberIndex> {
        let mut members = self.replaced_by.lock().expect("no holder panics");
        members.insert(by);
        members.iter().copied().collect()
    }

    /// What `status` shows.
    pub fn views(&self) -> Vec<LinkView> {
        self.all().iter().map(|link| link.view()).collect()
    }

    /// Closes every connection.
    pub(crate) fn close_all(&self) {
        for link in self.all() {
            for open in link.open.lock().expect("no holder panics").drain(..) {
                open.connection
                    .close(super::session::CLOSE_STOPPING, b"the node stops");
            }
        }
    }
}

impl Table {
    fn add(&mut self, entry: PeerEntry) -> Arc<Link> {
        let peer = entry.seat.map_or_else(
            || {
                self.next_follower += 1;
                Peer::Follower(self.next_follower)
            },
            Peer::Member,
        );
        let link = Link::new(entry, peer);
        self.by_key.insert(link.key, Arc::clone(&link));
        self.by_peer.insert(peer, Arc::clone(&link));
        link
    }
}

impl Link {
    fn view(&self) -> LinkView {
        let connection = self
            .current
            .borrow()
            .clone()
            .filter(|c| c.close_reason().is_none());
        let (rtt, address) = connection.as_ref().map_or((None, None), path_of);
        LinkView {
            name: self.name.clone(),
            key: self.key,
            seat: match self.peer {
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

fn path_of(connection: &Connection) -> (Option<Duration>, Option<SocketAddr>) {
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
