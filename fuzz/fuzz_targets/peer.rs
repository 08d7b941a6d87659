//! A replica that a member feeds with any messages, and any of a small graph's events in any order, neither panics nor spins,
//! and never puts more into memory than its bounds say.
#![no_main]

use bytes::Bytes;
use dagger_fuzz::{CHAIN, committee, key, rounds};
use libfuzzer_sys::fuzz_target;
use shadowgraph::{
    Config, EpochStart, Input, MemberIndex, Message, Output, Parameters, Peer, Replica,
    UnverifiedEvent, VerifiedEvent, verify_events,
};
use std::sync::OnceLock;

const OUTPUTS_MAX: usize = 10_000;

/// Five rounds of events that the replica's rivals made.
fn graph() -> &'static [VerifiedEvent] {
    static GRAPH: OnceLock<Vec<VerifiedEvent>> = OnceLock::new();
    GRAPH.get_or_init(|| {
        verified(rounds(5))
            .into_iter()
            .filter(|e| e.creator() != MemberIndex(0))
            .collect()
    })
}

fn verified(events: Vec<UnverifiedEvent>) -> Vec<VerifiedEvent> {
    let verdicts = verify_events(events, &CHAIN, &committee());
    verdicts.into_iter().filter_map(Result::ok).collect()
}

// The input is a list of steps: a kind byte with the sender in its low bits, a length byte, so many bytes.
fuzz_target!(|input: &[u8]| {
    let config = Config {
        chain_id: CHAIN,
        committee: committee(),
        me: Some(MemberIndex(0)),
        start: EpochStart::default(),
        parameters: Parameters {
            pending_events_per_peer_max: 8,
            ..Parameters::default()
        },
    };
    let mut now_ms = 10_000;
    let mut replica = Replica::new(config, Some(key(0)), now_ms);
    let mut rest = input;
    while let [kind, length, tail @ ..] = rest {
        let (body, tail) = tail.split_at(tail.len().min(usize::from(*length)));
        rest = tail;
        let from = Peer::Member(MemberIndex(1 + u16::from(kind & 3) % 3));
        match kind >> 2 & 3 {
            0 => {
                if let Ok(message) = Message::decode(Bytes::copy_from_slice(body)) {
                    replica.handle(now_ms, Input::Message { from, message });
                }
            }
            1 => {
                let chosen = body.iter().filter_map(|at| graph().get(usize::from(*at)));
                let events = chosen.cloned().collect();
                replica.handle(now_ms, Input::Events { from, events });
            }
            2 => {
                let _ = replica.submit(now_ms, Bytes::copy_from_slice(body));
            }
            _ => {
                now_ms += u64::from(*length) * 7;
                replica.handle(now_ms, Input::Timeout);
            }
        }
        let mut outputs = 0;
        while let Some(output) = replica.poll_output() {
            outputs += 1;
            assert!(outputs < OUTPUTS_MAX, "one input has endless outputs");
            if let Output::Send { message, .. } = output {
                assert_eq!(
                    Message::decode(message.encode()).as_ref(),
                    Ok(&message),
                    "what is sent can be read"
                );
            }
        }
        let status = replica.status();
        assert!(
            status.pending_events <= 3 * 8,
            "{} events wait",
            status.pending_events
        );
    }
});
