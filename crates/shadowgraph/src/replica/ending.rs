//! The end of the epoch as its replica sees it: the last commit that counts, the certificate for it, and what is left to
//! do until both are here. docs/protocol.md 10. What follows the epoch is not decided here.

use bytes::Bytes;

use super::{EpochReplica, HaltReason, Output};
use crate::checkpoint::{Checkpoint, CheckpointCertificate};
use crate::commit::Commit;
use crate::committee::Committee;
use crate::epoch::EpochEnd;
use crate::ids::CommitIndex;
use crate::message::Peer;

/// Retry times without a new event of the ended epoch, after which a snapshot is the way out.
const STALLED_RETRIES: u64 = 50;

#[derive(Debug, Default)]
pub(super) struct Ending {
    /// The last commit that counts, once it is known.
    commit: Option<CommitIndex>,
    /// What our own execution of it says.
    executed: Option<(Checkpoint, Committee)>,
    /// What a quorum says.
    certificate: Option<CheckpointCertificate>,
    /// When an event last entered the graph, or a snapshot was last asked for.
    progress_ms: u64,
}

impl Ending {
    /// Whether the epoch's last commit is known here, by execution or by certificate.
    pub(super) fn is_known(&self) -> bool {
        self.commit.is_some()
    }

    /// Whether a quorum has certified the end: nobody needs events of ours any more. docs/protocol.md 10.3
    pub(super) fn is_certified(&self) -> bool {
        self.certificate.is_some()
    }

    pub(super) fn commit(&self) -> Option<CommitIndex> {
        self.commit
    }

    /// Whether a commit comes after the last. docs/protocol.md 10.1
    pub(super) fn voids(&self, commit: CommitIndex) -> bool {
        self.commit.is_some_and(|last| commit > last)
    }

    pub(super) fn progressed(&mut self, now_ms: u64) {
        self.progress_ms = now_ms;
    }
}

impl EpochReplica {
    /// Our application ended the epoch with this checkpoint. docs/protocol.md 10.1
    ///
    /// # Panics
    /// If `next` is not of the following epoch.
    pub(super) fn end_executed(&mut self, checkpoint: Checkpoint, next: Committee) {
        assert_eq!(
            next.epoch(),
            checkpoint.epoch.next(),
            "the committee that follows an epoch is of the next"
        );
        let last = checkpoint.commit;
        if let Some(certificate) = self.ending.certificate.clone()
            && certificate.checkpoint.commit != last
        {
            self.diverged(certificate, &checkpoint);
            return;
        }
        self.ending.executed = Some((checkpoint, next));
        self.end_at(last);
    }

    /// A quorum ended the epoch with this checkpoint: it counts whether or not we have got there. docs/protocol.md 10.5
    pub(super) fn end_certified(&mut self, certificate: CheckpointCertificate) {
        let last = certificate.checkpoint.commit;
        if let Some((own, _)) = self.ending.executed
            && own != certificate.checkpoint
        {
            self.diverged(certificate, &own);
            return;
        }
        self.ending.certificate = Some(certificate);
        self.end_at(last);
    }

    fn diverged(&mut self, certificate: CheckpointCertificate, own: &Checkpoint) {
        self.halt(HaltReason::Diverged {
            commit: certificate.checkpoint.commit,
            certificate: Box::new(certificate),
            state_root: own.state_root,
            outcomes_root: own.outcomes_root,
        });
    }

    fn end_at(&mut self, last: CommitIndex) {
        self.ending.commit = Some(last);
        let counts = |output: &Output| match output {
            Output::Commit(commit) => commit.index <= last,
            _ => true,
        };
        self.outputs.retain(counts);
        self.checkpoints.end_at(last);
    }

    /// The end, once it is executed here and certified. docs/protocol.md 10.4
    pub(crate) fn ended(&self) -> Option<EpochEnd> {
        if self.halted {
            return None;
        }
        let (_, next) = self.ending.executed.as_ref()?;
        Some(EpochEnd {
            certificate: self.ending.certificate.clone()?,
            next: next.clone(),
        })
    }

    /// Whether a certificate is still needed to know that the epoch ended.
    pub(crate) fn lacks_end(&self) -> bool {
        !self.ending.is_certified()
    }

    /// A peer has shown, verifiably, how the epoch ended.
    pub(crate) fn learn_end(&mut self, now_ms: u64, certificate: CheckpointCertificate) {
        self.checkpoints.seal(certificate.checkpoint.commit);
        self.ending.progressed(now_ms);
        self.certify(certificate);
    }

    /// A peer is past the end, so it once held everything up to it. docs/protocol.md 10.6
    pub(crate) fn peer_is_past_end(&mut self, now_ms: u64, peer: Peer) {
        if let Some(seat) = self.stands_for(peer)
            && !self.has_reached_end()
        {
            self.fetch.is_past_end(now_ms, seat);
            self.fetch_next(now_ms);
        }
    }

    fn has_reached_end(&self) -> bool {
        self.ending
            .commit
            .is_none_or(|last| self.linearizer.index >= last)
    }

    /// When a snapshot is to be asked for, if nothing comes in before.
    pub(super) fn snapshot_due_ms(&self) -> Option<u64> {
        let waits = self.ending.is_certified() && !self.has_reached_end();
        let patience_ms = STALLED_RETRIES * self.parameters().pull_retry_ms.max(1);
        waits.then(|| self.ending.progress_ms + patience_ms)
    }

    /// docs/protocol.md 10.6
    pub(super) fn ask_for_snapshot(&mut self, now_ms: u64) {
        let Some(end) = self.ending.commit else {
            return;
        };
        if self
            .snapshot_due_ms()
            .is_some_and(|due_ms| due_ms <= now_ms)
        {
            self.ending.progressed(now_ms);
            let epoch = self.committee().epoch();
            self.output(Output::NeedsSnapshot { epoch, end });
        }
    }

    /// Whether an own event that this very process made is among what the commits up to the end output. It was made
    /// before the certificate could be, so no earlier process with the key can have signed in the next epoch. docs/protocol.md 10.8
    pub(crate) fn signed_before_end(&self) -> bool {
        let first = self.proposer.first_live_commit();
        let last = self.ending.commit;
        first.is_some_and(|first| last.is_some_and(|last| first <= last))
    }

    /// Takes out all transactions that pend: those of own events that no counting commit has output, oldest first, then
    /// those that wait. docs/protocol.md 10.2
    pub(crate) fn take_pending(&mut self) -> Vec<Bytes> {
        let mut events = self.proposer.take_uncommitted(self.ending.commit);
        events.sort_by_key(|event| event.round());
        let mut pending: Vec<Bytes> = Vec::new();
        for event in &events {
            pending.extend(event.transactions());
        }
        pending.extend(self.pool.take_all());
        pending
    }

    /// Notes own events of a commit; those that an earlier checkpoint may still make void are kept. docs/protocol.md 10.2
    pub(super) fn settle_own(&mut self, commit: &Commit) {
        let voidable =
            self.checkpoints.may_end_before(commit.index) || self.ending.voids(commit.index);
        self.proposer.committed(commit, voidable);
    }
}
