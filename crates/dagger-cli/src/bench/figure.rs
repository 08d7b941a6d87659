//! A measured figure, in the one form in which every benchmark prints it.

use crate::failure::Done;
use crate::output::{self, Listing};
use serde::Serialize;

/// One measured figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// The benchmark.
    pub bench: &'static str,
    /// What was measured.
    pub name: String,
    /// The value.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// What it should reach or stay below, if anybody said so.
    pub target: Option<f64>,
    /// Whether it does; true without a target.
    pub ok: bool,
}

/// Which way a target lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Figure {
    pub fn new(
        bench: &'static str,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
    ) -> Self {
        Self {
            bench,
            name: name.into(),
            value,
            unit,
            target: None,
            ok: true,
        }
    }

    pub fn target(mut self, target: Option<Target>) -> Self {
        match target {
            Some(Target::AtLeast(least)) => {
                (self.target, self.ok) = (Some(least), self.value >= least);
            }
            Some(Target::AtMost(most)) => {
                (self.target, self.ok) = (Some(most), self.value <= most);
            }
            None => {}
        }
        self
    }
}

/// Prints figures as a table, or one JSON object a line.
pub fn print(figures: &[Figure], json: bool) -> Done {
    if json {
        return figures.iter().try_for_each(output::json_line);
    }
    let mut listing = Listing::new(
        &["WHAT", ">MEASURED", "UNIT", ">TARGET", ""],
        "nothing measured",
    );
    for figure in figures {
        let verdict = match (figure.target, figure.ok) {
            (None, _) => "",
            (Some(_), true) => "met",
            (Some(_), false) => "missed",
        };
        listing.row([
            figure.name.clone(),
            number(figure.value),
            figure.unit.to_owned(),
            figure.target.map(number).unwrap_or_default(),
            verdict.to_owned(),
        ]);
    }
    listing.print()
}

/// Three digits at least, and no more than mean something.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 || v == 0.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
