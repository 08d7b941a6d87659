//! What a node says of itself: for `status`, and for Prometheus.

use std::{fmt::Write as _, sync::atomic::Ordering};

use dagger_client::api::{
    CheckpointView, ConsensusStatus, GuestsView, LedgerStatus, MemberView, NodeState, NodeStatus,
    PeerView, Reason,
};
use dagger_ledger::Key;
use shadowgraph::{MemberIndex, ReplicaStatus};

use crate::handle::Shared;

pub(crate) fn node_status(shared: &Shared) -> NodeStatus {
    let replica = shared.replica.status();
    let key = Key(shared.node_key.verification_key().into());
    let (ledger, machine) = {
        let ledger = shared.ledger.read().expect("no holder panics");
        let status = LedgerStatus {
            commit: ledger.commit_index().unwrap_or(0),
            time_ms: ledger.time_ms(),
            transactions: shared.executed_transactions.load(Ordering::Relaxed),
        };
        (
            status,
            ledger.machine_by_node_key(&key).map(|m| m.name.clone()),
        )
    };
    let problems: Vec<Reason> = {
        let problems = shared.problems.lock().expect("no holder panics");
        problems
            .iter()
            .map(|(code, text)| Reason {
                code: (*code).to_owned(),
                text: text.clone(),
            })
            .collect()
    };
    NodeStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        network: shared.genesis.network.clone(),
        chain_id: shared.genesis.chain_id.to_hex(),
        name: shared.name.clone(),
        node_key: key.to_hex(),
        state: state(shared, &replica),
        now_ms: shared.clock.now_ms(),
        started_at_ms: shared.started_at_ms,
        seat: shared.seat().map(|s| s.0),
        machine,
        guests: shared.ways.host().map(guests),
        consensus: consensus(shared, &replica),
        ledger,
        outcomes: shared.outcomes.status(),
        checkpoint: checkpoint(shared),
        peers: peers(shared, &replica),
        problems,
    }
}

fn guests(host: &dagger_vmm::Host) -> GuestsView {
    match host.guest_bounds() {
        Ok((bounds, text)) => GuestsView {
            bounds: bounds.iter().map(ToString::to_string).collect(),
            text,
        },
        Err(text) => GuestsView {
            bounds: Vec::new(),
            text,
        },
    }
}

fn state(shared: &Shared, replica: &ReplicaStatus) -> NodeState {
    if replica.halted {
        return NodeState::Halted;
    }
    let connected = shared.links.connected_members();
    let membership = shared.membership();
    let committee = &membership.committee;
    let others = connected.iter().filter_map(|m| committee.member(*m));
    let weight = membership.own_weight() + others.map(|m| m.weight).sum::<u64>();
    let must_sign = membership.seat.is_some();
    if weight < committee.quorum_weight() || (must_sign && !replica.signing) {
        NodeState::Starting
    } else if replica.catching_up {
        NodeState::CatchingUp
    } else {
        NodeState::Ready
    }
}

fn consensus(shared: &Shared, replica: &ReplicaStatus) -> ConsensusStatus {
    let member = |(index, member): (MemberIndex, &shadowgraph::Member)| MemberView {
        index: index.0,
        name: shared.seat_name(index),
        weight: member.weight,
        round: replica.highest_rounds.get(index.index()).map_or(0, |r| r.0),
    };
    let membership = shared.membership();
    let committee = &membership.committee;
    ConsensusStatus {
        epoch: committee.epoch().0,
        round: replica.round.0,
        commit: replica.last_commit.0,
        quorum_weight: committee.quorum_weight(),
        total_weight: committee.total_weight(),
        awake: replica.awake,
        leader_timeout_ms: replica.leader_timeout_ms,
        pool_bytes: replica.pool_bytes as u64,
        pending_events: replica.pending_events as u64,
        members: committee.members().map(member).collect(),
    }
}

fn checkpoint(shared: &Shared) -> Option<CheckpointView> {
    let last = shared
        .checkpoint
        .lock()
        .expect("no holder panics")
        .clone()?;
    let membership = shared.membership();
    let weight_of = |seat: &MemberIndex| {
        let member = membership.committee.member(*seat);
        member.map_or(0, |m| m.weight)
    };
    let signed_weight = last
        .certificate
        .as_ref()
        .map_or(0, |c| c.signatures.iter().map(|(m, _)| weight_of(m)).sum());
    Some(CheckpointView {
        commit: last.checkpoint.commit.0,
        commit_digest: last.checkpoint.commit_digest.to_string(),
        state_root: last.checkpoint.state_root.to_string(),
        outcomes_root: last.checkpoint.outcomes_root.to_string(),
        time_ms: last.checkpoint.time_ms,
        certified: last.certificate.is_some(),
        signed_weight,
    })
}

