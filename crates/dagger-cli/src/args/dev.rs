//! `dagger dev`.

use super::{Durability, parse_size_mib};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Subcommand)]
pub enum DevCommand {
    /// Make a network of several operators on this machine and start it
    Up(DevUpArgs),
    /// Stop every node, its VMs too; keep the data
    Down(DevData),
    /// Stop everything and remove the data, also what a crash left
    Clean(DevData),
    /// Show each node
    Status(DevData),
    /// Kill a node, its VMs and their shims at once, as a power cut would
    Kill(DevNode),
    /// Start a node again
    Start(DevNode),
}

#[derive(Args, Clone)]
pub struct DevData {
    /// Directory of the network
    #[arg(
        long,
        value_name = "DIR",
        default_value = "dagger-dev",
        env = "DAGGER_DEV_DATA",
        hide_env_values = true
    )]
    pub data: PathBuf,
}

#[derive(Args)]
pub struct DevNode {
    /// The node: its number or its operator's name
    pub node: String,
    #[command(flatten)]
    pub data: DevData,
}

#[derive(Args)]
pub struct DevUpArgs {
    #[command(flatten)]
    pub data: DevData,
    /// How many operators, each with one node
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=26))]
    pub nodes: u16,
    /// How long a machine may go unheard before its VMs move
    #[arg(long, default_value_t = 10_000)]
    pub lease_ms: u64,
    /// How much longer, to be sure the machine has stopped them
    #[arg(long, default_value_t = 5_000)]
    pub margin_ms: u64,
    /// When an event counts as stored
    #[arg(long, value_enum, default_value_t = Durability::Os)]
    pub durability: Durability,
    /// Processors each machine offers
    #[arg(long, default_value_t = 4)]
    pub vcpus: u32,
    /// Memory each machine offers
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = parse_size_mib)]
    pub memory: u64,
    /// Disk each machine offers
    #[arg(long, value_name = "SIZE", default_value = "50G", value_parser = parse_size_mib)]
    pub disk: u64,
}
