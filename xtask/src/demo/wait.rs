//! Waiting for conditions, never for time: each wait polls until it holds, within the deadline of
//! the whole demo, and says on failure what it last saw.

use anyhow::{Result, anyhow};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(100);

/// The end of the demo's patience, one for all its waits.
#[derive(Clone, Copy)]
pub struct Deadline {
    end: Instant,
}

impl Deadline {
    /// A deadline that far from now.
    pub fn after(duration: Duration) -> Self {
        Self {
            end: Instant::now() + duration,
        }
    }

    /// Polls until `probe` returns something. `Err` from the probe means "not yet, because"; its
    /// last text is part of the failure.
    pub fn wait<T>(&self, what: &str, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
        loop {
            match probe() {
                Ok(value) => return Ok(value),
                Err(reason) if Instant::now() >= self.end => {
                    return Err(anyhow!("waited in vain for {what}; last seen: {reason:#}"));
                }
                Err(_) => std::thread::sleep(POLL),
            }
        }
    }
}

#[cfg(test)]
#[path = "wait_tests.rs"]
mod wait_tests;
