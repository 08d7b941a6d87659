//! What can strike a network, and how each fault is brought about and taken back.

use super::draw::Draw;
use super::ground;
use super::network::Network;
use anyhow::Result;
use std::fmt;
use std::time::Duration;

/// One fault; all of them end by themselves.
pub enum Fault {
    /// SIGKILL; the nodes are started again after a while.
    Kill { nodes: Vec<usize>, down_ms: u64 },
    /// SIGTERM and a new start.
    Restart { node: usize },
    /// SIGSTOP, then SIGCONT.
    Freeze { nodes: Vec<usize>, for_ms: u64 },
    /// Packets between two sides are lost, or those of one side.
    Partition {
        side: Vec<usize>,
        for_ms: u64,
        one_way: bool,
    },
    /// So many of a hundred packets between nodes are lost.
    Loss { percent: u64, for_ms: u64 },
    /// A node's clock jumps, and back: while it runs, or each time while it is down.
    Clock {
        node: usize,
        by_ms: i64,
        for_ms: u64,
        restart: bool,
    },
    /// A node's disk has no space left for a while.
    DiskFull { node: usize, for_ms: u64 },
}

impl Fault {
    /// Draws one. Most leave a quorum in service, some do not.
    pub fn draw(draw: &mut Draw, network: &Network) -> Self {
        let members = network.members();
        let tolerated = (members.len() - 1) / 3;
        let most = if draw.below(5) == 0 {
            members.len()
        } else {
            tolerated
        };
        let pick = |chosen: Vec<usize>| chosen.into_iter().map(|at| members[at]).collect();
        let nodes: Vec<usize> = pick(draw.some(members.len(), most));
        let one = nodes[0];
        let for_ms = 500 + draw.below(5_000);
        match draw.below(7) {
            0 => Self::Kill {
                nodes,
                down_ms: draw.below(3_000),
            },
            1 => Self::Restart { node: one },
            2 => Self::Freeze { nodes, for_ms },
            3 => Self::Partition {
                side: nodes,
                for_ms,
                one_way: draw.below(3) == 0,
            },
            5 => Self::Loss {
                percent: 5 + draw.below(35),
                for_ms,
            },
            4 => {
                let by_ms = draw.below(120_000) as i64 - 60_000;
                Self::Clock {
                    node: one,
                    by_ms,
                    for_ms,
                    restart: by_ms % 2 == 0,
                }
            }
            _ => match network.small_disk() {
                Some(node) => Self::DiskFull { node, for_ms },
                None => Self::Kill { nodes, down_ms: 0 },
            },
        }
    }

    /// The kind, for the count.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "SIGKILL",
            Self::Restart { .. } => "restart",
            Self::Freeze { .. } => "SIGSTOP",
            Self::Partition { one_way: false, .. } => "partition",
            Self::Partition { one_way: true, .. } => "one-way partition",
            Self::Loss { .. } => "packet loss",
            Self::Clock { .. } => "clock step",
            Self::DiskFull { .. } => "full disk",
        }
    }

    /// Brings it about, waits, and takes it back.
    pub fn strike(self, network: &mut Network) -> Result<()> {
        let wait = |ms| std::thread::sleep(Duration::from_millis(ms));
        match self {
            Self::Kill { nodes, down_ms } => {
                nodes.iter().try_for_each(|node| network.kill(*node))?;
                wait(down_ms);
                nodes.iter().try_for_each(|node| network.start(*node))
            }
            Self::Restart { node } => {
                network.terminate(node)?;
                network.start(node)
            }
            Self::Freeze { nodes, for_ms } => {
                nodes
                    .iter()
                    .try_for_each(|node| network.freeze(*node, true))?;
                wait(for_ms);
                nodes
                    .iter()
                    .try_for_each(|node| network.freeze(*node, false))
            }
            Self::Partition {
                side,
                for_ms,
                one_way,
            } => {
                network.part(&side, one_way)?;
                wait(for_ms);
                network.part(&[], false)
            }
            Self::Loss { percent, for_ms } => {
                ground::lose_some(percent)?;
                wait(for_ms);
                ground::lose_some(0)
            }
            Self::Clock {
                node,
                by_ms,
                for_ms,
                restart,
            } => {
                let mut shift = |by_ms| {
                    if restart {
                        network.kill(node)?;
                    }
                    network.shift_clock(node, by_ms)?;
                    if restart { network.start(node) } else { Ok(()) }
                };
                shift(by_ms)?;
                wait(for_ms);
                shift(0)
            }
            Self::DiskFull { node, for_ms } => {
                network.fill_disk(node, true)?;
                wait(for_ms);
                network.fill_disk(node, false)
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill { nodes, down_ms } => write!(f, "SIGKILL {nodes:?}, down for {down_ms} ms"),
            Self::Restart { node } => write!(f, "restart of {node}"),
            Self::Freeze { nodes, for_ms } => write!(f, "SIGSTOP {nodes:?} for {for_ms} ms"),
            Self::Partition {
                side,
                for_ms,
                one_way,
            } => {
                let how = if *one_way { ", one way" } else { "" };
                write!(
                    f,
                    "partition of {side:?} from the others for {for_ms} ms{how}"
                )
            }
            Self::Loss { percent, for_ms } => {
                write!(f, "{percent} % of packets lost for {for_ms} ms")
            }
            Self::Clock {
                node,
                by_ms,
                for_ms,
                restart,
            } => {
                let how = if *restart { ", with restarts" } else { "" };
                write!(f, "clock of {node} off by {by_ms} ms for {for_ms} ms{how}")
            }
            Self::DiskFull { node, for_ms } => write!(f, "full disk of {node} for {for_ms} ms"),
        }
    }
}
