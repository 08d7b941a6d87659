//! The table of round-trip times between ten cloud regions, and what it allows at best: the ideal latency of three quorum
//! steps. Only the table and arithmetic on it.

/// The table as published, see data/README.md.
const TABLE: &str = include_str!("../data/rtt-ms-10-regions.csv");

/// How many regions the table has.
pub const REGIONS: usize = 10;

/// Delay between two nodes of one region, one way, in microseconds (the table has zero on its diagonal).
pub const LOCAL_ONE_WAY_US: u64 = 250;

/// One-way delays between regions, in microseconds.
#[derive(Clone, Debug)]
pub struct RegionMatrix {
    names: Vec<String>,
    one_way_us: Vec<Vec<u64>>,
}

impl RegionMatrix {
    /// The ten published regions.
    ///
    /// # Panics
    /// When the embedded table is malformed, which a test rules out.
    pub fn published() -> Self {
        let mut names = Vec::new();
        let mut one_way_us = Vec::new();
        for line in TABLE
            .lines()
            .filter(|line| !line.starts_with('#') && !line.starts_with("region,"))
        {
            let mut cells = line.split(',');
            names.push(
                cells
                    .next()
                    .expect("a row begins with its region")
                    .to_string(),
            );
            let row: Vec<u64> = cells.map(half_round_trip_us).collect();
            assert_eq!(row.len(), REGIONS, "a row has a cell for each region");
            one_way_us.push(row);
        }
        assert_eq!(
            one_way_us.len(),
            REGIONS,
            "the table has a row for each region"
        );
        Self { names, one_way_us }
    }

    /// The region's name. `node` counts round robin over the regions.
    pub fn name(&self, node: usize) -> &str {
        &self.names[node % REGIONS]
    }

    /// One-way delay between two nodes placed round robin over the regions, in microseconds.
    pub fn one_way_us(&self, from: usize, to: usize) -> u64 {
        self.one_way_us[from % REGIONS][to % REGIONS].max(LOCAL_ONE_WAY_US)
    }

    /// When each of `nodes` holds the messages of `quorum` senders (itself included, at no delay) that send at
    /// `started_us`: one step of a protocol at the speed of the network.
    pub fn quorum_step(&self, nodes: usize, quorum: usize, started_us: &[u64]) -> Vec<u64> {
        (0..nodes)
            .map(|to| {
                let mut arrivals: Vec<u64> = (0..nodes)
                    .map(|from| {
                        started_us[from]
                            + if from == to {
                                0
                            } else {
                                self.one_way_us(from, to)
                            }
                    })
                    .collect();
                arrivals.sort_unstable();
                arrivals[quorum - 1]
            })
            .collect()
    }

    /// The least time from the creation of an event at `creator` until each node can have committed it: the event travels
    /// to everybody, then two quorum steps of votes on it (support, certificate). Microseconds, per observing node.
    pub fn ideal_commit_us(&self, nodes: usize, quorum: usize, creator: usize) -> Vec<u64> {
        let received: Vec<u64> = (0..nodes)
            .map(|to| {
                if to == creator {
                    0
                } else {
                    self.one_way_us(creator, to)
                }
            })
            .collect();
        let supported = self.quorum_step(nodes, quorum, &received);
        self.quorum_step(nodes, quorum, &supported)
    }
}

/// Parses a round-trip time such as `72.74` (ms) into half of it in microseconds, without floating point.
fn half_round_trip_us(cell: &str) -> u64 {
    let (whole, fraction) = cell.split_once('.').unwrap_or((cell, ""));
    let whole: u64 = whole.parse().expect("a round-trip time is a number");
    let fraction: u64 = format!("{fraction:0<3}")[..3]
        .parse()
        .expect("a round-trip time has decimal digits");
    (whole * 1_000 + fraction) / 2
}
