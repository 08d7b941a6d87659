//! The named scenarios. Each turns randomness into a plan; none runs anything.

mod disks;
mod epochs;
mod long;

use crate::adversary::Behaviour;
use crate::disk::CrashKind;
use crate::network::{Latency, LinkFaults};
use crate::plan::{Action, Plan, Skew};
use crate::queue::{MS, SECOND};
use crate::rng::SimRng;

/// A family of runs.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Name on the command line.
    pub name: &'static str,
    /// What it is about, in a line.
    pub about: &'static str,
    build: fn(&mut SimRng) -> Plan,
}

impl Scenario {
    /// The plan of this scenario for a seed.
    pub fn plan(&self, seed: u64) -> Plan {
        (self.build)(&mut SimRng::stream(seed, "plan", 0))
    }

    /// The scenario with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }
}

macro_rules! scenarios {
    ($($name:literal, $about:literal, $build:expr;)*) => {
        /// All scenarios.
        pub const SCENARIOS: &[Scenario] = &[$(Scenario { name: $name, about: $about, build: $build }),*];
    };
}

scenarios! {
    "calm", "no faults at all", calm;
    "mixed", "everything at once, drawn at random", mixed;
    "regions", "ten cloud regions with published round-trip times", regions;
    "weights", "members of unequal weight", weights;
    "followers", "nodes without a seat follow", followers;
    "lossy", "loss, duplication, reordering, jitter", lossy;
    "partitions", "full and one-way partitions come and go", partitions;
    "crashes", "single nodes crash and restart, with lost and torn writes", crashes;
    "crash-all", "all nodes crash at once", crash_all;
    "slow-node", "one node is slow in everything it does", slow_node;
    "skew", "clocks are wrong and drift", skew;
    "clock-steps", "in turns, f members' clocks are minutes or hours off", clock_steps;
    "slow-clock-steps", "the same, and those members get every answer seconds late", slow_clock_steps;
    "idle", "bursts of load between long silences", idle;
    "amnesia", "a member's disk is lost, or an old copy of it restored", amnesia;
    "catch-up", "a node returns long after its rounds were collected", catch_up;
    "no-quorum", "a long time without a quorum, under load", no_quorum;
    "week", "a week of little load: nothing may grow with time", long::week;
    "day-without-quorum", "a day without a quorum, more load than the pools hold: nothing may grow with it", long::day_without_quorum;
    "disk-full", "disks fill up, and later have space again", disks::full;
    "disk-rot", "a bit flips in what a member has on disk", disks::rot;
    "backup", "a member is restored from a backup, while the only one that knows better is away", disks::backup;
    "second-daemon", "somebody starts a second daemon with a member's key and an empty disk", disks::second_daemon;
    "two-daemons", "two daemons with one key run beside each other", disks::two_daemons;
    "equivocator", "a member signs two events a round and sends both to all", |rng| byzantine(rng, &[Behaviour::Equivocator]);
    "split-brain", "a member shows different twins to different peers", |rng| byzantine(rng, &[Behaviour::SplitBrain]);
    "twin-stuffer", "a member fills the room for twins of the event that it hides", |rng| byzantine(rng, &[Behaviour::TwinStuffer]);
    "withholder", "a member sends its events to some only", |rng| byzantine(rng, &[Behaviour::Withholder]);
    "flooder", "a member sends far more than its share", |rng| byzantine(rng, &[Behaviour::Flooder]);
    "laggard", "a member sends everything late", |rng| byzantine(rng, &[Behaviour::Laggard]);
    "ancient-parent", "a member cites parents from long ago", |rng| byzantine(rng, &[Behaviour::AncientParent]);
    "stale-own-parent", "a member's time goes back where the evidence is just being collected", stale_own_parent;
    "future-round", "a member claims rounds that nobody has reached", |rng| byzantine(rng, &[Behaviour::FutureRound]);
    "timestamp-liar", "a member lies about the time", |rng| byzantine(rng, &[Behaviour::TimestampLiar]);
    "boaster", "a member's messages hold the most extreme numbers", |rng| byzantine(rng, &[Behaviour::Boaster, Behaviour::FutureRound]);
    "garbage", "a member sends bytes that mean nothing, or almost something", |rng| byzantine(rng, &[Behaviour::GarbageBytes]);
    "impersonator", "a member signs in the name of others", |rng| byzantine(rng, &[Behaviour::Impersonator]);
    "replayer", "a member repeats what others sent", |rng| byzantine(rng, &[Behaviour::Replayer]);
    "vote-censor", "f members never cite one victim", vote_censor;
    "silent-leader", "a member is silent exactly where it leads", |rng| byzantine(rng, &[Behaviour::SilentLeader]);
    "false-voter", "a member votes for checkpoints that never were", |rng| byzantine(rng, &[Behaviour::FalseVoter]);
    "crash-looper", "a member crashes again and again", |rng| byzantine(rng, &[Behaviour::CrashLooper]);
    "byzantine", "f members with several behaviours each", byzantine_mix;
    "round-jumps", "trap: a schedule that starves a graph with unrestricted round jumps", round_jumps;
    "pruning-race", "trap: a late commit races the collection of its history", pruning_race;
    "epochs-under-load", "epochs end again and again while clients submit", epochs::under_load;
    "join", "nodes without a seat get one at the end of an epoch", epochs::join;
    "leave", "members give up their seats, one an epoch", epochs::leave;
    "rotate-key", "members change keys and seats", epochs::rotate_key;
    "grow-and-shrink", "one member, then four, ten, and four others", epochs::grow_and_shrink;
    "epoch-crashes", "nodes crash around the ends of epochs", epochs::crash_at_boundary;
    "epoch-straggler", "a node is away over several epochs", epochs::straggler;
    "epoch-snapshot", "a node is away over several epochs whose logs are gone", epochs::pruned_straggler;
    "epoch-deadlock", "trap: everything that may stop a committee at the boundary", epochs::deadlock;
    "epoch-byzantine", "f members with several behaviours each, over epochs", epochs::byzantine_boundary;
    "equivocator-removed", "an equivocator loses its seat", epochs::equivocator_removed;
    "epoch-amnesia", "a member's disk is rolled back over the ends of epochs", epochs::amnesia;
    "upgrade", "members are upgraded one by one, before and after an epoch begins that needs it", epochs::upgrade;
    "epoch-mixed", "everything at once, over epochs", epochs::mixed;
    "uncommittable-flood", "trap: a flood of events that never commit", uncommittable_flood;
}

