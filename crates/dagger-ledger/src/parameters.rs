//! What the ledger's rules read and operators may change by a vote: the parameters, their defaults and bounds, and a change of some of
//! them. Consensus has its own.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::genesis::OPERATORS_MAX;

macro_rules! parameters {
    (
        $(#[doc = $about:literal])*
        {
            $($(#[doc = $doc:literal])* $name:ident: $kind:ty = $default:expr,)*
        }
    ) => {
        $(#[doc = $about])*
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Parameters {
            $($(#[doc = $doc])* pub $name: $kind,)*
        }

        impl Default for Parameters {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        /// A change of some of the [`Parameters`]; those that are not named stay as they are.
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct ParametersChange {
            $(
                $(#[doc = $doc])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $name: Option<$kind>,
            )*
        }

        impl ParametersChange {
            /// The parameters as they are after the change.
            pub fn applied_to(&self, parameters: &Parameters) -> Parameters {
                Parameters { $($name: self.$name.unwrap_or(parameters.$name),)* }
            }
        }
    };
}

parameters! {
    /// What the ledger's rules read. Times in ms; all of them run on the ledger's active time, which stands still while nothing commits.
    {
        /// How long a machine may run its VMs after the last proven sign of life.
        lease_ms: u64 = 30_000,
        /// How much longer the ledger waits before it gives those VMs to another machine.
        margin_ms: u64 = 10_000,
        /// How often a machine's node sends a heartbeat to each member.
        heartbeat_ms: u64 = 1_500,
        /// How long a member waits for a heartbeat before it attests that a machine is lost.
        hear_timeout_ms: u64 = 4_500,
        /// A machine must accept a placement within this time, or the next candidate gets it.
        accept_ms: u64 = 10_000,
        /// A machine must have an accepted VM running within this time.
        start_ms: u64 = 600_000,
        /// A machine must report a VM stopped within this time after it was asked to.
        stop_ms: u64 = 60_000,
        /// How often a VM that fits nowhere is tried again.
        retry_ms: u64 = 5_000,
        /// One commit moves active time forward by at most this much.
        gap_cap_ms: u64 = 5_000,
        /// `valid_until_ms` may lie at most this far ahead of ledger time.
        horizon_ms: u64 = 600_000,
        /// Machines that one VM is offered to in a row before it is declared failed.
        placement_attempts_max: u32 = 3,
        /// VMs re-placed per commit at most.
        failover_chunk_max: u32 = 1_000,
        /// The brake goes on when more than this share of machines (percent) lapses within `brake_window_ms`.
        brake_percent: u32 = 30,
        /// See `brake_percent`.
        brake_window_ms: u64 = 120_000,
        /// VMs re-placed per second of active time while the brake is on. 0 stops re-placement.
        brake_vms_per_s: u32 = 10,
        /// Operators that must attest a verified copy of an image before VMs may use it. 0: at once.
        image_replicas_min: u32 = 0,
        /// History entries kept per VM.
        history_max: u32 = 16,
        /// A proposal closes after this time.
        proposal_ms: u64 = 7 * 24 * 3_600_000,
        /// How long a VM that stopped of itself waits before its first start; doubled with every further one.
        restart_ms: u64 = 1_000,
        /// The longest such wait; a VM that ran this long begins with the shortest again.
        restart_max_ms: u64 = 300_000,
        /// A machine whose lease lapses again and again, each time within this time of its last change of state, gets no new VMs for a while after it
        /// returns: one lease after the second lapse, doubled with every further one, at most this time.
        calm_ms: u64 = 600_000,
        /// An epoch ends at the first checkpoint after this much commit time, however little happened: it bounds what a node reads back
        /// when it starts.
        epoch_ms: u64 = 6 * 3_600_000,
        /// An epoch ends at the first checkpoint after this many transactions.
        epoch_transactions: u64 = 200_000,
        /// How long rivals have to probe a VM that its customer disputes, and how often he may dispute one VM.
        dispute_ms: u64 = 60_000,
        /// An operator's consensus key changes at most once within this time: each change ends an epoch.
        rotate_ms: u64 = 60_000,
    }
}

impl ParametersChange {
    /// True when it names nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Parameters {
    /// The bounds every set of parameters keeps, at genesis and after a vote.
    pub fn check(&self) -> Result<(), Code> {
        const DAY_MS: u64 = 24 * 3_600_000;
        let times = [
            self.lease_ms,
            self.margin_ms,
            self.heartbeat_ms,
            self.hear_timeout_ms,
            self.accept_ms,
            self.start_ms,
            self.stop_ms,
            self.retry_ms,
            self.gap_cap_ms,
            self.brake_window_ms,
            self.restart_ms,
            self.restart_max_ms,
            self.calm_ms,
            self.dispute_ms,
        ];
        if times.iter().any(|t| *t == 0 || *t > DAY_MS) {
            return Err(Code::OutOfRange);
        }
        if !(1_000..=DAY_MS).contains(&self.horizon_ms)
            || !(1_000..=366 * DAY_MS).contains(&self.proposal_ms)
            || !(1_000..=366 * DAY_MS).contains(&self.epoch_ms)
            || self.rotate_ms > 366 * DAY_MS
            || !(1..=1 << 40).contains(&self.epoch_transactions)
        {
            return Err(Code::OutOfRange);
        }
        // One commit must never be able to end a lease that the commit before still saw renewed.
        if self.gap_cap_ms >= self.lease_ms || self.heartbeat_ms >= self.lease_ms {
            return Err(Code::OutOfRange);
        }
        if !(1..=100).contains(&self.placement_attempts_max)
            || !(1..=1_000_000).contains(&self.failover_chunk_max)
            || self.brake_percent > 100
            || self.brake_vms_per_s > 1_000_000
            || self.image_replicas_min as usize > OPERATORS_MAX
            || !(1..=64).contains(&self.history_max)
        {
            return Err(Code::OutOfRange);
        }
        Ok(())
    }
}
