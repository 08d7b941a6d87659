//! The live account of a VM's creation: every stage once, with the time since the request was sent.

use super::show;
use crate::context::{Connection, Context};
use crate::failure::{Done, Exit, Failure};
use crate::output;
use dagger_client::api::{DecisionView, Submitted, TransactionStatus, VmEvent, VmView};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt as _;

/// How long one attempt to hear the guest's ssh server may take.
const BANNER_WITHIN: Duration = Duration::from_secs(5);

pub struct Progress {
    json: bool,
    shown: bool,
    started: Instant,
    /// The node's clock when it took the transaction, and ours since the start.
    accepted: Option<(u64, Duration)>,
    stages: [bool; 3],
    history_commit: u64,
    history_seen: usize,
}

impl Progress {
    pub fn new(context: &Context, shown: bool) -> Self {
        Self {
            json: context.json(),
            shown,
            started: Instant::now(),
            accepted: None,
            stages: [false; 3],
            history_commit: 0,
            history_seen: 0,
        }
    }

    pub fn title(&self, text: &str) -> Done {
        match self.shown && !self.json {
            true => output::line(text),
            false => Ok(()),
        }
    }

    fn stage(&self, stage: &str, after: Duration, text: &str, data: serde_json::Value) -> Done {
        if !self.shown {
            return Ok(());
        }
        if self.json {
            let elapsed_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            let line = serde_json::json!({"stage": stage, "elapsed_ms": elapsed_ms, "text": text, "data": data});
            return output::json_line(&line);
        }
        output::line(&format!(
            "  {:>7.3}s  {stage:<10} {text}",
            after.as_secs_f64()
        ))
    }

    /// Since the start, of a moment by the clock of the node that took the transaction.
    fn since_start(&self, at_ms: u64) -> Duration {
        match self.accepted {
            Some((node_ms, after)) => after + Duration::from_millis(at_ms.saturating_sub(node_ms)),
            None => self.started.elapsed(),
        }
    }

    pub fn accepted(&mut self, submitted: &Submitted) -> Done {
        let after = self.started.elapsed();
        self.accepted = Some((submitted.at_ms, after));
        let text = format!(
            "by node {}: transaction {}",
            submitted.node,
            output::short(&submitted.digest)
        );
        self.stage("accepted", after, &text, serde_json::json!(submitted))
    }

    /// Tells the stages of the transaction's way that are new.
    pub fn transaction(&mut self, status: &TransactionStatus) -> Done {
        if let Some(event) = &status.event
            && !std::mem::replace(&mut self.stages[0], true)
        {
            let name = &event.event;
            let text = format!(
                "event {} of {}, round {}",
                output::short(&name.digest),
                name.creator_name,
                name.round
            );
            self.stage(
                "proposed",
                self.since_start(event.at_ms),
                &text,
                serde_json::json!(event),
            )?;
        }
        if let Some(commit) = &status.commit
            && !std::mem::replace(&mut self.stages[1], true)
        {
            let leader = &commit.leader;
            let text = format!(
                "commit {}, leader {} round {}, {}",
                commit.index,
                leader.creator_name,
                leader.round,
                decision(&commit.decision)
            );
            self.stage(
                "committed",
                self.since_start(commit.at_ms),
                &text,
                serde_json::json!(commit),
            )?;
        }
        if let Some(outcome) = &status.outcome
            && !std::mem::replace(&mut self.stages[2], true)
        {
            let text = format!("{}: {}", outcome.code, outcome.detail);
            self.stage(
                "executed",
                self.since_start(outcome.at_ms),
                &text,
                serde_json::json!(outcome),
            )?;
        }
        Ok(())
    }

    /// Tells what is new in the VM's history.
    async fn history(&mut self, connection: &Connection, vm: &VmView) -> Done {
        let new = new_events(&vm.history, self.history_commit, self.history_seen);
        for event in &vm.history[vm.history.len() - new..] {
            let (stage, text) = self.describe(connection, vm, event).await;
            self.stage(
                &stage,
                self.started.elapsed(),
                &text,
                serde_json::json!(event),
            )?;
        }
        if let Some(last) = vm.history.last() {
            self.history_commit = last.commit;
            self.history_seen = vm
                .history
                .iter()
                .filter(|event| event.commit == last.commit)
                .count();
        }
        Ok(())
    }

    async fn describe(
        &self,
        connection: &Connection,
        vm: &VmView,
        event: &VmEvent,
    ) -> (String, String) {
        let machine = event.machine.as_deref().unwrap_or("no machine");
        let current = event.lease_epoch == vm.lease_epoch;
        let text = match event.phase.as_str() {
            "placed" => {
                let why = why_there(connection, vm, machine).await;
                let place = if current {
                    show::place(vm)
                } else {
                    machine.to_owned()
                };
                format!("on {place}, lease epoch {}{why}", event.lease_epoch)
            }
            "accepted" => match (&vm.ssh_host_key, current) {
                (Some(key), true) => format!("by {machine}, which signed for ssh host key {key}"),
                _ => format!("by {machine}"),
            },
            "starting" if current => {
                let source = vm.image_source.as_deref().unwrap_or("its store");
                format!("image from {source}; QEMU with {}", show::accelerator(vm))
            }
            "running" => format!("the guest is up on {machine}"),
            _ => format!("{} [{}]", event.text, event.code),
        };
        // "accepted" is taken by the node's acceptance of the transaction.
        let stage = if event.phase == "accepted" {
            "taken"
        } else {
            event.phase.as_str()
        };
        (stage.to_owned(), text)
    }

