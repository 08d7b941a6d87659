//! Recomputes the whole sequence of commits from a set of events with the naive rule, and compares. On the graph of a whole
//! run, and on what single nodes had at random earlier moments: no two may conflict.

use std::collections::{BTreeMap, BTreeSet};

use shadowgraph::{Commit, Decision, VerifiedEvent};

use super::ledger::{Finding, Reported, ensure};
use super::naive::{Id, NaiveCommit, NaiveGraph, Schedule, Verdict, Vertex};

/// What an event is to the naive rule.
pub fn vertex(event: &VerifiedEvent) -> Vertex {
    let parents = event
        .parents()
        .iter()
        .map(|parent| (parent.round.0, parent.creator.0, parent.digest.0));
    Vertex {
        id: event.digest().0,
        round: event.round().0,
        creator: event.creator().0,
        timestamp_ms: event.timestamp_ms(),
        parents: parents.collect(),
    }
}

/// Runs the rule over a graph from its beginning, as far as the graph decides.
pub fn recompute(
    graph: &NaiveGraph,
    schedule: &mut dyn Schedule,
    gc_depth: u64,
    start_ms: u64,
) -> Vec<NaiveCommit> {
    let mut commits: Vec<NaiveCommit> = Vec::new();
    let mut output: BTreeSet<Id> = BTreeSet::new();
    let mut slots: BTreeSet<(u64, u16)> = BTreeSet::new();
    let mut time_ms = start_ms;
    let (mut round, mut rank) = (1, 0);
    while round <= graph.highest_round() {
        if rank >= schedule.leaders(round).len() {
            (round, rank) = (round + 1, 0);
            continue;
        }
        match graph.verdict(round, rank, schedule) {
            Verdict::Undecided => break,
            Verdict::Skip => {}
            Verdict::Commit { leader, .. } => {
                let floor = commits
                    .last()
                    .map_or(0, |last| last.round.saturating_sub(gc_depth));
                let events = order(graph, &leader, floor, &mut output, &mut slots);
                time_ms = time_ms.max(median_ms(graph, &leader));
                let index = commits.len() as u64 + 1;
                let commit = NaiveCommit {
                    index,
                    leader,
                    round,
                    rank: rank as u16,
                    events,
                    time_ms,
                };
                schedule.on_commit(graph, &commit);
                commits.push(commit);
            }
        }
        rank += 1;
    }
    commits
}

/// The not-yet-output history of a leader above the floor, by round, creator and digest, one event per round and creator.
fn order(
    graph: &NaiveGraph,
    leader: &Id,
    floor: u64,
    output: &mut BTreeSet<Id>,
    slots: &mut BTreeSet<(u64, u16)>,
) -> Vec<Id> {
    // Floors only rise, so earlier commits have output or dropped all that lies below what they did.
    let history = graph.history_beyond(leader, floor + 1, output);
    let mut fresh: BTreeMap<(u64, u16, Id), Id> = BTreeMap::new();
    for id in history {
        let vertex = graph.get(&id).expect("the history lies in the graph");
        fresh.insert((vertex.round, vertex.creator, id), id);
    }
    let mut events = Vec::new();
    for ((round, creator, _), id) in fresh {
        output.insert(id);
        if slots.insert((round, creator)) {
            events.push(id);
        }
    }
    events
}

/// The weighted median of the timestamps of the leader's parents of the round before: the least one that parents of at
/// least half of their weight do not exceed.
fn median_ms(graph: &NaiveGraph, leader: &Id) -> u64 {
    let leader = graph
        .get(leader)
        .expect("a committed leader is in the graph");
    let parents = leader
        .parents
        .iter()
        .filter(|(round, _, _)| round + 1 == leader.round);
    let mut stamps: Vec<(u64, u64)> = parents
        .filter_map(|(_, _, id)| graph.get(id))
        .map(|parent| {
            (
                parent.timestamp_ms,
                graph.weight(&BTreeSet::from([parent.creator])),
            )
        })
        .collect();
    stamps.sort_unstable();
    let total: u64 = stamps.iter().map(|(_, weight)| weight).sum();
    let mut seen = 0;
    for (stamp, weight) in stamps {
        seen += weight;
        if 2 * seen >= total {
            return stamp;
        }
    }
    0
}

/// Whether what a node says of how it decided follows from the events it has: `held` tells which those are.
pub fn check_decision(
    graph: &NaiveGraph,
    held: &dyn Fn(&Vertex) -> bool,
    commit: &Commit,
) -> Finding {
    let index = commit.index.0;
    let Some(leader) = graph.get(&commit.leader.digest.0) else {
        return Err((
            "decision",
            format!("commit {index}: nobody persisted its leader"),
        ));
    };
    match &commit.decision {
        Decision::Direct { certifiers, weight } => {
            let mut counted = BTreeSet::new();
            let supporters = graph.supporters(leader);
            for event in graph.round(leader.round + 2).filter(|event| held(event)) {
                if graph.is_certificate(event, leader, &supporters) {
                    counted.insert(event.creator);
                }
            }
            let claimed: BTreeSet<u16> = certifiers.iter().map(|member| member.0).collect();
            ensure!(
                "decision",
                graph.weight(&claimed) >= graph.quorum()
                    && claimed.is_subset(&counted)
                    && *weight == graph.weight(&claimed),
                "commit {index}: certified by {counted:?}, the node says {claimed:?} of weight {weight}"
            );
        }
        Decision::Indirect { anchor } => {
            let verdict = graph.verdict_by_anchor(leader.round, leader.creator, &anchor.digest.0);
            let follows = anchor.round.0 >= leader.round + 3
                && verdict
                    == Verdict::Commit {
                        leader: leader.id,
                        direct: false,
                    };
            ensure!(
                "decision",
                follows,
                "commit {index} does not follow from anchor {anchor:?}: {verdict:?}"
            );
        }
    }
    Ok(())
}

/// Compares a recomputed sequence with what nodes reported: one is the beginning of the other.
pub fn compare(what: &str, naive: &[NaiveCommit], reported: &[Reported]) -> Finding {
    for (naive, reported) in naive.iter().zip(reported) {
        let commit = &reported.commit;
        let events: Vec<Id> = commit.events.iter().map(|event| event.digest().0).collect();
        ensure!(
            "commit rule",
            naive.leader == commit.leader.digest.0 && naive.rank == commit.rank,
            "{what}: commit {} of the naive rule is slot ({}, {}), n{} reported {:?} rank {} ({:?})",
            naive.index,
            naive.round,
            naive.rank,
            reported.node,
            commit.leader,
            commit.rank,
            commit.decision
        );
        ensure!(
            "order",
            naive.events == events,
            "{what}: commit {} outputs {} events by the naive rule, n{} reported {}",
            naive.index,
            naive.events.len(),
            reported.node,
            events.len()
        );
        ensure!(
            "commit time",
            naive.time_ms == commit.time_ms,
            "{what}: commit {} has time {} by the naive rule, n{} reported {}",
            naive.index,
            naive.time_ms,
            reported.node,
            commit.time_ms
        );
    }
    Ok(())
}
