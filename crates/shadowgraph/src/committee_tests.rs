use super::*;
use crate::keys::SigningKey;

fn member(seed: u8, weight: u64) -> Member {
    Member {
        key: SigningKey::from_bytes([seed; 32]).public(),
        weight,
    }
}

#[test]
fn thresholds_follow_the_weights() {
    for (weights, fault, quorum, validity) in [
        (vec![1], 0, 1, 1),
        (vec![1, 1, 1], 0, 3, 1),
        (vec![1, 1, 1, 1], 1, 3, 2),
        (vec![1; 7], 2, 5, 3),
        (vec![5, 3, 1, 1], 3, 7, 4),
        (vec![1; 200], 66, 134, 67),
    ] {
        let members = weights
            .iter()
            .zip(1..)
            .map(|(weight, seed)| member(seed, *weight))
            .collect();
        let committee = Committee::new(Epoch(0), members).unwrap();
        assert_eq!(committee.fault_weight(), fault, "{weights:?}");
        assert_eq!(committee.quorum_weight(), quorum, "{weights:?}");
        assert_eq!(committee.validity_weight(), validity, "{weights:?}");
    }
}

#[test]
fn bad_committees_are_refused() {
    let new = |members| Committee::new(Epoch(0), members).unwrap_err();
    assert_eq!(new(vec![]), CommitteeError::Size(0));
    assert_eq!(new(vec![member(1, 1); 201]), CommitteeError::Size(201));
    let twice = vec![member(1, 1), member(2, 1), member(1, 1)];
    assert_eq!(
        new(twice),
        CommitteeError::DuplicateKey(MemberIndex(0), MemberIndex(2))
    );
    assert_eq!(
        new(vec![member(1, 0)]),
        CommitteeError::ZeroWeight(MemberIndex(0))
    );
    assert_eq!(
        new(vec![member(1, u64::MAX), member(2, 2)]),
        CommitteeError::WeightSum
    );
    let identity = Member {
        key: PublicKey([0; 32]),
        weight: 1,
    };
    assert_eq!(
        new(vec![member(1, 1), identity]),
        CommitteeError::Key(MemberIndex(1))
    );
}

#[test]
fn a_member_set_counts_each_seat_once() {
    let members = (1..=200)
        .map(|seed| member(seed, u64::from(seed)))
        .collect();
    let committee = Committee::new(Epoch(0), members).unwrap();
    let mut set = MemberSet::default();
    for seat in [0, 63, 64, 127, 128, 199, 64] {
        set.insert(&committee, MemberIndex(seat));
    }
    let seats: Vec<u16> = set.iter().map(|seat| seat.0).collect();
    assert_eq!(seats, [0, 63, 64, 127, 128, 199]);
    assert_eq!(set.weight(), 1 + 64 + 65 + 128 + 129 + 200);
    assert!(set.contains(MemberIndex(63)) && !set.contains(MemberIndex(62)));
}
