//! The epochs of a run: which committees a plan has in store, and where the toy application ends an epoch. A function of the
//! plan and the commits alone, so that nodes and checkers come to the same, each for itself.

use std::collections::BTreeMap;

use shadowgraph::{
    Commit, Committee, Epoch, EpochStart, Member, MemberIndex, PublicKey, SigningKey,
};

use crate::plan::Plan;
use crate::world::START_MS;

/// The key of a member, the same in every run.
pub fn member_key(member: usize) -> SigningKey {
    let seed = blake3::derive_key(
        "dagger simulator member key v1",
        &(member as u64).to_le_bytes(),
    );
    SigningKey::from_bytes(seed)
}

/// A later key of a node; generation 0 is [`member_key`].
pub fn node_key(node: usize, generation: u32) -> SigningKey {
    if generation == 0 {
        return member_key(node);
    }
    let mut name = (node as u64).to_le_bytes().to_vec();
    name.extend(generation.to_le_bytes());
    SigningKey::from_bytes(blake3::derive_key("dagger simulator later key v1", &name))
}

/// All committees of a run and the lengths of their epochs.
#[derive(Clone, Debug)]
pub struct Epochs {
    committees: Vec<Committee>,
    /// How many commits each epoch but the last has at least.
    commits: Vec<u64>,
    nodes: BTreeMap<PublicKey, usize>,
    /// Per node, all its keys, the latest first.
    keys: Vec<Vec<SigningKey>>,
    /// The first epoch of version 2.
    upgrade: Option<Epoch>,
}

impl Epochs {
    /// What the plan says.
    pub fn new(plan: &Plan) -> Self {
        let first = plan.weights.iter().enumerate();
        let first = first.map(|(node, weight)| (node, 0, *weight)).collect();
        let later = plan.epochs.iter().map(|epoch| epoch.seats.clone());
        let seats: Vec<Vec<(usize, u32, u64)>> = std::iter::once(first).chain(later).collect();
        let mut generations: Vec<u32> = vec![0; plan.nodes()];
        for (node, generation, _) in seats.iter().flatten() {
            generations[*node] = generations[*node].max(*generation);
        }
        let keys: Vec<Vec<SigningKey>> = (0..plan.nodes())
            .map(|node| {
                let node = plan.original(node);
                let all = 0..=generations[node];
                all.rev()
                    .map(|generation| node_key(node, generation))
                    .collect()
            })
            .collect();
        let committee = |(epoch, seats): (u64, &Vec<(usize, u32, u64)>)| {
            let seat = |(node, generation, weight): &(usize, u32, u64)| Member {
                key: node_key(*node, *generation).public(),
                weight: *weight,
            };
            Committee::new(Epoch(epoch), seats.iter().map(seat).collect())
                .expect("a plan has admissible committees")
        };
        let nodes = keys.iter().enumerate();
        let nodes = nodes.filter(|(node, _)| plan.original(*node) == *node);
        let nodes = nodes.flat_map(|(node, keys)| keys.iter().map(move |key| (key.public(), node)));
        Self {
            committees: (0..).zip(&seats).map(committee).collect(),
            commits: plan.epochs.iter().map(|epoch| epoch.commits).collect(),
            nodes: nodes.collect(),
            upgrade: plan.upgrade_epoch.map(Epoch),
            keys,
        }
    }

    /// The version of the rules in an epoch. docs/protocol.md 10.10
    pub fn version(&self, epoch: Epoch) -> u32 {
        let upgraded = self.upgrade.is_some_and(|first| epoch >= first);
        if upgraded { 2 } else { 1 }
    }

    /// The committee of an epoch, if the plan knows such a one.
    pub fn committee(&self, epoch: Epoch) -> Option<&Committee> {
        self.committees.get(usize::try_from(epoch.0).ok()?)
    }

    /// All committees in order of epoch.
    pub fn committees(&self) -> &[Committee] {
        &self.committees
    }

    /// The keys that a node ever signs with, the latest first.
    pub fn keys(&self, node: usize) -> &[SigningKey] {
        &self.keys[node]
    }

    /// The node that holds a seat of an epoch.
    pub fn node_of(&self, epoch: Epoch, seat: MemberIndex) -> Option<usize> {
        let member = self.committee(epoch)?.member(seat)?;
        self.nodes.get(&member.key).copied()
    }

    /// The seat of a node in an epoch, and the key it has there.
    pub fn seat(&self, epoch: Epoch, node: usize) -> Option<(MemberIndex, SigningKey)> {
        let committee = self.committee(epoch)?;
        let held = |key: &SigningKey| Some((committee.seat(&key.public())?, key.clone()));
        self.keys[node].iter().find_map(held)
    }

    /// The next committee, if a commit of an epoch that started from `start` ends it.
    pub fn next(&self, start: u64, commit: &Commit) -> Option<&Committee> {
        let epoch = usize::try_from(commit.epoch.0).ok()?;
        let least = self.commits.get(epoch)?;
        let ends = commit.is_checkpoint && commit.index.0 >= start + least;
        ends.then(|| &self.committees[epoch + 1])
    }

    /// Where the first epoch starts.
    pub fn genesis() -> EpochStart {
        EpochStart::genesis(START_MS)
    }
}
