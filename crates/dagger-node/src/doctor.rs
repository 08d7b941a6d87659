//! A node's look at itself and its surroundings, line by line: what is well, what is not, what to do.
//! Reads only. What is wrong by itself for the whole network (no quorum) and for this host (disk, limits) is told alike.

use std::{fs, path::Path};

use dagger_client::{
    api::{CheckView, NodeState, Verdict},
    size,
};
use nix::sys::{
    resource::{Resource, getrlimit},
    statvfs::statvfs,
};
use shadowgraph::ReplicaStatus;

use crate::{
    config::Durability,
    handle::{NodeHandle, Shared},
    heal::Report,
};

/// Fewer open files than this may not do for a member with many peers and VMs.
const OPEN_FILES_MIN: u64 = 4_096;
/// With less free space the node is about to pause; with less of the file system's share it soon will.
const DISK_FREE_MIN_BYTES: u64 = 512 << 20;
const DISK_FREE_LOW_PERCENT: u64 = 10;
/// A member this many rounds below the highest is behind.
const BEHIND_ROUNDS: u64 = 20;
/// Commits that may wait for execution for a moment.
const UNEXECUTED_MAX: u64 = 100;

/// Looks at everything. Blocks: walks the data directory.
pub(crate) fn examine(node: &NodeHandle) -> Vec<CheckView> {
    let shared = &node.shared;
    let (status, replica) = (node.status(), shared.replica.status());
    let mut checks = vec![
        state(status.state),
        quorum(shared),
        behind(shared, &replica),
        execution(shared, &replica),
        clock(&replica, shared.clock.lag_ms()),
        sockets(shared),
        open_files(getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft)),
        disk(&shared.config.data_dir),
        event_log(shared),
        durability(shared.config.durability),
    ];
    checks.extend(hosting(shared));
    checks.extend(status.problems.into_iter().map(|problem| {
        check(
            "problem",
            Verdict::Fail,
            format!("{} [{}]", problem.text, problem.code),
        )
    }));
    checks
}

fn check(name: &str, verdict: Verdict, text: impl Into<String>) -> CheckView {
    CheckView {
        name: name.to_owned(),
        verdict,
        text: text.into(),
    }
}

fn state(state: NodeState) -> CheckView {
    let (verdict, text) = match state {
        NodeState::Ready => (Verdict::Ok, "takes part"),
        NodeState::CatchingUp => (
            Verdict::Warn,
            "behind the others and fetching what it missed; wait, and see `behind`",
        ),
        NodeState::Starting => (
            Verdict::Warn,
            "not taking part yet: too few members are connected, or they have not answered; see `quorum`",
        ),
        NodeState::Halted => (
            Verdict::Fail,
            "stopped for good; the problems below say why, and its log",
        ),
    };
    check("state", verdict, text)
}

fn quorum(shared: &Shared) -> CheckView {
    let membership = shared.membership();
    let committee = &membership.committee;
    let connected = shared.links.connected_members();
    let others: u64 = connected.iter().map(|seat| committee.weight(*seat)).sum();
    let (weight, needed) = (others + membership.own_weight(), committee.quorum_weight());
    let missing: Vec<String> = committee
        .members()
        .map(|(seat, _)| seat)
        .filter(|seat| Some(*seat) != membership.seat && !connected.contains(seat))
        .map(|seat| shared.seat_name(seat))
        .collect();
    let text = format!(
        "weight {weight} of {} connected, {needed} needed",
        committee.total_weight()
    );
    if missing.is_empty() {
        return check("quorum", Verdict::Ok, text);
    }
    let verdict = if weight < needed {
        Verdict::Fail
    } else {
        Verdict::Warn
    };
    check(
        "quorum",
        verdict,
        format!(
            "{text}; no connection to {}: are they up, and does their address and UDP port reach them from here?",
            missing.join(", ")
        ),
    )
}

fn behind(shared: &Shared, status: &ReplicaStatus) -> CheckView {
    let highest = status.highest_rounds.iter().map(|r| r.0).max().unwrap_or(0);
    let committee = shared.membership();
    let behind: Vec<String> = committee
        .committee
        .members()
        .map(|(seat, _)| {
            (
                seat,
                status.highest_rounds.get(seat.index()).map_or(0, |r| r.0),
            )
        })
        .filter(|(_, round)| round + BEHIND_ROUNDS < highest)
        .map(|(seat, round)| format!("{} by {} rounds", shared.seat_name(seat), highest - round))
        .collect();
    if behind.is_empty() {
        check(
            "behind",
            Verdict::Ok,
            format!("no member is, at round {highest}"),
        )
    } else {
        check(
            "behind",
            Verdict::Warn,
            format!("{}: down, cut off or catching up", behind.join(", ")),
        )
    }
}

