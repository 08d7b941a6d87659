//! The host agent: drives this machine's VMs to what the ledger wants, and reports what happened.
//!
//! [`plan`](self) decides (pure), `agent` loops, `steps` act, `renew` keeps the watchdogs fed, `records`
//! remember, `publish` opens ports. Desired is what the ledger, as executed on this node, places on the machine with this
//! node's key; observed is what the hypervisor driver finds in its directories, so a restarted daemon
//! takes running VMs over without a second start or report.
//!
//! **Acting only on a fresh ledger.** The agent plans only while the machine's lease, as proven by
//! rivals' attestations and counted on CLOCK_BOOTTIME from when the heartbeat was sent, lies ahead. Such
//! a lease exists only once this node has executed a commit that contains an event which a rival made
//! after that heartbeat. So the ledger that a plan reads is younger than one lease: a node that comes
//! back and catches up replays its old placements without acting on them. This asks nothing of the
//! wall clock.

mod agent;
mod control;
mod hypervisor;
mod plan;
mod publish;
mod records;
mod renew;
mod steps;

#[cfg(test)]
mod agent_tests;
#[cfg(test)]
mod agent_world;
#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod plan_world;
#[cfg(test)]
mod publish_tests;

use std::{io, path::PathBuf};

use dagger_vmm::Host;
use tokio_util::sync::CancellationToken;

use crate::{handle::NodeHandle, images::Images};

pub use control::{blob_providers, node_keys};
pub use publish::Offer;
pub(crate) use steps::clean;

/// Runs the agent until `cancel`; VMs run on. `dir` holds what it remembers (mode 0700).
///
/// # Errors
/// When `dir` cannot be used.
pub async fn run(
    node: NodeHandle,
    host: Host,
    images: Images,
    dir: PathBuf,
    offer: Offer,
    cancel: CancellationToken,
) -> io::Result<()> {
    let records = records::Records::open(dir)?;
    let policy = plan::Policy::default();
    agent::Agent::new(node, host, images, records, policy, offer)
        .run(cancel)
        .await;
    Ok(())
}
