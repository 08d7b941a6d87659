//! A process of a benchmark: this program again, told what to do and read out in JSON lines.

use crate::failure::{Done, Exit, Failure};
use nix::unistd::Pid;
use serde::{Serialize, de::DeserializeOwned};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Ends with its value.
pub struct Process {
    child: Child,
    out: BufReader<ChildStdout>,
    /// What it is called in errors.
    name: String,
}

impl Process {
    /// Starts `dagger bench COMMAND` and tells it its plan.
    pub fn start(command: &str, name: String, plan: &impl Serialize) -> Done<Self> {
        let program =
            std::env::current_exe().map_err(|error| Failure::file("this program", &error))?;
        let mut child = Command::new(program)
            .args(["bench", command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::file(&name, &error))?;
        let out = BufReader::new(child.stdout.take().expect("a pipe was asked for"));
        let mut process = Self { child, out, name };
        process.write(plan)?;
        Ok(process)
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// What it says next; waits for it.
    pub fn read<T: DeserializeOwned>(&mut self) -> Done<T> {
        let mut line = String::new();
        let read = self.out.read_line(&mut line);
        read.map_err(|error| Failure::file(&self.name, &error))?;
        serde_json::from_str(&line).map_err(|_| {
            let text = format!("{} ended before it was done", self.name);
            Failure::new(Exit::Failure, "E_BENCH", text).hint("its last words stand above")
        })
    }

    pub fn write(&mut self, value: &impl Serialize) -> Done {
        let line = serde_json::to_string(value).expect("plain data");
        let input = self.child.stdin.as_mut().expect("a pipe was asked for");
        writeln!(input, "{line}").map_err(|error| Failure::file(&self.name, &error))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In such a process: what it is told next.
pub fn told<T: DeserializeOwned>() -> Done<T> {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.map_err(|error| Failure::file("standard input", &error))?;
    serde_json::from_str(&line).map_err(|error| {
        Failure::usage(format!(
            "this command is started by the other benchmarks: {error}"
        ))
    })
}

/// In such a process: says something.
pub fn say(value: &impl Serialize) -> Done {
    let line = serde_json::to_string(value).expect("plain data");
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|error| Failure::file("standard output", &error))
}

/// In such a process: log lines go to standard error, errors only unless `RUST_LOG` says otherwise.
pub fn log_errors() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}

/// User and system time of this process so far.
pub fn cpu_seconds() -> f64 {
    use nix::sys::resource::{UsageWho, getrusage};
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("a process may ask for its own usage");
    let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}
