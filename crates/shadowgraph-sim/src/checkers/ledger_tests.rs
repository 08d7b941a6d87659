//! The ledger checker notices what it is there to notice. Commits come from a committee of one, and are then tampered with.

use bytes::Bytes;
use shadowgraph::{
    ChainId, Checkpoint, CheckpointCertificate, Commit, Committee, Config, Digest, Epoch,
    EpochStart, Input, Member, MemberIndex, Output, Parameters, Replica,
};

use super::ledger::LedgerChecker;
use crate::epochs::{Epochs, member_key};
use crate::plan::Plan;
use crate::toy_ledger::ToyLedger;
use crate::world::START_MS;

const CHAIN: ChainId = ChainId([3; 32]);

/// The committee of one, for ever.
fn epochs() -> std::sync::Arc<Epochs> {
    std::sync::Arc::new(Epochs::new(&Plan::calm(1)))
}

fn committee() -> Committee {
    let member = Member {
        key: member_key(0).public(),
        weight: 1,
    };
    Committee::new(Epoch(0), vec![member]).expect("an admissible committee")
}

fn commits() -> Vec<Commit> {
    let config = Config {
        chain_id: CHAIN,
        committee: committee(),
        me: Some(MemberIndex(0)),
        start: EpochStart::genesis(START_MS),
        parameters: Parameters::default(),
    };
    let mut replica = Replica::new(config, Some(member_key(0)), START_MS);
    let mut commits = Vec::new();
    for step in 0..40 {
        let now_ms = START_MS + step * 10;
        replica
            .submit(now_ms, Bytes::from(vec![step as u8 + 1]))
            .expect("the pool has room");
        replica.handle(now_ms, Input::Timeout);
        while let Some(output) = replica.poll_output() {
            if let Output::Commit(commit) = output {
                commits.push(commit);
            }
        }
    }
    assert!(commits.len() > 5, "a committee of one commits");
    commits
}

/// What the checker says when node 0 reports `first` and then node 1 reports `second`.
fn verdict(first: &[Commit], second: &[Commit]) -> Result<(), &'static str> {
    let mut checker = LedgerChecker::new(CHAIN, epochs(), 50, 2);
    let reports = first
        .iter()
        .map(|commit| (0, commit))
        .chain(second.iter().map(|commit| (1, commit)));
    for (node, commit) in reports {
        checker
            .committed(node, commit, 0)
            .map_err(|(check, _)| check)?;
    }
    Ok(())
}

#[test]
fn equal_sequences_pass() {
    let commits = commits();
    assert_eq!(verdict(&commits, &commits), Ok(()));
    assert_eq!(verdict(&commits, &commits[..3]), Ok(()));
}

#[test]
fn a_difference_between_nodes_is_noticed() {
    let commits = commits();
    let mut other = commits.clone();
    other[2].time_ms += 1;
    assert_eq!(verdict(&commits, &other), Err("agreement"));
    let mut other = commits.clone();
    other[2].is_checkpoint ^= true;
    assert_eq!(verdict(&commits, &other), Err("agreement"));
}

#[test]
fn gaps_and_broken_chains_are_noticed() {
    let commits = commits();
    assert_eq!(verdict(&commits[1..], &[]), Err("commit index"));
    let mut broken = commits.clone();
    broken[2].previous = Digest([7; 32]);
    assert_eq!(verdict(&broken, &[]), Err("chain"));
    let mut broken = commits.clone();
    broken[2].events.clear();
    assert_eq!(verdict(&broken, &[]), Err("chain"));
}

#[test]
fn an_event_in_two_commits_is_noticed() {
    let mut commits = commits();
    let again = commits[1].events[0].clone();
    commits.truncate(3);
    commits[2].events.insert(0, again);
    let mut checker = LedgerChecker::new(CHAIN, epochs(), 50, 1);
    checker.committed(0, &commits[0], 0).expect("honest");
    checker.committed(0, &commits[1], 0).expect("honest");
    commits[2].digest = super::ledger::commit_digest(&commits[2]);
    let found = checker
        .committed(0, &commits[2], 0)
        .map_err(|(check, _)| check);
    assert_eq!(found, Err("double commit"));
}

#[test]
fn a_forged_certificate_is_noticed_after_a_good_one() {
    let commits = commits();
    let mut checker = LedgerChecker::new(CHAIN, epochs(), 50, 2);
    let mut ledger = ToyLedger::new(epochs(), 1);
    let commit = &commits[0];
    checker.committed(0, commit, 0).expect("the first commit");
    let executed = ledger.execute(commit).expect("nothing is void");
    checker.executed(0, &executed).expect("the first to say so");
    let checkpoint = Checkpoint {
        epoch: Epoch(0),
        commit: commit.index,
        commit_digest: commit.digest,
        outcomes_root: executed.outcomes_root,
        state_root: executed.state_root,
        time_ms: commit.time_ms,
        next_committee: None,
    };
    let signature = checkpoint.sign(&CHAIN, &member_key(0)).signature;
    let certificate = |checkpoint, signature| CheckpointCertificate {
        checkpoint,
        signatures: vec![(MemberIndex(0), signature)],
    };
    for node in 0..2 {
        let good = certificate(checkpoint, signature);
        assert_eq!(checker.certified(node, &good), Ok(()));
    }
    let mut forged = signature;
    forged.0[0] ^= 1;
    assert!(
        checker
            .certified(1, &certificate(checkpoint, forged))
            .is_err()
    );
    let other = Checkpoint {
        state_root: Digest([1; 32]),
        ..checkpoint
    };
    assert!(
        checker
            .certified(1, &certificate(other, signature))
            .is_err()
    );
    let nobody = CheckpointCertificate {
        checkpoint,
        signatures: Vec::new(),
    };
    assert!(checker.certified(1, &nobody).is_err());
    let twice = CheckpointCertificate {
        checkpoint,
        signatures: vec![(MemberIndex(0), signature); 2],
    };
    assert!(checker.certified(1, &twice).is_err());
}
