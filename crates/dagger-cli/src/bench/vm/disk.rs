//! What QEMU's options for a disk cost and give, by what a guest measures: writes that are synced one by one, a stream that is
//! synced at its end, and reading it back.

use super::BENCH;
use super::bare::{Shape, Template};
use super::cloud::{Cloud, not_understood};
use super::guest::{self, Login};
use crate::args::BenchVmArgs;
use crate::bench::figure::Figure;
use crate::failure::Done;
use serde_json::Value;

const DISK_MIB: u64 = 512;
/// Prints hundredths of a second: of synced writes, of the stream, of reading.
const SCRIPT: &str = "\
    t() { read u x </proc/uptime; echo ${u%.*}${u#*.}; }; \
    umount /data 2>/dev/null; mke2fs -m 0 -i 65536 -F /dev/vda >/dev/null 2>&1; \
    mount -t ext4 -o sync /dev/vda /data || exit 1; \
    a=$(t); dd if=/dev/zero of=/data/f bs=4k count=WRITES 2>/dev/null; b=$(t); umount /data; \
    c=$(t); dd if=/dev/zero of=/dev/vda bs=1M count=STREAM conv=fsync 2>/dev/null; d=$(t); \
    e=$(t); dd if=/dev/vda of=/dev/null bs=1M count=STREAM iflag=direct 2>/dev/null; f=$(t); \
    echo $((b-a)) $((d-c)) $((f-e))";

/// What is changed of the disk that hosts give to guests.
type Change = fn(&mut Value);

/// Names, and what they change.
const VARIANTS: [(&str, Change); 6] = [
    ("as_hosted", |_| {}),
    ("io_uring", |disk| disk["file"]["aio"] = "io_uring".into()),
    ("direct_threads", direct),
    ("direct_native", |disk| {
        direct(disk);
        disk["file"]["aio"] = "native".into();
    }),
    ("direct_io_uring", |disk| {
        direct(disk);
        disk["file"]["aio"] = "io_uring".into();
    }),
    ("raw", |disk| disk["driver"] = "raw".into()),
];

/// Past the host's page cache.
fn direct(disk: &mut Value) {
    disk["file"]["cache"] = serde_json::json!({ "direct": true });
}

pub async fn measure(cloud: &Cloud, template: &Template, args: &BenchVmArgs) -> Done<Vec<Figure>> {
    let (writes, stream) = if args.quick { (100, 64) } else { (400, 256) };
    let script = SCRIPT
        .replace("WRITES", &writes.to_string())
        .replace("STREAM", &stream.to_string());
    let mut figures = Vec::new();
    for (name, change) in VARIANTS {
        let shape = Shape {
            disk_mib: Some(DISK_MIB),
            disk: Some(change),
            ..Shape::default()
        };
        let mut bare = template.start(&format!("disk-{name}"), &shape)?;
        bare.ready().await?;
        let said = guest::run(&cloud.identity, &Login::Port(bare.ssh_port), &script).await?;
        bare.end().await?;
        let took: Vec<f64> = said
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let [synced, streamed, read] = took[..] else {
            return Err(not_understood(&format!(
                "the guest said {said:?} of its disk"
            )));
        };
        // A clock of hundredths: what took none took less than one.
        let rate = |amount: f64, hundredths: f64| amount / (hundredths.max(1.0) / 100.0);
        figures.extend([
            Figure::new(
                BENCH,
                format!("disk_{name}_synced_writes"),
                rate(f64::from(writes), synced),
                "1/s",
            ),
            Figure::new(
                BENCH,
                format!("disk_{name}_stream_write"),
                rate(f64::from(stream) * 1.048_576, streamed),
                "MB/s",
            ),
            Figure::new(
                BENCH,
                format!("disk_{name}_stream_read"),
                rate(f64::from(stream) * 1.048_576, read),
                "MB/s",
            ),
        ]);
    }
    Ok(figures)
}
