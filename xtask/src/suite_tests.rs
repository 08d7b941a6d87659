//! The lines that close a run of tests, as the runners print them.

use super::*;

#[test]
fn nextest_closes_with_a_summary() {
    let line = "     Summary [   1.234s] 12 tests run: 9 passed (1 slow, 1 flaky), 2 failed, 1 timed out, 3 skipped";
    assert_eq!(
        counts_of(line),
        Some(Counts {
            passed: 9,
            failed: 3
        })
    );
}

#[test]
fn cargo_test_closes_each_binary() {
    let line = "test result: FAILED. 5 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out";
    assert_eq!(
        counts_of(line),
        Some(Counts {
            passed: 5,
            failed: 2
        })
    );
    let line = "test result: ok. 7 passed; 0 failed; 0 ignored; finished in 0.00s";
    assert_eq!(
        counts_of(line),
        Some(Counts {
            passed: 7,
            failed: 0
        })
    );
}

#[test]
fn other_lines_count_nothing() {
    for line in [
        "test foo ... ok",
        "5 passed, 2 failed",
        "running 3 tests",
        "    test result: FAILED. 0 passed; 1 failed; 0 ignored; finished in 0.00s",
        "",
    ] {
        assert_eq!(counts_of(line), None, "{line}");
    }
}

#[test]
fn colors_do_not_hide_a_summary() {
    let line = "\x1b[32;1m     Summary\x1b[0m [   0.1s] \x1b[1m1\x1b[0m test run: \x1b[1m1\x1b[0m \x1b[32;1mpassed\x1b[0m, 0 skipped";
    assert_eq!(
        counts_of(&without_colors(line)),
        Some(Counts {
            passed: 1,
            failed: 0
        })
    );
}

#[test]
fn the_closing_line_is_plain() {
    let counts = Counts {
        passed: 3,
        failed: 0,
    };
    assert_eq!(counts.to_string(), "3 passed, 0 failed");
}
