//! The way into a guest: the tunnel beside QEMU's own forward of a port, with the same servers in the same kind of guest.

use super::bare::{Bare, Shape, Template};
use super::cloud::{Cloud, not_understood};
use super::guest::{self, Login};
use super::{BENCH, median};
use crate::args::BenchVmArgs;
use crate::bench::figure::{Figure, Target};
use crate::context::now_ms;
use crate::failure::{Done, Failure};
use dagger_client::api::VmView;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Sends for ever.
const SOURCE: u16 = 9000;
/// Sends back what it gets.
const ECHO: u16 = 9001;
const SERVERS: &str = "nc -ll -p 9000 -e cat /dev/zero </dev/null >/dev/null 2>&1 & \
    nc -ll -p 9001 -e cat </dev/null >/dev/null 2>&1 & sleep 1";
/// Bytes flow for so long before they are counted, and while they are.
const WARM: Duration = Duration::from_millis(500);
const COUNTED: Duration = Duration::from_secs(3);
const ROUNDS: u16 = 3;
const ECHOES: u16 = 200;
const OPENINGS: u16 = 20;
const VM: &str = "tunnel";

/// What one way into a guest can do.
#[derive(Default)]
struct Seen {
    megabytes: Vec<f64>,
    echo_us: Vec<f64>,
    opening_us: Vec<f64>,
    /// CPU seconds for each GiB, of nodes and client.
    cpu: Vec<f64>,
}

/// A way into the guest.
#[derive(Clone, Copy)]
enum Way<'a> {
    /// QEMU's own forward.
    Direct(&'a Bare),
    /// The tunnel, through the node of this number.
    Tunnel(&'a VmView, usize),
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

pub async fn measure(cloud: &Cloud, template: &Template, args: &BenchVmArgs) -> Done<Vec<Figure>> {
    let mut bare = template.start(
        VM,
        &Shape {
            ports: vec![SOURCE, ECHO],
            ..Shape::default()
        },
    )?;
    bare.ready().await?;
    guest::run(&cloud.identity, &Login::Port(bare.ssh_port), SERVERS).await?;
    let mut commits = cloud.commits().await?;
    let digest = cloud.submit(VM).await?;
    cloud.executed(&digest).await?;
    let (vm, _) = cloud.running(VM, &mut commits).await?;
    guest::run(&cloud.identity, &cloud.login(VM)?, SERVERS).await?;
    let ways = [Way::Direct(&bare), Way::Tunnel(&vm, 1), Way::Tunnel(&vm, 0)];
    let mut seen = [Seen::default(), Seen::default(), Seen::default()];
    // In turn, so that whatever else this machine does meets all.
    for _ in 0..if args.quick { 1 } else { ROUNDS } {
        for (way, seen) in ways.iter().zip(&mut seen) {
            way.stream(cloud, seen).await?;
            way.echo(cloud, seen).await?;
            way.open_often(cloud, seen).await?;
        }
    }
    cloud.delete(&[VM.to_owned()]).await?;
    bare.end().await?;
    let [direct, tunnel, at_host] = &seen;
    Ok(figures(direct, tunnel, at_host))
}

impl Way<'_> {
    async fn connect(self, cloud: &Cloud, port: u16) -> Done<Box<dyn Duplex>> {
        match self {
            Way::Direct(bare) => {
                let port = bare.port(port)?;
                let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
                let stream = stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
                Ok(Box::new(stream.map_err(|error| {
                    Failure::file("QEMU's forwarded port", &error)
                })?))
            }
            Way::Tunnel(vm, node) => Ok(Box::new(cloud.open(vm, port, node).await?)),
        }
    }

    async fn stream(self, cloud: &Cloud, seen: &mut Seen) -> Done {
        let mut stream = self.connect(cloud, SOURCE).await?;
        drain(&mut stream, WARM).await?;
        let (cpu, since) = (cloud.cpu_ms()?, Instant::now());
        let bytes = drain(&mut stream, COUNTED).await?;
        seen.megabytes
            .push(bytes as f64 / 1e6 / since.elapsed().as_secs_f64());
        let spent = (cloud.cpu_ms()? - cpu) as f64 / 1000.0;
        seen.cpu.push(spent / (bytes as f64 / f64::from(1 << 30)));
        Ok(())
    }

    async fn echo(self, cloud: &Cloud, seen: &mut Seen) -> Done {
        let mut stream = self.connect(cloud, ECHO).await?;
        bounce(&mut stream).await?;
        for _ in 0..ECHOES {
            seen.echo_us.push(bounce(&mut stream).await?);
        }
        Ok(())
    }

    /// From nothing to the first byte back.
    async fn open_often(self, cloud: &Cloud, seen: &mut Seen) -> Done {
        for _ in 0..OPENINGS {
            let since = Instant::now();
            let mut stream = self.connect(cloud, ECHO).await?;
            bounce(&mut stream).await?;
            seen.opening_us.push(since.elapsed().as_secs_f64() * 1e6);
        }
        Ok(())
    }
}

/// Reads for a time; the bytes that came.
async fn drain(stream: &mut (impl AsyncRead + Unpin), time: Duration) -> Done<u64> {
    let mut buffer = vec![0; 256 * 1024];
    let until = now_ms() + time.as_millis() as u64;
    let mut bytes = 0;
    while now_ms() < until {
        match stream.read(&mut buffer).await {
            Ok(count @ 1..) => bytes += count as u64,
            _ => return Err(not_understood("the guest's stream ended")),
        }
    }
    Ok(bytes)
}

/// Sends a byte and waits for it; microseconds.
async fn bounce(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Done<f64> {
    let since = Instant::now();
    let mut byte = [7];
    let bounced = async {
        stream.write_all(&byte).await?;
        stream.flush().await?;
        stream.read_exact(&mut byte).await
    };
    bounced
        .await
        .map_err(|error| Failure::file("the guest's echo", &error))?;
    Ok(since.elapsed().as_secs_f64() * 1e6)
}

fn figures(direct: &Seen, tunnel: &Seen, at_host: &Seen) -> Vec<Figure> {
    let row = |name: String, values: &[f64], unit: &'static str| {
        Figure::new(BENCH, name, median(values), unit)
    };
    let mut figures = Vec::new();
    for (way, seen) in [
        ("direct", direct),
        ("tunnel", tunnel),
        ("tunnel_at_host", at_host),
    ] {
        figures.push(row(format!("{way}_throughput"), &seen.megabytes, "MB/s"));
        figures.push(row(format!("{way}_cpu_of_ours"), &seen.cpu, "CPU-s/GiB"));
        figures.push(row(format!("{way}_echo_p50"), &seen.echo_us, "us"));
        figures.push(row(format!("{way}_open_p50"), &seen.opening_us, "us"));
    }
    let ratio = median(&tunnel.megabytes) / median(&direct.megabytes);
    figures.push(
        Figure::new(BENCH, "tunnel_over_direct", ratio, "times").target(Some(Target::AtLeast(0.5))),
    );
    figures
}
