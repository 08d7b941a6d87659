//! A small network whose ledger runs through three epochs; every part of its proofs is forged once.

use super::*;
use dagger_ledger::{
    AccountCreate, Action, CheckedTransaction, Code, CommitInput, Equivocation, GenesisOperator,
    Key, Ledger, OperatorKeys, Parameters, SignedTransaction, Transaction,
};
use shadowgraph::{
    CommitIndex, EquivocationProof, EventDraft, EventRef, MemberIndex, Round, SigningKey,
    verify_events,
};

const START_MS: u64 = 1_800_000_000_000;

fn seed(role: u8, number: u8) -> [u8; 32] {
    let mut seed = [role; 32];
    seed[0] = number;
    seed
}

fn key(role: u8, number: u8) -> ed25519_zebra::SigningKey {
    ed25519_zebra::SigningKey::from(seed(role, number))
}

fn public(role: u8, number: u8) -> Key {
    Key(key(role, number).verification_key().into())
}

/// Consensus key number: 0 to 3 at genesis.
fn signer(number: u8) -> SigningKey {
    SigningKey::from_bytes(seed(3, number))
}

struct Network {
    genesis: String,
    chain: Digest,
    ledger: Ledger,
    committee: Committee,
    /// Numbers of the consensus keys in the present seats.
    signers: Vec<u8>,
    epochs: Vec<EpochEnd>,
    commit: u64,
}

/// A commit that was executed and certified.
struct Done {
    previous: Digest,
    outcomes: Vec<dagger_ledger::Outcome>,
    certificate: CheckpointCertificate,
}

impl Network {
    fn new() -> Self {
        let operator = |i: u8| GenesisOperator {
            name: format!("operator-{i}"),
            operator_key: public(1, i),
            consensus_key: public(3, i),
            node_key: public(2, i),
            weight: 1,
            address: None,
        };
        let genesis = Genesis {
            network: "test".into(),
            time_ms: START_MS,
            parameters: Parameters {
                rotate_ms: 0,
                ..Parameters::default()
            },
            operators: (0..4).map(operator).collect(),
            chain_id: Digest::default(),
        };
        let text = genesis.to_json();
        let genesis = Genesis::from_json(text.as_bytes()).expect("a good genesis");
        Self {
            genesis: text,
            chain: genesis.chain_id,
            ledger: Ledger::from_genesis(&genesis),
            committee: genesis_committee(&genesis).expect("a committee"),
            signers: vec![0, 1, 2, 3],
            epochs: Vec::new(),
            commit: 0,
        }
    }

    fn sign(&self, operator: u8, action: Action) -> SignedTransaction {
        let transaction = Transaction {
            chain: self.chain,
            signer: public(1, operator),
            salt: self.commit.to_string(),
            valid_until_ms: START_MS + 60_000,
            action,
        };
        transaction.sign(&key(1, operator))
    }

    fn commit(&mut self, transactions: &[SignedTransaction]) -> Done {
        self.commit += 1;
        let checked: Vec<_> = transactions
            .iter()
            .map(|t| CheckedTransaction::check(&self.chain, &t.to_wire()))
            .collect();
        let previous = Digest(self.ledger.outcomes_root());
        let epoch = self.committee.epoch();
        let output = self.ledger.execute(&CommitInput {
            index: self.commit,
            digest: [self.commit as u8; 32],
            time_ms: START_MS + self.commit,
            active_members: &[],
            transactions: &checked,
            epoch: epoch.0,
            is_checkpoint: true,
        });
        let next = output
            .next_epoch
            .as_ref()
            .map(|next| committee_of(next.epoch, &next.seats).expect("a committee"));
        let checkpoint = Checkpoint {
            epoch,
            commit: CommitIndex(self.commit),
            commit_digest: shadowgraph::Digest([self.commit as u8; 32]),
            outcomes_root: shadowgraph::Digest(output.outcomes_root),
            state_root: shadowgraph::Digest(self.ledger.state_root()),
            time_ms: START_MS + self.commit,
            next_committee: next.as_ref().map(Committee::digest),
        };
        let certificate = self.certify(checkpoint, 3);
        if let Some(next) = next {
            self.epochs.push(EpochEnd {
                certificate: certificate.clone(),
                next: next.clone(),
            });
            self.committee = next;
        }
        Done {
            previous,
            outcomes: output.outcomes,
            certificate,
        }
    }

    fn certify(&self, checkpoint: Checkpoint, count: usize) -> CheckpointCertificate {
        let chain = ChainId(self.chain.0);
        let signatures = (0..).zip(&self.signers).take(count).map(|(seat, number)| {
            let vote = checkpoint.sign(&chain, &signer(*number));
            (MemberIndex(seat), vote.signature)
        });
        CheckpointCertificate {
            checkpoint,
            signatures: signatures.collect(),
        }
    }

