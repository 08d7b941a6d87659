//! Versions of the network's rules: which one an epoch is under (docs/protocol.md 10.10).
//!
//! What must not live here: the vote that raises it (governance), and what a node does that does not know a version.

use super::Ledger;

/// The newest version of the rules that this program knows.
pub const NEWEST_PROTOCOL_VERSION: u32 = 1;

/// The version of the first epoch.
pub(super) const FIRST_VERSION: u32 = 1;

impl Ledger {
    /// Version of the rules of the present epoch; a program that does not know it must not go on.
    pub fn protocol_version(&self) -> u32 {
        self.protocol_version_in(self.epoch.number)
    }

    /// Version of the rules of an epoch: certain of those up to the present one, and of the next unless a vote raises it still.
    pub fn protocol_version_in(&self, epoch: u64) -> u32 {
        let (_, version) = self
            .protocol_versions
            .range(..=epoch)
            .next_back()
            .expect("epoch 0 has a version");
        *version
    }

    /// The newest version that operators have decided on, in force from the next epoch on at the latest.
    pub fn protocol_version_decided(&self) -> u32 {
        self.protocol_version_in(u64::MAX)
    }

    /// The present epoch keeps the version that it began with.
    pub(super) fn raise_protocol_version(&mut self, to: u32) {
        assert!(to > self.protocol_version_decided(), "checked");
        self.protocol_versions.insert(self.epoch.number + 1, to);
        self.dirty.parameters = true;
    }
}
