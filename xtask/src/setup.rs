//! `cargo xtask setup`: finds which system programs are missing and installs their packages by
//! apt, or says exactly what to install. Only what the tests and the demo start is listed; the
//! parts of the guest image are not installed but downloaded when it is built.

use crate::shell;
use anyhow::{Result, bail};
use clap::Args;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What setup may do without asking.
#[derive(Args, Clone, Copy, Default)]
pub struct SetupArgs {
    /// Install without asking
    #[arg(long, short)]
    pub yes: bool,
}

/// A program the repository starts (or a file it reads, by its path), and the Debian/Ubuntu package that brings it.
pub struct Need {
    /// Its name, or a path.
    pub program: &'static str,
    /// The package.
    pub package: &'static str,
    /// For people: what it does here.
    pub why: &'static str,
}

const NEEDS: &[Need] = &[
    Need {
        program: "qemu-system-x86_64",
        package: "qemu-system-x86",
        why: "runs the virtual machines",
    },
    Need {
        program: "qemu-img",
        package: "qemu-utils",
        why: "makes the disk of a virtual machine over its image",
    },
    Need {
        program: "pasta",
        package: "passt",
        why: "is a virtual machine's only way out to the internet",
    },
    Need {
        program: "newuidmap",
        package: "uidmap",
        why: "gives each virtual machine a user of its own where the node is not root",
    },
    Need {
        program: "ip",
        package: "iproute2",
        why: "makes the networks that a hostile guest is tested in",
    },
    Need {
        program: "ssh",
        package: "openssh-client",
        why: "logs in to a virtual machine",
    },
    Need {
        program: "dpkg-deb",
        package: "dpkg",
        why: "unpacks the parts of the guest image",
    },
];

const HYPERVISOR: &str = "qemu-system-x86";
const DISK_TOOLS: &str = "qemu-utils";

/// Installs what is missing; does nothing, and says so in a line, when nothing is.
pub fn run(args: &SetupArgs) -> Result<()> {
    let missing = missing(NEEDS, shell::find_program);
    let has_lists = shell::find_program("apt-get").is_some() && has_lists();
    if missing.is_empty() && !has_lists {
        return fetch_lists(args);
    }
    if missing.is_empty() {
        println!("setup: every system package is there");
        return Ok(());
    }
    get(NEEDS, &missing, args)
}

/// Installs what is missing of `needs`, which one command wants beside what every other does; silent when nothing is.
pub fn ensure(needs: &'static [Need], args: &SetupArgs) -> Result<()> {
    let missing = missing(needs, shell::find_program);
    if missing.is_empty() {
        return Ok(());
    }
    get(needs, &missing, args)
}

