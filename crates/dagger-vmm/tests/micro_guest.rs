//! Real QEMU, the micro guest, the OpenSSH client. Few boots, many claims per boot: emulation is slow.

mod support;

use std::os::unix::fs::PermissionsExt;

use dagger_vmm::{Host, InstanceId, InstanceState, StopCode, StopMode};
use nix::sys::signal::Signal;
use support::{Customer, alive, console, port, shim, signal, until, until_stopped, until_up};

async fn ssh_until_it_answers(host: &Host, id: InstanceId) {
    until("the guest's ssh server answers", || async {
        host.ssh_answers(id).await.then_some(())
    })
    .await;
}

fn text(output: &std::process::Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_boots_is_reached_by_its_verified_key_outlives_its_daemon_and_stops_gracefully() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let id = InstanceId {
        vm: 1,
        lease_epoch: 1,
    };
    let (customer, mut spec) = Customer::with_guest(id);
    spec.seed.user_data = Some("#!/bin/sh\necho user-data ran >/run/proof\n".into());
    let host = Host::open(data.path().join("vms"), shim()).expect("it opens");
    host.start(&spec, None)
        .await
        .expect("QEMU starts (Debian: apt-get install qemu-system-x86)");
    host.start(&spec, None)
        .await
        .expect("starting again changes nothing");
    let first = until_up(&host, id).await;
    let mode = std::fs::metadata(data.path().join("vms/1-1"))
        .expect("the directory is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);

    ssh_until_it_answers(&host, id).await;
    let ssh_port = port(&host, id, 22).await;
    let said = text(
        &customer
            .ssh(ssh_port, "root", "hostname; uname -s; ls /run/seed")
            .await,
    );
    assert!(said.starts_with("web\nLinux\n"), "{said}");
    assert!(
        !said.contains("host_key"),
        "the host's private key is not left lying about: {said}"
    );
    assert_eq!(
        text(&customer.ssh(ssh_port, "dagger", "id -un").await),
        "dagger\n"
    );
    until("the user-data ran", || async {
        let output = customer.ssh(ssh_port, "root", "cat /run/proof").await;
        output.status.success().then_some(())
    })
    .await;

    // Another key is turned away by the guest; another host key, by the client.
    let (stranger, _) = Customer::with_guest(InstanceId {
        vm: 1,
        lease_epoch: 9,
    });
    let refused = stranger.ssh(ssh_port, "root", "true").await;
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("Host key verification failed"),
        "{refused:?}"
    );

    // The guest reaches neither the host's loopback nor anything else.
    let escape = "for a in 10.0.2.2 127.0.0.1 169.254.169.254 10.0.2.3; do nc -w 2 $a PORT </dev/null && echo reached $a; done; true";
    let listener = std::net::TcpListener::bind("0.0.0.0:0").expect("a port");
    let listening = listener
        .local_addr()
        .expect("it is bound")
        .port()
        .to_string();
    assert_eq!(
        text(
            &customer
                .ssh(ssh_port, "root", &escape.replace("PORT", &listening))
                .await
        ),
        ""
    );

    // A new daemon knows the instance from the directory and the shim alone.
    drop(host);
    let host = Host::open(data.path().join("vms"), shim()).expect("it opens");
    let adopted = host.list().await;
    assert_eq!(adopted.len(), 1);
    assert_eq!(
        (adopted[0].qemu_pid, &adopted[0].state),
        (first.qemu_pid, &InstanceState::Up)
    );
    ssh_until_it_answers(&host, id).await;

    host.stop(
        id,
        StopMode::Graceful {
            deadline_ms: 120_000,
        },
    )
    .await
    .expect("it is asked to stop");
    let (code, words) = until_stopped(&host, id).await;
    assert_eq!(code, StopCode::Stopped, "{words}\n{}", console(&host, id));
    assert!(
        console(&host, id).contains("dagger-guest: power button, going down"),
        "{}",
        console(&host, id)
    );
    assert!(!alive(first.qemu_pid.expect("it ran")));
    host.remove(id).await.expect("it is removed");
    host.remove(id)
        .await
        .expect("removing again changes nothing");
    assert!(host.list().await.is_empty());
    assert!(!data.path().join("vms/1-1").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qemu_dies_with_its_shim_and_the_lease_stops_a_guest_without_the_daemon() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let (_customer, spec) = Customer::with_guest(InstanceId {
        vm: 2,
        lease_epoch: 1,
    });
    let host = Host::open(data.path().to_owned(), shim()).expect("it opens");

    host.start(&spec, None).await.expect("QEMU starts");
    let status = until_up(&host, spec.id).await;
    let (qemu, shim_pid) = (
        status.qemu_pid.expect("it runs"),
        status.shim_pid.expect("it runs"),
    );
    signal(shim_pid, Signal::SIGKILL);
    let (code, _) = until_stopped(&host, spec.id).await;
    assert_eq!(code, StopCode::ShimDied);
    until("QEMU is gone", || async { (!alive(qemu)).then_some(()) }).await;

    // The same instance again, on its old disk, with a lease that nobody renews.
    let deadline = Host::boottime_ms() + 20_000;
    host.start(&spec, Some(deadline))
        .await
        .expect("a stopped instance starts again");
    let status = until_up(&host, spec.id).await;
    assert_eq!(status.lease_deadline_boottime_ms, Some(deadline));
    let qemu = status.qemu_pid.expect("it runs");
    host.renew(spec.id, deadline + 1_000)
        .await
        .expect("it is renewed");
    drop(host); // the daemon is gone
    until("the watchdog stops QEMU", || async {
        (!alive(qemu)).then_some(())
    })
    .await;
    assert!(
        Host::boottime_ms() >= deadline + 1_000,
        "the renewal counted"
    );
    let host = Host::open(data.path().to_owned(), shim()).expect("it opens");
    let (code, _) = until_stopped(&host, spec.id).await;
    assert_eq!(code, StopCode::LeaseExpired);
    host.remove(spec.id).await.expect("it is removed");
}
