//! Whether this program knows the rules of an epoch (docs/protocol.md 10.10).
//!
//! What must not live here: how a version comes about (ledger), and the start and end of epochs (replica).

use shadowgraph::Epoch;

use crate::{error::NodeError, handle::Shared};

/// Asked before an epoch begins, when the ledger has executed everything before it.
///
/// # Errors
/// `E_NEWER_PROTOCOL`: this program must write and send nothing of that epoch.
pub(crate) fn check_known(shared: &Shared, epoch: Epoch) -> Result<(), NodeError> {
    let ledger = shared.ledger.read().expect("no holder panics");
    let needed = ledger.protocol_version_in(epoch.0);
    let known = shared.config.newest_protocol_version;
    if needed > known {
        return Err(NodeError::NewerProtocol {
            epoch: epoch.0,
            needed,
            known,
        });
    }
    Ok(())
}

/// What to say while the present epoch's rules are known and those of the next one, as decided so far, are not.
pub(crate) fn about_to_end(shared: &Shared) -> Option<String> {
    let ledger = shared.ledger.read().expect("no holder panics");
    let needed = ledger.protocol_version_decided();
    let known = shared.config.newest_protocol_version;
    (needed > known).then(|| {
        format!(
            "the operators have decided on protocol version {needed}, and this program knows up to {known}: the node stops when the present epoch ends; install a newer program and start the node again, best before that"
        )
    })
}
