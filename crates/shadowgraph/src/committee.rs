//! The seats of an epoch, their weights and the thresholds that follow from them; sets of members.
//! Nothing here knows of events.

use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use thiserror::Error;

use crate::ids::{Digest, Epoch, MemberIndex};
use crate::keys::{DecodedKey, Domain, PublicKey};

/// The most seats a committee has.
pub const COMMITTEE_MEMBERS_MAX: usize = 200;

/// The most weight a whole committee has. Keeps every sum and product of weights far from overflow.
pub const COMMITTEE_WEIGHT_MAX: u64 = 1 << 40;

/// One seat: who signs, and with how many votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Member {
    /// The consensus key.
    pub key: PublicKey,
    /// Votes of the seat, at least 1.
    pub weight: u64,
}

/// Why a list of members is no committee.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommitteeError {
    /// No members, or more than [`COMMITTEE_MEMBERS_MAX`].
    #[error("a committee has 1 to {COMMITTEE_MEMBERS_MAX} members, not {0}")]
    Size(usize),
    /// The key does not decode canonically or is of small order.
    #[error("member {0}: the key is not a canonical ed25519 key of large order")]
    Key(MemberIndex),
    /// Two seats with one key.
    #[error("members {0} and {1} have the same key")]
    DuplicateKey(MemberIndex, MemberIndex),
    /// A seat without votes.
    #[error("member {0} has weight 0")]
    ZeroWeight(MemberIndex),
    /// The sum of the weights exceeds [`COMMITTEE_WEIGHT_MAX`].
    #[error("the weights add up to more than {COMMITTEE_WEIGHT_MAX}")]
    WeightSum,
}

/// The members of one epoch. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committee(Arc<Inner>);

#[derive(Debug, PartialEq, Eq)]
struct Inner {
    epoch: Epoch,
    members: Vec<Member>,
    /// Their keys, ready to verify with.
    keys: Vec<DecodedKey>,
    total: u64,
    /// The one weight that all members have, if they do.
    uniform: Option<u64>,
}

impl Committee {
    /// Checks the members and computes the thresholds.
    ///
    /// # Errors
    /// Too few or too many members, a key that is not admissible or occurs twice, a zero weight or too large a sum.
    pub fn new(epoch: Epoch, members: Vec<Member>) -> Result<Self, CommitteeError> {
        if members.is_empty() || members.len() > COMMITTEE_MEMBERS_MAX {
            return Err(CommitteeError::Size(members.len()));
        }
        let mut seen = std::collections::BTreeMap::new();
        let mut total = 0u64;
        let mut keys = Vec::with_capacity(members.len());
        for (member, seat) in members.iter().zip(0..) {
            let seat = MemberIndex(seat);
            let decoded = member.key.decode().filter(|_| member.key.is_admissible());
            keys.push(decoded.ok_or(CommitteeError::Key(seat))?);
            if let Some(first) = seen.insert(member.key, seat) {
                return Err(CommitteeError::DuplicateKey(first, seat));
            }
            if member.weight == 0 {
                return Err(CommitteeError::ZeroWeight(seat));
            }
            total = total
                .checked_add(member.weight)
                .filter(|sum| *sum <= COMMITTEE_WEIGHT_MAX)
                .ok_or(CommitteeError::WeightSum)?;
        }
        let first = members[0].weight;
        let uniform = members
            .iter()
            .all(|member| member.weight == first)
            .then_some(first);
        Ok(Self(Arc::new(Inner {
            epoch,
            members,
            keys,
            total,
            uniform,
        })))
    }

