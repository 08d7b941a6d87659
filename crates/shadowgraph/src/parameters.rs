//! The settings of a replica. Those of the whole committee enter the order; the others are a node's own.

use crate::committee::Committee;
use crate::epoch::EpochStart;
use crate::ids::{ChainId, MemberIndex};

/// Settings. The first group must be equal on every member: commits depend on it. docs/protocol.md 1.5
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Committee-wide: the most leader slots in a round; never more than members.
    pub leaders_per_round: u16,
    /// Committee-wide: rounds below the last leader after which events no longer count.
    pub gc_depth_rounds: u64,
    /// Committee-wide: the schedule is recomputed after a commit this many rounds above its last change; 0 is never.
    pub schedule_interval_rounds: u64,
    /// Committee-wide: the most commit time between checkpoints while there are transactions.
    pub checkpoint_interval_ms: u64,

    /// The most that may be waited for a round's leaders at first; measurement shortens it, silence lengthens it.
    pub leader_timeout_ms: u64,
    /// The least time between own events, on average of a wave's three rounds; 0 lets the network alone set the pace.
    /// docs/protocol.md 4.9
    pub min_round_interval_ms: u64,
    /// The time between own events while there is nothing to order.
    pub heartbeat_ms: u64,
    /// How far ahead of this node's clock an event may be and still be cited.
    pub future_tolerance_ms: u64,
    /// How long a missing ancestor is expected to arrive by itself before it is asked for, at least. docs/protocol.md 7.4
    pub pull_delay_ms: u64,
    /// How long an answer is waited for before another peer is asked.
    pub pull_retry_ms: u64,
    /// The time between frontier exchanges with a random peer while awake (asleep: the heartbeat).
    pub frontier_interval_ms: u64,

    /// The most payload bytes in an own event.
    pub event_bytes_max: usize,
    /// The most transactions in an own event.
    pub event_transactions_max: usize,
    /// The most bytes of transactions that wait.
    pub pool_bytes_max: usize,
    /// The longest that a transaction may have waited while further ones are taken, once more waits than two events carry.
    pub pool_wait_max_ms: u64,
    /// Own events carry no payload beyond this many rounds above the last committed leader.
    pub payload_rounds_max: u64,
    /// The most events of one sender that wait for ancestors.
    pub pending_events_per_peer_max: usize,
    /// The most bytes of events of one sender that wait for ancestors.
    pub pending_bytes_per_peer_max: usize,
    /// The most bytes in an answer to a request.
    pub answer_bytes_max: usize,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            leaders_per_round: u16::MAX,
            gc_depth_rounds: 50,
            schedule_interval_rounds: 10,
            checkpoint_interval_ms: 1_000,
            leader_timeout_ms: 200,
            min_round_interval_ms: 0,
            heartbeat_ms: 1_000,
            future_tolerance_ms: 2_000,
            pull_delay_ms: 20,
            pull_retry_ms: 200,
            frontier_interval_ms: 500,
            event_bytes_max: 1 << 20,
            event_transactions_max: 1 << 14,
            pool_bytes_max: 64 << 20,
            pool_wait_max_ms: 250,
            payload_rounds_max: 24,
            pending_events_per_peer_max: 1_024,
            pending_bytes_per_peer_max: 32 << 20,
            answer_bytes_max: 2 << 20,
        }
    }
}

/// Who a replica is and with whom it runs, in the epoch that it begins with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The network.
    pub chain_id: ChainId,
    /// The members of the epoch.
    pub committee: Committee,
    /// This replica's seat; none for a follower, which only watches.
    pub me: Option<MemberIndex>,
    /// The commit that the epoch continues from.
    pub start: EpochStart,
    /// The settings.
    pub parameters: Parameters,
}
