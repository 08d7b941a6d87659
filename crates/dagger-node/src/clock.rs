//! The only places that read a clock: Unix time that never jumps, and the boot clock.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Unix time in ms that neither goes back nor jumps within one process, shared by clones of an `Arc`.
///
/// It starts at the wall clock and goes on with the boot clock. If the wall clock is stepped, this one runs at half or one
/// and a half of its speed until the two agree again: what the replica has measured of other members' clocks stays true
/// meanwhile, so a step never gets into events (docs/protocol.md 2.11), and timers still end.
#[derive(Debug)]
pub struct Clock {
    /// The time at the latest reading, and the boot clock then.
    latest_us: Mutex<(u64, u64)>,
    offset_ms: AtomicI64,
}

impl Default for Clock {
    fn default() -> Self {
        Self::off_by(0)
    }
}

impl Clock {
    /// A clock that starts at the wall clock.
    pub fn new() -> Self {
        Self::default()
    }

    /// A clock under which the wall clock is off: fault injection.
    pub fn off_by(offset_ms: i64) -> Self {
        let wall_us = wall_us(offset_ms);
        Self {
            latest_us: Mutex::new((wall_us, boottime_us())),
            offset_ms: AtomicI64::new(offset_ms),
        }
    }

    /// Now, in ms since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.now_us() / 1000
    }

    /// How long it is until then.
    pub fn until(&self, at_ms: u64) -> Duration {
        let at_us = at_ms.saturating_mul(1000);
        Duration::from_micros(at_us.saturating_sub(self.now_us()))
    }

    fn now_us(&self) -> u64 {
        let mut latest = self.latest_us.lock().expect("no holder panics");
        let (time_us, boot_us) = *latest;
        let now_us = boottime_us();
        let passed_us = now_us.saturating_sub(boot_us);
        let (slow_us, fast_us) = (passed_us / 2, passed_us + passed_us / 2);
        let wall_us = wall_us(self.offset_ms.load(Ordering::Relaxed));
        *latest = (wall_us.clamp(time_us + slow_us, time_us + fast_us), now_us);
        latest.0
    }

    /// Steps the wall clock under this one: fault injection.
    pub fn set_off_by(&self, offset_ms: i64) {
        self.offset_ms.store(offset_ms, Ordering::Relaxed);
    }

    /// How far the wall clock is ahead of this one: 0 unless it was stepped.
    pub fn lag_ms(&self) -> i64 {
        let wall_ms = wall_us(self.offset_ms.load(Ordering::Relaxed)) / 1000;
        let ahead = i128::from(wall_ms) - i128::from(self.now_ms());
        i64::try_from(ahead).unwrap_or(i64::MAX)
    }
}

fn wall_us(offset_ms: i64) -> u64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH);
    let us = unix.map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX));
    us.saturating_add_signed(offset_ms.saturating_mul(1000))
}

/// The wall clock as it stands, in ms since the Unix epoch.
pub fn unix_ms() -> u64 {
    wall_us(0) / 1000
}

fn boottime_us() -> u64 {
    let t = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
        .expect("CLOCK_BOOTTIME exists on Linux");
    let (seconds, nanos) = (
        u64::try_from(t.tv_sec()).unwrap_or(0),
        u64::try_from(t.tv_nsec()).unwrap_or(0),
    );
    seconds * 1_000_000 + nanos / 1000
}

/// `CLOCK_BOOTTIME` in ms: counts through suspend, is never stepped, starts at 0 with the machine.
pub fn boottime_ms() -> u64 {
    boottime_us() / 1000
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Clock, boottime_ms, unix_ms};

    /// Reads a clock for a while: never back, at most half as fast again as the boot clock, at least half as fast.
    fn stays_even(clock: &Clock) {
        let before = boottime_ms();
        let first = clock.now_ms();
        let after = boottime_ms();
        let mut last = first;
        while boottime_ms() < after + 40 {
            std::thread::sleep(Duration::from_micros(300));
            let now = clock.now_ms();
            assert!(now >= last);
            last = now;
        }
        // However long this thread was kept waiting between any two of these readings.
        let gained = clock.now_ms() - first;
        let passed = boottime_ms() - before;
        assert!(gained <= passed * 3 / 2 + 2, "{gained} in {passed}");
        assert!(gained + 2 >= 40 / 2, "{gained} in 40 or more");
    }

    #[test]
    fn a_step_of_the_wall_clock_only_changes_the_speed() {
        let clock = Clock::new();
        stays_even(&clock);
        clock.set_off_by(3_600_000);
        stays_even(&clock);
        assert!(clock.lag_ms() > 3_500_000);
        clock.set_off_by(-3_600_000);
        stays_even(&clock);
        assert!(clock.lag_ms() < -3_500_000);
    }

    #[test]
    fn what_is_past_is_not_waited_for() {
        let clock = Clock::new();
        assert_eq!(clock.until(clock.now_ms()), Duration::ZERO);
        let ahead_ms = clock.now_ms() + 3_600_000;
        let ahead = clock.until(ahead_ms);
        assert!(ahead <= Duration::from_millis(3_600_000));
        assert!(ahead > Duration::from_millis(3_000_000));
    }

    #[test]
    fn a_clock_starts_at_the_wall_clock() {
        let now = unix_ms();
        assert!(Clock::new().now_ms() >= now);
        assert!(Clock::off_by(3_600_000).now_ms() >= now + 3_600_000);
        assert!(Clock::off_by(-3_600_000).now_ms() < now);
    }
}
