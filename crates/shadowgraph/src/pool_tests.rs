//! What the pool refuses, and when.

use super::*;

/// Transactions that fill an event.
const PER_EVENT: u64 = 10;

fn transaction(number: u64) -> Bytes {
    let mut bytes = vec![7; 96];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes.into()
}

fn pool(bytes_max: usize) -> Pool {
    let event_bytes_max = cost(&transaction(0)) * PER_EVENT as usize;
    Pool::new(&Parameters {
        event_bytes_max,
        pool_bytes_max: bytes_max,
        pool_wait_max_ms: 100,
        ..Parameters::default()
    })
}

fn fill(pool: &mut Pool, now_ms: u64, numbers: std::ops::Range<u64>) {
    for number in numbers {
        assert_eq!(pool.submit(now_ms, transaction(number)), Ok(()));
    }
}

#[test]
fn a_pool_that_does_not_drain_refuses_after_a_while() {
    let mut pool = pool(1 << 20);
    let room = PER_EVENT * 2 + 1;
    fill(&mut pool, 1_000, 0..room);
    fill(&mut pool, 1_100, room..room + 1);
    assert_eq!(
        pool.submit(1_101, transaction(999)),
        Err(SubmitError::PoolFull)
    );
    // As events take the oldest, others may come in again.
    assert_eq!(pool.take().len() as u64, PER_EVENT);
    fill(&mut pool, 1_101, room + 1..room + 2);
}

#[test]
fn what_two_events_carry_may_wait_for_as_long_as_it_takes() {
    let mut pool = pool(1 << 20);
    fill(&mut pool, 0, 0..PER_EVENT);
    fill(&mut pool, 1_000_000, PER_EVENT..PER_EVENT * 2 + 1);
    assert_eq!(
        pool.submit(1_000_000, transaction(999)),
        Err(SubmitError::PoolFull)
    );
}

#[test]
fn a_burst_is_taken_whatever_its_size_up_to_the_bound() {
    let room = 1_000;
    let mut pool = pool(cost(&transaction(0)) * room as usize);
    fill(&mut pool, 5, 0..room);
    assert_eq!(pool.submit(5, transaction(999)), Err(SubmitError::PoolFull));
    assert_eq!(pool.len() as u64, room);
}

#[test]
fn what_comes_back_is_first_again_and_refuses_nobody() {
    let mut pool = pool(1 << 20);
    fill(&mut pool, 0, 0..PER_EVENT * 3);
    let taken = pool.take();
    pool.put_back(taken.into_iter());
    fill(&mut pool, 1_000_000, 500..501);
    assert_eq!(pool.take()[0], transaction(0));
}
