//! The consensus core in this process: one thread owns the replica, everything else sends it inputs.
//!
//! What must not live here: the ledger (executor) and sockets (transport).

mod ingest;
mod inputs;
mod recent;
mod recover;
mod serve;
mod turn;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use shadowgraph::{
    Input, Message, Peer, ReplicaStatus, SigningKey, UnverifiedEvent, VerifiedEvent,
};
use tokio::sync::{mpsc, oneshot};

pub(crate) use ingest::{CheckedCache, Ingest};
pub(crate) use recover::{Origin, Recovered, recover};
pub(crate) use turn::ReplicaThread;

use self::inputs::{Inputs, InputsEnd};
use crate::{error::SubmitError, transport::Link};

/// Words of the executor and of timers that may wait.
const CONTROLS_MAX: usize = 1024;

/// What peers and clients send to the replica.
pub(crate) enum ReplicaInput {
    /// What a peer says. Which seat it has is looked up when the replica is told: seats may change hands while this waits.
    Said { by: Arc<Link>, what: Said },
    /// A checked transaction.
    Submit {
        wire: Bytes,
        reply: Option<oneshot::Sender<Result<(), SubmitError>>>,
    },
    /// Transactions that were checked, or are opaque, and need no answer one by one.
    SubmitMany {
        transactions: Vec<Bytes>,
        batch: Batch,
    },
    /// Asks for the epoch, and a round of it that the next own event will have at least.
    NextRound { reply: oneshot::Sender<(u64, u64)> },
}

/// What a peer says to the replica, verified as far as that can be done beforehand.
pub(crate) enum Said {
    /// Events of the present epoch, with good signatures.
    Events(Vec<VerifiedEvent>),
    /// Events of other epochs.
    Foreign(Vec<UnverifiedEvent>),
    /// Anything else.
    Message(Message),
}

impl Said {
    /// As an input of that peer's.
    pub fn into_input(self, from: Peer) -> Input {
        match self {
            Self::Events(events) => Input::Events { from, events },
            Self::Foreign(events) => Input::Foreign { from, events },
            Self::Message(message) => Input::Message { from, message },
        }
    }
}

/// What became of transactions that were handed in together.
#[derive(Clone, Default)]
pub struct Batch(Arc<AtomicU64>);

impl Batch {
    /// How many were refused so far.
    pub fn refused(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn refuse(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// What this node's own parts tell the replica; never held back by what peers send.
pub(crate) enum Control {
    /// The executor's answer to a checkpoint, or its wish for a commit.
    Input(Input),
    /// One more key to sign with, from the next epoch in which it has a seat.
    HoldKey(Box<SigningKey>),
    /// Finish what is in hand and end.
    Stop,
}

/// Talks to the replica thread. Cheap to clone.
#[derive(Clone)]
pub struct ReplicaHandle {
    inputs: Inputs,
    controls: mpsc::Sender<Control>,
    status: Arc<Mutex<ReplicaStatus>>,
    next: Arc<NextRound>,
}

/// The epoch, and the round of the next own event, while the replica's thread waits for something to do; `None` while it does something,
/// which may be making that event.
#[derive(Default)]
pub(crate) struct NextRound(Mutex<Option<(u64, u64)>>);

impl NextRound {
    pub fn set(&self, next: Option<(u64, u64)>) {
        *self.0.lock().expect("no holder panics") = next;
    }
}

/// The replica thread's ends of the channels.
pub(crate) struct ReplicaQueues {
    pub inputs: InputsEnd,
    pub controls: mpsc::Receiver<Control>,
    pub status: Arc<Mutex<ReplicaStatus>>,
    pub next: Arc<NextRound>,
}

impl ReplicaQueues {
    /// Drops what waits: there is no replica to take it.
    pub(crate) fn drain(&mut self) {
        while self.inputs.try_recv().is_some() {}
        while self.controls.try_recv().is_ok() {}
    }
}

impl ReplicaHandle {
    /// A handle and the ends that the thread will own.
    pub(crate) fn new() -> (Self, ReplicaQueues) {
        let (inputs, inputs_end) = Inputs::new();
        let (controls, controls_end) = mpsc::channel(CONTROLS_MAX);
        let status = Arc::new(Mutex::default());
        let next = Arc::new(NextRound::default());
        let queues = ReplicaQueues {
            inputs: inputs_end,
            controls: controls_end,
            status: Arc::clone(&status),
            next: Arc::clone(&next),
        };
        (
            Self {
                inputs,
                controls,
                status,
                next,
            },
            queues,
        )
    }

    /// Hands a checked transaction to the pool.
    ///
    /// # Errors
    /// `E_POOL_FULL`: try again later; `E_STOPPING`: the node stops.
    pub async fn submit(&self, wire: Bytes) -> Result<(), SubmitError> {
        let (reply, answer) = oneshot::channel();
        let stopping = || {
            SubmitError::new(
                "E_STOPPING",
                "the node is stopping; hand the transaction to another one",
            )
        };
        self.inputs
            .send(ReplicaInput::Submit {
                wire,
                reply: Some(reply),
            })
            .await
            .map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    /// Hands an input of a peer on; waits while the replica is busy.
    pub(crate) async fn input(&self, input: ReplicaInput) {
        // The thread is gone only when the node stops.
        let _ = self.inputs.send(input).await;
    }

    /// As [`Self::input`], from a thread that may block.
    pub(crate) fn blocking_input(&self, input: ReplicaInput) {
        let _ = self.inputs.blocking_send(input);
    }

    /// Tells the replica something from this node's own parts, from a thread that may block.
    pub(crate) fn control(&self, control: Control) {
        let _ = self.controls.blocking_send(control);
    }

    /// As [`Self::control`], from a task.
    pub(crate) async fn control_async(&self, control: Control) {
        let _ = self.controls.send(control).await;
    }

    /// The epoch, and a round of it that the next own event will have at least; `None` while the node stops. The event is one
    /// that is made after the question, also where the thread need not be woken for the answer.
    pub(crate) async fn next_round(&self) -> Option<(u64, u64)> {
        let known = *self.next.0.lock().expect("no holder panics");
        if known.is_some() {
            return known;
        }
        let (reply, answer) = oneshot::channel();
        self.inputs
            .send(ReplicaInput::NextRound { reply })
            .await
            .ok()?;
        answer.await.ok()
    }

    /// What the replica was doing a moment ago.
    pub fn status(&self) -> ReplicaStatus {
        self.status.lock().expect("no holder panics").clone()
    }

    /// Inputs that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.inputs.waiting()
    }
}
