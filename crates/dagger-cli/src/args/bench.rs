//! `dagger bench`.

use super::Durability;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Subcommand)]
pub enum BenchCommand {
    /// Ordering: members as processes on this machine, an open loop of transactions at a constant rate
    Consensus(BenchConsensusArgs),
    /// Deciding: two million VMs on 6,100 machines in memory, on one core
    Ledger(BenchLedgerArgs),
    /// Being alive: ten thousand machines' connections and heartbeats, and what they cost one member
    Liveness(BenchLivenessArgs),
    /// Hosting: virtual machines of a network on this machine, beside bare QEMUs with the same devices
    Vm(BenchVmArgs),
    /// One process of a benchmark; told what to do on standard input
    #[command(hide = true)]
    Member,
    /// One process of `bench liveness`; told what to do on standard input
    #[command(hide = true)]
    LivenessPart,
}

/// What is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchMode {
    /// Opaque bytes, not executed
    Opaque,
    /// Signed transactions, verified and executed by all, with state roots: reports, stops, starts, reboots and renames of VMs
    Ledger,
}

/// How members reach one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchTransport {
    /// All members in one process, queues instead of sockets
    Memory,
    /// A process each, QUIC over loopback, as nodes are in earnest
    Iroh,
}

/// Where members keep events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchStore {
    /// The event log
    Disk,
    /// Nothing is written
    Memory,
}

#[derive(Args, Clone)]
pub struct BenchConsensusArgs {
    /// What is ordered
    #[arg(long, value_enum, default_value_t = BenchMode::Opaque)]
    pub mode: BenchMode,
    /// How many members
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub n: u16,
    /// Transactions a second, all members together; 0 measures members at rest
    #[arg(long, default_value_t = 1_000)]
    pub rate: u64,
    /// Bytes of an opaque transaction
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(16..=65_536))]
    pub size: u32,
    /// Find the highest rate that is kept up with, starting at --rate
    #[arg(long)]
    pub search: bool,
    /// While searching, a rate with a higher p99 is not kept up with
    #[arg(long, value_name = "MS", default_value_t = 80.0)]
    pub p99_max: f64,
    /// How members reach one another
    #[arg(long, value_enum, default_value_t = BenchTransport::Iroh)]
    pub transport: BenchTransport,
    /// Where members keep events
    #[arg(long, value_enum, default_value_t = BenchStore::Disk)]
    pub store: BenchStore,
    /// When an event counts as stored
    #[arg(long, value_enum, default_value_t = Durability::Os)]
    pub durability: Durability,
    /// The least time between two rounds of a member on average [default: as nodes have it]
    #[arg(long, value_name = "MS")]
    pub round_interval: Option<u64>,
    /// Members that are killed before measuring starts
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub crash: u16,
    /// Stop and continue one member so that it gets this share of a core's time
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=99))]
    pub slow: Option<u8>,
    /// Seconds that are measured
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub duration: f64,
    /// Seconds of load before measuring starts
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    pub warmup: f64,
    /// An indicative answer in less than a minute
    #[arg(long)]
    pub quick: bool,
    /// One figure a line, as JSON
    #[arg(long)]
    pub json: bool,
    /// Where the members' data goes while it runs [default: the system's directory for such]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

#[derive(Args, Clone)]
pub struct BenchLedgerArgs {
    /// An indicative answer in less than a minute, with 250,000 VMs
    #[arg(long)]
    pub quick: bool,
    /// One figure a line, as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Clone)]
pub struct BenchLivenessArgs {
    /// How many machines; their own side runs here too, and takes more than the member's
    #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u32).range(1..=16_000))]
    pub machines: u32,
    /// Time between two heartbeats of a machine [default: as the ledger's rules have it]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=15_000))]
    pub interval: Option<u64>,
    /// Transactions a second that the member orders meanwhile, and tells those machines of that subscribe
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    /// How many of the machines subscribe to this member; each subscribes to one of its network's [default: a fourth]
    #[arg(long, value_name = "MACHINES")]
    pub subscribers: Option<u32>,
    /// Seconds that are measured, each: with no machine connected, with all of them, and with their heartbeats
    #[arg(long, value_name = "SECONDS", default_value_t = 20.0)]
    pub duration: f64,
    /// An indicative answer in less than a minute, with a thousand machines
    #[arg(long)]
    pub quick: bool,
    /// One figure a line, as JSON
    #[arg(long)]
    pub json: bool,
    /// Where the member's data goes while it runs [default: the system's directory for such]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// What `dagger bench vm` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchVmPart {
    /// From a create to a guest that answers, one VM after the other
    Start,
    /// Many VMs started at once, and what they take of memory
    Many,
    /// The tunnel beside QEMU's own forward of a port
    Tunnel,
    /// QEMU's options for a disk
    Disk,
    /// An image from one and from three sources
    Fetch,
}

#[derive(Args, Clone)]
pub struct BenchVmArgs {
    /// What to measure, in this order [default: everything]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<BenchVmPart>,
    /// Starts of one VM that medians are taken of
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub runs: u16,
    /// VMs that are started at once
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub many: u16,
    /// Memory of each VM
    #[arg(long, value_name = "SIZE", default_value = "96M", value_parser = super::parse_size_mib)]
    pub memory: u64,
    /// Directory of the micro guest, as `cargo xtask guest micro` makes it
    #[arg(long, value_name = "DIR", default_value = "target/guest/micro")]
    pub guest: PathBuf,
    /// An indicative answer in about a minute
    #[arg(long)]
    pub quick: bool,
    /// One figure a line, as JSON
    #[arg(long)]
    pub json: bool,
    /// Where the network's data goes while it runs; a short path [default: the system's directory for such]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
