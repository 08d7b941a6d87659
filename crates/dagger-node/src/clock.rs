//! The only places that read a clock: Unix time that never goes back, and the boot clock.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// Unix time in ms that never goes back within one process, shared by clones of an `Arc`.
///
/// If the wall clock steps back, this one goes on at half its speed until the wall clock has caught up: timers still end.
#[derive(Debug)]
pub struct Clock {
    /// The latest time taken from the wall clock, and when that was.
    latest: Mutex<(u64, Instant)>,
    offset_ms: AtomicI64,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            latest: Mutex::new((0, Instant::now())),
            offset_ms: AtomicI64::new(0),
        }
    }
}

impl Clock {
    /// A clock that starts at the wall clock.
    pub fn new() -> Self {
        Self::default()
    }

    /// Now, in ms since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        let wall = unix_ms().saturating_add_signed(self.offset_ms.load(Ordering::Relaxed));
        let mut latest = self.latest.lock().expect("no holder panics");
        let passed_ms = u64::try_from(latest.1.elapsed().as_millis()).unwrap_or(u64::MAX);
        let slow = latest.0.saturating_add(passed_ms / 2);
        if wall < slow {
            return slow;
        }
        *latest = (wall, Instant::now());
        wall
    }

    /// Shifts this clock against the wall clock: fault injection for tests of clock steps.
    pub fn shift(&self, by_ms: i64) {
        self.offset_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

/// The wall clock as it stands, in ms since the Unix epoch.
pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// `CLOCK_BOOTTIME` in ms: counts through suspend, is never stepped, starts at 0 with the machine.
pub fn boottime_ms() -> u64 {
    let t = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
        .expect("CLOCK_BOOTTIME exists on Linux");
    let (seconds, nanos) = (
        u64::try_from(t.tv_sec()).unwrap_or(0),
        u64::try_from(t.tv_nsec()).unwrap_or(0),
    );
    seconds * 1000 + nanos / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::Clock;

    #[test]
    fn a_step_back_slows_the_clock_down_and_does_not_stop_it() {
        let clock = Clock::new();
        clock.shift(3_600_000);
        let ahead = clock.now_ms();
        clock.shift(-3_600_000);
        let mut last = clock.now_ms();
        assert!(last >= ahead);
        while last < ahead + 5 {
            std::thread::sleep(std::time::Duration::from_millis(1));
            let now = clock.now_ms();
            assert!(now >= last);
            last = now;
        }
        clock.shift(7_200_000);
        assert!(clock.now_ms() > ahead + 3_000_000);
    }
}
