//! What the rest of the daemon (HTTP API, host agent, tunnel) sees of a running node.
//!
//! Must not live here: how the node does it. This is reading shared state and handing transactions on.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use dagger_client::api::{AcceptedStage, EventName, NodeStatus, TransactionStatus};
use dagger_client::proof::{Receipt, RecordProof};
use dagger_ledger::{
    Change, CheckedTransaction, Code, Digest, Genesis, Key, Ledger, MachineId, OperatorStatus,
    Outcome, SignedTransaction, StateKey, StateProof,
};
use iroh::{Endpoint, EndpointAddr, EndpointId};
use shadowgraph::{
    Checkpoint, CheckpointCertificate, CommitIndex, Committee, Epoch, EventRef, MemberIndex,
};
use tokio::sync::broadcast;

use crate::{
    clock::Clock, config::NodeConfig, consensus_keys::ConsensusKeys, error::SubmitError,
    feed::Feed, kept_commits::KeptCommits, membership::Membership, metrics::Metrics,
    opaque::Consumer, outcomes::Answer, outcomes::OutcomeIndex, receipts::Receipts,
    replica::ReplicaHandle, transactions::Transactions, transport::Links,
};

/// A transaction that was accepted this long ago and has no outcome is proposed again if it comes again.
const RESUBMIT_AFTER_MS: u64 = 10_000;

/// A transaction this node has taken and will propose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Digest of its body.
    pub digest: Digest,
    /// When it was taken, by this node's clock.
    pub at_ms: u64,
}

/// One executed commit.
#[derive(Debug, Clone)]
pub struct CommitRecord {
    /// Its index; the cursor of streams.
    pub index: u64,
    /// Ledger time.
    pub time_ms: u64,
    /// Its chained digest.
    pub digest: Digest,
    /// Its leader.
    pub leader: EventName,
    /// What became of its transactions, in order.
    pub outcomes: Vec<Outcome>,
    /// The kind of action of each, where it could be read.
    pub actions: Vec<Option<&'static str>>,
    /// What it changed, in order.
    pub changes: Vec<Change>,
}

/// The last checkpoint as this node computed it.
#[derive(Debug, Clone)]
pub(crate) struct OwnCheckpoint {
    pub checkpoint: Checkpoint,
    pub certificate: Option<CheckpointCertificate>,
}

/// State that the parts of a node share. Locks are held for memory accesses only, never across an await or a disk.
pub(crate) struct Shared {
    pub config: NodeConfig,
    pub genesis: Genesis,
    /// Of the present epoch.
    pub membership: RwLock<Arc<Membership>>,
    pub name: String,
    pub node_key: ed25519_zebra::SigningKey,
    /// What this node signs events with, where it has a seat.
    pub consensus_keys: Arc<ConsensusKeys>,
    pub clock: Clock,
    pub started_at_ms: u64,
    pub ledger: RwLock<Ledger>,
    pub transactions: Mutex<Transactions>,
    pub receipts: Mutex<Receipts>,
    /// What became of older transactions.
    pub outcomes: OutcomeIndex,
    pub commits: Mutex<KeptCommits>,
    pub changes: broadcast::Sender<Arc<CommitRecord>>,
    pub replica: ReplicaHandle,
    pub endpoint: Endpoint,
    pub links: Links,
    /// What is sent on to nodes without a seat.
    pub feed: Feed,
    /// Ways into VMs, here and on other machines.
    pub ways: crate::tunnel::Ways,
    /// 0 for none.
    pub lease_deadline_boottime_ms: AtomicU64,
    /// Fault injection: roots come out wrong.
    pub wrong_roots: AtomicBool,
    pub executed_transactions: AtomicU64,
    pub checkpoint: Mutex<Option<OwnCheckpoint>>,
    /// What was healed of the event log since the start.
    pub healed: Mutex<Vec<crate::heal::Report>>,
    /// Where damage was found in it since.
    pub damaged: crate::heal::Damaged,
    /// What keeps the node from doing its whole job, by code.
    pub problems: Arc<Mutex<BTreeMap<&'static str, String>>>,
    pub metrics: Metrics,
    /// Takes commits of opaque bytes in place of the ledger.
    pub opaque: Option<Arc<dyn Consumer>>,
}

impl Shared {
    /// The key that this node is known by.
    pub fn own_key(&self) -> Key {
        Key(self.node_key.verification_key().into())
    }

