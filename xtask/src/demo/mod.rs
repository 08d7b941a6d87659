//! `cargo xtask demo`.
use anyhow::Result;
use clap::Args;

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

/// Runs the demo.
pub fn run(_args: &DemoArgs) -> Result<()> {
    unimplemented!("the demo")
}
