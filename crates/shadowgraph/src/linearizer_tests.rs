use super::{Linearizer, QUIET_ROUNDS};
use crate::committee::{Committee, Member};
use crate::epoch::EpochStart;
use crate::ids::{Epoch, Round};
use crate::keys::SigningKey;
use crate::parameters::Parameters;

const START_MS: u64 = 1_000_000;

fn linearizer() -> Linearizer {
    let key = SigningKey::from_bytes([7; 32]).public();
    let committee = Committee::new(Epoch(0), vec![Member { key, weight: 1 }]).unwrap();
    let start = EpochStart::genesis(START_MS);
    Linearizer::new(committee, start, &Parameters::default())
}

/// Whether a commit with or without transactions, so long after the start, with a leader of that round, is a checkpoint.
fn commit(linearizer: &mut Linearizer, transactions: bool, at_ms: u64, round: u64) -> bool {
    linearizer.is_checkpoint(transactions, START_MS + at_ms, Round(round))
}

#[test]
fn a_lone_transaction_is_sealed_by_the_next_commit_without_any() {
    let mut linearizer = linearizer();
    assert!(!commit(&mut linearizer, false, 60, 2));
    assert!(!commit(&mut linearizer, true, 61, 3));
    assert!(commit(&mut linearizer, false, 61, 4));
    assert!(!commit(&mut linearizer, false, 5_000, 9));
    assert!(!commit(&mut linearizer, false, 60_060, 70));
}

#[test]
fn a_stream_is_sealed_once_in_a_twentieth_of_the_interval() {
    let mut linearizer = linearizer();
    // Ten milliseconds a wave: transactions come with its first round and with no other.
    let mut sealed = Vec::new();
    for wave in 0..100 {
        for round in 0..3 {
            if commit(&mut linearizer, round == 0, 10 * wave, 3 * wave + round + 1) {
                sealed.push(10 * wave);
            }
        }
    }
    let expected: Vec<u64> = (1..20).map(|twentieth| 50 * twentieth).collect();
    assert_eq!(sealed, expected);
}

#[test]
fn a_stream_without_a_pause_is_sealed_once_an_interval() {
    let mut linearizer = linearizer();
    let sealed: Vec<u64> = (0..400)
        .filter(|ten_ms| commit(&mut linearizer, true, 10 * ten_ms, ten_ms + 1))
        .collect();
    assert_eq!(sealed, [100, 200, 300]);
}

#[test]
fn a_time_that_stands_still_leaves_nothing_unsealed() {
    let mut linearizer = linearizer();
    assert!(!commit(&mut linearizer, true, 0, 1));
    for round in 2..QUIET_ROUNDS {
        assert!(!commit(&mut linearizer, false, 0, round));
    }
    assert!(commit(&mut linearizer, false, 0, QUIET_ROUNDS));
    assert!(!commit(&mut linearizer, false, 0, 2 * QUIET_ROUNDS));
}

#[test]
fn at_rest_there_is_a_checkpoint_every_sixty_intervals() {
    let mut linearizer = linearizer();
    let sealed: Vec<u64> = (0..200)
        .filter(|second| commit(&mut linearizer, false, 1_000 * second, second + 1))
        .collect();
    assert_eq!(sealed, [60, 120, 180]);
}