/// The behaviours that `mixed` and `byzantine` draw from.
const BEHAVIOURS: &[Behaviour] = &[
    Behaviour::Equivocator,
    Behaviour::SplitBrain,
    Behaviour::TwinStuffer,
    Behaviour::Withholder,
    Behaviour::Flooder,
    Behaviour::Laggard,
    Behaviour::AncientParent,
    Behaviour::FutureRound,
    Behaviour::TimestampLiar,
    Behaviour::Boaster,
    Behaviour::GarbageBytes,
    Behaviour::Impersonator,
    Behaviour::StaleOwnParent { rounds: 20 },
    Behaviour::Replayer,
    Behaviour::VoteCensor { victim: 0 },
    Behaviour::SilentLeader,
    Behaviour::FalseVoter,
];

fn calm(rng: &mut SimRng) -> Plan {
    let mut plan = Plan::calm(*rng.choose(&[1, 2, 3, 4, 4, 4, 5, 7, 10]));
    plan.latency = Latency::PerLink(5 * MS, rng.between(10, 60) * MS);
    plan.chaos_us = 5 * SECOND;
    plan.expect.commits_in_chaos = true;
    plan
}

/// A small committee on ordinary links: what most scenarios disturb.
fn ordinary(rng: &mut SimRng) -> Plan {
    let mut plan = Plan::calm(*rng.choose(&[4, 4, 4, 5, 6, 7]));
    plan.latency = Latency::PerLink(5 * MS, rng.between(10, 80) * MS);
    plan.sync_us = rng.between(0, 8) * MS;
    plan.load.every_us = rng.between(10, 100) * MS;
    plan.chaos_us = rng.between(5, 12) * SECOND;
    plan
}

fn regions(rng: &mut SimRng) -> Plan {
    let mut plan = Plan::calm(10);
    plan.latency = Latency::Regions;
    plan.faults.jitter_us = rng.between(0, 20) * MS;
    plan.expect.commits_in_chaos = true;
    plan
}

fn weights(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    plan.weights = (0..rng.between(3, 8)).map(|_| rng.between(1, 10)).collect();
    add_crashes(&mut plan, rng, 2);
    plan
}

fn followers(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    plan.followers = rng.between(1, 3) as usize;
    plan.faults.loss_permille = rng.between(0, 20) as u32;
    plan
}

fn lossy(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    plan.faults = bad_links(rng);
    plan
}

fn bad_links(rng: &mut SimRng) -> LinkFaults {
    LinkFaults {
        loss_permille: rng.between(0, 150) as u32,
        duplicate_permille: rng.between(0, 100) as u32,
        reorder_permille: rng.between(0, 200) as u32,
        reorder_us: rng.between(1, 300) * MS,
        jitter_us: rng.between(0, 50) * MS,
    }
}

