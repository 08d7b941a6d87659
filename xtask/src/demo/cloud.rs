//! The `dagger` command as a customer or operator of the demo's network would use it: the commands
//! that are shown, those whose JSON is read, and where the network's files lie.

use super::processes::Running;
use super::screen::Screen;
use super::views::{DevStatus, Machine, Node, Vm};
use crate::shell;
use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The longest path of the network's directory under which its sockets still have room: the system
/// limits the path of a socket to 108 bytes.
const DATA_PATH_BYTES_MAX: usize = 60;

/// The demo's network and its customer.
pub struct Cloud {
    dagger: PathBuf,
    root: PathBuf,
    apis: Vec<String>,
}

impl Cloud {
    /// This checkout's network of that name, of its release build; nothing is started yet.
    pub fn new(name: &str) -> Self {
        let inside = shell::target_dir().join(name);
        let root = if inside.as_os_str().len() <= DATA_PATH_BYTES_MAX {
            inside
        } else {
            std::env::temp_dir().join(format!("dagger-{name}-{}", nix::unistd::geteuid()))
        };
        Self {
            dagger: shell::target_dir().join("release/dagger"),
            root,
            apis: Vec::new(),
        }
    }

    /// The same with another build of the program.
    pub fn with_program(mut self, dagger: PathBuf) -> Self {
        self.dagger = dagger;
        self
    }

    /// Everything that the demo writes.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The network's data directory.
    pub fn data(&self) -> PathBuf {
        self.root.join("net")
    }

    /// The customer's configuration directory.
    pub fn config(&self) -> PathBuf {
        self.root.join("customer")
    }

    /// The customer's private ssh key; its public half lies beside it.
    pub fn identity(&self) -> PathBuf {
        self.root.join("id_ed25519")
    }

    /// The nodes' APIs, comma-separated, as `DAGGER_API` takes them.
    pub fn apis(&self) -> String {
        self.apis.join(",")
    }

    /// The API of the first operator's node.
    pub fn first_api(&self) -> Result<String> {
        self.apis.first().cloned().context("there is no node")
    }

    /// The program, as one would type it from the checkout.
    pub fn program(&self) -> String {
        let relative = self.dagger.strip_prefix(shell::root());
        relative.unwrap_or(&self.dagger).display().to_string()
    }