    /// The epoch in which these members vote.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.0.epoch
    }

    /// How many seats there are.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // a committee is never empty
    pub fn len(&self) -> usize {
        self.0.members.len()
    }

    /// The seat, if there is such a one.
    #[must_use]
    pub fn member(&self, seat: MemberIndex) -> Option<&Member> {
        self.0.members.get(seat.index())
    }

    /// The key of a seat, ready to verify with.
    pub(crate) fn key(&self, seat: MemberIndex) -> Option<&DecodedKey> {
        self.0.keys.get(seat.index())
    }

    /// The votes of a seat; 0 where there is no such seat.
    #[must_use]
    pub fn weight(&self, seat: MemberIndex) -> u64 {
        match self.0.uniform {
            Some(weight) if seat.index() < self.len() => weight,
            _ => self.member(seat).map_or(0, |member| member.weight),
        }
    }

    /// W: the votes of all seats.
    #[must_use]
    pub fn total_weight(&self) -> u64 {
        self.0.total
    }

    /// f = floor((W - 1) / 3): the most weight that may be faulty.
    #[must_use]
    pub fn fault_weight(&self) -> u64 {
        (self.0.total - 1) / 3
    }

    /// W - f: any two sets of this weight share an honest member.
    #[must_use]
    pub fn quorum_weight(&self) -> u64 {
        self.0.total - self.fault_weight()
    }

    /// f + 1: any set of this weight holds an honest member.
    #[must_use]
    pub fn validity_weight(&self) -> u64 {
        self.fault_weight() + 1
    }

    /// All seats in their order.
    pub fn members(&self) -> impl ExactSizeIterator<Item = (MemberIndex, &Member)> {
        self.0
            .members
            .iter()
            .enumerate()
            .map(|(seat, member)| (seat_of(seat), member))
    }

    /// The seat that holds this key.
    #[must_use]
    pub fn seat(&self, key: &PublicKey) -> Option<MemberIndex> {
        self.members()
            .find(|(_, member)| member.key == *key)
            .map(|(seat, _)| seat)
    }

    /// What a checkpoint that ends an epoch says of the next committee. docs/protocol.md 10.1
    #[must_use]
    pub fn digest(&self) -> Digest {
        let body = borsh::to_vec(self).expect("a committee encodes");
        Domain::Committee.digest(&[&body])
    }

    /// The one weight that all seats have, if they do.
    pub(crate) fn uniform_weight(&self) -> Option<u64> {
        self.0.uniform
    }
}

impl BorshSerialize for Committee {
    fn serialize<W: borsh::io::Write>(&self, writer: &mut W) -> borsh::io::Result<()> {
        self.0.epoch.serialize(writer)?;
        self.0.members.serialize(writer)
    }
}

impl BorshDeserialize for Committee {
    /// Reads only what [`Committee::new`] admits.
    fn deserialize_reader<R: borsh::io::Read>(reader: &mut R) -> borsh::io::Result<Self> {
        let invalid =
            |error: CommitteeError| borsh::io::Error::new(borsh::io::ErrorKind::InvalidData, error);
        let epoch = Epoch::deserialize_reader(reader)?;
        let count = u32::deserialize_reader(reader)? as usize;
        if count > COMMITTEE_MEMBERS_MAX {
            return Err(invalid(CommitteeError::Size(count)));
        }
        let members = (0..count).map(|_| Member::deserialize_reader(reader));
        let members = members.collect::<borsh::io::Result<_>>()?;
        Self::new(epoch, members).map_err(invalid)
    }
}

/// The seat at a position of a vector of members.
pub(crate) fn seat_of(position: usize) -> MemberIndex {
    MemberIndex(u16::try_from(position).expect("a committee has at most 200 members"))
}

/// A set of members and its weight: what every tally of distinct creators is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberSet {
    words: [u64; 4],
    weight: u64,
}

impl MemberSet {
    /// Adds a seat with its weight; false if it was in already.
    pub fn insert(&mut self, committee: &Committee, seat: MemberIndex) -> bool {
        let (word, bit) = (seat.index() / 64, 1 << (seat.index() % 64));
        if self.words[word] & bit != 0 {
            return false;
        }
        self.words[word] |= bit;
        self.weight += committee.weight(seat);
        true
    }

    /// Whether the seat is in.
    #[must_use]
    pub fn contains(&self, seat: MemberIndex) -> bool {
        self.words[seat.index() / 64] & (1 << (seat.index() % 64)) != 0
    }

    /// The votes of all seats in the set.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// The seats in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = MemberIndex> + '_ {
        (0..4).flat_map(move |word| {
            let mut rest = self.words[word];
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(seat_of(word * 64 + bit as usize))
            })
        })
    }
}

#[cfg(test)]
#[path = "committee_tests.rs"]
mod tests;
