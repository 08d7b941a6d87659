//! `peers`: measures the product and its peers in turn and prints one table.

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use peers::compare::{self, Contender, Options};
use peers::measured::Load;
use peers::{Peer, member};
use std::path::PathBuf;

/// Measures `dagger bench consensus` and other consensus libraries in turn, under the same load, and prints one table.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    /// The dagger program, built with `--release`
    #[arg(long, value_name = "FILE")]
    dagger: Option<PathBuf>,
    /// Peers to measure beside it [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<PeerName>,
    /// Rates at which all are measured, transactions a second, all members together
    #[arg(long, value_delimiter = ',', num_args = 0.., default_value = "1000,50000")]
    rates: Vec<u64>,
    /// Look for no highest rates
    #[arg(long)]
    no_search: bool,
    /// Where the search for a peer's highest rate starts
    #[arg(long, default_value_t = 150_000)]
    search_from: u64,
    /// Where the search for dagger's starts
    #[arg(long, default_value_t = 150_000)]
    dagger_from: u64,
    /// While searching, a rate with a higher p99 is not kept up with
    #[arg(long, value_name = "MS", default_value_t = 250.0)]
    p99_max: f64,
    /// Rounds; figures are medians over them
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Seconds that each run measures
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds of load before
    #[arg(long, default_value_t = 3.0)]
    warmup: f64,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// One member, started by the command without a name
    #[command(hide = true)]
    Member,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum PeerName {
    /// aleph-bft, a unit every 5 ms, payloads beside units
    Aleph5,
    /// The same every 20 ms
    Aleph20,
    /// aleph-bft, a unit every 5 ms, payloads inside units
    Aleph5Inside,
    /// The same every 20 ms
    Aleph20Inside,
    /// commonware-consensus, a block every 5 ms at most
    Simplex5,
    /// The same as fast as the network
    Simplex0,
}

impl PeerName {
    fn contender(self) -> Contender {
        let aleph = |name, unit_delay_ms, payload_inside| {
            let peer = Peer::Aleph {
                unit_delay_ms,
                payload_inside,
            };
            Contender::Peer(name, peer)
        };
        match self {
            Self::Aleph5 => aleph("aleph-bft, 5 ms", 5, false),
            Self::Aleph20 => aleph("aleph-bft, 20 ms", 20, false),
            Self::Aleph5Inside => aleph("aleph-bft, 5 ms, inside", 5, true),
            Self::Aleph20Inside => aleph("aleph-bft, 20 ms, inside", 20, true),
            Self::Simplex5 => Contender::Peer("simplex, 5 ms", Peer::Simplex { pace_ms: 5 }),
            Self::Simplex0 => Contender::Peer("simplex, 0 ms", Peer::Simplex { pace_ms: 0 }),
        }
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if args.command.is_some() {
        return member::run();
    }
    let dagger = args.dagger.context("say where dagger is: --dagger FILE")?;
    let peers = if args.only.is_empty() {
        PeerName::value_variants()
    } else {
        &args.only
    };
    let options = Options {
        dagger: Contender::Dagger(dagger),
        peers: peers.iter().map(|peer| peer.contender()).collect(),
        rates: args.rates,
        search_from: (!args.no_search).then_some((args.search_from, args.dagger_from)),
        p99_max_ms: args.p99_max,
        rounds: args.rounds,
        load: Load {
            rate: 0,
            size: 512,
            n: 4,
            warmup: args.warmup,
            seconds: args.seconds,
        },
    };
    println!("{}", compare::run(&options)?);
    Ok(())
}
