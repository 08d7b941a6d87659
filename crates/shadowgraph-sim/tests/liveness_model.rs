//! A model of liveness for four members, one of them Byzantine, checked by stateright: once the network is stable, so that
//! every honest event cites all honest events of the round before, no choice of the Byzantine member keeps a slot open for
//! more than a few rounds. Which of its events (twins included) exist, and which honest members see which in time, is its choice.
//! A third statement of docs/protocol.md 3 and 4.2, which shares no code with the library or the naive checker.

use stateright::{Checker, Model, Property};

/// Columns of a round: honest members 0, 1 and 2, then the Byzantine member's event and its twin.
const HONEST: u8 = 0b0_0111;
const BYZANTINE: u8 = 0b1_1000;
const QUORUM: u32 = 3;

/// What a round looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Layer {
    /// Per honest member, the Byzantine event of the round below that its event cites: a column, or 0 for none.
    seen: [u8; 3],
    /// The Byzantine events that exist here, as columns.
    events: u8,
}

/// The rounds from the first open slot's on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Window {
    /// The number of its first round, up to the period of the schedule.
    first: u64,
    /// The rank of the first open slot in its round.
    rank: usize,
    layers: Vec<Layer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Open,
    Skipped,
    Committed(usize),
}

/// How the leaders of a round follow from its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// As docs/protocol.md 4.2 has it, with a slot for every leader.
    WithTurns,
    /// By one seat a round and nothing else, which looks as good and is not.
    ByOne,
}

struct Rules {
    /// How many members lead; the Byzantine one is among them, as seat 0 of the list.
    leaders: u64,
    turn: Turn,
    twins: bool,
    /// The rounds that a slot may stay open.
    rounds_max: usize,
}

fn members(mask: u8) -> u32 {
    (mask & HONEST).count_ones() + u32::from(mask & BYZANTINE != 0)
}

impl Layer {
    fn present(self) -> u8 {
        HONEST | self.events
    }

    /// What the event in a column cites of the round below.
    fn parents(self, column: usize, below: Layer) -> u8 {
        let own = 1 << column & below.events;
        match column {
            0..=2 => HONEST | self.seen[column],
            // Each twin goes on from its own last event where there is one, else from the other's.
            _ if own != 0 => HONEST | own,
            _ => HONEST | (below.events & 1 << 3),
        }
    }
}

impl Rules {
    /// After so many rounds the schedule begins again.
    fn period(&self) -> u64 {
        3 * self.leaders * self.leaders
    }

    /// The rank of the Byzantine member in a round.
    fn byzantine_rank(&self, round: u64) -> usize {
        let turns = match self.turn {
            Turn::WithTurns if self.leaders.is_multiple_of(3) => round / self.leaders,
            _ => 0,
        };
        let first = (round + turns) % self.leaders;
        ((self.leaders - first) % self.leaders) as usize
    }

    fn parents(&self, window: &Window, round: usize, column: usize) -> u8 {
        window.layers[round].parents(column, window.layers[round - 1])
    }

    fn citing(&self, window: &Window, round: usize, cited: u8) -> u8 {
        let present = (0..5).filter(|column| window.layers[round].present() & 1 << column != 0);
        present
            .filter(|column| self.parents(window, round, *column) & cited != 0)
            .fold(0, |mask, column| mask | 1 << column)
    }

    fn certificates(&self, window: &Window, round: usize, column: usize) -> u8 {
        let supporters = self.citing(window, round + 1, 1 << column);
        let present = (0..5).filter(|c| window.layers[round + 2].present() & 1 << c != 0);
        present
            .filter(|c| members(self.parents(window, round + 2, *c) & supporters) >= QUORUM)
            .fold(0, |mask, c| mask | 1 << c)
    }

    /// The slot of the Byzantine member, decided by counting. (Three honest members support, and then certify, every honest event:
    /// an honest member's slot is committed once there are two rounds above it.)
    fn direct(&self, window: &Window, round: usize) -> Status {
        let Some(above) = window.layers.get(round + 1) else {
            return Status::Open;
        };
        let supporting = self.citing(window, round + 1, BYZANTINE);
        if members(above.present() & !supporting) >= QUORUM {
            return Status::Skipped;
        }
        let exists = |column: &usize| window.layers[round].events & 1 << column != 0;
        let certified = |column: &usize| {
            window.layers.len() > round + 2
                && members(self.certificates(window, round, *column)) >= QUORUM
        };
        let mut candidates = (3..5).filter(exists);
        candidates
            .find(certified)
            .map_or(Status::Open, Status::Committed)
    }

    fn status(&self, window: &Window, round: usize, rank: usize, later: &[Vec<Status>]) -> Status {
        let number = window.first + round as u64;
        let byzantine = self.byzantine_rank(number);
        if rank != byzantine {
            let decided = window.layers.len() > round + 2;
            return if decided {
                Status::Committed(0)
            } else {
                Status::Open
            };
        }
        let direct = self.direct(window, round);
        if direct != Status::Open {
            return direct;
        }
        for (above, statuses) in later.iter().enumerate().skip(round + 3) {
            match statuses.iter().find(|status| **status != Status::Skipped) {
                None => {}
                Some(Status::Committed(anchor)) => {
                    return self.by_anchor(window, round, above, *anchor);
                }
                Some(_) => return Status::Open,
            }
        }
        Status::Open
    }

