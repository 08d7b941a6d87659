//! Small named values: digests, rounds, epochs, member and commit numbers.
//! No behaviour of the protocol lives here.

use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize)]
        pub struct $name(pub [u8; 32]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(&self.0[..6]))
            }
        }
    };
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

hash_id!(
    /// A BLAKE3 digest, domain-separated by what was hashed.
    Digest
);
hash_id!(
    /// The name of a network: events and votes of one chain mean nothing on another.
    ChainId
);
number_id!(
    /// A layer of the graph. Round 0 holds the virtual genesis events, the first signed event has round 1.
    Round, u64, "r"
);
number_id!(
    /// The number of a committee's term.
    Epoch, u64, "epoch "
);
number_id!(
    /// The seat of a member in its committee.
    MemberIndex, u16, "m"
);
number_id!(
    /// The number of a commit; the first of a chain is 1.
    CommitIndex, u64, "c"
);

impl Round {
    /// The following round.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// `self` less `rounds`, at least round 0.
    #[must_use]
    pub fn back(self, rounds: u64) -> Self {
        Self(self.0.saturating_sub(rounds))
    }

    /// `self` plus `rounds`.
    #[must_use]
    pub fn ahead(self, rounds: u64) -> Self {
        Self(self.0.saturating_add(rounds))
    }
}

impl MemberIndex {
    /// The seat as an index into a vector.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl Epoch {
    /// The following epoch.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl CommitIndex {
    /// The following commit.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