fn partitions(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    add_partitions(&mut plan, rng, 4);
    plan
}

fn add_partitions(plan: &mut Plan, rng: &mut SimRng, count: u64) {
    for _ in 0..rng.between(1, count) {
        let at = rng.between(0, plan.chaos_us * 3 / 4);
        if rng.chance(300) {
            let (from, to) = (rng.index(plan.nodes()), rng.index(plan.nodes()));
            plan.actions.push((at, Action::CutOneWay(from, to)));
        } else {
            let side = (0..plan.nodes()).filter(|_| rng.chance(400)).collect();
            plan.actions.push((at, Action::Partition(side)));
        }
        let until = rng.between(at, plan.chaos_us);
        plan.actions.push((until, Action::OpenLinks));
    }
}

fn crash_kind(rng: &mut SimRng) -> CrashKind {
    *rng.choose(&[
        CrashKind::Process,
        CrashKind::PowerLosingAll,
        CrashKind::PowerTearing,
    ])
}

fn crashes(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    add_crashes(&mut plan, rng, 6);
    plan
}

fn add_crashes(plan: &mut Plan, rng: &mut SimRng, count: u64) {
    for _ in 0..rng.between(1, count) {
        let at = rng.between(0, plan.chaos_us * 3 / 4);
        let node = rng.index(plan.nodes());
        plan.actions
            .push((at, Action::Crash(node, crash_kind(rng))));
        plan.actions
            .push((rng.between(at, plan.chaos_us), Action::Restart(node)));
    }
}

fn crash_all(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    for _ in 0..rng.between(1, 3) {
        let at = rng.between(SECOND, plan.chaos_us * 3 / 4);
        plan.actions.push((at, Action::CrashAll(crash_kind(rng))));
        plan.actions
            .push((at + rng.between(0, SECOND), Action::RestartAll));
    }
    plan.load.resubmit = rng.chance(500);
    plan
}

fn slow_node(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    let node = rng.index(plan.nodes());
    plan.actions
        .push((0, Action::Slow(node, rng.between(1, 20) * MS)));
    plan.actions
        .push((0, Action::Late(node, rng.between(50, 2_000) * MS)));
    plan.expect.commits_in_chaos = true;
    plan
}

fn skew(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    add_skew(&mut plan, rng, 2_000);
    plan
}

/// One set of f members after another restarts with clocks that are far off, and some time later with true ones. Whatever a
/// wrong clock did to a member must be over once its clock is right: the next set leaves no quorum otherwise.
fn clock_steps(rng: &mut SimRng) -> Plan {
    steps_of_clocks(rng, 0)
}

/// What the members could measure of one another's clocks is late as well.
fn slow_clock_steps(rng: &mut SimRng) -> Plan {
    let late_us = rng.between(2_200, 4_000) * MS;
    steps_of_clocks(rng, late_us)
}

fn steps_of_clocks(rng: &mut SimRng, late_us: u64) -> Plan {
    let mut plan = ordinary(rng);
    add_skew(&mut plan, rng, 200);
    plan.load.every_us = 100 * MS;
    // Long enough to start and sign before the clock is right again.
    let wrong_s = if late_us > 0 { (6, 10) } else { (1, 5) };
    plan.chaos_us = (8 + 2 * wrong_s.1) * SECOND;
    plan.settle_us = 60 * SECOND;
    let mut at = SECOND;
    while at < plan.chaos_us - (3 + wrong_s.1) * SECOND {
        let mut members: Vec<usize> = (0..plan.members()).collect();
        rng.shuffle(&mut members);
        members.truncate(plan.fault_weight() as usize);
        let (wrong_for, kind) = (rng.between(wrong_s.0, wrong_s.1) * SECOND, crash_kind(rng));
        for member in members {
            let ahead_ms = rng.between(60_000, 7_200_000) as i64;
            let ahead_ms = if rng.chance(700) { ahead_ms } else { -ahead_ms };
            let steps = [(at, ahead_ms), (at + wrong_for, 0)];
            for (step_at, ahead_ms) in steps {
                plan.actions.push((step_at, Action::Crash(member, kind)));
                plan.actions
                    .push((step_at, Action::SetClock(member, ahead_ms)));
                plan.actions
                    .push((step_at + 100 * MS, Action::Restart(member)));
            }
            if late_us > 0 {
                plan.actions.push((at, Action::Late(member, late_us)));
                let over = at + wrong_for + 5 * SECOND;
                plan.actions.push((over, Action::Late(member, 0)));
            }
        }
        at += wrong_for + rng.between(1, 3) * SECOND;
    }
    plan.expect.commits_in_chaos = true;
    plan
}

