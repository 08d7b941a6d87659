//! Watches what clients were promised: only submitted transactions commit, none more often than it was submitted, every
//! accepted one commits in the end, and soon where a scenario says so.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use shadowgraph::{EventRef, VerifiedEvent};

use super::ledger::{Finding, ensure};
use crate::rng::SimRng;

/// One attempt of a client.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Which transaction.
    pub id: u64,
    /// The node that took it.
    pub node: usize,
    /// When, in microseconds of virtual time.
    pub at_us: u64,
    /// That node's round at the time.
    pub round: u64,
    /// The event that carries it, and when it was made.
    pub event: Option<(EventRef, u64)>,
}

/// All transactions of a run.
#[derive(Default)]
pub struct ClientChecker {
    next_id: u64,
    bodies: HashMap<Bytes, u64>,
    byzantine: HashSet<Bytes>,
    /// Accepted by a node that has not lost it since, and not committed: these must commit.
    open: BTreeSet<u64>,
    submissions: BTreeMap<u64, Submission>,
    attempts: HashMap<u64, u32>,
    commits: HashMap<u64, u32>,
    /// The highest commit that holds a transaction of a client.
    pub last_commit: u64,
    /// How many transactions were accepted.
    pub accepted: u64,
    commit_within_rounds: Option<u64>,
}

impl ClientChecker {
    /// With a bound on the rounds from acceptance to commit, if the scenario gives one.
    pub fn new(commit_within_rounds: Option<u64>) -> Self {
        Self {
            commit_within_rounds,
            ..Self::default()
        }
    }

    /// A new transaction of between these many bytes, and its number.
    pub fn make(&mut self, bytes: (u64, u64), rng: &mut SimRng) -> (u64, Bytes) {
        let id = self.next_id;
        self.next_id += 1;
        let mut body = format!("client {id} ").into_bytes();
        let length = rng.between(bytes.0, bytes.1) as usize;
        body.resize(length.max(body.len()), b'.');
        let body = Bytes::from(body);
        self.bodies.insert(body.clone(), id);
        (id, body)
    }

    /// The bytes of a transaction again.
    pub fn body(&self, id: u64) -> Bytes {
        let found = self.bodies.iter().find(|(_, other)| **other == id);
        found.expect("every transaction has a body").0.clone()
    }

    /// A node accepted a transaction.
    pub fn accepted(&mut self, id: u64, node: usize, at_us: u64, round: u64) {
        *self.attempts.entry(id).or_default() += 1;
        self.accepted += 1;
        if !self.commits.contains_key(&id) {
            self.open.insert(id);
        }
        self.submissions.insert(
            id,
            Submission {
                id,
                node,
                at_us,
                round,
                event: None,
            },
        );
    }

    /// A Byzantine member made transactions up.
    pub fn byzantine(&mut self, transactions: Vec<Bytes>) {
        self.byzantine.extend(transactions);
    }

    /// A member persisted an own event.
    pub fn own_event(&mut self, node: usize, event: &VerifiedEvent, at_us: u64) {
        for transaction in event.transactions() {
            let Some(id) = self.bodies.get(&transaction) else {
                continue;
            };
            if let Some(submission) = self
                .submissions
                .get_mut(id)
                .filter(|submission| submission.node == node)
            {
                submission.event = Some((*event.reference(), at_us));
            }
        }
    }

    /// A commit is seen for the first time.
    pub fn committed(
        &mut self,
        index: u64,
        leader_round: u64,
        transactions: &[(EventRef, Bytes)],
    ) -> Finding {
        for (reference, bytes) in transactions {
            let Some(id) = self.bodies.get(bytes) else {
                let known = self.byzantine.contains(bytes);
                ensure!(
                    "validity",
                    known,
                    "commit {index}: nobody submitted a transaction in {reference:?}"
                );
                continue;
            };
            let commits = self.commits.entry(*id).or_default();
            *commits += 1;
            let attempts = self.attempts.get(id).copied().unwrap_or(0);
            ensure!(
                "double commit",
                *commits <= attempts,
                "transaction {id}: {commits} commits of {attempts} submissions"
            );
            self.last_commit = index;
            if self.open.remove(id) {
                self.check_delay(*id, leader_round)?;
            }
        }
        Ok(())
    }

    fn check_delay(&self, id: u64, leader_round: u64) -> Finding {
        let (Some(bound), Some(submission)) =
            (self.commit_within_rounds, self.submissions.get(&id))
        else {
            return Ok(());
        };
        let took = leader_round.saturating_sub(submission.round);
        ensure!(
            "censorship",
            took <= bound,
            "transaction {id} at n{} took {took} rounds, bound {bound}",
            submission.node
        );
        Ok(())
    }

    /// The submission of a transaction, as last accepted.
    pub fn submission(&self, bytes: &Bytes) -> Option<&Submission> {
        self.submissions.get(self.bodies.get(bytes)?)
    }

    /// A node crashed. `survived` tells which of its events its disk kept. What only its memory held is lost, and its
    /// clients know: returns those transactions.
    pub fn crashed(&mut self, node: usize, survived: &dyn Fn(&EventRef) -> bool) -> Vec<u64> {
        let lost = |id: &u64| {
            let submission = &self.submissions[id];
            submission.node == node
                && !submission
                    .event
                    .as_ref()
                    .is_some_and(|(event, _)| survived(event))
        };
        let lost: Vec<u64> = self.open.iter().copied().filter(lost).collect();
        lost.iter().for_each(|id| {
            self.open.remove(id);
        });
        lost
    }

    /// The node lost its seat and gave a transaction back; another one took it. It is the same submission still.
    pub fn moved(&mut self, bytes: &Bytes, node: usize) {
        let id = self.bodies.get(bytes);
        if let Some(submission) = id.and_then(|id| self.submissions.get_mut(id)) {
            submission.node = node;
            submission.event = None;
        }
    }

    /// Nobody has a transaction any more: its client knows.
    pub fn dropped(&mut self, bytes: &Bytes) {
        if let Some(id) = self.bodies.get(bytes) {
            self.open.remove(id);
        }
    }

    /// Transactions that must still commit.
    pub fn open(&self) -> &BTreeSet<u64> {
        &self.open
    }

    /// What is known of an open transaction, for a message.
    pub fn describe(&self, id: u64) -> String {
        format!("{:?}", self.submissions.get(&id))
    }
}
