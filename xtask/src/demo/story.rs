//! The demo's steps after the build, and what each of them verifies.

use super::cloud::Cloud;
use super::processes::{self, Found};
use super::screen::Screen;
use super::views::{Checkpoint, Vm};
use super::wait::Deadline;
use crate::guest::MicroGuest;
use crate::shell;
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::net::TcpStream;

/// Name of the VM.
pub const VM: &str = "web";
const ACCOUNT: &str = "demo";
const IMAGE: &str = "micro";
const OPERATORS: usize = 4;
const LEASE_MS: &str = "10000";
const MARGIN_MS: &str = "5000";
/// Of four members one may lie; one more than that must hear a machine before it counts as alive.
const RIVALS_MIN: usize = 2;
/// The guest's port that its machine opens to everybody.
const PUBLISHED: &str = "22";

/// The demo as it is told.
pub struct Story<'a> {
    screen: &'a mut Screen,
    cloud: &'a mut Cloud,
    deadline: Deadline,
    /// How many entries of the VM's history have been shown.
    shown: usize,
}

impl<'a> Story<'a> {
    /// A story that has not begun.
    pub fn new(screen: &'a mut Screen, cloud: &'a mut Cloud, deadline: Deadline) -> Self {
        Self {
            screen,
            cloud,
            deadline,
            shown: 0,
        }
    }

    /// Tells all of it, from four empty directories to four equal state roots.
    pub fn tell(&mut self, guest: &MicroGuest) -> Result<()> {
        self.network()?;
        self.customer(guest)?;
        let first = self.machine_for_the_customer()?;
        let first_uname = self.log_in(&first)?;
        let second = self.host_dies(&first)?;
        let second_uname = self.log_in(&second)?;
        ensure!(
            first_uname == second_uname,
            "the guest differs: {first_uname:?} before, {second_uname:?} after"
        );
        ensure!(
            first.ssh_host_key != second.ssh_host_key,
            "the second host shows the first one's key"
        );
        self.screen
            .verified("the host key is a new one, made by the new host");
        self.host_returns(&first, &second)?;
        self.same_ledger()
    }

    /// Step 3: four separate processes with their own keys, stores and endpoints.
    fn network(&mut self) -> Result<()> {
        self.screen.step("Four operators, each with one node");
        let nodes = OPERATORS.to_string();
        self.cloud.show(
            self.screen,
            &[
                "dev",
                "up",
                "--nodes",
                &nodes,
                "--lease-ms",
                LEASE_MS,
                "--margin-ms",
                MARGIN_MS,
            ],
        )?;
        let apis = self.cloud.dev_apis()?;
        ensure!(
            apis.len() == OPERATORS,
            "`dagger dev up` started {} nodes",
            apis.len()
        );
        self.cloud.talk_to(apis);
        let cloud = &*self.cloud;
        self.deadline
            .wait("four machines that their rivals hear", || {
                let machines = cloud.machines()?;
                ensure!(machines.len() == OPERATORS, "{} machines", machines.len());
                for machine in &machines {
                    ensure!(
                        machine.state == "ready" && machine.heard_by.len() >= RIVALS_MIN,
                        "{} is {}, heard by {:?}",
                        machine.name,
                        machine.state,
                        machine.heard_by
                    );
                }
                Ok(())
            })?;
        self.cloud.show(self.screen, &["machine", "list"])?;
        Ok(())
    }

    /// Step 4: an account that an operator sponsors, and an image that it publishes.
    fn customer(&mut self, guest: &MicroGuest) -> Result<()> {
        self.screen
            .step("A customer: an account sponsored by an operator, and an image");
        let account: serde_json::Value = self.cloud.json(&["account", "new", ACCOUNT])?;
        self.screen
            .command(&format!("dagger account new {ACCOUNT}"));
        let key = account["public_key"]
            .as_str()
            .or_else(|| account["key"].as_str());
        let key = key.ok_or_else(|| anyhow!("`dagger account new` printed no key: {account}"))?;
        self.screen.fact(&format!("public key {key}"));
        let operator = self.cloud.operator_key()?;
        let operator = operator.display().to_string();
        self.cloud.show(
            self.screen,
            &["--key", &operator, "operator", "sponsor", ACCOUNT, key],
        )?;
        // Uploaded to the first operator's node alone: whoever hosts the VM fetches it from there.
        let first = self.cloud.first_api()?;
        let kernel = guest.kernel.display().to_string();
        let initrd = guest.initrd.display().to_string();
        self.cloud.show(
            self.screen,
            &[
                "--api",
                &first,
                "image",
                "add",
                IMAGE,
                "--kernel",
                &kernel,
                "--initrd",
                &initrd,
                "--cmdline",
                &guest.cmdline,
            ],
        )?;
        Ok(())
    }

