//! The host's side: one directory per instance, and the conversation with the shims.
//!
//! Keeps nothing that a restart would lose: what an instance is and how it does is read from its directory (`status.rs`),
//! its lock and its shim's socket (`talk.rs`). How a directory is made ready is in `prepare.rs`, how a guest's ssh server is waited for,
//! in `greeting.rs`.

mod greeting;
mod prepare;
mod status;
mod talk;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::cgroup::{self, Parents, Resource};
use crate::clock::boottime_ms;
use crate::control::{Request, Response};
use crate::error::VmmError;
use crate::qemu::aio::Aio;
use crate::record::{CONSOLE_FILE, LOG_FILE, Lock, STATE_FILE, State, read_json};
use crate::spec::{InstanceId, InstanceSpec};
use crate::status::{InstanceState, InstanceStatus, StopMode};
use crate::uids;
use crate::vmm::Vmm;

/// The hypervisor.
const QEMU: &str = "qemu-system-x86_64";
/// What connects guests to the internet (Debian package `passt`).
const PASTA: &str = "pasta";
/// Directories on their way out begin with this, so that no listing takes them for instances.
const REMOVED_PREFIX: &str = ".removed-";
/// How long a shim may take to say that it is ready.
const READY_PATIENCE: Duration = Duration::from_secs(20);
/// How long a killed shim's lock may stay held (QEMU's memory is given back meanwhile).
const DEATH_PATIENCE: Duration = Duration::from_secs(20);
/// The instances of one data directory. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    exe: PathBuf,
    qemu: PathBuf,
    pasta: PathBuf,
    /// Where guests' control groups are made.
    parents: Parents,
    /// What their names begin with.
    group_prefix: String,
    /// What QEMU here can use for disks, once it was asked.
    aio: tokio::sync::OnceCell<Aio>,
    /// One transition per instance at a time.
    turns: Mutex<BTreeMap<InstanceId, Arc<tokio::sync::Mutex<()>>>>,
    /// Since when a shim has not answered, Unix ms.
    silent: Mutex<BTreeMap<InstanceId, u64>>,
}

impl Host {
    /// Opens (and makes, mode 0700) the directory of instances. `exe` is run as `exe vm-shim --dir D` per instance.
    ///
    /// # Errors
    /// [`VmmError::Io`].
    pub fn open(dir: PathBuf, exe: PathBuf) -> Result<Self, VmmError> {
        Self::with_programs(dir, exe, PathBuf::from(QEMU), PathBuf::from(PASTA), None)
    }

    /// Like [`Host::open`]; guests' control groups are made below the one of this name in the host's hierarchies.
    ///
    /// # Errors
    /// [`VmmError::Io`].
    pub fn with_cgroup(
        dir: PathBuf,
        exe: PathBuf,
        cgroup: Option<&Path>,
    ) -> Result<Self, VmmError> {
        Self::with_programs(dir, exe, PathBuf::from(QEMU), PathBuf::from(PASTA), cgroup)
    }

    /// Like [`Host::open`], with another QEMU: a path, or a name looked up in `PATH`.
    ///
    /// # Errors
    /// [`VmmError::Io`].
    pub fn with_qemu(dir: PathBuf, exe: PathBuf, qemu: PathBuf) -> Result<Self, VmmError> {
        Self::with_programs(dir, exe, qemu, PathBuf::from(PASTA), None)
    }

