//! Proofs that hold offline: what became of a transaction, and what the ledger said of an object, verified from the genesis file alone.
//!
//! A chain of epochs' ends, each signed by a quorum of its epoch, leads from the genesis committee to the one that signed a checkpoint; the
//! checkpoint's roots cover the outcome or record. It proves what was certified, not that nothing happened since.
//!
//! What must not live here: I/O, clocks, an async runtime.

use borsh::{BorshDeserialize, BorshSerialize};
use dagger_ledger::{
    AccountRecord, Digest, EpochRecord, Genesis, GenesisError, ImageRecord, MachineRecord,
    NextSeat, OperatorRecord, OutcomeProof, ProposalRecord, StateKey, StateProof, VmRecord,
    digest_of_body,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shadowgraph::{
    CertificateError, ChainId, Checkpoint, CheckpointCertificate, Committee, CommitteeError, Epoch,
    EpochEnd, EpochEndError, Member, PublicKey,
};
use thiserror::Error;
use utoipa::ToSchema;

/// A value of the consensus layer: hex of its borsh form in JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded<T>(pub T);

impl<T: BorshSerialize> Serialize for Encoded<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = borsh::to_vec(&self.0).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&hex::encode(bytes))
    }
}

impl<'de, T: BorshDeserialize> Deserialize<'de> for Encoded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <String as Deserialize>::deserialize(deserializer)?;
        let bytes = hex::decode(text).map_err(serde::de::Error::custom)?;
        let value = borsh::from_slice(&bytes).map_err(serde::de::Error::custom)?;
        Ok(Self(value))
    }
}

/// What leads from the genesis committee to the roots of one checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The ends of all epochs before the checkpoint's, in order. Each is hex of the consensus layer's form.
    #[schema(value_type = Vec<String>)]
    pub epochs: Vec<Encoded<EpochEnd>>,
    /// The checkpoint with the signatures of a quorum of its epoch; hex of the consensus layer's form.
    #[schema(value_type = String)]
    pub certificate: Encoded<CheckpointCertificate>,
}

/// That a transaction was ordered, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The network.
    #[schema(value_type = String)]
    pub chain_id: Digest,
    /// The exact JSON text that was signed, if the node still has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The outcome, and its way up to the checkpoint's outcomes root.
    #[schema(value_type = Object)]
    pub proof: OutcomeProof,
    /// What makes that root trustworthy.
    pub evidence: Evidence,
}

/// What the ledger held under a name at a checkpoint, or that it held nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordProof {
    /// The network.
    #[schema(value_type = String)]
    pub chain_id: Digest,
    /// The record, and its way up to the checkpoint's state root.
    #[schema(value_type = Object)]
    pub proof: StateProof,
    /// What makes that root trustworthy.
    pub evidence: Evidence,
}

/// A proof as it is kept in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// Of a transaction.
    Receipt(Receipt),
    /// Of a record.
    Record(RecordProof),
}

/// Why a proof proves nothing here.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// The genesis file itself.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// Seats that are no committee.
    #[error("the seats are no committee: {0}; use the genesis file of a network that runs")]
    Committee(#[from] CommitteeError),
    /// It is about another network.
    #[error("the proof is of the network with chain id {0}; use that network's genesis file")]
    OtherNetwork(Digest),
    /// An epoch's end in the chain does not hold.
    #[error("the end of epoch {0} is not proven: {1}; do not trust whoever made this proof")]
    EpochEnd(u64, EpochEndError),
    /// The checkpoint is not certified.
    #[error("the checkpoint is not certified: {0}; do not trust whoever made this proof")]
    Certificate(CertificateError),
    /// Its way to the checkpoint's root.
    #[error(transparent)]
    Proof(#[from] dagger_ledger::ProofError),
    /// The text that it shows is not the transaction.
    #[error(
        "the text is not the transaction that the outcome is of; do not trust whoever made this proof"
    )]
    Body,
    /// The record has another form than its key says.
    #[error(
        "the record does not decode as {0}; it may be of a newer version of the ledger: upgrade"
    )]
    Record(&'static str),
}

/// The committee of a network's first epoch.
///
/// # Errors
/// The seats are no committee.
pub fn genesis_committee(genesis: &Genesis) -> Result<Committee, CommitteeError> {
    let member = |o: &dagger_ledger::GenesisOperator| Member {
        key: PublicKey(o.consensus_key.0),
        weight: o.weight,
    };
    Committee::new(Epoch(0), genesis.operators.iter().map(member).collect())
}

