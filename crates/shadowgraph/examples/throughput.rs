//! What one replica costs: decode + verify, and insert + commit, per event and per byte of payload.
//!
//! `cargo run --release -p shadowgraph --example throughput`
//!
//! Full rounds of a committee of n, every event citing all of the round before, are made beforehand; then one
//! follower takes them all. One thread; the time is what the scheduler gave it, where the system says so.

use std::time::Instant;

use bytes::Bytes;
use shadowgraph::*;

const CHAIN: ChainId = ChainId([1; 32]);

/// Seconds this thread has run: what others run meanwhile does not count.
fn cpu_s(since: Instant) -> f64 {
    let read = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let ran = read.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    ran.map_or(since.elapsed().as_secs_f64(), |ns| ns / 1e9)
}

struct Load {
    committee: Committee,
    wire: Vec<Bytes>,
}

fn make(members: usize, rounds: u64, transactions: usize, bytes: usize) -> Load {
    let key = |seat: usize| {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&(seat as u64).to_le_bytes());
        SigningKey::from_bytes(seed)
    };
    let keys: Vec<SigningKey> = (0..members).map(key).collect();
    let seats = keys
        .iter()
        .map(|key| Member {
            key: key.public(),
            weight: 1,
        })
        .collect();
    let committee = Committee::new(Epoch(0), seats).expect("a committee");
    let genesis = |seat: u16| EventRef::genesis(&CHAIN, Epoch(0), MemberIndex(seat));
    let payload = vec![Bytes::from(vec![42; bytes]); transactions];
    let mut wire = Vec::new();
    let mut previous: Vec<EventRef> = Vec::new();
    for round in 1..=rounds {
        let mut current = Vec::new();
        for (key, seat) in keys.iter().zip(0u16..) {
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
                transactions: payload.clone(),
            };
            let event = draft.seal(key);
            current.push(*event.reference());
            wire.push(event.bytes().clone());
        }
        previous = current;
    }
    Load { committee, wire }
}

fn measure(members: usize, rounds: u64, transactions: usize, bytes: usize) {
    let load = make(members, rounds, transactions, bytes);
    let events = load.wire.len();
    let payload = (events * transactions * bytes) as f64;
    let clock = Instant::now();
    let start = cpu_s(clock);
    let mut verified = Vec::with_capacity(events);
    for batch in load.wire.chunks(128) {
        let decoded = batch
            .iter()
            .cloned()
            .map(|bytes| UnverifiedEvent::decode(bytes).expect("an event"));
        let checked = verify_events(decoded.collect(), &CHAIN, &load.committee);
        verified.extend(checked.into_iter().map(|event| event.expect("valid")));
    }
    let verify_s = cpu_s(clock) - start;
    let config = Config {
        chain_id: CHAIN,
        committee: load.committee,
        me: None,
        start: EpochStart::default(),
        parameters: Parameters::default(),
    };
    let mut replica = Replica::new(config, None, 0);
    let (mut committed, mut ordered) = (0usize, 0u64);
    let start = cpu_s(clock);
    for event in verified {
        let from = Peer::Member(event.creator());
        replica.handle(
            event.timestamp_ms(),
            Input::Events {
                from,
                events: vec![event],
            },
        );
        while let Some(output) = replica.poll_output() {
            if let Output::Commit(commit) = output {
                committed += commit.events.len();
                ordered += commit.transaction_count();
            }
        }
    }
    let insert_s = cpu_s(clock) - start;
    assert!(committed + 4 * members >= events && ordered >= (committed * transactions) as u64);
    let each = |seconds: f64| seconds * 1e6 / events as f64;
    let rate = |seconds: f64| {
        if payload > 0.0 {
            payload / seconds / 1e9
        } else {
            0.0
        }
    };
    let per_transaction = (verify_s + insert_s) * 1e9 / (events * transactions).max(1) as f64;
    println!(
        "{members:>7} {transactions:>6} {:>9.2} {:>9.2} {:>12.0} {:>12.0} {:>8.2} {:>10.0}",
        each(verify_s),
        each(insert_s),
        1e6 / each(insert_s).max(1e-3),
        rounds as f64 / (verify_s + insert_s),
        rate(verify_s + insert_s),
        if transactions > 0 {
            per_transaction
        } else {
            0.0
        },
    );
}

fn main() {
    println!("members tx/ev  verify us insert us     events/s     rounds/s     GB/s ns/tx(512)");
    for (members, rounds) in [(4, 2_000), (10, 800), (50, 100), (100, 40), (200, 16)] {
        measure(members, rounds, 0, 0);
    }
    for (transactions, rounds) in [(128, 400), (2_000, 100)] {
        measure(4, rounds, transactions, 512);
    }
}
