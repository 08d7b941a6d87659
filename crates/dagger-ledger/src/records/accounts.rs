//! Records of accounts and their images, and the amounts that are counted for them.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::action::Quota;
use crate::ids::{AccountId, Digest, ImageId, Key, OperatorId};
use crate::manifest::ImageManifest;

/// Amounts that placement counts.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    BorshSerialize,
    BorshDeserialize,
)]
pub struct Resources {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Disk, MiB.
    pub disk_mib: u64,
}

impl Resources {
    /// True when each amount is within the other's.
    pub fn fits_in(&self, room: &Resources) -> bool {
        self.vcpus <= room.vcpus
            && self.memory_mib <= room.memory_mib
            && self.disk_mib <= room.disk_mib
    }

    /// What is left after taking `other` away; `None` if it does not fit.
    pub fn checked_sub(&self, other: &Resources) -> Option<Resources> {
        Some(Resources {
            vcpus: self.vcpus.checked_sub(other.vcpus)?,
            memory_mib: self.memory_mib.checked_sub(other.memory_mib)?,
            disk_mib: self.disk_mib.checked_sub(other.disk_mib)?,
        })
    }

    /// The sum; `None` on overflow.
    pub fn checked_add(&self, other: &Resources) -> Option<Resources> {
        Some(Resources {
            vcpus: self.vcpus.checked_add(other.vcpus)?,
            memory_mib: self.memory_mib.checked_add(other.memory_mib)?,
            disk_mib: self.disk_mib.checked_add(other.disk_mib)?,
        })
    }
}

/// A customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct AccountRecord {
    /// Id.
    pub id: AccountId,
    /// Unique name.
    pub name: String,
    /// Signs the account's transactions; its tokens are checked against it.
    pub key: Key,
    /// The operator that sponsors it.
    pub sponsor: OperatorId,
    /// Ledger time of its creation.
    pub created_ms: u64,
    /// VMs it has.
    pub vms: u64,
    /// What they ask for, placed or not: what quotas count.
    pub asked: Resources,
    /// What its VMs hold on machines.
    pub used: Resources,
    /// What they have held so far.
    pub usage: Usage,
    /// The most it may have, as its sponsor says.
    pub quota: Option<Quota>,
    /// Keys that may act for it.
    pub delegations: Vec<Delegation>,
}

/// A key that may act for an account, within bounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct Delegation {
    /// The key.
    pub key: Key,
    /// Kinds of action that it may sign.
    pub actions: Vec<String>,
    /// VMs that it may act on; empty: all.
    pub vms: Vec<String>,
    /// Ledger time until which it may.
    pub until_ms: u64,
}

/// Exact metering: amounts held, integrated over ledger time in ms.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    BorshSerialize,
    BorshDeserialize,
)]
pub struct Usage {
    /// Virtual CPUs times ms.
    #[serde(with = "decimal")]
    pub vcpu_ms: u128,
    /// MiB of memory times ms.
    #[serde(with = "decimal")]
    pub memory_mib_ms: u128,
    /// MiB of disk times ms.
    #[serde(with = "decimal")]
    pub disk_mib_ms: u128,
    /// Ledger time up to which it is counted.
    pub until_ms: u64,
}

impl Usage {
    /// Counts what was held from `until_ms` to `now_ms`. 2^32 MiB for 2^63 ms stay far below 2^128.
    pub fn settle(&mut self, held: &Resources, now_ms: u64) {
        let span_ms = u128::from(now_ms.saturating_sub(self.until_ms));
        self.vcpu_ms += u128::from(held.vcpus) * span_ms;
        self.memory_mib_ms += u128::from(held.memory_mib) * span_ms;
        self.disk_mib_ms += u128::from(held.disk_mib) * span_ms;
        self.until_ms = self.until_ms.max(now_ms);
    }
}

/// Large numbers stand as decimal strings in JSON.
mod decimal {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<u128, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl ImageRecord {
    /// Whether an account may make VMs from it, retirement apart.
    pub fn is_for(&self, account: AccountId) -> bool {
        !self.private || self.account == account || self.shared_with.binary_search(&account).is_ok()
    }
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize, BorshDeserialize)]
pub struct ImageRecord {
    /// Id.
    pub id: ImageId,
    /// Who published it.
    pub account: AccountId,
    /// Full name, `account/name`.
    pub name: String,
    /// Digest of the manifest.
    pub digest: Digest,
    /// What it is made of.
    pub manifest: ImageManifest,
    /// Only its account and those in `shared_with` may make VMs from it.
    pub private: bool,
    /// Accounts that may use it although it is private, by id.
    pub shared_with: Vec<AccountId>,
    /// No new VMs from it.
    pub retired: bool,
    /// Operators that hold a verified copy.
    pub replicas: Vec<OperatorId>,
    /// Ledger time of its publication.
    pub created_ms: u64,
}
