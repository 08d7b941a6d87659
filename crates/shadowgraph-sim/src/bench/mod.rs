//! The benchmarks of `shadowgraph-sim --bench`: every figure that the protocol is judged by, with the library's default
//! parameters in every row. Each figure is handed out as soon as it is known.

mod cpu;
mod latency;
mod memory;
mod payload;
mod seeds;

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// One measured figure, as every benchmark of the project prints it.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// The benchmark.
    pub bench: &'static str,
    /// What was measured.
    pub name: String,
    /// The value.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// What it should not exceed, or not fall below where more is better; zero for figures without a target.
    pub target: f64,
    /// Whether it keeps to that.
    pub ok: bool,
}

impl Figure {
    fn plain(bench: &'static str, name: String, value: f64, unit: &'static str) -> Self {
        let value = (value * 1000.0).round() / 1000.0;
        let (target, ok) = (0.0, true);
        Self {
            bench,
            name,
            value,
            unit,
            target,
            ok,
        }
    }

    fn at_most(self, target: f64) -> Self {
        let ok = self.value <= target;
        Self { target, ok, ..self }
    }

    fn at_least(self, target: f64) -> Self {
        let ok = self.value >= target;
        Self { target, ok, ..self }
    }
}

/// The names of the benchmarks.
pub const BENCHES: [&str; 5] = ["latency", "cpu", "payload", "memory", "seeds"];

/// What to measure.
pub struct Choice<'a> {
    /// One of [`BENCHES`], or `all`.
    pub bench: &'a str,
    /// Only rows whose name contains this.
    pub rows: &'a str,
    /// Less of it, for an indication.
    pub quick: bool,
}

impl Choice<'_> {
    fn has(&self, row: &str) -> bool {
        row.contains(self.rows)
    }
}

/// Measures, and hands out each figure when its row ends.
pub fn measure(choice: &Choice<'_>, show: &mut dyn FnMut(Figure)) {
    for bench in BENCHES {
        if choice.bench != bench && choice.bench != "all" {
            continue;
        }
        match bench {
            "latency" => latency::measure(choice, show),
            "cpu" => cpu::measure(choice, show),
            "payload" => payload::measure(choice, show),
            "memory" => memory::measure(choice, show),
            _ => seeds::measure(choice, show),
        }
    }
}

/// What this thread has computed so far: what others run meanwhile does not count.
fn thread_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .expect("every thread has a clock of its own")
        .into()
}

/// What this process has computed so far.
fn process_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)
        .expect("every process has a clock of its own")
        .into()
}
