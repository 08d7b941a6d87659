//! `cargo xtask chaos`: real node processes under load while faults strike; at the end all nodes must agree, and every
//! transaction that was acknowledged must be there, once. This file is the story; the parts live beside it.

mod decisions;
mod draw;
mod faults;
mod ground;
mod load;
mod network;
mod verdict;

use crate::shell;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::time::{Duration, Instant};

use draw::Draw;
use faults::Fault;
use load::Load;
use network::Network;

/// How long the healed network may take to be of one state again.
const HEAL_WITHIN: Duration = Duration::from_secs(180);

#[derive(Args)]
pub struct ChaosArgs {
    /// Members at the start
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(4..=7))]
    nodes: u16,
    /// End after this many faults
    #[arg(long, default_value_t = 30)]
    faults: u64,
    /// End after this many minutes, if that comes first
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Fail if no transaction is acknowledged for so many seconds (no fault that takes the quorum away lasts longer than six)
    #[arg(long, default_value_t = 60)]
    silence_max: u64,
    /// Draws the faults; the same number draws the same ones (what becomes of them is up to the machine)
    #[arg(long)]
    seed: Option<u64>,
    /// Where the nodes' files go; removed at the end if all is well
    #[arg(long, value_name = "DIR")]
    dir: Option<std::path::PathBuf>,
    /// The `dagger` to run instead of building one
    #[arg(long, value_name = "FILE")]
    dagger: Option<std::path::PathBuf>,
}

/// Runs the whole story.
pub fn run(args: &ChaosArgs) -> Result<()> {
    ground::ensure_programs()?;
    let dagger = match &args.dagger {
        Some(path) => std::path::absolute(path)?,
        None => shell::step("build", build)?,
    };
    let seed = args.seed.unwrap_or_else(draw::fresh_seed);
    let dir = match &args.dir {
        Some(dir) => std::path::absolute(dir)?,
        None => tempfile::Builder::new()
            .prefix("dagger-chaos-")
            .tempdir()?
            .keep(),
    };
    println!("seed {seed}, files in {}", dir.display());
    ground::enter()?;
    let done = story(args, &dagger, &dir, seed);
    match &done {
        Ok(()) => std::fs::remove_dir_all(&dir)
            .with_context(|| format!("cannot remove {}", dir.display()))?,
        Err(_) => println!("the nodes' files and logs are kept in {}", dir.display()),
    }
    done
}

fn build() -> Result<std::path::PathBuf> {
    shell::run(shell::cargo().args(["build", "--package", "dagger-cli"]))?;
    Ok(shell::target_dir().join("debug/dagger"))
}

fn story(
    args: &ChaosArgs,
    dagger: &std::path::Path,
    dir: &std::path::Path,
    seed: u64,
) -> Result<()> {
    let mut draw = Draw::new(seed);
    let mut network = Network::found(dagger, dir, usize::from(args.nodes))?;
    network.start_all()?;
    let load = Load::start(&network);
    let began = Instant::now();
    let limit = Duration::from_secs(args.minutes * 60);
    let mut struck = std::collections::BTreeMap::<&'static str, u64>::new();
    let mut count = 0;
    while count < args.faults && began.elapsed() < limit {
        // Halfway one more operator is voted in, and three quarters through one leaves. Twice the rules change.
        if count == args.faults / 4 || count == args.faults * 5 / 8 {
            network.raise_rules()?;
        }
        if count == args.faults / 2 {
            network.admit_one_more()?;
            load.widen(&network);
        }
        if count == args.faults * 3 / 4 {
            network.let_one_leave()?;
        }
        count += 1;
        let fault = Fault::draw(&mut draw, &network);
        println!(
            "{:>7.1} s  fault {count:>3}  {fault}   ({} acknowledged)",
            began.elapsed().as_secs_f64(),
            load.acknowledged()
        );
        *struck.entry(fault.kind()).or_default() += 1;
        fault.strike(&mut network)?;
        network.look_after()?;
        std::thread::sleep(Duration::from_millis(draw.below(1_500)));
    }
    let faulty_for = began.elapsed();
    network.heal()?;
    let healed = Instant::now();
    let before = load.acknowledged();
    // Service must come back before the load ends.
    while load.acknowledged() < before + 10 || !network.all_know_the_rules() {
        network.look_after()?;
        if healed.elapsed() > HEAL_WITHIN {
            bail!(
                "no service within {} of the last fault",
                shell::seconds(HEAL_WITHIN)
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let resumed = healed.elapsed();
    let report = load.finish();
    let verdict = verdict::judge(&network, &report, HEAL_WITHIN);
    network.stop_all();
    println!(
        "faults             {count} in {}: {}",
        shell::seconds(faulty_for),
        struck
            .iter()
            .map(|(k, n)| format!("{n} {k}"))
            .collect::<Vec<_>>()
            .join(", ")
    );
    println!(
        "transactions       {} acknowledged, {} refused or unanswered",
        report.acknowledged.len(),
        report.failed
    );
    println!(
        "longest silence    {} without any acknowledgement",
        shell::seconds(report.longest_gap)
    );
    println!(
        "after the last     service again within {}",
        shell::seconds(resumed)
    );
    let verdict = verdict?;
    if report.longest_gap > Duration::from_secs(args.silence_max) {
        bail!("the silence was longer than {} s", args.silence_max);
    }
    println!(
        "epochs             {}, the last under rules of version {}",
        verdict.epoch, network.rules
    );
    println!(
        "state root         {} on {} nodes",
        verdict.state_root, verdict.nodes
    );
    println!(
        "accounts           {}: every acknowledged one, none of them twice",
        verdict.accounts
    );
    Ok(())
}
