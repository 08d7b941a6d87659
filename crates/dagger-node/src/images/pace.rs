//! How fast blobs are sent: when the next bytes may follow those that were. Pure, but for the type of time.

use std::time::Duration;

use tokio::time::Instant;

/// What was not sent may be made up for over this long: timers wake late, and nobody asks all the time.
const MADE_UP: Duration = Duration::from_millis(20);

/// So many bytes a second and no more.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_s: u64,
    /// When all that was sent so far is paid for.
    paid_at: Option<Instant>,
}

impl Pace {
    /// A pace of at least one byte a second.
    pub(super) fn new(bytes_per_s: u64) -> Self {
        Self {
            bytes_per_s: bytes_per_s.max(1),
            paid_at: None,
        }
    }

    /// So many bytes were sent; from when on the next may be.
    pub(super) fn sent(&mut self, now: Instant, bytes: u64) -> Instant {
        let earliest = now.checked_sub(MADE_UP).unwrap_or(now);
        let from = self.paid_at.map_or(earliest, |paid| paid.max(earliest));
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_s);
        let paid = from + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX / 4));
        self.paid_at = Some(paid);
        paid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_always_has_more_to_send_keeps_the_pace_and_no_more() {
        let start = Instant::now();
        let mut pace = Pace::new(100_000_000);
        let mut now = start;
        for _ in 0..10_000 {
            // Woken up to a millisecond late, each time.
            now = now.max(pace.sent(now, 16 * 1024)) + Duration::from_micros(100);
        }
        let took = (now - start).as_secs_f64();
        let ideal = 10_000.0 * 16.0 * 1024.0 / 100_000_000.0;
        assert!(
            (ideal - 0.021..ideal + 0.001).contains(&took),
            "{took} s, not {ideal} s"
        );
    }

    #[test]
    fn a_pause_is_not_made_up_for_beyond_a_moment() {
        let start = Instant::now();
        let mut pace = Pace::new(1_000);
        assert_eq!(pace.sent(start, 1_000), start + Duration::from_millis(980));
        let later = start + Duration::from_secs(60);
        assert_eq!(pace.sent(later, 1_000), later + Duration::from_millis(980));
        assert_eq!(pace.sent(later, 500), later + Duration::from_millis(1_480));
    }

    #[test]
    fn what_cannot_be_sent_in_this_life_overflows_nothing() {
        let mut pace = Pace::new(0);
        let now = Instant::now();
        assert!(pace.sent(now, 1 << 40) > now);
    }
}
