//! The guests of this node's machine, as ledger and hypervisor driver know them.

use super::{
    Duplex,
    frame::Want,
    gate::{Guests, Hosted},
    log::log,
};
use crate::handle::NodeHandle;
use dagger_ledger::{DisputeStatus, Key, OperatorId, Phase, VmId};
use dagger_vmm::{Host, InstanceId, VmmError, boottime_ms};

/// Where a guest's ssh server listens, which says that it runs.
const SSH_PORT: u16 = 22;

/// See [`Guests`].
#[derive(Clone)]
pub struct NodeGuests {
    node: NodeHandle,
    host: Host,
}

impl NodeGuests {
    /// The guests that `host` runs for the machine of `node`.
    pub fn new(node: NodeHandle, host: Host) -> Self {
        NodeGuests { node, host }
    }
}

impl Guests for NodeGuests {
    fn hosted(&self, vm: u64) -> Option<Hosted> {
        self.node
            .lease_deadline_boottime_ms()
            .filter(|deadline| *deadline > boottime_ms())?;
        let own = Key(self.node.node_key().verification_key().into());
        self.node.read(|ledger| {
            let record = ledger.vm(VmId(vm))?;
            let machine = ledger.machine(record.machine?)?;
            (machine.node_key == own).then_some(())?;
            Some(Hosted {
                account_key: ledger.account(record.account)?.key.0,
                instance: InstanceId {
                    vm,
                    lease_epoch: record.lease_epoch,
                },
                running: record.phase == Phase::Running,
            })
        })
    }

    fn probed(&self, vm: u64, asker: &[u8; 32]) -> Option<InstanceId> {
        let hosted = self.hosted(vm).filter(|hosted| hosted.running)?;
        self.node.read(|ledger| {
            let dispute = ledger.vm(VmId(vm))?.dispute.as_deref()?;
            let open = dispute.status == DisputeStatus::Open;
            let same = dispute.lease_epoch == hosted.instance.lease_epoch;
            let drawn = |id: OperatorId| {
                let operator = ledger.operator(id);
                operator.is_some_and(|operator| operator.node_key.0 == *asker)
            };
            (open && same && dispute.waits_for().any(drawn)).then_some(hosted.instance)
        })
    }

    fn chain(&self) -> [u8; 32] {
        self.node.chain_id().0
    }

    fn now_ms(&self) -> u64 {
        self.node.now_ms()
    }

    async fn connect(&self, id: InstanceId, want: Want) -> Result<Box<dyn Duplex>, VmmError> {
        Ok(match want {
            Want::Port(port) => Box::new(self.host.dial(id, port).await?),
            Want::Probe => Box::new(self.host.dial(id, SSH_PORT).await?),
            Want::Console => Box::new(self.host.console(id).await?),
            Want::Logs { follow, tail_lines } => {
                Box::new(log(self.host.console_path(id), follow, tail_lines))
            }
        })
    }
}
