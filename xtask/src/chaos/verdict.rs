//! What must hold once all faults are over.

use super::load::Report;
use super::network::Network;
use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What the nodes agree on.
pub struct Verdict {
    pub state_root: String,
    pub nodes: usize,
    pub epoch: u64,
    pub accounts: usize,
}

/// Compares the nodes with one another and with what clients were told.
pub fn judge(network: &Network, report: &Report, within: Duration) -> Result<Verdict> {
    let deadline = Instant::now() + within;
    let members = network.members();
    let (state_root, epoch) = loop {
        let points: Vec<_> = members
            .iter()
            .filter_map(|node| network.point(*node))
            .collect();
        let same = points.windows(2).all(|pair| pair[0] == pair[1]);
        if points.len() == members.len() && same && points[0].certified {
            break (points[0].state_root.clone(), points[0].epoch);
        }
        if Instant::now() > deadline {
            bail!("the nodes do not come to one certified state: {points:#?}");
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    let mut accounts = 0;
    for node in &members {
        let mut times = BTreeMap::<String, usize>::new();
        for name in network.accounts(*node)? {
            *times.entry(name).or_default() += 1;
        }
        let lost: Vec<_> = report
            .acknowledged
            .iter()
            .filter(|name| !times.contains_key(*name))
            .collect();
        if !lost.is_empty() {
            bail!(
                "node {node} lacks {} acknowledged transactions: {lost:?}",
                lost.len()
            );
        }
        if let Some((name, count)) = times.iter().find(|(_, count)| **count > 1) {
            bail!("node {node} has account {name} {count} times");
        }
        accounts = times.len();
    }
    Ok(Verdict {
        state_root,
        nodes: members.len(),
        epoch,
        accounts,
    })
}
