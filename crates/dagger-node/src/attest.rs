//! Heartbeats of this machine, and this member's word about the machines of others.
//!
//! A machine sends heartbeats to all members. A member answers with a round that its next own event will
//! have at least; once an event of that member of such a round is committed, the ledger has counted the
//! member as fresh at a moment after the heartbeat was sent, so the heartbeat is proven. The lease of the
//! machine's VMs then runs from the moment of sending, by this host's boot clock: never longer than the
//! ledger grants it.
//!
//! What must not live here: what follows when a lease ends (the shim here, the ledger elsewhere).

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use dagger_ledger::{Action, Attest, Key, Ledger, MachineId, OperatorId, Transaction};
use shadowgraph::{MemberIndex, Peer};

use crate::{
    clock::boottime_ms,
    handle::{NodeHandle, Shared},
    membership::Membership,
    transport::{Frame, Link},
};

/// Heartbeats remembered until they are proven.
const HEARTBEATS_KEPT: usize = 1024;
/// Machines of one attestation: with ids of any length it fits a transaction. What remains is said at the next look.
const CHANGES_MAX: usize = dagger_ledger::ATTEST_MACHINES_MAX / 2;
/// Acknowledgements of one member that wait for its event to be committed.
const ACKS_PER_MEMBER_MAX: usize = 1024;

#[derive(Default)]
struct State {
    /// Number of the last heartbeat and when each recent one was sent (boot clock).
    last_seq: u64,
    sent: VecDeque<(u64, u64)>,
    /// Per member: rounds whose commit proves a heartbeat sent at that time.
    acks: HashMap<MemberIndex, VecDeque<(u64, u64)>>,
    /// Per member: when the newest proven heartbeat was sent.
    proven: BTreeMap<MemberIndex, u64>,
    /// When this member last heard a machine (boot clock).
    heard: HashMap<MachineId, u64>,
}

/// Both sides of attestation in one node.
pub(crate) struct Attestor {
    shared: Arc<Shared>,
    state: Mutex<State>,
    started_boottime_ms: u64,
}

