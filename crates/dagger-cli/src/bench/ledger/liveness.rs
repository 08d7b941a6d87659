//! What the liveness of ten thousand machines costs while nothing happens: commits with events of all members and no
//! transaction.

use super::world::{OPERATORS, Spent, World};
use super::{Figures, Target};

/// So that there are 10,004 machines.
const MACHINES_PER_OPERATOR: u64 = 164;
/// At 100 ms each.
const COMMITS: u64 = 6_000;

pub fn measure(figures: &mut Figures) {
    let mut world = World::new(MACHINES_PER_OPERATOR);
    let mut spent = Spent::default();
    for _ in 0..COMMITS {
        world.execute(&[], &mut spent);
    }
    let machines = world.ledger.machines();
    let up = machines.filter(|machine| machine.state == dagger_ledger::MachineState::Up);
    assert_eq!(up.count() as u64, OPERATORS * MACHINES_PER_OPERATOR);
    let seconds = COMMITS as f64 / 10.0;
    let share = (spent.decide + spent.root).as_secs_f64() / seconds * 100.0;
    let most = Some(Target::AtMost(1.0));
    figures.say("liveness_10k_machines", share, "% of a core", most);
}
