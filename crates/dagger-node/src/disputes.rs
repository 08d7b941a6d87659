//! Probes VMs whose disputes this node's operator was drawn for, and says on the ledger what it found.
//!
//! A probe reads the greeting of the VM's ssh server through the tunnel. What probes decide is the ledger's.

use std::{collections::HashSet, time::Duration};

use dagger_ledger::{Action, Key, Ledger, OperatorId, VmId, VmProbe};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    handle::NodeHandle,
    host::clean,
    statement,
    tunnel::{TunnelError, probe},
};

/// Between two looks at the ledger, and between two attempts to reach one VM.
const INTERVAL: Duration = Duration::from_secs(1);
/// VMs that are probed at once; the ledger gives the most urgent first.
const PROBED_AT_ONCE: usize = 16;
/// So often its own machine may say that a guest does not answer.
const SILENT_MAX: u32 = 3;
/// Bytes of what was seen.
const DETAIL_BYTES_MAX: usize = 256;

/// A dispute in which this node's operator has to say what it finds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Drawn {
    vm: VmId,
    lease_epoch: u64,
    opened_ms: u64,
    /// Key of the node that hosts the VM.
    machine: Key,
}

/// Probes for as long as the node runs.
pub(crate) async fn probe_drawn(node: NodeHandle) {
    let own = Key(node.node_key().verification_key().into());
    let mut under_way: HashSet<Drawn> = HashSet::new();
    let mut probes = JoinSet::new();
    loop {
        for drawn in node.read(|ledger| drawn(ledger, &own)) {
            if under_way.len() < PROBED_AT_ONCE && under_way.insert(drawn.clone()) {
                let (node, own) = (node.clone(), own);
                probes.spawn(async move {
                    settle(&node, &own, &drawn).await;
                    drawn
                });
            }
        }
        sleep(INTERVAL).await;
        while let Some(ended) = probes.try_join_next() {
            match ended {
                Ok(drawn) => drop(under_way.remove(&drawn)),
                Err(error) => tracing::error!(%error, "a probe of a disputed VM panicked"),
            }
        }
    }
}

/// The disputes that wait for this node's operator, the most urgent first.
fn drawn(ledger: &Ledger, own: &Key) -> Vec<Drawn> {
    let mut operators = ledger.operators();
    let Some(own) = operators.find(|operator| operator.node_key == *own) else {
        return Vec::new();
    };
    let own: OperatorId = own.id;
    let waiting = ledger.disputed_vms().filter_map(|vm| {
        let dispute = vm.dispute.as_deref()?;
        dispute.waits_for().find(|rival| *rival == own)?;
        Some(Drawn {
            vm: vm.id,
            lease_epoch: dispute.lease_epoch,
            opened_ms: dispute.opened_ms,
            machine: ledger.machine(dispute.machine)?.node_key,
        })
    });
    waiting.take(PROBED_AT_ONCE).collect()
}

/// Finds out about one VM and says it. Nothing is said of a dispute that ends meanwhile.
async fn settle(node: &NodeHandle, own: &Key, dispute: &Drawn) {
    let Some((reached, detail)) = find_out(node, own, dispute).await else {
        return;
    };
    tracing::info!(vm = dispute.vm.0, reached, detail, "probed a disputed VM");
    let said = Action::VmProbe(VmProbe {
        vm: dispute.vm,
        lease_epoch: dispute.lease_epoch,
        reached,
        detail: clean(&detail, DETAIL_BYTES_MAX),
    });
    match statement::state(node, said).await {
        Ok(code) => tracing::debug!(vm = dispute.vm.0, code, "said what a probe found"),
        // It is probed again if the ledger still waits.
        Err(error) => {
            tracing::warn!(vm = dispute.vm.0, %error, "what a probe found is not on the ledger")
        }
    }
}

/// Whether the VM answers, and what was seen. The machine's own word that its guest is silent is soon believed; that it is not
/// reached, or has not heard of the dispute, only after half of the time that rivals have.
async fn find_out(node: &NodeHandle, own: &Key, dispute: &Drawn) -> Option<(bool, String)> {
    let patience_ms = node.read(|ledger| ledger.parameters().dispute_ms) / 2;
    let give_up = Instant::now() + Duration::from_millis(patience_ms);
    let mut silent = 0;
    loop {
        let seen = match probe(node, &dispute.machine, dispute.vm).await {
            Ok(greeting) if greeting.starts_with("SSH-") => {
                return Some((true, format!("its ssh server greets with {greeting}")));
            }
            Ok(other) => {
                silent += 1;
                format!("no ssh server answers on port 22 but one that says: {other}")
            }
            Err(TunnelError::GuestUnreachable | TunnelError::NotRunning) => {
                silent += 1;
                "its machine answers, and no ssh server in the guest does".to_owned()
            }
            Err(TunnelError::Refused) => "its machine does not let it be probed".to_owned(),
            Err(TunnelError::MachineUnreachable) => "its machine does not answer".to_owned(),
        };
        if !node.read(|ledger| drawn(ledger, own)).contains(dispute) {
            return None;
        }
        if silent == SILENT_MAX || Instant::now() >= give_up {
            return Some((false, seen));
        }
        sleep(INTERVAL).await;
    }
}
