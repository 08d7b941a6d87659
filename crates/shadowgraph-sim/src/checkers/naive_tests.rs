//! The naive rule on graphs small enough to see through.

use std::collections::BTreeMap;

use super::naive::{Id, NaiveCommit, NaiveGraph, Schedule, Verdict, Vertex};

/// Four members; member `round % 4` leads.
struct OneLeader;

impl Schedule for OneLeader {
    fn leaders(&self, round: u64) -> Vec<u16> {
        vec![(round % 4) as u16]
    }
    fn on_commit(&mut self, _graph: &NaiveGraph, _commit: &NaiveCommit) {}
}

/// A graph drawn event by event: `draw(round, creator, twin, parents)` with parents as (creator, twin) of the round below.
struct Drawing {
    graph: NaiveGraph,
    ids: BTreeMap<(u64, u16, u8), Id>,
}

impl Drawing {
    fn new() -> Self {
        let mut drawing = Self {
            graph: NaiveGraph::new(vec![1; 4]),
            ids: BTreeMap::new(),
        };
        (0..4).for_each(|creator| drawing.draw(1, creator, 0, &[]));
        drawing
    }

    fn draw(&mut self, round: u64, creator: u16, twin: u8, parents: &[(u16, u8)]) {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&[round as u8, creator as u8, twin, 1]);
        let parent = |(member, twin): &(u16, u8)| {
            (round - 1, *member, self.ids[&(round - 1, *member, *twin)])
        };
        let parents = parents.iter().map(parent).collect();
        self.ids.insert((round, creator, twin), id);
        self.graph.insert(Vertex {
            id,
            round,
            creator,
            timestamp_ms: 0,
            parents,
        });
    }

    /// A round in which everybody cites these members.
    fn round(&mut self, round: u64, cited: &[u16]) {
        let parents: Vec<(u16, u8)> = cited.iter().map(|member| (*member, 0)).collect();
        (0..4).for_each(|creator| self.draw(round, creator, 0, &parents));
    }

    fn verdict(&self, round: u64) -> Verdict {
        self.graph.verdict(round, 0, &OneLeader)
    }
}

#[test]
fn three_certificates_commit_and_two_do_not() {
    let mut drawing = Drawing::new();
    drawing.round(2, &[0, 1, 2, 3]);
    (0..2).for_each(|creator| drawing.draw(3, creator, 0, &[(0, 0), (1, 0), (2, 0)]));
    assert_eq!(drawing.verdict(1), Verdict::Undecided);
    drawing.draw(3, 2, 0, &[(1, 0), (2, 0), (3, 0)]);
    assert_eq!(
        drawing.verdict(1),
        Verdict::Commit {
            leader: drawing.ids[&(1, 1, 0)],
            direct: true
        }
    );
}

#[test]
fn three_that_do_not_support_skip() {
    let mut drawing = Drawing::new();
    (0..2).for_each(|creator| drawing.draw(2, creator, 0, &[(0, 0), (2, 0), (3, 0)]));
    assert_eq!(drawing.verdict(1), Verdict::Undecided);
    drawing.draw(2, 3, 0, &[(0, 0), (2, 0), (3, 0)]);
    assert_eq!(drawing.verdict(1), Verdict::Skip);
}

#[test]
fn votes_of_twins_count_once() {
    let mut drawing = Drawing::new();
    (0..2).for_each(|creator| drawing.draw(2, creator, 0, &[(0, 0), (2, 0), (3, 0)]));
    drawing.draw(2, 0, 1, &[(0, 0), (2, 0), (3, 0)]);
    assert_eq!(
        drawing.verdict(1),
        Verdict::Undecided,
        "member 0 blamed twice"
    );
}

#[test]
fn an_anchor_commits_what_has_a_certificate_in_its_history() {
    for (support, expected_commit) in [(true, true), (false, false)] {
        let mut drawing = Drawing::new();
        // Two support the leader 1 of round 1, with member 0's or without: three make one certificate possible.
        let with: &[(u16, u8)] = &[(0, 0), (1, 0), (2, 0)];
        let without: &[(u16, u8)] = &[(0, 0), (2, 0), (3, 0)];
        for (creator, supports) in [(0, support), (1, true), (2, true), (3, false)] {
            drawing.draw(2, creator, 0, if supports { with } else { without });
        }
        drawing.draw(3, 0, 0, &[(0, 0), (1, 0), (2, 0)]);
        (1..4).for_each(|creator| drawing.draw(3, creator, 0, &[(1, 0), (2, 0), (3, 0)]));
        assert_eq!(drawing.verdict(1), Verdict::Undecided);
        drawing.round(4, &[0, 1, 2]);
        drawing.round(5, &[0, 1, 2]);
        assert_eq!(
            drawing.verdict(1),
            Verdict::Undecided,
            "the anchor is not decided yet"
        );
        drawing.round(6, &[0, 1, 2]);
        let leader = drawing.ids[&(1, 1, 0)];
        let expected = if expected_commit {
            Verdict::Commit {
                leader,
                direct: false,
            }
        } else {
            Verdict::Skip
        };
        assert_eq!(drawing.verdict(1), expected);
    }
}

#[test]
#[should_panic(expected = "both certified")]
fn more_than_f_faults_are_noticed() {
    let mut drawing = Drawing::new();
    drawing.draw(1, 1, 1, &[]);
    for creator in 0..4 {
        drawing.draw(2, creator, 0, &[(0, 0), (1, 0), (2, 0)]);
        drawing.draw(2, creator, 1, &[(0, 0), (1, 1), (2, 0)]);
    }
    for creator in 0..4 {
        drawing.draw(3, creator, 0, &[(0, 0), (1, 0), (2, 0)]);
        drawing.draw(3, creator, 1, &[(0, 1), (1, 1), (2, 1)]);
    }
    drawing.verdict(1);
}
