//! The node's own metrics, in the Prometheus text format. What is only a reading of other state is
//! gathered when it is asked for (`status`), not counted here.

use std::time::Duration;

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Counters and gauges that the parts of a node write.
pub struct Metrics {
    pub(crate) registry: Registry,
    pub(crate) events_received: Counter,
    pub(crate) events_repeated: Counter,
    pub(crate) peer_faults: Counter,
    pub(crate) transactions: Counter,
    pub(crate) executed_commit: Gauge,
    pub(crate) certified_commit: Gauge,
    pub(crate) execute_seconds: Histogram,
    pub(crate) sync_seconds: Histogram,
    pub(crate) log_bytes: Gauge,
    pub(crate) turns: Counter,
    pub(crate) healed_events: Counter,
    pub(crate) subscribers: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("dagger");
        let seconds =
            || Histogram::new([0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0]);
        let mut this = Self {
            registry: Registry::default(),
            events_received: Counter::default(),
            events_repeated: Counter::default(),
            peer_faults: Counter::default(),
            transactions: Counter::default(),
            executed_commit: Gauge::default(),
            certified_commit: Gauge::default(),
            execute_seconds: seconds(),
            sync_seconds: seconds(),
            log_bytes: Gauge::default(),
            turns: Counter::default(),
            healed_events: Counter::default(),
            subscribers: Gauge::default(),
        };
        registry.register(
            "events_received",
            "Events received from peers that verified",
            this.events_received.clone(),
        );
        registry.register(
            "events_repeated",
            "Events received from peers that had been verified before",
            this.events_repeated.clone(),
        );
        registry.register(
            "healed_events",
            "Events of the log that were damaged and had from peers anew",
            this.healed_events.clone(),
        );
        registry.register(
            "subscribers",
            "Nodes without a seat that this node sent events on to the last time",
            this.subscribers.clone(),
        );
        registry.register(
            "peer_faults",
            "Messages that no honest peer sends",
            this.peer_faults.clone(),
        );
        registry.register(
            "transactions_executed",
            "Transactions executed",
            this.transactions.clone(),
        );
        registry.register(
            "executed_commit",
            "Index of the last commit executed",
            this.executed_commit.clone(),
        );
        registry.register(
            "certified_commit",
            "Last commit whose state a quorum has signed",
            this.certified_commit.clone(),
        );
        registry.register_with_unit(
            "execute",
            "Execution of one commit",
            Unit::Seconds,
            this.execute_seconds.clone(),
        );
        registry.register_with_unit(
            "log_sync",
            "One sync of the event log",
            Unit::Seconds,
            this.sync_seconds.clone(),
        );
        registry.register(
            "event_log_bytes",
            "Bytes of the event log on disk",
            this.log_bytes.clone(),
        );
        registry.register(
            "replica_turns",
            "Turns of the replica's loop",
            this.turns.clone(),
        );
        this.registry = registry;
        this
    }
}

impl Metrics {
    /// A commit was executed.
    pub(crate) fn executed(&self, index: u64, transactions: usize, took: Duration) {
        self.transactions.inc_by(transactions as u64);
        self.executed_commit
            .set(i64::try_from(index).unwrap_or(i64::MAX));
        self.execute_seconds.observe(took.as_secs_f64());
    }
}
