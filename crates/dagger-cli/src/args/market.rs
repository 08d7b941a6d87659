//! `dagger image`, `account`, `machine`, `operator`.

use super::{parse_duration_ms, parse_label, parse_permille, parse_size_mib};
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, ValueEnum};
use dagger_ledger::DELEGABLE;
use std::path::PathBuf;

#[derive(Subcommand)]
pub enum ImageCommand {
    /// Upload an image and publish it in your account
    Add(ImageAddArgs),
    /// List images
    #[command(visible_alias = "ls")]
    List,
    /// Show one image and its manifest
    Show {
        /// The image: NAME of yours, or ACCOUNT/NAME
        image: String,
    },
    /// Let other accounts make VMs from a private image of yours
    Share {
        /// The image: NAME of yours
        image: String,
        /// Names of the accounts
        #[arg(required = true, value_name = "ACCOUNT")]
        accounts: Vec<String>,
        /// No longer
        #[arg(long)]
        revoke: bool,
    },
    /// Let no new VM be made from an image
    Retire {
        /// The image: NAME of yours
        image: String,
    },
}

/// Architecture of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    /// 64-bit x86
    #[value(name = "x86_64")]
    X86_64,
    /// 64-bit Arm
    Aarch64,
}

impl From<Arch> for dagger_ledger::Arch {
    fn from(arch: Arch) -> Self {
        match arch {
            Arch::X86_64 => dagger_ledger::Arch::X86_64,
            Arch::Aarch64 => dagger_ledger::Arch::Aarch64,
        }
    }
}

/// Format of a disk image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DiskFormat {
    /// Bytes as on the disk
    Raw,
    /// QEMU's format
    Qcow2,
}

/// Firmware that boots a disk image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Firmware {
    /// PC BIOS
    Bios,
    /// UEFI
    Uefi,
}

#[derive(Args)]
#[command(group = clap::ArgGroup::new("boot").required(true).args(["kernel", "disk"]))]
pub struct ImageAddArgs {
    /// Name of the image, a DNS label, unique in your account
    pub name: String,
    /// Kernel to boot directly
    #[arg(long, value_name = "FILE", requires = "cmdline")]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk for that kernel
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub initrd: Option<PathBuf>,
    /// Command line for that kernel
    #[arg(long, value_name = "TEXT", requires = "kernel")]
    pub cmdline: Option<String>,
    /// Disk image to boot
    #[arg(long, value_name = "FILE", requires = "format")]
    pub disk: Option<PathBuf>,
    /// Format of the disk image; never guessed
    #[arg(long, value_enum, requires = "disk")]
    pub format: Option<DiskFormat>,
    /// Firmware that boots the disk image
    #[arg(long, value_enum, requires = "disk", default_value_t = Firmware::Bios)]
    pub firmware: Firmware,
    /// Processor architecture
    #[arg(long, value_enum, default_value_t = Arch::X86_64)]
    pub arch: Arch,
    /// Let only this account, and those it shares the image with, make VMs from it
    #[arg(long)]
    pub private: bool,
    /// Upload to so many of the nodes named; with one copy, the image is lost with its node
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    pub copies: u16,
}

#[derive(Subcommand)]
pub enum AccountCommand {
    /// Make a key for a new account
    New {
        /// Name of the account, a DNS label, unique in the network
        name: String,
    },
    /// Show an account
    Show {
        /// Name of the account [default: yours]
        name: Option<String>,
    },
    /// Show what the VMs of an account have held, with the proof of it
    Usage {
        /// Name of the account [default: yours]
        name: Option<String>,
        #[command(flatten)]
        proof: UsageArgs,
    },
    /// Give the account another key; the old one means nothing any more
    Rotate,
    /// Let another key sign some of what the account may, for a time
    Delegate(DelegateArgs),
    /// Take a delegated key back
    Revoke {
        /// The key, 64 hex characters
        public_key: String,
    },
    /// List accounts
    #[command(visible_alias = "ls")]
    List,
}

