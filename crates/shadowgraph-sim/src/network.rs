//! The network: who hears whom, after how long, how often. Decides only about arrival times; it never looks at what a
//! message says.

use crate::regions::RegionMatrix;
use crate::rng::SimRng;

/// How long a message travels when nothing goes wrong.
#[derive(Clone, Debug)]
pub enum Latency {
    /// The same delay on every link, in microseconds.
    Uniform(u64),
    /// A delay per link, drawn once from this range (microseconds, both included).
    PerLink(u64, u64),
    /// Nodes placed round robin over the ten published regions.
    Regions,
}

/// What goes wrong on every link. Chances are in permille of messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkFaults {
    /// The message is lost.
    pub loss_permille: u32,
    /// The message arrives twice.
    pub duplicate_permille: u32,
    /// The message is held back by up to `reorder_us`, so that later ones overtake it.
    pub reorder_permille: u32,
    /// Longest time a held-back message is late, in microseconds.
    pub reorder_us: u64,
    /// Every message is late by up to this much, in microseconds.
    pub jitter_us: u64,
}

/// The links between all nodes.
pub struct Network {
    nodes: usize,
    base_us: Vec<u64>,
    faults: LinkFaults,
    blocked: Vec<bool>,
    late_us: Vec<u64>,
    rng: SimRng,
}

impl Network {
    /// A network of `nodes`, all links open. The stream of randomness belongs to the network alone.
    pub fn new(nodes: usize, latency: &Latency, faults: LinkFaults, mut rng: SimRng) -> Self {
        let regions = matches!(latency, Latency::Regions).then(RegionMatrix::published);
        let mut base_us = Vec::with_capacity(nodes * nodes);
        for from in 0..nodes {
            for to in 0..nodes {
                base_us.push(match (latency, &regions) {
                    (Latency::Uniform(delay_us), _) => *delay_us,
                    (Latency::PerLink(low, high), _) => rng.between(*low, *high),
                    (Latency::Regions, Some(matrix)) => matrix.one_way_us(from, to),
                    (Latency::Regions, None) => unreachable!("the matrix was made above"),
                });
            }
        }
        Self {
            nodes,
            base_us,
            faults,
            blocked: vec![false; nodes * nodes],
            late_us: vec![0; nodes],
            rng,
        }
    }

    /// Replaces what goes wrong on the links.
    pub fn set_faults(&mut self, faults: LinkFaults) {
        self.faults = faults;
    }

    /// Cuts or opens the link in this one direction.
    pub fn set_blocked(&mut self, from: usize, to: usize, blocked: bool) {
        self.blocked[from * self.nodes + to] = blocked;
    }

    /// Cuts every link between the nodes of `side` and the others, both ways.
    pub fn partition(&mut self, side: &[usize]) {
        for from in 0..self.nodes {
            for to in 0..self.nodes {
                if side.contains(&from) != side.contains(&to) {
                    self.set_blocked(from, to, true);
                }
            }
        }
    }

    /// Makes everything that this node sends late by `late_us`.
    pub fn set_late(&mut self, node: usize, late_us: u64) {
        self.late_us[node] = late_us;
    }

    /// Opens every link.
    pub fn open(&mut self) {
        self.blocked.fill(false);
    }

    /// Opens every link and ends loss, duplication, reordering and lateness. Jitter stays: a healthy network has it.
    pub fn heal(&mut self) {
        self.open();
        self.late_us.fill(0);
        self.faults = LinkFaults {
            jitter_us: self.faults.jitter_us,
            ..LinkFaults::default()
        };
    }

    /// When a message that is sent now arrives, in microseconds from now: never, once or twice.
    pub fn arrivals(&mut self, from: usize, to: usize) -> [Option<u64>; 2] {
        let link = from * self.nodes + to;
        if self.blocked[link] || self.rng.chance(self.faults.loss_permille) {
            return [None, None];
        }
        let first = self.delay_us(link, from);
        let second = self
            .rng
            .chance(self.faults.duplicate_permille)
            .then(|| self.delay_us(link, from));
        [Some(first), second]
    }

    fn delay_us(&mut self, link: usize, from: usize) -> u64 {
        let mut delay_us = self.base_us[link] + self.late_us[from];
        if self.faults.jitter_us > 0 {
            delay_us += self.rng.between(0, self.faults.jitter_us);
        }
        if self.rng.chance(self.faults.reorder_permille) {
            delay_us += self.rng.between(0, self.faults.reorder_us);
        }
        delay_us
    }
}
