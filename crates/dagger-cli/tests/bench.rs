//! `dagger bench` measures in earnest: what went in comes out, once, and the figures have the one form.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn bench(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dagger"));
    command.arg("bench").args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn figures(args: &[&str]) -> BTreeMap<String, f64> {
    let output = bench(&[args, &["--json"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let figure = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        for key in ["bench", "name", "value", "unit", "target", "ok"] {
            assert!(line.get(key).is_some(), "{key} is missing in {line}");
        }
        let name = line["name"].as_str().unwrap().to_owned();
        (name, line["value"].as_f64().unwrap())
    };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(figure)
        .collect()
}

fn all_was_ordered_once(figures: &BTreeMap<String, f64>) {
    assert!(figures["committed"] > 0.0, "{figures:?}");
    assert!(figures["latency_p50"] > 0.0, "{figures:?}");
    for none in ["lost", "repeated", "refused"] {
        assert!(figures[none].abs() < 0.5, "{none}: {figures:?}");
    }
}

const SHORT: [&str; 6] = ["--rate", "300", "--duration", "1", "--warmup", "0.5"];

#[test]
fn members_of_one_process_order_everything_once() {
    let mut args = vec!["consensus", "--transport", "memory", "--store", "memory"];
    args.extend(SHORT);
    all_was_ordered_once(&figures(&args));
}

#[test]
fn members_as_processes_order_everything_once_also_when_one_is_killed() {
    let mut args = vec!["consensus", "--crash", "1"];
    args.extend(SHORT);
    all_was_ordered_once(&figures(&args));
}

#[test]
fn machines_are_heard_and_answered_and_keep_their_leases() {
    let args = [
        "liveness",
        "--machines",
        "20",
        "--interval",
        "100",
        "--duration",
        "1",
    ];
    let figures = figures(&args);
    assert!((figures["machines"] - 20.0).abs() < 0.5, "{figures:?}");
    assert!(figures["answered"] > 0.0, "{figures:?}");
    assert!(figures["answer_p50"] > 0.0, "{figures:?}");
    assert!(figures["member_with_heartbeats"] > 0.0, "{figures:?}");
    assert!(figures["lapses"].abs() < 0.5, "{figures:?}");
}

#[test]
fn machines_that_subscribe_are_sent_what_is_ordered() {
    let mut args = vec!["liveness", "--machines", "8", "--interval", "100"];
    args.extend(["--duration", "1", "--rate", "50", "--subscribers", "3"]);
    let figures = figures(&args);
    assert!((figures["subscribers"] - 3.0).abs() < 0.5, "{figures:?}");
    assert!(figures["executed"] > 0.0, "{figures:?}");
    assert!(figures["lapses"].abs() < 0.5, "{figures:?}");
}

#[test]
fn too_many_crashes_are_wrong_usage() {
    let output = bench(&["consensus", "--crash", "2"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn whole_nodes_execute_signed_transactions_once_and_as_asked() {
    let mut args = vec!["consensus", "--mode", "ledger"];
    // Enough for a batch of signatures at each member, so that their cost is measured.
    args.extend(["--rate", "600", "--duration", "1", "--warmup", "0.5"]);
    let figures = figures(&args);
    all_was_ordered_once(&figures);
    assert!(figures["refused_by_ledger"].abs() < 0.5, "{figures:?}");
    let expected = figures["committed"] / figures["signature_bound"];
    assert!((figures["of_bound"] - expected).abs() < 1e-9, "{figures:?}");
}

#[test]
fn signed_transactions_need_whole_nodes() {
    let output = bench(&["consensus", "--mode", "ledger", "--transport", "memory"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

/// Stands in for QEMU and its guest.
const QEMU: &str = include_str!("fake/qemu.pl");

/// A directory with what stands in for QEMU and a guest, and an empty one for the network.
struct Stage {
    dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for part in ["programs", "guest", "network"] {
            std::fs::create_dir(dir.path().join(part)).unwrap();
        }
        let qemu = dir.path().join("programs/qemu-system-x86_64");
        std::fs::write(&qemu, QEMU).unwrap();
        std::fs::set_permissions(&qemu, PermissionsExt::from_mode(0o755)).unwrap();
        for part in ["micro-kernel", "micro-initrd", "micro-cmdline"] {
            std::fs::write(dir.path().join("guest").join(part), part).unwrap();
        }
        Stage { dir }
    }

    fn bench(&self, args: &[&str]) -> Child {
        let path = std::env::var("PATH").unwrap();
        let programs = self.dir.path().join("programs");
        Command::new(env!("CARGO_BIN_EXE_dagger"))
            .args(["bench", "vm", "--json", "--guest"])
            .arg(self.dir.path().join("guest"))
            .arg("--dir")
            .arg(self.network())
            .args(args)
            .env("PATH", format!("{}:{path}", programs.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn network(&self) -> std::path::PathBuf {
        self.dir.path().join("network")
    }

    /// Processes that run below the network's directory, or name it.
    fn processes(&self) -> Vec<String> {
        let network = self.network();
        let named = network.to_str().unwrap().to_owned();
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let alive = pids.filter_map(|pid| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            let works_in = std::fs::read_link(format!("/proc/{pid}/cwd"));
            let there = works_in.is_ok_and(|path| path.starts_with(Path::new(&named)));
            (!words.is_empty() && (there || words.contains(&named))).then_some(words)
        });
        alive.collect()
    }

    fn nothing_is_left(&self) {
        let until = Instant::now() + Duration::from_secs(30);
        // A killed process is seen until the kernel has taken it apart.
        while !self.processes().is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(self.processes(), Vec::<String>::new());
        let left: Vec<_> = std::fs::read_dir(self.network())
            .unwrap()
            .flatten()
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn hosting_is_measured_beside_bare_qemus_and_leaves_nothing() {
    let stage = Stage::new();
    let bench = stage.bench(&["--only", "start,many", "--runs", "1", "--many", "2"]);
    let output = bench.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let figures: BTreeMap<String, f64> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| {
            (
                line["name"].as_str().unwrap().to_owned(),
                line["value"].as_f64().unwrap(),
            )
        })
        .collect();
    let stages = [
        "submit_to_committed_p50",
        "submit_to_qemu_p50",
        "create_to_ssh_p50",
    ];
    assert!(
        stages.map(|stage| figures[stage]).is_sorted(),
        "{figures:?}"
    );
    for more in [
        "bare_qemu_to_ssh_p50",
        "at_once_over_bare",
        "shim_pss_p50",
        "daemon_private",
    ] {
        assert!(figures[more] > 0.0, "{more}: {figures:?}");
    }
    stage.nothing_is_left();
}

#[test]
fn an_interrupted_measurement_of_hosting_leaves_nothing() {
    let stage = Stage::new();
    let bench = stage.bench(&["--only", "start", "--runs", "1000"]);
    let until = Instant::now() + Duration::from_secs(120);
    // Until it is in the middle: a bare QEMU runs, and nodes do.
    let bare = || {
        let entries = std::fs::read_dir(stage.network()).unwrap().flatten();
        entries
            .flat_map(|entry| std::fs::read_dir(entry.path().join("bare")))
            .flatten()
            .count()
            > 1
    };
    while !bare() {
        assert!(Instant::now() < until, "it never came to a bare QEMU");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = nix::unistd::Pid::from_raw(bench.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = bench.wait_with_output().unwrap();
    assert!(
        stderr(&output).contains("E_INTERRUPTED"),
        "{}",
        stderr(&output)
    );
    stage.nothing_is_left();
}