    /// Who votes in the present epoch.
    pub fn membership(&self) -> Arc<Membership> {
        Arc::clone(&self.membership.read().expect("no holder panics"))
    }

    /// A seat that this node could fill if it held the key for it is a problem.
    fn tell_of_seat(&self, committee: &Committee, ledger: &Ledger) {
        let own_key = self.own_key();
        let key = ledger
            .operators()
            .find(|operator| operator.node_key == own_key)
            .and_then(|operator| committee.member(MemberIndex(operator.member?)))
            .map(|member| member.key);
        let missing = key.filter(|key| !self.consensus_keys.holds(key));
        let text = missing.map(|key| {
            format!(
                "this operator's seat signs with the consensus key {}, which no file keys/consensus*.json holds: put it there and start the node again, or name another one on the ledger",
                Key(key.0).to_hex()
            )
        });
        if let Some(text) = &text {
            tracing::error!(code = "E_NO_CONSENSUS_KEY", %text, "the seat stays empty");
        }
        self.set_problem("E_NO_CONSENSUS_KEY", text);
    }

    /// Makes another committee the present one, whose epoch the ledger is in; returns the one before.
    pub fn enter_epoch(&self, committee: Committee) -> Arc<Membership> {
        let membership = {
            let ledger = self.ledger.read().expect("no holder panics");
            self.tell_of_seat(&committee, &ledger);
            Membership::new(committee, &ledger, &self.consensus_keys)
        };
        let peers = membership.peers(&self.config, &self.own_key());
        let is_seated = membership.seat.is_some();
        let mut present = self.membership.write().expect("no holder panics");
        let before = std::mem::replace(&mut *present, Arc::new(membership));
        drop(present);
        self.links.reseat(peers, is_seated);
        before
    }

    /// The epoch that the ledger is in.
    pub fn ledger_epoch(&self) -> Epoch {
        let ledger = self.ledger.read().expect("no holder panics");
        Epoch(ledger.epoch().number)
    }

    /// This node's seat in the present epoch.
    pub fn seat(&self) -> Option<MemberIndex> {
        self.membership.read().expect("no holder panics").seat
    }

    /// Name of the operator that holds a seat.
    pub fn seat_name(&self, seat: MemberIndex) -> String {
        self.membership().seat_name(seat)
    }

    /// Name of the machine or operator that a node belongs to, if the ledger knows one.
    pub fn node_name(&self, node_key: &Key) -> Option<String> {
        let ledger = self.ledger.read().expect("no holder panics");
        if let Some(machine) = ledger.machine_by_node_key(node_key) {
            return Some(machine.name.clone());
        }
        let mut active = ledger
            .operators()
            .filter(|o| o.status == OperatorStatus::Active);
        active
            .find(|o| o.node_key == *node_key)
            .map(|o| o.name.clone())
    }

    /// An event's name with that of its creator.
    pub fn event_name(&self, event: &EventRef) -> EventName {
        self.membership().event_name(event)
    }

    /// Notes or clears a standing problem.
    pub fn set_problem(&self, code: &'static str, text: Option<String>) {
        let mut problems = self.problems.lock().expect("no holder panics");
        match text {
            Some(text) => {
                problems.insert(code, text);
            }
            None => {
                problems.remove(code);
            }
        }
    }

    /// Makes an executed commit visible.
    pub fn publish(&self, record: Arc<CommitRecord>) {
        let mut commits = self.commits.lock().expect("no holder panics");
        commits.push(Arc::clone(&record));
        drop(commits);
        // Nobody may be listening.
        let _ = self.changes.send(record);
    }
}

/// A running node. Cheap to clone.
#[derive(Clone)]
pub struct NodeHandle {
    pub(crate) shared: Arc<Shared>,
}

