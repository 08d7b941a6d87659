//! What waits to be sent to one peer: bounded, never blocking the sender.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

use super::frame::Encoded;

/// Bytes that may wait for a connected peer.
const CONNECTED_BYTES_MAX: usize = 32 << 20;
/// Frames that may wait for a peer that is away: enough for the first words after it is back.
const AWAY_FRAMES_MAX: usize = 32;
/// Urgent frames that may wait.
const URGENT_FRAMES_MAX: usize = 1024;

#[derive(Default)]
struct Waiting {
    urgent: VecDeque<Encoded>,
    frames: VecDeque<Encoded>,
    bytes: usize,
}

/// The queue of one peer.
#[derive(Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    ready: Notify,
    dropped: AtomicU64,
}

impl Queue {
    /// Puts a frame at the end; drops something if there is no room.
    pub fn push(&self, frame: Encoded, urgent: bool, connected: bool) {
        let mut waiting = self.waiting.lock().expect("no holder panics");
        if urgent {
            // An old sign of life is worth nothing.
            if waiting.urgent.len() >= URGENT_FRAMES_MAX || !connected {
                waiting.urgent.pop_front();
            }
            waiting.urgent.push_back(frame);
        } else if connected {
            if waiting.bytes + frame.len() > CONNECTED_BYTES_MAX {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            waiting.bytes += frame.len();
            waiting.frames.push_back(frame);
        } else {
            while waiting.frames.len() >= AWAY_FRAMES_MAX {
                let old = waiting.frames.pop_front().expect("not empty");
                waiting.bytes -= old.len();
            }
            waiting.bytes += frame.len();
            waiting.frames.push_back(frame);
        }
        drop(waiting);
        self.ready.notify_one();
    }

    /// Takes the next frames, up to about `bytes_max`; waits for the first. For one consumer.
    pub async fn pop(&self, bytes_max: usize) -> Vec<Encoded> {
        loop {
            {
                let mut waiting = self.waiting.lock().expect("no holder panics");
                let mut batch: Vec<Encoded> = waiting.urgent.drain(..).collect();
                let mut bytes = 0;
                while bytes < bytes_max {
                    let Some(frame) = waiting.frames.pop_front() else {
                        break;
                    };
                    waiting.bytes -= frame.len();
                    bytes += frame.len();
                    batch.push(frame);
                }
                if !batch.is_empty() {
                    return batch;
                }
            }
            self.ready.notified().await;
        }
    }

    /// Frames dropped because the peer is too slow.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.waiting.lock().expect("no holder panics").bytes
    }
}
