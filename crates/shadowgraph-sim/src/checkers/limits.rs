//! Watches that replicas stay within their bounds: memory, pace while idle, timers that move, equivocations proven.

use shadowgraph::{ChainId, Epoch, EquivocationProof, ReplicaStatus};

use super::ledger::{Finding, ensure};
use crate::epochs::Epochs;
use crate::plan::Plan;
use crate::queue::{MS, SECOND};
use crate::report::Held;

/// Time after the load ends in which a committee may still finish what was under way, in microseconds.
const CALM_DOWN_US: u64 = 4 * SECOND;
/// Deadlines in a row that may come without time moving.
const SPINS_MAX: u32 = 50;
/// Twins of one slot that a graph may hold.
const TWINS_MAX: u64 = 8;

/// The bounds, and what was counted.
pub struct LimitChecker {
    members: u64,
    heartbeat_us: u64,
    idle_permille: Option<u64>,
    idle_since_us: Option<u64>,
    idle_events: Vec<u64>,
    last_timer_us: Vec<u64>,
    spins: Vec<u32>,
    proofs: u64,
    /// The most that any replica held, and the bounds.
    pub held: Held,
}

impl LimitChecker {
    /// The bounds that follow from a plan's parameters.
    pub fn new(plan: &Plan) -> Self {
        let seats = plan.epochs.iter().map(|epoch| epoch.seats.len());
        let members = seats.chain([plan.members()]).max().unwrap_or(0) as u64;
        let parameters = &plan.parameters;
        // Rounds can run ahead of the commits only while quorums form, so the window above the floor is generous: the depth,
        // the rounds with payload, and as many again for a commit that takes long.
        let window = parameters.gc_depth_rounds + 4 * parameters.payload_rounds_max + 200;
        Self {
            members,
            held: Held {
                graph_events: (0, members * window + members * TWINS_MAX * window / 3),
                pending_events: (
                    0,
                    (plan.nodes() * parameters.pending_events_per_peer_max) as u64,
                ),
                pool_bytes: (0, parameters.pool_bytes_max as u64),
            },
            heartbeat_us: parameters.heartbeat_ms * MS,
            idle_permille: plan.expect.idle_events_permille,
            idle_since_us: None,
            idle_events: vec![0; plan.nodes()],
            last_timer_us: vec![u64::MAX; plan.nodes()],
            spins: vec![0; plan.nodes()],
            proofs: 0,
        }
    }

    /// A look at a replica.
    pub fn sample(&mut self, node: usize, status: &ReplicaStatus) -> Finding {
        let held = [
            (
                &mut self.held.graph_events,
                status.graph_events,
                "events in the graph",
            ),
            (
                &mut self.held.pending_events,
                status.pending_events,
                "events that wait for ancestors",
            ),
            (
                &mut self.held.pool_bytes,
                status.pool_bytes,
                "bytes that wait",
            ),
        ];
        for ((peak, bound), now, what) in held {
            *peak = (*peak).max(now as u64);
            ensure!("memory", *peak <= *bound, "n{node}: {now} {what}");
        }
        Ok(())
    }

    /// A deadline came: the one after must lie later.
    pub fn timer(&mut self, node: usize, now_us: u64) -> Finding {
        let same = self.last_timer_us[node] / MS == now_us / MS;
        self.spins[node] = if same { self.spins[node] + 1 } else { 0 };
        self.last_timer_us[node] = now_us;
        ensure!(
            "timer",
            self.spins[node] < SPINS_MAX,
            "n{node}: the deadline does not move on"
        );
        Ok(())
    }

    /// A member made an event.
    pub fn own_event(&mut self, node: usize, now_us: u64) {
        if self
            .idle_since_us
            .is_some_and(|since| now_us > since + CALM_DOWN_US)
        {
            self.idle_events[node] += 1;
        }
    }

    /// The load ends, or begins again: then the silence between is judged.
    pub fn load(&mut self, on: bool, now_us: u64) -> Finding {
        let since = self.idle_since_us.take();
        let events = std::mem::replace(&mut self.idle_events, vec![0; self.spins.len()]);
        if !on {
            self.idle_since_us = Some(now_us);
        }
        let (Some(permille), Some(since)) = (self.idle_permille, since) else {
            return Ok(());
        };
        let quiet_us = now_us.saturating_sub(since + CALM_DOWN_US);
        let allowed = quiet_us * permille / 1000 / self.heartbeat_us + 1;
        for (node, events) in events.into_iter().enumerate().take(self.members as usize) {
            ensure!(
                "quiescence",
                events <= allowed,
                "n{node} made {events} events in {quiet_us} us of silence"
            );
        }
        Ok(())
    }

    /// A node proves an equivocation: the proof must verify and name a Byzantine member.
    pub fn equivocation(
        &mut self,
        node: usize,
        proof: &EquivocationProof,
        chain_id: &ChainId,
        epochs: &Epochs,
        epoch: Epoch,
        plan: &Plan,
    ) -> Finding {
        let committee = epochs.committee(epoch).expect("a planned epoch");
        self.proofs += 1;
        match proof.verify(chain_id, committee) {
            Err(error) => Err((
                "equivocation proof",
                format!("n{node}: the proof does not verify: {error}"),
            )),
            Ok((member, round)) => {
                let holder = epochs.node_of(epoch, member).expect("a seat is held");
                let honest = plan.is_honest(holder);
                ensure!(
                    "equivocation proof",
                    !honest,
                    "n{node} proves that honest {member:?} equivocated in {round:?}"
                );
                Ok(())
            }
        }
    }

    /// At the end: twins that were on the network must have been noticed, where the scenario says so.
    pub fn finish(&self, expected: bool, twins_seen: bool) -> Finding {
        let missed = expected && twins_seen && self.proofs == 0;
        ensure!(
            "equivocation proof",
            !missed,
            "twins went over the network and nobody proved it"
        );
        Ok(())
    }
}