    fn by_anchor(&self, window: &Window, round: usize, above: usize, anchor: usize) -> Status {
        let mut reached = 1u8 << anchor;
        for at in (round + 3..=above).rev() {
            let columns = (0..5).filter(|column| reached & 1 << column != 0);
            reached = columns.fold(0, |mask, column| mask | self.parents(window, at, column));
        }
        let exists = |column: &usize| window.layers[round].events & 1 << column != 0;
        let certified = |column: &usize| self.certificates(window, round, *column) & reached != 0;
        let mut candidates = (3..5).filter(exists);
        candidates
            .find(certified)
            .map_or(Status::Skipped, Status::Committed)
    }

    /// Decides what can be decided, in order, and lets go of the rounds below the first open slot.
    fn advance(&self, mut window: Window) -> Window {
        let mut statuses: Vec<Vec<Status>> = vec![Vec::new(); window.layers.len()];
        for round in (0..window.layers.len()).rev() {
            let ranks = 0..self.leaders as usize;
            statuses[round] = ranks
                .map(|rank| self.status(&window, round, rank, &statuses))
                .collect();
        }
        let mut done = 0;
        while done < statuses.len() {
            let rest = &statuses[done][window.rank..];
            match rest.iter().position(|status| *status == Status::Open) {
                Some(open) => {
                    window.rank += open;
                    break;
                }
                None => {
                    done += 1;
                    window.rank = 0;
                }
            }
        }
        window.layers.drain(..done);
        window.first = (window.first + done as u64) % self.period();
        if let Some(lowest) = window.layers.first_mut() {
            lowest.seen = [0; 3]; // of a round that no open slot is in
        }
        window
    }

    fn rounds(&self, window: &Window) -> Vec<Layer> {
        // One pair of twins in a window: more cost too many states.
        let twins_before = window.layers.iter().any(|layer| layer.events == BYZANTINE);
        let events = if self.twins && !twins_before {
            &[0, 0b0_1000, BYZANTINE][..]
        } else {
            &[0, 0b0_1000]
        };
        let below = window.layers.last().map_or(0, |layer| layer.events);
        let sights: Vec<u8> = [0, 0b0_1000, 0b1_0000]
            .into_iter()
            .filter(|column| column & !below == 0)
            .collect();
        let mut rounds = Vec::new();
        for events in events {
            for a in &sights {
                // Which honest member sees what matters to no tally, only how many do.
                for b in sights.iter().filter(|b| *b >= a) {
                    for c in sights.iter().filter(|c| *c >= b) {
                        rounds.push(Layer {
                            seen: [*a, *b, *c],
                            events: *events,
                        });
                    }
                }
            }
        }
        rounds
    }
}

impl Model for Rules {
    type State = Window;
    type Action = Layer;

    fn init_states(&self) -> Vec<Window> {
        let window = |first| Window {
            first,
            rank: 0,
            layers: Vec::new(),
        };
        (0..self.period()).map(window).collect()
    }

    fn actions(&self, window: &Window, actions: &mut Vec<Layer>) {
        actions.extend(self.rounds(window));
    }

    fn next_state(&self, window: &Window, layer: Layer) -> Option<Window> {
        let mut next = window.clone();
        next.layers.push(layer);
        Some(self.advance(next))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no slot stays open", |rules: &Rules, window: &Window| {
                window.layers.len() <= rules.rounds_max
            }),
            Property::sometimes("counting alone leaves a slot open", |_, window: &Window| {
                window.layers.len() > 3
            }),
        ]
    }

    /// One round beyond what is allowed is enough to see that it is not kept.
    fn within_boundary(&self, window: &Window) -> bool {
        window.layers.len() <= self.rounds_max + 1
    }
}

/// A slot of the Byzantine member may wait for one that it leads first in its round, three rounds above, and that one for an honest
/// member's three rounds further, which is committed two rounds later.
const ROUNDS_MAX: usize = 8;

fn every_slot_is_decided(leaders: u64, twins: bool) {
    let rules = Rules {
        leaders,
        turn: Turn::WithTurns,
        twins,
        rounds_max: ROUNDS_MAX,
    };
    let checker = rules.checker().threads(2).spawn_bfs().join();
    eprintln!(
        "{leaders} leaders: {} windows",
        checker.unique_state_count()
    );
    checker.assert_properties();
}

#[test]
fn every_slot_is_decided_with_two_leaders() {
    every_slot_is_decided(2, false);
}

#[test]
fn every_slot_is_decided_with_three_leaders() {
    every_slot_is_decided(3, false);
}

#[test]
fn every_slot_is_decided_with_four_leaders() {
    every_slot_is_decided(4, false);
}

#[test]
fn every_slot_is_decided_with_twins() {
    every_slot_is_decided(3, true);
}

/// With leaders that move on by one seat a round, three leaders meet every third round, and so does a Byzantine one with the anchor
/// of its own slot: it can keep all of them open for ever.
#[test]
fn a_schedule_that_meets_its_own_anchors_is_caught() {
    let rules = Rules {
        leaders: 3,
        turn: Turn::ByOne,
        twins: false,
        rounds_max: 12,
    };
    // Depth first goes straight on along the one bad way.
    let checker = rules.checker().spawn_dfs().join();
    assert!(
        checker.discovery("no slot stays open").is_some(),
        "the model cannot tell a schedule that stalls"
    );
}
