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

use super::{
    Frame,
    queue::{Lane, Queue},
};
use crate::error::SubmitError;

/// Two connections made within this time are twins: both ends dialled.
const TWIN_WINDOW: Duration = Duration::from_secs(5);
/// Peers in the table: every machine of a large network has a link to each member.
const LINKS_MAX: usize = 1 << 14;
/// Nodes dialled because a peer named them.
const LEARNT_MAX: usize = 16;

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
    /// Name of the machine or operator whose node has that key, if the ledger knows one.
    fn name_of(&self, node_key: &Key) -> Option<String>;
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
struct Role {
    name: String,
    peer: Peer,
    addresses: Vec<String>,
    /// Addresses that a peer gave: they hold where no others are known.
    learnt: Vec<String>,
}

/// One peer.
pub(crate) struct Link {
    pub key: Key,
    /// What may change with an epoch.
    role: RwLock<Role>,
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
}

impl Link {
    fn new(entry: PeerEntry, peer: Peer) -> Arc<Self> {
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
        })
    }

    fn role(&self) -> std::sync::RwLockReadGuard<'_, Role> {
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
    fn push(&self, frame: &Frame, encoded: &super::frame::Encoded, lane: Lane) {
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

struct Table {
    by_key: BTreeMap<Key, Arc<Link>>,
    by_peer: BTreeMap<Peer, Arc<Link>>,
    next_follower: u64,
    /// Whether this node has a seat.
    is_seated: bool,
}

/// The links to all peers. Cheap to clone.
#[derive(Clone)]
pub struct Links {
    table: Arc<RwLock<Table>>,
    /// Counts changes of who is in the table: whoever dials looks again.
    changed: Arc<watch::Sender<u64>>,
    /// Members that closed a connection because another process runs under this node's key.
    replaced_by: Arc<Mutex<HashSet<MemberIndex>>>,
}

impl Links {
    /// A table of peers known beforehand; this node itself, which is seated or not, must not be among them.
    pub(crate) fn new(entries: Vec<PeerEntry>, is_seated: bool) -> Self {
        let mut table = Table {
            by_key: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            next_follower: 0,
            is_seated,
        };
        for entry in entries {
            table.add(entry);
        }
        Self {
            table: Arc::new(RwLock::new(table)),
            changed: Arc::new(watch::Sender::new(0)),
            replaced_by: Arc::default(),
        }
    }

    /// Seats the members of another epoch. Links stand; who has no seat any more stays as a follower.
    pub(crate) fn reseat(&self, entries: Vec<PeerEntry>, is_seated: bool) {
        let mut table = self.table.write().expect("no holder panics");
        table.is_seated = is_seated;
        table.reseat(entries);
        drop(table);
        self.replaced_by.lock().expect("no holder panics").clear();
        self.changed.send_modify(|count| *count += 1);
    }

    /// A peer named a node and where it can be dialled; one that is known already, or one too many, changes nothing.
    pub(crate) fn learn(&self, key: Key, addresses: Vec<String>) {
        let mut table = self.table.write().expect("no holder panics");
        let learnt = |link: &&Arc<Link>| !link.role().learnt.is_empty();
        let full = table.by_key.values().filter(learnt).count() >= LEARNT_MAX;
        if full || addresses.is_empty() {
            return;
        }
        let link = match table.by_key.get(&key) {
            Some(link) if link.addresses().is_empty() => Arc::clone(link),
            Some(_) => return,
            None => table.add(PeerEntry {
                key,
                name: format!("node-{}", &key.to_hex()[..8]),
                seat: None,
                addresses: Vec::new(),
            }),
        };
        link.role.write().expect("no holder panics").learnt = addresses;
        drop(table);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Some of those whom this node is connected to, and where they can be dialled: what it tells others.
    pub(crate) fn connected(&self, most: usize) -> Vec<(Key, Vec<String>)> {
        let table = self.table.read().expect("no holder panics");
        let links = table.by_key.values();
        let connected = links.filter(|link| link.is_connected()).take(most);
        let known = connected.map(|link| {
            let mut addresses = link.addresses();
            let current = link.current.borrow().clone();
            let observed = current.as_ref().and_then(|c| path_of(c).1);
            if let Some(observed) = observed.filter(|_| addresses.is_empty()) {
                addresses.push(observed.to_string());
            }
            (link.key, addresses)
        });
        known.collect()
    }

    /// Tells of changes of the table.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
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
        let name = directory.name_of(key)?;
        let mut table = self.table.write().expect("no holder panics");
        if table.by_key.len() >= LINKS_MAX {
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

    /// Sends a consensus message; it may be lost.
    pub(crate) fn send(&self, to: Recipient, message: &Message) {
        let frame = Frame::Consensus(message.encode());
        let encoded = frame.encode();
        let table = self.table.read().expect("no holder panics");
        match to {
            Recipient::All => table
                .by_peer
                .values()
                .for_each(|link| link.push(&frame, &encoded, Lane::News)),
            Recipient::One(peer) => {
                let link = table.by_peer.get(&peer);
                if let Some(link) = table.stand_in(peer).or(link) {
                    link.push(&frame, &encoded, Lane::Answers);
                }
            }
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
        members.for_each(|(_, link)| link.push(frame, &encoded, Lane::News));
    }

    /// Sends a transaction to a member that is connected; without a seat also to another node without one, which hands it on.
    ///
    /// # Errors
    /// `E_NO_MEMBER` if there is none.
    pub fn forward(&self, wire: &[u8]) -> Result<(), SubmitError> {
        let table = self.table.read().expect("no holder panics");
        let member = table
            .by_peer
            .iter()
            .find(|(p, link)| matches!(p, Peer::Member(_)) && link.is_connected());
        let stand_in = || table.stand_in(Peer::Member(MemberIndex(0)));
        let Some(link) = member.map(|(_, link)| link).or_else(stand_in) else {
            return Err(SubmitError::new(
                "E_NO_MEMBER",
                "this node has no seat and is connected to no member; check its network and [peers] in node.toml",
            ));
        };
        let frame = Frame::Transaction(Bytes::copy_from_slice(wire));
        link.push(&frame, &frame.encode(), Lane::News);
        Ok(())
    }

    /// Addresses known for a node: those configured, and the one a present connection uses.
    pub fn addresses(&self, node_key: &Key) -> Vec<SocketAddr> {
        let table = self.table.read().expect("no holder panics");
        let Some(link) = table.by_key.get(node_key) else {
            return Vec::new();
        };
        let mut addresses: Vec<SocketAddr> = link
            .role()
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
    /// Who is asked in the stead of a member that this node, without a seat, is not connected to: a node without a seat
    /// that it dials, for each member the next. docs/protocol.md 7.10
    fn stand_in(&self, peer: Peer) -> Option<&Arc<Link>> {
        let Peer::Member(seat) = peer else {
            return None;
        };
        let reached = self.by_peer.get(&peer).is_some_and(|l| l.is_connected());
        if self.is_seated || reached {
            return None;
        }
        let others: Vec<_> = self
            .by_peer
            .iter()
            .filter(|(peer, link)| {
                matches!(peer, Peer::Follower(_))
                    && link.is_connected()
                    && !link.addresses().is_empty()
            })
            .map(|(_, link)| link)
            .collect();
        others.get(seat.index() % others.len().max(1)).copied()
    }

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

    fn reseat(&mut self, entries: Vec<PeerEntry>) {
        let links: Vec<Arc<Link>> = self.by_key.values().cloned().collect();
        self.by_peer.clear();
        let mut entries: BTreeMap<Key, PeerEntry> =
            entries.into_iter().map(|e| (e.key, e)).collect();
        for link in links {
            let entry = entries.remove(&link.key);
            let mut role = link.role.write().expect("no holder panics");
            let seat = entry.as_ref().and_then(|e| e.seat);
            role.peer = match (seat, role.peer) {
                (Some(seat), _) => Peer::Member(seat),
                (None, Peer::Follower(number)) => Peer::Follower(number),
                (None, Peer::Member(_)) => {
                    self.next_follower += 1;
                    Peer::Follower(self.next_follower)
                }
            };
            // Whoever has left is no longer dialled; a connection that stands stays.
            role.addresses = entry
                .as_ref()
                .map_or_else(Vec::new, |e| e.addresses.clone());
            if let Some(entry) = entry {
                role.name = entry.name;
            }
            let peer = role.peer;
            drop(role);
            self.by_peer.insert(peer, link);
        }
        for entry in entries.into_values() {
            self.add(entry);
        }
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
