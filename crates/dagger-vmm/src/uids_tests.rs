use super::*;

#[test]
fn a_range_is_what_both_files_give_to_the_user_by_name_or_number() {
    let users = "# who\nalice:100000:65536\ndagger:200000:1000\ndagger:300000:65536\n";
    let groups = "dagger:300100:65536\n1000:200000:500\n";
    assert_eq!(
        common(users, groups, Some("dagger"), 1000),
        Some(300_100..365_536)
    );
    assert_eq!(
        common(users, "1000:200000:500", Some("dagger"), 1000),
        Some(200_000..200_500)
    );
    assert_eq!(common(users, groups, Some("alice"), 1001), None);
    assert_eq!(common("bob:0:10", "bob:0:10", Some("bob"), 7), Some(1..10));
    for nonsense in [
        "dagger",
        "dagger:x:1",
        "dagger:1",
        "dagger:4294967295:2",
        "",
    ] {
        assert_eq!(
            common(nonsense, groups, Some("dagger"), 7),
            None,
            "{nonsense}"
        );
    }
}

#[test]
fn every_instance_gets_a_user_of_its_own_while_there_are_any() {
    let range = 1_000..1_004;
    let mut taken = BTreeSet::new();
    for instance in 0..4 {
        let dir = format!("/vms/{instance}-1");
        let user = choose(&range, Path::new(&dir), &taken).expect("there are some left");
        assert!(range.contains(&user) && taken.insert(user));
        assert_ne!(Some(user), choose(&range, Path::new(&dir), &taken));
    }
    assert_eq!(choose(&range, Path::new("/vms/9-1"), &taken), None);
    assert_eq!(
        choose(&(7..7), Path::new("/vms/9-1"), &BTreeSet::new()),
        None
    );
}

#[test]
fn what_lies_in_a_private_directory_is_not_everybodys_to_run() {
    assert!(everybody_may_run(Path::new("/bin/sh")));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let program = dir.path().join("qemu");
    fs::copy("/bin/sh", &program).expect("it is copied");
    let open_to = |mode| {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).expect("it is ours");
        everybody_may_run(&program)
    };
    assert!(open_to(0o755) && !open_to(0o700));
    assert!(!everybody_may_run(&dir.path().join("missing")));
}
