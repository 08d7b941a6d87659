//! What this node needs to prove, to people who trust only the genesis file, what it says: recent outcomes, certificates, and the ends of all
//! epochs.
//!
//! Bounded: the newest outcomes and certificates only. Older ones are in the index on disk (`outcomes`), which is written behind
//! execution: what it does not hold yet is held here.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use dagger_client::proof::{Encoded, Evidence, Receipt};
use dagger_ledger::{CommitLink, Digest, OutcomeProof};
use shadowgraph::{CheckpointCertificate, CommitIndex, EpochEnd};

use crate::{digest_map::DigestMap, handle::CommitRecord};

/// Transactions whose receipts can be made.
const TRANSACTIONS_KEPT: usize = 1 << 14;
/// Certificates kept. A transaction above that is older than the first of them is covered by it all the same, with more links.
const CERTIFICATES_KEPT: usize = 1 << 12;

/// A commit with transactions.
struct Executed {
    link: CommitLink,
    /// The chained outcomes root before it.
    previous: Digest,
    record: Arc<CommitRecord>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Receipts {
    commits: VecDeque<Executed>,
    /// Commit of each transaction's first execution.
    places: DigestMap<u64>,
    transactions: usize,
    certificates: BTreeMap<CommitIndex, CheckpointCertificate>,
    epochs: Vec<EpochEnd>,
}

impl Receipts {
    /// A commit with transactions was executed; `previous` is the outcomes root before it. What is later than `indexed` is on no
    /// disk yet and stays.
    pub fn executed(
        &mut self,
        link: CommitLink,
        previous: Digest,
        record: &Arc<CommitRecord>,
        indexed: u64,
    ) {
        for outcome in &record.outcomes {
            self.places.entry(outcome.digest).or_insert(link.commit);
        }
        self.transactions += record.outcomes.len();
        self.commits.push_back(Executed {
            link,
            previous,
            record: Arc::clone(record),
        });
        while self.transactions > TRANSACTIONS_KEPT
            && self.commits.len() > 1
            && self.commits[0].link.commit <= indexed
        {
            let oldest = self.commits.pop_front().expect("not empty");
            self.transactions -= oldest.record.outcomes.len();
            for outcome in &oldest.record.outcomes {
                if self.places.get(&outcome.digest) == Some(&oldest.link.commit) {
                    self.places.remove(&outcome.digest);
                }
            }
        }
    }

    /// A checkpoint was certified.
    pub fn certified(&mut self, certificate: &CheckpointCertificate) {
        let commit = certificate.checkpoint.commit;
        self.certificates.insert(commit, certificate.clone());
        while self.certificates.len() > CERTIFICATES_KEPT {
            self.certificates.pop_first();
        }
    }

    /// An epoch ended. Ends come in order, from the network's first epoch on; one that is known already changes nothing.
    pub fn epoch_ended(&mut self, end: EpochEnd) {
        if end.epoch().0 == self.epochs.len() as u64 {
            self.certified(&end.certificate);
            self.epochs.push(end);
        }
    }

    /// What leads to the checkpoint after that commit; `None` while it is not certified, or if epochs before it are not known here.
    pub fn evidence(&self, commit: CommitIndex) -> Option<Evidence> {
        self.evidence_of(self.certificates.get(&commit)?)
    }

    /// What leads from genesis to that certificate; `None` if epochs before it are not known here.
    pub fn evidence_of(&self, certificate: &CheckpointCertificate) -> Option<Evidence> {
        let before = usize::try_from(certificate.checkpoint.epoch.0).ok()?;
        let epochs = self.epochs.get(..before)?;
        Some(Evidence {
            epochs: epochs.iter().cloned().map(Encoded).collect(),
            certificate: Encoded(certificate.clone()),
        })
    }

    /// Whether the transaction's outcome is still held here.
    pub fn knows(&self, transaction: &Digest) -> bool {
        self.places.contains_key(transaction)
    }

    /// The receipt of a transaction; `None` if it is not known here, or no checkpoint after it is certified yet.
    pub fn receipt(&self, chain_id: &Digest, transaction: &Digest) -> Option<Receipt> {
        let commit = *self.places.get(transaction)?;
        let (_, certificate) = self.certificates.range(CommitIndex(commit)..).next()?;
        let at = self
            .commits
            .binary_search_by_key(&commit, |c| c.link.commit)
            .ok()?;
        let executed = &self.commits[at];
        let position = executed
            .record
            .outcomes
            .iter()
            .position(|o| o.digest == *transaction)?;
        let until = certificate.checkpoint.commit.0;
        let later = self.commits.iter().skip(at + 1).map(|c| c.link);
        let proof = OutcomeProof::new(
            executed.previous,
            (commit, executed.link.time_ms),
            &executed.record.outcomes,
            position,
            later.take_while(|link| link.commit <= until).collect(),
        )?;
        // A node that went on from a snapshot lacks the links of what it skipped.
        let root = Digest(certificate.checkpoint.outcomes_root.0);
        proof.verify(&root).ok()?;
        Some(Receipt {
            chain_id: *chain_id,
            body: None,
            proof,
            evidence: self.evidence_of(certificate)?,
        })
    }
}

#[cfg(test)]
#[path = "receipts_tests.rs"]
mod tests;
