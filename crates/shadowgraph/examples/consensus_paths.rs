//! The hot paths of consensus, for counting their instructions: `consensus_paths PATH COUNT` prepares the same things
//! whatever COUNT is, and takes the path COUNT times. `cargo xtask instructions` runs it twice and subtracts.

use bytes::Bytes;
use shadowgraph::*;

const CHAIN: ChainId = ChainId([1; 32]);
const MEMBERS: u16 = 4;
const ROUNDS: u64 = 260;
/// Eight transactions of 512 bytes: an event of a network that is not busy.
const TRANSACTIONS: usize = 8;
const BATCH: usize = 128;

fn keys() -> Vec<SigningKey> {
    (1..=MEMBERS as u8)
        .map(|seed| SigningKey::from_bytes([seed; 32]))
        .collect()
}

/// Full rounds: every event cites all of the round before.
fn events(keys: &[SigningKey]) -> Vec<Bytes> {
    let genesis = |seat| EventRef::genesis(&CHAIN, Epoch(0), MemberIndex(seat));
    let (mut wire, mut previous) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let mut current = Vec::new();
        for (key, seat) in keys.iter().zip(0..) {
            let draft = EventDraft {
                chain_id: CHAIN,
                epoch: Epoch(0),
                round: Round(round),
                creator: MemberIndex(seat),
                timestamp_ms: round,
                parents: if round == 1 {
                    vec![genesis(seat)]
                } else {
                    previous.clone()
                },
                checkpoint_votes: vec![],
                transactions: vec![Bytes::from(vec![42; 512]); TRANSACTIONS],
            };
            let event = draft.seal(key);
            current.push(*event.reference());
            wire.push(event.bytes().clone());
        }
        previous = current;
    }
    wire
}

fn verify(wire: &[Bytes], committee: &Committee) -> Vec<VerifiedEvent> {
    let decoded = wire.iter().cloned().map(UnverifiedEvent::decode);
    let decoded = decoded.map(|event| event.expect("an event"));
    let checked = verify_events(decoded.collect(), &CHAIN, committee);
    checked.into_iter().map(|e| e.expect("valid")).collect()
}

/// A follower takes events one by one; returns how many it has put in order.
fn order(events: &[VerifiedEvent], committee: Committee) -> usize {
    let config = Config {
        chain_id: CHAIN,
        committee,
        me: None,
        start: EpochStart::default(),
        parameters: Parameters::default(),
    };
    let mut replica = Replica::new(config, None, 0);
    let mut ordered = 0;
    for event in events {
        let from = Peer::Member(event.creator());
        let events = vec![event.clone()];
        replica.handle(event.timestamp_ms(), Input::Events { from, events });
        while let Some(output) = replica.poll_output() {
            if let Output::Commit(commit) = output {
                ordered += commit.events.len();
            }
        }
    }
    ordered
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().expect("a path");
    let count: usize = arguments
        .next()
        .and_then(|c| c.parse().ok())
        .expect("COUNT");
    let keys = keys();
    let member = |key: &SigningKey| Member {
        key: key.public(),
        weight: 1,
    };
    let committee = Committee::new(Epoch(0), keys.iter().map(member).collect());
    let committee = committee.expect("a committee");
    let wire = events(&keys);
    assert!(count <= wire.len(), "there are {} events", wire.len());
    match path.as_str() {
        "decode-verify" => {
            for event in &wire[..count] {
                assert_eq!(verify(std::slice::from_ref(event), &committee).len(), 1);
            }
        }
        "decode-verify-batch" => {
            for batch in wire[..count].chunks(BATCH) {
                assert_eq!(verify(batch, &committee).len(), batch.len());
            }
        }
        "insert-commit" => {
            let verified = verify(&wire, &committee);
            let ordered = order(&verified[..count], committee);
            assert!(ordered + 4 * usize::from(MEMBERS) >= count);
        }
        other => panic!("no path {other}"),
    }
}
