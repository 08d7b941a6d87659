//! `cargo xtask guest debian --try`: the ordinary commands, against the Debian guest and its real cloud-init. Minutes under
//! TCG, hence not part of any suite.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::demo::cloud::{Cloud, as_typed};
use crate::demo::interrupt::Cleanup;
use crate::demo::wait::Deadline;
use crate::setup::{self, Need, SetupArgs};
use crate::shell;

const ACCOUNT: &str = "trial";
const VM: &str = "deb";
/// Patience with a boot, and with what a guest does after it.
const BOOT: &str = "15m";
const PATIENCE: Duration = Duration::from_secs(600);

const USER_DATA: &str =
    "#cloud-config\nwrite_files:\n  - path: /etc/told\n    content: by user-data\n";

const NEEDS: &[Need] = &[Need {
    program: "/usr/share/OVMF/OVMF_CODE_4M.fd",
    package: "ovmf",
    why: "is the firmware of a machine that boots by UEFI",
}];

/// Takes the disk through a VM's life, by BIOS and by UEFI, in a network of its own, which is removed at every end.
pub fn run(disk: &Path, dagger: Option<PathBuf>, args: &SetupArgs) -> Result<()> {
    setup::run(args)?;
    setup::ensure(NEEDS, args)?;
    let mut cloud = Cloud::new("guest-trial");
    let dagger = match dagger {
        Some(dagger) => dagger.canonicalize().context("there is no such program")?,
        None => built()?,
    };
    cloud = cloud.with_program(dagger);
    let cleanup = Cleanup::arm(&cloud)?;
    std::fs::create_dir_all(cloud.config())?;
    let mut trial = Trial { cloud };
    let tried = trial.all(disk);
    if tried.is_err() {
        println!("the end of the guest's console:");
        println!("{}", trial.console().unwrap_or_default());
    }
    cleanup.now()?;
    tried
}

fn built() -> Result<PathBuf> {
    shell::run(shell::cargo().args(["build", "--release", "--package", "dagger-cli"]))?;
    Ok(shell::target_dir().join("release/dagger"))
}

struct Trial {
    cloud: Cloud,
}

impl Trial {
    fn all(&mut self, disk: &Path) -> Result<()> {
        shell::step("Four operators, an account, the image", || {
            self.network(disk)
        })?;
        shell::step("Create, and see that cloud-init did as it was told", || {
            self.create("debian")?;
            self.holds_what_it_should(4)?;
            for user in ["debian", "dagger"] {
                self.prints("its user, who may sudo", user, "sudo -n id -u", "0")?;
            }
            Ok(())
        })?;
        shell::step("Reboot, with a file and GRUB's menu made anew", || {
            self.prints("a file", "root", "echo kept > /etc/kept; sync", "")?;
            let menu = "update-grub 2> /dev/null && grep -c ^menuentry /boot/grub/grub.cfg";
            self.prints("GRUB's menu", "root", menu, "1")?;
            self.dagger(&["vm", "reboot", VM, "--wait", "--timeout", BOOT])?;
            let starts = "last -x | grep -c '^reboot '";
            self.prints("the starts of the guest", "root", starts, "2")
        })?;
        shell::step("Stop by the power button", || {
            self.dagger(&["vm", "stop", VM, "--wait", "--timeout", BOOT])?;
            let console = self.console()?;
            ensure!(
                console.contains("reboot: Power down"),
                "the guest did not shut down in order: {console}"
            );
            Ok(())
        })?;
        shell::step("Start with a larger disk", || {
            self.dagger(&["vm", "resize", VM, "--disk", "6G"])?;
            self.dagger(&["vm", "start", VM, "--wait", "--timeout", BOOT])?;
            self.holds_what_it_should(6)?;
            self.prints("the file is still there", "root", "cat /etc/kept", "kept")?;
            self.dagger(&["vm", "delete", VM, "--wait"])
        })?;
        shell::step("The same disk by UEFI", || {
            self.create("debian-uefi")?;
            self.holds_what_it_should(4)?;
            let efi = "test -d /sys/firmware/efi && echo uefi";
            self.prints("it was started by UEFI", "root", efi, "uefi")
        })
    }

