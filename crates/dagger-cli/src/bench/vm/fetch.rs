//! How fast a machine gets an image that it lacks: from one and from three sources that are held to a pace, and from one that is
//! not. Sources and machines are stores in this process, over the transport that nodes use; time runs until the image could be booted.

use super::cloud::not_understood;
use super::guest;
use super::{BENCH, median};
use crate::args::BenchVmArgs;
use crate::bench::figure::{Figure, Target};
use crate::failure::{Done, Failure};
use bytes::Bytes;
use dagger_node::images::{ImageError, ImagesLimits, LoneStore};
use std::io::Read as _;
use std::path::Path;
use std::time::Instant;

/// Size of the image: noise, of which nothing is left out or compressed.
const IMAGE_MIB: u64 = 512;
const IMAGE_MIB_QUICK: u64 = 128;
/// What a source may send.
const PACE_BYTES_PER_S: u64 = 100_000_000;
/// Fetches that medians are taken of; each is of hundreds of MiB.
const RUNS_MAX: u16 = 5;

/// An image and who has it.
struct Sources {
    stores: Vec<LoneStore>,
    digest: [u8; 32],
    bytes: u64,
}

pub async fn measure(root: &Path, args: &BenchVmArgs) -> Done<Vec<Figure>> {
    let mib = if args.quick {
        IMAGE_MIB_QUICK
    } else {
        IMAGE_MIB
    };
    let paced = Sources::open(&root.join("paced"), 3, mib, PACE_BYTES_PER_S).await?;
    let free = Sources::open(&root.join("free"), 1, mib, 0).await?;
    let (mut one, mut three, mut uncapped, mut cpu) = (vec![], vec![], vec![], vec![]);
    for _ in 0..args.runs.min(RUNS_MAX) {
        one.push(paced.fetch(root, 1).await?);
        three.push(paced.fetch(root, 3).await?);
        let before = guest::cpu_ms(std::process::id())?;
        uncapped.push(free.fetch(root, 1).await?);
        let spent = guest::cpu_ms(std::process::id())? - before;
        cpu.push(spent as f64 / 1000.0 * 1024.0 / mib as f64);
    }
    for sources in [paced, free] {
        for store in sources.stores {
            store.close().await;
        }
    }
    let (one, three, uncapped) = (median(&one), median(&three), median(&uncapped));
    let rate = |name: &str, seconds: f64| {
        Figure::new(BENCH, name, (mib << 20) as f64 / seconds / 1e6, "MB/s")
    };
    Ok(vec![
        Figure::new(BENCH, "fetch_image", mib as f64, "MiB"),
        rate("fetch_one_paced", one),
        rate("fetch_three_paced", three),
        Figure::new(BENCH, "fetch_three_over_one", one / three, "times")
            .target(Some(Target::AtLeast(2.5))),
        rate("fetch_unpaced", uncapped).target(Some(Target::AtLeast(250.0))),
        Figure::new(BENCH, "fetch_unpaced_cpu", median(&cpu), "CPU-s/GiB"),
    ])
}

impl Sources {
    async fn open(dir: &Path, count: usize, mib: u64, pace: u64) -> Done<Self> {
        let limits = ImagesLimits {
            serve_bytes_per_s: pace,
            ..ImagesLimits::default()
        };
        let (mut stores, mut digest, bytes) = (Vec::new(), [0; 32], mib << 20);
        for number in 0..count {
            let dir = dir.join(number.to_string());
            let store = LoneStore::open(&dir, limits.clone())
                .await
                .map_err(failed)?;
            let mut noise = blake3::Hasher::new().finalize_xof();
            let pieces = (0..mib).map(|_| {
                let mut piece = vec![0; 1 << 20];
                noise.read_exact(&mut piece)?;
                Ok(Bytes::from(piece))
            });
            let added = store
                .images()
                .add_stream(futures_util::stream::iter(pieces));
            digest = added.await.map_err(failed)?.0;
            stores.push(store);
        }
        Ok(Self {
            stores,
            digest,
            bytes,
        })
    }

    /// Seconds until a new store has the image, from so many of the sources.
    async fn fetch(&self, root: &Path, count: usize) -> Done<f64> {
        let dir = root.join("machine");
        let machine = LoneStore::open(&dir, ImagesLimits::default())
            .await
            .map_err(failed)?;
        let sources = self.stores.iter().take(count).map(LoneStore::address);
        let began = Instant::now();
        let fetched = machine
            .images()
            .ensure(self.digest, self.bytes, sources.collect())
            .await;
        let took = began.elapsed().as_secs_f64();
        fetched.map_err(failed)?;
        machine.close().await;
        std::fs::remove_dir_all(&dir).map_err(|error| Failure::file(dir.display(), &error))?;
        Ok(took)
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "used as a function in map_err"
)]
fn failed(error: ImageError) -> Failure {
    not_understood(&format!("an image store: {error}"))
}
