//! The thread that owns the replica: inputs in, outputs carried out in their order, one sync per turn.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use shadowgraph::{
    EpochEnd, HaltReason, Input, Output, Replica, SubmitError as PoolError, VerifiedEvent,
};
use tokio::{runtime::Handle, sync::mpsc, sync::mpsc::error::TrySendError};

use super::{
    CheckedCache, Control, ReplicaInput, ReplicaQueues, ingest::note_own_event, inputs::Waiting,
    serve,
};
use crate::{
    accuse::accuse,
    attest::Attestor,
    error::{NodeError, SubmitError},
    executor::ExecutorInput,
    handle::Shared,
    outcomes::Note,
    parking::Parking,
    rules::check_known,
    store::{Epochs, EventLog, key_of},
};

/// Inputs handled before their outputs are carried out: one sync covers them all.
const INPUTS_PER_TURN_MAX: usize = 256;
/// How old the status may become while there is much to do.
const STATUS_INTERVAL: Duration = Duration::from_millis(100);
/// The least wait for a deadline that stays, and the most for none.
const WAIT_MIN: Duration = Duration::from_millis(1);
const WAIT_MAX: Duration = Duration::from_secs(1);
/// How often a full disk is tried again.
const DISK_FULL_RETRY: Duration = Duration::from_secs(1);

/// Everything the thread owns.
pub(crate) struct ReplicaThread {
    pub replica: Replica,
    pub log: EventLog,
    pub epochs: Epochs,
    pub attestor: Arc<Attestor>,
    pub shared: Arc<Shared>,
    pub cache: Arc<CheckedCache>,
    pub queues: ReplicaQueues,
    pub executor: mpsc::Sender<ExecutorInput>,
    pub fatal: mpsc::Sender<NodeError>,
    /// Told when the events that this node lacks are no longer to be had.
    pub lost: mpsc::Sender<()>,
    /// Controls that came in while a commit waited for room.
    pub deferred: VecDeque<Control>,
    /// When the status was last made known.
    pub published: Instant,
    /// Events that subscribers get once they are on disk.
    pub news: Vec<Bytes>,
}

enum Turn {
    GoOn,
    Stop,
}

impl ReplicaThread {
    /// Runs until told to stop, or until something is wrong that must not be gone on with; gives its ends of the
    /// channels back.
    pub fn run(mut self, runtime: &Handle) -> ReplicaQueues {
        let _entered = runtime.enter();
        let parking = Parking::new();
        loop {
            match self.carry_out(runtime) {
                Ok(Turn::GoOn) => {}
                Ok(Turn::Stop) => break,
                Err(error) => {
                    tracing::error!(code = error.code(), %error, "consensus stops");
                    let _ = self.fatal.try_send(error);
                    self.publish_status();
                    return self.queues;
                }
            }
            self.shared.metrics.turns.inc();
            match self.take_inputs(&parking) {
                Turn::GoOn => {}
                Turn::Stop => break,
            }
        }
        if let Err(error) = self.log.commit() {
            tracing::error!(code = error.code(), %error, "cannot finish the event log; what was sent is safe");
        }
        self.queues
    }

    /// Gives the epoch and the round of the next own event, by the status that was made known.
    fn publish_status(&mut self) -> (u64, u64) {
        self.published = Instant::now();
        let status = self.replica.status();
        let next = (status.epoch.0, status.round.0 + 1);
        *self.queues.status.lock().expect("no holder panics") = status;
        next
    }

