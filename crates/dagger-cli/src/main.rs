//! The `dagger` command.

mod args;
mod bench;
mod commands;
mod config;
mod context;
mod dev;
mod failure;
mod output;
mod setup;

use args::Output;
use clap::Parser as _;
use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    // The shim lives as long as its VM and must stay small: no runtime, no argument parser.
    let words: Vec<_> = std::env::args_os().take(4).collect();
    if let [_, command, flag, dir] = words.as_slice()
        && command == OsStr::new("vm-shim")
        && flag == OsStr::new("--dir")
    {
        return dagger_vmm::shim_main(Path::new(dir));
    }
    let cli = args::Cli::parse();
    let output = cli.global.output;
    match commands::run(cli) {
        Ok(code) => code,
        Err(failure) => {
            match output {
                Output::Table => eprintln!("{failure}"),
                Output::Json => eprintln!("{}", failure.to_json()),
            }
            failure.exit_code()
        }
    }
}
