//! Takes many transactions at once: judged as one is, with their signatures checked in batches.

use bytes::Bytes;
use dagger_client::api::AcceptedStage;
use dagger_ledger::{CheckedTransaction, digest_of_body};

use crate::{
    handle::{NodeHandle, Shared},
    replica::{Batch, ReplicaInput},
};

/// Signatures checked together: more cost no less for each.
const SIGNATURES_AT_ONCE: usize = 128;

impl NodeHandle {
    /// [`Self::submit`] for many, in their order, in their wire form. The answer says how many were refused, for whatever reason: those of
    /// a bad form or signature at once, those for which the pool has no room later. One that this node has taken before is not proposed
    /// again. Waits while the replica's queue is full, so not for tasks.
    pub fn submit_many(&self, wires: Vec<Bytes>) -> Batch {
        let batch = Batch::default();
        for some in wires.chunks(SIGNATURES_AT_ONCE) {
            let transactions = self.shared.judge(some, &batch);
            if self.shared.seat().is_some() {
                self.shared
                    .replica
                    .blocking_input(ReplicaInput::SubmitMany {
                        transactions,
                        batch: batch.clone(),
                    });
                continue;
            }
            for wire in transactions {
                if self.shared.links.forward(&wire).is_err() {
                    batch.refuse();
                    self.shared.forget_refused(&[wire]);
                }
            }
        }
        batch
    }
}

impl Shared {
    /// Those of the transactions that are good, admissible and new to this node; they are known as accepted from here on.
    fn judge(&self, wires: &[Bytes], batch: &Batch) -> Vec<Bytes> {
        let checked = CheckedTransaction::check_batch(&self.genesis.chain_id, wires);
        let ledger = self.ledger.read().expect("no holder panics");
        let admitted: Vec<bool> = checked
            .iter()
            .map(|one| one.code().is_ok() && ledger.check_admission(one).is_ok())
            .collect();
        drop(ledger);
        let stage = AcceptedStage {
            node: self.name.clone(),
            at_ms: self.clock.now_ms(),
        };
        let mut transactions = self.transactions.lock().expect("no holder panics");
        let mut taken = Vec::with_capacity(wires.len());
        for ((one, admitted), wire) in checked.iter().zip(admitted).zip(wires) {
            if !admitted {
                batch.refuse();
            } else if !transactions.is_known(&one.digest()) {
                transactions.accepted(one.digest(), stage.clone());
                taken.push(wire.clone());
            }
        }
        taken
    }

    /// Transactions that were accepted and led to nothing may be handed in again.
    pub(crate) fn forget_refused(&self, wires: &[Bytes]) {
        let mut transactions = self.transactions.lock().expect("no holder panics");
        for wire in wires {
            transactions.refused(&digest_of_body(wire.get(64..).unwrap_or_default()));
        }
    }
}
