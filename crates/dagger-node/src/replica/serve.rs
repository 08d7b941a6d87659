//! Answers peers from the event log what the graph no longer holds.

use std::sync::Arc;

use shadowgraph::{
    Epoch, MESSAGE_EVENTS_MAX, MemberIndex, Message, Peer, Recipient, Round, StoreRequest,
    SyncRequest,
};
use tokio::sync::Semaphore;

use crate::{
    error::NodeError,
    handle::Shared,
    store::{Epochs, EventKey, LogReader, key_of},
    transport::Links,
};

/// Requests answered at once; further ones wait, and the replica bounds how many a peer may have.
static READERS: Semaphore = Semaphore::const_new(4);
/// Keys looked at in the first step, and in any: an answer may have room for few events, and each may stand in another frame.
const KEYS_FIRST_STEP: usize = 64;
const KEYS_PER_STEP: usize = 4096;

/// Reads the answer on a thread that may block and sends it; every request gets one, even if it is empty.
pub fn answer(shared: Arc<Shared>, epochs: Epochs, to: Peer, request: StoreRequest) {
    tokio::spawn(async move {
        let _permit = READERS.acquire().await.expect("never closed");
        let epoch = request.epoch;
        let read = tokio::task::spawn_blocking(move || match epochs.reader(request.epoch)? {
            Some(log) => collect(&log, &request),
            None => Ok(Vec::new()),
        })
        .await;
        let events = match read {
            Ok(Ok(events)) => events,
            Ok(Err(error)) => {
                if matches!(error, NodeError::StoreDamaged { .. }) {
                    shared.damaged.report(epoch);
                }
                tracing::error!(code = error.code(), %error, "cannot serve events from the log");
                Vec::new()
            }
            Err(_) => return,
        };
        shared
            .links
            .send(Recipient::One(to), &Message::Events(events));
    });
}

/// Shows a peer how an epoch ended, if this node has kept that.
pub fn answer_end(epochs: Epochs, links: Links, to: Peer, epoch: Epoch) {
    tokio::task::spawn_blocking(move || match epochs.end(epoch) {
        Ok(Some(end)) => links.send(Recipient::One(to), &Message::EpochEnd(Box::new(end))),
        Ok(None) => {}
        Err(error) => {
            tracing::error!(code = error.code(), %error, "cannot read how an epoch ended");
        }
    });
}

/// The events of a request, lowest rounds first, up to its bound of bytes.
pub(super) fn collect(
    log: &LogReader,
    request: &StoreRequest,
) -> Result<Vec<bytes::Bytes>, NodeError> {
    let mut answer = Answer {
        events: Vec::new(),
        bytes: 0,
        bytes_max: request.bytes_max,
    };
    match &request.wanted {
        SyncRequest::Events(wanted) => {
            let mut keys: Vec<EventKey> = wanted.iter().map(key_of).collect();
            keys.sort_unstable();
            for key in keys {
                if !answer.take(log, &key)? {
                    break;
                }
            }
        }
        SyncRequest::After(after) => {
            let mut from = EventKey {
                round: after.from.0,
                creator: 0,
                digest: [0; 32],
            };
            let mut step = KEYS_FIRST_STEP;
            'steps: loop {
                let keys = log.keys(from, after.to.0, step)?;
                for key in &keys {
                    if after.wants(Round(key.round), MemberIndex(key.creator))
                        && !answer.take(log, key)?
                    {
                        break 'steps;
                    }
                }
                match keys.last().and_then(EventKey::successor) {
                    Some(next) if keys.len() == step => from = next,
                    _ => break,
                }
                step = (4 * step).min(KEYS_PER_STEP);
            }
        }
    }
    Ok(answer.events)
}

struct Answer {
    events: Vec<bytes::Bytes>,
    bytes: usize,
    bytes_max: usize,
}

impl Answer {
    /// Adds an event if the log holds it; false once there is no room for more.
    fn take(&mut self, log: &LogReader, key: &EventKey) -> Result<bool, NodeError> {
        if let Some(event) = log.get(key)? {
            if !self.events.is_empty() && self.bytes + event.len() > self.bytes_max {
                return Ok(false);
            }
            self.bytes += event.len();
            self.events.push(event);
        }
        Ok(self.events.len() < MESSAGE_EVENTS_MAX)
    }
}
