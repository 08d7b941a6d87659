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

/// Bytes that may wait for a connected peer: of what every peer gets, and of what was said to this one.
const BYTES_MAX: usize = 16 << 20;
/// Frames that may wait for a peer that is away: enough for the first words after it is back.
const AWAY_FRAMES_MAX: usize = 32;
/// Urgent frames that may wait.
const URGENT_FRAMES_MAX: usize = 1024;

/// What goes before what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Signs of life, first.
    Urgent,
    /// What is said to this peer alone: questions and answers. A peer that has fallen behind needs the ancestors that it asked for
    /// sooner than more news, which it could not use.
    Answers,
    /// What every peer gets.
    News,
}

#[derive(Default)]
struct Frames {
    frames: VecDeque<Encoded>,
    bytes: usize,
}

impl Frames {
    fn push(&mut self, frame: Encoded) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    fn pop(&mut self) -> Option<Encoded> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.len();
        Some(frame)
    }
}

#[derive(Default)]
struct Waiting {
    urgent: VecDeque<Encoded>,
    answers: Frames,
    news: Frames,
}

/// The queue of one peer.
#[derive(Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    ready: Notify,
    dropped: AtomicU64,
}

impl Queue {
    /// Puts a frame at the end of its lane; drops something if there is no room.
    pub fn push(&self, frame: Encoded, lane: Lane, connected: bool) {
        let mut waiting = self.waiting.lock().expect("no holder panics");
        let frames = match lane {
            Lane::Urgent => {
                // An old sign of life is worth nothing.
                if waiting.urgent.len() >= URGENT_FRAMES_MAX || !connected {
                    waiting.urgent.pop_front();
                }
                waiting.urgent.push_back(frame);
                drop(waiting);
                self.ready.notify_one();
                return;
            }
            Lane::Answers => &mut waiting.answers,
            Lane::News => &mut waiting.news,
        };
        if connected && frames.bytes + frame.len() > BYTES_MAX {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        while !connected && frames.frames.len() >= AWAY_FRAMES_MAX {
            frames.pop();
        }
        frames.push(frame);
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
                    let next = waiting.answers.pop();
                    let Some(frame) = next.or_else(|| waiting.news.pop()) else {
                        break;
                    };
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
        let waiting = self.waiting.lock().expect("no holder panics");
        waiting.answers.bytes + waiting.news.bytes
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
