//! A running QEMU and the conversation with it over its control channel: what is asked, and what answers and events mean.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use serde_json::{Value, json};

use super::connections::Token;
use super::process::{self, Spawned};
use super::watch::Watch;
use crate::clock::{boottime_ms, unix_ms};
use crate::control::Response;
use crate::qemu::qmp::{Message, Qmp, forwarded_port, taken};
use crate::spec::Accelerator;
use crate::status::StopCode;

/// Most commands that QEMU may owe an answer.
const WAITING_MAX: usize = 64;
/// Whose answer from QEMU is awaited.
pub enum Waiting {
    Capabilities,
    Ping,
    Dial {
        token: Token,
        guest_port: u16,
        asked_to_add: bool,
    },
    Taken {
        token: Token,
        guest_port: u16,
    },
    Nobody,
}

/// A running QEMU.
pub struct Running {
    pub process: Spawned,
    pub accelerator: Accelerator,
    pub qmp: Qmp,
    pub negotiated: bool,
    /// Commands that wait for the negotiation.
    pub unsent: Vec<u8>,
    pub waiting: BTreeMap<u64, Waiting>,
    /// QEMU has not answered since (Unix ms).
    pub silent_since_ms: Option<u64>,
    pub ping_unanswered: bool,
    pub panicked: bool,
    pub shutdown: Option<String>,
    pub complaints: Vec<u8>,
    /// The host's count of such kills, a moment ago.
    pub oom_kills: u64,
    /// Why the accelerator on trial was given up.
    pub trial_failed: Option<&'static str>,
    /// Channels that QEMU closed: waiting on them would be spinning.
    pub qmp_closed: bool,
    pub console_closed: bool,
    pub stderr_closed: bool,
}

impl Running {
    /// A QEMU that was just started.
    pub fn new(process: Spawned, accelerator: Accelerator) -> Self {
        Self {
            process,
            accelerator,
            qmp: Qmp::default(),
            negotiated: false,
            unsent: Vec::new(),
            waiting: BTreeMap::new(),
            silent_since_ms: None,
            ping_unanswered: false,
            panicked: false,
            shutdown: None,
            complaints: Vec::new(),
            oom_kills: process::oom_kills(),
            trial_failed: None,
            qmp_closed: false,
            console_closed: false,
            stderr_closed: false,
        }
    }
}

impl Watch {
    pub fn ping(&mut self) {
        let Some(running) = &mut self.running else {
            return;
        };
        running.oom_kills = process::oom_kills();
        if running.ping_unanswered || !running.negotiated {
            running.silent_since_ms.get_or_insert_with(unix_ms);
            return;
        }
        running.ping_unanswered = true;
        self.send("query-status", Value::Null, Waiting::Ping);
    }

    /// Sends a command, at once or after the negotiation; false if QEMU owes too many answers or hung up.
    pub fn send(&mut self, name: &str, arguments: Value, waiting: Waiting) -> bool {
        let Some(running) = &mut self.running else {
            return false;
        };
        if running.waiting.len() >= WAITING_MAX {
            return false;
        }
        let (id, bytes) = running.qmp.command(name, arguments);
        running.waiting.insert(id, waiting);
        if running.negotiated || name == "qmp_capabilities" {
            return running.process.qmp.write_all(&bytes).is_ok();
        }
        running.unsent.extend_from_slice(&bytes);
        true
    }

    pub fn ask_human_monitor(&mut self, command: &str, waiting: Waiting) -> bool {
        self.send(
            "human-monitor-command",
            json!({ "command-line": command }),
            waiting,
        )
    }

    pub fn read_qmp(&mut self) {
        let mut buffer = [0; 8192];
        let Some(running) = &mut self.running else {
            return;
        };
        let Ok(length) = running.process.qmp.read(&mut buffer) else {
            return;
        };
        if length == 0 && !running.qmp_closed {
            // It is ending; if it is not, what cannot be controlled must not go on.
            running.qmp_closed = true;
            self.guard.close(boottime_ms());
            return;
        }
        for message in running.qmp.feed(&buffer[..length]) {
            self.hear(message);
        }
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Greeting => {
                let _ = self.send("qmp_capabilities", Value::Null, Waiting::Capabilities);
            }
            Message::Event { name, data } => self.hear_event(&name, &data),
            Message::Return { id, value } => self.hear_answer(id, Ok(value)),
            Message::Error { id: Some(id), text } => self.hear_answer(id, Err(text)),
            Message::Error { id: None, text } => eprintln!("vm-shim: QEMU complains: {text}"),
        }
    }

    fn hear_event(&mut self, name: &str, data: &Value) {
        let Some(running) = &mut self.running else {
            return;
        };
        match name {
            "SHUTDOWN" => running.shutdown = data["reason"].as_str().map(str::to_owned),
            "GUEST_PANICKED" => running.panicked = true,
            "BLOCK_IO_ERROR" if data["nospace"] == true => {
                self.guard.fail(boottime_ms(), StopCode::DiskFull)
            }
            _ => {}
        }
    }

    fn hear_answer(&mut self, id: u64, answer: Result<Value, String>) {
        let Some(running) = &mut self.running else {
            return;
        };
        match running.waiting.remove(&id) {
            Some(Waiting::Capabilities) if answer.is_ok() => {
                running.negotiated = true;
                let unsent = std::mem::take(&mut running.unsent);
                let _ = running.process.qmp.write_all(&unsent);
                self.keep_status();
            }
            Some(Waiting::Ping) => {
                running.ping_unanswered = false;
                running.silent_since_ms = None;
            }
            Some(Waiting::Dial {
                token,
                guest_port,
                asked_to_add,
            }) => {
                self.hear_dial(token, guest_port, asked_to_add, answer);
            }
            Some(Waiting::Taken { token, guest_port }) => {
                let text = answer.ok();
                let text = text.as_ref().and_then(Value::as_str).unwrap_or("");
                let response = Response::Taken(taken(text, guest_port));
                self.connections.reply(token, &response);
            }
            _ => {}
        }
    }

    /// Connects to QEMU's forwarded port, from the namespace that both are in: nobody else on the host can.
    fn dial(&mut self, token: Token, host_port: u16) {
        // On loopback, with QEMU listening, this does not wait.
        match TcpStream::connect((Ipv4Addr::LOCALHOST, host_port)) {
            Ok(stream) => self
                .connections
                .reply_with(token, &Response::Dialled, &stream),
            Err(error) => {
                let text = format!("QEMU's port {host_port} does not take connections: {error}");
                self.connections.reply(token, &Response::Error { text });
            }
        }
    }

    /// A port is looked up, made if it is not there, and looked up again.
    fn hear_dial(
        &mut self,
        token: Token,
        guest_port: u16,
        asked_to_add: bool,
        answer: Result<Value, String>,
    ) {
        let text = answer
            .as_ref()
            .map_or_else(String::as_str, |v| v.as_str().unwrap_or(""));
        if let Some(host_port) = forwarded_port(text, guest_port) {
            return self.dial(token, host_port);
        }
        let waiting = Waiting::Dial {
            token,
            guest_port,
            asked_to_add: true,
        };
        let asked = !asked_to_add
            && self.ask_human_monitor(
                &format!("hostfwd_add net tcp:127.0.0.1:0-:{guest_port}"),
                Waiting::Nobody,
            )
            && self.ask_human_monitor("info usernet", waiting);
        if !asked {
            self.connections.reply(
                token,
                &Response::Error {
                    text: format!("QEMU made no way to port {guest_port}: {text}"),
                },
            );
        }
    }
}
