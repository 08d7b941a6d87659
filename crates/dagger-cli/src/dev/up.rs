//! `dagger dev up`.

use super::{
    Layout, MANIFEST, NodePlan, absolute, check_room_for_sockets, control, network, process,
};
use crate::args::DevUpArgs;
use crate::failure::{Done, Exit, Failure};
use crate::output;
use dagger_client::api::NodeState;
use dagger_client::http::Client;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// How long nodes may take until they commit, and machines until they are heard.
const READY_WITHIN: Duration = Duration::from_secs(90);

/// How often they are asked.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Lines of a node's log that are shown when it does not start.
const LOG_LINES_SHOWN: usize = 12;

/// Starts the network in a directory; makes it first if it is new. Interrupted, it leaves nothing behind
/// that was not there before.
pub async fn run(json: bool, args: DevUpArgs) -> Done {
    std::fs::create_dir_all(&args.data.data)
        .map_err(|error| Failure::file(args.data.data.display(), &error))?;
    let root = absolute(&args.data.data)?;
    check_room_for_sockets(&root)?;
    let new = !root.join(MANIFEST).exists();
    if new {
        check_empty(&root)?;
    }
    let mut terminated =
        signal(SignalKind::terminate()).map_err(|error| Failure::file("signals", &error))?;
    let mut interrupted =
        signal(SignalKind::interrupt()).map_err(|error| Failure::file("signals", &error))?;
    let mut hung_up =
        signal(SignalKind::hangup()).map_err(|error| Failure::file("signals", &error))?;
    let done = tokio::select! {
        done = start(json, &root, new, &args) => done,
        _ = interrupted.recv() => Err(stopped()),
        _ = terminated.recv() => Err(stopped()),
        _ = hung_up.recv() => Err(stopped()),
    };
    if done.is_err() {
        process::kill_all(&root).await?;
        if new {
            std::fs::remove_dir_all(&root)
                .map_err(|error| Failure::file(root.display(), &error))?;
        }
    }
    done
}

fn stopped() -> Failure {
    Failure::new(
        Exit::Failure,
        "E_INTERRUPTED",
        "interrupted; every process started here has been ended",
    )
}

fn check_empty(root: &Path) -> Done {
    let mut entries =
        std::fs::read_dir(root).map_err(|error| Failure::file(root.display(), &error))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Failure::usage(format!(
            "{} is not empty and holds no network",
            root.display()
        ))
        .hint("choose another directory with --data")),
    }
}

async fn start(json: bool, root: &Path, new: bool, args: &DevUpArgs) -> Done {
    let started = Instant::now();
    let say = |text: String| match json {
        true => Ok(()),
        false => output::line(&format!(
            "  {:>7.3}s  {text}",
            started.elapsed().as_secs_f64()
        )),
    };
    let layout = bring_up(root, new, args, say).await?;
    if json {
        return control::status(true, &layout).await;
    }
    output::line("")?;
    control::status(false, &layout).await?;
    how_to_use(&layout)
}

/// Makes the network if it is new, starts its nodes, and waits until every machine can be given VMs. Whoever calls this ends what it
/// started, also when it fails.
pub async fn bring_up(
    root: &Path,
    new: bool,
    args: &DevUpArgs,
    say: impl Fn(String) -> Done,
) -> Done<Layout> {
    let layout = if new {
        network::make(root, args)?
    } else {
        Layout::open(root)?
    };
    let nodes = &layout.manifest.nodes;
    if new {
        say(format!(
            "made a network of {} operators, chain id {}",
            nodes.len(),
            output::short(&layout.manifest.chain_id)
        ))?;
    }
    let mut children = Vec::new();
    for node in nodes {
        if process::node(&layout, node)?.is_none() {
            children.push((node.clone(), process::spawn(&layout, node)?));
        }
    }
    say(format!(
        "started {} of {} nodes",
        children.len(),
        nodes.len()
    ))?;
    wait_ready(&layout, nodes, &mut children).await?;
    say("all nodes commit".to_owned())?;
    network::register(&layout).await?;
    wait_heard(&layout).await?;
    say(format!(
        "{} machines are registered and heard by their rivals",
        nodes.len()
    ))?;
    Ok(layout)
}