    /// Operator 0 takes another consensus key: one epoch ends, and its seat has that key in the next.
    fn next_epoch(&mut self, number: u8) {
        let keys = OperatorKeys {
            consensus_key: Some(public(3, number)),
            ..OperatorKeys::default()
        };
        let rotate = self.sign(0, Action::OperatorKeys(keys));
        let done = self.commit(&[rotate]);
        assert_eq!(done.outcomes[0].code, Code::Ok);
        self.signers[0] = number;
    }

    fn evidence(&self, certificate: &CheckpointCertificate) -> Evidence {
        let before = certificate.checkpoint.epoch.0 as usize;
        Evidence {
            epochs: self.epochs[..before].iter().cloned().map(Encoded).collect(),
            certificate: Encoded(certificate.clone()),
        }
    }

    fn create(&self, name: &str, number: u8) -> SignedTransaction {
        let create = AccountCreate {
            account: name.into(),
            key: public(5, number),
        };
        self.sign(1, Action::AccountCreate(create))
    }

    fn verifier(&self) -> Verifier {
        Verifier::new(self.genesis.as_bytes()).expect("a good genesis")
    }
}

/// Two epochs' ends, then two accounts in one commit of the third epoch.
fn proofs() -> (Network, Receipt, RecordProof) {
    let mut network = Network::new();
    network.next_epoch(40);
    network.next_epoch(41);
    let transactions = [network.create("acme", 0), network.create("other", 1)];
    let done = network.commit(&transactions);
    let evidence = network.evidence(&done.certificate);
    let at = (network.commit, START_MS + network.commit);
    let proof = OutcomeProof::new(done.previous, at, &done.outcomes, 1, Vec::new());
    let receipt = Receipt {
        chain_id: network.chain,
        body: Some(String::from_utf8(transactions[1].body.to_vec()).expect("JSON")),
        proof: proof.expect("there is one"),
        evidence: evidence.clone(),
    };
    let key: StateKey = "account/acme".parse().expect("a key");
    let record = RecordProof {
        chain_id: network.chain,
        proof: network.ledger.prove(&key).expect("unchanged"),
        evidence,
    };
    (network, receipt, record)
}

#[test]
fn receipts_and_records_hold_from_the_genesis_file_alone_across_epochs() {
    let (network, receipt, record) = proofs();
    assert_eq!(receipt.evidence.epochs.len(), 2);
    let verifier = network.verifier();
    let checkpoint = verifier.receipt(&receipt).expect("it holds");
    assert_eq!(checkpoint.epoch, Epoch(2));
    verifier.record(&record).expect("it holds");
    let json = record_json(&record.proof)
        .expect("an account")
        .expect("present");
    assert_eq!(json["name"], "acme");
    // As a file, there and back.
    for proof in [Proof::Receipt(receipt), Proof::Record(record.clone())] {
        let text = serde_json::to_string(&proof).expect("JSON");
        assert_eq!(serde_json::from_str::<Proof>(&text).expect("JSON"), proof);
    }
    let absent = RecordProof {
        proof: network
            .ledger
            .prove(&"vm/acme/web".parse().unwrap())
            .unwrap(),
        ..record
    };
    verifier.record(&absent).expect("it holds");
    assert_eq!(record_json(&absent.proof), Ok(None));
}

#[test]
fn a_receipt_with_any_part_forged_is_refused() {
    let (network, good, _) = proofs();
    let verifier = network.verifier();
    let refused = |what: &str, forge: &dyn Fn(&mut Receipt)| {
        let mut receipt = good.clone();
        forge(&mut receipt);
        assert_ne!(receipt, good, "{what}");
        assert!(verifier.receipt(&receipt).is_err(), "{what}");
    };
    refused("code", &|r| r.proof.outcome.code = Code::NameTaken);
    refused("subject", &|r| r.proof.outcome.subject = None);
    refused("detail", &|r| r.proof.outcome.detail = "x".into());
    refused("digest", &|r| r.proof.outcome.digest = Digest([1; 32]));
    refused("position", &|r| r.proof.position = 0);
    refused("sibling", &|r| r.proof.siblings[0] = Digest([1; 32]));
    refused("commit", &|r| r.proof.link.commit += 1);
    refused("time", &|r| r.proof.link.time_ms += 1);
    refused("count", &|r| r.proof.link.count += 1);
    refused("root", &|r| r.proof.link.root = Digest([1; 32]));
    refused("previous", &|r| r.proof.previous = Digest([1; 32]));
    refused("later", &|r| r.proof.later.push(r.proof.link));
    refused("chain", &|r| r.chain_id = Digest([1; 32]));
    refused("body", &|r| r.body = Some("{}".into()));
}