    pub fn ssh_ready(&self, banner: &str) -> Done {
        let data = serde_json::json!({"banner": banner});
        self.stage(
            "ssh ready",
            self.started.elapsed(),
            &format!("the guest answers: {banner}"),
            data,
        )
    }
}

/// How many entries at the end of `history` are new, when those up to `seen` of `commit` have been told.
pub(super) fn new_events(history: &[VmEvent], commit: u64, seen: usize) -> usize {
    let later = history.iter().filter(|event| event.commit > commit).count();
    let same = history
        .iter()
        .filter(|event| event.commit == commit)
        .count();
    later + same.saturating_sub(seen)
}

/// How the commit was decided, in words.
fn decision(decision: &DecisionView) -> String {
    match decision {
        DecisionView::Direct {
            certifiers,
            weight,
            quorum_weight,
            total_weight,
        } => {
            let names: Vec<&str> = certifiers
                .iter()
                .map(|member| member.name.as_str())
                .collect();
            format!(
                "certified by {} (weight {weight} of {total_weight}, quorum {quorum_weight})",
                names.join(", ")
            )
        }
        DecisionView::Indirect { anchor } => {
            format!(
                "through the later leader {} round {}",
                anchor.creator_name, anchor.round
            )
        }
    }
}

/// Why placement chose `machine`, as far as the node can still say.
async fn why_there(connection: &Connection, vm: &VmView, machine: &str) -> String {
    let Ok(explanation) = connection.client.explain(&vm.account, &vm.name).await else {
        return String::new();
    };
    let fitting = explanation
        .candidates
        .iter()
        .filter(|candidate| candidate.fits)
        .count();
    let found = explanation
        .candidates
        .iter()
        .position(|candidate| candidate.machine == machine);
    match found {
        Some(index) => {
            let of = explanation.candidates.len();
            format!(
                ": {} ({fitting} of {of} machines fit)",
                show::reasons(&explanation, index)
            )
        }
        None => String::new(),
    }
}

/// Follows a VM until its ssh server answers.
pub async fn follow(
    context: &Context,
    connection: &Connection,
    progress: &mut Progress,
    mut vm: VmView,
    deadline: Instant,
) -> Done<VmView> {
    loop {
        progress.history(connection, &vm).await?;
        match vm.phase.as_str() {
            "running" => {
                if let Some(banner) = banner(context, connection, &vm).await {
                    progress.ssh_ready(&banner)?;
                    return Ok(vm);
                }
            }
            "failed" => {
                let text = format!("vm {}/{} failed: {}", vm.account, vm.name, vm.reason.text);
                return Err(
                    Failure::new(Exit::Failure, &vm.reason.code, text).hint(format!(
                        "see `dagger vm show {}`, then delete it or start it again",
                        vm.name
                    )),
                );
            }
            _ => {}
        }
        if Instant::now() >= deadline {
            let text = format!(
                "vm {}/{} is still {}: {}",
                vm.account, vm.name, vm.phase, vm.reason.text
            );
            return Err(
                Failure::new(Exit::TimedOut, "E_TIMED_OUT", text).hint(format!(
                    "it goes on without you; look with `dagger vm show {}`",
                    vm.name
                )),
            );
        }
        tokio::time::sleep(super::LOOK_EVERY).await;
        vm = connection.client.vm(&vm.account, &vm.name).await?;
    }
}

/// The first line of the guest's ssh server, through the tunnel; none while it does not answer.
async fn banner(context: &Context, connection: &Connection, vm: &VmView) -> Option<String> {
    let token = super::access::port_token(context, connection, vm, 22).ok()?;
    let tunnel = connection
        .client
        .tunnel(&vm.account, &vm.name, 22, &token)
        .await
        .ok()?;
    let (mut heard, guest) = tokio::io::duplex(4096);
    // An input that never ends keeps the tunnel open until the banner has come.
    let (_open, silence) = tokio::io::duplex(1);
    let mut text = Vec::new();
    let read = async {
        while !text.contains(&b'\n') && text.len() < 255 {
            if heard.read_buf(&mut text).await.unwrap_or(0) == 0 {
                break;
            }
        }
    };
    tokio::select! {
        _ = tunnel.carry(silence, guest) => {}
        () = read => {}
        () = tokio::time::sleep(BANNER_WITHIN) => {}
    }
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next()?.trim();
    line.starts_with("SSH-")
        .then(|| line.chars().filter(|c| !c.is_control()).collect())
}

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