/// Starts one node of the network and waits until it commits with the others.
pub async fn start_one(layout: &Layout, node: &NodePlan) -> Done {
    let child = process::spawn(layout, node)?;
    let mut children = vec![(node.clone(), child)];
    let done = wait_ready(layout, std::slice::from_ref(node), &mut children).await;
    if let (Err(_), Some((_, child))) = (&done, children.first_mut()) {
        // It is of no use and would only hold its directory.
        let _ = child.kill();
    }
    done
}

async fn wait_ready(
    layout: &Layout,
    nodes: &[NodePlan],
    children: &mut [(NodePlan, Child)],
) -> Done {
    let deadline = Instant::now() + READY_WITHIN;
    for node in nodes {
        let client = Client::new(&node.api_url())?;
        loop {
            let problem = match client.status().await {
                Ok(status) if status.state == NodeState::Ready && status.ledger.commit > 0 => break,
                Ok(status) => {
                    let problems: Vec<String> = status
                        .problems
                        .iter()
                        .map(|p| format!("{}: {}", p.code, p.text))
                        .collect();
                    format!(
                        "{:?} at commit {} {}",
                        status.state,
                        status.ledger.commit,
                        problems.join("; ")
                    )
                }
                Err(error) => error.text,
            };
            for (plan, child) in children.iter_mut() {
                let ended = child
                    .try_wait()
                    .map_err(|error| Failure::file("a node", &error))?;
                if let Some(status) = ended {
                    return Err(node_failed(layout, plan, &format!("ended ({status})")));
                }
            }
            if Instant::now() >= deadline {
                return Err(node_failed(
                    layout,
                    node,
                    &format!("is not ready in time: {problem}"),
                ));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

/// A node that did not start: the error that its log ends with, if it says one.
fn node_failed(layout: &Layout, node: &NodePlan, what: &str) -> Failure {
    let path = layout.log(&node.name);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let said = lines
        .iter()
        .rev()
        .find_map(|line| line.strip_prefix("error: "));
    let last = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
    let code = said.and_then(code_of).unwrap_or("E_NODE_FAILED");
    let why = said.map_or_else(
        || format!("\n{}", last.join("\n")),
        |said| format!(": {said}"),
    );
    Failure::new(
        Exit::Failure,
        code,
        format!("node {} {what}{why}", node.name),
    )
}

/// The code in brackets at the end of an error.
fn code_of(said: &str) -> Option<&str> {
    said.strip_suffix(']')?
        .rsplit_once('[')
        .map(|(_, code)| code)
}

/// Waits until every machine can be given VMs.
async fn wait_heard(layout: &Layout) -> Done {
    let client = Client::new(&layout.manifest.nodes[0].api_url())?;
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        let machines = client.machines().await?;
        // One operator has no rivals: nothing will ever hear its machine.
        let waiting: Vec<String> = machines
            .iter()
            .filter(|machine| machine.state != "ready")
            .map(|machine| format!("{} is {}", machine.name, machine.state))
            .collect();
        if waiting.is_empty() || layout.manifest.nodes.len() == 1 {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let text = format!("not every machine is ready: {}", waiting.join(", "));
            return Err(
                Failure::new(Exit::TimedOut, "E_TIMED_OUT", text).hint(format!(
                    "the logs are in {}",
                    layout.root.join("logs").display()
                )),
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn how_to_use(layout: &Layout) -> Done {
    let shown = |path: PathBuf| path.display().to_string();
    output::line(&format!(
        "\nto use it as the account `{}`:",
        network::ACCOUNT
    ))?;
    output::line(&format!(
        "  export DAGGER_CONFIG_DIR={}",
        shown(layout.client_dir())
    ))?;
    output::line("  dagger image add micro --kernel FILE --initrd FILE --cmdline TEXT")?;
    output::line(
        "  dagger vm create web --image micro --ssh-key ~/.ssh/id_ed25519.pub --failover recreate --wait",
    )?;
    output::line("to end it:")?;
    let data = layout.root.display();
    output::line(&format!(
        "  dagger dev down --data {data}     # keeps the data; `up` goes on from there"
    ))?;
    output::line(&format!(
        "  dagger dev clean --data {data}    # removes everything"
    ))
}
