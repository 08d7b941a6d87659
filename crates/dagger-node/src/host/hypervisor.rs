//! What the agent asks of the hypervisor driver beyond [`Vmm`].

use std::future::Future;

use dagger_vmm::{Host, InstanceId, Vmm, VmmError};
use tokio::net::TcpStream;

/// A driver that the agent can drive.
pub trait Hypervisor: Vmm {
    /// Whether anything can be run here at all.
    ///
    /// # Errors
    /// What is missing.
    fn ready(&self) -> Result<(), VmmError>;

    /// Whether the guest's ssh server answers. May take a minute to say no, if the guest has taken a connection and says nothing.
    fn ssh_answers(&self, id: InstanceId) -> impl Future<Output = bool> + Send;

    /// Connects to a TCP port of the guest.
    ///
    /// # Errors
    /// [`VmmError::NotFound`], [`VmmError::NotRunning`], [`VmmError::Dial`].
    fn dial(
        &self,
        id: InstanceId,
        guest_port: u16,
    ) -> impl Future<Output = Result<TcpStream, VmmError>> + Send;

    /// Makes the stopped instance `old` the instance `new`, with its disk and without its seed.
    ///
    /// # Errors
    /// [`VmmError::Running`], [`VmmError::NotFound`], [`VmmError::Io`].
    fn succeed(
        &self,
        old: InstanceId,
        new: InstanceId,
    ) -> impl Future<Output = Result<(), VmmError>> + Send;
}

impl Hypervisor for Host {
    fn ready(&self) -> Result<(), VmmError> {
        self.find_qemu().map(drop)
    }

    async fn ssh_answers(&self, id: InstanceId) -> bool {
        Host::ssh_answers(self, id).await
    }

    async fn dial(&self, id: InstanceId, guest_port: u16) -> Result<TcpStream, VmmError> {
        Host::dial(self, id, guest_port).await
    }

    async fn succeed(&self, old: InstanceId, new: InstanceId) -> Result<(), VmmError> {
        Host::succeed(self, old, new).await
    }
}