impl NodeHandle {
    /// Takes a transaction: checks its form, signature and admission, then proposes it.
    ///
    /// Handing in the same one again is safe and answers the same.
    ///
    /// # Errors
    /// The ledger's code if it would be refused whatever happens; `E_POOL_FULL` if this node has too much waiting;
    /// `E_NO_MEMBER` if this node has no seat and reaches none that has.
    pub async fn submit(&self, transaction: SignedTransaction) -> Result<Accepted, SubmitError> {
        let shared = &self.shared;
        let wire = transaction.to_wire();
        let checked = CheckedTransaction::check(&shared.genesis.chain_id, &wire);
        checked
            .code()
            .map_err(|code| refusal(code, checked.detail()))?;
        let digest = checked.digest();
        let now_ms = shared.clock.now_ms();
        if let Some(earlier) = self.accepted_before(&digest, now_ms) {
            return Ok(earlier);
        }
        let admitted = self.read(|ledger| ledger.check_admission(&checked));
        if let Err(code) = admitted {
            if code == Code::Repeated
                && let Answer::Known(earlier) = self.past_transaction(&digest).await
                && let Some(outcome) = earlier.outcome
            {
                let at_ms = outcome.at_ms;
                return Ok(Accepted { digest, at_ms });
            }
            return Err(refusal(code, ""));
        }
        let stage = AcceptedStage {
            node: shared.name.clone(),
            at_ms: now_ms,
        };
        let stage = shared
            .transactions
            .lock()
            .expect("no holder panics")
            .accepted(digest, stage);
        let sent = if shared.seat().is_some() {
            shared.replica.submit(wire.into()).await
        } else {
            shared.links.forward(&wire)
        };
        if let Err(error) = sent {
            shared
                .transactions
                .lock()
                .expect("no holder panics")
                .refused(&digest);
            return Err(error);
        }
        Ok(Accepted {
            digest,
            at_ms: stage.at_ms,
        })
    }

    fn accepted_before(&self, digest: &Digest, now_ms: u64) -> Option<Accepted> {
        let status = self.transaction(digest)?;
        let at_ms = status.accepted.map_or(now_ms, |a| a.at_ms);
        let settled = status.outcome.is_some() || now_ms.saturating_sub(at_ms) < RESUBMIT_AFTER_MS;
        (settled && (status.outcome.is_some() || at_ms != now_ms)).then_some(Accepted {
            digest: *digest,
            at_ms,
        })
    }

    /// [`Self::submit`], then waits until it is executed here.
    ///
    /// # Errors
    /// As `submit`; `E_TIMEOUT` if that takes longer than `timeout` (it may still be executed later).
    pub async fn submit_and_wait(
        &self,
        transaction: SignedTransaction,
        timeout: Duration,
    ) -> Result<TransactionStatus, SubmitError> {
        let accepted = self.submit(transaction).await?;
        self.wait_executed(&accepted.digest, timeout).await.ok_or_else(|| {
            SubmitError::new(
                "E_TIMEOUT",
                "the transaction was taken but is not in order yet; ask again for it by its digest before sending another",
            )
        })
    }

