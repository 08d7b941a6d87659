//! Finding and ending processes by the directory they name.

use super::*;
use std::process::Stdio;

#[test]
fn processes_of_a_network_are_found_and_ended() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("dagger");
    std::os::unix::fs::symlink("/bin/sh", &program).unwrap();
    let mut bystander = Command::new("sh")
        .args(["-c", "read line; true", "sh"])
        .arg(dir.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Command::new(&program)
        .args(["-c", "read line; true", "sh"])
        .arg(dir.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    // Held here: `wait` would close the child's input and so end it.
    let input = child.stdin.take();
    let pid = child.id().cast_signed();
    while !of_network(dir.path())
        .unwrap()
        .iter()
        .any(|found| found.pid == pid)
    {
        std::thread::sleep(Duration::from_millis(5));
    }
    // Its parent must reap it before it is gone from /proc.
    let reaper = std::thread::spawn(move || child.wait());
    kill_network(dir.path()).unwrap();
    assert!(!reaper.join().unwrap().unwrap().success());
    drop(input);
    assert_eq!(of_network(dir.path()).unwrap(), []);
    assert!(
        bystander.try_wait().unwrap().is_none(),
        "another program was ended"
    );
    drop(bystander.stdin.take());
    bystander.wait().unwrap();
}

#[test]
fn nodes_name_the_network_and_hypervisors_work_in_it() {
    let found = |line: &str, directory: &str| Found {
        pid: 1,
        command_line: line.into(),
        directory: directory.into(),
    };
    let net = Path::new("/d/net");
    assert!(found("/x/dagger node run --data /d/net/nodes/alpha", "/").is_of(net));
    assert!(
        found(
            "/usr/bin/qemu-system-x86_64 -name x",
            "/d/net/nodes/alpha/vms/1-1"
        )
        .is_of(net)
    );
    assert!(!found("/usr/bin/qemu-system-x86_64 -name x", "/d/other").is_of(net));
    assert!(!found("vi /d/net/nodes/alpha/node.toml", "/d/net").is_of(net));
    assert!(!found("/x/dagger vm-shim --dir /y/qemu-system", "/y").is_hypervisor());
}