    /// Waits for the first input or the deadline, then takes what else has come in.
    fn take_inputs(&mut self, parking: &Parking) -> Turn {
        let until = Instant::now() + self.wait();
        let idle = self.deferred.is_empty() && self.queues.inputs.is_empty();
        if idle || self.published.elapsed() >= STATUS_INTERVAL {
            let next = self.publish_status();
            self.queues.next.set(Some(next));
        }
        let mut control = self.deferred.pop_front();
        let mut input: Option<Waiting> = None;
        if control.is_none() {
            let queues = &mut self.queues;
            parking.wait(until, |context| {
                if let Poll::Ready(first) = queues.controls.poll_recv(context) {
                    control = Some(first.unwrap_or(Control::Stop));
                    return Poll::Ready(());
                }
                queues.inputs.poll_recv(context).map(|first| input = first)
            });
        }
        // From here on events may be made.
        self.queues.next.set(None);
        let epoch = self.replica.epoch();
        for _ in 0..INPUTS_PER_TURN_MAX {
            match (control.take(), input.take()) {
                (Some(Control::Stop), _) => return Turn::Stop,
                (Some(Control::Input(input)), _) => self.handle(input),
                (Some(Control::HoldKey(key)), _) => self.replica.hold_key(*key),
                (None, Some(input)) => self.take(input.into_input()),
                (None, None) => break,
            }
            // Peers have other numbers from here on, which they get when the outputs are carried out.
            if self.replica.epoch() != epoch {
                break;
            }
            control = self
                .deferred
                .pop_front()
                .or_else(|| self.queues.controls.try_recv().ok());
            if control.is_none() {
                input = self.queues.inputs.try_recv();
            }
        }
        // What the last iteration took must not be lost.
        self.deferred.extend(control);
        if let Some(input) = input {
            self.take(input.into_input());
        }
        let now_ms = self.shared.clock.now_ms();
        if self.replica.next_deadline_ms().is_some_and(|d| d <= now_ms) {
            self.replica.handle(now_ms, Input::Timeout);
        }
        Turn::GoOn
    }

    fn wait(&self) -> Duration {
        let due = self.replica.next_deadline_ms();
        let wait = due.map_or(WAIT_MAX, |at_ms| self.shared.clock.until(at_ms));
        if wait.is_zero() {
            // It was handled a moment ago, and could not be met yet.
            return WAIT_MIN;
        }
        wait.min(WAIT_MAX)
    }

    fn handle(&mut self, input: Input) {
        self.replica.handle(self.shared.clock.now_ms(), input);
    }

    fn take(&mut self, input: ReplicaInput) {
        match input {
            ReplicaInput::Said { by, what } => self.handle(what.into_input(by.peer())),
            ReplicaInput::Submit { wire, reply } => {
                let result = self
                    .replica
                    .submit(self.shared.clock.now_ms(), wire)
                    .map_err(pool_error);
                if let Some(reply) = reply {
                    // The client may have gone.
                    let _ = reply.send(result);
                }
            }
            ReplicaInput::SubmitMany {
                transactions,
                batch,
            } => {
                let now_ms = self.shared.clock.now_ms();
                let mut refused = Vec::new();
                for transaction in transactions {
                    if self.replica.submit(now_ms, transaction.clone()).is_err() {
                        batch.refuse();
                        refused.push(transaction);
                    }
                }
                if !refused.is_empty() && self.shared.opaque.is_none() {
                    self.shared.forget_refused(&refused);
                }
            }
            ReplicaInput::NextRound { reply } => {
                let status = self.replica.status();
                let _ = reply.send((status.epoch.0, status.round.0 + 1));
            }
        }
    }

    /// Carries out what the replica asks for. Everything to persist goes to the log first and is synced once; what comes
    /// after the end of an epoch belongs to the next one's log.
    fn carry_out(&mut self, runtime: &Handle) -> Result<Turn, NodeError> {
        loop {
            let mut rest = Vec::new();
            let mut ended = None;
            while ended.is_none()
                && let Some(output) = self.replica.poll_output()
            {
                match output {
                    Output::Persist(event) => self.append(&event),
                    Output::EpochEnded(end) => ended = Some(end),
                    other => rest.push(other),
                }
            }
            if self.log.is_dirty() {
                // Nobody sees an effect of what is not on disk; without an effect the sync can wait.
                let effects = rest.iter().any(|o| !matches!(o, Output::PeerFault { .. }));
                if let Turn::Stop = self.persist(effects || ended.is_some())? {
                    return Ok(Turn::Stop);
                }
            }
            for output in rest {
                self.effect(runtime, output)?;
            }
            let Some(end) = ended else {
                return Ok(Turn::GoOn);
            };
            if let Turn::Stop = self.next_epoch(&end)? {
                return Ok(Turn::Stop);
            }
        }
    }

