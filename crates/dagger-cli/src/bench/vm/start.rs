//! One VM after the other, each beside a bare QEMU: how long every stage of a start takes.

use super::bare::{Shape, Template};
use super::cloud::Cloud;
use super::{BENCH, median};
use crate::args::BenchVmArgs;
use crate::bench::figure::{Figure, Target};
use crate::context::now_ms;
use crate::failure::Done;
use tokio::io::AsyncReadExt as _;

/// Moments of one start, ms since the create was handed in.
struct Start {
    committed: f64,
    executed: f64,
    qemu_started: f64,
    listening: f64,
    running: f64,
    ssh_ready: f64,
}

/// Moments of one bare start, ms since QEMU was started.
struct BareStart {
    listening: f64,
    ssh_ready: f64,
}

pub async fn measure(cloud: &Cloud, template: &Template, args: &BenchVmArgs) -> Done<Vec<Figure>> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    // In turn, so that whatever else this machine does meets both.
    for run in 0..args.runs {
        ours.push(hosted(cloud, &format!("one-{run}")).await?);
        bare.push(alone(template, &format!("one-{run}")).await?);
    }
    Ok(figures(&ours, &bare))
}

async fn hosted(cloud: &Cloud, name: &str) -> Done<Start> {
    let mut commits = cloud.commits().await?;
    let submitted = now_ms();
    let digest = cloud.submit(name).await?;
    let status = cloud.executed(&digest).await?;
    let instance = cloud.instance(&cloud.vm(name).await?);
    let (listening, running) =
        tokio::join!(instance.listening(), cloud.running(name, &mut commits));
    let (vm, running) = running?;
    let mut greeting = [0; 4];
    let heard = cloud
        .open(&vm, 22, 0)
        .await?
        .read_exact(&mut greeting)
        .await;
    let ssh_ready = now_ms();
    heard.map_err(|_| {
        super::cloud::not_understood("the tunnel closed before the guest's greeting")
    })?;
    let since = |at: u64| at as f64 - submitted as f64;
    let start = Start {
        committed: since(status.commit.map_or(0, |commit| commit.at_ms)),
        executed: since(status.outcome.map_or(0, |outcome| outcome.at_ms)),
        qemu_started: since(instance.qemu_started_ms()?),
        listening: since(listening?),
        running: since(running),
        ssh_ready: since(ssh_ready),
    };
    cloud.delete(&[name.to_owned()]).await?;
    Ok(start)
}

async fn alone(template: &Template, name: &str) -> Done<BareStart> {
    let mut bare = template.start(name, &Shape::default())?;
    let (listening, ready) = bare.ready().await?;
    let since = |at: u64| at as f64 - bare.started_ms as f64;
    let start = BareStart {
        listening: since(listening),
        ssh_ready: since(ready),
    };
    bare.end().await?;
    Ok(start)
}

fn figures(ours: &[Start], bare: &[BareStart]) -> Vec<Figure> {
    let of = |value: fn(&Start) -> f64| median(&ours.iter().map(value).collect::<Vec<_>>());
    let of_bare =
        |value: fn(&BareStart) -> f64| median(&bare.iter().map(value).collect::<Vec<_>>());
    let ready = of(|s| s.ssh_ready);
    let bare_ready = of_bare(|s| s.ssh_ready);
    let ms = |name: &str, value: f64| Figure::new(BENCH, name, value, "ms");
    vec![
        Figure::new(BENCH, "starts", ours.len() as f64, "runs"),
        ms("submit_to_committed_p50", of(|s| s.committed)),
        ms("submit_to_executed_p50", of(|s| s.executed)),
        ms("submit_to_qemu_p50", of(|s| s.qemu_started)).target(Some(Target::AtMost(150.0))),
        ms(
            "qemu_to_listening_p50",
            of(|s| s.listening - s.qemu_started),
        ),
        ms("listening_to_running_p50", of(|s| s.running - s.listening))
            .target(Some(Target::AtMost(100.0))),
        ms("running_to_ssh_p50", of(|s| s.ssh_ready - s.running)),
        ms("create_to_ssh_p50", ready),
        ms("bare_qemu_to_listening_p50", of_bare(|s| s.listening)),
        ms("bare_qemu_to_ssh_p50", bare_ready),
        ms("create_to_ssh_over_bare", ready - bare_ready).target(Some(Target::AtMost(400.0))),
    ]
}
