use super::*;

#[test]
fn valgrinds_count_is_read() {
    let report = "==7== Cachegrind\n==7== I refs:        1,234,567\n";
    assert_eq!(references(report), Some(1_234_567));
    assert_eq!(references("==7== nothing\n"), None);
}

#[test]
fn a_change_counts_in_both_directions() {
    assert!(is_within(1_029, 1_000) && is_within(971, 1_000));
    assert!(!is_within(1_031, 1_000) && !is_within(969, 1_000));
}

#[test]
fn every_path_is_pinned() {
    let pinned = Pinned::read().unwrap();
    let paths: Vec<&str> = PATHS.iter().map(|path| path.name).collect();
    assert!(paths.iter().all(|name| pinned.counts.contains_key(*name)));
    assert_eq!(pinned.counts.len(), paths.len());
    assert!(pinned.compiler.starts_with("rustc 1."));
}

#[test]
fn another_compiler_is_not_compared() {
    if has_avx2() {
        assert_eq!(incomparable("rustc 1.95.0", "rustc 1.95.0"), None);
    }
    assert!(incomparable("rustc 1.95.0", "rustc 1.96.0").is_some());
}
