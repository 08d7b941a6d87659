//! A guest that tries to leave its box, in a network of the test's own: the test's namespace plays the host, a second one
//! plays the internet and everything private that a host may see. Needs root, `ip` and `pasta`; says so where they are missing.

mod support;

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use dagger_vmm::{Host, InstanceId};
use nix::sched::{CloneFlags, setns, unshare};
use support::{Customer, console, port, shim, until, until_up};

/// What the host can reach in the second namespace, by kind.
const INTERNET: [&str; 2] = ["8.8.8.8", "198.51.99.1"];
const PRIVATE: [&str; 5] = [
    "10.9.9.9",
    "172.20.0.1",
    "192.168.7.7",
    "169.254.169.254",
    "100.64.1.1",
];
/// The host's own addresses: one of its link, one public one beside it, and what stands for it in a user network.
const HOST: [&str; 5] = [
    "203.0.113.2",
    "198.51.100.7",
    "10.0.2.2",
    "192.0.2.1",
    "192.0.2.2",
];

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.expect("ip runs").success(), "ip {arguments}");
}

/// A process that holds a namespace, ended with the test.
struct Elsewhere(Child);

impl Elsewhere {
    fn namespace(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.0.id()).into()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn in_namespace_of(path: &Path) {
    let namespace = File::open(path).expect("the namespace is there");
    setns(&namespace, CloneFlags::CLONE_NEWNET).expect("it is entered");
}

/// Listens and greets whoever comes.
fn greet(listener: TcpListener, words: &'static str) {
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut stream, words.as_bytes());
        }
    });
}

/// This thread's namespace becomes the host; returns the other one.
fn networks() -> Elsewhere {
    unshare(CloneFlags::CLONE_NEWNET).expect("a namespace of the test's own");
    let elsewhere = Command::new("unshare")
        .args(["-n", "sleep", "100000"])
        .spawn();
    let elsewhere = Elsewhere(elsewhere.expect("unshare runs"));
    let own = std::fs::read_link("/proc/thread-self/ns/net").expect("it has one");
    while std::fs::read_link(elsewhere.namespace()).is_ok_and(|other| other == own) {
        std::thread::yield_now();
    }
    ip("link set lo up");
    ip(&format!(
        "link add uplink type veth peer name net netns {}",
        elsewhere.0.id()
    ));
    ip("address add 203.0.113.2/24 dev uplink");
    ip("address add 198.51.100.7/32 dev lo");
    ip("link set uplink up");
    let namespace = elsewhere.namespace();
    let listener = std::thread::spawn(move || {
        in_namespace_of(&namespace);
        ip("link set lo up");
        ip("address add 203.0.113.1/24 dev net");
        for address in INTERNET.iter().chain(&PRIVATE) {
            ip(&format!("address add {address}/32 dev net"));
        }
        ip("link set net up");
        TcpListener::bind("0.0.0.0:80").expect("it listens")
    });
    greet(listener.join().expect("the internet is there"), "internet");
    ip("route add default via 203.0.113.1");
    greet(TcpListener::bind("0.0.0.0:80").expect("it listens"), "host");
    elsewhere
}

fn missing() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("root");
    }
    if Command::new("ip").arg("-V").output().is_err() {
        return Some("ip (Debian: apt-get install iproute2)");
    }
    if Command::new("pasta").arg("--version").output().is_err() {
        return Some("pasta (Debian: apt-get install passt)");
    }
    (!Path::new("/dev/net/tun").exists()).then_some("/dev/net/tun")
}

#[test]
fn a_guest_reaches_the_internet_and_nothing_private() {
    if let Some(missing) = missing() {
        eprintln!("not shown here: this needs {missing}");
        return;
    }
    // Made while there still is a network to fetch its parts from.
    support::micro_guest();
    let elsewhere = networks();
    for address in INTERNET.iter().chain(&PRIVATE) {
        std::net::TcpStream::connect((*address, 80)).expect("the host reaches all of it");
    }
    // One thread: everything that it starts is in the host's namespace.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(guest_tries());
    drop(elsewhere);
}

async fn guest_tries() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let id = InstanceId {
        vm: 4,
        lease_epoch: 1,
    };
    let (customer, spec) = Customer::with_guest(id);
    let host = Host::open(data.path().join("vms"), shim()).expect("it opens");
    host.start(&spec, None).await.expect("QEMU starts");
    let status = until_up(&host, id).await;
    let network = status.network.expect("it was started");
    assert!(network.internet, "{}", network.text);
    until("the guest's ssh server answers", || async {
        host.ssh_answers(id).await.then_some(())
    })
    .await;
    let ssh_port = port(&host, id, 22).await;
    let addresses: Vec<&str> = [&INTERNET[..], &PRIVATE, &HOST, &["127.0.0.1"]].concat();
    // The pipe keeps the guest's side open until the other has closed: of two ends that close at once, Debian's `pasta` may
    // lose one. What still hangs is cut off and counts as not reached.
    let attempt = format!(
        "mkfifo /tmp/open; exec 3<>/tmp/open; \
         for a in {}; do echo \"$a $(timeout 20 nc -w 3 $a 80 <&3 2>/dev/null)\"; done",
        addresses.join(" ")
    );
    let output = customer.ssh(ssh_port, "root", &attempt).await;
    let said = String::from_utf8_lossy(&output.stdout);
    let wanted: String = addresses
        .iter()
        .map(|address| match INTERNET.contains(address) {
            true => format!("{address} internet\n"),
            false => format!("{address} \n"),
        })
        .collect();
    assert_eq!(said, wanted, "{}", console(&host, id));

    // The namespace goes with the shim, and with it `pasta`.
    let (shim_pid, namespace) = (status.shim_pid.expect("it runs"), "ns/net");
    let theirs = std::fs::read_link(format!("/proc/{shim_pid}/{namespace}")).expect("it has one");
    assert!(processes_in(&theirs) >= 2, "shim and QEMU are in it");
    assert!(pastas(&theirs) > 0, "it is connected");
    support::signal(shim_pid, nix::sys::signal::Signal::SIGKILL);
    until("nothing is left of the namespace", || async {
        (processes_in(&theirs) + pastas(&theirs) == 0).then_some(())
    })
    .await;
    host.remove(id).await.expect("it is removed");
}

/// How many processes are in a network namespace.
fn processes_in(namespace: &Path) -> usize {
    let all = std::fs::read_dir("/proc").expect("it lists").flatten();
    all.filter(|process| {
        std::fs::read_link(process.path().join("ns/net")).is_ok_and(|its| its == namespace)
    })
    .count()
}

/// How many processes hold a network namespace as their standard input, as `pasta` does.
fn pastas(namespace: &Path) -> usize {
    let all = std::fs::read_dir("/proc").expect("it lists").flatten();
    all.filter(|process| {
        std::fs::read_link(process.path().join("fd/0")).is_ok_and(|its| its == namespace)
    })
    .count()
}