/// Installs the packages of `missing`, and sees that nothing of `needs` is missing then.
fn get(needs: &'static [Need], missing: &[&Need], args: &SetupArgs) -> Result<()> {
    println!("setup: missing system packages");
    for need in missing {
        println!("  {:<18} {}", need.package, need.why);
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    let Some(become_root) = permission(args.yes, &install_line(&packages))? else {
        bail!(
            "nothing was installed; run `sudo {}`",
            install_line(&packages)
        );
    };
    let mut apt = SystemApt { become_root };
    install(&mut apt, &packages)?;
    let still = self::missing(needs, shell::find_program);
    if let Some(need) = still.first() {
        bail!(
            "{} is installed, but `{}` is not on PATH",
            need.package,
            need.program
        );
    }
    Ok(())
}

fn missing(needs: &'static [Need], find: impl Fn(&str) -> Option<PathBuf>) -> Vec<&'static Need> {
    needs
        .iter()
        .filter(|need| find(need.program).is_none())
        .collect()
}

/// Fetches apt's package lists: the parts of the guest image are downloaded by them.
pub fn fetch_lists(args: &SetupArgs) -> Result<()> {
    println!("setup: fetching apt's package lists");
    let Some(become_root) = permission(args.yes, "apt-get update")? else {
        bail!("the package lists were not fetched; run `sudo apt-get update`");
    };
    SystemApt { become_root }.update()
}

/// How this user may run apt: `Some(true)` by sudo, `Some(false)` as root already, `None` not at
/// all because the answer was no. Fails where nobody can be asked or there is no apt.
fn permission(yes: bool, line: &str) -> Result<Option<bool>> {
    if shell::find_program("apt-get").is_none() {
        let packages: Vec<&str> = NEEDS.iter().map(|need| need.package).collect();
        bail!(
            "this system has no apt. Install QEMU for x86_64 with qemu-img, passt, uidmap, iproute2, the OpenSSH client and \
             dpkg by its own package manager (on Debian and Ubuntu: {}), and apt itself: the micro \
             guest is made of Debian's packages. Then run this again",
            packages.join(" ")
        );
    }
    if nix::unistd::geteuid().is_root() {
        return Ok(Some(false));
    }
    if shell::find_program("sudo").is_none() {
        bail!("this user is not root and there is no sudo; as root run `{line}`");
    }
    if yes {
        return Ok(Some(true));
    }
    if !std::io::stdin().is_terminal() {
        bail!("nobody can be asked here; run `sudo {line}`, or give --yes");
    }
    print!("Run `sudo {line}`? [Y/n] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(is_yes(&answer).then_some(true))
}

fn is_yes(answer: &str) -> bool {
    matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "" | "y" | "yes"
    )
}

fn install_line(packages: &[&str]) -> String {
    format!(
        "apt-get install --no-install-recommends {}",
        packages.join(" ")
    )
}

/// What installing needs of apt, so that the order of attempts can be tested without it.
trait Apt {
    /// Whether package lists have been fetched on this machine.
    fn has_lists(&self) -> bool;
    /// Fetches the package lists.
    fn update(&mut self) -> Result<()>;
    /// Installs packages; an argument may carry a `/release` and options may come first.
    fn install(&mut self, arguments: &[String]) -> Result<()>;
    /// The code name of the release, as in `qemu-utils/bookworm`.
    fn release(&self) -> Option<String>;
}

/// Installs plainly, then with the release's own disk tools, and both once more after fetching the
/// lists anew.
///
/// The second form is for machines that carry a newer `qemu-utils` from backports: the release's
/// hypervisor is declared to break with it, so both must come from the release.
fn install(apt: &mut impl Apt, packages: &[&str]) -> Result<()> {
    let plain: Vec<String> = packages.iter().map(|package| (*package).into()).collect();
    let mut attempts = vec![plain];
    if let Some(release) = apt.release().filter(|_| packages.contains(&HYPERVISOR)) {
        let mut own = vec!["--allow-downgrades".to_owned()];
        own.extend(
            packages
                .iter()
                .filter(|p| **p != DISK_TOOLS)
                .map(|p| (*p).to_owned()),
        );
        own.push(format!("{DISK_TOOLS}/{release}"));
        attempts.push(own);
    }
    let mut fresh = !apt.has_lists();
    if fresh {
        apt.update()?;
    }
    loop {
        let mut failure = None;
        for attempt in &attempts {
            match apt.install(attempt) {
                Ok(()) => return Ok(()),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if fresh => return Err(error),
            _ => {
                apt.update()?;
                fresh = true;
            }
        }
    }
}

/// apt-get itself, by sudo where this user is not root.
struct SystemApt {
    become_root: bool,
}

impl SystemApt {
    fn apt_get(&self, arguments: &[String]) -> Result<()> {
        let mut command = if self.become_root {
            let mut sudo = shell::program("sudo");
            sudo.args(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
            sudo
        } else {
            let mut apt_get = shell::program("apt-get");
            apt_get.env("DEBIAN_FRONTEND", "noninteractive");
            apt_get
        };
        command
            .args(["-q", "-o", "DPkg::Lock::Timeout=300"])
            .args(arguments);
        shell::run(not_interactive(&mut command))
    }
}

/// sudo asks for a password on the terminal itself; apt must never wait for an answer.
fn not_interactive(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null())
}

/// Whether package lists have been fetched on this machine.
fn has_lists() -> bool {
    std::fs::read_dir("/var/lib/apt/lists").is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    })
}

impl Apt for SystemApt {
    fn has_lists(&self) -> bool {
        has_lists()
    }

    fn update(&mut self) -> Result<()> {
        self.apt_get(&["update".to_owned()])
    }

    fn install(&mut self, arguments: &[String]) -> Result<()> {
        // Setting up one thing must never take another away: apt may otherwise solve a conflict so.
        let mut all = ["install", "-y", "--no-install-recommends", "--no-remove"]
            .map(String::from)
            .to_vec();
        all.extend_from_slice(arguments);
        self.apt_get(&all)
    }

    fn release(&self) -> Option<String> {
        code_name(&std::fs::read_to_string(Path::new("/etc/os-release")).ok()?)
    }
}

fn code_name(os_release: &str) -> Option<String> {
    os_release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
#[path = "setup_tests.rs"]
mod setup_tests;
