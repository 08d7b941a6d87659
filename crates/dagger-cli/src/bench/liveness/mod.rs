//! `dagger bench liveness`: what machines that are alive cost a member while nothing else happens. One member, a whole node, is a
//! process of its own; machines are real endpoints in other processes, each with its key, its socket and its connection.

mod machines;
mod member;

use super::cluster::make_members;
use super::figure::{self, Figure, Target};
use super::process::{self, Process};
use crate::args::BenchLivenessArgs;
use crate::failure::{Done, Exit, Failure};
use crate::setup;
use dagger_client::keys::{self, KeyKind, SecretKey};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const BENCH: &str = "liveness";
/// Machines of one process: each takes a handful of open files.
const MACHINES_A_PROCESS: usize = 2_000;
/// What so many machines may cost a member, in percent of a core; what one heartbeat may cost follows from it.
const TARGET_MACHINES: u32 = 10_000;
const TARGET_PERCENT: f64 = 5.0;
/// How long it may take until all are connected, or heard.
const PATIENCE: Duration = Duration::from_secs(120);
/// What a connection does when it is new has ended by then.
const SETTLE: Duration = Duration::from_secs(3);

/// What a process shall be.
#[derive(Serialize, Deserialize)]
enum Part {
    Member(member::Plan),
    Machines(machines::Plan),
}

/// How a member stands.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Sample {
    at_s: f64,
    cpu_s: f64,
    resident_bytes: u64,
    /// Machines whose lease stands, and how often any has lost its own.
    up: u32,
    lapses: u64,
    /// What the load has made on the ledger.
    accounts: u64,
    /// Machines that events were last sent on to.
    subscribers: u64,
}

/// Runs one process of it.
pub fn run_part() -> Done {
    process::log_errors();
    match process::told()? {
        Part::Member(plan) => member::run(&plan),
        Part::Machines(plan) => machines::run(&plan),
    }
}

pub fn run(args: &BenchLivenessArgs) -> Done {
    let mut args = args.clone();
    if args.quick {
        args.machines = args.machines.min(1_000);
        args.duration = args.duration.min(6.0);
    }
    figure::print(&measure(&args)?, args.json)
}

fn measure(args: &BenchLivenessArgs) -> Done<Vec<Figure>> {
    let dir = match &args.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let dir = dir.map_err(|error| Failure::file("a directory for the member", &error))?;
    let mut parameters = setup::parameters(None, None);
    if let Some(interval_ms) = args.interval {
        parameters.hear_timeout_ms = parameters.hear_timeout_ms.max(interval_ms * 2);
        parameters.heartbeat_ms = interval_ms;
    }
    let interval_ms = parameters.heartbeat_ms;
    let (_, data, listen) = make_members(dir.path(), 1, parameters)?.remove(0);
    let mut member = Member::start(&data, listen, args.machines, args.rate)?;
    let window = Duration::from_secs_f64(args.duration);
    let alone = member.window(window)?;
    let subscribers = args.subscribers.unwrap_or(args.machines / 4);
    let mut machines = start_machines(&member, &data, listen, interval_ms, subscribers)?;
    std::thread::sleep(SETTLE);
    let connected = member.window(window)?;
    for process in &mut machines {
        process.write(&"beat")?;
    }
    member.wait_until_all_are_up(args.machines)?;
    reports(&mut machines)?;
    let beating = member.window(window)?;
    let heard = reports(&mut machines)?;
    Ok(figures(
        args.machines,
        interval_ms,
        [alone, connected, beating],
        &heard,
    ))
}

/// The member's process.
struct Member {
    process: Process,
    /// The machines' numbers on its ledger.
    ids: Vec<u32>,
}

impl Member {
    fn start(data: &std::path::Path, listen: SocketAddr, machines: u32, rate: u64) -> Done<Self> {
        let plan = Part::Member(member::Plan {
            data: data.to_owned(),
            listen,
            machines,
            rate,
        });
        let mut process = Process::start("liveness-part", "the member".into(), &plan)?;
        let ids = process.read()?;
        Ok(Self { process, ids })
    }

    fn sample(&mut self) -> Done<Sample> {
        self.process.write(&"sample")?;
        self.process.read()
    }

    /// How it stands at the beginning and the end of some time.
    fn window(&mut self, length: Duration) -> Done<(Sample, Sample)> {
        let before = self.sample()?;
        std::thread::sleep(length);
        Ok((before, self.sample()?))
    }

