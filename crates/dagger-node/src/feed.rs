//! Events for nodes without a seat: each subscribes to one peer, which sends on whatever enters its graph, a little later and many
//! events at once. docs/protocol.md 7.11
//!
//! A member sends its own events to members alone. It could not send each to every machine of a large network: that would cost it a
//! packet for each event and machine.
//!
//! What must not live here: what an event means. It is bytes that are on this node's disk.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use prometheus_client::metrics::gauge::Gauge;
use rand::seq::IndexedRandom as _;
use shadowgraph::{MESSAGE_EVENTS_MAX, Message};
use tokio::sync::Notify;

use crate::{
    handle::Shared,
    transport::{Frame, Link, Links},
};

/// How long events are gathered before they are sent on.
const GATHER: Duration = Duration::from_millis(50);
/// Bytes of events after which a message takes no more; far below what a message may have.
const MESSAGE_BYTES: usize = 256 << 10;
/// Bytes of events that may wait. What does not fit is lost to subscribers until they ask for it.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// How often a subscriber looks whether its source is there.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often it repeats its word, which a connection may have lost.
const REPEAT_INTERVAL: Duration = Duration::from_secs(5);
/// How long it stays with one source. A silent one costs it some seconds of delay once and half a second from then on: it asks others
/// how far they are in any case (docs/protocol.md 7.6).
const TURN: Duration = Duration::from_secs(20);

/// What waits to be sent on to subscribers.
#[derive(Default)]
pub(crate) struct Feed {
    waiting: Mutex<Waiting>,
    some: Notify,
    /// Whether there may be subscribers.
    wanted: AtomicBool,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Bytes>,
    bytes: usize,
}

impl Feed {
    /// Whether anybody may want events.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// A subscriber has come.
    pub fn want(&self) {
        self.wanted.store(true, Ordering::Release);
    }

    /// Events that are on disk, ancestors first.
    pub fn put(&self, events: impl Iterator<Item = Bytes>) {
        let mut waiting = self.waiting.lock().expect("no holder panics");
        for event in events {
            if waiting.bytes + event.len() > WAITING_BYTES_MAX {
                break;
            }
            waiting.bytes += event.len();
            waiting.events.push_back(event);
        }
        drop(waiting);
        self.some.notify_one();
    }

    /// The next of them, as many as go into one message.
    fn take(&self) -> Vec<Bytes> {
        let mut waiting = self.waiting.lock().expect("no holder panics");
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < MESSAGE_BYTES
            && batch.len() < MESSAGE_EVENTS_MAX
            && let Some(event) = waiting.events.pop_front()
        {
            bytes += event.len();
            batch.push(event);
        }
        waiting.bytes -= bytes;
        batch
    }

    /// Sends on what comes, for as long as the node runs.
    pub async fn run(&self, links: Links, subscribers: Gauge) {
        loop {
            self.some.notified().await;
            tokio::time::sleep(GATHER).await;
            loop {
                let events = self.take();
                if events.is_empty() {
                    break;
                }
                // Before the look at who there is: whoever comes meanwhile sets it again.
                self.wanted.store(false, Ordering::Release);
                let sent_to = links.send_to_subscribers(&Message::Events(events));
                if sent_to > 0 {
                    self.want();
                }
                subscribers.set(i64::try_from(sent_to).unwrap_or(i64::MAX));
            }
        }
    }
}

/// Whom a node without a seat has its events from.
struct Source {
    link: Arc<Link>,
    since: Instant,
    asked: Instant,
}

/// Subscribes while this node has no seat, to one after another, for as long as it runs.
pub(crate) async fn subscribe(shared: Arc<Shared>) {
    let mut source: Option<Source> = None;
    let mut before: Option<Source> = None;
    loop {
        // Only now, so that nothing is missed between the two.
        if let Some(before) = before.take() {
            before.link.send(&Frame::Subscribe { on: false });
        }
        let stays = source
            .as_ref()
            .is_some_and(|s| s.link.is_connected() && s.since.elapsed() < TURN);
        if shared.seat().is_some() {
            before = source.take();
        } else if !stays {
            let next = pick(&shared.links, source.as_ref());
            if let Some(next) = next {
                let another = |before: &Source| before.link.key != next.link.key;
                before = source.take().filter(another);
                source = Some(next);
            }
        } else if let Some(source) = source
            .as_mut()
            .filter(|s| s.asked.elapsed() >= REPEAT_INTERVAL)
        {
            source.asked = Instant::now();
            source.link.send(&Frame::Subscribe { on: true });
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Subscribes to a peer that is connected, another one than before if there is any; `None` if there is none at all.
fn pick(links: &Links, before: Option<&Source>) -> Option<Source> {
    let there = links.sources();
    let another = |link: &&Arc<Link>| before.is_none_or(|before| before.link.key != link.key);
    let others: Vec<_> = there.iter().filter(another).collect();
    let link = others.choose(&mut rand::rng()).copied().or(there.first())?;
    let link = Arc::clone(link);
    link.send(&Frame::Subscribe { on: true });
    let now = Instant::now();
    Some(Source {
        link,
        since: now,
        asked: now,
    })
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
