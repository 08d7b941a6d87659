//! The host's side: instance directories, and the conversation with the shims.

use std::path::PathBuf;

use tokio::net::TcpStream;

use crate::error::VmmError;
use crate::spec::{InstanceId, InstanceSpec};
use crate::status::{InstanceStatus, StopMode};
use crate::vmm::Vmm;

/// The instances of one data directory. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    dir: PathBuf,
    exe: PathBuf,
}

impl Host {
    /// Opens (and makes, mode 0700) the directory of instances. `exe` is run as `exe vm-shim --dir D` per instance.
    ///
    /// # Errors
    /// [`VmmError::Io`].
    pub fn open(dir: PathBuf, exe: PathBuf) -> Result<Self, VmmError> {
        Ok(Self { dir, exe })
    }

    /// Prepares and starts an instance. See [`crate::Vmm::start`].
    ///
    /// # Errors
    /// Those of the specification, the image, the disk, and of a shim that does not start.
    pub async fn start(&self, spec: &InstanceSpec, lease_deadline_boottime_ms: Option<u64>) -> Result<(), VmmError> {
        let _ = (spec, lease_deadline_boottime_ms, &self.exe);
        unimplemented!()
    }

    /// All instances, sorted by id.
    pub async fn list(&self) -> Vec<InstanceStatus> {
        unimplemented!()
    }

    /// One instance; none if it is not here.
    pub async fn status(&self, id: InstanceId) -> Option<InstanceStatus> {
        let _ = id;
        unimplemented!()
    }

    /// Moves the watchdog's deadline on; never back.
    ///
    /// # Errors
    /// [`VmmError::NotFound`], [`VmmError::NotRunning`], [`VmmError::ShimSilent`].
    pub async fn renew(&self, id: InstanceId, deadline_boottime_ms: u64) -> Result<(), VmmError> {
        let _ = (id, deadline_boottime_ms);
        unimplemented!()
    }

    /// Stops an instance: returns when a graceful stop is under way, or when a hard one is done.
    ///
    /// # Errors
    /// [`VmmError::NotFound`], [`VmmError::ShimSilent`].
    pub async fn stop(&self, id: InstanceId, mode: StopMode) -> Result<(), VmmError> {
        let _ = (id, mode);
        unimplemented!()
    }

    /// Stops hard if need be, and releases the storage. Removing what is not there succeeds.
    ///
    /// # Errors
    /// [`VmmError::ShimSilent`], [`VmmError::Io`].
    pub async fn remove(&self, id: InstanceId) -> Result<(), VmmError> {
        let _ = id;
        unimplemented!()
    }

    /// Connects to a TCP port of the guest. The connection stands before the guest has accepted it: read before you believe.
    ///
    /// # Errors
    /// [`VmmError::NotFound`], [`VmmError::NotRunning`], [`VmmError::Dial`].
    pub async fn dial(&self, id: InstanceId, guest_port: u16) -> Result<TcpStream, VmmError> {
        let _ = (id, guest_port);
        unimplemented!()
    }

    /// Whether the guest's ssh server answers (its banner was read within half a second).
    pub async fn ssh_answers(&self, id: InstanceId) -> bool {
        let _ = id;
        unimplemented!()
    }

    /// The newest part of the guest's serial output (bounded; an older part may stand beside it with the suffix `.1`).
    pub fn console_path(&self, id: InstanceId) -> PathBuf {
        self.dir.join(id.to_string()).join("console.log")
    }

    /// CLOCK_BOOTTIME in ms, the clock of lease deadlines.
    pub fn boottime_ms() -> u64 {
        crate::clock::boottime_ms()
    }
}

impl Vmm for Host {
    async fn start(&self, spec: &InstanceSpec, lease_deadline_boottime_ms: Option<u64>) -> Result<(), VmmError> {
        Host::start(self, spec, lease_deadline_boottime_ms).await
    }

    async fn list(&self) -> Vec<InstanceStatus> {
        Host::list(self).await
    }

    async fn status(&self, id: InstanceId) -> Option<InstanceStatus> {
        Host::status(self, id).await
    }

    async fn renew(&self, id: InstanceId, deadline_boottime_ms: u64) -> Result<(), VmmError> {
        Host::renew(self, id, deadline_boottime_ms).await
    }

    async fn stop(&self, id: InstanceId, mode: StopMode) -> Result<(), VmmError> {
        Host::stop(self, id, mode).await
    }

    async fn remove(&self, id: InstanceId) -> Result<(), VmmError> {
        Host::remove(self, id).await
    }
}
