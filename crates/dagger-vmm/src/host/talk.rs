//! Conversation with a shim over its unix socket.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::control::{LINE_BYTES_MAX, Request, Response, line};
use crate::record::CONTROL_SOCKET;
use crate::status::StopMode;

/// How long a shim may take to answer; it is one thread that never waits for anything else.
const PATIENCE: Duration = Duration::from_secs(3);
/// A hard stop is answered when it is done: QEMU gets a second to flush its disks, the kernel has memory to free.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// Asks one question.
pub async fn ask(dir: &Path, request: &Request) -> io::Result<Response> {
    let conversation = async {
        let mut stream = connect(dir).await?;
        stream.write_all(&line(request)).await?;
        let mut answer = String::new();
        let mut reader = BufReader::new((&mut stream).take(LINE_BYTES_MAX as u64));
        reader.read_line(&mut answer).await?;
        serde_json::from_str(&answer).map_err(|_| io::Error::other("the shim hung up"))
    };
    let patience = match request {
        Request::Stop(StopMode::Kill) => STOP_PATIENCE,
        _ => PATIENCE,
    };
    timeout(patience, conversation)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Asks for something after which the connection is no longer lines.
pub async fn attach(dir: &Path, request: &Request) -> io::Result<UnixStream> {
    let conversation = async {
        let mut stream = connect(dir).await?;
        stream.write_all(&line(request)).await?;
        // Byte by byte: what follows the line belongs to the caller.
        let mut answer = Vec::new();
        while answer.last() != Some(&b'\n') && answer.len() < LINE_BYTES_MAX {
            answer.push(stream.read_u8().await?);
        }
        match serde_json::from_slice(&answer) {
            Ok(Response::Done) => Ok(stream),
            _ => Err(io::Error::other("the shim refused")),
        }
    };
    timeout(PATIENCE, conversation)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Asks for a connection to a port of the guest; the inner error is the shim's.
pub async fn dial(dir: &Path, guest_port: u16) -> io::Result<Result<TcpStream, String>> {
    let conversation = async {
        let mut stream = connect(dir).await?;
        stream
            .write_all(&line(&Request::Dial { guest_port }))
            .await?;
        let (mut answer, mut dialled) = (Vec::new(), None);
        while answer.last() != Some(&b'\n') && answer.len() < LINE_BYTES_MAX {
            stream.readable().await?;
            let received = stream.try_io(Interest::READABLE, || receive(&stream, &mut answer));
            match received {
                Ok(received) => dialled = dialled.or(received),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        match (serde_json::from_slice(&answer), dialled) {
            (Ok(Response::Dialled), Some(dialled)) => {
                let dialled = std::net::TcpStream::from(dialled);
                dialled.set_nonblocking(true)?;
                TcpStream::from_std(dialled).map(Ok)
            }
            (Ok(Response::Error { text }), _) => Ok(Err(text)),
            _ => Err(io::Error::other("the shim hung up")),
        }
    };
    timeout(PATIENCE, conversation)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Takes what is there: bytes, and the descriptor that may come with them.
#[allow(unsafe_code)]
fn receive(stream: &UnixStream, answer: &mut Vec<u8>) -> io::Result<Option<OwnedFd>> {
    let mut bytes = [0; 1024];
    let mut space = nix::cmsg_space!(RawFd);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    let length = received.bytes;
    let descriptor = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
        _ => None,
    });
    if length == 0 {
        return Err(io::Error::other("the shim hung up"));
    }
    answer.extend_from_slice(&bytes[..length]);
    // SAFETY: the kernel has just made this descriptor for this process; nobody else knows of it.
    Ok(descriptor.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }))
}

async fn connect(dir: &Path) -> io::Result<UnixStream> {
    // A socket's path has at most 107 bytes; by way of the directory's descriptor any depth will do.
    let dir = File::open(dir)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(CONTROL_SOCKET);
    UnixStream::connect(path).await
}
