use super::*;
use crate::dag_text::Maker;

/// docs/protocol.md 4.2: whoever waits for the first leader of three rounds later, and so on, meets all leaders in turn, whatever
/// round it began in; and all lead equally often.
#[test]
fn steps_of_three_rounds_meet_every_leader() {
    for count in 1..=24_usize {
        let committee = Maker::new(&vec![1; count]).committee;
        for slots in 1..=count as u16 {
            let schedule = Schedule::new(committee.clone(), slots, 0);
            let first = |round: u64| schedule.leader(Round(round), 0);
            let period = 3 * (count * count) as u64;
            for begin in 1..=period {
                let chain = (0..2 * count as u64).map(|step| first(begin + 3 * step));
                let met: std::collections::BTreeSet<_> = chain.collect();
                assert_eq!(
                    met.len(),
                    count,
                    "{count} leaders, {slots} slots, from round {begin}"
                );
            }
            let mut led = vec![0; count];
            (1..=period).for_each(|round| led[first(round).index()] += 1);
            assert!(
                led.iter().all(|times| *times == led[0]),
                "{count} leaders, {slots} slots: {led:?}"
            );
        }
    }
}
