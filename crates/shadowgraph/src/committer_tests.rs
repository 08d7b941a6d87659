//! The commit rule on graphs given as text, with the expected result below a line of dashes.
//! `UPDATE_SCENARIOS=1 cargo test -p shadowgraph` rewrites the results, to be reviewed as a diff.

use std::fmt::Write as _;

use super::*;
use crate::dag_text::{Dag, letter};
use crate::epoch::EpochStart;
use crate::linearizer::Linearizer;
use crate::parameters::Parameters;

/// What a replica does with the events in this order: every decision, and what each commit outputs.
fn run(dag: &Dag, events: &[VerifiedEvent]) -> Vec<String> {
    let committee = dag.maker.committee.clone();
    let schedule = Schedule::new(committee.clone(), dag.leaders, 0);
    let parameters = Parameters {
        gc_depth_rounds: dag.depth,
        ..Parameters::default()
    };
    let mut graph = Graph::new(committee.clone());
    let mut committer = Committer::new(committee.clone(), schedule);
    let mut linearizer = Linearizer::new(committee, EpochStart::default(), &parameters);
    let mut lines = Vec::new();
    for event in events {
        if event.round() <= graph.floor() {
            continue;
        }
        let handle = graph.insert(event.clone());
        committer.observe(&graph, handle);
        loop {
            let head = committer.head;
            let decided = committer.next(&graph);
            let until = decided
                .as_ref()
                .map_or(committer.head, |decided| decided.slot);
            skipped(&committer, head, until, &mut lines);
            let Some(decided) = decided else {
                break;
            };
            let commit = linearizer.commit(
                &mut graph,
                decided.leader,
                decided.slot.rank,
                decided.decision,
            );
            committer.committed(commit.leader.round, &commit.events);
            graph.raise_floor(linearizer.floor());
            committer.raise_floor(linearizer.floor());
            lines.push(describe(dag, &commit));
        }
    }
    lines
}

fn skipped(committer: &Committer, mut slot: Slot, until: Slot, lines: &mut Vec<String>) {
    while slot < until {
        let seat = committer.schedule.leader(slot.round, slot.rank);
        lines.push(format!("skip {}{}", letter(seat), slot.round));
        slot.rank += 1;
        if slot.rank >= committer.schedule.slots(slot.round) {
            slot = Slot {
                round: slot.round.next(),
                rank: 0,
            };
        }
    }
}

fn describe(dag: &Dag, commit: &crate::commit::Commit) -> String {
    let mut line = format!("commit {}", dag.name(&commit.leader));
    match &commit.decision {
        Decision::Direct { certifiers, weight } => {
            let letters: String = certifiers.iter().map(|seat| letter(*seat)).collect();
            let _ = write!(line, " by {letters} ({weight})");
        }
        Decision::Indirect { anchor } => {
            let _ = write!(line, " through {}", dag.name(anchor));
        }
    }
    let _ = write!(line, " at {}:", commit.time_ms);
    for event in &commit.events {
        let _ = write!(line, " {}", dag.name(event.reference()));
    }
    line
}

#[test]
fn scenarios_end_as_written() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios");
    let mut paths: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 10);
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let (graph, expected) = text.split_once("---\n").unwrap_or((&text, ""));
        let dag = Dag::parse(graph);
        let events: Vec<_> = dag.events.iter().map(|(_, event)| event.clone()).collect();
        let found: String = run(&dag, &events)
            .iter()
            .map(|line| format!("{line}\n"))
            .collect();
        if std::env::var_os("UPDATE_SCENARIOS").is_some() {
            std::fs::write(&path, format!("{graph}---\n{found}")).unwrap();
        } else {
            assert_eq!(found, expected, "{}", path.display());
        }
    }
}
