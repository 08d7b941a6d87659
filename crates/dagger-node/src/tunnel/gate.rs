//! Who may: the decision of the hosting machine, from the ledger's facts and the token alone. A probe needs no token: the ledger says
//! who was drawn for it.

use std::{future::Future, sync::LazyLock};

use dagger_client::{
    keys::SecretKey,
    token::{self, VmScope},
};
use dagger_vmm::{InstanceId, VmmError};

use super::{
    Duplex,
    frame::{Answer, Request, Want},
};

/// A VM that the ledger places on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosted {
    /// Public key of the account that owns it.
    pub account_key: [u8; 32],
    /// The instance that may run for it: its lease epoch fences all others.
    pub instance: InstanceId,
    /// The ledger has it as running.
    pub running: bool,
}

/// What the hosting side needs of its node and of the hypervisor driver.
pub trait Guests: Clone + Send + Sync + 'static {
    /// The VM, if the ledger places it on this machine and the machine's lease is proven (so that the
    /// ledger is fresh).
    fn hosted(&self, vm: u64) -> Option<Hosted>;

    /// The instance that the node of this key is to probe: its operator was drawn for an open dispute about it, and has not said yet
    /// what it found. As for `hosted`, the ledger must be fresh.
    fn probed(&self, vm: u64, asker: &[u8; 32]) -> Option<InstanceId>;

    /// Chain id of the network.
    fn chain(&self) -> [u8; 32];

    /// Unix ms.
    fn now_ms(&self) -> u64;

    /// Connects to what is wanted of a guest here.
    fn connect(
        &self,
        id: InstanceId,
        want: Want,
    ) -> impl Future<Output = Result<Box<dyn Duplex>, VmmError>> + Send;
}

/// Stands in for the account's key where there is no VM to ask about: that question must cost as much
/// as any other, or the time of the answer would tell. A token that this key signed opens nothing.
static NOBODY: LazyLock<[u8; 32]> = LazyLock::new(|| SecretKey::from_bytes([0; 32]).public());

/// Decides about a request of the node `asker`. `Err` is the word for the asker.
pub(super) fn admit(
    guests: &impl Guests,
    request: &Request,
    asker: &[u8; 32],
) -> Result<InstanceId, Answer> {
    let Some(right) = request.want.right() else {
        let probed = guests.probed(request.vm, asker);
        return probed.ok_or(Answer::Refused);
    };
    let hosted = guests.hosted(request.vm);
    let key = hosted.as_ref().map_or(*NOBODY, |hosted| hosted.account_key);
    let scope = VmScope {
        chain: guests.chain(),
        vm: request.vm,
    };
    let want = request.want;
    let verdict = token::verify(
        &key,
        &request.token,
        scope,
        right,
        want.port(),
        guests.now_ms(),
    );
    match (hosted, verdict) {
        (Some(hosted), Ok(())) if hosted.running || !want.needs_running() => Ok(hosted.instance),
        (Some(_), Ok(())) => Err(Answer::NotRunning),
        (hosted, verdict) => {
            tracing::debug!(
                vm = request.vm,
                here = hosted.is_some(),
                ?verdict,
                "a way into a VM was refused"
            );
            Err(Answer::Refused)
        }
    }
}
