use super::*;
use dagger_client::{api::EventName, proof::Verifier};
use dagger_ledger::{Code, Outcome};
use shadowgraph::{ChainId, Checkpoint, Epoch, MemberIndex, SigningKey};

const GENESIS_KEY: [u8; 32] = [3; 32];

fn genesis() -> (String, Digest) {
    let key = |seed: u8| hex::encode(SigningKey::from_bytes([seed; 32]).public().0);
    let text = format!(
        r#"{{"network":"test","time_ms":1,"operators":[{{"name":"a","operator_key":"{}","consensus_key":"{}","node_key":"{}","weight":1}}]}}"#,
        key(1),
        hex::encode(SigningKey::from_bytes(GENESIS_KEY).public().0),
        key(2),
    );
    let chain = dagger_ledger::chain_id(text.as_bytes());
    (text, chain)
}

fn outcome(number: u64) -> Outcome {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&number.to_le_bytes());
    Outcome {
        digest: Digest(digest),
        code: Code::Ok,
        subject: None,
        detail: String::new(),
    }
}

fn certificate(chain: &Digest, commit: u64, outcomes_root: Digest) -> CheckpointCertificate {
    let checkpoint = Checkpoint {
        epoch: Epoch(0),
        commit: CommitIndex(commit),
        commit_digest: shadowgraph::Digest([1; 32]),
        outcomes_root: shadowgraph::Digest(outcomes_root.0),
        state_root: shadowgraph::Digest([2; 32]),
        time_ms: commit,
        next_committee: None,
    };
    let vote = checkpoint.sign(&ChainId(chain.0), &SigningKey::from_bytes(GENESIS_KEY));
    CheckpointCertificate {
        checkpoint,
        signatures: vec![(MemberIndex(0), vote.signature)],
    }
}

fn record(commit: u64, outcomes: Vec<Outcome>) -> (CommitLink, Arc<CommitRecord>) {
    let link = CommitLink::of(commit, commit, &outcomes).expect("it has outcomes");
    let record = CommitRecord {
        index: commit,
        time_ms: commit,
        digest: Digest::default(),
        leader: EventName {
            round: commit,
            creator: 0,
            creator_name: String::new(),
            digest: String::new(),
        },
        outcomes,
        actions: Vec::new(),
        changes: Vec::new(),
    };
    (link, Arc::new(record))
}

#[test]
fn a_receipt_waits_for_a_certificate_and_is_forgotten_in_the_end() {
    let (text, chain) = genesis();
    let verifier = Verifier::new(text.as_bytes()).expect("a good genesis");
    let mut receipts = Receipts::default();
    let mut root = Digest([0; 32]);
    for commit in 1..=3u64 {
        let all: Vec<Outcome> = (0..5).map(|i| outcome(commit * 10 + i)).collect();
        let (link, record) = record(commit * 2, all);
        receipts.executed(link, root, &record, u64::MAX);
        root = link.after(&root);
    }
    let wanted = outcome(13).digest;
    assert!(receipts.knows(&wanted));
    assert_eq!(receipts.receipt(&chain, &wanted), None);
    receipts.certified(&certificate(&chain, 6, root));
    let receipt = receipts.receipt(&chain, &wanted).expect("certified");
    let checkpoint = verifier.receipt(&receipt).expect("it holds");
    assert_eq!(checkpoint.commit, CommitIndex(6));
    assert_eq!(receipt.proof.later.len(), 2);
    assert_eq!(receipts.receipt(&chain, &outcome(99).digest), None);
    let many: Vec<Outcome> = (1_000..1_000 + TRANSACTIONS_KEPT as u64)
        .map(outcome)
        .collect();
    let (link, record) = record(8, many);
    // What is in no index yet stays.
    receipts.executed(link, root, &record, 3);
    assert!(!receipts.knows(&outcome(10).digest));
    assert!(receipts.knows(&outcome(20).digest));
    let (link, record) = self::record(10, vec![outcome(5)]);
    receipts.executed(link, root, &record, 8);
    assert!(!receipts.knows(&wanted));
    assert_eq!((receipts.commits.len(), receipts.places.len()), (1, 1));
}