fn add_skew(plan: &mut Plan, rng: &mut SimRng, offset_ms_max: u64) {
    plan.skews = (0..plan.nodes())
        .map(|_| Skew {
            offset_ms: rng.between(0, 2 * offset_ms_max) as i64 - offset_ms_max as i64,
            drift_ppm: rng.between(0, 2_000) as i64 - 1_000,
        })
        .collect();
}

fn idle(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    plan.chaos_us = 40 * SECOND;
    for burst in 0..4 {
        plan.actions.push((burst * 10 * SECOND, Action::Load(true)));
        plan.actions.push((
            burst * 10 * SECOND + rng.between(50, 1_000) * MS,
            Action::Load(false),
        ));
    }
    plan.expect.commits_in_chaos = true;
    plan.expect.idle_events_permille = Some(1_100);
    plan
}

/// The rolled-back member is the one that f allows at n = 4.
fn amnesia(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    let node = rng.index(plan.members());
    plan.amnesiacs = vec![node];
    let at = rng.between(SECOND, plan.chaos_us * 3 / 4);
    let permille = *rng.choose(&[0, 300, 900, 990]);
    plan.actions.push((at, Action::RollBack(node, permille)));
    plan.actions
        .push((at + rng.between(0, SECOND), Action::Restart(node)));
    if rng.chance(500) {
        let cut = rng.index(plan.members());
        plan.actions.push((at, Action::CutOneWay(cut, node)));
    }
    plan.expect.commits_in_chaos = true;
    plan
}

fn catch_up(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    plan.latency = Latency::PerLink(MS, 5 * MS);
    plan.parameters.gc_depth_rounds = rng.between(20, 60);
    plan.chaos_us = 15 * SECOND;
    let node = rng.index(plan.members());
    if rng.chance(500) {
        plan.actions
            .push((rng.between(0, SECOND), Action::Crash(node, crash_kind(rng))));
        plan.actions
            .push((rng.between(8, 14) * SECOND, Action::Restart(node)));
    } else {
        plan.actions
            .push((rng.between(0, SECOND), Action::Partition(vec![node])));
        plan.actions
            .push((rng.between(8, 14) * SECOND, Action::OpenLinks));
    }
    plan.expect.commits_in_chaos = true;
    plan
}

fn no_quorum(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    plan.chaos_us = 120 * SECOND;
    plan.load.every_us = 50 * MS;
    let half = (0..plan.members() / 2).collect();
    plan.actions.push((0, Action::Partition(half)));
    plan.expect.no_commit_in_chaos = true;
    plan
}

/// Gives as many members as f allows these behaviours.
fn byzantine(rng: &mut SimRng, behaviours: &[Behaviour]) -> Plan {
    let mut plan = ordinary(rng);
    let mut members: Vec<usize> = (0..plan.members()).collect();
    rng.shuffle(&mut members);
    members.truncate(plan.fault_weight() as usize);
    plan.adversaries = members
        .into_iter()
        .map(|member| (member, behaviours.to_vec()))
        .collect();
    let twins = |behaviour: &Behaviour| {
        matches!(
            behaviour,
            Behaviour::Equivocator | Behaviour::SplitBrain | Behaviour::TwinStuffer
        )
    };
    plan.expect.equivocation_proven = behaviours.iter().any(twins);
    plan.expect.commits_in_chaos = true;
    plan
}

fn stale_own_parent(rng: &mut SimRng) -> Plan {
    let gc_depth_rounds = rng.between(6, 20);
    // Events are collected that many rounds below the last leader, which is three or so below the newest round.
    let mut plan = byzantine(
        rng,
        &[Behaviour::StaleOwnParent {
            rounds: gc_depth_rounds + 3,
        }],
    );
    plan.parameters.gc_depth_rounds = gc_depth_rounds;
    let late = rng.index(plan.members());
    plan.actions
        .push((SECOND, Action::Late(late, rng.between(10, 200) * MS)));
    add_crashes(&mut plan, rng, 2);
    // A crash beside the Byzantine members can leave no quorum until the end.
    plan.expect.commits_in_chaos = false;
    plan
}

fn vote_censor(rng: &mut SimRng) -> Plan {
    let mut plan = byzantine(rng, &[]);
    let censors: Vec<usize> = plan.adversaries.iter().map(|(member, _)| *member).collect();
    let honest: Vec<usize> = (0..plan.members())
        .filter(|member| !censors.contains(member))
        .collect();
    let victim = *rng.choose(&honest) as u16;
    plan.adversaries = censors
        .into_iter()
        .map(|member| (member, vec![Behaviour::VoteCensor { victim }]))
        .collect();
    plan.expect.commit_within_rounds = Some(40);
    plan
}

