//! The table of peers: which there are, who may connect, and what is sent to whom.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex, RwLock, atomic::Ordering},
};

use bytes::Bytes;
use dagger_ledger::Key;
use shadowgraph::{MemberIndex, Message, Peer, Recipient};
use tokio::sync::watch;

use super::{
    Frame,
    link::{Link, LinkView, PeerEntry, path_of},
    queue::Lane,
};
use crate::error::SubmitError;

/// Peers in the table: every machine of a large network has a link to each member.
const LINKS_MAX: usize = 1 << 14;
/// Nodes dialled because a peer named them.
const LEARNT_MAX: usize = 16;

/// Says who may connect, beyond those known beforehand.
pub(crate) trait Directory: Send + Sync + 'static {
    /// Name of the machine or operator whose node has that key, if the ledger knows one.
    fn name_of(&self, node_key: &Key) -> Option<String>;
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
                .members()
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
        table
            .members()
            .for_each(|link| link.push(frame, &encoded, Lane::News));
    }

    /// Sends a consensus message to the nodes without a seat that have subscribed; gives their number.
    pub(crate) fn send_to_subscribers(&self, message: &Message) -> usize {
        let frame = Frame::Consensus(message.encode());
        let encoded = frame.encode();
        let table = self.table.read().expect("no holder panics");
        let mut sent = 0;
        for link in table.by_peer.values() {
            if !link.subscribes.load(Ordering::Relaxed) || link.peer().is_member() {
                continue;
            }
            if link.is_connected() {
                link.push(&frame, &encoded, Lane::News);
                sent += 1;
            } else {
                // It subscribes again when it is back, perhaps elsewhere.
                link.subscribes.store(false, Ordering::Relaxed);
            }
        }
        sent
    }

    /// Whom a node without a seat may have its events from: the members that are connected; if none is, those without a seat that
    /// it dials.
    pub(crate) fn sources(&self) -> Vec<Arc<Link>> {
        let table = self.table.read().expect("no holder panics");
        let members: Vec<_> = table.members().filter(|l| l.is_connected()).collect();
        let found = if members.is_empty() {
            table.dialled().collect()
        } else {
            members
        };
        found.into_iter().cloned().collect()
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
            .find(|(p, link)| p.is_member() && link.is_connected());
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
        let others: Vec<_> = self.dialled().collect();
        others.get(seat.index() % others.len().max(1)).copied()
    }

    fn members(&self) -> impl Iterator<Item = &Arc<Link>> {
        let links = self.by_peer.iter();
        links.filter_map(|(peer, link)| peer.is_member().then_some(link))
    }

    /// The nodes without a seat that this node dials and is connected to.
    fn dialled(&self) -> impl Iterator<Item = &Arc<Link>> {
        let links = self.by_peer.iter();
        let others = links.filter_map(|(peer, link)| (!peer.is_member()).then_some(link));
        others.filter(|link| link.is_connected() && !link.addresses().is_empty())
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