    fn network(&mut self, disk: &Path) -> Result<()> {
        self.dagger(&["dev", "up"])?;
        self.cloud.talk_to(self.cloud.dev_apis()?);
        let account: serde_json::Value = self.cloud.json(&["account", "new", ACCOUNT])?;
        let key = account["public_key"]
            .as_str()
            .ok_or_else(|| anyhow!("`dagger account new` printed no key: {account}"))?;
        let operator = self.cloud.operator_key()?.display().to_string();
        self.dagger(&["--key", &operator, "operator", "sponsor", ACCOUNT, key])?;
        let disk = disk.display().to_string();
        for (name, firmware) in [("debian", "bios"), ("debian-uefi", "uefi")] {
            self.dagger(&[
                "image",
                "add",
                name,
                "--disk",
                &disk,
                "--format",
                "qcow2",
                "--firmware",
                firmware,
            ])?;
        }
        let identity = self.identity();
        shell::output(
            shell::program("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(&identity),
        )?;
        std::fs::write(self.user_data(), USER_DATA)?;
        Ok(())
    }

    fn create(&self, image: &str) -> Result<()> {
        let key = format!("{}.pub", self.identity());
        let user_data = self.user_data().display().to_string();
        self.dagger(&[
            "vm",
            "create",
            VM,
            "--image",
            image,
            "--ssh-key",
            &key,
            "--user-data",
            &user_data,
            "--memory",
            "1G",
            "--disk",
            "4G",
            "--wait",
            "--timeout",
            BOOT,
        ])
    }

    /// Debian 12; cloud-init done without an error; user-data heeded; the root as large as the disk; the ledger's host key.
    fn holds_what_it_should(&self, disk_gib: u64) -> Result<()> {
        let release = ". /etc/os-release; echo $ID $VERSION_ID";
        self.prints("its release", "root", release, "debian 12")?;
        let status = "cloud-init status --wait | tail -n 1";
        self.prints("cloud-init", "root", status, "status: done")?;
        self.prints("user-data", "root", "cat /etc/told", "by user-data")?;
        self.prints("its name", "root", "hostname", VM)?;
        let grown = format!(
            "test $(df --output=size -BM / | tail -n 1 | tr -d M) -gt {} && echo grown",
            (disk_gib - 1) * 1024 + 512
        );
        self.prints("the root file system", "root", &grown, "grown")?;
        let vm = self.cloud.vm(VM)?;
        let key = vm.ssh_host_key.context("the ledger holds no host key")?;
        let expected = self.cloud.fingerprint(&key)?;
        let shown = self.cloud.shown_host_key(VM, &self.identity())?;
        ensure!(
            shown == expected,
            "the guest showed {shown}, the ledger holds {expected}"
        );
        println!("    ok the guest's host key {shown} is the ledger's");
        Ok(())
    }

    /// Logs in and runs a command until it prints what it should; a guest that still boots may refuse a login for a while.
    fn prints(&self, what: &str, user: &str, command: &str, expected: &str) -> Result<()> {
        let identity = self.identity();
        let arguments = ["vm", "ssh", VM, "-l", user, "-i", &identity, "--", command];
        Deadline::after(PATIENCE).wait(what, || {
            let printed = self.cloud.quiet(&arguments)?;
            ensure!(printed.trim() == expected, "`{command}` printed {printed}");
            Ok(())
        })?;
        println!("    ok {what}: `{command}` as {user} prints {expected:?}");
        Ok(())
    }

    fn console(&self) -> Result<String> {
        self.cloud.quiet(&["vm", "logs", VM, "--tail", "40"])
    }

    fn dagger(&self, arguments: &[&str]) -> Result<()> {
        println!("    $ {}", as_typed(arguments));
        self.cloud.quiet(arguments).map(drop)
    }

    fn identity(&self) -> String {
        self.cloud.identity().display().to_string()
    }

    fn user_data(&self) -> PathBuf {
        self.cloud.root().join("user-data")
    }
}