    /// Like [`Host::with_qemu`], with another `pasta` (without it guests reach nothing), and a control group as in
    /// [`Host::with_cgroup`].
    ///
    /// # Errors
    /// [`VmmError::Io`].
    pub fn with_programs(
        dir: PathBuf,
        exe: PathBuf,
        qemu: PathBuf,
        pasta: PathBuf,
        cgroup: Option<&Path>,
    ) -> Result<Self, VmmError> {
        let make = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        make.map_err(|e| VmmError::io("making", &dir, e))?;
        let dir = dir
            .canonicalize()
            .map_err(|e| VmmError::io("finding", &dir, e))?;
        let host = Self {
            shared: Arc::new(Shared {
                parents: cgroup::find(cgroup),
                group_prefix: cgroup::prefix(&dir),
                dir,
                exe,
                qemu,
                pasta,
                aio: tokio::sync::OnceCell::new(),
                turns: Mutex::default(),
                silent: Mutex::default(),
            }),
        };
        host.finish_removals()?;
        // Of shims that were killed: their groups are empty, for QEMU dies with its shim.
        let dir = &host.shared.dir;
        host.sweep_groups(|id| {
            Lock::is_held(&dir.join(id)).unwrap_or_else(|_| dir.join(id).exists())
        });
        Ok(host)
    }

    /// Removes the control groups of instances that do not live.
    fn sweep_groups(&self, lives: impl Fn(&str) -> bool) {
        if let Ok(parents) = &self.shared.parents {
            cgroup::sweep(parents, &self.shared.group_prefix, lives);
        }
    }

    /// Deletes what an interrupted `remove` left.
    fn finish_removals(&self) -> Result<(), VmmError> {
        let dir = &self.shared.dir;
        for entry in fs::read_dir(dir)
            .map_err(|e| VmmError::io("listing", dir, e))?
            .flatten()
        {
            if entry
                .file_name()
                .to_string_lossy()
                .starts_with(REMOVED_PREFIX)
            {
                fs::remove_dir_all(entry.path())
                    .map_err(|e| VmmError::io("deleting", entry.path(), e))?;
            }
        }
        Ok(())
    }

    /// Finds QEMU, without starting it.
    ///
    /// # Errors
    /// [`VmmError::QemuMissing`]: the machine cannot host.
    pub fn find_qemu(&self) -> Result<PathBuf, VmmError> {
        let name = &self.shared.qemu;
        find_program(name).ok_or_else(|| VmmError::QemuMissing {
            program: name.display().to_string(),
            package: "qemu-system-x86",
        })
    }

    /// What connects guests to the internet; none: they reach nothing.
    pub fn find_pasta(&self) -> Option<PathBuf> {
        find_program(&self.shared.pasta)
    }

    /// The users that guests run as, one each.
    ///
    /// # Errors
    /// Why they run as the daemon's user instead, and what to do.
    pub fn guest_users(&self) -> Result<Range<u32>, String> {
        uids::range()
    }

    /// What control groups hold guests to, and how, for people.
    ///
    /// # Errors
    /// Why none do, and what to do.
    pub fn guest_bounds(&self) -> Result<(Vec<Resource>, String), String> {
        let parents = self.shared.parents.as_ref().map_err(Clone::clone)?;
        let mut bounds: Vec<_> = parents.iter().flat_map(|p| p.resources.clone()).collect();
        bounds.sort_unstable();
        Ok((bounds, cgroup::describe(parents)))
    }

    /// What this QEMU can use for disks: asked once.
    async fn aio(&self, qemu: &Path) -> Aio {
        *self.shared.aio.get_or_init(|| Aio::best(qemu)).await
    }

