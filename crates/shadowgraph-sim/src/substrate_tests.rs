//! Tests of the parts that know nothing about the protocol: clock, queue, disk, network, table of regions.

use crate::disk::{CrashKind, Damaged, Disk, Record};
use crate::network::{Latency, LinkFaults, Network};
use crate::queue::{Queue, SkewedClock};
use crate::regions::RegionMatrix;
use crate::rng::SimRng;

#[test]
fn equal_times_keep_their_order() {
    let mut queue = Queue::new();
    queue.push(20, "c");
    queue.push(10, "a");
    queue.push(10, "b");
    assert_eq!(queue.pop(15), Some("a"));
    queue.push(5, "past means now");
    assert_eq!(queue.pop(15), Some("b"));
    assert_eq!(queue.pop(15), Some("past means now"));
    assert_eq!(queue.pop(15), None);
    assert_eq!(queue.pop(20), Some("c"));
    assert_eq!(queue.now_us(), 20);
}

#[test]
fn a_skewed_clock_inverts() {
    for drift in [-100_000, -37, 0, 41, 99_999] {
        let clock = SkewedClock::new(1_700_000_000_000, drift);
        for local_ms in [1_700_000_000_000, 1_700_000_000_001, 1_700_000_123_457] {
            let at = clock.when_us(local_ms);
            assert!(clock.now_ms(at) >= local_ms);
            assert!(at == 0 || clock.now_ms(at - 1) < local_ms);
        }
    }
}

#[test]
fn a_crash_never_touches_what_was_synced() {
    let mut rng = SimRng::stream(7, "disk", 0);
    for round in 0..200u8 {
        let kind = *rng.choose(&[
            CrashKind::Process,
            CrashKind::PowerLosingAll,
            CrashKind::PowerTearing,
        ]);
        let mut disk = Disk::new();
        let before: Vec<Record> = (0..20u8)
            .map(|n| Record {
                kind: n,
                body: vec![round ^ n; usize::from(n) * 37].into(),
            })
            .collect();
        let write = |disk: &mut Disk, records: &[Record]| {
            let records = records.iter().cloned();
            records.for_each(|record| disk.append(record.kind, record.body));
        };
        write(&mut disk, &before[..10]);
        disk.synced_to(disk.written());
        write(&mut disk, &before[10..]);
        disk.crash(kind, &mut rng);
        let after = disk.recover().expect("nothing synced is damaged");
        assert!(after.len() >= 10, "{kind:?} lost synced records");
        assert_eq!(after[..], before[..after.len()]);
        assert!(
            kind != CrashKind::Process || after.len() == 20,
            "a process crash loses nothing that was written"
        );
        assert!(
            kind != CrashKind::PowerLosingAll || after.len() == 10,
            "unsynced writes are gone"
        );
        disk.append(0, "goes on".into());
        assert_eq!(disk.iter().last().expect("a record").body, "goes on");
    }
}

#[test]
fn a_bit_that_flips_in_what_was_synced_is_found() {
    for permille in [0, 500, 999] {
        let mut disk = Disk::new();
        (1..20u8).for_each(|n| disk.append(0, vec![n; 30].into()));
        disk.synced_to(disk.written());
        disk.append(0, "not synced".into());
        disk.rot(permille);
        assert_eq!(disk.recover(), Err(Damaged), "{permille}");
        assert_eq!(disk.recover(), Err(Damaged), "it does not heal");
    }
}

#[test]
fn a_partition_cuts_both_ways_and_heals() {
    let rng = SimRng::stream(1, "network", 0);
    let mut network = Network::new(4, &Latency::Uniform(1000), LinkFaults::default(), rng);
    network.partition(&[0, 1]);
    assert_eq!(network.arrivals(0, 1)[0], Some(1000));
    assert_eq!(network.arrivals(0, 2), [None, None]);
    assert_eq!(network.arrivals(3, 1), [None, None]);
    network.heal();
    assert_eq!(network.arrivals(3, 1), [Some(1000), None]);
    network.set_blocked(0, 1, true);
    assert_eq!(network.arrivals(0, 1), [None, None], "one way only");
    assert_eq!(network.arrivals(1, 0), [Some(1000), None]);
}

#[test]
fn the_table_of_regions_is_whole() {
    let matrix = RegionMatrix::published();
    assert_eq!(matrix.name(0), "us-east-1");
    assert_eq!(matrix.one_way_us(0, 1), 36_370);
    assert_eq!(matrix.one_way_us(9, 8), 161_250);
    assert_eq!(matrix.one_way_us(3, 13), crate::regions::LOCAL_ONE_WAY_US);
    let ideal = matrix.ideal_commit_us(10, 7, 0);
    assert!(
        ideal.iter().all(|us| (150_000..600_000).contains(us)),
        "{ideal:?}"
    );
}

#[test]
fn streams_are_independent_and_repeatable() {
    let draw = |label| SimRng::stream(3, label, 0).bits();
    assert_eq!(draw("a"), draw("a"));
    assert_ne!(draw("a"), draw("b"));
    let mut rng = SimRng::stream(3, "c", 0);
    assert!((0..1000).all(|_| (5..=7).contains(&rng.between(5, 7))));
}
