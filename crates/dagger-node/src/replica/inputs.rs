//! What waits for the replica: bounded in number and in bytes; whoever brings more waits, each in turn.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{ReplicaInput, Said};
use crate::parking::Parking;

/// Inputs that may wait.
const INPUTS_MAX: usize = 1024;
/// Bytes that may wait in them: events, mostly.
const BYTES_MAX: usize = 32 << 20;
/// What an input without events or transactions counts for.
const SMALL_BYTES: usize = 256;
/// Any; whoever waits longer looks again.
const LOOK: Duration = Duration::from_secs(60);

/// The replica's thread has gone.
#[derive(Debug)]
pub(crate) struct Gone;

/// Where inputs go in. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Inputs {
    sender: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
}

/// Where they come out.
pub(crate) struct InputsEnd {
    receiver: mpsc::Receiver<Waiting>,
    room: Arc<Semaphore>,
}

/// An input that takes up room.
pub(crate) struct Waiting {
    input: ReplicaInput,
    _room: OwnedSemaphorePermit,
}

impl Waiting {
    /// The input; its room is free for others.
    pub fn into_input(self) -> ReplicaInput {
        self.input
    }
}

impl Inputs {
    pub fn new() -> (Self, InputsEnd) {
        let (sender, receiver) = mpsc::channel(INPUTS_MAX);
        let room = Arc::new(Semaphore::new(BYTES_MAX));
        let end = InputsEnd {
            receiver,
            room: Arc::clone(&room),
        };
        (Self { sender, room }, end)
    }

    /// Waits for room.
    pub async fn send(&self, input: ReplicaInput) -> Result<(), Gone> {
        // One that is larger than all of the room waits until it is alone.
        let bytes = u32::try_from(bytes_of(&input).min(BYTES_MAX)).expect("the bound is small");
        let room = Arc::clone(&self.room).acquire_many_owned(bytes).await;
        let waiting = Waiting {
            input,
            _room: room.map_err(|_| Gone)?,
        };
        self.sender.send(waiting).await.map_err(|_| Gone)
    }

    /// As [`Self::send`], from a thread that may block.
    pub fn blocking_send(&self, input: ReplicaInput) -> Result<(), Gone> {
        let parking = Parking::new();
        let mut sent = std::pin::pin!(self.send(input));
        loop {
            if let Some(sent) = parking.wait(Instant::now() + LOOK, |c| sent.as_mut().poll(c)) {
                return sent;
            }
        }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.sender.max_capacity() - self.sender.capacity()
    }
}

impl InputsEnd {
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<Waiting>> {
        self.receiver.poll_recv(context)
    }

    pub fn try_recv(&mut self) -> Option<Waiting> {
        self.receiver.try_recv().ok()
    }

    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }
}

impl Drop for InputsEnd {
    fn drop(&mut self) {
        // Nobody gives room back any more: whoever waits for some must not wait for ever.
        self.room.close();
    }
}

fn bytes_of(input: &ReplicaInput) -> usize {
    match input {
        ReplicaInput::Said { what, .. } => match what {
            Said::Events(events) => events.iter().map(|event| event.bytes().len()).sum(),
            Said::Foreign(events) => events.iter().map(|event| event.bytes().len()).sum(),
            Said::Message(_) => SMALL_BYTES,
        },
        ReplicaInput::Submit { wire, .. } => wire.len(),
        ReplicaInput::SubmitMany { transactions, .. } => {
            transactions.iter().map(bytes::Bytes::len).sum()
        }
        ReplicaInput::NextRound { .. } => SMALL_BYTES,
    }
}

#[cfg(test)]
#[path = "inputs_tests.rs"]
mod tests;