    fn effect(&mut self, runtime: &Handle, output: Output) -> Result<(), NodeError> {
        match output {
            Output::Persist(_) | Output::EpochEnded(_) => unreachable!("carried out before"),
            Output::Send { to, message } => self.shared.links.send(to, &message),
            Output::ReadStore { to, request } => {
                serve::answer(Arc::clone(&self.shared), self.epochs.clone(), to, request);
            }
            Output::Commit(commit) => {
                self.hand_on(runtime, ExecutorInput::Commit(Box::new(commit)));
            }
            Output::Certificate(certificate) => {
                self.hand_on(runtime, ExecutorInput::Certificate(Box::new(certificate)));
            }
            Output::ReadEpochEnd { to, epoch } => {
                serve::answer_end(self.epochs.clone(), self.shared.links.clone(), to, epoch);
            }
            Output::Returned(transactions) => {
                // This node's seat is gone: others must order them.
                for wire in &transactions {
                    if let Err(error) = self.shared.links.forward(wire) {
                        tracing::warn!(%error, "a transaction that pends could not be handed to a member");
                    }
                }
            }
            Output::Equivocation(proof) => {
                self.keep_equivocation(&proof);
                runtime.spawn(accuse(Arc::clone(&self.shared), proof));
            }
            Output::NeedsSnapshot { epoch, end } => {
                tracing::warn!(%epoch, %end, "the events that lead on from here are no longer to be had; a snapshot is needed");
                // Full means that it has been said and not been heard yet.
                let _ = self.lost.try_send(());
            }
            Output::PeerFault { peer, fault } => {
                self.shared.metrics.peer_faults.inc();
                tracing::warn!(code = "E_PEER_FAULT", ?peer, %fault, "a peer broke the protocol");
            }
            Output::Halt(reason) => return Err(halted(&self.shared, reason)),
        }
        Ok(())
    }

    /// Keeps the proof of an epoch's end, opens the log of the next and makes its committee known; an epoch whose rules this
    /// program does not know is not begun.
    fn next_epoch(&mut self, end: &EpochEnd) -> Result<Turn, NodeError> {
        let (epochs, shared) = (self.epochs.clone(), Arc::clone(&self.shared));
        let Some(log) = self.when_space(|_| {
            epochs.save_end(end)?;
            check_known(&shared, end.next.epoch())?;
            epochs.log(end.next.epoch())
        })?
        else {
            return Ok(Turn::Stop);
        };
        self.log = log;
        let mut receipts = self.shared.receipts.lock().expect("no holder panics");
        receipts.epoch_ended(end.clone());
        drop(receipts);
        let certificate = Box::new(end.certificate.clone());
        self.shared.outcomes.note(Note::Certificate(certificate));
        let before = self.shared.enter_epoch(end.next.clone());
        let now = self.shared.membership();
        self.attestor.epoch_began(&before, &now);
        tracing::info!(
            epoch = end.next.epoch().0,
            after_commit = end.certificate.checkpoint.commit.0,
            members = end.next.len(),
            seat = ?now.seat.map(|s| s.0),
            "an epoch begins"
        );
        self.publish_status();
        Ok(Turn::GoOn)
    }

    fn append(&mut self, event: &VerifiedEvent) {
        let reference = event.reference();
        self.log.append(key_of(reference), event.bytes());
        if self.shared.feed.is_wanted() {
            self.news.push(event.bytes().clone());
        }
        if Some(reference.creator) == self.shared.seat() {
            note_own_event(&self.shared, &self.cache, event);
        }
    }

