//! Leaving nothing behind: the guard that cleans up when the demo ends in any way, and the thread
//! that does so when it is interrupted.

use super::cloud::Cloud;
use super::processes;
use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Only one thread cleans up at a time; a second one finds nothing left to do.
static CLEANING: Mutex<()> = Mutex::new(());

/// Marks a network that was kept on purpose, so that the next demo does not end it unasked.
const KEPT: &str = "kept";

/// Set by the signal's handler itself, so before a child that the same Ctrl-C ended can be reaped.
static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Never returns once the demo is interrupted: what a child then says is no failure to report, and
/// the thread that cleans up ends the process.
pub fn stop_here_if_interrupted() {
    while INTERRUPTED
        .get()
        .is_some_and(|flag| flag.load(Ordering::SeqCst))
    {
        std::thread::park();
    }
}

/// Ends the network and removes its files when dropped, unless kept.
pub struct Cleanup {
    root: PathBuf,
    keep: bool,
}

impl Cleanup {
    /// Cleans up what an earlier demo left, and from now on at every end of this one.
    pub fn arm(cloud: &Cloud) -> Result<Self> {
        let root = cloud.root().to_owned();
        if root.join(KEPT).exists() && !processes::of_network(&root)?.is_empty() {
            bail!(
                "a demo that was kept is still running; end it with `{} dev clean --data {}`",
                cloud.program(),
                cloud.data().display()
            );
        }
        clean(&root)?;
        let on_signal = root.clone();
        let flag = INTERRUPTED.get_or_init(Arc::default);
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(flag))?;
        }
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        std::thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                say("\ninterrupted: cleaning up");
                processes::end_children();
                let code = match clean(&on_signal) {
                    Ok(()) => 128 + signal,
                    Err(error) => {
                        say(&format!("error: {error:#}"));
                        1
                    }
                };
                std::process::exit(code);
            }
        });
        Ok(Self { root, keep: false })
    }

    /// Ends the network now and says whether that worked.
    pub fn now(mut self) -> Result<()> {
        self.keep = true;
        clean(&self.root)
    }

    /// Leaves the network running.
    pub fn keep(mut self) -> Result<()> {
        self.keep = true;
        std::fs::write(self.root.join(KEPT), "").context("cannot mark the network as kept")
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = clean(&self.root)
        {
            say(&format!("error: {error:#}"));
        }
    }
}

/// Prints to a terminal that may be gone, which is no reason not to clean up: `eprintln!` would panic.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Ends every process that names the demo's directory, then removes it.
fn clean(root: &Path) -> Result<()> {
    let _one_at_a_time = CLEANING.lock().unwrap_or_else(PoisonError::into_inner);
    processes::kill_network(root)?;
    if root.exists() {
        std::fs::remove_dir_all(root)
            .with_context(|| format!("cannot remove {}", root.display()))?;
    }
    Ok(())
}
