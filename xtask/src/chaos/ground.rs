//! The ground that a run stands on: a network and mounts of its own, which end with this process, whoever runs it. Nodes have
//! an address each on its loopback, and packets between them are lost on the way (nftables), as a switch would lose them:
//! neither end is told.

use crate::setup::{self, Need, SetupArgs};
use crate::shell;
use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;

const NEEDS: &[Need] = &[
    Need {
        program: "ip",
        package: "iproute2",
        why: "makes the network that the nodes stand in",
    },
    Need {
        program: "nft",
        package: "nftables",
        why: "loses packets between nodes",
    },
];

/// Port of every node, for TCP and UDP. The network holds nothing else, so it is free.
const PORT: u16 = 7000;

/// `lost` holds pairs of sender and receiver of whose packets none arrive; `lossy` what is lost of all between nodes. On the
/// way in, since a sender is told of packets that are dropped on the way out. Clients have another address: they get through.
const TABLE: &str = "\
table ip chaos {
  set lost { type ipv4_addr . ipv4_addr
  }
  chain lossy {
  }
  chain input {
    type filter hook input priority 0
    ip saddr . ip daddr @lost drop
    jump lossy
  }
}
";

/// Installs what [`enter`] needs, as far as it is missing and may be.
pub fn ensure_programs() -> Result<()> {
    setup::ensure(NEEDS, &SetupArgs::default())
}

/// Takes this process into a network and mounts of its own. Before it starts any thread: only such a process can become root
/// of its own users, which whoever is not root needs for that.
pub fn enter() -> Result<()> {
    let (user, group) = (geteuid(), getegid());
    let mut own = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    own.set(CloneFlags::CLONE_NEWUSER, !user.is_root());
    unshare(own).context("this system does not let this user make namespaces: run as root")?;
    if !user.is_root() {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {group} 1"))?;
    }
    // What is mounted from here on is seen by this process and the nodes alone.
    let all = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, all, None::<&str>)?;
    shell::run(shell::program("ip").args(["link", "set", "lo", "up"]))?;
    filter(TABLE)
}

/// Mounts a file system of `size` bytes (as `mount` reads them) in a directory.
pub fn mount_small(dir: &Path, size: &str) -> Result<()> {
    let options = format!("size={size}");
    let mounted = mount(
        Some("chaos"),
        dir,
        Some("tmpfs"),
        MsFlags::empty(),
        Some(options.as_str()),
    );
    mounted.with_context(|| format!("no small file system can be mounted in {}", dir.display()))
}

/// Where the node of that number listens.
pub fn address(at: usize) -> Result<SocketAddr> {
    let last = u8::try_from(at + 1).context("too many nodes")?;
    Ok(SocketAddr::from((Ipv4Addr::new(127, 77, 0, last), PORT)))
}

/// From now on these pairs' packets are lost, from the first to the second, and those of no others.
pub fn lose(pairs: &[(SocketAddr, SocketAddr)]) -> Result<()> {
    let mut rules = "flush set ip chaos lost\n".to_owned();
    for (from, to) in pairs {
        rules += &format!(
            "add element ip chaos lost {{ {} . {} }}\n",
            from.ip(),
            to.ip()
        );
    }
    filter(&rules)
}

/// From now on so many of a hundred packets between nodes are lost.
pub fn lose_some(percent: u64) -> Result<()> {
    let mut rules = "flush chain ip chaos lossy\n".to_owned();
    if percent > 0 {
        rules += &format!(
            "add rule ip chaos lossy ip saddr 127.77.0.0/16 ip daddr 127.77.0.0/16 numgen random mod 100 < {percent} drop\n"
        );
    }
    filter(&rules)
}

fn filter(rules: &str) -> Result<()> {
    let mut nft = shell::program("nft");
    let mut child = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("it was asked for")?;
    stdin.write_all(rules.as_bytes())?;
    drop(stdin);
    if !child.wait()?.success() {
        bail!("nft refused: {rules}");
    }
    Ok(())
}
