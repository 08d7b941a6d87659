//! `cargo xtask ci`: everything a change must pass, in one command, ordered so that what is quick
//! to fail comes first. Closes with the line `N passed, N failed`.

use crate::{demo, docs, fuzz, instructions, layers, setup, shell, suite};
use anyhow::Result;
use clap::Args;

/// What to leave out.
#[derive(Args, Default)]
pub struct CiArgs {
    /// Leave the demo out
    #[arg(long)]
    no_demo: bool,
}

/// Runs every check; the counts are printed last, whatever failed.
pub fn run(args: &CiArgs) -> Result<()> {
    let mut counts = suite::Counts::default();
    let result = checks(args, &mut counts);
    if let Err(error) = &result {
        println!("\nfailed: {error:#}");
    }
    // A failing check that is not a test must not close with a count of no failures.
    if result.is_err() && counts.failed == 0 {
        counts.failed = 1;
    }
    println!("\n{counts}");
    result
}

fn checks(args: &CiArgs, counts: &mut suite::Counts) -> Result<()> {
    shell::step("setup", || setup::run(&setup::SetupArgs { yes: true }))?;
    shell::step("format", || {
        shell::run(shell::cargo().args(["fmt", "--all", "--check"]))
    })?;
    shell::step("layers", layers::run)?;
    shell::step("docs", docs::run)?;
    shell::step("dependencies", dependencies)?;
    shell::step("lints", || {
        let mut clippy = shell::cargo();
        clippy.args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]);
        shell::run(&mut clippy)
    })?;
    shell::step("fuzz targets", fuzz::check)?;
    shell::step("tests", || {
        let (sum, result) = suite::all_tests(None);
        *counts = sum;
        result
    })?;
    shell::step("instructions", instructions::check)?;
    if !args.no_demo {
        shell::step("demo", || {
            demo::run(&demo::DemoArgs {
                yes: true,
                ..Default::default()
            })
        })?;
    }
    Ok(())
}

/// Licences, advisories and sources of dependencies, where cargo-deny is there.
fn dependencies() -> Result<()> {
    if shell::find_program("cargo-deny").is_none() {
        println!("    cargo-deny is not installed: licences and advisories are not checked");
        return Ok(());
    }
    shell::run(shell::cargo().args(["deny", "check"]))
}
