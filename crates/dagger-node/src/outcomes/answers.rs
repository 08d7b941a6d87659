//! What a node answers about transactions: from memory first, then from the index on disk.

use dagger_client::{api::TransactionStatus, proof::Receipt};
use dagger_ledger::{Code, Digest, OutcomeProof};

use super::{
    index::{Found, Index, IndexError},
    writer::DAMAGED,
};
use crate::{handle::NodeHandle, transactions::outcome_stage};

/// What a node can say about a transaction's past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    /// This.
    Known(T),
    /// Nothing yet: ask again.
    Later,
    /// It is not among what this node holds, which is everything since its network began.
    Unknown,
    /// It is not among what this node holds: outcomes from that commit on, or `None` for the newest ones in memory only.
    NotKept {
        /// The commit.
        from_commit: Option<u64>,
    },
    /// What this node holds is damaged there.
    Damaged,
}

impl<T> Answer<T> {
    /// What is known.
    pub fn known(self) -> Option<T> {
        match self {
            Self::Known(known) => Some(known),
            _ => None,
        }
    }
}

/// An outcome that says nothing about the first execution.
pub(crate) fn is_repetition(status: &TransactionStatus) -> bool {
    let outcome = status.outcome.as_ref();
    outcome.is_some_and(|outcome| outcome.code == Code::Repeated.as_str())
}

impl NodeHandle {
    /// What this node knows of a transaction, however long ago it was, as far as the index of outcomes goes back. Never
    /// [`Answer::Later`].
    pub async fn past_transaction(&self, digest: &Digest) -> Answer<TransactionStatus> {
        let recent = self.transaction(digest);
        match &recent {
            Some(status) if status.outcome.is_some() && !is_repetition(status) => {
                return Answer::Known(status.clone());
            }
            _ => {}
        }
        let looked = self.clone();
        let wanted = *digest;
        let past = self.off_thread(move || looked.stored_status(&wanted)).await;
        match (past, recent) {
            (Some(Answer::Known(mut past)), recent) => {
                past.accepted = recent.and_then(|recent| recent.accepted);
                Answer::Known(past)
            }
            (_, Some(recent)) => Answer::Known(recent),
            (Some(answer), None) => answer,
            (None, None) => self.not_here(),
        }
    }

    /// The receipt of a transaction; [`Answer::Later`] while no checkpoint that covers it is certified.
    pub async fn past_receipt(&self, digest: &Digest) -> Answer<Receipt> {
        let recent = self.transaction(digest);
        if !recent.as_ref().is_some_and(is_repetition) {
            if let Some(receipt) = self.receipt(digest) {
                return Answer::Known(receipt);
            }
            if self.may_have_receipt(digest) {
                return Answer::Later;
            }
        }
        let looked = self.clone();
        let wanted = *digest;
        let past = self
            .off_thread(move || looked.stored_receipt(&wanted))
            .await;
        past.unwrap_or_else(|| self.not_here())
    }

    fn not_here<T>(&self) -> Answer<T> {
        match self.shared.outcomes.status() {
            Some(status) if status.from_commit <= 1 => Answer::Unknown,
            status => Answer::NotKept {
                from_commit: status.map(|status| status.from_commit),
            },
        }
    }

    fn stored_status(&self, digest: &Digest) -> Option<Answer<TransactionStatus>> {
        let index = self.shared.outcomes.read()?;
        let found = match index.find(digest) {
            Ok(found) => found?,
            Err(error) => return Some(self.damaged(&error.to_string())),
        };
        let commit = found.way.commit_stage(&found.head.link);
        let outcome = outcome_stage(&found.outcomes[found.position], commit.at_ms);
        Some(Answer::Known(TransactionStatus {
            digest: digest.to_hex(),
            accepted: None,
            event: found.way.event_stage(found.position),
            commit: Some(commit),
            outcome: Some(outcome),
        }))
    }

    fn stored_receipt(&self, digest: &Digest) -> Option<Answer<Receipt>> {
        let index = self.shared.outcomes.read()?;
        let found = index.find(digest).transpose()?;
        let receipt = found.and_then(|found| self.receipt_of(&index, found));
        receipt.unwrap_or_else(|error| Some(self.damaged(&error.to_string())))
    }

    /// Says so to whoever asks, and to whoever runs the node.
    fn damaged<T>(&self, why: &str) -> Answer<T> {
        let text = self.shared.outcomes.damaged(why);
        tracing::error!(code = DAMAGED, %text, "a question met damage in the index of outcomes");
        Answer::Damaged
    }

    fn receipt_of(
        &self,
        index: &Index,
        found: Found,
    ) -> Result<Option<Answer<Receipt>>, IndexError> {
        let link = found.head.link;
        let Some(certificate) = index.certificate(link.commit)? else {
            return Ok(Some(Answer::Later));
        };
        let checkpoint = certificate.checkpoint;
        let proof = OutcomeProof::new(
            found.head.previous,
            (link.commit, link.time_ms),
            &found.outcomes,
            found.position,
            index.links(link.commit, checkpoint.commit.0)?,
        );
        // A node that went on from a snapshot lacks the links of what it skipped.
        let root = Digest(checkpoint.outcomes_root.0);
        let Some(proof) = proof.filter(|proof| proof.verify(&root).is_ok()) else {
            return Ok(None);
        };
        let receipts = self.shared.receipts.lock().expect("no holder panics");
        let evidence = receipts.evidence_of(&certificate);
        drop(receipts);
        Ok(evidence.map(|evidence| {
            Answer::Known(Receipt {
                chain_id: self.shared.genesis.chain_id,
                body: None,
                proof,
                evidence,
            })
        }))
    }

    /// The index blocks; a panic in it is damage.
    async fn off_thread<T: Send + 'static>(
        &self,
        body: impl FnOnce() -> Option<Answer<T>> + Send + 'static,
    ) -> Option<Answer<T>> {
        let looked = tokio::task::spawn_blocking(body).await;
        looked.unwrap_or_else(|panic| Some(self.damaged(&panic.to_string())))
    }
}