fn execution(shared: &Shared, status: &ReplicaStatus) -> CheckView {
    let decided = status.last_commit.0;
    let ledger = shared.ledger.read().expect("no holder panics");
    let executed = ledger.commit_index().unwrap_or(0);
    drop(ledger);
    let waiting = decided.saturating_sub(executed);
    if waiting <= UNEXECUTED_MAX {
        check(
            "execution",
            Verdict::Ok,
            format!("commit {executed} of {decided} decided"),
        )
    } else {
        check(
            "execution",
            Verdict::Warn,
            format!("{waiting} commits wait for execution: this host is too slow for the load"),
        )
    }
}

/// `lag_ms` is how far the wall clock is ahead of the node's, which follows it slowly.
fn clock(status: &ReplicaStatus, lag_ms: i64) -> CheckView {
    let to_do = "set it and keep it set by NTP (`timedatectl set-ntp true`)";
    let others = status.clock_offsets_ms.iter().flatten().count();
    let seconds = |ms: i64| format!("{:.3} s", ms as f64 / 1000.0);
    let Some(median_ms) = status.clock_median_ms else {
        return check(
            "clock",
            Verdict::Warn,
            format!("not compared with a quorum of the members' yet ({others} have answered)"),
        );
    };
    // What the members would see of the wall clock itself.
    let ahead_ms = lag_ms.saturating_sub(median_ms);
    let text = format!("{} ahead of the members' median", seconds(ahead_ms));
    if status.clock_correction_ms != 0 {
        check(
            "clock",
            Verdict::Fail,
            format!("{text}, so the node goes by theirs: {to_do}"),
        )
    } else if ahead_ms.unsigned_abs() > 500 {
        check(
            "clock",
            Verdict::Warn,
            format!("{text}, since it was stepped: {to_do}"),
        )
    } else {
        check("clock", Verdict::Ok, text)
    }
}

fn sockets(shared: &Shared) -> CheckView {
    let bound: Vec<String> = shared
        .endpoint
        .bound_sockets()
        .iter()
        .map(ToString::to_string)
        .collect();
    let api = shared
        .config
        .api
        .map_or_else(|| "no API".to_owned(), |api| format!("API on TCP {api}"));
    let text = format!("UDP {}, {api}", bound.join(", "));
    let exposed = shared.config.api.is_some_and(|api| !api.ip().is_loopback());
    if exposed {
        check(
            "ports",
            Verdict::Warn,
            format!(
                "{text}: the API speaks plain HTTP to whoever reaches it; bind it to 127.0.0.1, or put TLS before it"
            ),
        )
    } else {
        check("ports", Verdict::Ok, text)
    }
}

fn open_files(soft: u64) -> CheckView {
    if soft >= OPEN_FILES_MIN {
        check("open files", Verdict::Ok, format!("up to {soft}"))
    } else {
        check(
            "open files",
            Verdict::Warn,
            format!(
                "up to {soft} only, and {OPEN_FILES_MIN} may be needed: raise the hard limit (`LimitNOFILE=65536` in the unit)"
            ),
        )
    }
}

fn disk(dir: &Path) -> CheckView {
    let Ok(stat) = statvfs(dir) else {
        return check(
            "disk",
            Verdict::Fail,
            format!("{} cannot be looked at", dir.display()),
        );
    };
    let block = stat.fragment_size();
    let used: Vec<String> = ["events", "state", "outcomes", "blobs", "vms"]
        .iter()
        .map(|name| format!("{name} {}", size::bytes(bytes_in(&dir.join(name)))))
        .collect();
    let (free, total) = (stat.blocks_available() * block, stat.blocks() * block);
    disk_verdict(free, total, &used.join(", "))
}

