//! A model of the commit rule for four members, one of them Byzantine, checked by stateright in every reachable graph
//! within the bounds below: whatever order events arrive in, a decision once made is never changed by more events. Since any
//! two replicas' graphs are parts of their union, that is agreement.
//! The model is a third statement of docs/protocol.md beside the library and the naive checker, and shares code with neither.

use stateright::{Checker, Model, Property};

/// Members 0, 1 and 2 are honest, 3 is not. Its slot leads round 0, and it has two twins there: columns 3 and 4.
const COLUMNS: usize = 5;
const BYZANTINE: u8 = 0b1_1000;
/// Rounds after round 0 in which events appear: support, certificates, and the anchor's.
const ROUNDS: usize = 3;
/// A leader of round 0 under test: the column(s) that hold candidate events of the slot.
#[derive(Clone, Copy, Debug)]
enum Leader {
    /// Member 3, which signed two events.
    Twins,
    /// Member 0, honest.
    Honest,
}

/// Parents of each event: bits are columns of the round below. All events of round 0 exist from the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Graph {
    parents: [[u8; COLUMNS]; ROUNDS],
    /// A decision was changed on the way here.
    conflict: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Add {
    round: usize,
    column: usize,
    parents: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Undecided,
    Skip,
    Commit(usize),
}

struct Rules {
    leader: Leader,
    /// Distinct members that make a quorum. Three of four is right; the tests also try a wrong one.
    quorum: u32,
}

/// How many distinct members the columns in `mask` stand for.
fn members(mask: u8) -> u32 {
    (mask & !BYZANTINE).count_ones() + u32::from(mask & BYZANTINE != 0)
}

impl Graph {
    /// Columns of model round `round` (0 is the round above the leader's) with an event.
    fn present(&self, round: usize) -> u8 {
        (0..COLUMNS)
            .filter(|column| self.parents[round][*column] != 0)
            .fold(0, |mask, column| mask | 1 << column)
    }

    /// Columns of the round above the leader's that support `candidate`.
    fn supporters(&self, candidate: usize) -> u8 {
        (0..COLUMNS)
            .filter(|c| self.parents[0][*c] & 1 << candidate != 0)
            .fold(0, |mask, c| mask | 1 << c)
    }

    /// The same graph up to the names of honest members that are not the leader, and of twins.
    fn representative(self, leader: Leader) -> Self {
        const ALL: [[usize; 3]; 6] = [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ];
        let names = match leader {
            Leader::Twins => &ALL[..],
            Leader::Honest => &ALL[..2],
        };
        names
            .iter()
            .map(|names| self.renamed(names))
            .min()
            .expect("there is at least one naming")
    }

    fn renamed(&self, names: &[usize; 3]) -> Self {
        let mut renamed = Self {
            conflict: self.conflict,
            ..Self::default()
        };
        for (to, from) in self.parents.iter().enumerate() {
            for (column, mask) in from.iter().enumerate() {
                let new_mask = (0..3).fold(mask & BYZANTINE, |new, bit| {
                    new | (mask >> bit & 1) << names[bit]
                });
                renamed.parents[to][*names.get(column).unwrap_or(&column)] = new_mask;
            }
        }
        renamed
    }
}

impl Rules {
    fn candidates(&self) -> &[usize] {
        match self.leader {
            Leader::Twins => &[3, 4],
            Leader::Honest => &[0],
        }
    }

    /// Columns of the second round above the leader's that are certificates for `candidate`.
    fn certificates(&self, graph: &Graph, candidate: usize) -> u8 {
        let supporters = graph.supporters(candidate);
        (0..COLUMNS)
            .filter(|c| members(graph.parents[1][*c] & supporters) >= self.quorum)
            .fold(0, |mask, c| mask | 1 << c)
    }

    fn direct(&self, graph: &Graph) -> Verdict {
        let all = self
            .candidates()
            .iter()
            .fold(0, |mask, candidate| mask | graph.supporters(*candidate));
        if members(graph.present(0) & !all) >= self.quorum {
            return Verdict::Skip;
        }
        let committed = self
            .candidates()
            .iter()
            .find(|c| members(self.certificates(graph, **c)) >= self.quorum);
        committed.map_or(Verdict::Undecided, |candidate| Verdict::Commit(*candidate))
    }

