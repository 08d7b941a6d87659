//! Each peer orders the transactions of four members, and all members the same way.

use bytes::Bytes;
use peers::pool::{Pool, numbers};
use peers::{Digest, Ordered, Peer, Seat, start};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

const N: u16 = 4;
const SIZE: usize = 512;
const OF_EACH: u64 = 50;
const PATIENCE: Duration = Duration::from_secs(60);

/// Keeps every transaction: whose it is, and its number.
#[derive(Default)]
struct Kept(Mutex<Vec<(u16, u64)>>);

impl Ordered for Kept {
    fn ordered(&self, creator: u16, _: &Digest, payload: &Bytes) {
        assert_eq!(payload.len() % SIZE, 0);
        let mut all = self.0.lock().unwrap();
        all.extend(numbers(payload, SIZE).map(|number| (creator, number)));
    }
}

impl Kept {
    fn all(&self) -> Vec<(u16, u64)> {
        self.0.lock().unwrap().clone()
    }
}

async fn orders_all_transactions_alike(peer: Peer) {
    let mut listeners = Vec::new();
    for _ in 0..N {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let addresses: Vec<_> = listeners.iter().map(|l| l.local_addr().unwrap()).collect();
    let (mut pools, mut kept, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    for (seat, listener) in (0..N).zip(listeners) {
        let pool = Arc::new(Pool::new(seat, SIZE, 1 << 20));
        let ordered = Arc::new(Kept::default());
        let seat = Seat {
            seat,
            addresses: addresses.clone(),
            listener,
            memory_dir: memory.path().join(seat.to_string()),
            pool: Arc::clone(&pool),
            ordered: Arc::clone(&ordered) as _,
        };
        starts.push(tokio::spawn(start(peer, seat)));
        pools.push(pool);
        kept.push(ordered);
    }
    let mut wires = Vec::new();
    for start in starts {
        wires.push(start.await.unwrap().unwrap());
    }
    for number in 0..OF_EACH {
        for pool in &pools {
            assert_eq!(pool.submit(number..number + 1), 0);
        }
        // So that there is more than one payload of each.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let until = Instant::now() + PATIENCE;
    let total = u64::from(N) * OF_EACH;
    while kept.iter().any(|k| (k.all().len() as u64) < total) {
        let seen: Vec<usize> = kept.iter().map(|k| k.all().len()).collect();
        assert!(Instant::now() < until, "ordered only {seen:?} of {total}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let first = kept[0].all();
    for other in &kept[1..] {
        assert_eq!(other.all(), first, "members differ");
    }
    let once: BTreeSet<_> = first.iter().copied().collect();
    let expected = (0..N).flat_map(|seat| (0..OF_EACH).map(move |number| (seat, number)));
    assert_eq!(once, expected.collect());
    assert_eq!(first.len(), once.len(), "something was ordered twice");
}

async fn aleph_orders_all_transactions_alike(payload_inside: bool) {
    let peer = Peer::Aleph {
        unit_delay_ms: 5,
        payload_inside,
    };
    orders_all_transactions_alike(peer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aleph_orders_payloads_beside_units() {
    aleph_orders_all_transactions_alike(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aleph_orders_payloads_inside_units() {
    aleph_orders_all_transactions_alike(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn simplex_orders_payloads() {
    orders_all_transactions_alike(Peer::Simplex { pace_ms: 5 }).await;
}
