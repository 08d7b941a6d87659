//! A plan: everything a seed decides before a run starts, as plain data. The world carries it out; scenarios write it.

use shadowgraph::Parameters;

use crate::adversary::Behaviour;
use crate::disk::CrashKind;
use crate::network::{Latency, LinkFaults};

/// Something that is done to the network or the nodes at a given time of the chaos phase.
#[derive(Clone, Debug)]
pub enum Action {
    /// The node goes down. It stays down until a `Restart` or the end of the chaos phase.
    Crash(usize, CrashKind),
    /// The node goes down, and its disk is replaced by an earlier state of itself: so many permille of its records.
    RollBack(usize, u32),
    /// Someone copies the node's disk, as it is.
    BackUp(usize),
    /// The node goes down, and its disk is replaced by that copy.
    Restore(usize),
    /// A bit flips in the middle of this permille of what the node has synced, and the node goes down.
    Rot(usize, u32),
    /// The node's disk takes no more; or there is space again.
    DiskFull(usize, bool),
    /// A second daemon starts with the key of another node ([`Plan::doubles`]): with a copy of its disk, or an empty one.
    StartDouble(usize, bool),
    /// All nodes go down at once.
    CrashAll(CrashKind),
    /// The node comes back with what its disk kept.
    Restart(usize),
    /// All nodes that are down come back.
    RestartAll,
    /// Cuts these nodes off from the others.
    Partition(Vec<usize>),
    /// Cuts one direction of one link.
    CutOneWay(usize, usize),
    /// Opens all links.
    OpenLinks,
    /// Everything this node sends is late by so many microseconds. Zero ends it.
    Late(usize, u64),
    /// Everything this node does takes so many microseconds longer. Zero ends it.
    Slow(usize, u64),
    /// Changes what goes wrong on all links.
    Faults(LinkFaults),
    /// The clock of a node that is down shows so many milliseconds more than the true time from now on; negative is less.
    SetClock(usize, i64),
    /// The node gets the newer program ([`Plan::upgrade_epoch`]) for its next start.
    Upgrade(usize),
    /// Clients stop or start submitting.
    Load(bool),
}

/// What clients do.
#[derive(Clone, Debug)]
pub struct Load {
    /// Mean time between submissions to the committee as a whole, in microseconds.
    pub every_us: u64,
    /// Sizes of transactions, in bytes, both included. At least 16.
    pub bytes: (u64, u64),
    /// Whether a client whose node crashed submits its transaction to another.
    pub resubmit: bool,
}

/// How a node's clock deviates.
#[derive(Clone, Copy, Debug, Default)]
pub struct Skew {
    /// Milliseconds ahead of the true time at the start; negative is behind.
    pub offset_ms: i64,
    /// Microseconds gained in a second; negative loses.
    pub drift_ppm: i64,
}

/// An epoch after the first.
#[derive(Clone, Debug)]
pub struct EpochPlan {
    /// How many commits the epoch before has at least: it ends with its first checkpoint from there on.
    pub commits: u64,
    /// The seats: node, generation of its key, weight.
    pub seats: Vec<(usize, u32, u64)>,
}

/// A run, before it starts.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Votes of each member.
    pub weights: Vec<u64>,
    /// Nodes without a seat, which only follow. Their node numbers come after the members'.
    pub followers: usize,
    /// The epochs after the first.
    pub epochs: Vec<EpochPlan>,
    /// From this epoch on the rules are those of version 2, which nodes know only once they are upgraded.
    pub upgrade_epoch: Option<u64>,
    /// How many ended epochs nodes still serve, and read back when they start; all if there is none.
    pub retain: Option<u64>,
    /// How long messages travel.
    pub latency: Latency,
    /// What goes wrong on the links from the start.
    pub faults: LinkFaults,
    /// Length of the chaos phase, in microseconds. Then everything heals.
    pub chaos_us: u64,
    /// How long the healed committee may take to commit everything that was accepted, in microseconds.
    pub settle_us: u64,
    /// What clients do in the chaos phase.
    pub load: Load,
    /// Clocks, by node; nodes beyond the end have true ones.
    pub skews: Vec<Skew>,
    /// How long a sync of the disk takes, in microseconds.
    pub sync_us: u64,
    /// What is done when, in microseconds from the start.
    pub actions: Vec<(u64, Action)>,
    /// Byzantine members and what they do.
    pub adversaries: Vec<(usize, Vec<Behaviour>)>,
    /// Honest members whose disks are rolled back in the course of the run. They count as faulty: they may stop for good, but
    /// must not sign twice.
    pub amnesiacs: Vec<usize>,
    /// Honest members whose key signs twice without their doing. They count as Byzantine, whatever they do.
    pub signs_twice: Vec<usize>,
    /// Second daemons: their node numbers, which come after the members', and whose keys they have. They start when an action
    /// says so. A message for the key reaches one of the two.
    pub doubles: Vec<(usize, usize)>,
    /// Parameters of every replica.
    pub parameters: Parameters,
    /// What this run must show beyond the checks that every run must pass.
    pub expect: Expect,
}

