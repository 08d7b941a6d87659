//! Watches commits and certificates as nodes report them: agreement, no double commit, causal order, validity, durable
//! acknowledgement, certificates.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use shadowgraph::{
    ChainId, Checkpoint, CheckpointCertificate, Commit, Committee, Digest, Epoch, EpochEnd,
    EventRef, MemberIndex, PublicKey, Signature,
};

use crate::by_digest::DigestSet;
use crate::epochs::Epochs;
use crate::toy_ledger::Executed;

/// A commit as the first node reported it.
#[derive(Clone, Debug)]
pub struct Reported {
    /// The commit.
    pub commit: Commit,
    /// Who reported it first.
    pub node: usize,
    /// When, in microseconds of virtual time.
    pub at_us: u64,
}

/// The one sequence of commits, and what each node has of it.
pub struct LedgerChecker {
    chain_id: ChainId,
    epochs: Arc<Epochs>,
    gc_depth: u64,
    /// The sequence so far, in order; index 1 comes first.
    pub sequence: Vec<Reported>,
    /// Commits that each node reported since its last start.
    pub position: Vec<u64>,
    /// The most commits that each node ever reported as durable.
    acknowledged: Vec<u64>,
    output: BTreeMap<EventRef, u64>,
    slots: BTreeSet<(u64, u64, u16)>,
    /// The last commit of each ended epoch, by the plan and the commits alone.
    pub ends: Vec<u64>,
    roots: BTreeMap<u64, Executed>,
    /// Signatures of certificates that verified. Every node shows its own certificate, of much the same signatures.
    signed: HashSet<([u8; 32], MemberIndex, Signature)>,
    /// Checkpoints of which a certificate was seen.
    checkpoints: DigestSet<[u8; 32]>,
    /// The highest certified commit.
    pub certified: u64,
}

/// The finding of a checker.
pub type Finding = Result<(), (&'static str, String)>;

macro_rules! ensure {
    ($check:literal, $condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(($check, format!($($text)*)));
        }
    };
}
pub(crate) use ensure;

impl LedgerChecker {
    /// Watches `nodes` nodes.
    pub fn new(chain_id: ChainId, epochs: Arc<Epochs>, gc_depth: u64, nodes: usize) -> Self {
        Self {
            chain_id,
            epochs,
            gc_depth,
            sequence: Vec::new(),
            position: vec![0; nodes],
            acknowledged: vec![0; nodes],
            output: BTreeMap::new(),
            slots: BTreeSet::new(),
            ends: Vec::new(),
            roots: BTreeMap::new(),
            signed: HashSet::new(),
            checkpoints: DigestSet::default(),
            certified: 0,
        }
    }

    /// A node starts over: it has to report everything again after the commit it starts from.
    pub fn node_started(&mut self, node: usize, from: u64) {
        self.position[node] = from;
    }

    /// An epoch ended for a node: there where the plan says, and proven by a quorum of the right committee.
    pub fn epoch_ended(&mut self, node: usize, end: &EpochEnd) -> Finding {
        let epoch = end.epoch();
        let last = end.certificate.checkpoint.commit.0;
        ensure!(
            "epoch end",
            self.ends.get(epoch.0 as usize) == Some(&last),
            "n{node}: {epoch:?} ended with commit {last}, not where the plan says: {:?}",
            self.ends
        );
        let proven = end.verify(&self.chain_id, self.committee(epoch)?);
        ensure!(
            "epoch end",
            proven.is_ok() && Some(&end.next) == self.epochs.committee(epoch.next()),
            "n{node}: the end of {epoch:?} does not prove the next committee: {proven:?}"
        );
        ensure!(
            "epoch end",
            self.position[node] == last,
            "n{node} leaves {epoch:?} at commit {} instead of {last}",
            self.position[node]
        );
        Ok(())
    }

