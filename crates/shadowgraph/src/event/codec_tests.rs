use proptest::prelude::*;

use super::*;
use crate::checkpoint::Checkpoint;
use crate::dag_text::Maker;
use crate::event::VerifiedEvent;

fn sample(maker: &Maker) -> EventDraft {
    let seat = MemberIndex(1);
    let parents = (0..4)
        .map(|other| maker.genesis(MemberIndex(other)))
        .collect();
    let mut draft = maker.draft(seat, Round(1), parents);
    let checkpoint = Checkpoint {
        epoch: Epoch(0),
        commit: crate::ids::CommitIndex(12),
        commit_digest: Digest([1; 32]),
        outcomes_root: Digest([2; 32]),
        state_root: Digest([3; 32]),
        time_ms: 77,
        next_committee: Some(Digest([4; 32])),
    };
    draft.checkpoint_votes = vec![checkpoint.sign(&draft.chain_id, maker.key(seat))];
    draft.transactions = vec![Bytes::from("first"), Bytes::from("second one")];
    draft
}

/// The bytes are part of the protocol: a change of them needs a new version.
#[test]
fn the_encoding_is_pinned() {
    let maker = Maker::new(&[1; 4]);
    let event = sample(&maker).seal(maker.key(MemberIndex(1)));
    let golden = include_str!("golden_event_v2.hex");
    let found = hex::encode(event.bytes());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/event/golden_event_v2.hex");
        std::fs::write(path, format!("{}\n{}\n", event.reference().digest, found)).unwrap();
        return;
    }
    assert_eq!(golden, format!("{}\n{}\n", event.reference().digest, found));
}

#[test]
fn what_is_sealed_decodes_to_itself() {
    let maker = Maker::new(&[1; 4]);
    let draft = sample(&maker);
    let sealed = draft.seal(maker.key(MemberIndex(1)));
    let decoded = VerifiedEvent::from_own_log(sealed.bytes().clone()).unwrap();
    assert_eq!(decoded.reference(), sealed.reference());
    assert_eq!(decoded.parents(), draft.parents);
    assert_eq!(decoded.checkpoint_votes(), draft.checkpoint_votes);
    assert_eq!(
        decoded.transactions().collect::<Vec<_>>(),
        draft.transactions
    );
    assert_eq!(decoded.timestamp_ms(), draft.timestamp_ms);
    // Slices of the one buffer, not copies.
    let buffer = decoded.bytes().as_ptr_range();
    assert!(
        decoded
            .transactions()
            .all(|transaction| buffer.contains(&transaction.as_ptr()))
    );
}

#[test]
fn counts_over_their_bound_are_refused_before_anything_is_read() {
    let maker = Maker::new(&[1; 4]);
    let bytes = sample(&maker)
        .seal(maker.key(MemberIndex(1)))
        .bytes()
        .to_vec();
    let parents_at = FIXED_HEADER_BYTES;
    let votes_at = parents_at + 4 + 4 * PARENT_BYTES;
    let transactions_at = votes_at + 4 + VOTE_BYTES_MAX;
    for (at, what) in [
        (parents_at, "parents"),
        (votes_at, "checkpoint votes"),
        (transactions_at, "transactions"),
    ] {
        let mut forged = bytes.clone();
        forged[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        match UnverifiedEvent::decode(forged.into()) {
            Err(DecodeError::OverCount {
                what: found,
                count: u32::MAX,
                ..
            }) => assert_eq!(found, what),
            other => panic!("{other:?}"),
        }
    }
    let long = vec![0; EVENT_BYTES_MAX + 1];
    assert_eq!(
        UnverifiedEvent::decode(long.into()).unwrap_err(),
        DecodeError::TooLong(EVENT_BYTES_MAX + 1)
    );
}

#[test]
fn other_forms_are_refused() {
    let maker = Maker::new(&[1; 4]);
    let refuse = |draft: &EventDraft| {
        UnverifiedEvent::decode(draft.seal(maker.key(MemberIndex(1))).bytes().clone()).unwrap_err()
    };
    let mut draft = sample(&maker);
    draft.parents.swap(0, 1);
    assert_eq!(refuse(&draft), DecodeError::ParentOrder);
    let mut draft = sample(&maker);
    draft.parents[1].creator = MemberIndex(0);
    assert_eq!(refuse(&draft), DecodeError::ParentOrder);
    let mut draft = sample(&maker);
    draft.checkpoint_votes.push(draft.checkpoint_votes[0]);
    assert_eq!(refuse(&draft), DecodeError::VoteOrder);
    let mut draft = sample(&maker);
    draft.transactions.push(Bytes::new());
    assert_eq!(refuse(&draft), DecodeError::EmptyTransaction);
    let mut bytes = sample(&maker)
        .seal(maker.key(MemberIndex(1)))
        .bytes()
        .to_vec();
    bytes[0] = 1;
    assert_eq!(
        UnverifiedEvent::decode(bytes.clone().into()).unwrap_err(),
        DecodeError::UnknownVersion(1)
    );
    let vote_at = FIXED_HEADER_BYTES + 4 + 4 * PARENT_BYTES + 4;
    bytes[0] = EVENT_VERSION;
    bytes[vote_at + VOTE_TAG_AT] = 2;
    assert_eq!(
        UnverifiedEvent::decode(bytes.into()).unwrap_err(),
        DecodeError::Vote
    );
}

proptest! {
    #[test]
    fn cut_or_lengthened_bytes_are_refused(cut in 0usize..800, more in prop::collection::vec(any::<u8>(), 1..9)) {
        let maker = Maker::new(&[1; 4]);
        let bytes = sample(&maker).seal(maker.key(MemberIndex(1))).bytes().clone();
        let cut = cut % bytes.len();
        prop_assert!(UnverifiedEvent::decode(bytes.slice(..cut)).is_err());
        let mut longer = bytes.to_vec();
        longer.extend(&more);
        prop_assert_eq!(UnverifiedEvent::decode(longer.into()).unwrap_err(), DecodeError::TrailingBytes(more.len()));
    }

    #[test]
    fn a_changed_byte_changes_the_digest_or_the_signature_or_is_refused(at in 0usize..10_000, flip in 1u8..) {
        let maker = Maker::new(&[1; 4]);
        let event = sample(&maker).seal(maker.key(MemberIndex(1)));
        let mut bytes = event.bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        if let Ok(changed) = UnverifiedEvent::decode(bytes.clone().into()) {
            let signature_only = at >= bytes.len() - SIGNATURE_BYTES;
            prop_assert_eq!(changed.reference().digest == event.reference().digest, signature_only);
            prop_assert_eq!(&changed.bytes()[..], &bytes[..]);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = UnverifiedEvent::decode(bytes.into());
    }
}
