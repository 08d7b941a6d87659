//! Puts the proof that a member signed two events of one round on the ledger, which takes its seat with the next epoch.
//!
//! Every member that saw both does so; the ledger counts the first proof and refuses the rest.

use std::{sync::Arc, time::Duration};

use dagger_ledger::{Action, Code, Equivocation, Transaction};
use shadowgraph::EquivocationProof;

use crate::handle::{NodeHandle, Shared};

/// How long one attempt may take before the next.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Attempts until the proof is left to others and to people.
const ATTEMPTS_MAX: u32 = 60;

/// Hands the proof in until the ledger has an answer to it.
pub(crate) async fn accuse(shared: Arc<Shared>, proof: EquivocationProof) {
    let bytes = borsh::to_vec(&proof).expect("plain data");
    let action = Action::Equivocation(Equivocation {
        proof: hex::encode(bytes),
    });
    let node = NodeHandle {
        shared: Arc::clone(&shared),
    };
    for _ in 0..ATTEMPTS_MAX {
        let horizon_ms = node.read(|l| l.parameters().horizon_ms);
        let now_ms = shared.clock.now_ms().max(node.read(|l| l.time_ms()));
        let transaction = Transaction {
            chain: shared.genesis.chain_id,
            signer: shared.own_key(),
            salt: format!("{:016x}", rand::random::<u64>()),
            valid_until_ms: now_ms + horizon_ms / 2,
            action: action.clone(),
        };
        let signed = transaction.sign(&shared.node_key);
        match node.submit_and_wait(signed, ATTEMPT).await {
            Ok(status) => {
                match status.refusal() {
                    None => tracing::warn!("the proof is on the ledger: the member loses its seat"),
                    Some(reason) if reason.code == Code::AlreadyDone.as_str() => {}
                    Some(reason) => {
                        tracing::error!(code = %reason.code, text = %reason.text, "the ledger refused the proof of an equivocation");
                    }
                }
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "the proof of an equivocation is not executed yet");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
