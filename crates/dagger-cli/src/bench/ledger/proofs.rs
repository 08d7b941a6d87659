//! Proofs of VMs under the present root.

use super::stopwatch::Stopwatch;
use super::world::World;
use super::{Figures, Target};
use dagger_ledger::*;

const COUNT: u64 = 2_000;

pub fn measure(world: &mut World, figures: &mut Figures) {
    let root = Digest(world.ledger.state_root());
    let vms: Vec<(String, String)> = world
        .ledger
        .vms()
        .take(COUNT as usize)
        .map(|vm| {
            let account = world
                .ledger
                .account(vm.account)
                .expect("there")
                .name
                .clone();
            (account, vm.spec.name.clone())
        })
        .collect();
    let start = Stopwatch::start();
    let keys = vms
        .into_iter()
        .map(|(account, name)| StateKey::Vm(account, name));
    let proofs: Vec<StateProof> = keys
        .map(|key| world.ledger.prove(&key).expect("unchanged"))
        .collect();
    let made = start.elapsed().as_secs_f64() * 1e3 / COUNT as f64;
    let start = Stopwatch::start();
    assert!(proofs.iter().all(|proof| proof.verify(&root).is_ok()));
    let verified = start.elapsed().as_secs_f64() * 1e3 / COUNT as f64;
    let size = |proof: &StateProof| borsh::to_vec(proof).expect("in memory").len();
    let largest = proofs.iter().map(size).max().unwrap_or(0);
    let most = |bound: f64| Some(Target::AtMost(bound));
    figures.say("proof_made", made, "ms", most(1.0));
    figures.say("proof_verified", verified, "ms", most(1.0));
    figures.say("proof_largest", largest as f64, "bytes", most(4_096.0));
}