#[test]
fn a_record_with_any_part_forged_is_refused() {
    let (network, _, good) = proofs();
    let verifier = network.verifier();
    let refused = |what: &str, forge: &dyn Fn(&mut RecordProof)| {
        let mut record = good.clone();
        forge(&mut record);
        assert_ne!(record, good, "{what}");
        assert!(verifier.record(&record).is_err(), "{what}");
    };
    refused("another name", &|r| {
        r.proof.key = StateKey::Account("other".into())
    });
    refused("absence", &|r| r.proof.record = None);
    refused("a byte", &|r| r.proof.record.as_mut().unwrap()[9] ^= 1);
    refused("bucket", &|r| r.proof.bucket[0].1 = Digest([1; 32]));
    refused("sibling", &|r| r.proof.siblings[3] = Digest([1; 32]));
    refused("one sibling less", &|r| r.proof.siblings.truncate(19));
    refused("chain", &|r| r.chain_id = Digest([1; 32]));
}

#[test]
fn evidence_with_any_part_forged_is_refused() {
    let (mut network, _, good) = proofs();
    let verifier = network.verifier();
    let refused = |what: &str, forge: &dyn Fn(&mut Evidence)| {
        let mut evidence = good.evidence.clone();
        forge(&mut evidence);
        assert_ne!(evidence, good.evidence, "{what}");
        verifier.checkpoint(&evidence).expect_err(what)
    };
    let error = refused("an epoch is left out", &|e| drop(e.epochs.remove(0)));
    assert!(matches!(error, VerifyError::EpochEnd(1, _)), "{error:?}");
    let error = refused("the last epoch is left out", &|e| drop(e.epochs.pop()));
    assert!(matches!(error, VerifyError::Certificate(_)), "{error:?}");
    refused("the wrong order", &|e| e.epochs.swap(0, 1));
    refused("too few signers of an epoch's end", &|e| {
        e.epochs[0].0.certificate.signatures.truncate(2);
    });
    refused("an epoch's end that names no committee", &|e| {
        e.epochs[1].0.certificate.checkpoint.next_committee = None;
    });
    refused("another committee", &|e| {
        e.epochs[1].0.next = e.epochs[0].0.next.clone()
    });
    refused("a state root", &|e| {
        e.certificate.0.checkpoint.state_root = shadowgraph::Digest([1; 32]);
    });
    refused("one signature twice", &|e| {
        let first = e.certificate.0.signatures[0];
        e.certificate.0.signatures[1] = first;
    });
    refused("too few signers", &|e| {
        e.certificate.0.signatures.truncate(2)
    });
    // The key that operator 0 had before signs nothing any more.
    network.signers[0] = 40;
    let stale = network.certify(good.evidence.certificate.0.checkpoint, 3);
    refused("a former key", &|e| e.certificate = Encoded(stale.clone()));
    // Whoever holds a former quorum's keys may make an own history from there on, not one that ends in this committee.
    let mut other = Network::new();
    other.next_epoch(50);
    refused("another network's epoch", &|e| {
        e.epochs[0] = Encoded(other.epochs[0].clone())
    });
    assert!(Verifier::new(b"{}").is_err());
}

/// The ledger reads the consensus layer's proof from its bytes; here both meet.
#[test]
fn the_ledger_takes_the_consensus_layers_proof_of_an_equivocation() {
    let mut network = Network::new();
    let chain = ChainId(network.chain.0);
    let seat = MemberIndex(2);
    let twin = |payload: u8| {
        let draft = EventDraft {
            chain_id: chain,
            epoch: Epoch(0),
            round: Round(1),
            creator: seat,
            timestamp_ms: START_MS,
            parents: vec![EventRef::genesis(&chain, Epoch(0), seat)],
            checkpoint_votes: Vec::new(),
            transactions: vec![vec![payload; 10].into()],
        };
        draft.seal(&signer(2))
    };
    let twins = verify_events(vec![twin(1), twin(2)], &chain, &network.committee);
    let twins: Vec<_> = twins.into_iter().map(|t| t.expect("valid")).collect();
    let proof = EquivocationProof::new(&twins[0], &twins[1]);
    let culprit = proof.verify(&chain, &network.committee).expect("it holds");
    assert_eq!(culprit.0, MemberIndex(2));
    let action = Action::Equivocation(Equivocation {
        proof: hex::encode(borsh::to_vec(&proof).expect("a proof encodes")),
    });
    let tell = network.sign(0, action);
    let done = network.commit(&[tell]);
    assert_eq!(done.outcomes[0].code, Code::Ok);
    assert_eq!(network.committee.len(), 3);
    assert_eq!(network.committee.epoch(), Epoch(1));
}
