//! The node's own metrics.

/// Counters and gauges.
#[derive(Default)]
pub struct Metrics {}
