//! How long the leaders of a round are waited for: half as long as the quorum took, longer while nothing commits. And when those
//! who are not heard may be asleep. docs/protocol.md 4.4, 4.5 and 4.7.

use crate::ids::Round;

/// The wait for leaders, in percent of the time that the quorum took. Who needs longer shall not lead: with a wait as
/// long as the quorum's, far members keep their slots and slow all others down.
const WAIT_PERCENT: u64 = 50;
/// Jitter that is always allowed for, in milliseconds.
const JITTER_MS: u64 = 5;
/// No wait is shorter, in milliseconds.
const WAIT_MIN_MS: u64 = 10;
/// No wait is longer, in milliseconds.
pub(crate) const WAIT_MAX_MS: u64 = 10_000;
/// A round's quorum counts as no more than so many times what quorums took before it.
const OUTLIER: u64 = 4;
/// No ancestor is awaited longer before it is asked for, in milliseconds.
const ARRIVAL_MAX_MS: u64 = 200;
/// Rounds without a commit after which the wait doubles, and rounds with commits after which it halves again.
const PATIENCE_ROUNDS: u64 = 8;
const DOUBLINGS_MAX: u32 = 10;

#[derive(Debug)]
pub(crate) struct Pacing {
    initial_ms: u64,
    /// Eight times the smoothed time from an own event to the quorum of its round; none before the first measurement.
    quorum_ms_x8: Option<u64>,
    doublings: u32,
    changed: Round,
}

impl Pacing {
    pub(crate) fn new(initial_ms: u64) -> Self {
        Self {
            initial_ms,
            quorum_ms_x8: None,
            doublings: 0,
            changed: Round(0),
        }
    }

    /// How long to wait for leaders once a round has a quorum, in milliseconds.
    pub(crate) fn wait_ms(&self) -> u64 {
        let measured = self
            .quorum_ms_x8
            .map(|x8| (x8 / 8 * WAIT_PERCENT / 100 + JITTER_MS).max(WAIT_MIN_MS));
        let base = measured.unwrap_or(self.initial_ms);
        (base << self.doublings).min(WAIT_MAX_MS)
    }

    /// How long the events of a round are waited for before the others might be asleep, in milliseconds: as long as quorums
    /// take, and once more what leaders get.
    pub(crate) fn patience_ms(&self) -> u64 {
        self.quorum_ms_x8.map_or(0, |x8| x8 / 8) + self.wait_ms()
    }

    /// How long a missing ancestor may be on its way, in milliseconds: half as long as a quorum takes, at least `least_ms`. Where
    /// rounds are slow, be it the network or work that waits, whatever is asked for sooner comes twice.
    pub(crate) fn arrival_ms(&self, least_ms: u64) -> u64 {
        let half = self.quorum_ms_x8.map_or(0, |x8| x8 / 16);
        half.min(ARRIVAL_MAX_MS).max(least_ms)
    }

    /// A round had its quorum so long after our event of it. One that took very much longer than those before tells of members
    /// that were away, not of the network: it counts as [`OUTLIER`] times as long as they did.
    pub(crate) fn measured(&mut self, quorum_ms: u64) {
        let quorum_ms = quorum_ms.min(WAIT_MAX_MS);
        let smoothed = self.quorum_ms_x8.map_or(quorum_ms * 8, |x8| {
            let most_ms = (x8 / 8).max(WAIT_MIN_MS) * OUTLIER;
            x8 - x8 / 8 + quorum_ms.min(most_ms)
        });
        self.quorum_ms_x8 = Some(smoothed);
    }

    /// An own event of `round` was made while the last committed leader is of `committed`.
    pub(crate) fn advanced(&mut self, round: Round, committed: Round) {
        if round > committed.max(self.changed).ahead(PATIENCE_ROUNDS) {
            self.doublings = (self.doublings + 1).min(DOUBLINGS_MAX);
            self.changed = round;
        }
    }

    /// A leader of `round` was committed.
    pub(crate) fn committed(&mut self, round: Round) {
        if self.doublings > 0 && round > self.changed.ahead(PATIENCE_ROUNDS) {
            self.doublings -= 1;
            self.changed = round;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ancestor_is_awaited_for_half_a_round_within_bounds() {
        let mut pacing = Pacing::new(200);
        assert_eq!(pacing.arrival_ms(20), 20);
        pacing.measured(10);
        assert_eq!(pacing.arrival_ms(20), 20);
        for _ in 0..100 {
            pacing.measured(100);
        }
        assert!((45..=50).contains(&pacing.arrival_ms(20)));
        for _ in 0..100 {
            pacing.measured(5_000);
        }
        assert_eq!(pacing.arrival_ms(20), ARRIVAL_MAX_MS);
    }

    #[test]
    fn a_time_without_a_quorum_is_not_taken_for_a_slow_network() {
        let mut pacing = Pacing::new(200);
        for _ in 0..50 {
            pacing.measured(40);
        }
        pacing.measured(9_000);
        assert!(pacing.wait_ms() < 40, "{}", pacing.wait_ms());
        // A network that has become that slow is followed all the same.
        for _ in 0..30 {
            pacing.measured(4_000);
        }
        assert!(pacing.wait_ms() > 1_900, "{}", pacing.wait_ms());
    }

    #[test]
    fn the_wait_follows_the_quorum_and_doubles_in_silence() {
        let mut pacing = Pacing::new(200);
        assert_eq!(pacing.wait_ms(), 200);
        for _ in 0..50 {
            pacing.measured(40);
        }
        assert_eq!((pacing.wait_ms(), pacing.patience_ms()), (25, 65));
        pacing.advanced(Round(9), Round(0));
        pacing.advanced(Round(10), Round(0));
        assert_eq!(pacing.wait_ms(), 50);
        pacing.advanced(Round(18), Round(0));
        assert_eq!(pacing.wait_ms(), 100);
        pacing.committed(Round(19));
        assert_eq!(pacing.wait_ms(), 100);
        pacing.committed(Round(27));
        assert_eq!(pacing.wait_ms(), 50);
        for round in 1..1000 {
            pacing.advanced(Round(27 + round), Round(0));
        }
        assert_eq!(pacing.wait_ms(), WAIT_MAX_MS);
    }
}
