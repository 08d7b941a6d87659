//! What waits for subscribers: in order, bounded, in messages that may be sent. Whom a subscriber chooses.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use dagger_ledger::Key;
use shadowgraph::{EVENT_BYTES_MAX, MESSAGE_BYTES_MAX, MESSAGE_EVENTS_MAX, MemberIndex, Message};

use super::{Feed, WAITING_BYTES_MAX, pick};
use crate::transport::{Links, PeerEntry};

fn drain(feed: &Feed) -> Vec<Vec<Bytes>> {
    std::iter::from_fn(|| Some(feed.take()).filter(|batch| !batch.is_empty())).collect()
}

#[test]
fn everything_comes_out_in_order_and_every_message_may_be_sent() {
    let feed = Feed::default();
    let sizes = [1, 300, EVENT_BYTES_MAX, EVENT_BYTES_MAX, 70_000, 70_000];
    let large = sizes.iter().map(|size| Bytes::from(vec![7; *size]));
    let small = (0..10_000u32).map(|number| Bytes::copy_from_slice(&number.to_le_bytes()));
    let events: Vec<Bytes> = large.chain(small).collect();
    feed.put(events.iter().cloned());
    let batches = drain(&feed);
    for batch in &batches {
        assert!(batch.len() <= MESSAGE_EVENTS_MAX);
        let message = Message::Events(batch.clone()).encode();
        assert!(message.len() <= MESSAGE_BYTES_MAX, "{}", message.len());
    }
    assert_eq!(batches.concat(), events);
}

#[test]
fn no_more_waits_than_may_and_there_is_room_again_afterwards() {
    let feed = Feed::default();
    let event = Bytes::from(vec![1; EVENT_BYTES_MAX]);
    feed.put(std::iter::repeat_n(event.clone(), 100));
    let waited: usize = drain(&feed).concat().iter().map(Bytes::len).sum();
    assert!(waited <= WAITING_BYTES_MAX && waited > WAITING_BYTES_MAX - EVENT_BYTES_MAX);
    feed.put(std::iter::once(event.clone()));
    assert_eq!(drain(&feed), [vec![event]]);
}

/// Links to members, of which these are connected.
fn members(count: u16, connected: &[u16]) -> Links {
    let key = |seat: u16| Key([seat as u8; 32]);
    let entry = |seat: u16| PeerEntry {
        key: key(seat),
        name: format!("op-{seat}"),
        seat: Some(MemberIndex(seat)),
        addresses: Vec::new(),
    };
    let links = Links::new((0..count).map(entry).collect(), false);
    for seat in connected {
        let link = links.by_key(&key(*seat)).unwrap();
        link.in_process.store(true, Ordering::Relaxed);
    }
    links
}

#[test]
fn a_source_is_followed_by_another_one_that_is_connected() {
    let links = members(4, &[1, 3]);
    let mut source = pick(&links, None).unwrap();
    for _ in 0..20 {
        let next = pick(&links, Some(&source)).unwrap();
        assert_ne!(next.link.key, source.link.key);
        assert!(next.link.is_connected());
        source = next;
    }
}

#[test]
fn the_only_source_is_asked_again() {
    let links = members(4, &[2]);
    let source = pick(&links, None).unwrap();
    let waiting = source.link.queue.bytes();
    let again = pick(&links, Some(&source)).unwrap();
    assert_eq!(again.link.key, source.link.key);
    assert_eq!(again.link.queue.bytes(), 2 * waiting);
    assert!(pick(&members(4, &[]), Some(&source)).is_none());
}
