use super::*;
use crate::dag_text::Maker;
use crate::ids::MemberIndex;

const FROM: Peer = Peer::Member(MemberIndex(1));
const OTHER: Peer = Peer::Member(MemberIndex(2));

fn chain(maker: &Maker, length: u64) -> Vec<VerifiedEvent> {
    let seat = MemberIndex(1);
    let mut last = maker.genesis(seat);
    let mut events = Vec::new();
    for round in (1..=length).map(Round) {
        let event = maker.sign(&maker.draft(seat, round, vec![last]));
        last = *event.reference();
        events.push(event);
    }
    events
}

fn add(pending: &mut Pending, from: Peer, event: &VerifiedEvent) -> Added {
    let missing = event.parents().to_vec();
    pending.add(0, from, event.clone(), &missing)
}

#[test]
fn what_waits_is_released_in_order() {
    let maker = Maker::new(&[1; 4]);
    let events = chain(&maker, 4);
    let mut pending = Pending::new(&Parameters::default());
    assert_eq!(add(&mut pending, FROM, &events[3]), Added::Waits);
    assert_eq!(add(&mut pending, OTHER, &events[2]), Added::Waits);
    assert_eq!(add(&mut pending, OTHER, &events[2]), Added::Known);
    let released = pending.arrived(events[1].reference());
    assert_eq!(released, [(OTHER, events[2].clone())]);
    assert_eq!(
        pending.arrived(events[2].reference()),
        [(FROM, events[3].clone())]
    );
    assert_eq!((pending.len(), pending.next_due_ms()), (0, None));
}

#[test]
fn a_flooder_exhausts_only_its_own_share() {
    let maker = Maker::new(&[1; 4]);
    let parameters = Parameters {
        pending_events_per_peer_max: 10,
        ..Parameters::default()
    };
    let mut pending = Pending::new(&parameters);
    let events = chain(&maker, 40);
    for event in &events[1..] {
        let waits = if event.round() <= Round(11) {
            Added::Waits
        } else {
            Added::Overflow
        };
        assert_eq!(add(&mut pending, FROM, event), waits);
    }
    assert_eq!(pending.len(), 10);
    assert!(pending.contains(events[1].digest()) && !pending.contains(events[39].digest()));
    // Another sender is not touched, and a lower round pushes a higher one out.
    assert_eq!(add(&mut pending, OTHER, &events[39]), Added::Waits);
    assert_eq!(pending.len(), 11);
    let bytes = events[1].bytes().len();
    let mut pending = Pending::new(&Parameters {
        pending_bytes_per_peer_max: 3 * bytes,
        ..parameters
    });
    for event in events[10..].iter().rev() {
        add(&mut pending, FROM, event);
    }
    assert_eq!(pending.len(), 3);
    assert!(pending.contains(events[10].digest()));
}

#[test]
fn an_ancestor_is_asked_for_ever_more_slowly_and_not_once_it_waits_itself() {
    let maker = Maker::new(&[1; 4]);
    let events = chain(&maker, 3);
    let parameters = Parameters {
        pull_delay_ms: 20,
        pull_retry_ms: 100,
        ..Parameters::default()
    };
    let mut pending = Pending::new(&parameters);
    add(&mut pending, FROM, &events[2]);
    assert_eq!(pending.next_due_ms(), Some(20));
    assert_eq!(pending.take_due(19, Round(9), 9), []);
    assert_eq!(
        pending.take_due(20, Round(9), 9),
        [(*events[1].reference(), FROM, 0)]
    );
    assert_eq!(
        pending.take_due(120, Round(9), 9),
        [(*events[1].reference(), FROM, 1)]
    );
    assert_eq!(pending.next_due_ms(), Some(320));
    add(&mut pending, OTHER, &events[1]);
    // Now only its own ancestor is asked for, and of whoever sent it.
    assert_eq!(
        pending.take_due(1_000, Round(9), 9),
        [(*events[0].reference(), OTHER, 0)]
    );
}

#[test]
fn the_floor_releases_and_drops() {
    let maker = Maker::new(&[1; 4]);
    let events = chain(&maker, 5);
    let mut pending = Pending::new(&Parameters::default());
    add(&mut pending, FROM, &events[1]);
    add(&mut pending, FROM, &events[3]);
    assert_eq!(pending.raise_floor(Round(3)), [(FROM, events[3].clone())]);
    assert_eq!(pending.len(), 0);
}