    /// Does something that needs space on disk. While there is none nothing is sent and nothing is lost: waits for it.
    /// `None` if the node is to stop meanwhile.
    fn when_space<T>(
        &mut self,
        mut body: impl FnMut(&mut Self) -> Result<T, NodeError>,
    ) -> Result<Option<T>, NodeError> {
        let mut announced = false;
        let done = loop {
            let error = match body(self) {
                Ok(done) => break done,
                Err(error @ NodeError::DiskFull { .. }) => error,
                Err(error) => return Err(error),
            };
            if !std::mem::replace(&mut announced, true) {
                tracing::error!(code = error.code(), %error, "the node pauses until there is space");
                self.shared
                    .set_problem("E_DISK_FULL", Some(error.to_string()));
            }
            std::thread::sleep(DISK_FULL_RETRY);
            while let Ok(control) = self.queues.controls.try_recv() {
                if matches!(control, Control::Stop) {
                    return Ok(None);
                }
                self.deferred.push_back(control);
            }
        };
        if announced {
            tracing::info!("there is space again; the node goes on");
            self.shared.set_problem("E_DISK_FULL", None);
        }
        Ok(Some(done))
    }

    /// Writes, and syncs if `sync`.
    fn persist(&mut self, sync: bool) -> Result<Turn, NodeError> {
        if self.when_space(|this| this.log.write())?.is_none() {
            return Ok(Turn::Stop);
        }
        if sync {
            let started = Instant::now();
            self.log.commit()?;
            if !self.news.is_empty() {
                self.shared.feed.put(self.news.drain(..));
            }
            self.shared
                .metrics
                .sync_seconds
                .observe(started.elapsed().as_secs_f64());
            self.shared
                .metrics
                .log_bytes
                .set(i64::try_from(self.log.bytes()).unwrap_or(i64::MAX));
        }
        Ok(Turn::GoOn)
    }

    /// Hands something to the executor. While it has no room its own words are taken in, so that neither
    /// thread can wait for the other for ever.
    fn hand_on(&mut self, runtime: &Handle, input: ExecutorInput) {
        let mut input = match self.executor.try_send(input) {
            Ok(()) | Err(TrySendError::Closed(_)) => return,
            Err(TrySendError::Full(input)) => Some(input),
        };
        while input.is_some() {
            let (executor, controls) = (&self.executor, &mut self.queues.controls);
            let control = runtime.block_on(async {
                tokio::select! {
                    room = executor.reserve() => {
                        if let (Ok(room), Some(input)) = (room, input.take()) {
                            room.send(input);
                        }
                        None
                    }
                    control = controls.recv() => control,
                }
            });
            if executor.is_closed() {
                return;
            }
            self.deferred.extend(control);
        }
    }

    fn keep_equivocation(&self, proof: &shadowgraph::EquivocationProof) {
        let bytes = borsh::to_vec(proof).expect("plain data");
        let digest = blake3::hash(&bytes);
        let name = format!("equivocation-{}.borsh", &digest.to_hex()[..16]);
        let path = self.shared.config.data_dir.join("evidence").join(name);
        tracing::error!(code = "E_EQUIVOCATION", evidence = %path.display(), "a member has signed two events of one round; the proof is kept");
        if let Err(error) = crate::data_dir::write_atomically(&path, &bytes) {
            tracing::error!(code = error.code(), %error, "cannot keep the proof");
        }
    }
}

pub(super) fn halted(shared: &Shared, reason: HaltReason) -> NodeError {
    match reason {
        HaltReason::OwnEventUnknown(event) => NodeError::DuplicateKey {
            detail: format!(
                "a peer holds an event of round {} that carries this node's signature but is not in its log: the log was lost or copied, or another process signs",
                event.round
            ),
        },
        HaltReason::Diverged {
            commit,
            certificate,
            state_root,
            outcomes_root,
        } => {
            let ours = shadowgraph::Checkpoint {
                state_root,
                outcomes_root,
                ..certificate.checkpoint
            };
            debug_assert_eq!(commit, ours.commit);
            crate::executor::diverged(shared, &ours, &certificate)
        }
    }
}

fn pool_error(error: PoolError) -> SubmitError {
    match error {
        PoolError::PoolFull => SubmitError::new(
            "E_POOL_FULL",
            "this node has too many transactions waiting; try again shortly or through another node",
        ),
        PoolError::TooLarge => SubmitError::new(
            "too_large",
            "the transaction fits in no event; make it smaller",
        ),
        PoolError::Empty => SubmitError::new("malformed", "the transaction is empty"),
        PoolError::NotAMember => SubmitError::new(
            "E_NO_MEMBER",
            "this node makes no events at present; use another one",
        ),
    }
}
