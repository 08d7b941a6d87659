//! A network with one machine whose QEMU is a script: everything else is as a user has it. What a test expects does not stand here.

use super::support::{Home, Node, found, json, run, text, wait};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

/// Stands in for QEMU; see its first lines.
const QEMU: &str = include_str!("../fake/qemu.pl");

/// Operators' nodes; the first has a machine, an account and an image.
pub struct Network {
    pub root: PathBuf,
    pub homes: Vec<Home>,
    pub nodes: Vec<Node>,
}

impl Network {
    /// A network of these operators, ready to take VMs.
    pub fn start(root: &Path, names: &[&str]) -> Self {
        Self::start_with(root, names, "")
    }

    /// The same; what `first` says stands first in each node's configuration.
    pub fn start_with(root: &Path, names: &[&str], first: &str) -> Self {
        let programs = root.join("programs");
        std::fs::create_dir(&programs).unwrap();
        let qemu = programs.join("qemu-system-x86_64");
        std::fs::write(&qemu, QEMU).unwrap();
        std::fs::set_permissions(&qemu, PermissionsExt::from_mode(0o755)).unwrap();
        let homes = found(root, names);
        for home in &homes {
            let file = home.data.join("node.toml");
            let rest = std::fs::read_to_string(&file).unwrap();
            std::fs::write(&file, format!("{first}{rest}")).unwrap();
        }
        let nodes = homes
            .iter()
            .map(|home| home.start_with_path(programs.to_str().unwrap()));
        let network = Network {
            root: root.to_owned(),
            nodes: nodes.collect(),
            homes,
        };
        network.homes.iter().for_each(|home| drop(home.ready()));
        network.fill();
        network
    }

    fn fill(&self) {
        let home = &self.homes[0];
        let operator = home.data.join("keys/operator.json");
        let operator = operator.to_str().unwrap();
        let node_key = home.status().unwrap()["node_key"].clone();
        let node_key = node_key.as_str().unwrap();
        let machine =
            format!("machine add m-alpha --node-key {node_key} --vcpus 4 --memory 4G --disk 10G");
        self.signed(operator, &machine);
        let account = self.key();
        let public = self.account_key(Path::new(&account));
        self.signed(operator, &format!("operator sponsor shop {public}"));
        let kernel = self.root.join("kernel");
        std::fs::write(&kernel, "not much of a kernel").unwrap();
        let add = format!(
            "image add micro --kernel {} --cmdline quiet",
            kernel.display()
        );
        self.signed(&account, &add);
        wait("the machine to be heard", || {
            let machines = json(&["--api", &home.api(), "machine", "list"]);
            (machines[0]["state"] == "ready").then_some(())
        });
    }

    /// The file of the account's key.
    pub fn key(&self) -> String {
        self.root.join("account.json").display().to_string()
    }

    fn account_key(&self, file: &Path) -> String {
        use dagger_client::keys::{self, KeyKind, SecretKey};
        let key = SecretKey::generate();
        keys::write(file, KeyKind::Account, &key).unwrap();
        let (_, public) = dagger_vmm::new_ssh_host_key([3; 32]);
        std::fs::write(self.root.join("id.pub"), public).unwrap();
        hex::encode(key.public())
    }

    /// Runs a command.
    pub fn run(&self, key: &str, command: &str) -> Output {
        let api = self.homes[0].api();
        let mut words = vec!["--api", &api, "--key", key];
        words.extend(command.split(' '));
        run(&words)
    }

    /// Runs a command that must succeed.
    pub fn signed(&self, key: &str, command: &str) {
        let output = self.run(key, command);
        assert!(
            output.status.success(),
            "{command}: {}",
            text(&output.stderr)
        );
    }

    /// Makes a VM and waits until it runs.
    pub fn create(&self, name: &str) {
        let ssh_key = self.root.join("id.pub");
        let create = format!(
            "vm create {name} --image micro --ssh-key {} --memory 64M --disk 16M --wait",
            ssh_key.display()
        );
        self.signed(&self.key(), &create);
    }

    /// What the first node says of a VM.
    pub fn vm(&self, name: &str) -> Value {
        let vm = format!("shop/{name}");
        json(&["--api", &self.homes[0].api(), "vm", "show", &vm])
    }
}