    /// Sets the nodes to talk to, in order of preference.
    pub fn talk_to(&mut self, apis: Vec<String>) {
        self.apis = apis;
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = shell::program(&self.dagger);
        command
            .args(arguments)
            .env("DAGGER_DEV_DATA", self.data())
            .env("DAGGER_CONFIG_DIR", self.config())
            .env_remove("DAGGER_KEY")
            .env_remove("DAGGER_API")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null());
        if !self.apis.is_empty() {
            command.env("DAGGER_API", self.apis());
        }
        command
    }

    /// Shows a command and what it prints, each line as it comes; returns the lines.
    pub fn show(&self, screen: &Screen, arguments: &[&str]) -> Result<Vec<String>> {
        screen.command(&as_typed(arguments));
        let (reader, writer) = std::io::pipe()?;
        let mut command = self.command(arguments);
        command.stdout(writer.try_clone()?).stderr(writer);
        let running = Running::start(&mut command)?;
        // The command keeps its ends of the pipe; without this the reader would never see the end.
        drop(command);
        let mut lines = Vec::new();
        for line in BufReader::new(reader).lines() {
            let line = line?;
            screen.printed(&line);
            lines.push(line);
        }
        let output = running.finish()?;
        if !output.status.success() {
            bail!("`{}` failed ({})", as_typed(arguments), output.status);
        }
        Ok(lines)
    }

    /// Runs a command without showing it and returns what it printed on standard output.
    pub fn quiet(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = Running::start(&mut command)?.finish()?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!(
                "`{}` failed ({}): {}",
                as_typed(arguments),
                output.status,
                errors.trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a command with `--output json` and reads its document.
    pub fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let mut all = vec!["--output", "json"];
        all.extend_from_slice(arguments);
        let text = self.quiet(&all)?;
        serde_json::from_str(&text)
            .with_context(|| format!("`{}` printed no such document: {text}", as_typed(&all)))
    }

    /// The APIs of the nodes that `dagger dev up` started, in the order of their seats.
    pub fn dev_apis(&self) -> Result<Vec<String>> {
        let status: DevStatus = self.json(&["dev", "status"])?;
        Ok(status.nodes.into_iter().map(|node| node.api).collect())
    }

    /// The file of the first operator's key: it sponsors the customer.
    pub fn operator_key(&self) -> Result<PathBuf> {
        let status: DevStatus = self.json(&["dev", "status"])?;
        let first = status.nodes.first().context("there is no node")?;
        Ok(first.data.join("keys/operator.json"))
    }

    /// The VM as the ledger has it now.
    pub fn vm(&self, name: &str) -> Result<Vm> {
        self.json(&["vm", "show", name])
    }

    /// The machines as the ledger has them now.
    pub fn machines(&self) -> Result<Vec<Machine>> {
        self.json(&["machine", "list"])
    }

    /// What one node says of itself.
    pub fn node(&self, api: &str) -> Result<Node> {
        self.json(&["--api", api, "node", "status"])
    }

    /// What every node says of itself; an error if one does not answer.
    pub fn nodes(&self) -> Result<Vec<Node>> {
        self.apis.iter().map(|api| self.node(api)).collect()
    }

    /// Logs in as the customer does and runs a command; returns its standard output.
    pub fn ssh(&self, name: &str, identity: &str, words: &[&str]) -> Result<String> {
        let mut arguments = vec!["vm", "ssh", name, "-i", identity];
        arguments.extend(["--ssh-option", "ConnectTimeout=15", "--"]);
        arguments.extend_from_slice(words);
        Ok(self.quiet(&arguments)?.trim().to_owned())
    }

    /// The fingerprint of the host key that the guest shows to an ssh that trusts whatever it sees:
    /// what `dagger vm ssh` compares with the ledger, looked at without its help.
    pub fn shown_host_key(&self, name: &str, identity: &str) -> Result<String> {
        let command = self.command(&[]);
        let proxy = format!(
            "ProxyCommand={} vm proxy {name} --port 22",
            self.dagger.display()
        );
        let mut ssh = shell::program("ssh");
        ssh.args(["-v", "-i", identity, "-o", &proxy, "-o", "BatchMode=yes"])
            .args([
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
            ])
            .args(["-o", "ConnectTimeout=15", &format!("root@{name}"), "true"])
            .envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = Running::start(&mut ssh)?.finish()?;
        let log = String::from_utf8_lossy(&output.stderr);
        shown_host_key(&log).ok_or_else(|| {
            anyhow!(
                "the guest showed no host key: {}",
                log.lines().last().unwrap_or_default()
            )
        })
    }

    /// The ssh host key that whoever listens at an address shows, in words of a public key file; no way of ours leads there.
    pub fn key_at(&self, address: &str) -> Result<String> {
        let (ip, port) = address
            .rsplit_once(':')
            .with_context(|| format!("{address:?} is no address and port"))?;
        let mut scan = shell::program("ssh-keyscan");
        scan.args(["-T", "15", "-t", "ed25519", "-p", port, ip]);
        let scanned = shell::output(&mut scan)?;
        let line = scanned.lines().find(|line| !line.starts_with('#'));
        let key = line.and_then(|line| Some(line.split_once(' ')?.1.to_owned()));
        key.with_context(|| format!("nothing shows an ssh host key at {address}"))
    }

    /// The fingerprint of a host key as ssh prints it.
    pub fn fingerprint(&self, public_key: &str) -> Result<String> {
        let file = self.root.join("host-key.pub");
        std::fs::write(&file, format!("{public_key}\n"))?;
        let printed = shell::output(shell::program("ssh-keygen").arg("-lf").arg(&file))?;
        let fingerprint = printed
            .split_whitespace()
            .find(|word| word.starts_with("SHA256:"));
        fingerprint
            .map(Into::into)
            .ok_or_else(|| anyhow!("ssh-keygen said: {}", printed.trim()))
    }
}

/// The fingerprint in ssh's `debug1: Server host key: ssh-ed25519 SHA256:...`.
fn shown_host_key(log: &str) -> Option<String> {
    let (_, after) = log.split_once("Server host key: ")?;
    let fingerprint = after.split_whitespace().nth(1)?;
    fingerprint
        .starts_with("SHA256:")
        .then(|| fingerprint.to_owned())
}

/// A `dagger` command as typed, with paths relative to the checkout.
pub fn as_typed(arguments: &[&str]) -> String {
    let root = format!("{}/", shell::root().display());
    let mut line = "dagger".to_owned();
    for argument in arguments {
        line.push(' ');
        let argument = argument.replace(&root, "");
        if argument.is_empty() || argument.contains([' ', '"', '$', '*']) {
            line.push_str(&format!("'{argument}'"));
        } else {
            line.push_str(&argument);
        }
    }
    line
}

#[cfg(test)]
#[path = "cloud_tests.rs"]
mod cloud_tests;
