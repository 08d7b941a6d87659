//! A bare QEMU: the command line, the seed and a fresh disk of a hosted VM, and nothing of ours around it.

use super::cloud::{Cloud, late, not_understood};
use super::guest::{LISTENING, says};
use crate::context::now_ms;
use crate::failure::{Done, Failure};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};

/// How the hosted VM's network forwards the ssh server's port.
const FORWARD: &str = "hostfwd=tcp:127.0.0.1:0-:22";
/// Names of a VM's own files, in its directory.
const DISK: &str = "disk.qcow2";
const SEED: &str = "seed.img";
const MIB: u64 = 1 << 20;
/// How long a guest may take until it answers.
const ANSWERS_WITHIN: Duration = Duration::from_secs(600);
/// Before another connection is tried.
const RETRY: Duration = Duration::from_millis(5);

/// What bare QEMUs are made from.
pub struct Template {
    program: OsString,
    arguments: Vec<OsString>,
    seed: PathBuf,
    disk_mib: u64,
    /// How far hosted guests step back behind other processes.
    niceness: i64,
    root: PathBuf,
}

impl Template {
    /// Runs one VM to the end of its start, which also warms every cache, and takes its devices from it.
    pub async fn take(cloud: &Cloud) -> Done<Self> {
        let mut commits = cloud.commits().await?;
        let digest = cloud.submit("template").await?;
        cloud.executed(&digest).await?;
        let (vm, _) = cloud.running("template", &mut commits).await?;
        let instance = cloud.instance(&vm);
        let root = cloud.layout.root.join("bare");
        std::fs::create_dir(&root).map_err(|error| Failure::file(root.display(), &error))?;
        let niceness = niceness(instance.qemu()?)?;
        let path = format!("/proc/{}/cmdline", instance.qemu()?);
        let bytes = std::fs::read(&path).map_err(|error| Failure::file(path, &error))?;
        let words = bytes
            .split(|byte| *byte == 0)
            .filter(|word| !word.is_empty());
        let mut words = words.map(|word| OsString::from_vec(word.to_vec()));
        let program = words
            .next()
            .ok_or_else(|| not_understood("QEMU has no command line"))?;
        let seed = root.join(SEED);
        std::fs::copy(instance.dir.join(SEED), &seed)
            .map_err(|error| Failure::file(seed.display(), &error))?;
        let arguments = names_for_numbers(words, instance.qemu()?, &root)?;
        let template = Self {
            program,
            arguments,
            seed,
            disk_mib: vm.resources.disk_mib,
            niceness,
            root,
        };
        cloud.delete(&["template".to_owned()]).await?;
        Ok(template)
    }

    /// Starts one.
    pub fn start(&self, name: &str, shape: &Shape) -> Done<Bare> {
        let dir = self.root.join(name);
        let disk_bytes = shape.disk_mib.unwrap_or(self.disk_mib) * MIB;
        let made = std::fs::create_dir(&dir)
            .and_then(|()| std::fs::copy(&self.seed, dir.join(SEED)))
            .and_then(|_| dagger_vmm::create_empty_disk(&dir.join(DISK), disk_bytes));
        made.map_err(|error| Failure::file(dir.display(), &error))?;
        let mut ports = vec![(22, free_port()?)];
        for port in &shape.ports {
            ports.push((*port, free_port()?));
        }
        let arguments = self
            .arguments
            .iter()
            .map(|word| shape.shaped(word, &ports, &dir, disk_bytes));
        let arguments = arguments.collect::<Done<Vec<_>>>()?;
        let (console, console_theirs) = pair()?;
        let (control, control_theirs) = pair()?;
        let started_ms = now_ms();
        let child = Command::new("nice")
            .args(["-n", &self.niceness.to_string()])
            .arg(&self.program)
            .args(arguments)
            .current_dir(&dir)
            .stdin(Stdio::from(control_theirs))
            .stdout(Stdio::from(console_theirs))
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::file(Path::new(&self.program).display(), &error))?;
        Ok(Bare {
            child,
            console,
            _control: control,
            dir,
            ssh_port: ports[0].1,
            ports,
            started_ms,
        })
    }
}

/// A hosted QEMU is handed open files and knows them by numbers; a bare one opens its own by name. Kernels are copied from
/// what the hosted one still holds open.
fn names_for_numbers(
    mut words: impl Iterator<Item = OsString>,
    qemu: u32,
    root: &Path,
) -> Done<Vec<OsString>> {
    const OPEN: &str = "/proc/self/fd/";
    let mut named = Vec::new();
    while let Some(word) = words.next() {
        let text = word
            .into_string()
            .map_err(|_| not_understood("QEMU's command line is no text"))?;
        if text == "-add-fd" {
            words.next();
        } else if let Some(number) = text.strip_prefix(OPEN) {
            let copy = root.join(format!("handed-{number}"));
            std::fs::copy(format!("/proc/{qemu}/fd/{number}"), &copy)
                .map_err(|error| Failure::file(copy.display(), &error))?;
            named.push(copy.into());
        } else {
            let mut node: Value = serde_json::from_str(&text).unwrap_or_default();
            let file = match node["node-name"].as_str() {
                Some("disk") => DISK,
                Some("seed") => SEED,
                _ => {
                    named.push(text.into());
                    continue;
                }
            };
            node["file"]["filename"] = file.into();
            named.push(node.to_string().into());
        }
    }
    Ok(named)
}

