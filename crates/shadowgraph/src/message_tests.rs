use proptest::prelude::*;

use super::*;
use crate::checkpoint::{Checkpoint, CheckpointCertificate};
use crate::committee::{Committee, Member};
use crate::ids::{ChainId, Digest};
use crate::keys::SigningKey;

fn request(wanted: SyncRequest) -> Message {
    Message::Request(Request {
        epoch: Epoch(2),
        wanted,
    })
}

fn epoch_end() -> Message {
    let key = SigningKey::from_bytes([5; 32]);
    let member = Member {
        key: key.public(),
        weight: 3,
    };
    let next = Committee::new(Epoch(3), vec![member]).unwrap();
    let checkpoint = Checkpoint {
        epoch: Epoch(2),
        commit: CommitIndex(8),
        commit_digest: Digest([1; 32]),
        outcomes_root: Digest([2; 32]),
        state_root: Digest([3; 32]),
        time_ms: 5,
        next_committee: Some(next.digest()),
    };
    let vote = checkpoint.sign(&ChainId([6; 32]), &key);
    let certificate = CheckpointCertificate {
        checkpoint,
        signatures: vec![(MemberIndex(0), vote.signature)],
    };
    Message::EpochEnd(Box::new(EpochEnd { certificate, next }))
}

fn samples() -> Vec<Message> {
    let reference = EventRef {
        round: Round(3),
        creator: MemberIndex(2),
        digest: Digest([4; 32]),
    };
    vec![
        Message::Events(vec![]),
        Message::Events(vec![Bytes::from("one"), Bytes::from("another")]),
        request(SyncRequest::Events(vec![reference; 3])),
        request(SyncRequest::After(After {
            from: Round(1),
            to: Round(9),
            after: vec![Round(2); 4],
        })),
        Message::Frontier(Frontier {
            epoch: Epoch(0),
            exchange: Exchange::Ask(7),
            floor: Round(1),
            commit: CommitIndex(3),
            time_ms: 1_700_000_000_000,
            highest: vec![Round(5); 4],
        }),
        Message::Wake(Wake {
            epoch: Epoch(0),
            round: Round(8),
        }),
        epoch_end(),
    ]
}

#[test]
fn messages_survive_the_wire() {
    for message in samples() {
        assert_eq!(Message::decode(message.encode()).unwrap(), message);
    }
}

#[test]
fn the_encoding_is_pinned() {
    let lines: String = samples()
        .iter()
        .map(|message| format!("{}\n", hex::encode(message.encode())))
        .collect();
    let found = blake3::hash(lines.as_bytes()).to_hex();
    assert_eq!(
        found.as_str(),
        "b1d26b2e3df22c1fbd9a6165689de46f47dc16c39661d8a5f205526f7a89e041"
    );
}

#[test]
fn cut_or_lengthened_messages_are_refused() {
    for message in samples() {
        let wire = message.encode();
        for cut in 0..wire.len() {
            assert!(
                Message::decode(wire.slice(..cut)).is_err(),
                "{message:?} cut at {cut}"
            );
        }
        let mut longer = wire.to_vec();
        longer.push(0);
        assert!(Message::decode(longer.into()).is_err(), "{message:?}");
    }
}

#[test]
fn counts_over_their_bound_are_refused() {
    let mut events = Message::Events(vec![]).encode().to_vec();
    events[1..5].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(
        Message::decode(events.into()),
        Err(MessageError::OverCount { what: "events", .. })
    ));
    let reference = EventRef {
        round: Round(3),
        creator: MemberIndex(2),
        digest: Digest([4; 32]),
    };
    let request = request(SyncRequest::Events(vec![reference; REQUEST_EVENTS_MAX + 1]));
    assert!(matches!(
        Message::decode(request.encode()),
        Err(MessageError::OverCount { .. })
    ));
    assert_eq!(
        Message::decode(Bytes::from_static(&[9])),
        Err(MessageError::UnknownKind(9))
    );
    let long = vec![0; MESSAGE_BYTES_MAX + 1];
    assert_eq!(
        Message::decode(long.into()),
        Err(MessageError::TooLong(MESSAGE_BYTES_MAX + 1))
    );
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(message) = Message::decode(bytes.clone().into()) {
            prop_assert_eq!(&message.encode()[..], &bytes[..]);
        }
    }
}
