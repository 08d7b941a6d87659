//! `dagger node` and `dagger genesis`.

use super::parse_duration_ms;
use clap::{Args, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

/// When an event counts as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// When the disk says so: survives a power cut
    Fsync,
    /// When the operating system has it: survives a crash of the process only
    Os,
}

#[derive(Subcommand)]
pub enum NodeCommand {
    /// Make a data directory: keys first, then, with --genesis, ready to run
    Init(NodeInitArgs),
    /// Run the daemon in the foreground
    Run {
        /// Data directory
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
    /// Ask a node how it is
    Status,
    /// The other nodes that a node knows: reached how, how far, what time they have
    Peers,
    /// Have a node look at itself and its host; ends with 1 if something is wrong
    Doctor {
        /// Its data directory, to be looked at if the node does not answer
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
}

#[derive(Args)]
pub struct NodeInitArgs {
    /// Data directory
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Name of the operator, a DNS label, unique in the network
    #[arg(long)]
    pub name: String,
    /// The network's genesis file; without it only the keys and the card for the founders are made
    #[arg(long, value_name = "FILE")]
    pub genesis: Option<PathBuf>,
    /// Address the other nodes reach this one at, if it has a lasting one
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub address: Option<SocketAddr>,
    /// Where the node's one UDP socket listens
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:7400")]
    pub listen: SocketAddr,
    /// Where the HTTP API listens
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7480")]
    pub api_listen: SocketAddr,
    /// When an event counts as stored
    #[arg(long, value_enum, default_value_t = Durability::Fsync)]
    pub durability: Durability,
}

#[derive(Subcommand)]
pub enum GenesisCommand {
    /// Write the genesis file from the founders' cards
    Create(GenesisCreateArgs),
    /// Print the chain id of a genesis file
    Id {
        /// The genesis file
        genesis: PathBuf,
    },
}

#[derive(Args)]
pub struct GenesisCreateArgs {
    /// Name of the network
    #[arg(long)]
    pub network: String,
    /// File to write; never overwritten
    #[arg(long, value_name = "FILE", default_value = "genesis.json")]
    pub out: PathBuf,
    /// How long a machine may go unheard before its VMs move
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    pub lease: Option<u64>,
    /// How much longer, to be sure the machine has stopped them
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    pub margin: Option<u64>,
    /// The founders' cards (`dagger node init` makes one), in the order of their seats
    #[arg(required = true, value_name = "CARD")]
    pub cards: Vec<PathBuf>,
}