/// Expectations of single scenarios, on top of safety and liveness.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expect {
    /// Nothing may commit in the chaos phase (otherwise the scenario does not test what it says).
    pub no_commit_in_chaos: bool,
    /// Commits must happen in the chaos phase, too: the disturbance is one the protocol must ride out.
    pub commits_in_chaos: bool,
    /// An equivocation must be proven by some honest node.
    pub equivocation_proven: bool,
    /// Two events of one slot must be seen (otherwise the scenario does not test what it says).
    pub twins: bool,
    /// So many nodes must refuse to start from what their disks hold.
    pub refusals: u64,
    /// Every transaction accepted by an honest node must commit within so many rounds.
    pub commit_within_rounds: Option<u64>,
    /// In a quiet committee a member may create at most this many events per heartbeat on average, in permille.
    pub idle_events_permille: Option<u64>,
}

impl Plan {
    /// A calm run of `members` with equal weights: the base that scenarios change.
    pub fn calm(members: usize) -> Self {
        Self {
            weights: vec![1; members],
            followers: 0,
            epochs: Vec::new(),
            upgrade_epoch: None,
            retain: None,
            latency: Latency::Uniform(20_000),
            faults: LinkFaults::default(),
            chaos_us: 10_000_000,
            settle_us: 120_000_000,
            load: Load {
                every_us: 20_000,
                bytes: (32, 256),
                resubmit: false,
            },
            skews: Vec::new(),
            sync_us: 500,
            actions: Vec::new(),
            adversaries: Vec::new(),
            amnesiacs: Vec::new(),
            signs_twice: Vec::new(),
            doubles: Vec::new(),
            parameters: Parameters::default(),
            expect: Expect::default(),
        }
    }

    /// Number of members.
    pub fn members(&self) -> usize {
        self.weights.len()
    }

    /// Number of nodes, members and followers.
    pub fn nodes(&self) -> usize {
        self.weights.len() + self.followers
    }

    /// The weight that may be faulty: floor((W - 1) / 3).
    pub fn fault_weight(&self) -> u64 {
        (self.weights.iter().sum::<u64>() - 1) / 3
    }

    /// What this node does against the rules; empty for an honest one.
    pub fn behaviours(&self, node: usize) -> &[Behaviour] {
        self.adversaries
            .iter()
            .find(|(member, _)| *member == node)
            .map_or(&[], |(_, behaviours)| behaviours)
    }

    /// Whether the node keeps to the rules.
    pub fn is_honest(&self, node: usize) -> bool {
        self.behaviours(node).is_empty() && !self.signs_twice.contains(&node)
    }

    /// Whether the node keeps to the rules and its disk, so that it must come to commit everything.
    pub fn is_correct(&self, node: usize) -> bool {
        self.is_honest(node) && !self.amnesiacs.contains(&node) && self.original(node) == node
    }

    /// The node whose key this one has: itself, if it is not somebody's double.
    pub fn original(&self, node: usize) -> usize {
        let double = self.doubles.iter().find(|(double, _)| *double == node);
        double.map_or(node, |(_, original)| *original)
    }

    /// The nodes that keep to the rules.
    pub fn honest(&self) -> Vec<usize> {
        (0..self.nodes())
            .filter(|node| self.is_honest(*node))
            .collect()
    }
}
