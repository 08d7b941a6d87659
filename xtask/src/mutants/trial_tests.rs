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
    assert_eq!(against(&suites, 1).unwrap(), Verdict::Survived);
    assert_eq!(
        against(&suites, 3).unwrap(),
        Verdict::Killed("s b::c".into())
    );
    assert_eq!(against(&suites, 4).unwrap(), Verdict::Aborted("s".into()));
}
