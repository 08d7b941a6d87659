//! What a replay refuses: events that nobody signed, and roots other than the certified ones.

use dagger_ledger::{Digest as LedgerDigest, GenesisOperator, Key, Parameters as LedgerParameters};
use shadowgraph::{CommitIndex, Epoch, EventDraft, EventRef, MemberIndex, SigningKey};

use super::*;
use crate::{
    config::Durability,
    store::{EventLog, Options, key_of},
};

const ROUNDS: u64 = 8;

fn consensus_key() -> SigningKey {
    SigningKey::from_bytes([1; 32])
}

fn founded(dir: &std::path::Path) -> (NodeConfig, ChainId) {
    let key = |byte| Key(SigningKey::from_bytes([byte; 32]).public().0);
    let genesis = Genesis {
        network: "test".into(),
        time_ms: 1_000,
        parameters: LedgerParameters::default(),
        operators: vec![GenesisOperator {
            name: "alpha".into(),
            operator_key: key(2),
            consensus_key: key(1),
            node_key: key(3),
            weight: 1,
            address: None,
        }],
        chain_id: LedgerDigest::default(),
    }
    .to_json();
    std::fs::write(dir.join("genesis.json"), &genesis).unwrap();
    std::fs::write(dir.join("node.toml"), "").unwrap();
    let chain_id = ChainId(dagger_ledger::chain_id(genesis.as_bytes()).0);
    (NodeConfig::load(dir).unwrap(), chain_id)
}

/// A log of a lone member's events, the one of round `forged` signed by somebody else.
fn write_log(config: &NodeConfig, chain_id: ChainId, forged: Option<u64>) {
    let options = Options {
        segment_bytes: 1 << 20,
        durability: Durability::Os,
        discard: false,
    };
    let dir = config.data_dir.join("events/0000000000");
    let (mut log, _) = EventLog::open(&dir, chain_id.0, options).unwrap();
    let mut parent = EventRef::genesis(&chain_id, Epoch(0), MemberIndex(0));
    for round in 1..=ROUNDS {
        let draft = EventDraft {
            chain_id,
            epoch: Epoch(0),
            round: Round(round),
            creator: MemberIndex(0),
            timestamp_ms: 1_000 + round,
            parents: vec![parent],
            checkpoint_votes: Vec::new(),
            transactions: vec![Bytes::from_static(b"not even JSON")],
        };
        let signer = match forged {
            Some(forged) if forged == round => SigningKey::from_bytes([9; 32]),
            _ => consensus_key(),
        };
        let event = draft.seal(&signer);
        parent = *event.reference();
        log.append(key_of(&parent), event.bytes());
    }
    log.commit().unwrap();
}

#[test]
fn events_that_nobody_signed_are_refused_by_their_round() {
    let dir = tempfile::tempdir().unwrap();
    let (config, chain_id) = founded(dir.path());
    write_log(&config, chain_id, None);
    let replayed = replay(&config, |_| {}).unwrap();
    assert_eq!(replayed.events, ROUNDS);
    assert!(replayed.commit > 0 && replayed.transactions > 0);

    std::fs::remove_dir_all(config.data_dir.join("events")).unwrap();
    write_log(&config, chain_id, Some(5));
    let refused = replay(&config, |_| {}).unwrap_err();
    assert_eq!(refused.code(), "E_BAD_EVENT");
    assert!(refused.to_string().contains("round 5"), "{refused}");
}

#[test]
fn other_roots_than_the_certified_ones_are_a_divergence() {
    let dir = tempfile::tempdir().unwrap();
    let (config, _) = founded(dir.path());
    let (genesis, committee) = identity::read_genesis(&config).unwrap();
    let mut ignored = |_: &Replayed| {};
    let mut replay = Replay::new(&genesis, committee, Audit(&mut ignored));
    let ours = Checkpoint {
        epoch: Epoch(0),
        commit: CommitIndex(7),
        commit_digest: Digest([1; 32]),
        outcomes_root: Digest([2; 32]),
        state_root: Digest([3; 32]),
        time_ms: 5,
        next_committee: None,
    };
    let certified = |checkpoint| CheckpointCertificate {
        checkpoint,
        signatures: Vec::new(),
    };
    replay.own.insert(7, ours);
    replay.certified(&certified(ours)).unwrap();
    assert_eq!((replay.done.compared, replay.done.certified), (1, 7));
    replay.own.insert(7, ours);
    let theirs = Checkpoint {
        state_root: Digest([4; 32]),
        ..ours
    };
    let refused = replay.certified(&certified(theirs)).unwrap_err();
    assert_eq!(refused.code(), "E_DIVERGED");
}