    /// Prepares and starts an instance; see [`Vmm::start`]. Returns when a shim has it in its care, before the guest runs.
    ///
    /// # Errors
    /// Those of the specification, the image, the disk, and of a shim that does not start.
    pub async fn start(
        &self,
        spec: &InstanceSpec,
        lease_deadline_boottime_ms: Option<u64>,
    ) -> Result<(), VmmError> {
        spec.check()?;
        let id = spec.id;
        if lease_deadline_boottime_ms.is_some_and(|d| d <= boottime_ms()) {
            return Err(VmmError::LeaseExpired(id));
        }
        let qemu = self.find_qemu()?;
        let aio = self.aio(&qemu).await;
        let _turn = self.turn(id).await;
        let dir = self.directory(id);
        let plan = prepare::Plan {
            dir: dir.clone(),
            spec: spec.clone(),
            qemu,
            pasta: self.find_pasta(),
            aio,
            users: uids::range(),
            parents: self.shared.parents.clone(),
            group_prefix: self.shared.group_prefix.clone(),
            accel_file: self.shared.dir.join("accel.json"),
            lease_deadline_boottime_ms,
        };
        let prepared = tokio::task::spawn_blocking(move || prepare::prepare(&plan)).await;
        match prepared.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))? {
            prepare::Prepared::Ready => self.spawn_shim(id, &dir).await,
            // A shim has it already, of this very specification; a newer lease is welcome.
            prepare::Prepared::Running => match lease_deadline_boottime_ms {
                Some(deadline) => self.renew(id, deadline).await,
                None => self.talk(id, &Request::Status).await.map(drop),
            },
        }
    }

    async fn spawn_shim(&self, id: InstanceId, dir: &Path) -> Result<(), VmmError> {
        let failed = |reason: String| VmmError::ShimFailed {
            id,
            reason,
            log: dir.join(LOG_FILE),
        };
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(dir.join(LOG_FILE));
        let log = log.map_err(|e| VmmError::io("opening", dir.join(LOG_FILE), e))?;
        let mut child = Command::new(&self.shared.exe)
            .arg("vm-shim")
            .arg("--dir")
            .arg(dir)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(log))
            .spawn()
            .map_err(|e| {
                failed(format!(
                    "{} could not be run: {e}",
                    self.shared.exe.display()
                ))
            })?;
        let mut out = BufReader::new(child.stdout.take().expect("it was asked for"));
        let mut line = String::new();
        match timeout(READY_PATIENCE, out.read_line(&mut line)).await {
            Ok(Ok(_)) if line == "ready\n" => {
                // The shim lives on its own; this only collects it if it ends while we live.
                tokio::spawn(async move { child.wait().await });
                Ok(())
            }
            Ok(_) => match child.wait().await {
                Ok(exit) => Err(failed(format!("it ended with {exit}"))),
                Err(error) => Err(failed(error.to_string())),
            },
            Err(_) => {
                let _ = child.kill().await;
                Err(failed("it was not ready in time".into()))
            }
        }
    }

    /// All instances, sorted by id.
    pub async fn list(&self) -> Vec<InstanceStatus> {
        let mut tasks = JoinSet::new();
        for entry in fs::read_dir(&self.shared.dir)
            .into_iter()
            .flatten()
            .flatten()
        {
            if let Ok(id) = entry.file_name().to_string_lossy().parse() {
                let host = self.clone();
                tasks.spawn(async move { host.status(id).await });
            }
        }
        let mut out: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
        out.sort_by_key(|status| status.id);
        out
    }

    /// One instance; none if it is not here.
    pub async fn status(&self, id: InstanceId) -> Option<InstanceStatus> {
        let dir = self.directory(id);
        if !dir.is_dir() {
            return None;
        }
        let answer = talk::ask(&dir, &Request::Status).await;
        if let Ok(Response::Status(status)) = answer {
            self.silent().remove(&id);
            return Some(*status);
        }
        self.status_without_shim(id).await
    }

    async fn status_without_shim(&self, id: InstanceId) -> Option<InstanceStatus> {
        let dir = self.directory(id);
        let read = tokio::task::spawn_blocking(move || status::without_shim(&dir, id))
            .await
            .ok()??;
        match read {
            status::Read::Dead(mut status) => {
                self.silent().remove(&id);
                if status.stopped_ms.is_none() && self.in_transition(id) {
                    // Not dead: not born yet.
                    status.state = InstanceState::Starting;
                }
                Some(status)
            }
            status::Read::Silent(mut status) => {
                let since_ms = *self
                    .silent()
                    .entry(id)
                    .or_insert_with(crate::clock::unix_ms);
                status.state = InstanceState::Unknown { since_ms };
                Some(status)
            }
        }
    }

    /// Moves the watchdog's deadline on; never back.
    ///
    /// # Errors
    /// [`VmmError::NotFound`], [`VmmError::NotRunning`], [`VmmError::ShimSilent`].
    pub async fn renew(&self, id: InstanceId, deadline_boottime_ms: u64) -> Result<(), VmmError> {
        self.talk(
            id,
            &Request::Renew {
                deadline_boottime_ms,
            },
        )
        .await
        .map(drop)
    }

    /// Stops an instance: returns when a graceful stop is under way, or when a hard one is done. Stopping what has stopped
    /// succeeds.
    ///
    /// # Errors
    /// [`VmmError::NotFound`], [`VmmError::ShimSilent`].
    pub async fn stop(&self, id: InstanceId, mode: StopMode) -> Result<(), VmmError> {
        match self.talk(id, &Request::Stop(mode)).await {
            Ok(_) | Err(VmmError::NotRunning(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Stops hard if need be, and releases the storage. Removing what is not there succeeds.
    ///
    /// # Errors
    /// [`VmmError::ShimSilent`] if even a killed shim does not let go, [`VmmError::Io`].
    pub async fn remove(&self, id: InstanceId) -> Result<(), VmmError> {
        let _turn = self.turn(id).await;
        let dir = self.directory(id);
        if !dir.is_dir() {
            return Ok(());
        }
        if self.stop(id, StopMode::Kill).await.is_err() {
            status::kill_shim(&dir);
        }
        let since = Instant::now();
        let lock = loop {
            if let Some(lock) = Lock::take(&dir).map_err(|e| VmmError::io("locking", &dir, e))? {
                break lock;
            }
            if since.elapsed() > DEATH_PATIENCE {
                return Err(VmmError::ShimSilent {
                    id,
                    reason: "it was killed and still holds its lock".into(),
                });
            }
            sleep(Duration::from_millis(5)).await;
        };
        let doomed = self
            .shared
            .dir
            .join(format!("{REMOVED_PREFIX}{id}-{}", crate::clock::unix_ms()));
        let host = self.clone();
        let deleted = tokio::task::spawn_blocking(move || {
            // Nobody else's: the lock says that neither shim nor QEMU live.
            host.sweep_groups(|other| other != id.to_string());
            fs::rename(&dir, &doomed).map_err(|e| VmmError::io("moving away", &dir, e))?;
            drop(lock);
            fs::remove_dir_all(&doomed).map_err(|e| VmmError::io("deleting", &doomed, e))
        });
        deleted
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        self.silent().remove(&id);
        self.shared
            .turns
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
        Ok(())
    }

    /// Makes the stopped instance `old` the instance `new`, with its disk and nothing else of it; the next start makes
    /// seed and size anew. The two may be the same: a stopped instance whose specification changed.
    ///
    /// # Errors
    /// [`VmmError::NotFound`], [`VmmError::Running`], [`VmmError::Io`].
    pub async fn succeed(&self, old: InstanceId, new: InstanceId) -> Result<(), VmmError> {
        let _old_turn = self.turn(old).await;
        let _new_turn = if old == new {
            None
        } else {
            Some(self.turn(new).await)
        };
        let (from, to) = (self.directory(old), self.directory(new));
        if !from.is_dir() {
            return Err(VmmError::NotFound(old));
        }
        let moved = tokio::task::spawn_blocking(move || {
            prepare::succeed(&from, &to).map_err(|e| VmmError::io("taking over", &from, e))
        });
        let moved = moved
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        moved.ok_or(VmmError::Running(old))
    }

    /// Connects to a TCP port of the guest. The connection stands before the guest has accepted it: read before you believe.
    ///
    /// # Errors
    /// [`VmmError::NotFound`], [`VmmError::NotRunning`], [`VmmError::Dial`].
    pub async fn dial(&self, id: InstanceId, guest_port: u16) -> Result<TcpStream, VmmError> {
        let unreachable = |reason: String| VmmError::Dial {
            id,
            port: guest_port,
            reason,
        };
        let stream = match talk::dial(&self.directory(id), guest_port).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(text)) => return Err(unreachable(text)),
            Err(error) => return Err(self.why_not(id, error).await),
        };
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// Connects to the guest's serial line, both ways. Earlier output is in [`Host::console_path`].
    ///
    /// # Errors
    /// [`VmmError::NotFound`], [`VmmError::NotRunning`], [`VmmError::ShimSilent`].
    pub async fn console(&self, id: InstanceId) -> Result<UnixStream, VmmError> {
        let dir = self.directory(id);
        let attached = talk::attach(&dir, &Request::Console).await;
        match attached {
            Ok(stream) => Ok(stream),
            Err(error) => Err(self.why_not(id, error).await),
        }
    }

    /// The newest part of the guest's serial output (bounded; an older part may stand beside it with the suffix `.1`).
    pub fn console_path(&self, id: InstanceId) -> PathBuf {
        self.directory(id).join(CONSOLE_FILE)
    }

    /// CLOCK_BOOTTIME in ms, the clock of lease deadlines.
    pub fn boottime_ms() -> u64 {
        boottime_ms()
    }

    fn directory(&self, id: InstanceId) -> PathBuf {
        self.shared.dir.join(id.to_string())
    }

    fn silent(&self) -> std::sync::MutexGuard<'_, BTreeMap<InstanceId, u64>> {
        self.shared
            .silent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a start or a removal is under way here.
    fn in_transition(&self, id: InstanceId) -> bool {
        let turns = self
            .shared
            .turns
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        turns.get(&id).is_some_and(|turn| turn.try_lock().is_err())
    }

    async fn turn(&self, id: InstanceId) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self
                .shared
                .turns
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(id).or_default())
        };
        turn.lock_owned().await
    }

    async fn talk(&self, id: InstanceId, request: &Request) -> Result<Response, VmmError> {
        let dir = self.directory(id);
        match talk::ask(&dir, request).await {
            Ok(response) => Ok(response),
            Err(error) => Err(self.why_not(id, error).await),
        }
    }

    /// Puts a failed conversation into words: not here, not running, or silent.
    async fn why_not(&self, id: InstanceId, error: std::io::Error) -> VmmError {
        match self.status_without_shim(id).await.map(|s| s.state) {
            None => VmmError::NotFound(id),
            Some(InstanceState::Stopped { .. }) => VmmError::NotRunning(id),
            Some(_) => VmmError::ShimSilent {
                id,
                reason: error.to_string(),
            },
        }
    }

    /// What the last shim of an instance left in its directory.
    pub(crate) fn kept_state(dir: &Path) -> Option<State> {
        read_json(&dir.join(STATE_FILE))
    }
}

/// A path, or a name looked up in `PATH`.
fn find_program(name: &Path) -> Option<PathBuf> {
    if name.components().count() > 1 {
        return name.is_file().then(|| name.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

impl Vmm for Host {
    async fn start(
        &self,
        spec: &InstanceSpec,
        lease_deadline_boottime_ms: Option<u64>,
    ) -> Result<(), VmmError> {
        Host::start(self, spec, lease_deadline_boottime_ms).await
    }

    async fn list(&self) -> Vec<InstanceStatus> {
        Host::list(self).await
    }

    async fn status(&self, id: InstanceId) -> Option<InstanceStatus> {
        Host::status(self, id).await
    }

    async fn renew(&self, id: InstanceId, deadline_boottime_ms: u64) -> Result<(), VmmError> {
        Host::renew(self, id, deadline_boottime_ms).await
    }

    async fn stop(&self, id: InstanceId, mode: StopMode) -> Result<(), VmmError> {
        Host::stop(self, id, mode).await
    }

    async fn remove(&self, id: InstanceId) -> Result<(), VmmError> {
        Host::remove(self, id).await
    }
}
