use super::*;

/// What is no kernel's cannot be entered.
fn look(named: Option<&Path>, mountinfo: &str, own: &str) -> Parents {
    find_in(named, mountinfo, own, |_| Ok(()))
}

/// What a host with version 1 mounted below a directory says of its mounts.
fn v1_mounts(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
         32 31 0:29 / {dir}/cpu rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct\n\
         35 31 0:32 / {dir}/memory rw,relatime - cgroup cgroup rw,memory\n\
         39 31 0:36 / {dir}/pids rw,relatime - cgroup cgroup rw,pids\n\
         40 31 0:37 / {dir}/systemd rw,relatime - cgroup cgroup rw,name=systemd\n\
         41 31 0:38 / {dir}/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
    )
}

fn make(dir: &Path, names: &[&str]) {
    for name in names {
        fs::create_dir_all(dir.join(name)).expect("a directory");
    }
}

#[test]
fn under_version_1_what_the_operator_made_is_used_in_each_hierarchy_that_has_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    make(
        dir.path(),
        &["cpu/dagger", "memory/dagger", "pids", "systemd/dagger"],
    );
    for named in ["dagger", "/dagger"] {
        let found = look(Some(Path::new(named)), &v1_mounts(dir.path()), "");
        let found = found.expect("two hierarchies have it");
        let seen: Vec<_> = found.iter().map(|p| (p.version, p.dir.clone())).collect();
        let wanted = ["cpu", "memory"].map(|h| (Version::V1, dir.path().join(h).join("dagger")));
        assert_eq!(seen, wanted);
        assert_eq!(found[0].resources, [Resource::Cpu]);
        assert_eq!(found[1].resources, [Resource::Memory]);
    }
    let nobody_enters = |_: &Path| Err(io::Error::from(io::ErrorKind::PermissionDenied));
    let named = Some(Path::new("dagger"));
    let why = find_in(named, &v1_mounts(dir.path()), "", nobody_enters);
    assert!(why.is_err(), "what cannot be entered is not claimed");
    let left: Vec<_> = fs::read_dir(dir.path().join("cpu/dagger"))
        .expect("it is there")
        .collect();
    assert!(left.is_empty(), "what it tried with is gone");
}

#[test]
fn nothing_is_divided_that_was_not_given() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    make(
        dir.path(),
        &["cpu", "memory", "pids", "unified/system/daemon"],
    );
    let mounts = v1_mounts(dir.path());
    let why = |named: Option<&str>, mounts: &str, own: &str| {
        look(named.map(Path::new), mounts, own).expect_err("nothing was given")
    };
    assert!(why(None, &mounts, "0::/system/daemon\n").contains("delegated to the daemon"));
    assert!(why(None, &mounts, "0::/\n").contains("delegated to the daemon"));
    assert!(why(None, "", "0::/\n").contains("no control groups mounted"));
    let only_v1 = mounts.lines().filter(|l| !l.contains("cgroup2"));
    let only_v1: Vec<_> = only_v1.collect();
    assert!(why(None, &only_v1.join("\n"), "4:memory:/x\n").contains("v1 only"));
    assert!(why(Some("dagger"), &mounts, "").contains("memory/dagger"));
    for nonsense in ["", "/", "..", "../x", "a/../b", "."] {
        let why = why(Some(nonsense), &mounts, "");
        assert!(why.contains("names no group"), "{nonsense:?}: {why}");
    }
    let untouched = |d: &str| {
        fs::read_dir(dir.path().join(d))
            .expect("it is there")
            .count()
            == 0
    };
    assert!(
        ["cpu", "memory", "pids", "unified/system/daemon"]
            .into_iter()
            .all(untouched)
    );
}

#[test]
fn version_2_goes_before_version_1_and_nothing_is_bounded_twice() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    make(dir.path(), &["cpu/g", "memory/g", "pids/g", "unified/g"]);
    let v2 = dir.path().join("unified/g");
    fs::write(v2.join("cgroup.controllers"), "cpuset memory pids\n").expect("written");
    fs::write(v2.join(BELOW), "memory pids\n").expect("written");
    let found = look(Some(Path::new("g")), &v1_mounts(dir.path()), "");
    let found = found.expect("both interfaces have it");
    let seen: Vec<_> = found
        .iter()
        .map(|p| (p.version, p.resources.clone()))
        .collect();
    let wanted = [
        (Version::V2, vec![Resource::Memory, Resource::Pids]),
        (Version::V1, vec![Resource::Cpu]),
    ];
    assert_eq!(seen, wanted);
}