fn byzantine_mix(rng: &mut SimRng) -> Plan {
    let mut plan = byzantine(rng, &[]);
    plan.expect.commits_in_chaos = false;
    draw_behaviours(&mut plan, rng);
    plan
}

fn draw_behaviours(plan: &mut Plan, rng: &mut SimRng) {
    for (_, behaviours) in &mut plan.adversaries {
        for _ in 0..rng.between(1, 3) {
            let mut behaviour = *rng.choose(BEHAVIOURS);
            if let Behaviour::VoteCensor { victim } = &mut behaviour {
                *victim = rng.index(plan.weights.len()) as u16;
            }
            behaviours.push(behaviour);
        }
    }
}

fn mixed(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    plan.chaos_us = rng.between(3, 10) * SECOND;
    plan.load.resubmit = rng.chance(500);
    if rng.chance(300) {
        plan.parameters.gc_depth_rounds = rng.between(10, 60);
    }
    if rng.chance(600) {
        plan.faults = bad_links(rng);
    }
    if rng.chance(500) {
        add_partitions(&mut plan, rng, 3);
    }
    if rng.chance(600) {
        add_crashes(&mut plan, rng, 4);
    }
    if rng.chance(200) {
        let at = rng.between(SECOND, plan.chaos_us);
        plan.actions.push((at, Action::CrashAll(crash_kind(rng))));
        plan.actions
            .push((at + rng.between(0, SECOND), Action::RestartAll));
    }
    if rng.chance(300) {
        add_skew(&mut plan, rng, 1_000);
    }
    if rng.chance(300) {
        let node = rng.index(plan.members());
        plan.actions
            .push((0, Action::Slow(node, rng.between(1, 10) * MS)));
    }
    if rng.chance(600) {
        let mut members: Vec<usize> = (0..plan.members()).collect();
        rng.shuffle(&mut members);
        members.truncate(plan.fault_weight() as usize);
        plan.adversaries = members
            .into_iter()
            .map(|member| (member, Vec::new()))
            .collect();
        draw_behaviours(&mut plan, rng);
    }
    plan
}

/// In turns, one member is cut off while the others advance, then rejoins just as the next is cut off. A protocol in which
/// whoever rejoins may jump to the newest round has no round with events of a quorum that vote, and commits nothing.
fn round_jumps(rng: &mut SimRng) -> Plan {
    let mut plan = Plan::calm(4);
    plan.latency = Latency::PerLink(5 * MS, 15 * MS);
    plan.chaos_us = 20 * SECOND;
    let turn_us = rng.between(50, 400) * MS;
    let mut at = 0;
    let mut away = rng.index(4);
    while at < plan.chaos_us {
        plan.actions.push((at, Action::OpenLinks));
        plan.actions.push((at, Action::Partition(vec![away])));
        away = (away + 1) % 4;
        at += turn_us;
    }
    plan.expect.commits_in_chaos = true;
    plan
}

/// A very small collection depth, and members whose events arrive just as they fall below it.
fn pruning_race(rng: &mut SimRng) -> Plan {
    let mut plan = ordinary(rng);
    plan.parameters.gc_depth_rounds = rng.between(4, 10);
    plan.latency = Latency::PerLink(2 * MS, 20 * MS);
    plan.faults = bad_links(rng);
    for step in 0..plan.chaos_us / SECOND {
        let node = rng.index(plan.members());
        plan.actions
            .push((step * SECOND, Action::Late(node, rng.between(20, 900) * MS)));
        plan.actions.push((
            step * SECOND + rng.between(100, 990) * MS,
            Action::Late(node, 0),
        ));
    }
    plan
}

/// A Byzantine member floods while no quorum exists, so that nothing it sends can commit.
fn uncommittable_flood(rng: &mut SimRng) -> Plan {
    let mut plan = byzantine(rng, &[Behaviour::Flooder, Behaviour::SplitBrain]);
    plan.chaos_us = 30 * SECOND;
    let flooder = plan.adversaries[0].0;
    let honest: Vec<usize> = (0..plan.members())
        .filter(|node| *node != flooder)
        .collect();
    // The flooder reaches everybody; the honest members cannot reach one another well enough for a quorum.
    for (position, from) in honest.iter().enumerate() {
        for to in &honest[position + 1..] {
            plan.actions.push((0, Action::CutOneWay(*from, *to)));
            plan.actions.push((0, Action::CutOneWay(*to, *from)));
        }
    }
    plan.expect = Default::default();
    plan
}