/// The committee of an epoch with the seats that the ledger decided on.
///
/// # Errors
/// The seats are no committee.
pub fn committee_of(epoch: u64, seats: &[NextSeat]) -> Result<Committee, CommitteeError> {
    let member = |seat: &NextSeat| Member {
        key: PublicKey(seat.consensus_key.0),
        weight: seat.weight,
    };
    Committee::new(Epoch(epoch), seats.iter().map(member).collect())
}

/// Verifies proofs of one network.
#[derive(Clone, Debug)]
pub struct Verifier {
    chain_id: Digest,
    committee: Committee,
}

impl Verifier {
    /// A verifier that trusts this genesis file, byte for byte, and nothing else.
    ///
    /// # Errors
    /// The file is not a genesis file.
    pub fn new(genesis: &[u8]) -> Result<Self, VerifyError> {
        let genesis = Genesis::from_json(genesis)?;
        Ok(Self {
            chain_id: genesis.chain_id,
            committee: genesis_committee(&genesis)?,
        })
    }

    /// The network.
    pub fn chain_id(&self) -> &Digest {
        &self.chain_id
    }

    /// The checkpoint that the evidence proves. One signature check per signer and epoch.
    ///
    /// # Errors
    /// The first link that does not hold.
    pub fn checkpoint(&self, evidence: &Evidence) -> Result<Checkpoint, VerifyError> {
        let chain = ChainId(self.chain_id.0);
        let mut committee = &self.committee;
        for Encoded(end) in &evidence.epochs {
            end.verify(&chain, committee)
                .map_err(|e| VerifyError::EpochEnd(end.epoch().0, e))?;
            committee = &end.next;
        }
        let certificate = &evidence.certificate.0;
        certificate
            .verify(&chain, committee)
            .map_err(VerifyError::Certificate)?;
        Ok(certificate.checkpoint)
    }

    /// Verifies a receipt; returns the checkpoint that covers it.
    ///
    /// # Errors
    /// The first part that does not hold.
    pub fn receipt(&self, receipt: &Receipt) -> Result<Checkpoint, VerifyError> {
        self.check_network(&receipt.chain_id)?;
        let checkpoint = self.checkpoint(&receipt.evidence)?;
        receipt.proof.verify(&Digest(checkpoint.outcomes_root.0))?;
        let shown = receipt.body.as_ref().map(|b| digest_of_body(b.as_bytes()));
        if shown.is_some_and(|digest| digest != receipt.proof.outcome.digest) {
            return Err(VerifyError::Body);
        }
        Ok(checkpoint)
    }

    /// Verifies the proof of a record or of its absence; returns the checkpoint at which it held.
    ///
    /// # Errors
    /// The first part that does not hold.
    pub fn record(&self, record: &RecordProof) -> Result<Checkpoint, VerifyError> {
        self.check_network(&record.chain_id)?;
        let checkpoint = self.checkpoint(&record.evidence)?;
        record.proof.verify(&Digest(checkpoint.state_root.0))?;
        Ok(checkpoint)
    }

    fn check_network(&self, chain_id: &Digest) -> Result<(), VerifyError> {
        if *chain_id == self.chain_id {
            Ok(())
        } else {
            Err(VerifyError::OtherNetwork(*chain_id))
        }
    }
}

/// A proven record as people and programs read it; `None` if the proof is of its absence, and for the ledger's inner records, which have no
/// form but their bytes. Verify first.
///
/// # Errors
/// The bytes are not of the record's form.
pub fn record_json(proof: &StateProof) -> Result<Option<serde_json::Value>, VerifyError> {
    fn read<T: BorshDeserialize + Serialize>(
        proof: &StateProof,
        what: &'static str,
    ) -> Result<Option<serde_json::Value>, VerifyError> {
        let record: Option<T> = proof.record().map_err(|_| VerifyError::Record(what))?;
        let value = record.map(|r| serde_json::to_value(r).map_err(|_| VerifyError::Record(what)));
        value.transpose()
    }
    match &proof.key {
        StateKey::Operator(_) => read::<OperatorRecord>(proof, "an operator"),
        StateKey::Machine(_) => read::<MachineRecord>(proof, "a machine"),
        StateKey::Account(_) => read::<AccountRecord>(proof, "an account"),
        StateKey::Image(_) => read::<ImageRecord>(proof, "an image"),
        StateKey::Vm(..) => read::<VmRecord>(proof, "a VM"),
        StateKey::Proposal(_) => read::<ProposalRecord>(proof, "a proposal"),
        StateKey::Epoch => read::<EpochRecord>(proof, "an epoch"),
        StateKey::Network
        | StateKey::Clock
        | StateKey::Members
        | StateKey::Replay
        | StateKey::Brake
        | StateKey::Counters => Ok(None),
    }
}

#[cfg(test)]
#[path = "proof_tests.rs"]
mod tests;
