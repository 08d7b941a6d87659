//! `cargo xtask`: the repository's own commands. This file only parses the command line; each
//! command lives in its module. Nothing here is part of the product.
#![warn(missing_docs)]

mod chaos;
mod ci;
mod demo;
mod docs;
mod fuzz;
mod guest;
mod instructions;
mod layers;
mod mutants;
mod setup;
mod shell;
mod suite;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// The repository's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install the system packages that are missing (asks before it uses sudo)
    Setup(setup::SetupArgs),
    /// Set up what is missing, then run every test
    Test(suite::TestArgs),
    /// Everything a change must pass: format, lints, layers, docs, tests, the demo
    Ci(ci::CiArgs),
    /// Check that the crates depend only downwards and that the pure ones stay pure
    Layers,
    /// Check the documents: links, cited rules, the list of dependencies
    Docs,
    /// Plant mistakes in the consensus library, one at a time, and see a test fail for each
    Mutants(mutants::MutantsArgs),
    /// Fuzz every path that reads a stranger's bytes, with coverage
    Fuzz(fuzz::FuzzArgs),
    /// Count the instructions of the hot paths, and compare with the pinned counts
    Instructions(instructions::InstructionsArgs),
    /// Build a guest image
    #[command(subcommand)]
    Guest(GuestKind),
    /// Four operators, one real VM; its host dies; ssh again
    Demo(demo::DemoArgs),
    /// Real nodes under load and faults: nothing acknowledged may be lost, and all must agree
    Chaos(chaos::ChaosArgs),
}

#[derive(Subcommand)]
enum GuestKind {
    /// A kernel and an initramfs with an ssh server: boots in seconds under TCG
    Micro,
    /// Debian 12 with systemd, cloud-init and openssh, as a disk that boots by BIOS and by UEFI
    Debian(guest::DebianArgs),
}

/// Builds the micro guest and prints where its parts are.
fn micro_guest() -> anyhow::Result<()> {
    let parts = guest::build_micro(&shell::target_dir().join("guest/micro"))?;
    println!("kernel  {}", parts.kernel.display());
    println!("initrd  {}", parts.initrd.display());
    println!("cmdline {}", parts.cmdline);
    Ok(())
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::Test(args) => suite::run(&args),
        Command::Ci(args) => ci::run(&args),
        Command::Layers => layers::run(),
        Command::Docs => docs::run(),
        Command::Mutants(args) => mutants::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Instructions(args) => instructions::run(&args),
        Command::Guest(GuestKind::Micro) => micro_guest(),
        Command::Guest(GuestKind::Debian(args)) => guest::debian(args),
        Command::Demo(args) => demo::run(&args),
        Command::Chaos(args) => chaos::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
