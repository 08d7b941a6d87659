use super::Schedule;

const SECOND_NS: u64 = 1_000_000_000;

fn schedule(rate: f64) -> Schedule {
    Schedule {
        start_ns: 7 * SECOND_NS,
        rate,
        warmup_ns: SECOND_NS,
        measure_ns: 4 * SECOND_NS,
    }
}

#[test]
fn each_transaction_is_handed_in_when_it_is_due_and_not_a_period_later() {
    let schedule = schedule(250.0);
    assert_eq!(schedule.due_by(schedule.start_ns - 1), 0);
    for number in 0..1250 {
        let due_ns = schedule.due_ns(number);
        assert_eq!(schedule.due_by(due_ns), number + 1);
        assert_eq!(schedule.due_by(due_ns - 1), number);
    }
    assert_eq!(schedule.due_by(schedule.end_ns()), 1250);
    assert_eq!(schedule.due_by(schedule.end_ns() + SECOND_NS), 1250);
}

#[test]
fn without_a_rate_nothing_is_ever_due() {
    let schedule = schedule(0.0);
    assert_eq!(schedule.due_by(schedule.start_ns), 0);
    assert_eq!(schedule.due_by(schedule.end_ns()), 0);
}
