use super::*;
use crate::checkpoint::Checkpoint;
use crate::committee::Member;
use crate::ids::MemberIndex;
use crate::keys::SigningKey;

const CHAIN: ChainId = ChainId([3; 32]);

fn keys(first: u8) -> Vec<SigningKey> {
    (first..first + 4)
        .map(|seed| SigningKey::from_bytes([seed; 32]))
        .collect()
}

fn committee(epoch: u64, keys: &[SigningKey]) -> Committee {
    let seat = |key: &SigningKey| Member {
        key: key.public(),
        weight: 1,
    };
    Committee::new(Epoch(epoch), keys.iter().map(seat).collect()).unwrap()
}

/// What `keys` sign together, the first `signers` of them.
fn end(keys: &[SigningKey], signers: usize, said: Option<Digest>, next: Committee) -> EpochEnd {
    let checkpoint = Checkpoint {
        epoch: Epoch(6),
        commit: CommitIndex(40),
        commit_digest: Digest([1; 32]),
        outcomes_root: Digest([2; 32]),
        state_root: Digest([3; 32]),
        time_ms: 99,
        next_committee: said,
    };
    let sign = |(seat, key): (u16, &SigningKey)| {
        let vote = checkpoint.sign(&CHAIN, key);
        (MemberIndex(seat), vote.signature)
    };
    EpochEnd {
        certificate: CheckpointCertificate {
            checkpoint,
            signatures: (0..).zip(&keys[..signers]).map(sign).collect(),
        },
        next,
    }
}

#[test]
fn a_quorum_ends_an_epoch_with_one_committee() {
    let (old, new) = (keys(1), keys(10));
    let (current, next) = (committee(6, &old), committee(7, &new));
    let good = end(&old, 3, Some(next.digest()), next.clone());
    assert_eq!(good.verify(&CHAIN, &current), Ok(()));
    assert_eq!(good.start().commit, CommitIndex(40));
    assert_eq!(good.start().time_ms, 99);

    let few = end(&old, 2, Some(next.digest()), next.clone());
    assert_eq!(
        few.verify(&CHAIN, &current),
        Err(CertificateError::Weight(2, 3).into())
    );
    let going_on = end(&old, 3, None, next.clone());
    assert_eq!(
        going_on.verify(&CHAIN, &current),
        Err(EpochEndError::NotAnEnd(Epoch(6)))
    );
    let swapped = end(&old, 3, Some(next.digest()), committee(7, &keys(20)));
    assert_eq!(
        swapped.verify(&CHAIN, &current),
        Err(EpochEndError::OtherCommittee)
    );
    let far = committee(8, &new);
    let gap = end(&old, 3, Some(far.digest()), far);
    assert_eq!(
        gap.verify(&CHAIN, &current),
        Err(EpochEndError::EpochGap(Epoch(8), Epoch(6)))
    );
    // The next committee cannot vouch for itself.
    let own = end(&new, 3, Some(next.digest()), next.clone());
    assert!(own.verify(&CHAIN, &current).is_err());
}

#[test]
fn a_committee_reads_back_and_what_is_none_does_not() {
    let next = committee(7, &keys(10));
    let bytes = borsh::to_vec(&next).unwrap();
    assert_eq!(borsh::from_slice::<Committee>(&bytes).unwrap(), next);
    // The epoch, the count of seats, a key and its weight.
    let weight_at = 8 + 4 + 32;
    let mut weightless = bytes.clone();
    weightless[weight_at..weight_at + 8].fill(0);
    assert!(borsh::from_slice::<Committee>(&weightless).is_err());
    let mut twice = bytes.clone();
    twice.copy_within(12..44, 52);
    assert!(borsh::from_slice::<Committee>(&twice).is_err());
    let mut many = bytes;
    many[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(borsh::from_slice::<Committee>(&many).is_err());
}

#[test]
fn weights_keys_and_epoch_enter_the_digest() {
    let base = committee(7, &keys(10));
    assert_ne!(base.digest(), committee(8, &keys(10)).digest());
    assert_ne!(base.digest(), committee(7, &keys(11)).digest());
    let members = base.members().map(|(_, member)| Member {
        weight: 2,
        ..*member
    });
    let heavier = Committee::new(Epoch(7), members.collect()).unwrap();
    assert_ne!(base.digest(), heavier.digest());
}
