//! How a node starts: from the logs on its disk, or from a peer's snapshot.

use std::sync::Arc;

use shadowgraph::{Config, Epoch, EpochEnd, Output, Recovery};

use super::shelves::Shelves;
use super::{Effect, Identity, Node, Records, append_end};
use crate::disk::Disk;
use crate::toy_ledger::{Executed, ToyLedger};

impl Node {
    /// The process starts, with whatever the disk has.
    pub fn start(&mut self, now_us: u64) -> Vec<Effect> {
        assert!(!self.is_up(), "a node is started once");
        self.incarnation += 1;
        self.knows = self.installed;
        let Ok(records) = self.disk.recover() else {
            return vec![Effect::Refused];
        };
        let records = Records::read(records.iter());
        let first = self.first_epoch(&records);
        let Records { events, ends } = records;
        self.shelves = Shelves::default();
        self.ends = ends;
        self.first = first;
        let before = self.ends.iter().find(|end| end.next.epoch() == first);
        let epochs = Arc::clone(&self.identity.epochs);
        self.ledger = match before {
            Some(end) => ToyLedger::after(epochs, end, self.installed),
            None => ToyLedger::new(epochs, self.installed),
        };
        self.committed = 0;
        self.busy_until_us = now_us;
        let now_ms = self.now_ms(now_us);
        let mut recovery = self.recovery(first, now_ms);
        let mut effects = Vec::new();
        let ends = self.ends.clone();
        let mut events = events
            .into_iter()
            .filter(|event| event.epoch() >= first)
            .peekable();
        loop {
            let epoch = recovery.committee().epoch();
            while let Some(event) = events.next_if(|event| event.epoch() == epoch) {
                self.shelves.put(&event);
                recovery.replay(event);
                self.recover_outputs(&mut recovery, &mut effects);
            }
            if let Some(end) = ends.iter().find(|end| end.epoch() == epoch) {
                recovery.ended(end.clone());
                self.recover_outputs(&mut recovery, &mut effects);
            }
            if recovery.committee().epoch() == epoch {
                break;
            }
        }
        assert!(events.next().is_none(), "all of the log is read back");
        if let Some(version) = self.unknown_version(recovery.committee().epoch()) {
            effects.push(Effect::Outdated(version));
            return effects;
        }
        self.replica = Some(recovery.finish(now_ms));
        effects.extend(self.pump());
        effects
    }

    fn recovery(&self, first: Epoch, now_ms: u64) -> Recovery {
        let Identity {
            node,
            chain_id,
            parameters,
            epochs,
            ..
        } = &self.identity;
        let (me, signer) = epochs.seat(first, *node).unzip();
        let config = Config {
            chain_id: *chain_id,
            committee: epochs.committee(first).expect("a planned epoch").clone(),
            me,
            start: self.start_of(first),
            parameters: parameters.clone(),
        };
        let mut recovery = Recovery::new(config, signer, now_ms);
        for key in epochs.keys(*node).iter().rev() {
            recovery.hold_key(key.clone());
        }
        recovery
    }

    fn recover_outputs(&mut self, recovery: &mut Recovery, effects: &mut Vec<Effect>) {
        while let Some(output) = recovery.poll_output() {
            match output {
                Output::Commit(commit) => {
                    let Some(executed) = self.execute(commit, effects) else {
                        continue;
                    };
                    let Executed {
                        commit,
                        outcomes_root,
                        state_root,
                        next,
                    } = executed;
                    recovery.executed(commit, outcomes_root, state_root, next);
                }
                Output::Certificate(certificate) => effects.push(Effect::Certificate(certificate)),
                Output::EpochEnded(end) => self.keep_end(end, effects),
                Output::Halt(reason) => effects.push(Effect::Halt(reason)),
                other => effects.push(Effect::Broken(format!("{other:?} while reading the log"))),
            }
        }
    }

    /// A peer's snapshot: the ends up to the start of an epoch, where the node begins anew with an empty log. The chain is
    /// checked from the genesis on.
    ///
    /// # Errors
    /// The first end that does not prove its successor.
    pub fn adopt(&mut self, ends: &[EpochEnd]) -> Result<(), String> {
        let mut committee = self.identity.epochs.committees()[0].clone();
        for end in ends {
            end.verify(&self.identity.chain_id, &committee)
                .map_err(|error| error.to_string())?;
            committee = end.next.clone();
        }
        assert!(!self.is_up(), "a disk is replaced while the node is down");
        self.disk = Disk::new();
        for end in ends {
            append_end(&mut self.disk, end);
        }
        self.disk.synced_to(self.disk.written());
        self.ends = ends.to_vec();
        Ok(())
    }
}
