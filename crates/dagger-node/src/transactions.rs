//! What this node knows of recent transactions: a bounded window from acceptance to outcome.
//!
//! The ledger is the record; this is for clients that wait and for people that watch. Old entries are
//! forgotten, and after a restart only what the log gives again is known.

use std::{collections::VecDeque, sync::Arc};

use dagger_client::api::{AcceptedStage, CommitStage, EventStage, OutcomeStage, TransactionStatus};
use dagger_ledger::{Digest, Outcome};
use tokio::sync::oneshot;

use crate::digest_map::DigestMap;

/// Transactions remembered.
const WINDOW: usize = 1 << 16;
/// Clients that may wait for one transaction.
const WAITERS_PER_TRANSACTION_MAX: usize = 64;

#[derive(Default)]
struct Entry {
    accepted: Option<AcceptedStage>,
    event: Option<Arc<EventStage>>,
    executed: Option<(Arc<CommitStage>, Outcome, u64)>,
    waiters: Vec<oneshot::Sender<()>>,
}

/// The window.
#[derive(Default)]
pub struct Transactions {
    entries: DigestMap<Entry>,
    order: VecDeque<Digest>,
}

impl Transactions {
    fn entry(&mut self, digest: Digest) -> &mut Entry {
        if self.order.len() > WINDOW {
            let oldest = self.order.pop_front().expect("not empty");
            self.entries.remove(&oldest);
        }
        self.entries.entry(digest).or_insert_with(|| {
            self.order.push_back(digest);
            Entry::default()
        })
    }

    /// A client handed it in here. Returns the first acceptance if there was one before.
    pub fn accepted(&mut self, digest: Digest, stage: AcceptedStage) -> AcceptedStage {
        self.entry(digest).accepted.get_or_insert(stage).clone()
    }

    /// Whether it was taken here, came in an event or was executed, as far as this window goes back.
    pub fn is_known(&self, digest: &Digest) -> bool {
        self.entries
            .get(digest)
            .is_some_and(|e| e.accepted.is_some() || e.event.is_some() || e.executed.is_some())
    }

    /// Forgets an acceptance that led to nothing.
    pub fn refused(&mut self, digest: &Digest) {
        if let Some(entry) = self.entries.get_mut(digest) {
            entry.accepted = None;
        }
    }

    /// An event carries it. The first event counts.
    pub fn in_event(&mut self, digest: Digest, stage: &Arc<EventStage>) {
        self.entry(digest)
            .event
            .get_or_insert_with(|| Arc::clone(stage));
    }

    /// Executed. The first outcome counts: a repetition is refused by the ledger and changes nothing.
    pub fn executed(&mut self, commit: &Arc<CommitStage>, outcome: &Outcome, at_ms: u64) {
        let entry = self.entry(outcome.digest);
        if entry.executed.is_none() {
            entry.executed = Some((Arc::clone(commit), outcome.clone(), at_ms));
        }
        for waiter in entry.waiters.drain(..) {
            // The client may have gone.
            let _ = waiter.send(());
        }
    }

    /// What is known of it.
    pub fn status(&self, digest: &Digest) -> Option<TransactionStatus> {
        let entry = self.entries.get(digest)?;
        let known = entry.accepted.is_some() || entry.event.is_some() || entry.executed.is_some();
        known.then(|| TransactionStatus {
            digest: digest.to_hex(),
            accepted: entry.accepted.clone(),
            event: entry.event.as_deref().cloned(),
            commit: entry
                .executed
                .as_ref()
                .map(|(commit, ..)| (**commit).clone()),
            outcome: entry
                .executed
                .as_ref()
                .map(|(_, outcome, at_ms)| outcome_stage(outcome, *at_ms)),
        })
    }

    /// Whether it has been executed, as far as this window goes back.
    pub fn is_executed(&self, digest: &Digest) -> bool {
        self.entries
            .get(digest)
            .is_some_and(|e| e.executed.is_some())
    }

    /// Resolves once it is executed; `None` if it is already, or if too many wait for it (look again later).
    pub fn wait(&mut self, digest: Digest) -> Option<oneshot::Receiver<()>> {
        let entry = self.entry(digest);
        if entry.executed.is_some() {
            return None;
        }
        entry.waiters.retain(|w| !w.is_closed());
        if entry.waiters.len() >= WAITERS_PER_TRANSACTION_MAX {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        entry.waiters.push(sender);
        Some(receiver)
    }
}

pub(crate) fn outcome_stage(outcome: &Outcome, at_ms: u64) -> OutcomeStage {
    let text = outcome.code.text();
    OutcomeStage {
        code: outcome.code.as_str().to_owned(),
        detail: if outcome.detail.is_empty() {
            text.to_owned()
        } else {
            format!("{text} ({})", outcome.detail)
        },
        ok: outcome.code.is_ok(),
        at_ms,
    }
}
