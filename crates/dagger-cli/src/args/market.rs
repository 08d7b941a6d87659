//! `dagger image`, `account`, `machine`, `operator`.

use super::{parse_label, parse_size_mib};
use clap::{Args, Subcommand, ValueEnum};
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
    /// Processor architecture
    #[arg(long, value_enum, default_value_t = Arch::X86_64)]
    pub arch: Arch,
    /// Label KEY=VALUE such as region=eu-1; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub labels: Vec<(String, String)>,
}

#[derive(Subcommand)]
pub enum OperatorCommand {
    /// List operators
    #[command(visible_alias = "ls")]
    List,
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
    /// Give up your seat, with the next epoch; sign with your operator's key
    Leave {
        /// Name of the operator, to be sure
        operator: String,
    },
}
