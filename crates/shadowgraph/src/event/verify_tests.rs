use super::*;
use crate::checkpoint::Checkpoint;
use crate::dag_text::{CHAIN, Maker};
use crate::event::EventDraft;
use crate::ids::{CommitIndex, Digest};

fn one(maker: &Maker, draft: &EventDraft) -> Result<VerifiedEvent, VerifyError> {
    let sealed = draft.seal(maker.key(draft.creator));
    verify_events(vec![sealed], &CHAIN, &maker.committee).remove(0)
}

fn first_round(maker: &Maker) -> Vec<VerifiedEvent> {
    let seats = (0..4).map(MemberIndex);
    seats
        .map(|seat| maker.sign(&maker.draft(seat, Round(1), vec![maker.genesis(seat)])))
        .collect()
}

fn second(maker: &Maker, seats: &[u16]) -> EventDraft {
    let first = first_round(maker);
    let parents = seats
        .iter()
        .map(|seat| *first[usize::from(*seat)].reference())
        .collect();
    maker.draft(MemberIndex(0), Round(2), parents)
}

#[test]
fn well_made_events_verify() {
    let maker = Maker::new(&[1; 4]);
    assert!(
        one(
            &maker,
            &maker.draft(
                MemberIndex(2),
                Round(1),
                vec![maker.genesis(MemberIndex(2))]
            )
        )
        .is_ok()
    );
    assert!(one(&maker, &second(&maker, &[0, 1, 3])).is_ok());
}

#[test]
fn every_rule_that_needs_no_graph_is_checked() {
    let maker = Maker::new(&[1; 4]);
    let good = second(&maker, &[0, 1, 2]);
    let with = |change: &dyn Fn(&mut EventDraft)| {
        let mut draft = good.clone();
        change(&mut draft);
        one(&maker, &draft).unwrap_err()
    };
    assert_eq!(
        with(&|draft| draft.chain_id = ChainId([6; 32])),
        VerifyError::WrongChain
    );
    assert_eq!(
        with(&|draft| draft.epoch = Epoch(1)),
        VerifyError::WrongEpoch(Epoch(1), Epoch(0))
    );
    assert_eq!(
        with(&|draft| draft.round = Round(0)),
        VerifyError::RoundZero
    );
    assert_eq!(
        with(&|draft| draft.round = Round(1)),
        VerifyError::ParentRound(Round(1), Round(1))
    );
    assert_eq!(
        with(&|draft| draft.round = Round(3)),
        VerifyError::ParentWeight(0, 3)
    );
    assert_eq!(
        with(&|draft| draft.parents[2].creator = MemberIndex(9)),
        VerifyError::UnknownMember(MemberIndex(9))
    );
    assert_eq!(
        with(&|draft| draft.parents.truncate(2)),
        VerifyError::ParentWeight(2, 3)
    );
    // Without the own last event, or with another's genesis event.
    assert_eq!(
        one(&maker, &second(&maker, &[1, 2, 3])).unwrap_err(),
        VerifyError::OwnParent
    );
    assert_eq!(
        with(&|draft| draft.parents.push(maker.genesis(MemberIndex(3)))),
        VerifyError::OwnParent
    );
    let forged_genesis = EventRef {
        digest: Digest([1; 32]),
        ..maker.genesis(MemberIndex(0))
    };
    assert_eq!(
        one(
            &maker,
            &maker.draft(MemberIndex(0), Round(1), vec![forged_genesis])
        )
        .unwrap_err(),
        VerifyError::OwnParent
    );
}

fn checkpoint() -> Checkpoint {
    Checkpoint {
        epoch: Epoch(0),
        commit: CommitIndex(1),
        commit_digest: Digest([1; 32]),
        outcomes_root: Digest([2; 32]),
        state_root: Digest([3; 32]),
        time_ms: 1,
        next_committee: None,
    }
}

#[test]
fn votes_are_verified_with_their_event() {
    let maker = Maker::new(&[1; 4]);
    let mut draft = second(&maker, &[0, 1, 2]);
    draft.checkpoint_votes = vec![checkpoint().sign(&CHAIN, maker.key(MemberIndex(0)))];
    assert!(one(&maker, &draft).is_ok());
    draft.checkpoint_votes = vec![checkpoint().sign(&CHAIN, maker.key(MemberIndex(1)))];
    assert_eq!(
        one(&maker, &draft).unwrap_err(),
        VerifyError::BadSignature(MemberIndex(0))
    );
    draft.checkpoint_votes = vec![
        Checkpoint {
            epoch: Epoch(1),
            ..checkpoint()
        }
        .sign(&CHAIN, maker.key(MemberIndex(0))),
    ];
    assert_eq!(one(&maker, &draft).unwrap_err(), VerifyError::VoteEpoch);
}

#[test]
fn a_batch_with_forgeries_loses_only_those() {
    let maker = Maker::new(&[1; 4]);
    let mut batch = Vec::new();
    for number in 0..100 {
        let mut draft = second(&maker, &[0, 1, 2]);
        draft.timestamp_ms += number;
        // Some are signed with another member's key.
        let signer = if number % 33 == 7 {
            MemberIndex(1)
        } else {
            MemberIndex(0)
        };
        batch.push(draft.seal(maker.key(signer)));
    }
    let verdicts = verify_events(batch, &CHAIN, &maker.committee);
    for (number, verdict) in verdicts.iter().enumerate() {
        assert_eq!(verdict.is_err(), number % 33 == 7, "{number}");
    }
}

/// An event alone is verified another way than a batch.
#[test]
fn a_forgery_is_refused_alone_and_beside_others() {
    let maker = Maker::new(&[1; 4]);
    let draft = second(&maker, &[0, 1, 2]);
    let (good, forged) = (
        draft.seal(maker.key(MemberIndex(0))),
        draft.seal(maker.key(MemberIndex(1))),
    );
    let verdicts = |events: &[&UnverifiedEvent]| -> Vec<bool> {
        let events = events.iter().map(|event| (*event).clone()).collect();
        let verdicts = verify_events(events, &CHAIN, &maker.committee);
        verdicts.iter().map(Result::is_ok).collect()
    };
    assert_eq!(verdicts(&[&good]), [true]);
    assert_eq!(verdicts(&[&forged]), [false]);
    assert_eq!(verdicts(&[&good, &forged]), [true, false]);
}

/// ZIP-215: a signature whose R has a small-order part satisfies the batch equation and the single one alike.
#[test]
fn single_and_batch_verification_agree_on_a_small_order_r() {
    let maker = Maker::new(&[1; 4]);
    let sealed = second(&maker, &[0, 1, 2]).seal(maker.key(MemberIndex(0)));
    let mut bytes = sealed.bytes().to_vec();
    let at = bytes.len() - 64;
    // R the identity in a form that is not canonical, s zero: no valid signature, and no panic.
    bytes[at..].fill(0);
    bytes[at] = 1;
    bytes[at + 31] = 0x80;
    let forged = UnverifiedEvent::decode(bytes.into()).unwrap();
    let good = second(&maker, &[0, 1, 3]).seal(maker.key(MemberIndex(0)));
    let alone = verify_events(vec![forged.clone()], &CHAIN, &maker.committee);
    let together = verify_events(vec![forged, good], &CHAIN, &maker.committee);
    assert!(alone[0].is_err() && together[0].is_err() && together[1].is_ok());
}
