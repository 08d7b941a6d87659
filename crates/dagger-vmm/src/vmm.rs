//! The interface of the hypervisor driver, for those who want to run without a hypervisor.

use std::future::Future;

use crate::error::VmmError;
use crate::spec::{InstanceId, InstanceSpec};
use crate::status::{InstanceStatus, StopMode};

/// What a host can do with instances. [`crate::Host`] does it with QEMU, [`crate::FakeVmm`] in memory.
///
/// Every operation is idempotent: doing it twice is as good as once.
pub trait Vmm: Send + Sync + 'static {
    /// Prepares and starts an instance, or starts a stopped one again with its disk.
    fn start(
        &self,
        spec: &InstanceSpec,
        lease_deadline_boottime_ms: Option<u64>,
    ) -> impl Future<Output = Result<(), VmmError>> + Send;
    /// All instances, sorted by id.
    fn list(&self) -> impl Future<Output = Vec<InstanceStatus>> + Send;
    /// One instance; none if it is not here.
    fn status(&self, id: InstanceId) -> impl Future<Output = Option<InstanceStatus>> + Send;
    /// Moves the watchdog's deadline on; never back.
    fn renew(
        &self,
        id: InstanceId,
        deadline_boottime_ms: u64,
    ) -> impl Future<Output = Result<(), VmmError>> + Send;
    /// Stops an instance: returns when a graceful stop is under way, or when a hard one is done.
    fn stop(
        &self,
        id: InstanceId,
        mode: StopMode,
    ) -> impl Future<Output = Result<(), VmmError>> + Send;
    /// Stops hard if need be, and releases the storage.
    fn remove(&self, id: InstanceId) -> impl Future<Output = Result<(), VmmError>> + Send;
}
