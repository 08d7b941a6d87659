//! Links between real endpoints on loopback: order, strangers, other networks, restarts, slow peers.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use dagger_ledger::Key;
use ed25519_zebra::SigningKey;
use iroh::{Endpoint, protocol::Router};
use shadowgraph::{MemberIndex, Message, Peer, Recipient};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    ALPN, ConsensusProtocol, Directory, Frame, Inbound, Link, Links, PeerEntry, bind, dial_all,
};

const DEADLINE: Duration = Duration::from_secs(60);

/// Keeps what it receives.
struct Collector {
    chain_id: [u8; 32],
    instance: u64,
    received: Mutex<Vec<(Peer, Frame)>>,
    replaced: Mutex<Vec<Peer>>,
    machine: Option<Key>,
}

impl Directory for Collector {
    fn name_of(&self, node_key: &Key) -> Option<String> {
        (self.machine.as_ref() == Some(node_key)).then(|| "machine".into())
    }
}

impl Inbound for Collector {
    async fn receive(&self, from: &Arc<Link>, frame: Frame) {
        self.received.lock().unwrap().push((from.peer(), frame));
    }
    fn replaced(&self, by: Peer) {
        self.replaced.lock().unwrap().push(by);
    }
    fn chain_id(&self) -> [u8; 32] {
        self.chain_id
    }
    fn instance(&self) -> u64 {
        self.instance
    }
}

struct TestNode {
    links: Links,
    collector: Arc<Collector>,
    endpoint: Endpoint,
    router: Router,
    stop: CancellationToken,
}

fn key(seat: u16) -> SigningKey {
    SigningKey::from([u8::try_from(seat).unwrap() + 1; 32])
}

fn public(seat: u16) -> Key {
    Key(key(seat).verification_key().into())
}

/// Addresses that were free a moment ago.
fn addresses(n: u16) -> Vec<SocketAddr> {
    let sockets: Vec<_> = (0..n)
        .map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
        .collect();
    sockets.iter().map(|s| s.local_addr().unwrap()).collect()
}

async fn start(
    seat: u16,
    addresses: &[SocketAddr],
    chain: u8,
    instance: u64,
    machine: Option<Key>,
) -> TestNode {
    let endpoint = bind(&key(seat), addresses[usize::from(seat)])
        .await
        .unwrap();
    let entries = (0..u16::try_from(addresses.len()).unwrap())
        .filter(|other| *other != seat)
        .map(|other| PeerEntry {
            key: public(other),
            name: format!("peer-{other}"),
            seat: Some(MemberIndex(other)),
            addresses: vec![addresses[usize::from(other)].to_string()],
        })
        .collect();
    let links = Links::new(entries, true);
    let collector = Arc::new(Collector {
        chain_id: [chain; 32],
        instance,
        received: Mutex::default(),
        replaced: Mutex::default(),
        machine,
    });
    let stop = CancellationToken::new();
    let protocol = ConsensusProtocol {
        links: links.clone(),
        inbound: Arc::clone(&collector),
        tasks: TaskTracker::new(),
        stop: stop.clone(),
    };
    dial_all(&protocol, &endpoint);
    let router = Router::builder(endpoint.clone())
        .accept(ALPN, protocol)
        .spawn();
    TestNode {
        links,
        collector,
        endpoint,
        router,
        stop,
    }
}

impl TestNode {
    /// Goes away; returns once its port is free again.
    async fn vanish(self, address: SocketAddr) {
        self.stop.cancel();
        let _ = self.router.shutdown().await;
        self.links.close_all();
        drop((self.links, self.router, self.endpoint));
        until("the release of the port", || {
            UdpSocket::bind(address).is_ok()
        })
        .await;
    }

    fn numbers(&self, from: u16) -> Vec<u64> {
        let received = self.collector.received.lock().unwrap();
        let number = |(peer, frame): &(Peer, Frame)| match frame {
            Frame::Transaction(bytes) if *peer == Peer::Member(MemberIndex(from)) => {
                Some(u64::from_le_bytes(bytes[..8].try_into().unwrap()))
            }
            _ => None,
        };
        received.iter().filter_map(number).collect()
    }

