//! What the targets share: a committee with known keys, so that inputs can carry signatures that verify.

use bytes::Bytes;
use shadowgraph::{
    ChainId, Checkpoint, CheckpointCertificate, CommitIndex, Committee, Digest, Epoch, EpochEnd,
    EventDraft, EventRef, Member, MemberIndex, Round, SigningKey, UnverifiedEvent,
};

/// The records of a node's event log: the node's own file, without the node around it.
#[path = "../../crates/dagger-node/src/store/record.rs"]
#[allow(missing_docs)]
pub mod record;

pub mod execution;

/// A small network for executions: that of the ledger's own tests.
#[path = "../../crates/dagger-ledger/tests/cloud/mod.rs"]
mod cloud;

/// The errors that the file above names.
mod error {
    #[derive(Debug)]
    #[allow(dead_code)]
    pub enum NodeError {
        StoreDamaged {
            path: std::path::PathBuf,
            offset: u64,
            detail: String,
        },
        NewerFormat {
            path: std::path::PathBuf,
            found: u32,
            known: u32,
        },
        WrongNetwork {
            dir: std::path::PathBuf,
            found: String,
            expected: String,
        },
    }
}

/// The network of all inputs.
pub const CHAIN: ChainId = ChainId([7; 32]);
/// How many members the committee has.
pub const MEMBERS: u16 = 4;

/// A member's key.
pub fn key(seat: u16) -> SigningKey {
    SigningKey::from_bytes([seat as u8 + 1; 32])
}

/// Four members of weight one.
pub fn committee() -> Committee {
    let member = |seat| Member {
        key: key(seat).public(),
        weight: 1,
    };
    let members = (0..MEMBERS).map(member).collect();
    Committee::new(Epoch(0), members).expect("an admissible committee")
}

/// A member's virtual genesis event.
pub fn genesis(seat: u16) -> EventRef {
    EventRef::genesis(&CHAIN, Epoch(0), MemberIndex(seat))
}

/// A checkpoint that anybody may sign.
pub fn checkpoint() -> Checkpoint {
    Checkpoint {
        epoch: Epoch(0),
        commit: CommitIndex(3),
        commit_digest: Digest([1; 32]),
        outcomes_root: Digest([2; 32]),
        state_root: Digest([3; 32]),
        time_ms: 5_000,
        next_committee: None,
    }
}

/// The end of the first epoch, certified: the same members go on.
pub fn epoch_end() -> EpochEnd {
    let members = committee().members().map(|(_, member)| *member).collect();
    let next = Committee::new(Epoch(1), members).expect("an admissible committee");
    let checkpoint = Checkpoint {
        next_committee: Some(next.digest()),
        ..checkpoint()
    };
    let signed = |seat| {
        let vote = checkpoint.sign(&CHAIN, &key(seat));
        (MemberIndex(seat), vote.signature)
    };
    let certificate = CheckpointCertificate {
        checkpoint,
        signatures: (0..3).map(signed).collect(),
    };
    EpochEnd { certificate, next }
}

/// A signed event of a member on these parents.
pub fn event(
    seat: u16,
    round: u64,
    parents: Vec<EventRef>,
    transactions: &[&'static [u8]],
) -> UnverifiedEvent {
    let draft = EventDraft {
        chain_id: CHAIN,
        epoch: Epoch(0),
        round: Round(round),
        creator: MemberIndex(seat),
        timestamp_ms: 1_000 + round,
        parents,
        checkpoint_votes: vec![checkpoint().sign(&CHAIN, &key(seat))],
        transactions: transactions
            .iter()
            .map(|bytes| Bytes::from_static(bytes))
            .collect(),
    };
    draft.seal(&key(seat))
}

/// The events of all members in rounds 1 to `rounds`, each on all of the round before.
pub fn rounds(rounds: u64) -> Vec<UnverifiedEvent> {
    let mut last: Vec<EventRef> = (0..MEMBERS).map(genesis).collect();
    let mut all = Vec::new();
    for round in 1..=rounds {
        let parents = |seat: u16| match round {
            1 => vec![genesis(seat)],
            _ => last.clone(),
        };
        let layer: Vec<_> = (0..MEMBERS)
            .map(|seat| event(seat, round, parents(seat), &[b"transaction"]))
            .collect();
        last = layer.iter().map(|event| *event.reference()).collect();
        all.extend(layer);
    }
    all
}

#[cfg(test)]
mod corpus_tests;

// The tests are linked like the targets, with their runtime where it is there.
#[cfg(all(test, feature = "runtime"))]
use libfuzzer_sys as _;