impl Attestor {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            state: Mutex::default(),
            started_boottime_ms: boottime_ms(),
        }
    }

    /// A machine's heartbeat has come in: notes it if it is from the machine's own node, and answers.
    pub async fn heartbeat(&self, from: &Link, machine: u32, seq: u64) {
        if self.shared.seat().is_none() {
            return;
        }
        let id = MachineId(machine);
        let genuine = {
            let ledger = self.shared.ledger.read().expect("no holder panics");
            ledger.machine(id).is_some_and(|m| m.node_key == from.key)
        };
        if !genuine {
            return;
        }
        self.state
            .lock()
            .expect("no holder panics")
            .heard
            .insert(id, boottime_ms());
        // Asked only now: the round must be of an event that this member makes after it heard.
        if let Some((epoch, round)) = self.shared.replica.next_round().await {
            from.send(&Frame::HeartbeatAck {
                machine,
                seq,
                epoch,
                round,
            });
        }
    }

    /// A member has heard this machine's heartbeat.
    pub fn acknowledged(&self, from: Peer, seq: u64, epoch: u64, round: u64) {
        let Peer::Member(member) = from else { return };
        // Rounds of different epochs say nothing about one another.
        if self.shared.membership().committee.epoch().0 != epoch {
            return;
        }
        let mut state = self.state.lock().expect("no holder panics");
        let Some(sent_ms) = state
            .sent
            .iter()
            .find(|(n, _)| *n == seq)
            .map(|(_, ms)| *ms)
        else {
            return;
        };
        let acks = state.acks.entry(member).or_default();
        if acks.len() < ACKS_PER_MEMBER_MAX {
            acks.push_back((round, sent_ms));
        }
    }

    /// Seats have changed: what members have proven stays theirs, what waits for rounds of the old epoch is void.
    pub fn epoch_began(&self, before: &Membership, now: &Membership) {
        let mut state = self.state.lock().expect("no holder panics");
        state.acks.clear();
        let proven = std::mem::take(&mut state.proven);
        for (seat, _) in now.committee.members() {
            let key = now.holder(seat).map(|h| h.node_key);
            let old = before
                .committee
                .members()
                .map(|(old, _)| old)
                .find(|old| before.holder(*old).map(|h| h.node_key) == key);
            if let Some(sent_ms) = old.and_then(|old| proven.get(&old)) {
                state.proven.insert(seat, *sent_ms);
            }
        }
    }

    /// A commit holds events of these members, the newest of these rounds.
    pub fn committed(&self, active: &[(u16, u64)], ledger: &Ledger) {
        let mut state = self.state.lock().expect("no holder panics");
        for (member, newest_round) in active {
            let member = MemberIndex(*member);
            let State { acks, proven, .. } = &mut *state;
            let Some(waiting) = acks.get_mut(&member) else {
                continue;
            };
            waiting.retain(|(round, sent_ms)| {
                let is_proven = round <= newest_round;
                if is_proven {
                    let newest = proven.entry(member).or_default();
                    *newest = (*newest).max(*sent_ms);
                }
                !is_proven
            });
        }
        let deadline = self.lease_deadline(&state.proven, ledger).unwrap_or(0);
        self.shared
            .lease_deadline_boottime_ms
            .store(deadline, Ordering::Relaxed);
    }

    /// Until when the proven heartbeats carry the lease: the newest moment that members of more weight
    /// than f, whose word stands, have all proven.
    fn lease_deadline(&self, proven: &BTreeMap<MemberIndex, u64>, ledger: &Ledger) -> Option<u64> {
        let machine = ledger.machine_by_node_key(&self.own_key())?.id;
        let membership = self.shared.membership();
        let committee = &membership.committee;
        let mut words: Vec<(u64, u64)> = ledger
            .attesting_members(machine)
            .into_iter()
            .filter_map(|m| {
                Some((
                    *proven.get(&MemberIndex(m))?,
                    committee.member(MemberIndex(m))?.weight,
                ))
            })
            .collect();
        words.sort_unstable_by(|a, b| b.cmp(a));
        let mut weight = 0;
        let until = words.into_iter().find_map(|(sent_ms, more)| {
            weight += more;
            (weight > committee.fault_weight()).then_some(sent_ms)
        });
        Some(until? + ledger.parameters().lease_ms)
    }

    fn own_key(&self) -> Key {
        Key(self.shared.node_key.verification_key().into())
    }

    /// Sends a heartbeat of this machine, if it is one.
    async fn beat(&self) {
        let machine = {
            let ledger = self.shared.ledger.read().expect("no holder panics");
            ledger.machine_by_node_key(&self.own_key()).map(|m| m.id)
        };
        let Some(machine) = machine else { return };
        let seq = {
            let mut state = self.state.lock().expect("no holder panics");
            state.last_seq += 1;
            let seq = state.last_seq;
            state.sent.push_back((seq, boottime_ms()));
            if state.sent.len() > HEARTBEATS_KEPT {
                state.sent.pop_front();
            }
            seq
        };
        self.shared.links.send_to_members(&Frame::Heartbeat {
            machine: machine.0,
            seq,
        });
        // A node hears itself, which counts only where no rivals could be enough.
        if let Some(seat) = self.shared.seat() {
            self.state
                .lock()
                .expect("no holder panics")
                .heard
                .insert(machine, boottime_ms());
            if let Some((epoch, round)) = self.shared.replica.next_round().await {
                self.acknowledged(Peer::Member(seat), seq, epoch, round);
            }
        }
    }

    /// What this member should tell the ledger: only what has changed.
    fn changes(&self) -> Option<Attest> {
        let seat = self.shared.seat()?;
        let now_ms = boottime_ms();
        let ledger = self.shared.ledger.read().expect("no holder panics");
        let timeout_ms = ledger.parameters().hear_timeout_ms;
        // A member that has just started has heard nobody yet, which says nothing about them.
        let may_lose = now_ms.saturating_sub(self.started_boottime_ms) > timeout_ms;
        let me = ledger
            .operators()
            .find(|o| o.member == Some(seat.0))
            .map(|o| o.id);
        let own_counts = me.is_some_and(|me| own_word_counts(&ledger, me));
        let state = self.state.lock().expect("no holder panics");
        let mut attest = Attest::default();
        let counts = |operator| Some(operator) != me || own_counts;
        for machine in ledger.machines().filter(|m| counts(m.operator)) {
            let heard = state
                .heard
                .get(&machine.id)
                .is_some_and(|at| now_ms.saturating_sub(*at) <= timeout_ms);
            let standing = machine
                .heard_by
                .iter()
                .any(|h| h.member == seat.0 && h.standing);
            if heard && !standing {
                attest.hears.push(machine.id);
            } else if !heard && standing && may_lose {
                attest.lost.push(machine.id);
            }
        }
        (!attest.hears.is_empty() || !attest.lost.is_empty()).then(|| bounded(attest))
    }

    async fn tell(&self, attest: Attest) {
        let (lease_ms, ledger_ms) = {
            let ledger = self.shared.ledger.read().expect("no holder panics");
            (ledger.parameters().lease_ms, ledger.time_ms())
        };
        tracing::info!(hears = ?attest.hears, lost = ?attest.lost, "attesting machines");
        let now_ms = self.shared.clock.now_ms().max(ledger_ms);
        let transaction = Transaction {
            chain: self.shared.genesis.chain_id,
            signer: self.own_key(),
            salt: format!("{:016x}", rand::random::<u64>()),
            // Short-lived: what was true before a partition must not be said after it.
            valid_until_ms: now_ms + lease_ms / 2,
            action: Action::Attest(attest),
        };
        let node = NodeHandle {
            shared: Arc::clone(&self.shared),
        };
        let signed = transaction.sign(&self.shared.node_key);
        match node
            .submit_and_wait(signed, Duration::from_millis(lease_ms / 2))
            .await
        {
            Ok(status) => {
                if let Some(reason) = status.refusal() {
                    tracing::warn!(code = %reason.code, text = %reason.text, "the ledger refused an attestation");
                }
            }
            // Said again at the next look, if it is still so.
            Err(error) => tracing::debug!(%error, "attestation not executed yet"),
        }
    }

    /// Sends this machine's heartbeats, for as long as the node runs.
    pub async fn run_heartbeats(self: Arc<Self>) {
        loop {
            self.beat().await;
            tokio::time::sleep(Duration::from_millis(self.heartbeat_ms())).await;
        }
    }

    /// Keeps this member's word on the ledger up to date, for as long as the node runs.
    pub async fn run_attestations(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_millis(self.heartbeat_ms() / 2)).await;
            if let Some(attest) = self.changes() {
                self.tell(attest).await;
            }
        }
    }

    fn heartbeat_ms(&self) -> u64 {
        self.shared
            .ledger
            .read()
            .expect("no holder panics")
            .parameters()
            .heartbeat_ms
            .max(10)
    }
}

/// Whether the ledger counts an operator's word about its own machines: only where all others together
/// have no more weight than may be faulty.
fn own_word_counts(ledger: &Ledger, operator: OperatorId) -> bool {
    let seats = ledger.operators().filter(|o| o.member.is_some());
    let (mut total, mut own) = (0, 0);
    for seat in seats {
        total += seat.weight;
        own += if seat.id == operator { seat.weight } else { 0 };
    }
    total > 0 && total - own <= (total - 1) / 3
}

/// As much of it as one transaction may say.
fn bounded(mut attest: Attest) -> Attest {
    attest.lost.truncate(CHANGES_MAX);
    attest.hears.truncate(CHANGES_MAX - attest.lost.len());
    attest
}

#[cfg(test)]
#[path = "attest_tests.rs"]
mod tests;
