//! What control groups hold an emulator to, on a kernel of the test's own: a small guest is booted (emulated) whose cgroups are nobody
//! else's, and the driver runs in it, once under each interface of the kernel. Needs QEMU and the micro guest's packages.

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dagger_vmm::{Host, InstanceId, Resource, StopCode};
use support::{alive, micro_guest, script, shim, signal, spec_without_guest, until, until_stopped};

/// Stands in for QEMU, and does what one may do that was taken over. Which is which goes by the VM's number.
const TAKEN_OVER: &str = r#"
# Asked what it can do, by the host itself, it is no guest's emulator yet.
[ "$1" = -name ] || exit 1
# The control channel and the console stay open: whoever hangs up is killed for that.
exec 3<&0 4>&1
case "$2" in
vm-2-*) exec dd if=/dev/zero of=/dev/null bs=700M count=1 ;;
vm-3-*) while :; do sleep 4711 & done ;;
*) exec sleep 100000 ;;
esac"#;

/// First process of the small guest. `LIMITS` comes from the kernel's command line.
const INIT: &str = r#"#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
chmod 1777 /tmp
groups=/sys/fs/cgroup
run() { echo "as $1"; su -s /bin/sh -c "LIMITS=$LIMITS /limits/test --ignored --exact in_a_guest --nocapture" "$1"; }
case $LIMITS in
v1)
  mount -t tmpfs none $groups
  for name in memory cpu pids; do
    mkdir $groups/$name && mount -t cgroup -o $name none $groups/$name && mkdir $groups/$name/dagger
  done
  run root && echo "held: v1" ;;
v2)
  mount -t cgroup2 none $groups
  for name in memory cpu pids; do echo "+$name" > $groups/cgroup.subtree_control; done
  mkdir -p $groups/unit/daemon
  echo $$ > $groups/unit/daemon/cgroup.procs
  # As systemd leaves what it delegates: first to root, then to a user.
  run root && rmdir $groups/unit/guests &&
    chown dagger $groups/unit $groups/unit/cgroup.procs $groups/unit/cgroup.subtree_control &&
    run dagger && echo "held: v2" ;;
esac
reboot -f
"#;

/// A file of an archive that the kernel unpacks as a part of its first root (newc).
fn archived(path: &str, mode: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = String::from("070701");
    let length = bytes.len() as u32;
    for field in [
        0,
        mode,
        0,
        0,
        1,
        0,
        length,
        0,
        0,
        0,
        0,
        path.len() as u32 + 1,
        0,
    ] {
        out.push_str(&format!("{field:08x}"));
    }
    out.push_str(path);
    out.push('\0');
    let mut out = out.into_bytes();
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend(bytes);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// A program and what it is linked with, where the kernel's loader looks for it.
fn program(path: &str, file: &Path) -> Vec<u8> {
    let read = |file: &Path| std::fs::read(file).expect("it is there");
    let mut out = archived(path, 0o100_755, &read(file));
    let ldd = Command::new("ldd").arg(file).output().expect("ldd runs");
    for library in String::from_utf8_lossy(&ldd.stdout)
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let mut above = String::new();
        for part in Path::new(library)
            .parent()
            .expect("it is absolute")
            .iter()
            .skip(1)
        {
            above = format!("{above}/{}", part.to_string_lossy());
            out.extend(archived(above.trim_start_matches('/'), 0o040_755, &[]));
        }
        out.extend(archived(
            library.trim_start_matches('/'),
            0o100_755,
            &read(Path::new(library)),
        ));
    }
    out
}

/// What the small guest says until it ends.
fn boot(limits: &str) -> String {
    let (kernel, initrd, cmdline) = micro_guest();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut root = std::fs::read(initrd).expect("it is there");
    root.resize(root.len().next_multiple_of(4), 0);
    root.extend(archived("limits", 0o040_755, &[]));
    root.extend(archived("limits/init", 0o100_755, INIT.as_bytes()));
    root.extend(program("limits/vm-shim", &shim()));
    let this = std::env::current_exe().expect("it has a path");
    root.extend(program("limits/test", &this));
    root.extend(archived("TRAILER!!!", 0, &[]));
    let initrd = dir.path().join("initrd");
    std::fs::write(&initrd, root).expect("it is written");
    let output = Command::new("qemu-system-x86_64")
        .args("-nodefaults -no-user-config -no-reboot -display none -serial stdio".split(' '))
        .args("-machine q35,hpet=off -accel tcg,thread=multi -cpu max -smp 2 -m 1200M".split(' '))
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .arg("-append")
        .arg(format!("{cmdline} rdinit=/limits/init LIMITS={limits}"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("QEMU runs (Debian: apt-get install qemu-system-x86)");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn version_1_holds_what_was_taken_over() {
    let said = boot("v1");
    assert!(said.contains("held: v1"), "{said}");
}

#[test]
fn version_2_holds_what_was_taken_over_for_root_and_for_a_user() {
    let said = boot("v2");
    assert!(said.contains("held: v2"), "{said}");
}

fn id(vm: u64) -> InstanceId {
    InstanceId { vm, lease_epoch: 1 }
}

/// Groups of a process that the driver made.
fn groups_of(pid: u32) -> BTreeSet<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
    let groups = text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (hierarchy, path) = (fields.next()?, fields.next()?);
        path.contains("guest-")
            .then(|| PathBuf::from(format!("/sys/fs/cgroup/{hierarchy}{path}")))
    });
    groups.collect()
}

