//! `dagger bench`: measurements anyone can repeat. Every one prints figures in the same form and ends with status 0
//! whether or not a target is met.

mod cluster;
mod consensus;
mod figure;
mod fleet;
mod ledger;
mod liveness;
mod load;
mod member;
mod process;
mod recorder;
mod signed;
mod targets;
mod vm;

use crate::args::BenchCommand;
use crate::failure::Done;

pub fn run(command: &BenchCommand) -> Done {
    match command {
        BenchCommand::Consensus(args) => consensus::run(args),
        BenchCommand::Ledger(args) => figure::print(&ledger::measure(args.quick), args.json),
        BenchCommand::Liveness(args) => liveness::run(args),
        BenchCommand::Vm(args) => vm::run(args),
        BenchCommand::Member => member::run(),
        BenchCommand::LivenessPart => liveness::run_part(),
    }
}