fn peers(shared: &Shared, replica: &ReplicaStatus) -> Vec<PeerView> {
    let view = |link: crate::transport::LinkView| PeerView {
        name: link.name,
        node_key: link.key.to_hex(),
        connected: link.connected,
        rtt_ms: link
            .rtt
            .map(|rtt| u64::try_from(rtt.as_millis()).unwrap_or(u64::MAX)),
        address: link.address.map(|a| a.to_string()),
        round: link
            .seat
            .and_then(|seat| Some(replica.highest_rounds.get(seat.index())?.0)),
        clock_ahead_ms: link
            .seat
            .and_then(|seat| *replica.clock_offsets_ms.get(seat.index())?),
        dropped_frames: link.dropped_frames,
    };
    shared.links.views().into_iter().map(view).collect()
}

/// The registry's metrics, and readings taken now.
pub(crate) fn metrics_text(shared: &Shared) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode_registry(&mut text, &shared.metrics.registry)
        .expect("writing to a string does not fail");
    let replica = shared.replica.status();
    let (vms, machines) = {
        let ledger = shared.ledger.read().expect("no holder panics");
        (ledger.vms().count(), ledger.machines().count())
    };
    let mut gauge = |name: &str, help: &str, value: u64| {
        let _ = writeln!(
            text,
            "# HELP dagger_{name} {help}.\n# TYPE dagger_{name} gauge\ndagger_{name} {value}"
        );
    };
    gauge("round", "Round of the last own event", replica.round.0);
    gauge(
        "commit",
        "Index of the last commit decided",
        replica.last_commit.0,
    );
    gauge(
        "graph_events",
        "Events in memory",
        replica.graph_events as u64,
    );
    gauge(
        "pending_events",
        "Events that wait for ancestors",
        replica.pending_events as u64,
    );
    gauge(
        "pool_transactions",
        "Transactions that wait to be proposed",
        replica.pool_transactions as u64,
    );
    gauge(
        "pool_bytes",
        "Bytes of transactions that wait to be proposed",
        replica.pool_bytes as u64,
    );
    gauge(
        "leader_timeout_milliseconds",
        "How long the leaders of a round are waited for",
        replica.leader_timeout_ms,
    );
    gauge(
        "awake",
        "Whether there is something to order",
        u64::from(replica.awake),
    );
    gauge(
        "catching_up",
        "Whether the node is behind and fetching",
        u64::from(replica.catching_up),
    );
    gauge(
        "replica_inputs_waiting",
        "Inputs that wait for the replica",
        shared.replica.waiting() as u64,
    );
    gauge("vms", "VMs on the ledger", vms as u64);
    gauge("machines", "Machines on the ledger", machines as u64);
    if let Some(outcomes) = shared.outcomes.status() {
        gauge(
            "outcomes_transactions",
            "Transactions in the index of outcomes",
            outcomes.transactions,
        );
        gauge(
            "outcomes_from_commit",
            "First commit from which on the index holds all outcomes",
            outcomes.from_commit,
        );
        gauge(
            "outcomes_bytes",
            "Bytes of the index of outcomes on disk",
            outcomes.disk_bytes,
        );
    }
    let links = shared.links.views();
    let mut per_peer =
        |name: &str, kind: &str, help: &str, value: &dyn Fn(&crate::transport::LinkView) -> f64| {
            let _ = writeln!(
                text,
                "# HELP dagger_peer_{name} {help}.\n# TYPE dagger_peer_{name} {kind}"
            );
            for link in &links {
                let _ = writeln!(
                    text,
                    "dagger_peer_{name}{{peer=\"{}\"}} {}",
                    link.name,
                    value(link)
                );
            }
        };
    per_peer(
        "connected",
        "gauge",
        "Whether there is a connection",
        &|l| f64::from(u8::from(l.connected)),
    );
    per_peer("rtt_seconds", "gauge", "Round trip", &|l| {
        l.rtt.map_or(0.0, |r| r.as_secs_f64())
    });
    per_peer(
        "dropped_frames_total",
        "counter",
        "Frames dropped because the peer is too slow",
        &|l| l.dropped_frames as f64,
    );
    per_peer(
        "received_frames_total",
        "counter",
        "Frames received",
        &|l| l.received_frames as f64,
    );
    per_peer("sent_bytes_total", "counter", "Bytes sent", &|l| {
        l.sent_bytes as f64
    });
    text.replace("# EOF\n", "") + "# EOF\n"
}
