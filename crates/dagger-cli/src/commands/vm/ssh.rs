//! `dagger vm ssh`: the system's ssh through the tunnel, with the guest's key taken from the ledger.

use super::show;
use crate::args::SshArgs;
use crate::context::{Connection, Context};
use crate::failure::{Done, Exit, Failure};
use dagger_client::api::VmView;
use dagger_client::http::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// Nodes may be a few commits apart; this long is waited for them to agree on a VM's host key.
const AGREE_WITHIN: Duration = Duration::from_secs(3);

pub async fn run(context: &Context, args: SshArgs) -> Done<ExitCode> {
    let connection = context.connect().await?;
    let (account, name) = context.qualify(&connection, &args.vm.vm).await?;
    let vm = connection.client.vm(&account, &name).await?;
    let (vm, host_key) = agreed_host_key(context, &connection, vm).await?;
    let alias = format!("vm-{}.{:.12}", vm.id, connection.status.chain_id);
    let mut known_hosts =
        tempfile::NamedTempFile::new().map_err(|e| Failure::file("known hosts", &e))?;
    writeln!(known_hosts, "{alias} {host_key}").map_err(|e| Failure::file("known hosts", &e))?;
    let mut command = command(context, &args, &vm, &alias, known_hosts.path())?;
    let child = command.spawn().map_err(|error| {
        Failure::new(
            Exit::Failure,
            "E_SSH_MISSING",
            format!("ssh cannot be started: {error}"),
        )
        .hint("install an OpenSSH client (Debian, Ubuntu: apt install openssh-client)")
    })?;
    let status = attend(child).await?;
    Ok(exit_code(status))
}

/// The host key, as every node that answers has it.
async fn agreed_host_key(
    context: &Context,
    connection: &Connection,
    mut vm: VmView,
) -> Done<(VmView, String)> {
    let deadline = Instant::now() + AGREE_WITHIN;
    loop {
        let host_key = match (&vm.ssh_host_key, vm.phase.as_str()) {
            (Some(key), "running" | "starting" | "accepted") => key.clone(),
            _ => return Err(not_running(&vm)),
        };
        let Some(other) = disagreeing(context, connection, &vm).await? else {
            return Ok((vm, host_key));
        };
        if Instant::now() >= deadline {
            let text = format!(
                "{} and {} name different ssh host keys for vm {}/{}: one of them lies or is cut off",
                connection.client.api(),
                other.api(),
                vm.account,
                vm.name
            );
            return Err(Failure::new(Exit::Failure, "E_HOST_KEY_MISMATCH", text)
                .hint("do not log in; compare `dagger vm show` of further nodes and leave out the one that is wrong"));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        vm = connection.client.vm(&vm.account, &vm.name).await?;
    }
}

fn not_running(vm: &VmView) -> Failure {
    let text = format!(
        "vm {}/{} is {}: {}",
        vm.account, vm.name, vm.phase, vm.reason.text
    );
    Failure::new(Exit::Failure, "E_VM_NOT_RUNNING", text).hint(format!(
        "see `dagger vm show {}` ({})",
        vm.name,
        show::place(vm)
    ))
}

/// A node that answers and names another host key or lease epoch. One that does not answer has no say.
async fn disagreeing<'a>(
    context: &'a Context,
    connection: &Connection,
    vm: &VmView,
) -> Done<Option<&'a Client>> {
    for client in context.clients()? {
        if client.api() == connection.client.api() {
            continue;
        }
        if let Ok(seen) = client.vm(&vm.account, &vm.name).await
            && (seen.lease_epoch, &seen.ssh_host_key) != (vm.lease_epoch, &vm.ssh_host_key)
        {
            return Ok(Some(client));
        }
    }
    Ok(None)
}

fn command(
    context: &Context,
    args: &SshArgs,
    vm: &VmView,
    alias: &str,
    known_hosts: &std::path::Path,
) -> Done<Command> {
    let program = std::env::current_exe().map_err(|error| Failure::file("this program", &error))?;
    // Names are DNS labels; only the path needs quoting, and `%` means something to ssh.
    let program = program
        .to_string_lossy()
        .replace('\'', r"'\''")
        .replace('%', "%%");
    let proxy = format!("'{program}' vm proxy {}/{} --port 22", vm.account, vm.name);
    let mut ssh = Command::new("ssh");
    for option in [
        format!("ProxyCommand={proxy}"),
        format!("HostKeyAlias={alias}"),
        format!("UserKnownHostsFile={}", known_hosts.display()),
        "GlobalKnownHostsFile=/dev/null".to_owned(),
        "StrictHostKeyChecking=yes".to_owned(),
        "HostKeyAlgorithms=ssh-ed25519".to_owned(),
        "UpdateHostKeys=no".to_owned(),
        "ControlPath=none".to_owned(),
    ] {
        ssh.arg("-o").arg(option);
    }
    // ssh takes the first of each option: those above stand, the one below may be chosen.
    for option in &args.ssh_options {
        ssh.arg("-o").arg(option);
    }
    ssh.args(["-o", "LogLevel=ERROR"]);
    if let Some(identity) = args
        .identity
        .as_ref()
        .or(context.config.ssh_identity.as_ref())
    {
        ssh.arg("-i")
            .arg(identity)
            .args(["-o", "IdentitiesOnly=yes"]);
    }
    ssh.arg("-l").arg(&args.login).arg(&vm.name);
    if !args.command.is_empty() {
        ssh.arg("--").args(&args.command);
    }
    // The proxy is this program again; it learns where and as whom from the environment.
    let apis: Vec<&str> = context.clients()?.iter().map(Client::api).collect();
    ssh.env("DAGGER_API", apis.join(","));
    ssh.env("DAGGER_CONFIG_DIR", absolute(&context.config_dir));
    ssh.env("DAGGER_KEY", absolute(context.key_path()?));
    Ok(ssh)
}

fn absolute(path: &std::path::Path) -> std::path::PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Waits for ssh. A signal that asks us to end is passed on, so that the file of host keys goes away.
async fn attend(mut child: Child) -> Done<ExitStatus> {
    let failed = |error: &dyn std::fmt::Display| Failure::file("ssh", error);
    let mut interrupted = signal(SignalKind::interrupt()).map_err(|e| failed(&e))?;
    let mut terminated = signal(SignalKind::terminate()).map_err(|e| failed(&e))?;
    let mut hung_up = signal(SignalKind::hangup()).map_err(|e| failed(&e))?;
    loop {
        tokio::select! {
            status = child.wait() => return status.map_err(|e| failed(&e)),
            // The terminal has sent it to ssh as well.
            _ = interrupted.recv() => {}
            _ = terminated.recv() => pass_on(&child, Signal::SIGTERM),
            _ = hung_up.recv() => pass_on(&child, Signal::SIGHUP),
        }
    }
}

fn pass_on(child: &Child, signal: Signal) {
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        // It may have ended in this moment.
        let _ = kill(Pid::from_raw(id), signal);
    }
}

/// The exit status of ssh as a shell would have it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(255);
    ExitCode::from(u8::try_from(code).unwrap_or(255))
}
