//! Many VMs started at once, beside as many bare QEMUs, and what all of them take of memory on our side.

use super::bare::{Bare, Shape, Template};
use super::cloud::Cloud;
use super::guest::{self, Memory};
use super::{BENCH, median};
use crate::args::BenchVmArgs;
use crate::bench::figure::{Figure, Target};
use crate::context::now_ms;
use crate::failure::Done;

/// What the VMs took of memory.
struct Weight {
    daemon_before: Memory,
    daemon: Memory,
    /// What a node grew by meanwhile that hosts nothing: events and commits are the same.
    without_vms: f64,
    shims: Vec<Memory>,
    shims_processes: usize,
}

pub async fn measure(cloud: &Cloud, template: &Template, args: &BenchVmArgs) -> Done<Vec<Figure>> {
    let names: Vec<String> = (0..args.many).map(|n| format!("many-{n}")).collect();
    let bare = alone(template, &names).await?;
    let (ours, listening, weight) = hosted(cloud, &names).await?;
    let many = f64::from(args.many);
    let grown = grown(&weight.daemon_before, &weight.daemon);
    let per_vm = (grown - weight.without_vms) / many;
    let shims = |value: fn(&Memory) -> u64| {
        median(
            &weight
                .shims
                .iter()
                .map(|shim| value(shim) as f64 / 1024.0)
                .collect::<Vec<_>>(),
        )
    };
    let mib = |name: &str, value: f64| Figure::new(BENCH, name, value, "MiB");
    Ok(vec![
        Figure::new(BENCH, "at_once", many, "VMs"),
        Figure::new(BENCH, "at_once_all_listening", listening, "s"),
        Figure::new(BENCH, "at_once_all_running", ours, "s"),
        Figure::new(BENCH, "bare_at_once_all_ssh", bare, "s"),
        Figure::new(BENCH, "at_once_over_bare", ours / bare, "times")
            .target(Some(Target::AtMost(1.1))),
        mib("daemon_private", weight.daemon.private as f64 / 1024.0),
        mib("daemon_private_grown", grown),
        mib("daemon_private_grown_without_vms", weight.without_vms),
        mib("daemon_private_per_vm", per_vm).target(Some(Target::AtMost(0.5))),
        mib("shim_resident_p50", shims(|m| m.rss)),
        mib("shim_pss_p50", shims(|m| m.pss)).target(Some(Target::AtMost(2.0))),
        mib("shim_private_p50", shims(|m| m.private)),
        Figure::new(
            BENCH,
            "shims_weighed",
            weight.shims_processes as f64,
            "processes",
        ),
    ])
}

/// By how many MiB of its own a process grew.
fn grown(before: &Memory, now: &Memory) -> f64 {
    (now.private as f64 - before.private as f64) / 1024.0
}

/// Seconds until the last one's ssh server greets.
async fn alone(template: &Template, names: &[String]) -> Done<f64> {
    let started = now_ms();
    let mut bare = names
        .iter()
        .map(|name| template.start(name, &Shape::default()))
        .collect::<Done<Vec<_>>>()?;
    let ready = futures_util::future::join_all(bare.iter_mut().map(Bare::ready)).await;
    let mut last = started;
    for ready in ready {
        last = last.max(ready?.1);
    }
    for bare in bare {
        bare.end().await?;
    }
    Ok((last - started) as f64 / 1000.0)
}

/// Seconds until the last one is on the ledger as running, and until the last one listened.
async fn hosted(cloud: &Cloud, names: &[String]) -> Done<(f64, f64, Weight)> {
    let daemon = cloud.daemon(0)?;
    let others = [1, 2, 3].map(|node| cloud.daemon(node));
    let others = others.into_iter().collect::<Done<Vec<_>>>()?;
    let all_others = || {
        others
            .iter()
            .map(|pid| guest::memory(*pid))
            .collect::<Done<Vec<_>>>()
    };
    let (daemon_before, others_before) = (guest::memory(daemon)?, all_others()?);
    let started = now_ms();
    let digests = futures_util::future::join_all(names.iter().map(|name| cloud.submit(name))).await;
    for digest in digests {
        cloud.executed(&digest?).await?;
    }
    let waits = names.iter().map(|name| async move {
        let instance = cloud.instance(&cloud.vm(name).await?);
        let mut commits = cloud.commits().await?;
        let (listening, running) =
            tokio::join!(instance.listening(), cloud.running(name, &mut commits));
        Done::Ok((instance, listening?, running?.1))
    });
    let (mut listening, mut running, mut shims) = (started, started, Vec::new());
    for vm in futures_util::future::join_all(waits).await {
        let (instance, listened, ran) = vm?;
        listening = listening.max(listened);
        running = running.max(ran);
        shims.push(guest::memory(instance.shim()?)?);
    }
    let weight = Weight {
        daemon_before,
        daemon: guest::memory(daemon)?,
        without_vms: median(
            &others_before
                .iter()
                .zip(&all_others()?)
                .map(|(before, now)| grown(before, now))
                .collect::<Vec<_>>(),
        ),
        shims_processes: shims.len(),
        shims,
    };
    cloud.delete(names).await?;
    let seconds = |at: u64| (at - started) as f64 / 1000.0;
    Ok((seconds(running), seconds(listening), weight))
}
