//! VMs until the machines are nearly full: every create is parsed, checked, placed and hashed into the state.

use super::stopwatch::resident_mib;
use super::world::{ACCOUNTS, Spent, World, manifest};
use super::{Figures, Target};
use dagger_ledger::*;
use std::time::Duration;

/// Creates whose time is also shown by itself: the last so many, when the machines are fullest.
const BATCH: u64 = 25_000;
/// Creates a second that HashiCorp's C2M run of Nomad scheduled.
const C2M_PER_S: f64 = 1_500.0;

pub fn measure(world: &mut World, total: u64, figures: &mut Figures) {
    let (mut spent, mut last) = (Spent::default(), Spent::default());
    let mut made = 0;
    while made < total {
        let batch = BATCH.min(total - made);
        let bodies: Vec<_> = (made..made + batch).map(|n| create(world, n)).collect();
        last = Spent::default();
        for outcome in world.run(&bodies, &mut last) {
            assert_eq!(outcome.code, Code::Ok, "{}", outcome.detail);
        }
        made += batch;
        spent.add(&last);
    }
    let at_least = |rate: f64| Some(Target::AtLeast(rate));
    let decided = total as f64 / spent.decide.as_secs_f64();
    let us = |time: Duration| time.as_secs_f64() * 1e6 / total as f64;
    figures.say("creates", spent.rate(), "1/s", at_least(25_000.0));
    figures.say("creates_last", last.rate(), "1/s", at_least(25_000.0));
    figures.say("creates_decisions_only", decided, "1/s", at_least(50_000.0));
    figures.say("creates_times_c2m", decided / C2M_PER_S, "x", None);
    figures.say("create_parsing", us(spent.parse), "us", None);
    let most = Some(Target::AtMost(3.0));
    figures.say("create_roots", us(spent.root), "us", most);
    let longest_ms = spent.commit_worst.as_secs_f64() * 1e3;
    figures.say("creates_longest_commit", longest_ms, "ms", None);
    let most = Some(Target::AtMost(4_096.0));
    figures.say("resident", resident_mib(), "MiB", most);
}

fn create(world: &mut World, number: u64) -> Vec<u8> {
    let create = VmCreate {
        name: format!("vm-{number}"),
        image: "account-0/micro".into(),
        image_digest: manifest().digest(),
        vcpus: 1,
        memory_mib: 256,
        disk_mib: 1_024,
        ssh_keys: vec![
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC2iCsKP6fWsjH8dfAAAAAAAAAAAAAAAAAAAAAA c@x"
                .into(),
        ],
        user_data: None,
        failover: Failover::Recreate,
        on_isolation: OnIsolation::Stop,
        restart: Restart::Never,
        spread: None,
        placement: Placement::default(),
        labels: Labels::new(),
        publish: Vec::new(),
    };
    let signer = world.keys.accounts[(number % ACCOUNTS) as usize];
    world.body(signer, Action::VmCreate(create))
}
