//! A few seeds of every scenario, every time. The command `shadowgraph-sim --seeds 0..10000 --scenario all` runs many more.

use shadowgraph_sim::run::{replay_command, run};
use shadowgraph_sim::scenario::{SCENARIOS, Scenario};

fn survives(name: &str, seeds: std::ops::Range<u64>) {
    let scenario = Scenario::named(name).expect("a scenario of this name");
    for seed in seeds {
        let report = run(scenario, seed, false);
        assert!(
            report.is_good(),
            "{:?}\nreplay: {}",
            report.violations,
            replay_command(name, seed)
        );
    }
}

macro_rules! scenarios {
    ($($test:ident, $name:literal, $seeds:expr;)*) => {
        $(#[test] fn $test() { survives($name, $seeds); })*

        #[test]
        fn every_scenario_is_tested() {
            let tested = [$($name),*];
            assert!(SCENARIOS.iter().all(|scenario| tested.contains(&scenario.name)));
        }
    };
}

scenarios! {
    calm, "calm", 0..4;
    mixed, "mixed", 0..16;
    regions, "regions", 0..1;
    weights, "weights", 0..4;
    followers, "followers", 0..3;
    lossy, "lossy", 0..4;
    partitions, "partitions", 0..4;
    crashes, "crashes", 0..4;
    crash_all, "crash-all", 0..4;
    slow_node, "slow-node", 0..3;
    skew, "skew", 0..3;
    clock_steps, "clock-steps", 0..3;
    slow_clock_steps, "slow-clock-steps", 10..13;
    idle, "idle", 0..3;
    amnesia, "amnesia", 0..4;
    catch_up, "catch-up", 0..2;
    no_quorum, "no-quorum", 0..1;
    week, "week", 0..1;
    day_without_quorum, "day-without-quorum", 0..1;
    disk_full, "disk-full", 0..4;
    disk_rot, "disk-rot", 0..3;
    backup, "backup", 3..6;
    second_daemon, "second-daemon", 0..4;
    two_daemons, "two-daemons", 0..4;
    equivocator, "equivocator", 0..3;
    split_brain, "split-brain", 0..4;
    twin_stuffer, "twin-stuffer", 0..3;
    withholder, "withholder", 0..3;
    flooder, "flooder", 0..2;
    laggard, "laggard", 0..3;
    ancient_parent, "ancient-parent", 0..3;
    stale_own_parent, "stale-own-parent", 0..3;
    future_round, "future-round", 0..3;
    timestamp_liar, "timestamp-liar", 0..3;
    boaster, "boaster", 0..3;
    garbage, "garbage", 0..3;
    impersonator, "impersonator", 0..2;
    replayer, "replayer", 0..3;
    vote_censor, "vote-censor", 0..3;
    silent_leader, "silent-leader", 0..3;
    false_voter, "false-voter", 0..2;
    crash_looper, "crash-looper", 0..3;
    byzantine_mix, "byzantine", 0..6;
    round_jumps, "round-jumps", 0..2;
    pruning_race, "pruning-race", 0..4;
    uncommittable_flood, "uncommittable-flood", 0..2;
    epochs_under_load, "epochs-under-load", 0..4;
    join, "join", 0..4;
    leave, "leave", 0..4;
    rotate_key, "rotate-key", 0..4;
    grow_and_shrink, "grow-and-shrink", 0..2;
    epoch_crashes, "epoch-crashes", 0..6;
    epoch_straggler, "epoch-straggler", 0..3;
    epoch_snapshot, "epoch-snapshot", 0..3;
    epoch_deadlock, "epoch-deadlock", 0..6;
    epoch_byzantine, "epoch-byzantine", 0..6;
    equivocator_removed, "equivocator-removed", 0..3;
    epoch_amnesia, "epoch-amnesia", 0..4;
    upgrade, "upgrade", 0..6;
    epoch_mixed, "epoch-mixed", 0..12;
}

#[test]
fn upgrades_meet_members_that_do_not_know_the_new_rules() {
    let scenario = Scenario::named("upgrade").expect("a scenario of this name");
    let stopped = (0..6).map(|seed| run(scenario, seed, false).outdated);
    assert!(stopped.sum::<u64>() > 0, "nobody was late in any of them");
}

#[test]
fn equal_seeds_give_equal_traces() {
    for name in ["mixed", "byzantine", "crash-all"] {
        let scenario = Scenario::named(name).expect("a scenario of this name");
        for seed in 0..3 {
            let (first, second) = (run(scenario, seed, false), run(scenario, seed, false));
            assert_eq!(
                first.audit, second.audit,
                "{name} seed {seed} is not deterministic"
            );
            assert_eq!(first.steps, second.steps);
        }
        assert_ne!(run(scenario, 0, false).audit, run(scenario, 1, false).audit);
    }
}
