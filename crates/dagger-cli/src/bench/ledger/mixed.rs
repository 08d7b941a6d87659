//! What VMs live through: reports, stops, starts, reboots, and now and then a deletion.

use super::world::{Spent, World};
use super::{Figures, Target};
use dagger_ledger::*;
use std::time::Duration;

/// VMs that go through a life in each round.
const LIVES: u64 = 2_500;

pub fn measure(world: &mut World, rounds: u64, figures: &mut Figures) {
    let mut spent = Spent::default();
    let ids: Vec<VmId> = world.ledger.vms().map(|vm| vm.id).collect();
    for round in 0..rounds {
        let mut bodies = Vec::new();
        for i in 0..LIVES {
            let vm = ids[((round * LIVES + i) as usize * 7_919) % ids.len()];
            bodies.extend(life(world, vm, i));
        }
        let outcomes = world.run(&bodies, &mut spent);
        let bad = outcomes.iter().filter(|o| o.code != Code::Ok).count();
        assert!(bad * 20 < outcomes.len(), "{bad} of {}", outcomes.len());
    }
    let us = |time: Duration| time.as_secs_f64() * 1e6 / spent.transactions as f64;
    let least = Some(Target::AtLeast(100_000.0));
    figures.say("mixed", spent.rate(), "1/s", least);
    figures.say("mixed_parsing", us(spent.parse), "us", None);
    figures.say("mixed_deciding", us(spent.decide), "us", None);
    figures.say("mixed_roots", us(spent.root), "us", None);
}

fn life(world: &mut World, vm: VmId, salt: u64) -> Vec<Vec<u8>> {
    let Some(record) = world.ledger.vm(vm) else {
        return Vec::new();
    };
    let Some(machine) = record.machine else {
        return Vec::new();
    };
    let (name, lease_epoch) = (record.spec.name.clone(), record.lease_epoch);
    let (node, account) = (
        world.keys.machines[machine.0 as usize],
        world.keys.accounts[record.account.0 as usize],
    );
    let report = |report| {
        Action::VmReport(VmReport {
            vm,
            lease_epoch,
            report,
        })
    };
    let ended = || Ended {
        code: "asked".into(),
        text: "Stopped as asked.".into(),
    };
    let named = || VmName { vm: name.clone() };
    let accepted = Accepted {
        ssh_host_key: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI".into(),
    };
    let starting = Starting {
        accelerator: "kvm".into(),
        reason: "works".into(),
        image_source: "cache".into(),
    };
    let mut actions = vec![
        (node, report(Report::Accepted(accepted))),
        (node, report(Report::Starting(starting))),
        (node, report(Report::Running(Running::default()))),
        (account, Action::VmReboot(named())),
        (account, Action::VmStop(named())),
        (node, report(Report::Stopped(ended()))),
        (account, Action::VmStart(named())),
        (node, report(Report::Running(Running::default()))),
    ];
    if salt.is_multiple_of(5) {
        actions.push((account, Action::VmDelete(named())));
        actions.push((node, report(Report::Stopped(ended()))));
    }
    actions
        .into_iter()
        .map(|(key, action)| world.body(key, action))
        .collect()
}