    /// The epoch in which the run is, as far as commits tell.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.ends.len() as u64)
    }

    fn committee(&self, epoch: Epoch) -> Result<&Committee, (&'static str, String)> {
        let committee = self.epochs.committee(epoch);
        committee.ok_or(("epoch", format!("no plan has {epoch:?}")))
    }

    /// After a restart, everything that was durable before has been reported again.
    pub fn node_recovered(&self, node: usize) -> Finding {
        let (now, before) = (self.position[node], self.acknowledged[node]);
        ensure!(
            "acknowledged",
            now >= before,
            "n{node} acknowledged {before} commits and recovers {now}"
        );
        Ok(())
    }

    /// A node reports a commit as durable. True if nobody reported it before.
    pub fn committed(
        &mut self,
        node: usize,
        commit: &Commit,
        at_us: u64,
    ) -> Result<bool, (&'static str, String)> {
        let index = commit.index.0;
        let expected = self.position[node] + 1;
        ensure!(
            "commit index",
            index == expected,
            "n{node} reports commit {index} instead of {expected}"
        );
        self.position[node] = index;
        self.acknowledged[node] = self.acknowledged[node].max(index);
        if let Some(first) = self.sequence.get(index as usize - 1) {
            same_commit(first, node, commit)?;
            return Ok(false);
        }
        // docs/protocol.md 10.1: what an ended epoch still commits is void and told to nobody.
        ensure!(
            "void commit",
            commit.epoch == self.epoch(),
            "n{node} reports commit {index} of {:?}, the order is in {:?}",
            commit.epoch,
            self.epoch()
        );
        self.check_new(commit)?;
        let start = self.ends.last().copied().unwrap_or(0);
        if self.epochs.next(start, commit).is_some() {
            self.ends.push(index);
        }
        self.sequence.push(Reported {
            commit: commit.clone(),
            node,
            at_us,
        });
        Ok(true)
    }

    fn check_new(&mut self, commit: &Commit) -> Finding {
        let index = commit.index.0;
        let last = self.sequence.last().map(|reported| &reported.commit);
        let previous = last.map_or(Digest([0; 32]), |last| last.digest);
        ensure!(
            "chain",
            commit.previous == previous,
            "commit {index} does not chain to the one before"
        );
        ensure!(
            "chain",
            commit.digest == commit_digest(commit),
            "the digest of commit {index} is not that of its content"
        );
        let last_ms = last.map_or(0, |last| last.time_ms);
        ensure!(
            "commit time",
            commit.time_ms >= last_ms,
            "the time of commit {index} goes back"
        );
        let slot = |commit: &Commit| (commit.epoch, commit.leader.round, commit.rank);
        ensure!(
            "slot order",
            last.is_none_or(|last| slot(last) < slot(commit)),
            "commit {index} is not after its predecessor"
        );
        let leader_last = commit
            .events
            .last()
            .is_some_and(|event| *event.reference() == commit.leader);
        ensure!(
            "leader last",
            leader_last,
            "commit {index} does not end with its leader"
        );
        let last = last.filter(|last| last.epoch == commit.epoch);
        let floor = last.map_or(0, |last| last.leader.round.0.saturating_sub(self.gc_depth));
        self.check_events(commit, floor)
    }

    fn check_events(&mut self, commit: &Commit, floor: u64) -> Finding {
        let index = commit.index.0;
        let inside: HashSet<&EventRef> = commit
            .events
            .iter()
            .map(|event| event.reference())
            .collect();
        let mut earlier = HashSet::new();
        for event in &commit.events {
            let reference = *event.reference();
            ensure!(
                "floor",
                reference.round.0 > floor,
                "commit {index} holds {reference:?}, at or below floor {floor}"
            );
            let epoch = commit.epoch.0;
            let slot = (epoch, reference.round.0, reference.creator.0);
            ensure!(
                "double commit",
                self.slots.insert(slot),
                "commit {index} repeats slot {slot:?}: {reference:?}"
            );
            for parent in event.parents() {
                let late = inside.contains(parent) && !earlier.contains(parent);
                ensure!(
                    "causal order",
                    !late,
                    "commit {index}: {reference:?} comes before its parent {parent:?}"
                );
                let known = earlier.contains(parent) || self.output.contains_key(parent);
                // A dropped twin leaves its slot behind.
                let twin = self
                    .slots
                    .contains(&(epoch, parent.round.0, parent.creator.0));
                ensure!(
                    "causal order",
                    known || twin || parent.round.0 <= floor,
                    "commit {index}: parent {parent:?} of {reference:?} was never output"
                );
            }
            earlier.insert(reference);
            self.output.insert(reference, index);
        }
        Ok(())
    }

    /// A node executed a checkpoint commit: all must come to the same roots.
    pub fn executed(&mut self, node: usize, executed: &Executed) -> Finding {
        let first = self.roots.entry(executed.commit.0);
        let first = first.or_insert_with(|| executed.clone());
        ensure!(
            "roots",
            first == executed,
            "n{node} comes to other roots for commit {}",
            executed.commit.0
        );
        Ok(())
    }

    /// The library's own verdict on the first certificate of a checkpoint; of the others only what their signatures add.
    fn check_signatures(
        &mut self,
        node: usize,
        certificate: &CheckpointCertificate,
        committee: &Committee,
    ) -> Finding {
        let message = signed_bytes(&self.chain_id, &certificate.checkpoint);
        let digest = *blake3::hash(&message).as_bytes();
        if self.checkpoints.insert(digest) {
            let verdict = certificate.verify(&self.chain_id, committee);
            ensure!(
                "certificate",
                verdict.is_ok(),
                "n{node}: {:?} does not verify: {verdict:?}",
                certificate.checkpoint
            );
        }
        for (seat, signature) in &certificate.signatures {
            let known = !self.signed.insert((digest, *seat, *signature));
            let key = committee.member(*seat).map(|member| member.key);
            ensure!(
                "certificate",
                known || key.is_some_and(|key| verifies(&key, &message, signature)),
                "n{node}: the signature of {seat:?} on {:?} does not verify",
                certificate.checkpoint
            );
        }
        Ok(())
    }

    /// A node holds a certificate: it verifies, its signers are a quorum counted here, and its roots are the true ones.
    pub fn certified(&mut self, node: usize, certificate: &CheckpointCertificate) -> Finding {
        let index = certificate.checkpoint.commit.0;
        let committee = self.committee(certificate.checkpoint.epoch)?.clone();
        self.check_signatures(node, certificate, &committee)?;
        let ascending = |pair: &[(MemberIndex, Signature)]| pair[0].0 < pair[1].0;
        ensure!(
            "certificate",
            certificate.signatures.windows(2).all(ascending),
            "n{node}: the signatures of certificate {index} are not in order of seat"
        );
        let signers: BTreeSet<MemberIndex> = certificate
            .signatures
            .iter()
            .map(|(member, _)| *member)
            .collect();
        let weight: u64 = signers.iter().map(|member| committee.weight(*member)).sum();
        let total: u64 = committee.members().map(|(_, member)| member.weight).sum();
        ensure!(
            "certificate",
            weight >= total - (total - 1) / 3,
            "certificate {index} has only weight {weight} of {total}"
        );
        let Some(roots) = self.roots.get(&index) else {
            return Err((
                "certificate",
                format!("n{node}: commit {index} was certified before any honest node executed it"),
            ));
        };
        let checkpoint = &certificate.checkpoint;
        let commit = &self.sequence[index as usize - 1].commit;
        let same = checkpoint.state_root == roots.state_root
            && checkpoint.outcomes_root == roots.outcomes_root
            && checkpoint.next_committee == roots.next.as_ref().map(Committee::digest)
            && checkpoint.epoch == commit.epoch
            && checkpoint.commit_digest == commit.digest
            && checkpoint.time_ms == commit.time_ms;
        ensure!(
            "certificate",
            same,
            "n{node}: certificate {index} states other roots than those executed"
        );
        self.certified = self.certified.max(index);
        Ok(())
    }

    /// Whether this event was output, and in which commit.
    pub fn commit_of(&self, reference: &EventRef) -> Option<u64> {
        self.output.get(reference).copied()
    }

    /// The first checkpoint at or after a commit.
    pub fn checkpoint_after(&self, index: u64) -> Option<u64> {
        let rest = self.sequence.iter().skip(index.saturating_sub(1) as usize);
        rest.map(|reported| &reported.commit)
            .find(|commit| commit.is_checkpoint)
            .map(|commit| commit.index.0)
    }

    /// All transactions of a commit.
    pub fn transactions(commit: &Commit) -> Vec<(EventRef, Bytes)> {
        let of_event = |event: &shadowgraph::VerifiedEvent| {
            let reference = *event.reference();
            event
                .transactions()
                .map(move |bytes| (reference, bytes))
                .collect::<Vec<_>>()
        };
        commit.events.iter().flat_map(of_event).collect()
    }
}

