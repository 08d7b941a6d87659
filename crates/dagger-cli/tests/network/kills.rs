//! A machine's daemon that is killed again and again while VMs come and go: what runs is what the ledger says, once, and nothing is
//! left behind. `DAGGER_KILLS=200` makes the long run of it.

use super::groups::Given;
use super::guests::Network;
use super::support::{json, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Kills of the daemon where nobody asks for more.
const KILLS: u32 = 3;
/// VMs that come and go.
const VMS: u32 = 3;
/// The longest life of a daemon after it was ready: long enough to get its lease and do something with it.
const LIFE_MS: u64 = 4_000;

/// Command lines of the processes that belong to the network under `root`, shims and QEMUs.
fn processes(root: &Path) -> Vec<String> {
    let root = root.to_str().unwrap();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|process| {
        let line = std::fs::read(process.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    let ours = |line: &String| line.contains(root) && !line.contains(" node run ");
    lines.filter(ours).collect()
}

/// VMs for which more than one QEMU runs at this moment. QEMU's name is `vm-<vm>-<lease epoch>`.
fn twice(root: &Path) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let qemus = processes(root).into_iter().filter_map(|line| {
        let name = line.split(" -name vm-").nth(1)?;
        Some(name.split('-').next()?.to_owned())
    });
    qemus.filter(|vm| !seen.insert(vm.clone())).collect()
}

/// Looks all the time for a VM that runs twice; ends when told, with what it saw.
fn watch(root: &Path, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<Vec<String>> {
    let root = root.to_owned();
    std::thread::spawn(move || {
        let mut seen = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            seen.extend(twice(&root));
            std::thread::sleep(Duration::from_millis(20));
        }
        seen
    })
}

/// Asks for something about a VM. What the ledger refuses is no matter: the VM may be in any phase.
fn disturb(network: &Network, name: &str) {
    let create = format!(
        "vm create {name} --image micro --ssh-key {} --memory 64M --disk 16M",
        network.root.join("id.pub").display()
    );
    let command = match rand::random_range(0..6) {
        0 => format!("vm delete {name}"),
        1 => format!("vm reboot {name}"),
        2 => format!("vm stop {name}"),
        3 => format!("vm start {name}"),
        _ => create,
    };
    network.run(&network.key(), &command);
}

/// Kills the daemon and starts it again; how long it was away.
fn kill_daemon(network: &mut Network) -> Duration {
    let node = &mut network.nodes[0];
    node.child.kill().unwrap();
    node.child.wait().unwrap();
    let down = Instant::now();
    let programs = network.root.join("programs");
    *node = network.homes[0].start_with_path(programs.to_str().unwrap());
    network.homes[0].ready();
    down.elapsed()
}

/// A VM that runs has its group; its shim is killed, and the daemon too. What they leave is let go of, whatever the VM does then.
fn leaves_no_group(network: &mut Network, given: &Given, vm: &str) {
    let view = network.vm(vm);
    let instance = format!("{}-{}", view["id"], view["lease_epoch"]);
    let own = |group: &String| group.ends_with(&format!("-{instance}"));
    assert!(given.guests().iter().any(own), "{vm} has no group");
    let state = network.homes[0].data.join("vms").join(&instance);
    let state = std::fs::read_to_string(state.join("state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let shim = state["status"]["shim_pid"].as_i64().unwrap();
    kill(Pid::from_raw(shim.try_into().unwrap()), Signal::SIGKILL).unwrap();
    kill_daemon(network);
    network.signed(&network.key(), &format!("vm delete {vm} --wait"));
    wait("no control group to be left of any VM", || {
        given.guests().is_empty().then_some(())
    });
}

#[test]
fn a_daemon_killed_under_churn_leaves_nothing_behind_and_runs_nothing_twice() {
    let kills = std::env::var("DAGGER_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let root = tempfile::tempdir().unwrap();
    let given = Given::make();
    let cgroup = match &given {
        Ok(given) => format!("cgroup = {:?}\n", given.name),
        Err(why) => {
            println!("control groups are not looked at: {why}");
            String::new()
        }
    };
    let mut network = Network::start_with(root.path(), &["alpha"], &cgroup);
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = watch(root.path(), stop.clone());
    let names: Vec<String> = (0..VMS).map(|n| format!("vm-{n}")).collect();
    let (began, mut longest) = (Instant::now(), Duration::ZERO);
    for kill in 0..kills {
        names.iter().for_each(|name| disturb(&network, name));
        std::thread::sleep(Duration::from_millis(rand::random_range(0..LIFE_MS)));
        longest = longest.max(kill_daemon(&mut network));
        if kill % 10 == 9 {
            println!("{} kills in {:?}", kill + 1, began.elapsed());
        }
    }
    // It still does its work, and lets go of all of it.
    for name in &names {
        network.run(&network.key(), &format!("vm delete {name} --wait"));
    }
    network.create("after");
    match &given {
        Ok(given) => leaves_no_group(&mut network, given, "after"),
        Err(_) => network.signed(&network.key(), "vm delete after --wait"),
    }
    let api = network.homes[0].api();
    wait("every VM to be gone from the ledger", || {
        let vms = json(&["--api", &api, "vm", "list", "--all"]);
        vms.as_array().unwrap().is_empty().then_some(())
    });
    let vms = network.homes[0].data.join("vms");
    wait("nothing to be left of any VM", || {
        // A file beside them remembers which accelerator works.
        let entries = std::fs::read_dir(&vms).unwrap().flatten();
        let left = entries.filter(|entry| entry.path().is_dir()).count();
        (left == 0 && processes(root.path()).is_empty()).then_some(())
    });
    stop.store(true, Ordering::SeqCst);
    assert_eq!(watcher.join().unwrap(), [""; 0], "VMs that ran twice");
    println!(
        "{kills} kills in {:?}; killed to ready again at most {:?}",
        began.elapsed(),
        longest
    );
}
