//! What the tests with real processes share: a data directory, the micro guest, ssh, and waiting for conditions.
#![allow(dead_code)] // each test file uses its part

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use dagger_vmm::{
    AccelChoice, BootSource, Host, InstanceId, InstanceSpec, InstanceState, InstanceStatus,
    Profile, Seed, StopCode, new_ssh_host_key,
};

/// Generous: time never decides, it only ends a hopeless wait.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// The shim program.
pub fn shim() -> PathBuf {
    env!("CARGO_BIN_EXE_vm-shim").into()
}

/// Waits until the condition gives a value.
pub async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) -> T {
    let since = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(since.elapsed() < PATIENCE, "gave up waiting: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until an instance has stopped; its code and text.
pub async fn until_stopped(host: &Host, id: InstanceId) -> (StopCode, String) {
    until("the instance stops", || async {
        match host.status(id).await.expect("the instance is known").state {
            InstanceState::Stopped { code, text } => Some((code, text)),
            _ => None,
        }
    })
    .await
}

/// Waits until an instance is up.
pub async fn until_up(host: &Host, id: InstanceId) -> InstanceStatus {
    until("the instance is up", || async {
        let status = host.status(id).await.expect("the instance is known");
        if let InstanceState::Stopped { code, text } = &status.state {
            panic!("it stopped: {code}: {text}");
        }
        (status.state == InstanceState::Up).then_some(status)
    })
    .await
}

/// Whether a process is there and no zombie.
pub fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .and_then(|rest| rest.trim().chars().next())
        .is_some_and(|state| state != 'Z' && state != 'X')
}

/// Signals a process that the test started.
pub fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), signal)
        .expect("the process is there");
}

/// Kernel, initrd and command line of the micro guest; built by the repository's own command on first use.
pub fn micro_guest() -> &'static (PathBuf, PathBuf, String) {
    static GUEST: OnceLock<(PathBuf, PathBuf, String)> = OnceLock::new();
    GUEST.get_or_init(|| {
        let output = Command::new(env!("CARGO"))
            .args([
                "run",
                "--quiet",
                "--package",
                "xtask",
                "--",
                "guest",
                "micro",
            ])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "cargo xtask guest micro: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let field = |name: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name} in {text}"))
                .trim()
                .to_owned()
        };
        (
            field("kernel ").into(),
            field("initrd ").into(),
            field("cmdline "),
        )
    })
}

/// A customer's key pair in files, and the specification of a VM that lets it in.
pub struct Customer {
    pub dir: tempfile::TempDir,
    pub host_key_public: String,
}

impl Customer {
    /// Makes a key and a specification of a micro guest.
    pub fn with_guest(id: InstanceId) -> (Self, InstanceSpec) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (private, public) = new_ssh_host_key([3; 32]);
        let key = dir.path().join("id");
        std::fs::write(&key, private).expect("it is written");
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("it is its own");
        let (host_key_pem, host_key_public) = new_ssh_host_key([id.lease_epoch as u8; 32]);
        let (kernel, initrd, cmdline) = micro_guest().clone();
        let spec = InstanceSpec {
            id,
            name: "web".into(),
            account: "acme".into(),
            vcpus: 1,
            memory_mib: 192,
            disk_mib: 64,
            boot: BootSource::Direct {
                kernel,
                initrd: Some(initrd),
                cmdline,
            },
            seed: Seed {
                hostname: "web".into(),
                instance_id: format!("i-{id}"),
                ssh_authorized_keys: vec![public],
                ssh_host_key_pem: host_key_pem,
                user_data: None,
            },
            accel: AccelChoice::Tcg,
            profile: Profile::Q35,
        };
        (
            Self {
                dir,
                host_key_public,
            },
            spec,
        )
    }

    /// Runs a command in the guest with the OpenSSH client, which insists on the expected host key.
    pub async fn ssh(&self, port: u16, user: &str, command: &str) -> Output {
        let known_hosts = self.dir.path().join("known_hosts");
        std::fs::write(&known_hosts, format!("web {}\n", self.host_key_public))
            .expect("it is written");
        tokio::process::Command::new("ssh")
            .args([
                "-F",
                "/dev/null",
                "-o",
                "StrictHostKeyChecking=yes",
                "-o",
                "HostKeyAlias=web",
                "-o",
                "BatchMode=yes",
            ])
            .args([
                "-o",
                "IdentitiesOnly=yes",
                "-o",
                "ConnectTimeout=60",
                "-o",
                "GlobalKnownHostsFile=/dev/null",
            ])
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", known_hosts.display()))
            .arg("-i")
            .arg(self.dir.path().join("id"))
            .args([
                "-p",
                &port.to_string(),
                &format!("{user}@127.0.0.1"),
                command,
            ])
            .output()
            .await
            .expect("ssh runs (Debian: apt-get install openssh-client)")
    }
}

/// A port of 127.0.0.1 that leads to the guest's port, for programs that know nothing of the driver.
pub async fn port(host: &Host, id: InstanceId, guest_port: u16) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    let host = host.clone();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let host = host.clone();
            tokio::spawn(async move {
                let mut guest = host.dial(id, guest_port).await?;
                let _ = tokio::io::copy_bidirectional(&mut near, &mut guest).await;
                Ok::<(), dagger_vmm::VmmError>(())
            });
        }
    });
    port
}

/// The whole console as text.
pub fn console(host: &Host, id: InstanceId) -> String {
    String::from_utf8_lossy(&std::fs::read(host.console_path(id)).unwrap_or_default()).into_owned()
}

/// An instance for what stands in for QEMU: its kernel is none.
pub fn spec_without_guest(dir: &Path, id: InstanceId) -> InstanceSpec {
    let (pem, public) = new_ssh_host_key([1; 32]);
    let kernel = dir.join("kernel");
    std::fs::write(&kernel, "a kernel").expect("it is written");
    InstanceSpec {
        id,
        name: "web".into(),
        account: "acme".into(),
        vcpus: 1,
        memory_mib: 64,
        disk_mib: 16,
        boot: BootSource::Direct {
            kernel,
            initrd: None,
            cmdline: String::new(),
        },
        seed: Seed {
            hostname: "web".into(),
            instance_id: "i".into(),
            ssh_authorized_keys: vec![public],
            ssh_host_key_pem: pem,
            user_data: None,
        },
        accel: AccelChoice::Tcg,
        profile: Profile::Q35,
    }
}

/// A program that stands in for QEMU.
pub fn script(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("fake-qemu");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("it is written");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("it is its own");
    path
}
