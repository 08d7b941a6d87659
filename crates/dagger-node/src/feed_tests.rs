//! What waits for subscribers: in order, bounded, in messages that may be sent.

use bytes::Bytes;
use shadowgraph::{EVENT_BYTES_MAX, MESSAGE_BYTES_MAX, MESSAGE_EVENTS_MAX, Message};

use super::{Feed, WAITING_BYTES_MAX};

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
