//! The stable outcome codes. A code's text says what to do; code strings never change meaning once released.

use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $string:literal, $text:literal;)*) => {
        /// What became of a transaction. `Ok` means executed; every other code left all records as they were.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[derive(BorshSerialize, BorshDeserialize)]
        #[borsh(use_discriminant = true)]
        #[repr(u8)]
        pub enum Code {
            $($(#[$doc])* #[doc = $text] #[serde(rename = $string)] $name = $value,)*
        }

        impl Code {
            /// Every code, in the order of its number.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The stable string, as in JSON.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$name => $string,)* }
            }

            /// One sentence for people: what happened and what to do about it.
            pub const fn text(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }
        }
    };
}

codes! {
    Ok = 0, "ok", "Executed.";
    // The transaction as bytes.
    TooLarge = 1, "too_large", "The transaction is larger than 64 KiB; make it smaller.";
    Malformed = 2, "malformed", "The transaction is not the strict JSON document it must be; build it with the client library or check it against the schema.";
    UnknownField = 3, "unknown_field", "A field is not known here; remove it, or check its spelling against the schema.";
    DuplicateField = 4, "duplicate_field", "A field stands twice in one object; keep one.";
    MissingField = 5, "missing_field", "A required field is missing; add it.";
    BadNumber = 6, "bad_number", "A number is negative, has a fraction or exponent, or is above 2^53; write a whole number (larger ones as a string).";
    BadValue = 7, "bad_value", "A value has the wrong type or form; check it against the schema.";
    UnknownAction = 8, "unknown_action", "This network does not know that kind of action; check the spelling or upgrade the network.";
    TooDeep = 9, "too_deep", "The document nests deeper than any transaction needs; flatten it.";
    WrongChain = 10, "wrong_chain", "The transaction was made for another network; sign it again with this network's chain id.";
    BadSignature = 11, "bad_signature", "The signature does not match the body and the signer's key; sign the exact bytes you send.";
    Expired = 12, "expired", "valid_until_ms has passed; sign it again with a later time and a new salt.";
    TooFarAhead = 13, "too_far_ahead", "valid_until_ms lies further ahead than the network's horizon; choose an earlier time.";
    Repeated = 14, "repeated", "This very transaction was executed before; look up its first outcome, or change the salt to do it again.";
    UnknownSigner = 15, "unknown_signer", "No operator, account or node has this key here; ask an operator to sponsor an account, or use another key.";
    Unauthorised = 16, "unauthorised", "This key may not do that; sign with the key that owns the object.";
    // Values.
    BadName = 20, "bad_name", "A name must be a DNS label: 1 to 63 of a-z, 0-9 and '-', with no '-' at either end.";
    BadKey = 21, "bad_key", "The key is not a usable ed25519 public key; generate a new one.";
    BadText = 22, "bad_text", "A text is too long or has control or direction characters; shorten it and keep to printable characters.";
    OutOfRange = 23, "out_of_range", "A number is outside what is allowed; see the schema for its bounds.";
    TooMany = 24, "too_many", "A list is longer than is allowed; shorten it.";
    NameTaken = 25, "name_taken", "That name is in use; choose another.";
    KeyInUse = 26, "key_in_use", "That key already belongs to something here; use a new key.";
    PortTwice = 27, "port_twice", "A port is named twice; a VM publishes each port of the guest once, and each at a port of its own.";
    // Objects.
    UnknownOperator = 30, "unknown_operator", "There is no such operator; list them with `dagger operator list`.";
    UnknownAccount = 31, "unknown_account", "There is no such account; check its name.";
    UnknownMachine = 32, "unknown_machine", "There is no such machine; list them with `dagger machine list`.";
    UnknownImage = 33, "unknown_image", "There is no such image; list them with `dagger image list`, or publish it first.";
    UnknownVm = 34, "unknown_vm", "There is no such VM in this account; list them with `dagger vm list`.";
    ImageRetired = 35, "image_retired", "The image was retired; choose another one.";
    ImageNotReady = 36, "image_not_ready", "Too few operators hold a verified copy of the image yet; try again shortly.";
    ImageDigestMismatch = 37, "image_digest_mismatch", "The image's digest is not the one that was signed; look at the image again and decide anew.";
    ImagePrivate = 38, "image_private", "The image is private; ask the account that published it to share it with yours.";
    NoMachineFits = 40, "no_machine_fits", "No machine meets the request; `dagger vm explain` shows why for each one.";
    MachineNotEmpty = 41, "machine_not_empty", "VMs still hold space on that machine; drain it or delete them first.";
    MachineRemoved = 42, "machine_removed", "The machine was removed; register it again.";
    StaleEpoch = 43, "stale_epoch", "The VM has a newer lease epoch; stop that instance and look at the ledger again.";
    WrongMachine = 44, "wrong_machine", "The VM is not placed on this node's machine.";
    WrongPhase = 45, "wrong_phase", "The VM's phase does not allow that now; see `dagger vm show`.";
    QuotaExceeded = 47, "quota_exceeded", "The quota or allocation would be exceeded; delete something or ask the operator for more.";
    NotEmpty = 48, "not_empty", "Something still depends on it; remove that first.";
    KeepNeedsNoFailover = 49, "keep_needs_no_failover", "on_isolation = keep is only allowed with failover = none: an isolated VM that keeps running must never be started elsewhere.";
    // Governance.
    UnknownProposal = 50, "unknown_proposal", "There is no such open proposal.";
    AlreadyVoted = 51, "already_voted", "This operator has voted on that proposal.";
    LastOperator = 52, "last_operator", "The network needs at least one operator.";
    UnknownDelegation = 53, "unknown_delegation", "There is no such delegated key.";
    TooFewSeats = 54, "too_few_seats", "Without that seat the network could bear no faulty member any more; admit another operator first, or propose to remove it anyway.";
    TooManyLeave = 55, "too_many_leave", "More seats would leave with this epoch than may be faulty; try again once the next epoch has begun.";
    BadProof = 56, "bad_proof", "The proof does not prove that a member of this epoch or the one before signed two events of one round; see the detail.";
    AlreadyDone = 57, "already_done", "That was done before; nothing is left to do.";
    DiskStays = 59, "disk_stays", "The VM's disk is on its machine and would be lost; only a VM with failover = recreate moves without it.";
    NoDispute = 60, "no_dispute", "There is no open dispute about that VM in that lease epoch.";
    NoRivals = 61, "no_rivals", "Every seat is of the operator that hosts the VM; there is nobody to probe it.";
    TooSoon = 58, "too_soon", "That was done only just now; try again later.";
}

impl Code {
    /// True when the transaction did what it asked.
    pub const fn is_ok(self) -> bool {
        matches!(self, Code::Ok)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
