use super::*;
use crate::committee::Member;
use crate::ids::Epoch;
use crate::keys::SigningKey;

const ME: Option<MemberIndex> = Some(MemberIndex(0));
const NOW_MS: u64 = 1_700_000_000_000;

fn committee(epoch: u64, keys: &[u8]) -> Committee {
    let member = |key: &u8| Member {
        key: SigningKey::from_bytes([*key; 32]).public(),
        weight: 1,
    };
    Committee::new(Epoch(epoch), keys.iter().map(member).collect()).unwrap()
}

/// The clocks of members 1, 2, .. as seats beyond ours, each so far ahead of ours.
fn measured(committee: &Committee, offsets_ms: &[i64]) -> Clocks {
    let mut clocks = Clocks::new(committee.len());
    for (seat, offset_ms) in (1..).zip(offsets_ms) {
        clocks.ask(u64::from(seat), NOW_MS);
        let theirs_ms = (NOW_MS + 50).saturating_add_signed(*offset_ms);
        clocks.answered(
            MemberIndex(seat),
            u64::from(seat),
            theirs_ms,
            NOW_MS + 100,
            1_000,
        );
    }
    clocks.reckon(committee, ME, 500);
    clocks
}

#[test]
fn a_clock_that_is_off_follows_the_others_and_a_good_one_no_liar() {
    let four = committee(0, &[1, 2, 3, 4]);
    let corrected = |offsets: &[i64]| measured(&four, offsets).correction_ms();
    // Ours is an hour ahead, or behind.
    assert_eq!(corrected(&[-3_600_000; 3]), -3_599_500);
    assert_eq!(corrected(&[3_600_000, 3_600_010]), 3_599_500);
    // One other is.
    assert_eq!(corrected(&[20, 3_600_000, -10]), 0);
    assert_eq!(corrected(&[20, -3_600_000, -10]), 0);
    assert_eq!(corrected(&[20, i64::MIN]), 0);
    assert_eq!(corrected(&[20, i64::MAX]), 0);
    // Small differences are left alone.
    assert_eq!(corrected(&[400, 450, 470]), 0);
    // Two of four are no quorum: one of them may lie.
    assert_eq!(corrected(&[-3_600_000]), 0);
    assert_eq!(measured(&four, &[7]).median_ms(&four, ME), None);
}

#[test]
fn a_slow_answer_moves_what_is_believed_no_further_than_it_must() {
    let four = committee(0, &[1, 2, 3, 4]);
    let mut clocks = Clocks::new(4);
    let mut answer = |seat, number, offset_ms: i64, took_ms| {
        clocks.ask(number, NOW_MS);
        // Read when it was asked.
        let theirs_ms = NOW_MS.saturating_add_signed(offset_ms);
        clocks.answered(
            MemberIndex(seat),
            number,
            theirs_ms,
            NOW_MS + took_ms,
            1_000,
        );
        clocks.offsets_ms()[usize::from(seat)]
    };
    // It may well show what ours does, whatever the answer's way took.
    assert_eq!(answer(1, 1, 0, 9_000), Some(0));
    // It cannot: a minute behind by what it said, less by at most what the answer took.
    assert_eq!(answer(1, 2, -60_000, 9_000), Some(-60_000));
    assert_eq!(answer(2, 3, -60_000, 5_000), Some(-60_000));
    assert_eq!(answer(3, 4, 60_000, 5_000), Some(55_000));
    // A prompt one measures; after that a slow one that agrees changes nothing.
    assert_eq!(answer(3, 5, 60_100, 200), Some(60_000));
    assert_eq!(answer(3, 6, 59_900, 5_000), Some(59_900));
    assert_eq!(answer(3, 7, 62_000, 9_000), Some(59_900));
    clocks.reckon(&four, ME, 500);
    // Members 1 and 2 and ourselves: we are the one that is off.
    assert_eq!(clocks.correction_ms(), -59_500);
}

#[test]
fn only_answers_to_known_questions_measure() {
    let four = committee(0, &[1, 2, 3, 4]);
    let mut clocks = Clocks::new(4);
    clocks.answered(MemberIndex(1), 7, NOW_MS, NOW_MS, 1_000);
    assert_eq!(clocks.offsets_ms(), [None; 4]);
    for number in 9..=9 + QUESTIONS_MAX as u64 {
        clocks.ask(number, NOW_MS);
    }
    assert_eq!(clocks.asked.len(), QUESTIONS_MAX);
    clocks.answered(MemberIndex(1), 9, NOW_MS, NOW_MS, 1_000);
    assert_eq!(clocks.offsets_ms(), [None; 4]);
    clocks.answered(MemberIndex(1), 10, u64::MAX, NOW_MS, 1_000);
    assert_eq!(clocks.offsets_ms()[1], Some(OFFSET_MAX_MS));
    clocks.reckon(&four, ME, 500);
    assert_eq!(clocks.time_ms(NOW_MS), NOW_MS);
}

#[test]
fn what_is_known_of_a_clock_goes_with_its_key() {
    let (old, new) = (committee(0, &[1, 2, 3, 4]), committee(1, &[9, 4, 1, 3]));
    let clocks = measured(&old, &[-5_000, -6_000, -7_000]).renumbered(&old, &new);
    assert_eq!(
        clocks.offsets_ms(),
        [None, Some(-7_000), None, Some(-6_000)]
    );
    assert_eq!(clocks.time_ms(10_000), 10_000 - 5_500);
    assert_eq!(clocks.shown_ms(clocks.time_ms(10_000)), 10_000);
}
