//! `dagger vm`.

use super::{parse_duration_ms, parse_label, parse_publish, parse_size_mib};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Subcommand)]
pub enum VmCommand {
    /// Create a VM
    Create(Box<CreateArgs>),
    /// List your VMs
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show everything about a VM, its history included
    Show(VmRef),
    /// Log in, or run a command, with the guest's identity checked against the ledger
    Ssh(SshArgs),
    /// Print what a VM wrote to its serial console
    Logs(LogsArgs),
    /// Sit at the serial console of a VM; Ctrl-] leaves
    Console(ConsoleArgs),
    /// Connect standard input and output to a port of a VM
    Proxy(ProxyArgs),
    /// Say why a VM is where it is
    Explain(VmRef),
    /// Make an access token for one VM, to hand to somebody or something
    Token(TokenArgs),
    /// Stop a VM; it keeps its place and its disk
    Stop(ChangeArgs),
    /// Start a stopped VM
    Start(ChangeArgs),
    /// Restart a running VM
    Reboot(ChangeArgs),
    /// Claim that a VM that is reported running cannot be reached: rivals probe it
    Dispute {
        /// The VM: NAME
        vm: String,
        /// What is wrong with it, for people
        #[arg(default_value = "")]
        claim: String,
    },
    /// Say anew where a VM may run; it moves if it is elsewhere
    Place(PlaceArgs),
    /// Give a stopped VM more or fewer processors, other memory, or a larger disk
    Resize(ResizeArgs),
    /// Give a VM another name
    Rename(RenameArgs),
    /// Delete a VM and its disk
    #[command(visible_alias = "rm")]
    Delete(ChangeArgs),
}

#[derive(Args, Clone)]
pub struct VmRef {
    /// The VM: NAME, or ACCOUNT/NAME
    #[arg(value_name = "NAME")]
    pub vm: String,
}

/// What happens to a VM when its machine is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Failover {
    /// It waits for its machine to return
    None,
    /// It is made anew, with an empty disk, on another operator's machine
    Recreate,
}

/// What an isolated machine does with a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnIsolation {
    /// Stops it before another machine may start it
    Stop,
    /// Lets it run; only without failover
    Keep,
}

/// What happens when a VM stops of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Restart {
    /// It stays off
    Never,
    /// It starts again if it broke
    OnFailure,
    /// It starts again, also after its guest powered off
    Always,
}

#[derive(Args)]
pub struct CreateArgs {
    /// Name of the VM, a DNS label, unique in your account
    pub name: String,
    /// Image to boot: NAME of yours, or ACCOUNT/NAME
    #[arg(long, value_name = "IMAGE")]
    pub image: String,
    /// Public SSH key that may log in; may be repeated
    #[arg(long = "ssh-key", value_name = "FILE", required = true)]
    pub ssh_keys: Vec<PathBuf>,
    /// File with user-data for the guest's cloud-init; sealed to the machines that may run the VM
    #[arg(long, value_name = "FILE")]
    pub user_data: Option<PathBuf>,
    /// Virtual processors
    #[arg(long, default_value_t = 1)]
    pub vcpus: u32,
    /// Memory
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = parse_size_mib)]
    pub memory: u64,
    /// Disk
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = parse_size_mib)]
    pub disk: u64,
    /// What happens when its machine is lost
    #[arg(long, value_enum, default_value_t = Failover::None)]
    pub failover: Failover,
    /// What a machine cut off from the network does with it
    #[arg(long, value_enum, default_value_t = OnIsolation::Stop)]
    pub on_isolation: OnIsolation,
    /// What happens when it stops of itself; each further start in a row waits longer
    #[arg(long, value_enum, default_value_t = Restart::Never)]
    pub restart: Restart,
    /// Keep VMs with the same word on different operators
    #[arg(long, value_name = "GROUP", help_heading = "Placement")]
    pub spread: Option<String>,
    /// Open a TCP port of the guest to everybody, at a port of its machine: GUEST or GUEST:HOST; may be repeated
    #[arg(long, value_name = "GUEST[:HOST]", value_parser = parse_publish)]
    pub publish: Vec<dagger_ledger::Publish>,
    /// Label KEY=VALUE; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub labels: Vec<(String, String)>,
    #[command(flatten)]
    pub placement: PlacementArgs,
    #[command(flatten)]
    pub wait: WaitArgs,
}

