//! `dagger vm console`: this terminal at the serial line of a guest, wherever the VM runs.

use super::access::own_token;
use super::{find, show};
use crate::args::ConsoleArgs;
use crate::context::{Connection, Context};
use crate::failure::{Done, Exit, Failure};
use dagger_client::api::VmView;
use dagger_client::http::{ClientError, Fault, Tunnel};
use dagger_client::token::Right;
use nix::sys::termios::{self, SetArg, Termios};
use std::io::{IsTerminal as _, Read as _, stdin};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Waker, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWriteExt as _, ReadBuf};
use tokio::sync::{Notify, mpsc};

/// Ctrl-], as in telnet: guests have no use for it.
const LEAVE: u8 = 0x1d;
/// So many of the newest lines are shown before the line is live.
const SCROLL_BACK_LINES: u32 = 24;
/// Between two looks at a VM that is not running.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// A failover takes less.
const GIVE_UP_AFTER: Duration = Duration::from_secs(300);

pub async fn run(context: &Context, args: &ConsoleArgs) -> Done {
    let connection = context.connect().await?;
    let vm = context.vm(&connection, &args.vm.vm).await?;
    let tunnel = open(context, &connection, &vm, args).await??;
    let terminal = Terminal::take()?;
    let mut keys = Keys::read();
    let leave = keys.leave.clone();
    tokio::select! {
        ended = sit(context, args, (connection, vm, tunnel), &mut keys) => ended?,
        () = leave.notified() => {}
    }
    drop(terminal);
    eprintln!();
    Ok(())
}

async fn open(
    context: &Context,
    connection: &Connection,
    vm: &VmView,
    args: &ConsoleArgs,
) -> Done<Result<Tunnel, ClientError>> {
    let token = match &args.token {
        Some(token) => token.clone(),
        None => own_token(context, connection, vm, Right::Console)?,
    };
    let client = &connection.client;
    Ok(client.console(&vm.account, &vm.name, &token).await)
}

/// Until the input ends, or the VM is no more.
async fn sit(
    context: &Context,
    args: &ConsoleArgs,
    (mut connection, mut vm, mut tunnel): (Connection, VmView, Tunnel),
    keys: &mut Keys,
) -> Done {
    loop {
        say(&format!(
            "console of vm {}/{} on {}; Ctrl-] leaves",
            vm.account,
            vm.name,
            show::place(&vm)
        ));
        scroll_back(context, &connection, &vm, args).await;
        let ended = tunnel.carry(&mut *keys, tokio::io::stdout()).await;
        if keys.ended {
            return Ok(ended?);
        }
        say("the connection ended; waiting for the VM to run");
        let since = Instant::now();
        (connection, vm, tunnel) = loop {
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            match again(context, args, &vm).await? {
                Some(again) => break again,
                None if since.elapsed() > GIVE_UP_AFTER => {
                    let text = format!("vm {}/{} does not come back", vm.account, vm.name);
                    return Err(Failure::new(Exit::TimedOut, "E_TIMED_OUT", text)
                        .hint(format!("`dagger vm show {}` says why", vm.name)));
                }
                None => {}
            }
        };
    }
}

/// The console anew, on whatever machine the VM runs now; none while it does not run.
async fn again(
    context: &Context,
    args: &ConsoleArgs,
    vm: &VmView,
) -> Done<Option<(Connection, VmView, Tunnel)>> {
    let Ok(connection) = context.connect().await else {
        return Ok(None);
    };
    let Ok(found) = find(&connection, &vm.account, &vm.name).await else {
        return Ok(None);
    };
    let gone = |text: String| Err(Failure::new(Exit::Failure, "E_VM_NOT_RUNNING", text));
    let Some(vm) = found else {
        return gone(format!("vm {}/{} is no more", vm.account, vm.name));
    };
    if matches!(vm.phase.as_str(), "stopped" | "failed" | "deleting") {
        let (account, name) = (&vm.account, &vm.name);
        return gone(format!(
            "vm {account}/{name} is {}: {}",
            vm.phase, vm.reason.text
        ));
    }
    match open(context, &connection, &vm, args).await? {
        Ok(tunnel) => Ok(Some((connection, vm, tunnel))),
        Err(error) if error.fault == Fault::Unreachable => Ok(None),
        Err(error)
            if matches!(
                error.code.as_str(),
                "vm_not_running" | "machine_unreachable" | "guest_unreachable"
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// The newest lines, if the key or token allows to see them; without them the console is as good.
async fn scroll_back(context: &Context, connection: &Connection, vm: &VmView, args: &ConsoleArgs) {
    let token = match &args.token {
        Some(token) => Ok(token.clone()),
        None => own_token(context, connection, vm, Right::Logs),
    };
    let Ok(token) = token else { return };
    let tail = Some(SCROLL_BACK_LINES);
    let client = &connection.client;
    let Ok(mut log) = client
        .logs(&vm.account, &vm.name, false, tail, &token)
        .await
    else {
        return;
    };
    let mut out = tokio::io::stdout();
    while let Ok(Some(bytes)) = log.next().await {
        if out.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = out.flush().await;
}

/// Beside the guest's output. The terminal is raw: a line needs both of its ends.
fn say(text: &str) {
    eprint!("\r\n[{text}]\r\n");
}

/// The terminal handed over to the guest: every key goes there, none is echoed. Given back when dropped.
struct Terminal {
    before: Option<Termios>,
}

impl Terminal {
    fn take() -> Done<Self> {
        if !stdin().is_terminal() {
            return Ok(Self { before: None });
        }
        let failed = |error: nix::Error| Failure::file("this terminal", &error);
        let before = termios::tcgetattr(stdin()).map_err(failed)?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(stdin(), SetArg::TCSADRAIN, &raw).map_err(failed)?;
        Ok(Self {
            before: Some(before),
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = termios::tcsetattr(stdin(), SetArg::TCSADRAIN, before);
        }
    }
}

/// What is typed, over all connections.
struct Keys {
    typed: mpsc::Receiver<Vec<u8>>,
    unread: Vec<u8>,
    ended: bool,
    /// Notified when the user leaves.
    leave: Arc<Notify>,
}

impl Keys {
    /// Reads on a thread of its own, which nobody waits for: a read of a terminal cannot be called off.
    fn read() -> Self {
        let (to, typed) = mpsc::channel(16);
        let leave = Arc::new(Notify::new());
        let notify = leave.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let count = match stdin().lock().read(&mut buffer) {
                    Ok(0) | Err(_) => return,
                    Ok(count) => count,
                };
                let bytes = &buffer[..count];
                if stdin().is_terminal() && bytes.contains(&LEAVE) {
                    notify.notify_one();
                    return;
                }
                if to.blocking_send(bytes.to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            typed,
            unread: Vec::new(),
            ended: false,
            leave,
        }
    }
}

impl AsyncRead for Keys {
    fn poll_read(
        mut self: Pin<&mut Self>,
        waker: &mut Waker<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.unread.is_empty() {
            match ready!(self.typed.poll_recv(waker)) {
                Some(bytes) => self.unread = bytes,
                None => self.ended = true,
            }
        }
        let count = self.unread.len().min(buffer.remaining());
        let now: Vec<u8> = self.unread.drain(..count).collect();
        buffer.put_slice(&now);
        Poll::Ready(Ok(()))
    }
}
