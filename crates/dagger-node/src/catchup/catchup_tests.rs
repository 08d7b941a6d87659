//! Catching up by state: what is certified is taken and installed, anything else is refused.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use dagger_ledger::{
    AccountCreate, Action, CheckedTransaction, CommitInput, Genesis, GenesisOperator, Key, Ledger,
    Parameters, Transaction,
};
use shadowgraph::{
    ChainId, Checkpoint, CheckpointCertificate, CommitIndex, Committee, Digest, Epoch, EpochEnd,
    Member, MemberIndex, PublicKey, SigningKey,
};

use super::{
    Catchup, CatchupProtocol,
    wire::{Answer, CHUNK_BYTES, Manifest, Request},
};
use crate::{
    config::Durability,
    store::{Epochs, Options, SnapshotHead, Snapshots},
};

const TIME_MS: u64 = 1_700_000_000_000;

fn operator_key() -> ed25519_zebra::SigningKey {
    ed25519_zebra::SigningKey::from([1; 32])
}

fn public(seed: u8) -> Key {
    let key = ed25519_zebra::SigningKey::from([seed; 32]);
    Key(key.verification_key().into())
}

/// One operator, whose epochs last one transaction.
fn genesis() -> Genesis {
    let genesis = Genesis {
        network: "test".into(),
        time_ms: TIME_MS,
        parameters: Parameters {
            epoch_transactions: 1,
            ..Parameters::default()
        },
        operators: vec![GenesisOperator {
            name: "one".into(),
            operator_key: public(1),
            consensus_key: public(2),
            node_key: public(3),
            weight: 1,
            address: None,
        }],
        chain_id: dagger_ledger::Digest::default(),
    };
    Genesis::from_json(genesis.to_json().as_bytes()).unwrap()
}

fn committee(epoch: u64) -> Committee {
    let key = PublicKey(public(2).0);
    Committee::new(Epoch(epoch), vec![Member { key, weight: 1 }]).unwrap()
}

/// The ledger after a first commit that opens this account and ends the epoch, and the proof of that end.
fn ended(account: &str) -> (Ledger, EpochEnd) {
    let genesis = genesis();
    let mut ledger = Ledger::from_genesis(&genesis);
    let transaction = Transaction {
        chain: genesis.chain_id,
        signer: public(1),
        salt: "s".into(),
        valid_until_ms: TIME_MS + 60_000,
        action: Action::AccountCreate(AccountCreate {
            account: account.into(),
            key: public(4),
        }),
    };
    let wire = transaction.sign(&operator_key()).to_wire();
    let transactions = [CheckedTransaction::check(&genesis.chain_id, &wire)];
    let output = ledger.execute(&CommitInput {
        index: 1,
        digest: [8; 32],
        time_ms: TIME_MS + 1,
        active_members: &[(0, 1)],
        transactions: &transactions,
        epoch: 0,
        is_checkpoint: true,
    });
    assert!(output.next_epoch.is_some() && output.outcomes[0].code.is_ok());
    let next = committee(1);
    let checkpoint = Checkpoint {
        epoch: Epoch(0),
        commit: CommitIndex(1),
        commit_digest: Digest([8; 32]),
        outcomes_root: Digest(output.outcomes_root),
        state_root: Digest(ledger.state_root()),
        time_ms: TIME_MS + 1,
        next_committee: Some(next.digest()),
    };
    let chain = ChainId(genesis.chain_id.0);
    let vote = checkpoint.sign(&chain, &SigningKey::from_bytes([2; 32]));
    let certificate = CheckpointCertificate {
        checkpoint,
        signatures: vec![(MemberIndex(0), vote.signature)],
    };
    let end = EpochEnd { certificate, next };
    end.verify(&chain, &committee(0)).unwrap();
    (ledger, end)
}

fn stores(dir: &Path) -> (Epochs, Snapshots) {
    let chain_id = genesis().chain_id.0;
    let options = Options {
        segment_bytes: 1 << 20,
        durability: Durability::Os,
        discard: false,
    };
    (
        Epochs::open(&dir.join("events"), chain_id, options).unwrap(),
        Snapshots::open(&dir.join("state"), chain_id).unwrap(),
    )
}

fn head() -> SnapshotHead {
    SnapshotHead {
        commit: 1,
        commit_digest: [8; 32],
        transactions: 1,
        epoch: 1,
        starts_epoch: true,
    }
}

pub(super) fn manifest_of(body: &[u8]) -> Manifest {
    let dir = tempfile::tempdir().unwrap();
    let (_, snapshots) = stores(dir.path());
    snapshots.save(&head(), |out| out.write_all(body)).unwrap();
    let snapshot = snapshots.epoch_start(1).unwrap().unwrap();
    Manifest::of(1, &snapshot).unwrap().unwrap()
}