    /// Waits until a transaction is executed here; `None` after `timeout`.
    pub async fn wait_executed(
        &self,
        digest: &Digest,
        timeout: Duration,
    ) -> Option<TransactionStatus> {
        let until = tokio::time::Instant::now() + timeout;
        if self.transaction(digest).is_none()
            && let Answer::Known(past) = self.past_transaction(digest).await
            && past.outcome.is_some()
        {
            return Some(past);
        }
        loop {
            let waiter = {
                let mut transactions = self.shared.transactions.lock().expect("no holder panics");
                if transactions.is_executed(digest) {
                    return transactions.status(digest);
                }
                transactions.wait(*digest)
            };
            match waiter {
                // An error means that the entry fell out of the window: look again.
                Some(waiter) => drop(tokio::time::timeout_at(until, waiter).await.ok()?),
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
            if tokio::time::Instant::now() >= until {
                return None;
            }
        }
    }

    /// What this node knows of a transaction.
    pub fn transaction(&self, digest: &Digest) -> Option<TransactionStatus> {
        self.shared
            .transactions
            .lock()
            .expect("no holder panics")
            .status(digest)
    }

    /// The receipt of a transaction, once a checkpoint that covers it is certified.
    pub fn receipt(&self, digest: &Digest) -> Option<Receipt> {
        let receipts = self.shared.receipts.lock().expect("no holder panics");
        receipts.receipt(&self.shared.genesis.chain_id, digest)
    }

    /// Whether a receipt can be had now or may come: false once the outcome is forgotten, and for what was never seen.
    pub fn may_have_receipt(&self, digest: &Digest) -> bool {
        let receipts = self.shared.receipts.lock().expect("no holder panics");
        let held = receipts.knows(digest);
        drop(receipts);
        let status = self.transaction(digest);
        held || status.is_some_and(|status| status.outcome.is_none())
    }

    /// A record with its way to the state root of a checkpoint of this node's, and that checkpoint's commit. `None` while the record has
    /// changed since.
    pub fn prove(&self, key: &StateKey) -> Option<(CommitIndex, StateProof)> {
        let proof = self.read(|ledger| ledger.prove(key))?;
        let own = self.shared.checkpoint.lock().expect("no holder panics");
        let checkpoint = own.as_ref()?.checkpoint;
        let root = Digest(checkpoint.state_root.0);
        proof
            .verify(&root)
            .is_ok()
            .then_some((checkpoint.commit, proof))
    }

    /// That proof with what makes the checkpoint trustworthy, once it is certified.
    pub fn with_evidence(&self, commit: CommitIndex, proof: StateProof) -> Option<RecordProof> {
        let receipts = self.shared.receipts.lock().expect("no holder panics");
        Some(RecordProof {
            chain_id: self.shared.genesis.chain_id,
            proof,
            evidence: receipts.evidence(commit)?,
        })
    }

    /// Reads the ledger. Keep it short: execution waits meanwhile.
    pub fn read<R>(&self, f: impl FnOnce(&Ledger) -> R) -> R {
        f(&self.shared.ledger.read().expect("no holder panics"))
    }

    /// Every commit executed from now on. A receiver that lags loses the oldest: go on with [`Self::commits`].
    pub fn changes(&self) -> broadcast::Receiver<Arc<CommitRecord>> {
        self.shared.changes.subscribe()
    }

    /// Executed commits with index >= `from`, ascending, at most `limit`, as far as this node still keeps them.
    pub fn commits(&self, from: u64, limit: usize) -> Vec<Arc<CommitRecord>> {
        let commits = self.shared.commits.lock().expect("no holder panics");
        commits.from(from, limit)
    }

    /// What the node says of itself.
    pub fn status(&self) -> NodeStatus {
        crate::status::node_status(&self.shared)
    }

    /// Signs the reports and attestations of this node.
    pub fn node_key(&self) -> &ed25519_zebra::SigningKey {
        &self.shared.node_key
    }

    /// This node's machine, if the ledger knows one with its key.
    pub fn machine(&self) -> Option<MachineId> {
        let key = Key(self.shared.node_key.verification_key().into());
        self.read(|ledger| ledger.machine_by_node_key(&key).map(|m| m.id))
    }

    /// The network.
    pub fn chain_id(&self) -> Digest {
        self.shared.genesis.chain_id
    }

    /// The genesis document.
    pub fn genesis(&self) -> &Genesis {
        &self.shared.genesis
    }

    /// The settings.
    pub fn config(&self) -> &NodeConfig {
        &self.shared.config
    }

    /// Name of the node in logs and views.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The node's clock, ms since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.shared.clock.now_ms()
    }

    /// Until when (`CLOCK_BOOTTIME`) this machine may run its VMs, as far as its rivals' attestations prove.
    /// `None`: nothing is proven yet, or there are no rivals who could.
    pub fn lease_deadline_boottime_ms(&self) -> Option<u64> {
        match self
            .shared
            .lease_deadline_boottime_ms
            .load(Ordering::Relaxed)
        {
            0 => None,
            deadline => Some(deadline),
        }
    }

    /// The node's one network endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// What this node needs to reach VMs.
    pub(crate) fn ways(&self) -> &crate::tunnel::Ways {
        &self.shared.ways
    }

    /// Where to dial a node; `None` if the key is not one. The address list is empty if only a present connection leads there.
    pub fn addr_of(&self, node_key: &Key) -> Option<EndpointAddr> {
        let id = EndpointId::from_bytes(&node_key.0).ok()?;
        let addresses: Vec<SocketAddr> = self.shared.links.addresses(node_key);
        Some(
            addresses
                .into_iter()
                .fold(EndpointAddr::new(id), EndpointAddr::with_ip_addr),
        )
    }

    /// The node's metrics in the Prometheus text format.
    pub fn metrics(&self) -> String {
        crate::status::metrics_text(&self.shared)
    }

    /// Shows a standing problem in `status` (or takes it back): a machine without QEMU, a disk that is full.
    pub fn set_problem(&self, code: &'static str, text: Option<String>) {
        self.shared.set_problem(code, text);
    }
}

fn refusal(code: Code, detail: &str) -> SubmitError {
    let text = if detail.is_empty() {
        code.text().to_owned()
    } else {
        format!("{} ({detail})", code.text())
    };
    SubmitError::new(code.as_str(), text)
}