#[derive(Subcommand)]
pub enum MachineCommand {
    /// Register a machine of yours; sign with the operator's key
    Add(MachineAddArgs),
    /// List machines
    #[command(visible_alias = "ls")]
    List,
    /// Place nothing new on a machine
    Drain {
        /// Name of the machine
        machine: String,
    },
    /// End a drain
    Undrain {
        /// Name of the machine
        machine: String,
    },
    /// Offer more or less on a machine, or label it otherwise; what is not named stays
    Update(MachineUpdateArgs),
    /// Put another key of a machine's node on the ledger
    Key {
        /// Name of the machine
        machine: String,
        /// Public key of its node from now on: 64 hex characters, or a key file, made if it is not there
        #[arg(value_name = "FILE|HEX")]
        node_key: String,
    },
    /// Take an empty machine out
    #[command(visible_alias = "rm")]
    Remove {
        /// Name of the machine
        machine: String,
    },
}

#[derive(Args)]
pub struct MachineAddArgs {
    /// Name of the machine, a DNS label, unique in the network
    pub name: String,
    /// Public key of its node, 64 hex characters (see `dagger node status`)
    #[arg(long, value_name = "HEX")]
    pub node_key: String,
    /// Processors it offers
    #[arg(long)]
    pub vcpus: u32,
    /// Memory it offers
    #[arg(long, value_name = "SIZE", value_parser = parse_size_mib)]
    pub memory: u64,
    /// Disk it offers
    #[arg(long, value_name = "SIZE", value_parser = parse_size_mib)]
    pub disk: u64,
    /// Virtual processors that VMs may hold together for each processor, such as 2 or 1.5; memory is never overcommitted
    #[arg(long, value_name = "RATIO", default_value = "1", value_parser = parse_permille)]
    pub cpu_overcommit: u32,
    /// Processor architecture
    #[arg(long, value_enum, default_value_t = Arch::X86_64)]
    pub arch: Arch,
    /// Label KEY=VALUE such as region=eu-1; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub labels: Vec<(String, String)>,
}

#[derive(Args)]
pub struct MachineUpdateArgs {
    /// Name of the machine
    pub machine: String,
    /// Processors it offers
    #[arg(long)]
    pub vcpus: Option<u32>,
    /// Memory it offers
    #[arg(long, value_name = "SIZE", value_parser = parse_size_mib)]
    pub memory: Option<u64>,
    /// Disk it offers
    #[arg(long, value_name = "SIZE", value_parser = parse_size_mib)]
    pub disk: Option<u64>,
    /// Virtual processors that VMs may hold together for each processor, such as 2 or 1.5
    #[arg(long, value_name = "RATIO", value_parser = parse_permille)]
    pub cpu_overcommit: Option<u32>,
    /// Label KEY=VALUE to set; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub labels: Vec<(String, String)>,
    /// Label to take away; may be repeated
    #[arg(long = "no-label", value_name = "KEY")]
    pub no_labels: Vec<String>,
}

#[derive(Args)]
pub struct DelegateArgs {
    /// The other key, 64 hex characters (`dagger account new` makes one and prints it)
    pub public_key: String,
    /// What it may sign; may be repeated
    #[arg(long = "allow", required = true, value_name = "ACTION", value_parser = PossibleValuesParser::new(DELEGABLE))]
    pub actions: Vec<String>,
    /// Only for this VM; may be repeated [default: all]
    #[arg(long = "vm", value_name = "NAME")]
    pub vms: Vec<String>,
    /// For how long
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = parse_duration_ms)]
    pub valid_for: u64,
}

/// What is done with the proof of an amount.
#[derive(Args)]
pub struct UsageArgs {
    /// Where to write the proof, for `dagger ledger verify`
    #[arg(long, short = 'f', value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Verify the proof; the network's genesis file, from somebody you trust
    #[arg(long, value_name = "FILE")]
    pub genesis: Option<PathBuf>,
}