fn disk_verdict(free: u64, total: u64, used: &str) -> CheckView {
    let text = format!(
        "{} of {} free; {used}",
        size::bytes(free),
        size::bytes(total)
    );
    if free < DISK_FREE_MIN_BYTES {
        check(
            "disk",
            Verdict::Fail,
            format!("{text}: free some now, or the node will pause"),
        )
    } else if free / DISK_FREE_LOW_PERCENT < total / 100 {
        check("disk", Verdict::Warn, format!("{text}: it is getting full"))
    } else {
        check("disk", Verdict::Ok, text)
    }
}

/// Bytes that the files below a directory take up on disk; 0 if there is none.
pub(crate) fn bytes_in(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    let bytes = entries.flatten().map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => bytes_in(&entry.path()),
        _ => entry.metadata().map_or(0, |meta| meta.blocks() * 512),
    });
    bytes.sum()
}

/// What the disk has lost of the event log, and peers gave back.
fn event_log(shared: &Shared) -> CheckView {
    let reports = shared.healed.lock().expect("no holder panics");
    log_verdict(&reports)
}

fn log_verdict(reports: &[Report]) -> CheckView {
    if reports.is_empty() {
        return check("log", Verdict::Ok, "no damage was found since the start");
    }
    let healed: Vec<String> = reports
        .iter()
        .map(|r| format!("{} events of epoch {}", r.healed.events, r.epoch))
        .collect();
    check(
        "log",
        Verdict::Warn,
        format!(
            "healed from peers: {}; this disk loses what it was given: look at it (`smartctl -a`), and replace it",
            healed.join(", ")
        ),
    )
}

fn durability(durability: Durability) -> CheckView {
    match durability {
        Durability::Fsync => check("durability", Verdict::Ok, "fsync: survives a power cut"),
        Durability::Os => check(
            "durability",
            Verdict::Warn,
            "os: a power cut can lose what was signed, and the seat with it; set durability = \"fsync\" in node.toml",
        ),
    }
}

/// What a machine needs beyond a member.
fn hosting(shared: &Shared) -> Vec<CheckView> {
    let Some(host) = shared.ways.host() else {
        return vec![check(
            "hosting",
            Verdict::Ok,
            "runs no VMs (machine = false, or see the problems)",
        )];
    };
    let qemu = match host.find_qemu() {
        Ok(path) => check("qemu", Verdict::Ok, path.display().to_string()),
        Err(error) => check("qemu", Verdict::Fail, error.to_string()),
    };
    let kvm = fs::File::options().read(true).write(true).open("/dev/kvm");
    let kvm = match kvm {
        Ok(_) => check(
            "kvm",
            Verdict::Ok,
            "/dev/kvm opens; whether it runs guests shows at the first",
        ),
        Err(error) => check(
            "kvm",
            Verdict::Warn,
            format!(
                "VMs are emulated, many times slower: /dev/kvm does not open ({error}); enable virtualisation, or let this user use it (group kvm)"
            ),
        ),
    };
    let pasta = match host.find_pasta() {
        Some(path) => check("pasta", Verdict::Ok, path.display().to_string()),
        None => check(
            "pasta",
            Verdict::Warn,
            "not found: guests reach nothing but through the tunnel; install it (Debian: passt)",
        ),
    };
    let users = match host.guest_users() {
        Ok(range) => check(
            "guest users",
            Verdict::Ok,
            format!(
                "every guest runs as a user of its own, from {} on",
                range.start
            ),
        ),
        Err(why) => check(
            "guest users",
            Verdict::Warn,
            format!("guests run as the daemon's user: who breaks out of QEMU is the node. {why}"),
        ),
    };
    vec![qemu, kvm, pasta, users, bounds(host.guest_bounds())]
}

/// What control groups hold guests to.
fn bounds(found: Result<(Vec<dagger_vmm::Resource>, String), String>) -> CheckView {
    const UNBOUNDED: &str = "an emulator that was taken over may use more than its guest was given";
    let (verdict, text) = match found {
        Ok((bounds, text)) if bounds == dagger_vmm::Resource::ALL => {
            (Verdict::Ok, format!("bounded are {text}"))
        }
        Ok((_, text)) => (
            Verdict::Warn,
            format!("only {text} are bounded: of the rest {UNBOUNDED}"),
        ),
        Err(why) => (Verdict::Warn, format!("none: {UNBOUNDED}. {why}")),
    };
    check("guest bounds", verdict, text)
}

#[cfg(test)]
#[path = "doctor_tests.rs"]
mod tests;
