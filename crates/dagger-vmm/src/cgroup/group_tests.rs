use super::*;
use crate::spec::tests::spec;

/// A directory with the files that the kernel would make in a group.
fn fake(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in files {
        fs::write(dir.path().join(name), text).expect("it is written");
    }
    dir
}

fn parent(version: Version) -> Parent {
    Parent {
        version,
        dir: "/nowhere".into(),
        resources: Resource::ALL.to_vec(),
    }
}

fn text(dir: &tempfile::TempDir, name: &str) -> String {
    fs::read_to_string(dir.path().join(name)).expect("it is there")
}

/// A group of one part; it has no directory to clear away when it is dropped.
fn group(mut part: Part) -> (Group, PathBuf) {
    let dir = std::mem::replace(&mut part.dir, "/nowhere".into());
    let group = Group {
        parts: vec![part],
        memory_mib: 7,
        complaints: Vec::new(),
    };
    (group, dir)
}

#[test]
fn a_group_of_version_2_gets_its_bounds_and_counts_its_own_kills() {
    let dir = fake(&[
        ("cgroup.procs", ""),
        ("memory.max", ""),
        (
            "memory.events",
            "low 0\nmax 3\noom 1\noom_kill 2\noom_group_kill 1\n",
        ),
        ("cpu.max", ""),
        ("pids.max", ""),
    ]);
    let (part, complaints) =
        Part::bounded(&parent(Version::V2), dir.path(), &spec()).expect("it is bounded");
    assert_eq!(
        complaints, [""; 0],
        "what a kernel may lack is no complaint"
    );
    assert_eq!(
        text(&dir, "memory.max"),
        ((256 + 2 + 512 + 8) << 20).to_string()
    );
    assert_eq!(text(&dir, "cpu.max"), "200000 100000");
    assert_eq!(text(&dir, "pids.max"), "257");
    assert_eq!(
        text(&dir, "cgroup.procs"),
        "0",
        "a child has tried to enter"
    );
    let (mut group, dir) = group(part);
    group.parts[0].dir = dir;
    assert_eq!(group.oom_kills(), Some(2));
    assert_eq!(group.memory_mib(), Some(7));
    let (held, text) = group.describe();
    assert_eq!(held, Resource::ALL);
    assert_eq!(text, "a cgroup (v2) bounds memory, cpu, pids");
    group.parts.clear();
}

#[test]
fn a_bound_that_the_kernel_does_not_take_is_not_claimed() {
    let dir = fake(&[
        ("cgroup.procs", ""),
        ("memory.limit_in_bytes", ""),
        (
            "memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n",
        ),
        ("cpu.cfs_period_us", ""),
    ]);
    let (part, complaints) =
        Part::bounded(&parent(Version::V1), dir.path(), &spec()).expect("some is bounded");
    assert_eq!(part.resources, [Resource::Memory]);
    assert_eq!(complaints.len(), 2, "{complaints:?}");
    assert!(complaints[0].contains("cpu is not bounded: cpu.cfs_quota_us"));
    assert!(complaints[1].contains("pids is not bounded: pids.max"));
    let (mut group, dir) = group(part);
    group.parts[0].dir = dir;
    assert_eq!(group.oom_kills(), Some(5));
    group.parts.clear();
    let nothing = fake(&[("cgroup.procs", "")]);
    let refused = Part::bounded(&parent(Version::V1), nothing.path(), &spec());
    assert!(refused.is_err(), "a group that bounds nothing is none");
}

#[test]
fn without_a_group_nothing_is_claimed_and_why_is_said() {
    let nowhere = Parent {
        dir: "/nowhere/to/be/found".into(),
        ..parent(Version::V2)
    };
    let group = Group::make(&[nowhere], "guest-x-7-1", &spec());
    let (held, text) = group.describe();
    assert_eq!(
        (held, group.oom_kills(), group.memory_mib()),
        (vec![], None, None)
    );
    assert!(text.contains("/nowhere/to/be/found"), "{text}");
}

#[test]
fn only_groups_of_instances_that_do_not_live_are_swept() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for name in ["guest-a-1-1", "guest-a-2-1", "guest-b-1-1", "daemon"] {
        fs::create_dir(dir.path().join(name)).expect("a directory");
    }
    let here = Parent {
        dir: dir.path().into(),
        ..parent(Version::V2)
    };
    sweep(&[here], "guest-a-", |rest| rest == "2-1");
    let mut left: Vec<_> = fs::read_dir(dir.path())
        .expect("it is there")
        .flatten()
        .map(|e| e.file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["daemon", "guest-a-2-1", "guest-b-1-1"]);
}
