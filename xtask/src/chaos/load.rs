//! The load: clients that open accounts one after another through the `dagger` command, each through a node that is drawn
//! anew; what the command says succeeded is acknowledged and must never be lost.

use super::network::{Network, Way};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Clients at work.
const CLIENTS: usize = 4;

struct Shared {
    ways: Mutex<Vec<Way>>,
    stop: AtomicBool,
    acknowledged: Mutex<BTreeSet<String>>,
    failed: AtomicUsize,
    /// When the last acknowledgement came, and the longest time between two.
    last: Mutex<(Instant, Duration)>,
}

/// Clients at work.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

/// What they saw.
pub struct Report {
    pub acknowledged: BTreeSet<String>,
    pub failed: usize,
    pub longest_gap: Duration,
}

impl Load {
    pub fn start(network: &Network) -> Self {
        let shared = Arc::new(Shared {
            ways: Mutex::new(network.ways()),
            stop: AtomicBool::new(false),
            acknowledged: Mutex::default(),
            failed: AtomicUsize::new(0),
            last: Mutex::new((Instant::now(), Duration::ZERO)),
        });
        let clients = (0..CLIENTS)
            .map(|client| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.work(client))
            })
            .collect();
        Self { shared, clients }
    }

    /// Lets the clients use nodes that came later too.
    pub fn widen(&self, network: &Network) {
        *self.shared.ways.lock().expect("no holder panics") = network.ways();
    }

    pub fn acknowledged(&self) -> usize {
        self.shared
            .acknowledged
            .lock()
            .expect("no holder panics")
            .len()
    }

    /// Ends the clients.
    pub fn finish(self) -> Report {
        self.shared.stop.store(true, Ordering::Release);
        for client in self.clients {
            let _ = client.join();
        }
        let acknowledged = self.shared.acknowledged.lock().expect("no holder panics");
        Report {
            acknowledged: acknowledged.clone(),
            failed: self.shared.failed.load(Ordering::Relaxed),
            longest_gap: self.shared.last.lock().expect("no holder panics").1,
        }
    }
}

impl Shared {
    fn work(&self, client: usize) {
        for n in 0.. {
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            let way = {
                let ways = self.ways.lock().expect("no holder panics");
                ways[(n + client) % ways.len()].clone()
            };
            let name = format!("c{client}-{n}");
            if way.open_account(&name) {
                self.acknowledge(name);
            } else {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn acknowledge(&self, name: String) {
        let mut last = self.last.lock().expect("no holder panics");
        let gap = last.0.elapsed();
        *last = (Instant::now(), last.1.max(gap));
        drop(last);
        self.acknowledged
            .lock()
            .expect("no holder panics")
            .insert(name);
    }
}
