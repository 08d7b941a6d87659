//! `dagger node peers` and `dagger node doctor`.

use crate::context::Context;
use crate::failure::{Done, Exit, Failure};
use crate::output::{self, Listing};
use dagger_client::api::{CheckView, NodeStatus, PeerView, Verdict};
use dagger_node::config::NodeConfig;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;

/// The nodes that a node knows.
pub async fn peers(context: &Context) -> Done {
    let status = context.connect().await?.status;
    if context.json() {
        return output::json(&status.peers);
    }
    let mut listing = Listing::new(
        &[
            "PEER",
            "CONNECTED",
            ">RTT",
            ">ROUND",
            ">BEHIND",
            ">CLOCK",
            ">DROPPED",
            "ADDRESS",
        ],
        "no peers",
    );
    for peer in &status.peers {
        listing.row(row(&status, peer));
    }
    listing.print()
}

fn row(status: &NodeStatus, peer: &PeerView) -> [String; 8] {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let rounds = status.consensus.members.iter().map(|member| member.round);
    let highest = rounds.max().unwrap_or(0);
    [
        peer.name.clone(),
        if peer.connected { "yes" } else { "no" }.to_owned(),
        or_none(peer.rtt_ms.map(|rtt| format!("{rtt}ms"))),
        or_none(peer.round.map(|round| round.to_string())),
        or_none(
            peer.round
                .map(|round| highest.saturating_sub(round).to_string()),
        ),
        or_none(peer.clock_ahead_ms.map(|ahead| format!("{ahead:+}ms"))),
        peer.dropped_frames.to_string(),
        or_none(peer.address.clone()),
    ]
}

/// Has a node look at itself; looks at its data directory instead if it does not answer.
pub async fn run(context: &Context, data: Option<&Path>) -> Done {
    let checks = match (context.connect().await, data) {
        (Ok(connection), _) => connection.client.checks().await?,
        (Err(failure), Some(data)) if failure.exit == Exit::Unreachable => absent(&failure, data),
        (Err(failure), _) => return Err(failure),
    };
    if context.json() {
        output::json(&checks)?;
    } else {
        let mut listing = Listing::new(&["CHECK", "IS", "WHAT"], "nothing to look at");
        for check in &checks {
            listing.row([
                check.name.clone(),
                word(check.verdict).to_owned(),
                check.text.clone(),
            ]);
        }
        listing.print()?;
    }
    let wrong = checks
        .iter()
        .filter(|check| check.verdict == Verdict::Fail)
        .count();
    if wrong == 0 {
        return Ok(());
    }
    let text = format!("{wrong} of {} checks failed", checks.len());
    Err(Failure::new(Exit::Failure, "E_UNHEALTHY", text).hint("do what the lines say"))
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Warn => "warn",
        Verdict::Fail => "FAIL",
    }
}

/// What can be said of a node that does not answer.
fn absent(failure: &Failure, data: &Path) -> Vec<CheckView> {
    let check = |name: &str, verdict, text: String| CheckView {
        name: name.to_owned(),
        verdict,
        text,
    };
    let start = format!("dagger node run --data {}", data.display());
    let mut checks = vec![check(
        "node",
        Verdict::Fail,
        format!("{}; if it does not run, start it: {start}", failure.text),
    )];
    let config = match NodeConfig::load(data) {
        Ok(config) => config,
        Err(error) => {
            checks.push(check("settings", Verdict::Fail, error.to_string()));
            return checks;
        }
    };
    checks.push(check(
        "settings",
        Verdict::Ok,
        data.join("node.toml").display().to_string(),
    ));
    let udp = UdpSocket::bind(config.listen).map(drop);
    let tcp = config
        .api
        .map(|api| (api, TcpListener::bind(api).map(drop)));
    let ports = [("UDP", Some((config.listen, udp))), ("TCP", tcp)];
    for (kind, (address, bound)) in ports.into_iter().filter_map(|(k, port)| Some((k, port?))) {
        checks.push(match bound {
            Ok(()) => check("ports", Verdict::Ok, format!("{kind} {address} is free")),
            Err(error) => check(
                "ports",
                Verdict::Fail,
                format!("{kind} {address} cannot be bound: {error}; another process, maybe a hung node, has it"),
            ),
        });
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_does_not_answer_is_looked_at_from_outside() {
        let dir = tempfile::tempdir().expect("a directory");
        let failure = Failure::new(Exit::Unreachable, "E_UNREACHABLE", "nobody answers");
        let checks = absent(&failure, dir.path());
        assert!(checks.iter().all(|check| check.verdict == Verdict::Fail));
        assert!(checks[1].text.contains("node.toml"), "{}", checks[1].text);

        let taken = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let mut config = NodeConfig::new(dir.path());
        config.listen = taken.local_addr().expect("an address");
        config.api = Some("127.0.0.1:0".parse().expect("an address"));
        config.save().expect("saved");
        let checks = absent(&failure, dir.path());
        let verdicts: Vec<_> = checks.iter().map(|check| check.verdict).collect();
        let expected = [Verdict::Fail, Verdict::Ok, Verdict::Fail, Verdict::Ok];
        assert_eq!(verdicts, expected, "{checks:#?}");
        assert!(checks[2].text.contains("cannot be bound"));
    }
}