    /// Step 5: a signed request, ordered, executed, placed, started.
    fn machine_for_the_customer(&mut self) -> Result<Vm> {
        self.screen.step("A VM, and what happens as it happens");
        let identity = self.cloud.identity().display().to_string();
        let mut keygen = shell::program("ssh-keygen");
        keygen.args([
            "-q", "-t", "ed25519", "-N", "", "-C", ACCOUNT, "-f", &identity,
        ]);
        shell::output(&mut keygen)?;
        let public = format!("{identity}.pub");
        // The operator whose node holds the image is left out, so that the host must fetch it.
        let first = self.cloud.first_api()?;
        let holder = self.cloud.node(&first)?.name;
        self.cloud.show(
            self.screen,
            &[
                "vm",
                "create",
                VM,
                "--image",
                IMAGE,
                "--ssh-key",
                &public,
                "--failover",
                "recreate",
                "--publish",
                PUBLISHED,
                "--deny-operator",
                &holder,
                "--wait",
            ],
        )?;
        let vm = self.cloud.vm(VM)?;
        self.shown = vm.history.len();
        ensure!(vm.phase == "running", "the VM is {}", vm.phase);
        ensure!(
            vm.lease_epoch == 1,
            "the VM is at lease epoch {}",
            vm.lease_epoch
        );
        Ok(vm)
    }

    /// What the host signed about how it runs the VM.
    fn host_report(&self, vm: &Vm) {
        if let Some(source) = &vm.image_source {
            self.screen.fact(&format!("image: {source}"));
        }
        if let Some(accelerator) = &vm.accelerator {
            let reason = vm
                .accelerator_reason
                .as_deref()
                .unwrap_or("no reason given");
            self.screen.fact(&format!(
                "QEMU with {}: {reason}",
                accelerator.to_uppercase()
            ));
        }
    }

    /// Steps 6 and 7: log in with the same command, and check the host key against the ledger.
    fn log_in(&mut self, vm: &Vm) -> Result<String> {
        if vm.lease_epoch == 1 {
            self.screen
                .step("Log in, the host key verified against the ledger");
        }
        let identity = self.cloud.identity().display().to_string();
        self.screen.command(&super::cloud::as_typed(&[
            "vm", "ssh", VM, "-i", &identity, "--", "uname", "-a",
        ]));
        let cloud = &*self.cloud;
        let uname = self.deadline.wait("ssh into the VM", || {
            cloud.ssh(VM, &identity, &["uname", "-a"])
        })?;
        self.screen.fact(&uname);
        ensure!(uname.starts_with("Linux "), "uname printed {uname:?}");
        let key = vm
            .ssh_host_key
            .as_deref()
            .context("the ledger holds no host key of the VM")?;
        let expected = self.cloud.fingerprint(key)?;
        let shown = self.cloud.shown_host_key(VM, &identity)?;
        ensure!(
            shown == expected,
            "the guest showed {shown}, the ledger holds {expected}"
        );
        self.screen
            .verified(&format!("the guest's host key {shown} is the ledger's"));
        self.published_port(key)?;
        Ok(uname)
    }

    /// The port that the VM's machine opens to everybody leads to this very guest.
    fn published_port(&self, key: &str) -> Result<()> {
        let cloud = &*self.cloud;
        let address = self.deadline.wait("the published port", || {
            let published = cloud.vm(VM)?.published;
            let address = published.first().and_then(|port| port.address.clone());
            let address = address.ok_or_else(|| anyhow!("it is nowhere: {published:?}"))?;
            let shown = cloud.key_at(&address)?;
            ensure!(
                words(&shown) == words(key),
                "{address} leads to a guest with the key {shown}, the ledger holds {key}"
            );
            Ok(address)
        })?;
        self.screen.verified(&format!(
            "port {PUBLISHED} is published at {address}, and leads to the same guest"
        ));
        Ok(())
    }

    /// Step 7: node, shim and QEMU are killed at once; the others decide and act.
    fn host_dies(&mut self, first: &Vm) -> Result<Vm> {
        self.screen
            .step("The host dies; the VM is placed on another operator's machine");
        let operator = first.operator.as_deref().context("the VM has no host")?;
        let before = self.only_hypervisor()?;
        self.cloud.show(self.screen, &["dev", "kill", operator])?;
        let running = self.hypervisors()?;
        ensure!(running.is_empty(), "the VM survived its host: {running:?}");
        for port in &first.published {
            let open = port.address.as_ref().map(TcpStream::connect);
            ensure!(
                !matches!(open, Some(Ok(_))),
                "port {} is open although its host is dead",
                port.guest_port
            );
        }
        let cloud = &*self.cloud;
        let screen = &*self.screen;
        let shown = &mut self.shown;
        let second = self.deadline.wait("the VM to run elsewhere", || {
            let vm = cloud.vm(VM)?;
            show_history(screen, &vm, shown);
            ensure!(
                vm.lease_epoch >= 2 && vm.phase == "running",
                "lease epoch {}, {} on {:?}{}",
                vm.lease_epoch,
                vm.phase,
                vm.machine,
                vm.reason
                    .as_ref()
                    .map(|r| format!(" ({}: {})", r.code, r.text))
                    .unwrap_or_default()
            );
            Ok(vm)
        })?;
        ensure!(
            second.lease_epoch == 2,
            "the VM is at lease epoch {}",
            second.lease_epoch
        );
        ensure!(
            second.operator != first.operator,
            "the VM went to the same operator"
        );
        let after = self.only_hypervisor()?;
        ensure!(
            before.directory != after.directory,
            "the VM runs in the directory of the host that died: {after:?}"
        );
        self.screen.verified(&format!(
            "lease epoch 2, on {} of {} (was {} of {operator})",
            second.machine.as_deref().unwrap_or("?"),
            second.operator.as_deref().unwrap_or("?"),
            first.machine.as_deref().unwrap_or("?"),
        ));
        self.host_report(&second);
        Ok(second)
    }

