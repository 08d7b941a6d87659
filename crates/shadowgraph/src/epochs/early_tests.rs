use bytes::Bytes;

use super::*;
use crate::dag_text::Maker;
use crate::ids::{Epoch, MemberIndex, Round};
use crate::message::Wake;

fn kept(early: &mut Early) -> Vec<(Peer, usize)> {
    let shares = early.take();
    shares.map(|(peer, items)| (peer, items.len())).collect()
}

fn word() -> Item {
    Item::Message(Message::Wake(Wake {
        epoch: Epoch(1),
        round: Round(1),
    }))
}

#[test]
fn of_one_member_so_many_words_are_kept_and_of_all_followers_together() {
    let mut early = Early::default();
    let (loud, quiet) = (Peer::Member(MemberIndex(2)), Peer::Member(MemberIndex(1)));
    for number in 0..10 * ITEMS_PER_PEER_MAX as u64 {
        early.keep(loud, word());
        early.keep(Peer::Follower(number), word());
    }
    early.keep(quiet, word());
    let expected = [
        (quiet, 1),
        (loud, ITEMS_PER_PEER_MAX),
        (NOBODY, ITEMS_PER_PEER_MAX),
    ];
    assert_eq!(kept(&mut early), expected);
}

#[test]
fn of_one_member_so_many_bytes_are_kept() {
    let maker = Maker::new(&[1; 4]);
    let seat = MemberIndex(2);
    let mut draft = maker.draft(seat, Round(1), vec![maker.genesis(seat)]);
    draft.transactions = vec![Bytes::from(vec![7; BYTES_PER_PEER_MAX / 4])];
    let event = draft.seal(maker.key(seat)).bytes().clone();
    assert!(4 * event.len() > BYTES_PER_PEER_MAX && 3 * event.len() < BYTES_PER_PEER_MAX);
    let mut early = Early::default();
    for _ in 0..ITEMS_PER_PEER_MAX {
        let event = UnverifiedEvent::decode(event.clone()).unwrap();
        early.keep(Peer::Member(seat), Item::Event(event));
    }
    assert_eq!(kept(&mut early), [(Peer::Member(seat), 3)]);
}
