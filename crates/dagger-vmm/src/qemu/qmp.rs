//! QEMU's machine protocol (QMP), without I/O: bytes in, messages out.
//!
//! Survives garbage, over-long lines and events it does not know; decides nothing. Format: QEMU's docs/interop/qmp-spec.

use serde_json::{Value, json};

/// Longest line taken from QEMU; longer ones are dropped.
const LINE_BYTES_MAX: usize = 256 * 1024;

/// Something QEMU said.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// First words: capabilities may be negotiated now.
    Greeting,
    /// A command succeeded.
    Return {
        /// Which.
        id: u64,
        /// Its value.
        value: Value,
    },
    /// A command failed.
    Error {
        /// Which, if QEMU said it.
        id: Option<u64>,
        /// QEMU's words.
        text: String,
    },
    /// Something happened.
    Event {
        /// Name, as `SHUTDOWN`.
        name: String,
        /// Details.
        data: Value,
    },
}

/// One side of a conversation.
#[derive(Default)]
pub struct Qmp {
    line: Vec<u8>,
    overlong: bool,
    next_id: u64,
    garbage_lines: u64,
}

impl Qmp {
    /// Bytes of a command, and the id that its answer will carry.
    pub fn command(&mut self, name: &str, arguments: Value) -> (u64, Vec<u8>) {
        self.next_id += 1;
        let mut command = json!({ "execute": name, "id": self.next_id });
        if !arguments.is_null() {
            command["arguments"] = arguments;
        }
        let mut bytes = command.to_string().into_bytes();
        bytes.push(b'\n');
        (self.next_id, bytes)
    }

    /// Takes bytes as they come; gives the messages that they complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Message> {
        let mut out = Vec::new();
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            let (part, complete) = match part.split_last() {
                Some((b'\n', rest)) => (rest, true),
                _ => (part, false),
            };
            if self.line.len() + part.len() > LINE_BYTES_MAX {
                self.overlong = true;
                self.line.clear();
            } else if !self.overlong {
                self.line.extend_from_slice(part);
            }
            if complete {
                let line = std::mem::take(&mut self.line);
                let message = if std::mem::take(&mut self.overlong) {
                    None
                } else {
                    parse(&line)
                };
                match message {
                    Some(message) => out.push(message),
                    None if line.iter().all(u8::is_ascii_whitespace) => {}
                    None => self.garbage_lines += 1,
                }
            }
        }
        out
    }

    /// Lines that made no sense so far.
    #[cfg(test)]
    pub fn garbage_lines(&self) -> u64 {
        self.garbage_lines
    }
}

fn parse(line: &[u8]) -> Option<Message> {
    let value: Value = serde_json::from_slice(line).ok()?;
    let object = value.as_object()?;
    let id = object.get("id").and_then(Value::as_u64);
    if object.contains_key("QMP") {
        return Some(Message::Greeting);
    }
    if let Some(name) = object.get("event") {
        let data = object.get("data").cloned().unwrap_or(Value::Null);
        return Some(Message::Event {
            name: name.as_str()?.to_owned(),
            data,
        });
    }
    if let Some(error) = object.get("error") {
        let text = error
            .get("desc")
            .and_then(Value::as_str)
            .unwrap_or("no description")
            .to_owned();
        return Some(Message::Error { id, text });
    }
    Some(Message::Return {
        id: id?,
        value: object.get("return")?.clone(),
    })
}

/// The host's port that `info usernet` shows for a guest's TCP port.
///
/// A line of it: `  TCP[HOST_FORWARD]  14  127.0.0.1 43651  10.0.2.15  22  0  0`.
pub fn forwarded_port(usernet: &str, guest_port: u16) -> Option<u16> {
    host_ports(usernet, "TCP[HOST_FORWARD]", guest_port).next()
}

/// Whether `info usernet` shows a connection to a guest's TCP port that the guest has taken: a line like that of a forwarded port,
/// with another word in front. One that the guest has not seen yet is `SYN_SENT`.
pub fn taken(usernet: &str, guest_port: u16) -> bool {
    host_ports(usernet, "TCP[ESTABLISHED]", guest_port)
        .next()
        .is_some()
}

fn host_ports(usernet: &str, kind: &str, guest_port: u16) -> impl Iterator<Item = u16> {
    usernet.lines().filter_map(move |line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [found, _, _, host_port, _, port, ..] = words[..] else {
            return None;
        };
        if found != kind || port != guest_port.to_string() {
            return None;
        }
        host_port.parse().ok()
    })
}

#[cfg(test)]
#[path = "qmp_tests.rs"]
mod tests;