    /// Still step 7: the dead node returns, catches up, and leaves the VM alone.
    fn host_returns(&mut self, first: &Vm, second: &Vm) -> Result<()> {
        let operator = first.operator.as_deref().context("the VM had no host")?;
        let before = self.only_hypervisor()?;
        self.cloud.show(self.screen, &["dev", "start", operator])?;
        let cloud = &*self.cloud;
        self.deadline
            .wait("the returned node to be one of four again", || {
                let node = cloud
                    .nodes()?
                    .into_iter()
                    .find(|node| node.name == operator);
                let node = node.ok_or_else(|| anyhow!("no node is {operator}'s"))?;
                ensure!(node.state == "ready", "{operator} is {}", node.state);
                let machines = cloud.machines()?;
                for machine in machines
                    .iter()
                    .filter(|machine| machine.operator == operator)
                {
                    ensure!(
                        machine.state == "ready",
                        "{} is {}",
                        machine.name,
                        machine.state
                    );
                }
                Ok(())
            })?;
        self.screen.fact(&format!(
            "{operator} has caught up, and its rivals hear it again"
        ));
        let after = self.only_hypervisor()?;
        ensure!(
            before == after,
            "the VM was started a second time: {after:?}"
        );
        let vm = self.cloud.vm(VM)?;
        ensure!(
            vm.lease_epoch == 2 && vm.machine == second.machine && vm.phase == "running",
            "the VM is {} on {:?} at lease epoch {}",
            vm.phase,
            vm.machine,
            vm.lease_epoch
        );
        self.screen
            .verified("the VM runs once, where it was; the old host did not start it again");
        Ok(())
    }

    fn hypervisors(&self) -> Result<Vec<Found>> {
        let mut found = processes::of_network(&self.cloud.data())?;
        found.retain(Found::is_hypervisor);
        Ok(found)
    }

    /// The one VM process there is; two, or none, are failures.
    fn only_hypervisor(&self) -> Result<Found> {
        match self.hypervisors()?.as_slice() {
            [only] => Ok(only.clone()),
            others => bail!(
                "there should be one VM process, not {}: {others:?}",
                others.len()
            ),
        }
    }

    /// Step 8: four nodes at one checkpoint with one state root.
    fn same_ledger(&mut self) -> Result<()> {
        self.screen.step("The same ledger on every node");
        let cloud = &*self.cloud;
        let nodes = self.deadline.wait("four equal certified checkpoints", || {
            let mut nodes = Vec::new();
            for node in cloud.nodes()? {
                let checkpoint = node
                    .checkpoint
                    .ok_or_else(|| anyhow!("{}: none", node.name))?;
                ensure!(
                    checkpoint.certified,
                    "{}: {} not certified",
                    node.name,
                    checkpoint.commit
                );
                nodes.push((node.name, checkpoint));
            }
            ensure!(same_commit(&nodes), "{nodes:?}");
            Ok(nodes)
        })?;
        for (name, checkpoint) in &nodes {
            self.screen.fact(&format!(
                "{name:<8} commit {:<6} state root {}",
                checkpoint.commit, checkpoint.state_root
            ));
        }
        let (_, first) = &nodes[0];
        ensure!(
            nodes.iter().all(|(_, checkpoint)| checkpoint == first),
            "the state roots differ at the same commit"
        );
        self.screen.verified(&format!(
            "{} equal state roots at one checkpoint",
            nodes.len()
        ));
        Ok(())
    }
}

/// Kind and key of a public key, without what may follow.
fn words(key: &str) -> Vec<&str> {
    key.split_whitespace().take(2).collect()
}

fn same_commit(nodes: &[(String, Checkpoint)]) -> bool {
    nodes
        .windows(2)
        .all(|pair| pair[0].1.commit == pair[1].1.commit)
}

/// Shows what happened to the VM since the last look.
fn show_history(screen: &Screen, vm: &Vm, shown: &mut usize) {
    for event in vm.history.iter().skip(*shown) {
        let machine = event.machine.as_deref().unwrap_or("no machine");
        screen.fact(&format!(
            "{:<9} lease epoch {} on {machine}: {}",
            event.phase, event.lease_epoch, event.text
        ));
    }
    *shown = vm.history.len().max(*shown);
}
