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

/// What the measured part of a row's run took.
fn samples(row: Row, members: usize, quick: bool) -> Vec<Latency> {
    let plan = plan(row, members, quick);
    let report = run_plan(&plan, 1, false);
    assert!(
        report.is_good(),
        "the benchmark's own run failed: {:?}",
        report.violations
    );
    // Reputation settles in the first third; the last seconds may not commit before the healing at the end.
    let measured = plan.chaos_us / 3..plan.chaos_us - 5 * SECOND;
    report
        .latencies
        .into_iter()
        .filter(|sample| measured.contains(&sample.submitted_us))
        .collect()
}

fn measure_row(row: Row, members: usize, quick: bool) -> Vec<Figure> {
    let samples = samples(row, members, quick);
    let created = |sample: &Latency| sample.committed_us - sample.created_us;
    let submitted = |sample: &Latency| sample.committed_us - sample.submitted_us;
    let name = |what: &str| name(row, members, what);
    if row == Row::Regions {
        return region_figures(&samples, members);
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

/// Between regions each transaction is held against the ideal of the member that took it. The median of all against the median of all
/// ideals would say little: every region has a latency of its own that hardly varies, and where half of the members are below a gap of
/// a whole round and half above it, a few transactions more on one side move that median across the gap.
fn region_figures(samples: &[Latency], members: usize) -> Vec<Figure> {
    let ideals = region_ideals_us(members);
    let created = |sample: &Latency| sample.committed_us - sample.created_us;
    let submitted = |sample: &Latency| sample.committed_us - sample.submitted_us;
    let name = |what: &str| name(Row::Regions, members, what);
    let ms = |what: &str, of: &dyn Fn(&Latency) -> u64| {
        let value = quantile(samples, 50, of) as f64 / 1e3;
        figure(name(what), value, "ms", 0.0)
    };
    let ratio = |what: &str, value, target| {
        let what = format!("creation to commit / its member's ideal, {what}");
        figure(name(&what), value, "ratio", target)
    };
    let ratios = own_ratios(samples, &ideals);
    let farthest = (0..members)
        .map(|node| {
            samples
                .iter()
                .filter(move |sample| sample.node == node)
                .copied()
        })
        .map(|own| own_ratios(&own.collect::<Vec<_>>(), &ideals))
        .filter(|own| !own.is_empty())
        .map(|own| median(&own))
        .fold(0.0, f64::max);
    vec![
        ms("ideal of three quorum steps p50", &|sample| {
            ideals[sample.node]
        }),
        ms("creation to commit p50", &created),
        ratio("p50", median(&ratios), 1.25),
        ratio("mean", mean(&ratios), 1.25),
        ratio("p50 of the member farthest from it", farthest, 0.0),
        ms("submission to commit p50", &submitted),
    ]
}

/// Per member, the least time from the making of its event until it can know of the commit itself.
fn region_ideals_us(members: usize) -> Vec<u64> {
    let matrix = RegionMatrix::published();
    let quorum = members - (members - 1) / 3;
    (0..members)
        .map(|node| matrix.ideal_commit_us(members, quorum, node)[node])
        .collect()
}

/// Per transaction, from creation to commit in proportion to what is ideal at the member that took it; in ascending order.
fn own_ratios(samples: &[Latency], ideals_us: &[u64]) -> Vec<f64> {
    let took = |sample: &Latency| (sample.committed_us - sample.created_us) as f64;
    let mut ratios: Vec<f64> = samples
        .iter()
        .map(|sample| took(sample) / ideals_us[sample.node] as f64)
        .collect();
    ratios.sort_unstable_by(f64::total_cmp);
    ratios
}

fn median(ascending: &[f64]) -> f64 {
    ascending[ascending.len() / 2]
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
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

#[cfg(test)]
#[path = "latency_tests.rs"]
mod tests;
