use super::*;

fn compared(median_ms: i64, correction_ms: i64) -> ReplicaStatus {
    ReplicaStatus {
        clock_offsets_ms: vec![None, Some(median_ms), Some(median_ms), None],
        clock_median_ms: Some(median_ms),
        clock_correction_ms: correction_ms,
        ..ReplicaStatus::default()
    }
}

#[test]
fn a_clock_is_judged_by_what_the_members_would_see() {
    let unknown = clock(&ReplicaStatus::default(), 0);
    assert_eq!(unknown.verdict, Verdict::Warn);
    let good = clock(&compared(20, 0), 1);
    assert_eq!(good.verdict, Verdict::Ok, "{}", good.text);
    // Stepped an hour ahead: the node's own clock has not followed, and is right.
    let stepped = clock(&compared(20, 0), 3_600_000);
    assert_eq!(stepped.verdict, Verdict::Warn);
    assert!(
        stepped.text.contains("3599.980 s ahead"),
        "{}",
        stepped.text
    );
    // An hour behind from the start.
    let behind = clock(&compared(3_600_000, 3_599_500), 0);
    assert_eq!(behind.verdict, Verdict::Fail);
    assert!(behind.text.contains("-3600.000 s ahead"), "{}", behind.text);
}

#[test]
fn a_disk_is_judged_by_what_is_free() {
    let gib = 1 << 30;
    let verdict = |free, total| disk_verdict(free, total, "events 0 KiB").verdict;
    assert_eq!(verdict(50 * gib, 100 * gib), Verdict::Ok);
    assert_eq!(verdict(9 * gib, 100 * gib), Verdict::Warn);
    assert_eq!(verdict(gib / 4, gib), Verdict::Fail);
    let text = disk_verdict(3 * gib / 2, 2 * gib, "events 4 KiB").text;
    assert_eq!(text, "1.5 GiB of 2.0 GiB free; events 4 KiB");
}

#[test]
fn use_of_a_directory_is_what_its_files_take_up() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(bytes_in(&dir.path().join("none")), 0);
    fs::create_dir(dir.path().join("deep")).unwrap();
    fs::write(dir.path().join("deep/file"), vec![1; 10_000]).unwrap();
    // A hole takes up nothing.
    let sparse = fs::File::create(dir.path().join("sparse")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    let bytes = bytes_in(dir.path());
    assert!((10_000..1 << 20).contains(&bytes), "{bytes}");
    assert_eq!(bytes_in(&dir.path().join("none")), 0);
}

#[test]
fn guests_are_bounded_only_if_all_is() {
    use dagger_vmm::Resource;
    let some = |which: &[Resource]| bounds(Ok((which.to_vec(), "/x".into())));
    let all = some(&Resource::ALL);
    assert_eq!(all.verdict, Verdict::Ok);
    let without_memory = some(&[Resource::Cpu, Resource::Pids]);
    assert_eq!(without_memory.verdict, Verdict::Warn);
    let none = bounds(Err("no control group was delegated".into()));
    assert_eq!(none.verdict, Verdict::Warn);
    assert!(none.text.contains("was delegated"), "{}", none.text);
}

#[test]
fn few_open_files_and_a_loose_durability_are_warned_of() {
    assert_eq!(open_files(1_024).verdict, Verdict::Warn);
    assert_eq!(open_files(65_536).verdict, Verdict::Ok);
    assert_eq!(durability(Durability::Os).verdict, Verdict::Warn);
    assert_eq!(state(NodeState::Halted).verdict, Verdict::Fail);
}
