//! The only places that read a clock: Unix time that never goes back, and the boot clock.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

/// Unix time in ms that never goes back within one process, shared by clones of an `Arc`.
///
/// If the wall clock steps back, it stands still until the wall clock has caught up.
#[derive(Debug, Default)]
pub struct Clock {
    latest_ms: AtomicU64,
    offset_ms: std::sync::atomic::AtomicI64,
}

impl Clock {
    /// A clock that starts at the wall clock.
    pub fn new() -> Self {
        Self::default()
    }

    /// Now, in ms since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        let wall = unix_ms().saturating_add_signed(self.offset_ms.load(Ordering::Relaxed));
        self.latest_ms.fetch_max(wall, Ordering::Relaxed).max(wall)
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