fn same_commit(first: &Reported, node: usize, commit: &Commit) -> Finding {
    let events = |commit: &Commit| -> Vec<EventRef> {
        commit
            .events
            .iter()
            .map(|event| *event.reference())
            .collect()
    };
    let same = first.commit.digest == commit.digest
        && first.commit.leader == commit.leader
        && first.commit.time_ms == commit.time_ms
        && first.commit.is_checkpoint == commit.is_checkpoint
        && events(&first.commit) == events(commit);
    ensure!(
        "agreement",
        same,
        "commit {}: n{} has leader {:?} ({:?}), n{node} has {:?} ({:?})",
        commit.index.0,
        first.node,
        first.commit.leader,
        first.commit.decision,
        commit.leader,
        commit.decision
    );
    Ok(())
}

/// What a checkpoint's vote signs, written out a second time. docs/protocol.md 9.2
fn signed_bytes(chain_id: &ChainId, checkpoint: &Checkpoint) -> Vec<u8> {
    let mut message = b"dagger checkpoint v1\0".to_vec();
    message.extend_from_slice(&chain_id.0);
    message.extend(borsh::to_vec(checkpoint).expect("a checkpoint encodes"));
    message
}

fn verifies(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    let signature = ed25519_zebra::Signature::from(signature.0);
    let key = ed25519_zebra::VerificationKey::try_from(key.0);
    key.is_ok_and(|key| key.verify(&signature, message).is_ok())
}

/// The chained digest, written out a second time.
pub(super) fn commit_digest(commit: &Commit) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("dagger commit v1");
    hasher.update(&commit.previous.0);
    hasher.update(&commit.index.0.to_le_bytes());
    hasher.update(&commit.epoch.0.to_le_bytes());
    hasher.update(&commit.leader.round.0.to_le_bytes());
    hasher.update(&commit.leader.creator.0.to_le_bytes());
    hasher.update(&commit.leader.digest.0);
    hasher.update(&commit.rank.to_le_bytes());
    hasher.update(&commit.time_ms.to_le_bytes());
    hasher.update(&[u8::from(commit.is_checkpoint)]);
    hasher.update(&(commit.events.len() as u64).to_le_bytes());
    commit.events.iter().for_each(|event| {
        hasher.update(&event.digest().0);
    });
    Digest(*hasher.finalize().as_bytes())
}
