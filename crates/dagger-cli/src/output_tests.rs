use super::*;

#[test]
fn sizes_read_well() {
    assert_eq!(mib(512), "512M");
    assert_eq!(mib(4096), "4G");
    assert_eq!(mib(1 << 20), "1T");
}

#[test]
fn times_read_well() {
    assert_eq!(ago(100_000, 40_000), "60s");
    assert_eq!(ago(1_000, 5_000), "0s", "a clock that is behind");
    assert_eq!(ago(10_000_000, 0), "2h");
    assert_eq!(clock(1_800_000_000_123), "08:00:00.123");
    assert_eq!(date(1_800_000_000_123), "2027-01-15 08:00:00 UTC");
}

#[test]
fn digests_are_shortened() {
    assert_eq!(short(&"ab".repeat(32)), "abababababab…");
    assert_eq!(short("ab"), "ab");
}
