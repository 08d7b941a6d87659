use super::*;

/// A program that stands in for a test program.
fn suite(directory: &Path, script: &str) -> Suite {
    let program = directory.join("suite");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).unwrap();
    Suite {
        name: "s".into(),
        program,
        home: directory.into(),
        usual: Duration::ZERO,
    }
}

#[test]
fn the_first_failing_test_is_named_and_the_rest_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let script = format!(
        "echo 'test a ... ok'\n[ ${VARIABLE} = 3 ] && echo 'test b::c ... FAILED' && exec sleep 1000\n\
         [ ${VARIABLE} = 4 ] && exit 1\necho 'test result: ok. 1 passed; 0 failed'"
    );
    let suites = [suite(directory.path(), &script)];
    let verdict = |number| against(&suites, number, None).unwrap();
    assert_eq!(verdict(1), Verdict::Survived);
    let killed = Verdict::Killed {
        suite: "s".into(),
        test: "b::c".into(),
    };
    assert_eq!(verdict(3), killed);
    assert_eq!(verdict(4), Verdict::Aborted("s".into()));
}

#[test]
fn what_killed_it_before_is_tried_first_and_what_computes_for_ever_is_stuck() {
    let directory = tempfile::tempdir().unwrap();
    let script = format!(
        "[ \"$1 $2\" = '--exact b' ] && [ ${VARIABLE} = 1 ] && echo 'test b ... FAILED' && exit 1\n\
         [ ${VARIABLE} = 2 ] && ulimit -S -t 1 && while :; do :; done\n\
         echo 'test result: ok. 1 passed; 0 failed'"
    );
    let suites = [suite(directory.path(), &script)];
    let killed = Verdict::Killed {
        suite: "s".into(),
        test: "b".into(),
    };
    assert_eq!(against(&suites, 1, Some(&killed)).unwrap(), killed);
    // Where the test of then passes, or its program is gone, all are run.
    let gone = Verdict::Stuck("t".into());
    for before in [None, Some(&killed), Some(&gone)] {
        assert_eq!(against(&suites, 3, before).unwrap(), Verdict::Survived);
    }
    assert_eq!(
        against(&suites, 2, None).unwrap(),
        Verdict::Stuck("s".into())
    );
}

#[test]
fn verdicts_are_remembered_for_the_source_they_are_of() {
    let directory = tempfile::tempdir().unwrap();
    let open = |source: &str| {
        let path = directory.path().join("verdicts.json");
        crate::mutants::memory::Memory::open(path, source.into())
    };
    let stuck = Verdict::Stuck("s".into());
    open("one").note("a", stuck.clone()).unwrap();
    open("one").note("b", Verdict::Survived).unwrap();
    assert!(open("one").is_killed("a"));
    assert!(!open("two").is_killed("a"), "the source is another now");
    assert_eq!(open("two").before("a"), Some(&stuck));
    assert!(!open("one").is_killed("b") && !open("one").is_killed("c"));
}
