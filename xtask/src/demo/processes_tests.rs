//! Finding and ending processes by the directory they name.

use super::*;
use std::process::Stdio;

#[test]
fn processes_that_name_a_directory_are_found_and_ended() {
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
        .args(["-c", "sleep 600; true", "sh"])
        .arg(dir.path())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let pid = child.id().cast_signed();
    while !naming(dir.path())
        .unwrap()
        .iter()
        .any(|found| found.pid == pid)
    {
        std::thread::sleep(Duration::from_millis(5));
    }
    // Its parent must reap it before it is gone from /proc.
    let reaper = std::thread::spawn(move || child.wait());
    kill_naming(dir.path()).unwrap();
    assert!(!reaper.join().unwrap().unwrap().success());
    assert_eq!(naming(dir.path()).unwrap(), []);
    assert!(
        bystander.try_wait().unwrap().is_none(),
        "another program was ended"
    );
    drop(bystander.stdin.take());
    bystander.wait().unwrap();
}

#[test]
fn a_hypervisor_is_known_by_its_program() {
    let found = |line: &str| Found {
        pid: 1,
        command_line: line.into(),
    };
    assert!(found("/usr/bin/qemu-system-x86_64 -name x").is_hypervisor());
    assert!(!found("/x/dagger vm-shim --dir /y/qemu-system").is_hypervisor());
}

#[test]
fn a_process_tells_which_node_it_belongs_to() {
    let found = Found {
        pid: 1,
        command_line: "qemu -drive file=/d/net/beta/vms/1-2/x,if=none".into(),
    };
    assert_eq!(found.place_in(Path::new("/d/net")), Some("beta"));
    assert_eq!(found.place_in(Path::new("/e")), None);
}
