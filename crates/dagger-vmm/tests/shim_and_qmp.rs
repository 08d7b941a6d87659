//! The shim against programs that stand in for QEMU: silent, talking nonsense, dying; and hosts that restart, freeze or
//! find things missing. No guest boots here.

mod support;

use std::os::unix::net::UnixStream;
use std::path::Path;

use dagger_vmm::{
    AccelChoice, Accelerator, BootSource, DiskFormat, Firmware, Host, InstanceId, InstanceSpec,
    InstanceState, StopCode, StopMode, VmmError,
};
use nix::sys::signal::Signal;
use support::{alive, script, shim, signal, until, until_stopped, until_up};

/// Speaks QMP well enough: negotiates, answers everything, quits when told.
const POLITE: &str = r#"printf '{"QMP": {}}\n' >&0
while read -r line; do
  id=${line##*\"id\":}; id=${id%%[,\}]*}
  case "$line" in *'"quit"'*) exit 0;; esac
  printf '{"return": {}, "id": %s}\n' "$id" >&0
done"#;

const ID: InstanceId = InstanceId {
    vm: 5,
    lease_epoch: 1,
};

fn spec(dir: &Path) -> InstanceSpec {
    support::spec_without_guest(dir, ID)
}

/// A host whose QEMU is a script.
fn host_with(qemu: &str) -> (tempfile::TempDir, Host, InstanceSpec) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let qemu = script(dir.path(), qemu);
    // Deeper than a unix socket's path may be long.
    let deep = dir.path().join("d".repeat(120));
    let host = Host::with_qemu(deep, shim(), qemu).expect("it opens");
    let spec = spec(dir.path());
    (dir, host, spec)
}

#[tokio::test]
async fn a_qemu_that_ends_at_once_is_reported_with_its_own_words() {
    let (_dir, host, spec) = host_with("echo 'no such machine' >&2; exit 3");
    host.start(&spec, None).await.expect("the shim starts");
    let (code, text) = until_stopped(&host, ID).await;
    assert_eq!(code, StopCode::QemuFailed);
    assert_eq!(text, "QEMU ended with status 3: no such machine");
    let full = "echo \"disk.qcow2: No space left on device\" >&2; exit 1";
    let (_dir, host, spec) = host_with(full);
    host.start(&spec, None).await.expect("the shim starts");
    assert_eq!(until_stopped(&host, ID).await.0, StopCode::DiskFull);
}

