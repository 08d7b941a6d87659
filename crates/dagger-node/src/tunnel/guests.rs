//! The guests of this node's machine, as ledger and hypervisor driver know them.

use super::{
    Duplex,
    frame::Want,
    gate::{Guests, Hosted},
    log::log,
};
use crate::handle::NodeHandle;
use dagger_ledger::{Key, Phase, VmId};
use dagger_vmm::{Host, InstanceId, VmmError, boottime_ms};

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

    fn chain(&self) -> [u8; 32] {
        self.node.chain_id().0
    }

    fn now_ms(&self) -> u64 {
        self.node.now_ms()
    }

    async fn connect(&self, id: InstanceId, want: Want) -> Result<Box<dyn Duplex>, VmmError> {
        Ok(match want {
            Want::Port(port) => Box::new(self.host.dial(id, port).await?),
            Want::Console => Box::new(self.host.console(id).await?),
            Want::Logs { follow, tail_lines } => {
                Box::new(log(self.host.console_path(id), follow, tail_lines))
            }
        })
    }
}