#[derive(Subcommand)]
pub enum OperatorCommand {
    /// List operators
    #[command(visible_alias = "ls")]
    List,
    /// Show what VMs have held on an operator's machines, with the proof of it
    Usage {
        /// Name of the operator
        operator: String,
        #[command(flatten)]
        proof: UsageArgs,
    },
    /// Open an account for a customer; sign with the operator's key
    Sponsor {
        /// Name of the account, a DNS label, unique in the network
        account: String,
        /// The customer's public key, 64 hex characters (`dagger account new` prints it)
        public_key: String,
    },
    /// Propose to admit an operator; sign with your operator's key, which votes for it
    ProposeAdd {
        /// The new operator's card (`dagger node init` makes one)
        #[arg(value_name = "CARD")]
        card: PathBuf,
    },
    /// Propose to remove an operator; sign with your operator's key, which votes for it
    ProposeRemove {
        /// Name of the operator
        operator: String,
        /// Even if the seats that are left bear no faulty member any more: from four of equal weight to three
        #[arg(long)]
        even_without_tolerance: bool,
    },
    /// Propose other parameters of the ledger; those not named stay as they are
    ProposeParameters {
        /// What changes, such as lease_ms=20000 (see `dagger operator parameters`)
        #[arg(required = true, value_name = "NAME=VALUE", value_parser = parse_label)]
        changes: Vec<(String, String)>,
    },
    /// Propose how much the accounts that an operator sponsors may have together
    ProposeAllocation {
        /// Name of the operator
        operator: String,
        #[command(flatten)]
        most: QuotaArgs,
    },
    /// Propose to seat an operator again that signed twice; it has changed its consensus key before
    ProposeReseat {
        /// Name of the operator
        operator: String,
    },
    /// Propose the version of the network's rules from the next epoch on; nodes whose program does not know it stop there
    ProposeVersion {
        /// The version; above the present one
        version: u32,
        /// Propose it although this program does not know it either
        #[arg(long)]
        even_unknown: bool,
    },
    /// Vote on a proposal; sign with your operator's key
    Vote {
        /// Number of the proposal (see `dagger operator proposals`)
        proposal: u64,
        /// Vote against it
        #[arg(long)]
        against: bool,
    },
    /// List proposals and their votes
    Proposals,
    /// Show the ledger's parameters
    Parameters,
    /// Put other keys or another address of yours on the ledger; sign with the operator's key
    Keys(OperatorKeysArgs),
    /// Limit what an account that you sponsor may have
    Quota {
        /// Name of the account
        account: String,
        #[command(flatten)]
        most: QuotaArgs,
    },
    /// Sponsor an account whose sponsor has left
    Adopt {
        /// Name of the account
        account: String,
    },
    /// Give up your seat, with the next epoch; sign with your operator's key
    Leave {
        /// Name of the operator, to be sure
        operator: String,
    },
}

#[derive(Args)]
#[command(group = clap::ArgGroup::new("keys").required(true).multiple(true))]
pub struct OperatorKeysArgs {
    /// Key that signs the operator's transactions from now on: a key file, made if it is not there, or 64 hex characters
    #[arg(long, value_name = "FILE|HEX", group = "keys")]
    pub operator_key: Option<String>,
    /// Key that signs events from the next epoch on: a key file or 64 hex characters
    #[arg(long, value_name = "FILE|HEX", group = "keys")]
    pub consensus_key: Option<String>,
    /// Key of the member's node from now on: a key file or 64 hex characters
    #[arg(long, value_name = "FILE|HEX", group = "keys")]
    pub node_key: Option<String>,
    /// Where the member's node can be dialled from now on
    #[arg(long, value_name = "HOST:PORT", group = "keys")]
    pub address: Option<String>,
}

/// The most that may be held at a time.
#[derive(Args)]
#[command(group = clap::ArgGroup::new("most").required(true).args(["vms", "unlimited"]))]
pub struct QuotaArgs {
    /// VMs
    #[arg(long, requires_all = ["vcpus", "memory", "disk"])]
    pub vms: Option<u64>,
    /// Virtual processors
    #[arg(long, requires = "vms")]
    pub vcpus: Option<u64>,
    /// Memory
    #[arg(long, value_name = "SIZE", value_parser = parse_size_mib, requires = "vms")]
    pub memory: Option<u64>,
    /// Disk
    #[arg(long, value_name = "SIZE", value_parser = parse_size_mib, requires = "vms")]
    pub disk: Option<u64>,
    /// No limit
    #[arg(long, conflicts_with_all = ["vms", "vcpus", "memory", "disk"])]
    pub unlimited: bool,
}
