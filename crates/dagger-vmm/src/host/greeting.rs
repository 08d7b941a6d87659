//! Waiting for a guest's ssh server: its banner is the sign that the guest is up.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep, timeout};

use super::{Host, talk};
use crate::control::{Request, Response};
use crate::spec::InstanceId;

/// Where a guest's ssh server listens.
const SSH_PORT: u16 = 22;
/// How long an ssh server may take to show its banner once its guest has taken the connection: an emulated one among many is slow.
const BANNER_PATIENCE: Duration = Duration::from_secs(60);
/// What the guest has not taken after so long was offered before it had a network, and would be offered again only seconds later; or
/// the guest is slow. So this grows too.
const UNTAKEN_RETRY: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(5)];
/// The same where the shim cannot tell, for it was started by an older program.
const UNTOLD_RETRY: Duration = Duration::from_secs(5);
/// A guest that refuses has a network and will have a server soon: it is asked again after a share of the time that it has been waited
/// for, within these bounds. An emulated guest pays for every refusal with time of its start (docs/performance.md).
const REFUSED_RETRY: [Duration; 2] = [Duration::from_millis(25), Duration::from_millis(125)];

impl Host {
    /// Whether the guest's ssh server answers: waits for its banner as long as the instance can be dialled, a minute at most.
    ///
    /// One connection at a time: a server makes a process for each, and an emulated guest that boots has no time for several.
    pub async fn ssh_answers(&self, id: InstanceId) -> bool {
        let since = Instant::now();
        let asked = async {
            loop {
                let share = |[least, most]: [Duration; 2]| (since.elapsed() / 4).clamp(least, most);
                match self.greets(id, share(UNTAKEN_RETRY)).await {
                    None => return false,
                    Some(true) => return true,
                    Some(false) => sleep(share(REFUSED_RETRY)).await,
                }
            }
        };
        timeout(BANNER_PATIENCE, asked).await.unwrap_or(false)
    }

    /// One connection: whether the banner came before the guest refused, or left it untaken for too long. None: the instance
    /// cannot be dialled at all.
    async fn greets(&self, id: InstanceId, patience: Duration) -> Option<bool> {
        let since = Instant::now();
        let mut attempt = std::pin::pin!(self.reads_banner(id));
        loop {
            if let Ok(answer) = timeout(patience, &mut attempt).await {
                return answer;
            }
            let question = Request::Taken {
                guest_port: SSH_PORT,
            };
            let waits = match talk::ask(&self.directory(id), &question).await {
                Ok(Response::Taken(taken)) => taken,
                _ => since.elapsed() < UNTOLD_RETRY,
            };
            if !waits {
                return Some(false);
            }
        }
    }

    /// None: the instance cannot be dialled at all.
    async fn reads_banner(&self, id: InstanceId) -> Option<bool> {
        let mut stream = self.dial(id, SSH_PORT).await.ok()?;
        let mut banner = [0; 4];
        Some(stream.read_exact(&mut banner).await.is_ok() && &banner == b"SSH-")
    }
}
