//! Many machines go silent at once, the brake opened by hand.

use super::stopwatch::Stopwatch;
use super::world::{OPERATORS, Spent, World};
use super::{Figures, Target};
use dagger_ledger::*;

pub fn measure(world: &mut World, machines: usize, figures: &mut Figures) {
    let gone: Vec<MachineId> = world
        .ledger
        .machines()
        .map(|m| m.id)
        .take(machines)
        .collect();
    let hosted: u64 = gone
        .iter()
        .map(|id| u64::from(world.ledger.machine(*id).unwrap().vms))
        .sum();
    let mut bodies = Vec::new();
    for member in 0..OPERATORS as usize {
        let attest = Attest {
            hears: Vec::new(),
            lost: gone.clone(),
        };
        bodies.push(world.body(world.keys.nodes[member], Action::Attest(attest)));
    }
    world.all_ok(&bodies);
    let mut spent = Spent::default();
    let mut moved = 0;
    let start = Stopwatch::start();
    let mut commits = 0;
    while moved < hosted && commits < 2_000 {
        commits += 1;
        let output = world.execute(&[], &mut spent);
        let placed = |change: &&Change| {
            matches!(
                change,
                Change::VmPlaced { .. }
                    | Change::VmPhase {
                        phase: Phase::Pending,
                        ..
                    }
            )
        };
        moved += output.changes.iter().filter(placed).count() as u64;
    }
    figures.say("failover_replaced", moved as f64, "VMs", None);
    let most = Some(Target::AtMost(20.0));
    figures.say("failover", start.elapsed().as_secs_f64(), "s", most);
    let most = Some(Target::AtMost(200.0));
    let longest_ms = spent.commit_worst.as_secs_f64() * 1e3;
    figures.say("failover_longest_commit", longest_ms, "ms", most);
}