    fn wait_until_all_are_up(&mut self, machines: u32) -> Done {
        let until = Instant::now() + PATIENCE;
        loop {
            let up = self.sample()?.up;
            if up == machines {
                return Ok(());
            }
            if Instant::now() > until {
                let text = format!("only {up} of {machines} machines were heard in time");
                return Err(failed(&text).hint(
                    "the machines' own side runs here too: lower --machines, or take more cores",
                ));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Starts the machines, and waits until all are connected.
fn start_machines(
    member: &Member,
    data: &std::path::Path,
    listen: SocketAddr,
    interval_ms: u64,
    subscribers: u32,
) -> Done<Vec<Process>> {
    let key = keys::read(&data.join("keys").join("node.json"), KeyKind::Node)?;
    let genesis = data.join("genesis.json");
    let mut processes = Vec::new();
    for (part, ids) in member.ids.chunks(MACHINES_A_PROCESS).enumerate() {
        let plan = Part::Machines(machines::Plan {
            genesis: genesis.clone(),
            member_key: key.public(),
            member: listen,
            first: part * MACHINES_A_PROCESS,
            ids: ids.to_vec(),
            interval_ms,
            subscribers: subscribers as usize,
        });
        let name = format!("process {part} of the machines");
        let mut process = Process::start("liveness-part", name, &plan)?;
        // One after the other: handshakes of all at once would time out.
        let _: String = process.read()?;
        processes.push(process);
    }
    Ok(processes)
}

fn reports(machines: &mut [Process]) -> Done<machines::Report> {
    let mut all = machines::Report::default();
    for process in machines {
        process.write(&"report")?;
        let report: machines::Report = process.read()?;
        all.sent += report.sent;
        all.answers.extend(report.answers);
    }
    Ok(all)
}

/// CPU of the member in percent of a core.
fn share((before, after): (Sample, Sample)) -> f64 {
    (after.cpu_s - before.cpu_s) / (after.at_s - before.at_s) * 100.0
}

fn figures(
    machines: u32,
    interval_ms: u64,
    [alone, connected, beating]: [(Sample, Sample); 3],
    heard: &machines::Report,
) -> Vec<Figure> {
    let mut answers: Histogram<u64> =
        Histogram::new_with_bounds(1, 600_000_000, 3).expect("good bounds");
    for (us, count) in &heard.answers {
        answers.saturating_record_n(*us, *count);
    }
    let seconds = beating.1.at_s - beating.0.at_s;
    let liveness = share(beating) - share(connected);
    let target = (machines == TARGET_MACHINES).then_some(Target::AtMost(TARGET_PERCENT));
    let allowed_us =
        TARGET_PERCENT / 100.0 * interval_ms as f64 * 1000.0 / f64::from(TARGET_MACHINES);
    let grown = connected.1.resident_bytes as f64 - alone.1.resident_bytes as f64;
    let figure = |name: &str, value: f64, unit: &'static str| Figure::new(BENCH, name, value, unit);
    let quantile = |q| answers.value_at_quantile(q) as f64 / 1000.0;
    vec![
        figure("machines", f64::from(machines), "machines"),
        figure("heartbeat", interval_ms as f64, "ms"),
        figure("heartbeats", heard.sent as f64 / seconds, "1/s"),
        figure("answered", answers.len() as f64 / seconds, "1/s"),
        figure("member_alone", share(alone), "% of a core"),
        figure("member_connected", share(connected), "% of a core"),
        figure("member_with_heartbeats", share(beating), "% of a core"),
        figure("liveness", liveness, "% of a core").target(target),
        figure(
            "heartbeat_cost",
            liveness / 100.0 * seconds / heard.sent.max(1) as f64 * 1e6,
            "us",
        )
        .target(Some(Target::AtMost(allowed_us))),
        figure("connection", grown / f64::from(machines) / 1024.0, "KiB"),
        figure("answer_p50", quantile(0.5), "ms"),
        figure("answer_p99", quantile(0.99), "ms"),
        figure("subscribers", beating.1.subscribers as f64, "machines"),
        figure(
            "executed",
            (beating.1.accounts - beating.0.accounts) as f64 / seconds,
            "tx/s",
        ),
        figure(
            "lapses",
            (beating.1.lapses - beating.0.lapses) as f64,
            "leases",
        ),
    ]
}

fn machine_key(number: usize) -> SecretKey {
    key("machine", number as u64)
}

fn account_key(number: u64) -> SecretKey {
    key("account", number)
}

/// Nothing hangs on such a key: it lives as long as the benchmark.
fn key(of: &str, number: u64) -> SecretKey {
    let name = format!("bench liveness {of} {number}");
    SecretKey::from_bytes(*blake3::hash(name.as_bytes()).as_bytes())
}

fn failed(text: &str) -> Failure {
    Failure::new(Exit::Failure, "E_BENCH", text.to_owned())
}