/// A snapshot's body as it stands once it is fetched.
fn fetched(dir: &Path, body: &[u8]) -> (Manifest, PathBuf) {
    let path = dir.join("incoming.part");
    let mut bytes = vec![0; usize::try_from(Snapshots::body_offset()).unwrap()];
    bytes.extend_from_slice(body);
    fs::write(&path, bytes).unwrap();
    (manifest_of(body), path)
}

#[test]
fn the_certified_state_is_taken_and_survives_a_restart() {
    let (ledger, end) = ended("alpha");
    let dir = tempfile::tempdir().unwrap();
    let (epochs, snapshots) = stores(dir.path());
    let (manifest, fetched) = fetched(dir.path(), &ledger.snapshot());
    let catchup = Catchup::verify(vec![end.clone()], &manifest, 1, fetched).unwrap();
    let (mut installed, transactions) = catchup.install(&epochs, &snapshots).unwrap();
    assert_eq!(transactions, 1);
    assert_eq!(
        installed.state_root(),
        end.certificate.checkpoint.state_root.0
    );
    let (epochs, snapshots) = stores(dir.path());
    assert_eq!(epochs.last_end().unwrap(), Some(end));
    let restored = snapshots.newest(|_, mut body| Ok(Ledger::restore_from(&mut body).unwrap()));
    let (newest, mut restored) = restored.unwrap().unwrap();
    assert_eq!(restored.state_root(), installed.state_root());
    assert!(newest.starts_epoch && newest.epoch == 1 && newest.commit == 1);
}

#[test]
fn another_state_than_the_certified_one_is_refused() {
    let (_, end) = ended("alpha");
    let (other, _) = ended("beta");
    let dir = tempfile::tempdir().unwrap();
    let (manifest, file) = fetched(dir.path(), &other.snapshot());
    let refused = Catchup::verify(vec![end.clone()], &manifest, 1, file);
    assert_eq!(
        refused.err().unwrap(),
        "its state root is not the certified one"
    );
    // Bytes that are no ledger at all.
    let (_, file) = fetched(dir.path(), &[1; 100]);
    assert!(Catchup::verify(vec![end], &manifest, 1, file).is_err());
}

#[test]
fn a_state_is_served_once_its_epoch_is_proven_to_have_begun() {
    let (ledger, end) = ended("alpha");
    let dir = tempfile::tempdir().unwrap();
    let (epochs, snapshots) = stores(dir.path());
    let body = ledger.snapshot();
    snapshots.save(&head(), |out| out.write_all(&body)).unwrap();
    let serve = CatchupProtocol::new(
        epochs.clone(),
        snapshots,
        Arc::new(|_| true),
        Arc::new(|_| Vec::new()),
    );
    let ask = |request| serve.answer(&request).unwrap();
    let chunk = |index| Request::Chunk { epoch: 1, index };
    assert_eq!(ask(Request::Ends(0)), Answer::Ends(Vec::new()));
    assert_eq!(ask(Request::Manifest(1)), Answer::Manifest(None));
    assert_eq!(ask(chunk(0)), Answer::Chunk(None));
    epochs.save_end(&end).unwrap();
    assert_eq!(ask(Request::Ends(0)), Answer::Ends(vec![end]));
    let manifest = manifest_of(&body);
    assert_eq!(
        ask(Request::Manifest(1)),
        Answer::Manifest(Some((manifest, 1)))
    );
    assert_eq!(ask(chunk(0)), Answer::Chunk(Some(body)));
    assert_eq!(ask(chunk(1)), Answer::Chunk(None));
    assert_eq!(ask(Request::Manifest(0)), Answer::Manifest(None));
}

#[test]
fn a_damaged_state_is_not_offered() {
    let dir = tempfile::tempdir().unwrap();
    let (_, snapshots) = stores(dir.path());
    snapshots
        .save(&head(), |out| out.write_all(&[7; 100]))
        .unwrap();
    let file = fs::read_dir(dir.path().join("state")).unwrap().next();
    let file = file.unwrap().unwrap().path();
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    let snapshot = snapshots.epoch_start(1).unwrap().unwrap();
    assert_eq!(Manifest::of(1, &snapshot).unwrap(), None);
}

#[test]
fn a_manifest_covers_every_byte_once() {
    let body = vec![5; usize::try_from(2 * CHUNK_BYTES + 3).unwrap()];
    let manifest = manifest_of(&body);
    let ranges: Vec<_> = (0..3).map(|i| manifest.range(i)).collect();
    assert_eq!(ranges[0], 0..CHUNK_BYTES);
    assert_eq!(ranges[2], 2 * CHUNK_BYTES..body.len() as u64);
    assert!(manifest.is_sound(u64::MAX) && !manifest.is_sound(10));
    let claims_more = Manifest {
        bytes: manifest.bytes + CHUNK_BYTES,
        ..manifest
    };
    assert!(!claims_more.is_sound(u64::MAX));
}