#[tokio::test]
async fn garbage_on_the_control_channel_is_never_taken_for_running() {
    let garbage = "head -c 2000000 /dev/urandom >&0; printf '\\n{}\\n[]\\n{\"return\":{}}\\n' >&0; exec sleep 1000";
    let (_dir, host, spec) = host_with(garbage);
    host.start(&spec, Some(Host::boottime_ms() + 60_000))
        .await
        .expect("the shim starts");
    let status = host.status(ID).await.expect("it is here");
    assert_eq!(status.state, InstanceState::Starting);
    assert!(matches!(host.stop(ID, StopMode::Kill).await, Ok(())));
    assert_eq!(until_stopped(&host, ID).await.0, StopCode::Killed);
    let qemu = status.qemu_pid.expect("it ran");
    until("the stand-in is gone", || async {
        (!alive(qemu)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_silent_qemu_is_stopped_by_its_lease_and_by_the_end_of_patience() {
    let (_dir, host, spec) = host_with("exec sleep 1000");
    host.start(&spec, Some(Host::boottime_ms() + 300))
        .await
        .expect("the shim starts");
    assert_eq!(until_stopped(&host, ID).await.0, StopCode::LeaseExpired);
    host.start(&spec, None).await.expect("it starts again");
    host.stop(ID, StopMode::Graceful { deadline_ms: 100 })
        .await
        .expect("it is asked");
    assert_eq!(until_stopped(&host, ID).await.0, StopCode::StopDeadline);
    host.start(&spec, None).await.expect("it starts again");
    let qemu = host
        .status(ID)
        .await
        .and_then(|s| s.qemu_pid)
        .expect("it runs");
    signal(qemu, Signal::SIGKILL);
    assert_eq!(until_stopped(&host, ID).await.0, StopCode::QemuKilled);
    host.remove(ID).await.expect("it is removed");
}

#[tokio::test]
async fn an_unusable_kvm_is_left_for_tcg_and_remembered_for_this_boot() {
    if !Path::new("/dev/kvm").exists() {
        return; // nothing to fall back from
    }
    let fails_on_kvm =
        format!("case \"$*\" in *'-accel kvm'*) echo 'kvm: broken' >&2; exit 1;; esac\n{POLITE}");
    let (_dir, host, mut spec) = host_with(&fails_on_kvm);
    spec.accel = AccelChoice::Auto;
    host.start(&spec, None).await.expect("the shim starts");
    let status = until_up(&host, ID).await;
    let (accelerator, reason) = status.accelerator.expect("it was chosen");
    assert_eq!(accelerator, Accelerator::Tcg);
    assert!(
        reason.starts_with("KVM does not run guests here: "),
        "{reason}"
    );
    // It stays up: nothing that was due to the first QEMU hits the second.
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert_eq!(
        host.status(ID).await.expect("it is here").state,
        InstanceState::Up
    );
    host.remove(ID).await.expect("it is removed");
    spec.accel = AccelChoice::Kvm;
    host.start(&spec, None).await.expect("the shim starts");
    assert_eq!(until_stopped(&host, ID).await.0, StopCode::KvmUnusable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_start_a_restarted_daemon_and_a_frozen_shim() {
    let (dir, host, spec) = host_with(POLITE);
    let (one, two) = tokio::join!(host.start(&spec, None), host.start(&spec, None));
    one.and(two).expect("both are content");
    let first = until_up(&host, ID).await;
    let mut other = spec.clone();
    other.vcpus = 2;
    let refused = host.start(&other, None).await.expect_err("the id is taken");
    assert_eq!(refused.code(), "E_INSTANCE_EXISTS");

    let deep = dir.path().join("d".repeat(120));
    let again =
        Host::with_qemu(deep.clone(), shim(), dir.path().join("fake-qemu")).expect("it opens");
    let adopted = again.list().await;
    assert_eq!((adopted.len(), adopted[0].qemu_pid), (1, first.qemu_pid));
    assert_eq!(adopted[0].state, InstanceState::Up);
    again
        .renew(ID, Host::boottime_ms() + 600_000)
        .await
        .expect("it is renewed");

    // Nonsense on the socket harms only the one who speaks it.
    let socket = std::fs::File::open(deep.join("5-1")).expect("it opens");
    let path = format!(
        "/proc/self/fd/{}/control.sock",
        std::os::fd::AsRawFd::as_raw_fd(&socket)
    );
    for nonsense in [&b"\xff\n"[..], b"{\"status\": 1}\n", &[b'x'; 100_000]] {
        let mut stream = UnixStream::connect(&path).expect("it listens");
        let _ = std::io::Write::write_all(&mut stream, nonsense);
    }
    assert_eq!(
        again.status(ID).await.expect("it is here").state,
        InstanceState::Up
    );

    // A frozen shim is unknown, since then; removal ends it all the same.
    let (shim_pid, qemu) = (
        first.shim_pid.expect("it runs"),
        first.qemu_pid.expect("it runs"),
    );
    signal(shim_pid, Signal::SIGSTOP);
    let status = again.status(ID).await.expect("it is here");
    assert!(
        matches!(status.state, InstanceState::Unknown { since_ms } if since_ms > 0),
        "{status:?}"
    );
    assert_eq!(
        again
            .renew(ID, u64::MAX)
            .await
            .expect_err("it is silent")
            .code(),
        "E_SHIM_SILENT"
    );
    again.remove(ID).await.expect("it is removed");
    assert!(!alive(shim_pid));
    until("the stand-in is gone", || async {
        (!alive(qemu)).then_some(())
    })
    .await;
    assert!(again.status(ID).await.is_none());
    assert!(!deep.join("5-1").exists());
}

#[tokio::test]
async fn what_is_missing_or_hostile_is_refused_with_a_code_and_leaves_nothing() {
    let (dir, host, spec) = host_with(POLITE);
    let code = async |host: &Host, spec: &InstanceSpec, lease| {
        let error = host.start(spec, lease).await.expect_err("it is refused");
        assert!(
            error.to_string().contains([';', ':']),
            "says what to do: {error}"
        );
        error.code()
    };
    let missing =
        Host::with_qemu(dir.path().join("x"), shim(), "qemu-of-nowhere".into()).expect("it opens");
    assert_eq!(code(&missing, &spec, None).await, "E_QEMU_MISSING");
    assert_eq!(code(&host, &spec, Some(1)).await, "E_LEASE_EXPIRED");
    let mut bad = spec.clone();
    bad.memory_mib = 0;
    assert_eq!(code(&host, &bad, None).await, "E_VM_SPEC_INVALID");
    bad = spec.clone();
    bad.boot = BootSource::Direct {
        kernel: "/nowhere".into(),
        initrd: None,
        cmdline: String::new(),
    };
    assert_eq!(code(&host, &bad, None).await, "E_IMAGE_MISSING");
    let image = dir.path().join("image");
    let mut header = vec![0; 512];
    header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    header[8..16].copy_from_slice(&300_u64.to_be_bytes());
    std::fs::write(&image, header).expect("it is written");
    bad.boot = BootSource::Disk {
        base: image.clone(),
        format: DiskFormat::Qcow2,
        firmware: Firmware::Bios,
    };
    assert_eq!(code(&host, &bad, None).await, "E_IMAGE_REFUSED");
    // The same bytes as raw are just bytes; but a disk smaller than its image is no disk.
    bad.boot = BootSource::Disk {
        base: image,
        format: DiskFormat::Raw,
        firmware: Firmware::Bios,
    };
    bad.disk_mib = 0;
    assert_eq!(code(&host, &bad, None).await, "E_VM_SPEC_INVALID");
    assert!(host.list().await.is_empty());
    let nobody = InstanceId {
        vm: 99,
        lease_epoch: 1,
    };
    assert!(matches!(
        host.renew(nobody, 1).await,
        Err(VmmError::NotFound(_))
    ));
    assert!(matches!(
        host.dial(nobody, 22).await,
        Err(VmmError::NotFound(_))
    ));
    host.remove(nobody).await.expect("removing nothing is fine");
    // An interrupted preparation is told, and can be removed.
    std::fs::create_dir(dir.path().join("d".repeat(120)).join("5-1")).expect("it is made");
    assert_eq!(until_stopped(&host, ID).await.0, StopCode::Incomplete);
    host.start(&spec, None)
        .await
        .expect("it can also be started");
    host.remove(ID).await.expect("it is removed");
}

/// Like [`POLITE`], with a forwarded port, and a connection to it that the guest has taken once there is a file `taken`.
fn forwarding(port: u16) -> String {
    let row = format!("127.0.0.1 {port} 10.0.2.15 22 0 0");
    POLITE.replace(
        "  printf '{\"return\": {}",
        &format!(
            r#"  [ -e taken ] && state=ESTABLISHED || state=SYN_SENT
  case "$line" in *usernet*) printf '{{"return": " TCP[HOST_FORWARD] 11 {row}\\r\\n TCP[%s] 12 {row}\\r\\n", "id": %s}}\n' $state "$id" >&0; continue;; esac
  printf '{{"return": {{}}"#
        ),
    )
}

#[tokio::test]
async fn what_the_guest_never_took_is_offered_again_and_what_it_took_is_waited_for() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("it listens");
    let port = listener.local_addr().expect("it has one").port();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let qemu = script(dir.path(), &forwarding(port));
    let data = dir.path().join("data");
    // Without `pasta` the shim stays in this test's network, where the listener is.
    let host = Host::with_programs(
        data.clone(),
        shim(),
        qemu,
        dir.path().join("no-pasta"),
        None,
    )
    .expect("it opens");
    let spec = spec(dir.path());
    host.start(&spec, None).await.expect("it starts");
    until_up(&host, ID).await;
    let server = tokio::spawn(async move {
        let (mut untaken, _) = listener.accept().await.expect("it is offered");
        let end = tokio::io::AsyncReadExt::read(&mut untaken, &mut [0]).await;
        assert!(matches!(end, Ok(0) | Err(_)), "it is given up");
        std::fs::write(data.join(ID.to_string()).join("taken"), "").expect("it is written");
        loop {
            let (mut taken, _) = listener.accept().await.expect("it is offered again");
            tokio::spawn(async move {
                // A guest among many: slower than most would wait.
                tokio::time::sleep(std::time::Duration::from_secs(4)).await;
                tokio::io::AsyncWriteExt::write_all(&mut taken, b"SSH-2.0-slow\r\n").await
            });
        }
    });
    assert!(host.ssh_answers(ID).await);
    assert!(!server.is_finished(), "the first connection was given up");
    server.abort();
    host.remove(ID).await.expect("it is removed");
}
