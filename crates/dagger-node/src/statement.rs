//! What a node says on the ledger under its own key: signed once, and handed in until the ledger has an answer.
//!
//! What is said, and when, is decided elsewhere.

use std::time::Duration;

use dagger_ledger::{Action, Digest, Key, Ledger, Transaction};
use rand::Rng as _;

use crate::{error::SubmitError, handle::NodeHandle};

/// What is not in order after this long has to be said anew.
const VALID_MS: u64 = 60_000;
/// One wait for the execution; then it is handed in again.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before it is handed in again where it was not taken.
const PAUSE: Duration = Duration::from_millis(200);

/// Signs an action with the node's key and sees it executed: `Ok` is the ledger's code.
///
/// # Errors
/// Why it did not get that far in a minute. Saying it again is safe.
pub(crate) async fn state(node: &NodeHandle, action: Action) -> Result<String, SubmitError> {
    let now_ms = node.now_ms().max(node.read(Ledger::time_ms));
    let horizon_ms = node.read(|ledger| ledger.parameters().horizon_ms);
    let valid_until_ms = now_ms + VALID_MS.min(horizon_ms / 2);
    let mut salt = [0; 16];
    rand::rng().fill_bytes(&mut salt);
    let transaction = Transaction {
        chain: node.chain_id(),
        signer: Key(node.node_key().verification_key().into()),
        salt: hex::encode(salt),
        valid_until_ms,
        action,
    };
    let signed = transaction.sign(node.node_key());
    let mut failure = None;
    // The very same transaction each time: executed once, however often it is handed in.
    while node.now_ms() < valid_until_ms {
        match node.submit_and_wait(signed.clone(), PATIENCE).await {
            Ok(status) => match status.outcome {
                Some(outcome) => return Ok(outcome.code),
                None => failure = None,
            },
            Err(error) if error.code.starts_with("E_") => {
                tokio::time::sleep(PAUSE).await;
                failure = Some(error);
            }
            Err(refused) => {
                return Ok(executed_before(node, &signed.digest()).unwrap_or(refused.code));
            }
        }
    }
    Err(failure.unwrap_or_else(|| {
        SubmitError::new(
            "E_TIMEOUT",
            "what this node had to say did not get into order in time",
        )
    }))
}

fn executed_before(node: &NodeHandle, digest: &Digest) -> Option<String> {
    Some(node.transaction(digest)?.outcome?.code)
}