#[derive(Args)]
pub struct PlaceArgs {
    #[command(flatten)]
    pub change: ChangeArgs,
    #[command(flatten)]
    pub placement: PlacementArgs,
}

#[derive(Args)]
#[command(next_help_heading = "Placement")]
pub struct PlacementArgs {
    /// Only on these machines
    #[arg(long = "machine", value_name = "NAME")]
    pub machines: Vec<String>,
    /// Only with these operators
    #[arg(long = "operator", value_name = "NAME")]
    pub operators: Vec<String>,
    /// Only in these regions
    #[arg(long = "region", value_name = "NAME")]
    pub regions: Vec<String>,
    /// Never on these machines
    #[arg(long = "deny-machine", value_name = "NAME")]
    pub deny_machines: Vec<String>,
    /// Never with these operators
    #[arg(long = "deny-operator", value_name = "NAME")]
    pub deny_operators: Vec<String>,
    /// Never in these regions
    #[arg(long = "deny-region", value_name = "NAME")]
    pub deny_regions: Vec<String>,
}

#[derive(Args, Clone, Copy)]
#[command(next_help_heading = "Waiting")]
pub struct WaitArgs {
    /// Wait until it is done, showing each step as it happens
    #[arg(long)]
    pub wait: bool,
    /// Give up waiting after this long
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration_ms)]
    pub timeout: u64,
}

#[derive(Args)]
pub struct ListArgs {
    /// Everybody's VMs
    #[arg(long, short)]
    pub all: bool,
}

#[derive(Args)]
pub struct SshArgs {
    #[command(flatten)]
    pub vm: VmRef,
    /// User to log in as
    #[arg(long, short = 'l', default_value = "root")]
    pub login: String,
    /// Private key to log in with
    #[arg(long, short = 'i', value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Further option for ssh, as in `ssh -o`; may be repeated
    #[arg(long = "ssh-option", value_name = "OPTION")]
    pub ssh_options: Vec<String>,
    /// Command to run there instead of a shell
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

#[derive(Args)]
pub struct ProxyArgs {
    #[command(flatten)]
    pub vm: VmRef,
    /// Port of the guest
    #[arg(long, short, default_value_t = 22)]
    pub port: u16,
    /// Access token to use instead of the account's key
    #[arg(long, env = "DAGGER_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

#[derive(Args)]
pub struct LogsArgs {
    #[command(flatten)]
    pub vm: VmRef,
    /// Go on with what it writes from now, wherever the VM moves
    #[arg(long, short)]
    pub follow: bool,
    /// Only so many of the newest lines
    #[arg(long, short = 'n', value_name = "LINES")]
    pub tail: Option<u32>,
    /// Access token to use instead of the account's key
    #[arg(long, env = "DAGGER_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

#[derive(Args)]
pub struct ConsoleArgs {
    #[command(flatten)]
    pub vm: VmRef,
    /// Access token to use instead of the account's key
    #[arg(long, env = "DAGGER_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

#[derive(Args)]
pub struct ResizeArgs {
    #[command(flatten)]
    pub vm: VmRef,
    /// Virtual processors; as they are if not given
    #[arg(long)]
    pub vcpus: Option<u32>,
    /// Memory; as it is if not given
    #[arg(long, value_name = "SIZE", value_parser = parse_size_mib)]
    pub memory: Option<u64>,
    /// Disk, never smaller than it was; as it is if not given
    #[arg(long, value_name = "SIZE", value_parser = parse_size_mib)]
    pub disk: Option<u64>,
}

#[derive(Args)]
pub struct RenameArgs {
    #[command(flatten)]
    pub vm: VmRef,
    /// The new name, a DNS label, unique in your account
    pub to: String,
}

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TokenRight {
    /// Open connections to ports of the guest
    Tunnel,
    /// Read and write its serial console
    Console,
    /// Read the log of its console
    Logs,
}

#[derive(Args)]
pub struct TokenArgs {
    #[command(flatten)]
    pub vm: VmRef,
    /// What it allows; may be repeated
    #[arg(long = "right", value_enum, default_values_t = [TokenRight::Tunnel])]
    pub rights: Vec<TokenRight>,
    /// Only these ports of the guest
    #[arg(long = "port", value_name = "PORT")]
    pub ports: Vec<u16>,
    /// How long it is good for
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration_ms)]
    pub expires: u64,
}

#[derive(Args)]
pub struct ChangeArgs {
    #[command(flatten)]
    pub vm: VmRef,
    #[command(flatten)]
    pub wait: WaitArgs,
}
