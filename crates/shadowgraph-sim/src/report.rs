//! What a run leaves behind.

/// A check that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When, in microseconds of virtual time.
    pub at_us: u64,
    /// Which check.
    pub check: &'static str,
    /// What was seen.
    pub text: String,
}

/// Latencies of one transaction, as the node saw that took it.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// The node.
    pub node: usize,
    /// When it was submitted, in microseconds of virtual time.
    pub submitted_us: u64,
    /// When the event that carries it was made.
    pub created_us: u64,
    /// When that node could report it as committed.
    pub committed_us: u64,
}

/// The most that any replica held at one time, each with what the parameters allow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    /// Events in a graph.
    pub graph_events: (u64, u64),
    /// Events that waited for ancestors.
    pub pending_events: (u64, u64),
    /// Bytes of transactions that waited.
    pub pool_bytes: (u64, u64),
}

/// The outcome of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// What went wrong; empty for a good run.
    pub violations: Vec<Violation>,
    /// Hash over every step. Equal seeds give equal hashes.
    pub audit: String,
    /// Number of steps.
    pub steps: u64,
    /// Length of the run in microseconds of virtual time.
    pub virtual_us: u64,
    /// Commits of the longest sequence.
    pub commits: u64,
    /// Distinct events that honest nodes persisted.
    pub events: u64,
    /// How often a node stopped before an epoch whose rules it did not know.
    pub outdated: u64,
    /// Transactions that were accepted.
    pub accepted: u64,
    /// Latency of each transaction whose submitter saw it commit.
    pub latencies: Vec<Latency>,
    /// The most that any replica held.
    pub held: Held,
    /// The steps as text, if they were asked for.
    pub lines: Vec<String>,
}

impl Report {
    /// Whether every check passed.
    pub fn is_good(&self) -> bool {
        self.violations.is_empty()
    }
}
