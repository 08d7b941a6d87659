//! `dagger bench ledger`: what deciding costs, on one core. Signatures are checked elsewhere and in parallel, so transactions come in
//! as verified bodies; they are parsed from JSON here, and the state roots of checkpoints are part of the time.

mod creates;
mod failover;
mod liveness;
mod mixed;
mod proofs;
mod signatures;
mod stopwatch;
mod world;

use super::figure::{Figure, Target};
use world::World;

const BENCH: &str = "ledger";
/// 61 operators have 6,100 machines.
const MACHINES_PER_OPERATOR: u64 = 100;

/// What was measured so far.
#[derive(Default)]
struct Figures(Vec<Figure>);

impl Figures {
    fn say(&mut self, name: &str, value: f64, unit: &'static str, target: Option<Target>) {
        let figure = Figure::new(BENCH, name, value, unit);
        self.0.push(figure.target(target));
    }
}

/// Measures everything.
///
/// # Panics
/// If the ledger decides otherwise than it must: what is measured then is not what the figures say.
pub fn measure(quick: bool) -> Vec<Figure> {
    let usual = |full, short| if quick { short } else { full };
    let mut figures = Figures::default();
    let mut world = World::new(MACHINES_PER_OPERATOR);
    creates::measure(&mut world, usual(2_000_000, 250_000), &mut figures);
    mixed::measure(&mut world, usual(20, 5), &mut figures);
    proofs::measure(&mut world, &mut figures);
    signatures::measure(&mut world, &mut figures);
    failover::measure(&mut world, usual(1_000, 100) as usize, &mut figures);
    drop(world);
    liveness::measure(&mut figures);
    figures.0
}