/// Groups of guests that are there at all.
fn groups_below(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name().to_string_lossy().starts_with("guest-") {
                out.push(entry.path());
            }
            out.extend(groups_below(&entry.path()));
        }
    }
    out
}

fn all_groups() -> Vec<PathBuf> {
    groups_below(Path::new("/sys/fs/cgroup"))
}

fn delegate_as_systemd_does() {
    let (path, name) = (c"/sys/fs/cgroup/unit", c"user.delegate");
    let one = b"1";
    // SAFETY: names end in a zero, and the value is as long as is said.
    #[allow(unsafe_code)]
    let done =
        unsafe { nix::libc::setxattr(path.as_ptr(), name.as_ptr(), one.as_ptr().cast(), 1, 0) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// Runs in the small guest, where the cgroups are its own.
#[tokio::test]
#[ignore = "changes the cgroups of the machine: the other tests run it in a guest"]
async fn in_a_guest() {
    let version_1 = std::env::var("LIMITS").expect("the guest says which") == "v1";
    if !version_1 && nix::unistd::geteuid().is_root() {
        delegate_as_systemd_does();
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let qemu = script(dir.path(), TAKEN_OVER);
    let open = || {
        let vms = dir.path().join("vms");
        let (pasta, named) = (dir.path().join("none"), Path::new("dagger"));
        let shim = "/limits/vm-shim".into();
        Host::with_programs(vms, shim, qemu.clone(), pasta, version_1.then_some(named))
            .expect("it opens")
    };
    let host = open();
    let (bounds, text) = host.guest_bounds().expect("groups were given");
    assert_eq!(bounds, Resource::ALL, "{text}");
    let start = async |vm| {
        let spec = spec_without_guest(dir.path(), id(vm));
        host.start(&spec, None).await.expect("the shim starts");
    };
    start(1).await;
    let status = host.status(id(1)).await.expect("it is here");
    let confinement = status.confinement.expect("it was started");
    assert_eq!(confinement.bounds, Resource::ALL, "{confinement:?}");
    let pid = status.qemu_pid.expect("it runs");
    let groups = groups_of(pid);
    assert_eq!(groups.len(), if version_1 { 3 } else { 1 }, "{groups:?}");
    assert!(groups_of(status.shim_pid.expect("it lives")).is_empty());
    bounds_are_set(&groups, version_1);

    eats_memory(&host, start).await;
    // Killed by hand just after another was killed for lack of memory.
    signal(pid, nix::sys::signal::Signal::SIGKILL);
    let (code, text) = until_stopped(&host, id(1)).await;
    assert_eq!(code, StopCode::QemuKilled, "{text}");

    start(3).await;
    let (code, text) = until_stopped(&host, id(3)).await;
    assert_eq!(code, StopCode::QemuFailed, "{text}");
    assert!(text.contains("fork"), "{text}");
    until("nothing that it forked is left", || async {
        host.remove(id(3)).await.expect("nothing is in the way");
        left_sleeping().is_empty().then_some(())
    })
    .await;
    assert_eq!(all_groups(), [""; 0].map(PathBuf::from));

    // A shim that is killed leaves its group to the next daemon, or to the removal.
    for vm in [4, 5] {
        start(vm).await;
        let status = host.status(id(vm)).await.expect("it is here");
        signal(
            status.shim_pid.expect("it lives"),
            nix::sys::signal::Signal::SIGKILL,
        );
        assert_eq!(until_stopped(&host, id(vm)).await.0, StopCode::ShimDied);
    }
    assert_eq!(all_groups().len(), 2 * groups.len());
    host.remove(id(4)).await.expect("nothing is in the way");
    assert_eq!(all_groups().len(), groups.len());
    drop(open());
    assert_eq!(all_groups(), [""; 0].map(PathBuf::from));
}

fn bounds_are_set(groups: &BTreeSet<PathBuf>, version_1: bool) {
    let text = |name: &str| {
        let files = groups.iter().map(|group| group.join(name));
        let text = files
            .into_iter()
            .find_map(|file| std::fs::read_to_string(file).ok());
        text.unwrap_or_else(|| panic!("no {name}"))
            .trim()
            .to_owned()
    };
    let bytes = ((64_u64 + 512 + 8) << 20).to_string();
    assert_eq!(text("pids.max"), "257");
    if version_1 {
        assert_eq!(text("memory.limit_in_bytes"), bytes);
        assert_eq!(text("cpu.cfs_quota_us"), "200000");
    } else {
        assert_eq!(text("memory.max"), bytes);
        assert_eq!(text("cpu.max"), "200000 100000");
    }
}

async fn eats_memory(host: &Host, start: impl AsyncFn(u64)) {
    start(2).await;
    let (code, text) = until_stopped(host, id(2)).await;
    assert_eq!(code, StopCode::OutOfMemory, "{text}");
    assert!(text.contains("584 MiB"), "{text}");
    host.remove(id(2)).await.expect("nothing is in the way");
}

/// Processes that the forking emulator started.
fn left_sleeping() -> Vec<u32> {
    let all = std::fs::read_dir("/proc").expect("it is mounted").flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_one = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.windows(4).any(|word| word == b"4711") && alive(*pid)
    };
    numbers.filter(is_one).collect()
}
