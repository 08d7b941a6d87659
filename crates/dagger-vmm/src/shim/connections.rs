//! The host's connections to a shim: lines in, lines out, each within bounds. What requests mean is decided elsewhere.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::control::{LINE_BYTES_MAX, Request, Response, line};

/// Most connections at once; more are closed at once.
const CONNECTIONS_MAX: usize = 32;
/// Most bytes a connection may leave unread before it is dropped.
const UNREAD_BYTES_MAX: usize = 256 * 1024;

/// Names a connection; never used twice.
pub type Token = u64;

struct Connection {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    console: bool,
}

/// What came in over a connection.
pub enum Input {
    /// A request.
    Request(Request),
    /// Bytes for the guest's serial line.
    Keys(Vec<u8>),
}

/// All connections.
pub struct Connections {
    listener: UnixListener,
    open: BTreeMap<Token, Connection>,
    next: Token,
}

impl Connections {
    /// Listens on a socket that must not exist.
    pub fn bind(path: &str) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            open: BTreeMap::new(),
            next: 0,
        })
    }

    /// The listening socket.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Every connection: token, socket, whether it waits to be written.
    pub fn sockets(&self) -> impl Iterator<Item = (Token, &UnixStream, bool)> {
        self.open
            .iter()
            .map(|(token, c)| (*token, &c.stream, !c.output.is_empty()))
    }

    /// Takes new connections.
    pub fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.open.len() < CONNECTIONS_MAX && stream.set_nonblocking(true).is_ok() {
                self.next += 1;
                let fresh = Connection {
                    stream,
                    input: Vec::new(),
                    output: Vec::new(),
                    console: false,
                };
                self.open.insert(self.next, fresh);
            }
        }
    }

    /// Reads what a connection has; drops it at its end or when it breaks the rules.
    pub fn read(&mut self, token: Token) -> Vec<Input> {
        let mut out = Vec::new();
        let Some(connection) = self.open.get_mut(&token) else {
            return out;
        };
        let mut buffer = [0; 4096];
        let alive = match connection.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(length) if connection.console => {
                out.push(Input::Keys(buffer[..length].to_vec()));
                true
            }
            Ok(length) => {
                connection.input.extend_from_slice(&buffer[..length]);
                connection.requests(&mut out)
            }
            Err(error) => matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ),
        };
        if !alive {
            self.open.remove(&token);
        }
        out
    }

    /// Answers.
    pub fn reply(&mut self, token: Token, response: &Response) {
        self.send(token, &line(response));
    }

    /// Answers with a descriptor beside the line. A connection that cannot take it at once is dropped.
    pub fn reply_with(&mut self, token: Token, response: &Response, descriptor: &impl AsRawFd) {
        let Some(connection) = self.open.get_mut(&token) else {
            return;
        };
        let line = line(response);
        let descriptors = [descriptor.as_raw_fd()];
        let sent = connection.output.is_empty()
            && sendmsg::<()>(
                connection.stream.as_raw_fd(),
                &[IoSlice::new(&line)],
                &[ControlMessage::ScmRights(&descriptors)],
                MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
                None,
            ) == Ok(line.len());
        if !sent {
            self.open.remove(&token);
        }
    }

    /// Turns a connection into the guest's serial line.
    pub fn attach_console(&mut self, token: Token) {
        if let Some(connection) = self.open.get_mut(&token) {
            connection.console = true;
            connection.input = Vec::new();
        }
        self.reply(token, &Response::Done);
    }

    /// Gives the guest's output to those attached.
    pub fn broadcast_console(&mut self, bytes: &[u8]) {
        let attached: Vec<Token> = self
            .open
            .iter()
            .filter(|(_, c)| c.console)
            .map(|(token, _)| *token)
            .collect();
        for token in attached {
            self.send(token, bytes);
        }
    }

    /// Writes as much as goes; drops a connection that is broken or reads too slowly.
    pub fn flush(&mut self, token: Token) {
        let Some(connection) = self.open.get_mut(&token) else {
            return;
        };
        while !connection.output.is_empty() {
            match connection.stream.write(&connection.output) {
                Ok(length) => drop(connection.output.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.open.remove(&token);
                    return;
                }
            }
        }
        if connection.output.len() > UNREAD_BYTES_MAX {
            self.open.remove(&token);
        }
    }

    fn send(&mut self, token: Token, bytes: &[u8]) {
        if let Some(connection) = self.open.get_mut(&token) {
            connection.output.extend_from_slice(bytes);
            self.flush(token);
        }
    }
}

impl Connection {
    /// Takes whole lines out of the input; false if a line is too long or makes no sense.
    fn requests(&mut self, out: &mut Vec<Input>) -> bool {
        while let Some(end) = self.input.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(request) => out.push(Input::Request(request)),
                Err(_) => return false,
            }
        }
        self.input.len() <= LINE_BYTES_MAX
    }
}
