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
    calm, "calm", 0..12;
    mixed, "mixed", 0..36;
    regions, "regions", 0..2;
    weights, "weights", 0..12;
    followers, "followers", 0..8;
    lossy, "lossy", 0..12;
    partitions, "partitions", 0..12;
    crashes, "crashes", 0..12;
    crash_all, "crash-all", 0..12;
    slow_node, "slow-node", 0..8;
    skew, "skew", 0..8;
    idle, "idle", 0..8;
    amnesia, "amnesia", 0..12;
    catch_up, "catch-up", 0..6;
    no_quorum, "no-quorum", 0..4;
    equivocator, "equivocator", 0..8;
    split_brain, "split-brain", 0..12;
    withholder, "withholder", 0..8;
    flooder, "flooder", 0..4;
    laggard, "laggard", 0..8;
    ancient_parent, "ancient-parent", 0..8;
    stale_own_parent, "stale-own-parent", 0..8;
    future_round, "future-round", 0..8;
    timestamp_liar, "timestamp-liar", 0..8;
    garbage, "garbage", 0..8;
    impersonator, "impersonator", 0..6;
    replayer, "replayer", 0..8;
    vote_censor, "vote-censor", 0..8;
    silent_leader, "silent-leader", 0..8;
    false_voter, "false-voter", 0..6;
    crash_looper, "crash-looper", 0..8;
    byzantine_mix, "byzantine", 0..16;
    round_jumps, "round-jumps", 0..6;
    pruning_race, "pruning-race", 0..12;
    uncommittable_flood, "uncommittable-flood", 0..3;
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
