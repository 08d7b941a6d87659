//! The latency benchmark: from the making of an event to its commit, and from submission to commit, in message delays, as the
//! node saw it that took the transaction. Parameters are the library's defaults in every row.

use super::{Choice, Figure};
use crate::disk::CrashKind;
use crate::network::Latency as Links;
use crate::plan::{Action, Plan};
use crate::queue::{MS, SECOND};
use crate::regions::RegionMatrix;
use crate::report::Latency;
use crate::run::run_plan;

/// One-way delay on uniform links, in microseconds. Long against the replica's clock, which counts milliseconds.
const DELAY_US: u64 = 100 * MS;

/// A row of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    Calm,
    Crashed,
    Regions,
}

/// Runs all rows. Quick, it leaves out most of the time and the largest committee.
pub(super) fn measure(choice: &Choice<'_>, show: &mut dyn FnMut(Figure)) {
    let sizes: &[usize] = if choice.quick { &[4, 10] } else { &[4, 10, 50] };
    for row in [Row::Calm, Row::Crashed, Row::Regions] {
        for members in sizes {
            let exists = row != Row::Regions || *members >= 10;
            if exists && choice.has(&name(row, *members, "")) {
                measure_row(row, *members, choice.quick)
                    .into_iter()
                    .for_each(&mut *show);
            }
        }
    }
}

fn name(row: Row, members: usize, what: &str) -> String {
    format!("n={members} {} {what}", row.name())
}

fn plan(row: Row, members: usize, quick: bool) -> Plan {
    let mut plan = Plan::calm(members);
    plan.latency = if row == Row::Regions {
        Links::Regions
    } else {
        Links::Uniform(DELAY_US)
    };
    plan.sync_us = 0;
    // Fifty members do in three measured seconds as much as ten do in a minute.
    let seconds = match members {
        50.. => 12,
        _ if quick => 20,
        _ => 40,
    };
    plan.chaos_us = seconds * SECOND;
    plan.load.every_us = 17_300 / members as u64 * 4;
    if row == Row::Crashed {
        // Spread over the seats, so that no run of leaders is hit harder than another.
        let f = plan.fault_weight() as usize;
        for crashed in 0..f {
            let node = crashed * members / f;
            plan.actions
                .push((0, Action::Crash(node, CrashKind::PowerLosingAll)));
        }
    }
    plan
}

fn measure_row(row: Row, members: usize, quick: bool) -> Vec<Figure> {
    let plan = plan(row, members, quick);
    let report = run_plan(&plan, 1, false);
    assert!(
        report.is_good(),
        "the benchmark's own run failed: {:?}",
        report.violations
    );
    // Reputation settles in the first third; the last seconds may not commit before the healing at the end.
    let measured = plan.chaos_us / 3..plan.chaos_us - 5 * SECOND;
    let samples: Vec<Latency> = report
        .latencies
        .into_iter()
        .filter(|sample| measured.contains(&sample.submitted_us))
        .collect();
    let created = |sample: &Latency| sample.committed_us - sample.created_us;
    let submitted = |sample: &Latency| sample.committed_us - sample.submitted_us;
    let name = |what: &str| name(row, members, what);
    if row == Row::Regions {
        let matrix = RegionMatrix::published();
        let quorum = members - (members - 1) / 3;
        let ideals: Vec<Vec<u64>> = (0..members)
            .map(|node| matrix.ideal_commit_us(members, quorum, node))
            .collect();
        let ideal = quantile(&samples, 50, |sample| ideals[sample.node][sample.node]);
        let p50 = quantile(&samples, 50, created);
        return vec![
            figure(
                name("ideal of three quorum steps p50"),
                ideal as f64 / 1e3,
                "ms",
                0.0,
            ),
            figure(name("creation to commit p50"), p50 as f64 / 1e3, "ms", 0.0),
            figure(
                name("creation to commit p50 / ideal"),
                p50 as f64 / ideal as f64,
                "ratio",
                1.25,
            ),
            figure(
                name("submission to commit p50"),
                quantile(&samples, 50, submitted) as f64 / 1e3,
                "ms",
                0.0,
            ),
        ];
    }
    let targets = if row == Row::Calm {
        [3.1, 4.1, 3.6, 0.0]
    } else {
        [4.0, 7.0, 0.0, 0.0]
    };
    let delays = |percent, of: &dyn Fn(&Latency) -> u64| {
        quantile(&samples, percent, of) as f64 / DELAY_US as f64
    };
    vec![
        figure(
            name("creation to commit p50"),
            delays(50, &created),
            "delays",
            targets[0],
        ),
        figure(
            name("creation to commit p99"),
            delays(99, &created),
            "delays",
            targets[1],
        ),
        figure(
            name("submission to commit p50"),
            delays(50, &submitted),
            "delays",
            targets[2],
        ),
        figure(
            name("submission to commit p99"),
            delays(99, &submitted),
            "delays",
            targets[3],
        ),
    ]
}

impl Row {
    fn name(self) -> &'static str {
        match self {
            Self::Calm => "uniform",
            Self::Crashed => "uniform, f crashed",
            Self::Regions => "ten regions",
        }
    }
}

fn figure(name: String, value: f64, unit: &'static str, target: f64) -> Figure {
    let figure = Figure::plain("latency", name, value, unit);
    if target > 0.0 {
        figure.at_most(target)
    } else {
        figure
    }
}

fn quantile(samples: &[Latency], percent: usize, of: impl Fn(&Latency) -> u64) -> u64 {
    let mut values: Vec<u64> = samples.iter().map(of).collect();
    values.sort_unstable();
    assert!(!values.is_empty(), "no transaction was measured");
    values[(values.len() * percent / 100).min(values.len() - 1)]
}
