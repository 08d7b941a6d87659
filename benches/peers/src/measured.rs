//! What one run at one rate came to, whoever ran it.

/// The share of what was offered that must come out to have been kept up with.
const KEPT_UP: f64 = 0.98;

/// A load, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Transactions a second, all members together.
    pub rate: u64,
    /// Bytes of a transaction.
    pub size: usize,
    /// Members.
    pub n: u16,
    /// Seconds of load before measuring starts.
    pub warmup: f64,
    /// Seconds that are measured.
    pub seconds: f64,
}

/// The figures of one run.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Offered, a second.
    pub rate: u64,
    /// Own transactions of all members ordered, a second.
    pub committed: f64,
    /// Transactions that found no room, in all.
    pub refused: u64,
    /// Transactions that never came out, or came out twice.
    pub lost_or_repeated: u64,
    /// Latency from the intended submission to the order at the submitter, in milliseconds.
    pub p50_ms: f64,
    /// The 99th percentile of the same.
    pub p99_ms: f64,
    /// The worst.
    pub max_ms: f64,
    /// User and system time of all processes, per second.
    pub cores: f64,
    /// The same for a million transactions, in seconds.
    pub cpu_per_million: f64,
    /// The largest process, in MiB.
    pub resident_mib: f64,
    /// Sent by all members for each byte of transactions.
    pub sent_per_byte: f64,
}

impl Measured {
    /// Whether what was offered came out, within `p99_max_ms`.
    pub fn kept_up(&self, p99_max_ms: f64) -> bool {
        self.refused == 0
            && self.lost_or_repeated == 0
            && self.committed >= self.rate as f64 * KEPT_UP
            && self.p99_ms <= p99_max_ms
    }
}
