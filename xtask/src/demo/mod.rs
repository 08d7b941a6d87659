//! `cargo xtask demo`: four operators, one real VM; its host dies; ssh again. This file builds what
//! is needed, tells the story step by step, and cleans up; the steps themselves are in `story`.

pub mod cloud;
pub mod interrupt;
mod processes;
mod screen;
mod story;
mod views;
pub mod wait;

use crate::{guest, setup, shell};
use anyhow::{Context, Result};
use clap::Args;
use cloud::Cloud;
use interrupt::Cleanup;
use processes::Running;
use screen::Screen;
use std::path::Path;
use std::time::Duration;
use story::Story;
use wait::Deadline;

/// How long the demo waits for everything after the build together. It takes a third of that on an
/// idle machine; a loaded one is slower, not broken.
const PATIENCE: Duration = Duration::from_secs(480);

/// How long it should take after the build.
const TARGET: Duration = Duration::from_secs(120);

/// How to run the demo.
#[derive(Args, Default)]
pub struct DemoArgs {
    /// Install missing system packages without asking
    #[arg(long, short)]
    pub yes: bool,
    /// Leave the network running and say how to go on by hand
    #[arg(long)]
    pub keep: bool,
}

/// Runs the demo; every end of it, Ctrl-C included, leaves no process and no file behind.
pub fn run(args: &DemoArgs) -> Result<()> {
    let mut screen = Screen::new();
    screen.title("DAGGER: four operators, one real VM; its host dies; ssh again");
    screen.step("System packages");
    setup::run(&setup::SetupArgs { yes: args.yes })?;
    let mut cloud = Cloud::new("demo");
    let cleanup = Cleanup::arm(&cloud)?;
    screen.step("Build: release binaries and a micro guest");
    let parts = build(&screen, args).inspect_err(|_| interrupt::stop_here_if_interrupted())?;
    std::fs::create_dir_all(cloud.config())?;
    screen.start_clock();
    let mut story = Story::new(&mut screen, &mut cloud, Deadline::after(PATIENCE));
    let told = story.tell(&parts);
    if let Err(error) = told {
        diagnose(&screen, &cloud, &error);
        return Err(error);
    }
    if args.keep {
        cleanup.keep()?;
        how_to_go_on(&screen, &cloud);
        return Ok(());
    }
    screen.command("dagger dev clean");
    cloud.quiet(&["dev", "clean"])?;
    let left = processes::of_network(cloud.root())?;
    anyhow::ensure!(
        left.is_empty(),
        "`dagger dev clean` left processes behind: {left:?}"
    );
    anyhow::ensure!(
        !cloud.data().exists(),
        "`dagger dev clean` left files behind"
    );
    cleanup.now()?;
    screen.verified("no process and no file is left");
    finish(&screen);
    Ok(())
}

fn finish(screen: &Screen) {
    let took = screen.elapsed();
    let verdict = if took <= TARGET {
        "within"
    } else {
        "more than"
    };
    screen.say("");
    screen.say(&format!(
        "Done: {} after the build, {verdict} the {} it should take.",
        shell::seconds(took),
        shell::seconds(TARGET)
    ));
}

/// Builds the `dagger` command and the guest.
fn build(screen: &Screen, args: &DemoArgs) -> Result<guest::MicroGuest> {
    let mut cargo = shell::cargo();
    cargo.args(["build", "--release", "--workspace", "--bins", "--locked"]);
    screen.command(&shell::command_line(&cargo));
    let built = Running::start(&mut cargo)?.finish()?;
    anyhow::ensure!(
        built.status.success(),
        "the build failed ({})",
        built.status
    );
    screen.step_took();
    let parts = build_guest(args).context("cannot build the micro guest")?;
    let mib = |path: &Path| std::fs::metadata(path).map_or(0.0, |m| m.len() as f64 / 1_048_576.0);
    screen.fact(&format!(
        "micro guest: kernel {:.1} MiB, initramfs {:.1} MiB",
        mib(&parts.kernel),
        mib(&parts.initrd)
    ));
    screen.step_took();
    Ok(parts)
}

/// Builds the guest; lists that name packages which the mirror no longer has are fetched anew.
fn build_guest(args: &DemoArgs) -> Result<guest::MicroGuest> {
    let out = shell::target_dir().join("guest/micro");
    guest::build_micro(&out).or_else(|first| {
        println!("{first:#}");
        setup::fetch_lists(&setup::SetupArgs { yes: args.yes })?;
        guest::build_micro(&out)
    })
}

/// What a person would look at first: the error, what runs, the ends of all logs.
fn diagnose(screen: &Screen, cloud: &Cloud, error: &anyhow::Error) {
    screen.failed(&format!("{error:#}"));
    match processes::of_network(cloud.root()) {
        Ok(found) => {
            screen.say(&format!("{} processes of the network:", found.len()));
            for process in found {
                let line: String = process.command_line.chars().take(160).collect();
                screen.printed(&format!("{} {line}", process.pid));
            }
        }
        Err(error) => screen.say(&format!("{error:#}")),
    }
    let mut logs = Vec::new();
    logs_under(&cloud.data(), 6, &mut logs);
    logs.sort();
    for log in logs {
        screen.say(&format!("--- the end of {}", log.display()));
        let text = std::fs::read(&log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
            screen.printed(line);
        }
    }
}

const LOG_LINES: usize = 25;

/// Every log of the network: nodes, shims, consoles.
fn logs_under(dir: &Path, depth: usize, found: &mut Vec<std::path::PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() && depth > 0 && name != "events" {
            logs_under(&path, depth - 1, found);
        } else if name.ends_with(".log") || name.starts_with("console") {
            found.push(path);
        }
    }
}

fn how_to_go_on(screen: &Screen, cloud: &Cloud) {
    screen.say("");
    screen.say("The network is left running. To go on by hand:");
    screen.say("");
    screen.say(&format!("  export DAGGER_API={}", cloud.apis()));
    screen.say(&format!(
        "  export DAGGER_CONFIG_DIR={}",
        cloud.config().display()
    ));
    screen.say(&format!(
        "  export DAGGER_DEV_DATA={}",
        cloud.data().display()
    ));
    let dagger = cloud.program();
    screen.say(&format!(
        "  {dagger} vm ssh {} -i {}",
        story::VM,
        cloud.identity().display()
    ));
    screen.say(&format!("  {dagger} ledger tail"));
    screen.say(&format!("  {dagger} dev status"));
    screen.say(&format!(
        "  {dagger} dev clean        # ends it and removes its files"
    ));
}
