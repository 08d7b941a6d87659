//! The table: medians over the rounds, in Markdown.

use crate::measured::Measured;
use std::fmt::{self, Display, Formatter};

/// A peer's highest rate, and the product's at the same p99.
#[derive(Clone, Copy)]
pub struct Highest {
    /// The peer's.
    pub theirs: Measured,
    /// The product's, if it kept up with anything at that p99.
    pub ours: Option<Measured>,
}

/// All runs so far.
#[derive(Default)]
pub struct Table {
    at_rates: Vec<(u64, &'static str, Vec<Measured>)>,
    highest: Vec<(&'static str, Vec<Highest>)>,
}

impl Table {
    /// A run of everybody's at a rate.
    pub fn add(&mut self, rate: u64, name: &'static str, measured: Measured) {
        let row = self.at_rates.iter_mut();
        match row.into_iter().find(|row| (row.0, row.1) == (rate, name)) {
            Some(row) => row.2.push(measured),
            None => self.at_rates.push((rate, name, vec![measured])),
        }
    }

    /// A search beside a peer.
    pub fn add_highest(&mut self, name: &'static str, highest: Highest) {
        match self.highest.iter_mut().find(|row| row.0 == name) {
            Some(row) => row.1.push(highest),
            None => self.highest.push((name, vec![highest])),
        }
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if !self.at_rates.is_empty() {
            writeln!(
                f,
                "| offered | who | committed/s | p50, p99, max ms | cores | CPU-s a million | MiB a node |"
            )?;
            writeln!(f, "|---|---|---|---|---|---|---|")?;
        }
        for (rate, name, runs) in &self.at_rates {
            writeln!(f, "| {rate}/s | {name} | {} |", cells(runs))?;
        }
        if self.highest.is_empty() {
            return Ok(());
        }
        writeln!(f)?;
        writeln!(
            f,
            "| highest kept up with | who | committed/s | p50, p99, max ms | cores | CPU-s a million | MiB a node | ratio |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|")?;
        for (name, searches) in &self.highest {
            let theirs: Vec<Measured> = searches.iter().map(|s| s.theirs).collect();
            let ours: Vec<Measured> = searches.iter().filter_map(|s| s.ours).collect();
            let committed = |m: &Measured| m.committed;
            let ratios = searches.iter().map(|s| {
                let ours = s.ours.as_ref().map_or(0.0, committed);
                ours / s.theirs.committed
            });
            let mut ratios: Vec<f64> = ratios.collect();
            let ratio = median(&mut ratios);
            writeln!(f, "| | {name} | {} | |", cells(&theirs))?;
            writeln!(
                f,
                "| at its p99 | dagger | {} | {ratio:.2} x ({:.2} to {:.2}) |",
                cells(&ours),
                ratios[0],
                ratios[ratios.len() - 1],
            )?;
        }
        Ok(())
    }
}

/// The medians of these runs; dashes without any.
fn cells(runs: &[Measured]) -> String {
    if runs.is_empty() {
        return "- | - | - | - | -".to_owned();
    }
    let of = |value: fn(&Measured) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(value).collect();
        median(&mut values)
    };
    format!(
        "{:.0} | {:.1}, {:.1}, {:.0} | {:.2} | {:.1} | {:.0} |",
        of(|m| m.committed),
        of(|m| m.p50_ms),
        of(|m| m.p99_ms),
        of(|m| m.max_ms),
        of(|m| m.cores),
        of(|m| m.cpu_per_million),
        of(|m| m.resident_mib),
    )
    .trim_end_matches(" |")
    .to_owned()
}

/// Sorts; of an even number the lower of the two in the middle.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}