/// How one differs from a hosted VM.
#[derive(Default)]
pub struct Shape {
    /// Ports of the guest that are forwarded beside that of ssh.
    pub ports: Vec<u16>,
    /// Size of its disk.
    pub disk_mib: Option<u64>,
    /// What is changed of QEMU's description of the disk.
    pub disk: Option<fn(&mut Value)>,
}

impl Shape {
    /// A word of the hosted VM's command line, changed.
    fn shaped(
        &self,
        word: &OsStr,
        ports: &[(u16, u16)],
        dir: &Path,
        disk_bytes: u64,
    ) -> Done<OsString> {
        let Some(text) = word.to_str() else {
            return Ok(word.to_owned());
        };
        let node: Value = serde_json::from_str(text).unwrap_or_default();
        match self.disk {
            Some(change) if node["node-name"] == "disk" => {
                let mut node = node;
                change(&mut node);
                if node["driver"] == "raw" {
                    // An empty file of that size is an empty raw disk.
                    let made = std::fs::File::create(dir.join(DISK))
                        .and_then(|file| file.set_len(disk_bytes));
                    made.map_err(|error| Failure::file(dir.display(), &error))?;
                }
                Ok(node.to_string().into())
            }
            _ => {
                let forwards = ports
                    .iter()
                    .map(|(guest, host)| format!("hostfwd=tcp:127.0.0.1:{host}-:{guest}"));
                Ok(text
                    .replace(FORWARD, &forwards.collect::<Vec<_>>().join(","))
                    .into())
            }
        }
    }
}

/// A running one; ended when it is dropped.
pub struct Bare {
    child: Child,
    console: UnixStream,
    /// QEMU ends when nobody holds the other end.
    _control: UnixStream,
    dir: PathBuf,
    /// Port of this machine that leads to the guest's ssh server.
    pub ssh_port: u16,
    /// Ports of the guest with those of this machine that lead to them.
    ports: Vec<(u16, u16)>,
    /// Unix ms.
    pub started_ms: u64,
}

impl Bare {
    /// The port of this machine that leads to one of the guest's.
    pub fn port(&self, guest: u16) -> Done<u16> {
        let found = self.ports.iter().find(|(own, _)| *own == guest);
        found
            .map(|(_, port)| *port)
            .ok_or_else(|| not_understood("a port of the guest is not forwarded"))
    }

    /// Waits until the guest's ssh server listens and greets; both Unix ms.
    pub async fn ready(&mut self) -> Done<(u64, u64)> {
        let wait = async {
            let mut said = Vec::new();
            while !says(&said, LISTENING) {
                if self.console.read_buf(&mut said).await.unwrap_or(0) == 0 {
                    return Err(not_understood("a bare QEMU ended"));
                }
            }
            let listening = now_ms();
            while !greets(self.ssh_port).await {
                tokio::time::sleep(RETRY).await;
            }
            Ok((listening, now_ms()))
        };
        tokio::time::timeout(ANSWERS_WITHIN, wait)
            .await
            .unwrap_or_else(|_| Err(late("a bare QEMU's guest")))
    }

    /// Ends it and waits until it is gone.
    pub async fn end(mut self) -> Done {
        self.child
            .kill()
            .await
            .map_err(|error| Failure::file("a bare QEMU", &error))?;
        std::fs::remove_dir_all(&self.dir)
            .map_err(|error| Failure::file(self.dir.display(), &error))
    }
}

fn niceness(pid: u32) -> Done<i64> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).map_err(|error| Failure::file(path, &error))?;
    // After the name, which may hold anything, it is the 17th word.
    let word = text
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().nth(16)?.parse().ok());
    word.ok_or_else(|| not_understood("the kernel tells no niceness of QEMU"))
}

async fn greets(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
        return false;
    };
    let mut greeting = [0; 4];
    stream.read_exact(&mut greeting).await.is_ok() && &greeting == b"SSH-"
}

fn pair() -> Done<(UnixStream, OwnedFd)> {
    let made = UnixStream::pair().and_then(|(ours, theirs)| {
        let theirs = theirs.into_std()?;
        theirs.set_nonblocking(false)?;
        Ok((ours, OwnedFd::from(theirs)))
    });
    made.map_err(|error| Failure::file("a bare QEMU's channels", &error))
}

fn free_port() -> Done<u16> {
    let bound =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    bound
        .map(|address| address.port())
        .map_err(|error| Failure::file("no free port on 127.0.0.1", &error))
}
