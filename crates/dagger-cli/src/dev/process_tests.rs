use super::*;

fn kind(line: &str) -> Option<Kind> {
    let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
    kind_of(&words)
}

#[test]
fn tells_our_processes_from_bystanders() {
    assert_eq!(
        kind("/x/dagger node run --data /d/nodes/alpha"),
        Some(Kind::Node)
    );
    assert_eq!(
        kind("/x/dagger vm-shim --dir /d/nodes/alpha/vms/1-1"),
        Some(Kind::Shim)
    );
    assert_eq!(
        kind("/usr/bin/qemu-system-x86_64 -name x"),
        Some(Kind::Hypervisor)
    );
    for bystander in [
        "vi /d/nodes/alpha/node.toml",
        "tail -f /d/logs/alpha.log",
        "dagger dev status",
        "node run",
    ] {
        assert_eq!(kind(bystander), None, "{bystander}");
    }
}

#[test]
fn finds_nothing_in_an_empty_directory() {
    let directory = tempfile::tempdir().unwrap();
    assert!(below(directory.path()).unwrap().is_empty());
}

#[test]
fn a_child_that_works_there_is_found_and_killed_and_a_bystander_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap();
    let log = root.join("alpha.log");
    std::fs::write(&log, "").unwrap();
    let mut bystander = Command::new("tail")
        .arg("-f")
        .arg(&log)
        .current_dir(&root)
        .spawn()
        .unwrap();
    let hypervisor = root.join("qemu-system-test");
    std::os::unix::fs::symlink("/bin/sleep", &hypervisor).unwrap();
    let mut vm = Command::new(&hypervisor)
        .arg("600")
        .current_dir(&root)
        .spawn()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let reaper = std::thread::spawn(move || vm.wait().unwrap());
    runtime.block_on(kill_all(&root)).unwrap();
    assert!(!reaper.join().unwrap().success());
    assert!(bystander.try_wait().unwrap().is_none());
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn what_a_shim_started_for_its_guest_goes_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap();
    let (shim, pasta, pid) = (root.join("dagger"), root.join("pasta"), root.join("pid"));
    // A shell as the shim: its first word is the script that it runs.
    std::os::unix::fs::symlink("/bin/sh", &shim).unwrap();
    std::os::unix::fs::symlink("/bin/sleep", &pasta).unwrap();
    let script = format!(
        "cd /; {} 600 & echo $! >{pid}.new; mv {pid}.new {pid}; wait",
        pasta.display(),
        pid = pid.display()
    );
    std::fs::write(root.join("vm-shim"), script).unwrap();
    let mut shim = Command::new(&shim);
    shim.args(["vm-shim", "--dir"])
        .arg(root.join("1-1"))
        .current_dir(&root);
    let mut shim = shim.spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while !pid.exists() {
        assert!(Instant::now() < end, "the shim does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid: i32 = std::fs::read_to_string(&pid)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let reaper = std::thread::spawn(move || shim.wait().unwrap());
    runtime.block_on(kill_all(&root)).unwrap();
    reaper.join().unwrap();
    // Gone, or nobody has taken note of its end yet.
    while command_line(pid).is_some_and(|words| !words.is_empty()) {
        assert!(Instant::now() < end, "it outlives its shim");
        std::thread::sleep(Duration::from_millis(5));
    }
}
