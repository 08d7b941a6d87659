//! The guests of this node's machine, as ledger and hypervisor driver know them.

use std::{io::SeekFrom, path::PathBuf, time::Duration};

use dagger_ledger::{Key, Phase, VmId};
use dagger_vmm::{Host, InstanceId, VmmError, boottime_ms};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _, DuplexStream},
};

use super::{
    Duplex,
    frame::Want,
    gate::{Guests, Hosted},
};
use crate::handle::NodeHandle;

/// Bytes of log on their way.
const LOG_BUFFER_BYTES: usize = 64 * 1024;
/// Between two looks for new output.
const LOG_INTERVAL: Duration = Duration::from_millis(200);

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
        let own = Key(self.node.node_key().verification_key().to_bytes());
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
            Want::Logs { follow } => Box::new(log(self.host.console_path(id), follow)),
        })
    }
}

/// The kept output of a guest, the older part first.
fn log(newest: PathBuf, follow: bool) -> DuplexStream {
    let (reader, mut writer) = tokio::io::duplex(LOG_BUFFER_BYTES);
    tokio::spawn(async move {
        let mut older = newest.clone().into_os_string();
        older.push(".1");
        if let Ok(mut file) = File::open(PathBuf::from(older)).await {
            let _ = tokio::io::copy(&mut file, &mut writer).await;
        }
        let _ = copy_growing(newest, follow, &mut writer).await;
        let _ = writer.shutdown().await;
    });
    reader
}

/// Copies a file and, if asked, what is appended to it, also after it was rotated away.
async fn copy_growing(
    path: PathBuf,
    follow: bool,
    writer: &mut DuplexStream,
) -> std::io::Result<()> {
    let mut buffer = vec![0; LOG_BUFFER_BYTES / 4];
    let mut file = File::open(&path).await?;
    let mut at = 0;
    loop {
        let read = file.read(&mut buffer).await?;
        if read > 0 {
            writer.write_all(&buffer[..read]).await?;
            at += read as u64;
            continue;
        }
        if !follow {
            return Ok(());
        }
        tokio::time::sleep(LOG_INTERVAL).await;
        // Rotated: what was written to the old file up to then is read before the new one is taken up.
        if tokio::fs::metadata(&path)
            .await
            .is_ok_and(|now| now.len() < at)
        {
            while let read @ 1.. = file.read(&mut buffer).await? {
                writer.write_all(&buffer[..read]).await?;
            }
            (file, at) = (File::open(&path).await?, 0);
        } else {
            file.seek(SeekFrom::Start(at)).await?;
        }
    }
}