    fn send(&self, to: u16, number: u64, padding: usize) {
        let mut bytes = vec![0; 8 + padding];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        let link = self.links.by_key(&public(to)).unwrap();
        link.send(&Frame::Transaction(Bytes::from(bytes)));
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + DEADLINE;
    while !condition() {
        assert!(tokio::time::Instant::now() < end, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_arrive_in_order_in_both_directions_and_large_ones_whole() {
    let addresses = addresses(2);
    let (a, b) = (
        start(0, &addresses, 9, 1, None).await,
        start(1, &addresses, 9, 2, None).await,
    );
    until("a connection", || {
        !a.links.connected_members().is_empty() && !b.links.connected_members().is_empty()
    })
    .await;
    for n in 0..200 {
        a.send(1, n, if n == 100 { 3 << 20 } else { 10 });
        b.send(0, n, 0);
    }
    until("delivery", || {
        b.numbers(0).len() == 200 && a.numbers(1).len() == 200
    })
    .await;
    assert!(b.numbers(0).into_iter().eq(0..200) && a.numbers(1).into_iter().eq(0..200));
    let large = b
        .collector
        .received
        .lock()
        .unwrap()
        .iter()
        .filter(|(_, f)| matches!(f, Frame::Transaction(t) if t.len() == (3 << 20) + 8))
        .count();
    assert_eq!(large, 1);
    let view = &a.links.views()[0];
    assert!(
        view.connected && view.address == Some(addresses[1]),
        "{view:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_network_is_refused() {
    let addresses = addresses(2);
    let (a, b) = (
        start(0, &addresses, 1, 1, None).await,
        start(1, &addresses, 2, 2, None).await,
    );
    a.send(1, 7, 0);
    b.send(0, 7, 0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(a.numbers(1).is_empty() && b.numbers(0).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_refused_and_a_machine_of_the_ledger_is_not() {
    let addresses = addresses(3);
    // Nodes 1 and 2 know node 0; node 0 knows neither, but 2 is a machine on its ledger.
    let zero = start(0, &addresses[..1], 9, 1, Some(public(2))).await;
    let (one, two) = (
        start(1, &addresses, 9, 2, None).await,
        start(2, &addresses, 9, 3, None).await,
    );
    one.send(0, 1, 0);
    two.send(0, 2, 0);
    until("the machine's frame", || {
        zero.collector
            .received
            .lock()
            .unwrap()
            .iter()
            .any(|(p, f)| matches!((p, f), (Peer::Follower(_), Frame::Transaction(t)) if t[0] == 2))
    })
    .await;
    assert_eq!(zero.collector.received.lock().unwrap().len(), 1);
    assert_eq!(zero.links.views().len(), 1);
    // And it can be answered.
    let machine = zero.links.views()[0].key;
    assert_eq!(machine, public(2));
    let link = zero.links.by_key(&machine).unwrap();
    assert_eq!(link.peer(), Peer::Follower(1));
    link.send(&Frame::Heartbeat { machine: 5, seq: 6 });
    until("the answer", || {
        two.collector
            .received
            .lock()
            .unwrap()
            .iter()
            .any(|(_, f)| *f == Frame::Heartbeat { machine: 5, seq: 6 })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_for_members_and_what_is_for_subscribers_goes_to_those_alone() {
    let addresses = addresses(3);
    // To node 0, node 1 is a member and node 2 a machine.
    let zero = start(0, &addresses[..2], 9, 1, Some(public(2))).await;
    let (one, two) = (
        start(1, &addresses, 9, 2, None).await,
        start(2, &addresses, 9, 3, None).await,
    );
    until("connections", || {
        let views = zero.links.views();
        views.len() == 2 && views.iter().all(|peer| peer.connected)
    })
    .await;
    let message = |number: u8| Message::Events(vec![Bytes::from(vec![number])]);
    let heard = |node: &TestNode| {
        let received = node.collector.received.lock().unwrap();
        let of_zero = received.iter().filter_map(|(peer, frame)| match frame {
            Frame::Consensus(bytes) if *peer == Peer::Member(MemberIndex(0)) => bytes.last(),
            _ => None,
        });
        // What is said to one peer goes before what all get.
        of_zero.copied().collect::<BTreeSet<u8>>()
    };
    assert_eq!(zero.links.send_to_subscribers(&message(1)), 0);
    zero.links.send(Recipient::All, &message(2));
    let machine = zero.links.by_key(&public(2)).unwrap();
    machine.subscribes.store(true, Ordering::Relaxed);
    // A member has its events from their creators, whatever it once wanted.
    let member = zero.links.by_key(&public(1)).unwrap();
    member.subscribes.store(true, Ordering::Relaxed);
    assert_eq!(zero.links.send_to_subscribers(&message(3)), 1);
    zero.links.send(Recipient::All, &message(4));
    machine.subscribes.store(false, Ordering::Relaxed);
    assert_eq!(zero.links.send_to_subscribers(&message(5)), 0);
    for peer in [member.peer(), machine.peer()] {
        zero.links.send(Recipient::One(peer), &message(6));
    }
    until("all", || heard(&one).len() + heard(&two).len() >= 5).await;
    assert_eq!(heard(&one), BTreeSet::from([2, 4, 6]));
    assert_eq!(heard(&two), BTreeSet::from([3, 6]));
    // Who is gone is no subscriber any more.
    machine.subscribes.store(true, Ordering::Relaxed);
    two.vanish(addresses[2]).await;
    until("the end of the connection", || !machine.is_connected()).await;
    assert_eq!(zero.links.send_to_subscribers(&message(7)), 0);
    assert!(!machine.subscribes.load(Ordering::Relaxed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_peer_is_linked_again() {
    let addresses = addresses(2);
    let (a, b) = (
        start(0, &addresses, 9, 1, None).await,
        start(1, &addresses, 9, 2, None).await,
    );
    a.send(1, 1, 0);
    until("the first frame", || b.numbers(0) == [1]).await;
    b.vanish(addresses[1]).await;
    let b = start(1, &addresses, 9, 3, None).await;
    until("a link again", || {
        a.send(1, 2, 0);
        b.numbers(0).contains(&2)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_under_one_node_key_is_announced_to_the_first() {
    let mut addresses = addresses(3);
    let spare = addresses.pop().unwrap();
    let (a, b) = (
        start(0, &addresses, 9, 1, None).await,
        start(1, &addresses, 9, 2, None).await,
    );
    a.send(1, 1, 0);
    b.send(0, 1, 0);
    until("greetings", || b.numbers(0) == [1] && a.numbers(1) == [1]).await;
    // The copy runs elsewhere, as it does when a data directory was copied to another machine.
    let elsewhere = [addresses[0], spare];
    let copy = start(1, &elsewhere, 9, 3, None).await;
    copy.send(0, 5, 0);
    until("the announcement", || {
        !b.collector.replaced.lock().unwrap().is_empty()
    })
    .await;
    assert_eq!(
        b.collector.replaced.lock().unwrap()[0],
        Peer::Member(MemberIndex(0))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_is_named() {
    let addresses = addresses(1);
    let held = start(0, &addresses, 9, 1, None).await;
    let error = bind(&key(1), addresses[0]).await.unwrap_err();
    assert_eq!(error.code(), "E_PORT_IN_USE");
    assert!(error.to_string().contains(&addresses[0].to_string()));
    drop(held.endpoint);
}

#[test]
fn frames_decode_strictly() {
    let frames = [
        Frame::Heartbeat { machine: 1, seq: 2 },
        Frame::HeartbeatAck {
            machine: 1,
            seq: 2,
            epoch: 4,
            round: 3,
        },
        Frame::Consensus(Bytes::from_static(b"abc")),
        Frame::Transaction(Bytes::new()),
        Frame::Subscribe { on: true },
    ];
    for frame in frames {
        let encoded = frame.encode();
        let mut bytes = encoded.head.to_vec();
        bytes.extend_from_slice(&encoded.body);
        assert_eq!(
            super::frame::frame_length(bytes[..4].try_into().unwrap()),
            Ok(bytes.len() - 4)
        );
        assert_eq!(Frame::decode(Bytes::from(bytes.split_off(4))), Ok(frame));
    }
    assert!(Frame::decode(Bytes::from_static(&[2, 0, 0])).is_err());
    assert!(Frame::decode(Bytes::from_static(&[5, 2])).is_err());
    assert!(Frame::decode(Bytes::from_static(&[99])).is_err());
    assert!(Frame::decode(Bytes::new()).is_err());
    assert!(super::frame::frame_length([0; 4]).is_err());
    assert!(super::frame::frame_length([0xff; 4]).is_err());
}

/// Knows everybody.
struct Everybody;

impl Directory for Everybody {
    fn name_of(&self, node_key: &Key) -> Option<String> {
        Some(node_key.to_hex())
    }
}

#[test]
fn ten_thousand_machines_are_admitted_and_not_any_number() {
    let links = Links::new(Vec::new(), true);
    let machine = |number: u32| {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        Key(key)
    };
    let admitted = (0..20_000).map(|number| links.admit(&machine(number), &Everybody).is_some());
    assert_eq!(admitted.filter(|admitted| *admitted).count(), 16_384);
    // Who is in stays in.
    assert!(links.admit(&machine(0), &Everybody).is_some());
    assert!(links.admit(&machine(16_384), &Everybody).is_none());
}
