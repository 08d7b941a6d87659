//! The command tree. What must not live here: anything a command does.

mod bench;
mod dev;
mod market;
mod node;
mod size;
mod vm;

pub use bench::*;
pub use dev::*;
pub use market::*;
pub use node::*;
pub use size::{parse_duration_ms, parse_label, parse_permille, parse_publish, parse_size_mib};
pub use vm::*;

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

const AFTER_HELP: &str = "\
Try it here: `dagger dev up` starts a cloud of four operators on this machine.
Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused by the ledger, 4 no node reachable, 5 timed out.";

/// A cloud of independent operators: VMs placed, moved and accounted for by their agreement.
#[derive(Parser)]
#[command(name = "dagger", version, after_help = AFTER_HELP, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// A node's API; several may be given, the first that answers is used
    #[arg(
        long,
        value_name = "URL",
        env = "DAGGER_API",
        hide_env_values = true,
        value_delimiter = ',',
        global = true,
        help_heading = "Global options"
    )]
    pub api: Vec<String>,
    /// File of the key that signs [default: from client.toml]
    #[arg(
        long,
        value_name = "FILE",
        env = "DAGGER_KEY",
        hide_env_values = true,
        global = true,
        help_heading = "Global options"
    )]
    pub key: Option<PathBuf>,
    /// How results are printed
    #[arg(long, short, value_enum, default_value_t = Output::Table, global = true, help_heading = "Global options")]
    pub output: Output,
    /// Directory of client.toml and account keys [default: ~/.config/dagger]
    #[arg(
        long,
        value_name = "DIR",
        env = "DAGGER_CONFIG_DIR",
        hide_env_values = true,
        global = true,
        help_heading = "Global options"
    )]
    pub config_dir: Option<PathBuf>,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    // For people.
    Table,
    // For programs: one document, or one a line where a command streams.
    Json,
}

#[derive(Subcommand)]
pub enum Command {
    /// Create, watch, reach and delete VMs
    #[command(subcommand)]
    Vm(VmCommand),
    /// Publish and list images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Your account and its key
    #[command(subcommand)]
    Account(AccountCommand),
    /// The ledger itself
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// For operators: machines that host VMs
    #[command(subcommand)]
    Machine(MachineCommand),
    /// For operators: who they are, and the accounts they sponsor
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// For operators: the daemon
    #[command(subcommand)]
    Node(NodeCommand),
    /// For founders: the genesis file of a new network
    #[command(subcommand)]
    Genesis(GenesisCommand),
    /// A whole network on this machine, to try and to develop with
    #[command(subcommand)]
    Dev(DevCommand),
    /// Measure this software on this machine
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// The process that owns one VM; started by the daemon
    #[command(hide = true)]
    VmShim {
        /// The VM's directory
        #[arg(long)]
        dir: PathBuf,
    },
}

#[derive(Subcommand)]
pub enum LedgerCommand {
    /// Follow what the network agrees on, commit by commit
    Tail(TailArgs),
    /// Get the receipt of a transaction: that it was ordered, and what became of it
    Receipt {
        /// Digest of the transaction, 64 hex characters
        transaction: String,
        /// Where to write it [default: standard output]
        #[arg(long, short = 'f', value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Get the proof of what the ledger holds under a name, or that it holds nothing
    Prove {
        /// operator/NAME, machine/NAME, account/NAME, image/ACCOUNT/NAME, vm/ACCOUNT/NAME, proposal/NUMBER or epoch
        record: String,
        /// Where to write it [default: standard output]
        #[arg(long, short = 'f', value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Verify a receipt or proof offline; nothing but the genesis file is trusted
    Verify {
        /// What `receipt` or `prove` wrote
        proof: PathBuf,
        /// The network's genesis file, from somebody you trust
        #[arg(long, value_name = "FILE")]
        genesis: PathBuf,
    },
    /// Recompute the whole ledger from the logs of a stopped node, and compare it with what was certified
    Replay {
        /// The node's data directory; nothing in it is trusted but the genesis file
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
}

#[derive(Args)]
pub struct TailArgs {
    /// Begin after this commit instead of now
    #[arg(long, value_name = "COMMIT")]
    pub after: Option<u64>,
    /// End after so many commits
    #[arg(long, short = 'n', value_name = "COUNT")]
    pub count: Option<u64>,
    /// Show commits without transactions and changes too
    #[arg(long)]
    pub all: bool,
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
