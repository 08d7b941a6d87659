//! Measures starts of the micro guest: `cargo run --example measure -- [COUNT] [q35|microvm] [tcg|auto]`.
//!
//! Starts COUNT instances at once and prints when each stage was reached (ms from the call, median and worst) and what the
//! shims weigh. Wants `cargo xtask guest micro` to have run, and `vm-shim` to be built.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dagger_vmm::{
    AccelChoice, BootSource, Host, InstanceId, InstanceSpec, Profile, Seed, new_ssh_host_key,
};

fn spec(vm: u64, guest: &Path, profile: Profile, accel: AccelChoice) -> InstanceSpec {
    let (pem, public) = new_ssh_host_key([1; 32]);
    let cmdline = std::env::var("CMDLINE")
        .unwrap_or_else(|_| "console=ttyS0 loglevel=6 panic=-1 mitigations=off cryptomgr.notests random.trust_cpu=on".into());
    InstanceSpec {
        id: InstanceId { vm, lease_epoch: 1 },
        name: format!("vm{vm}"),
        account: "acme".into(),
        vcpus: 1,
        memory_mib: 128,
        disk_mib: 64,
        boot: BootSource::Direct {
            kernel: guest.join("micro-kernel"),
            initrd: Some(guest.join("micro-initrd")),
            cmdline,
        },
        seed: Seed {
            hostname: format!("vm{vm}"),
            instance_id: format!("i-{vm}"),
            ssh_authorized_keys: vec![public],
            ssh_host_key_pem: pem,
            user_data: None,
        },
        accel,
        profile,
    }
}

fn rss_kib(pid: u32) -> (u64, u64) {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let field = |name: &str| {
        let line = rollup.lines().find_map(|l| l.strip_prefix(name));
        line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0)
    };
    (field("Rss:"), field("Private_Dirty:"))
}

/// CPU time of a process so far, ms.
fn cpu_ms(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    let ticks = |n: usize| {
        fields
            .get(n)
            .and_then(|f| f.parse::<u64>().ok())
            .unwrap_or(0)
    };
    (ticks(11) + ticks(12)) * 10
}

fn show(name: &str, mut values: Vec<u64>) {
    values.sort_unstable();
    let median = values[values.len() / 2];
    println!("{name:<28} {median:>8} {:>8}", values[values.len() - 1]);
}

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = |n: usize, default: &str| words.get(n).cloned().unwrap_or_else(|| default.into());
    let count: u64 = word(0, "1").parse().expect("COUNT is a number");
    let profile = if word(1, "q35") == "microvm" {
        Profile::Microvm
    } else {
        Profile::Q35
    };
    let accel = if word(2, "tcg") == "auto" {
        AccelChoice::Auto
    } else {
        AccelChoice::Tcg
    };
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let exe = std::env::var_os("SHIM").map_or_else(|| target.join("debug/vm-shim"), PathBuf::from);
    let data = tempfile::tempdir().expect("a temporary directory");
    let host = Host::open(data.path().to_owned(), exe).expect("it opens");
    let mut tasks = tokio::task::JoinSet::new();
    for vm in 1..=count {
        let host = host.clone();
        let spec = spec(vm, &target.join("guest/micro"), profile, accel);
        tasks.spawn(async move {
            let since = Instant::now();
            let started_ms = std::time::SystemTime::UNIX_EPOCH
                .elapsed()
                .expect("after 1970")
                .as_millis() as u64;
            host.start(&spec, None).await.expect("it starts");
            let in_care = since.elapsed().as_millis() as u64;
            while !host.ssh_answers(spec.id).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
                assert!(
                    since.elapsed().as_secs() < 300,
                    "{:?}",
                    host.status(spec.id).await
                );
            }
            let ssh = since.elapsed().as_millis() as u64;
            let status = host.status(spec.id).await.expect("it is here");
            let cpu = cpu_ms(status.qemu_pid.unwrap_or(0));
            let from_start = |ms: Option<u64>| ms.unwrap_or(0).saturating_sub(started_ms);
            (
                in_care,
                from_start(status.qemu_started_ms),
                from_start(status.console_first_ms),
                ssh,
                status,
                cpu,
            )
        });
    }
    let done = tasks.join_all().await;
    println!("{:<28} {:>8} {:>8}", "", "median", "worst");
    show("QEMU started, ms", done.iter().map(|d| d.1).collect());
    show("in the shim's care, ms", done.iter().map(|d| d.0).collect());
    show("first console byte, ms", done.iter().map(|d| d.2).collect());
    show("ssh banner, ms", done.iter().map(|d| d.3).collect());
    show(
        "QEMU's CPU till ssh, ms",
        done.iter().map(|d| d.5).collect(),
    );
    let shims: Vec<_> = done
        .iter()
        .map(|d| rss_kib(d.4.shim_pid.unwrap_or(0)))
        .collect();
    show("shim resident, KiB", shims.iter().map(|s| s.0).collect());
    show(
        "shim private dirty, KiB",
        shims.iter().map(|s| s.1).collect(),
    );
    show(
        "QEMU resident, KiB",
        done.iter()
            .map(|d| rss_kib(d.4.qemu_pid.unwrap_or(0)).0)
            .collect(),
    );
    println!("accelerator: {:?}", done[0].4.accelerator);
    for status in host.list().await {
        host.remove(status.id).await.expect("it is removed");
    }
}