    /// What an anchor three rounds above the leader says. Any event of that round may turn out to be the committed anchor.
    fn by_anchor(&self, graph: &Graph, column: usize) -> Verdict {
        let seen = graph.parents[2][column];
        let certified = self
            .candidates()
            .iter()
            .find(|c| self.certificates(graph, **c) & seen != 0);
        certified.map_or(Verdict::Skip, |candidate| Verdict::Commit(*candidate))
    }

    /// No decision that `before` allowed may be contradicted by what `after` allows: directly, or by any anchor.
    fn conflicts(&self, before: &Graph, after: &Graph) -> bool {
        let (earlier, later) = (self.direct(before), self.direct(after));
        let changed = earlier != Verdict::Undecided && later != earlier;
        let certified = self
            .candidates()
            .iter()
            .filter(|c| self.certificates(after, **c) != 0)
            .count();
        let anchors = (0..COLUMNS).filter(|column| after.parents[2][*column] != 0);
        let denied = later != Verdict::Undecided
            && anchors
                .into_iter()
                .any(|a| self.by_anchor(after, a) != later);
        changed || certified > 1 || denied
    }

    /// Parents that an event of `column` may choose: at most one twin, its creator's own event, a quorum of the round below.
    fn choices(&self, graph: &Graph, round: usize, column: usize, actions: &mut Vec<Add>) {
        let available = match (round, self.leader) {
            (0, Leader::Twins) => 0b1_1111,
            // A twin beside an honest leader changes nothing about the leader: leaving it out saves most states.
            (0, Leader::Honest) => 0b0_1111,
            _ => graph.present(round - 1),
        };
        for parents in (1..1u8 << COLUMNS).filter(|mask| mask & !available == 0) {
            let own = if column < 3 { 1 << column } else { BYZANTINE };
            if parents & own != 0 && parents & BYZANTINE != BYZANTINE && members(parents) >= 3 {
                actions.push(Add {
                    round,
                    column,
                    parents,
                });
            }
        }
    }
}

impl Model for Rules {
    type State = Graph;
    type Action = Add;

    fn init_states(&self) -> Vec<Graph> {
        vec![Graph::default()]
    }

    fn actions(&self, graph: &Graph, actions: &mut Vec<Add>) {
        for round in 0..ROUNDS {
            // Twins above round 0 are left to the enumeration of single slots: here they cost too many states.
            for column in 0..4 {
                // One anchor is enough: any of them may be the committed one.
                let anchored = round == 2 && graph.present(2) != 0;
                if graph.parents[round][column] == 0 && !anchored {
                    self.choices(graph, round, column, actions);
                }
            }
        }
    }

    fn next_state(&self, graph: &Graph, add: Add) -> Option<Graph> {
        let mut next = *graph;
        next.parents[add.round][add.column] = add.parents;
        next.conflict |= self.conflicts(graph, &next);
        Some(next.representative(self.leader))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no decision is ever changed", |_, graph: &Graph| {
                !graph.conflict
            }),
            Property::sometimes("a leader commits directly", |rules: &Rules, graph| {
                matches!(rules.direct(graph), Verdict::Commit(_))
            }),
            Property::sometimes("a leader is skipped directly", |rules: &Rules, graph| {
                rules.direct(graph) == Verdict::Skip
            }),
            Property::sometimes(
                "an anchor commits what direct evidence leaves open",
                |rules: &Rules, graph| {
                    rules.direct(graph) == Verdict::Undecided
                        && (0..4).any(|a| {
                            graph.parents[2][a] != 0 && rules.by_anchor(graph, a) != Verdict::Skip
                        })
                },
            ),
        ]
    }
}

#[test]
fn decisions_are_final_when_the_leader_signed_twins() {
    let checker = Rules {
        leader: Leader::Twins,
        quorum: 3,
    }
    .checker()
    .threads(2)
    .spawn_bfs()
    .join();
    eprintln!("{} graphs", checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn decisions_are_final_when_the_leader_is_honest() {
    let checker = Rules {
        leader: Leader::Honest,
        quorum: 3,
    }
    .checker()
    .threads(2)
    .spawn_bfs()
    .join();
    eprintln!("{} graphs", checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn a_quorum_of_two_is_caught() {
    let checker = Rules {
        leader: Leader::Twins,
        quorum: 2,
    }
    .checker()
    .spawn_bfs()
    .join();
    assert!(
        checker.discovery("no decision is ever changed").is_some(),
        "the model cannot tell a wrong quorum"
    );
}
