//! Damage in the event log, healed from peers: events of others that can no longer be read are asked for by name and
//! written anew. Own events are not: who does not know for certain what it has signed must not sign again.
//!
//! Before a start the log of the epoch that is read back is healed, and the node takes part only afterwards. The log of an
//! epoch that has ended is healed when a peer is refused something for its damage.

mod healing;

#[cfg(test)]
mod healing_tests;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use shadowgraph::Epoch;

pub(crate) use healing::{Healed, Healing};

use crate::{
    catchup::{self, Answer, EVENTS_MAX, Peer as _, Request},
    cores::{Ground, blocking},
    error::NodeError,
};

/// How long until peers are asked again for what none of them had.
pub(crate) const RETRY: Duration = Duration::from_secs(2);

/// One healing, as `doctor` tells it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    /// Epoch of the log.
    pub epoch: u64,
    /// What was done.
    pub healed: Healed,
}

/// Looks at what is left of an epoch's log.
///
/// # Errors
/// As [`Healing::examine`].
pub(crate) async fn examine(ground: &Ground, epoch: Epoch) -> Result<Healing, NodeError> {
    let ground = ground.clone();
    blocking("looking at a damaged log", move || {
        let genesis = &ground.origin.genesis;
        let before = match epoch.0.checked_sub(1) {
            Some(before) => ground.epochs.end(Epoch(before))?,
            None => None,
        };
        let committee = before.map_or_else(|| genesis.committee.clone(), |end| end.next);
        // Nothing is signed any more in an epoch that has ended.
        let own = match ground.epochs.end(epoch)? {
            Some(_) => None,
            None => ground.origin.keys.seat(&committee),
        };
        let dir = ground.epochs.path(epoch);
        Healing::examine(&dir, genesis.chain_id, committee, own)
    })
    .await
}

/// Heals an epoch's log, which nobody writes meanwhile. False if no peer that answers has all that is needed.
///
/// # Errors
/// `E_OWN_EVENT_DAMAGED`, `E_DISK_FULL`, `E_IO`.
pub(crate) async fn heal(ground: &Ground, epoch: Epoch) -> Result<bool, NodeError> {
    let mut healing = examine(ground, epoch).await?;
    if healing.is_sound() {
        return Ok(true);
    }
    let membership = ground.shared.membership();
    let mut answered = membership.own_weight();
    for source in catchup::connect(ground).await {
        let mut asked = BTreeSet::new();
        let whole = loop {
            let wanted = healing.wanted(&asked, EVENTS_MAX);
            if wanted.is_empty() {
                break true;
            }
            asked.extend(wanted.iter().copied());
            let request = Request::Events {
                epoch: epoch.0,
                wanted,
            };
            match source.ask(&request).await {
                Ok(Answer::Events(events)) => {
                    let events = events.into_iter().map(Into::into).collect();
                    let taken = healing.take(events);
                    tracing::debug!(peer = %source.name, taken, "a peer gave events that this node's log has lost");
                }
                _ => break false,
            }
        };
        if whole && let Some(seat) = source.seat {
            answered += membership.committee.weight(seat);
        }
    }
    // What nobody admits to hold may be what only the silent hold.
    let all_asked = answered >= membership.committee.quorum_weight();
    let open = healing.wanted(&BTreeSet::new(), usize::MAX).len();
    if healing.lacks() > 0 || (open > 0 && !all_asked) {
        tracing::warn!(code = "E_STORE_DAMAGED", %epoch, open, "no peer gives all the events that this node's log has lost; asking on");
        return Ok(false);
    }
    let epochs = ground.epochs.clone();
    let healed = blocking("healing a log", move || {
        let _changing = epochs.changing();
        let healed = healing.finish();
        epochs.forget(epoch);
        healed
    })
    .await?;
    let Healed {
        events,
        dropped,
        segments,
    } = healed;
    tracing::warn!(%epoch, events, dropped, segments, "healed the event log from peers; look at the disk, it loses what it was given");
    ground.shared.metrics.healed_events.inc_by(events as u64);
    let mut reports = ground.shared.healed.lock().expect("no holder panics");
    reports.push(Report {
        epoch: epoch.0,
        healed,
    });
    Ok(true)
}

/// Heals the logs of ended epochs in which damage was found when a peer asked for something, for as long as the node runs.
pub(crate) async fn watch(ground: Ground) {
    let shared = Arc::clone(&ground.shared);
    loop {
        shared.damaged.found().await;
        let Some(epoch) = shared.damaged.next() else {
            continue;
        };
        let ended = ground.epochs.end(epoch).is_ok_and(|end| end.is_some());
        if !ended || epoch == shared.membership().committee.epoch() {
            let text = format!(
                "the event log of epoch {epoch}, which is being written, is damaged: start the node again, and it is healed from peers"
            );
            shared.set_problem("E_STORE_DAMAGED", Some(text));
            continue;
        }
        match heal(&ground, epoch).await {
            Ok(true) => shared.set_problem("E_STORE_DAMAGED", None),
            Ok(false) => {
                let text = format!(
                    "the event log of epoch {epoch} is damaged, and no peer that is connected gives all that it has lost; asking on"
                );
                shared.set_problem("E_STORE_DAMAGED", Some(text));
                tokio::time::sleep(RETRY).await;
                shared.damaged.report(epoch);
            }
            Err(error) => {
                tracing::error!(code = error.code(), %error, %epoch, "cannot heal the log");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Epochs in whose logs damage was found while the node runs.
#[derive(Default)]
pub(crate) struct Damaged {
    epochs: std::sync::Mutex<BTreeSet<Epoch>>,
    found: tokio::sync::Notify,
}

impl Damaged {
    /// Damage was found.
    pub fn report(&self, epoch: Epoch) {
        self.epochs.lock().expect("no holder panics").insert(epoch);
        self.found.notify_one();
    }

    async fn found(&self) {
        self.found.notified().await;
    }

    fn next(&self) -> Option<Epoch> {
        let mut epochs = self.epochs.lock().expect("no holder panics");
        let next = epochs.pop_first();
        if !epochs.is_empty() {
            self.found.notify_one();
        }
        next
    }
}
