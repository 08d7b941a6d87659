//! ed25519 under ZIP-215, single and in batches, with identical verdicts.

use blake3::Hasher;
use ed25519_zebra::{Signature, VerificationKeyBytes, batch};
use rand_core::{TryCryptoRng, TryRng};
use std::convert::Infallible;

use crate::ids::{Digest, Key};

/// A signature to be judged; holds hashes of its message, not the message.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    item: batch::Item,
    seed: [u8; 128],
}

impl Claim {
    /// `digest` stands for the message in the batch's weights; it must be collision-free.
    pub(crate) fn new(key: &Key, signature: &[u8; 64], message: &[u8], digest: &Digest) -> Self {
        let key_bytes = VerificationKeyBytes::from(key.0);
        let item = batch::Item::from((key_bytes, Signature::from(*signature), message));
        let mut seed = [0u8; 128];
        seed[..32].copy_from_slice(&key.0);
        seed[32..96].copy_from_slice(signature);
        seed[96..].copy_from_slice(&digest.0);
        Self { item, seed }
    }

    pub(crate) fn verify(self) -> Result<(), ed25519_zebra::Error> {
        self.item.verify_single()
    }
}

/// One verdict per claim, in order.
pub(crate) fn verify_batch<'a>(claims: impl Iterator<Item = &'a Claim>) -> Vec<bool> {
    let claims: Vec<&Claim> = claims.collect();
    let mut verdicts = vec![true; claims.len()];
    bisect(&claims, &mut verdicts);
    verdicts
}

/// A batch that fails is halved: one forger costs log n batches, not n single checks.
fn bisect(claims: &[&Claim], verdicts: &mut [bool]) {
    if claims.len() <= 4 {
        for (claim, verdict) in claims.iter().zip(verdicts) {
            *verdict = (*claim).clone().verify().is_ok();
        }
        return;
    }
    let mut verifier = batch::Verifier::new();
    for claim in claims {
        verifier.queue(claim.item.clone());
    }
    if verifier.verify(Weights::new(claims)).is_err() {
        let middle = claims.len() / 2;
        let (left, right) = verdicts.split_at_mut(middle);
        bisect(&claims[..middle], left);
        bisect(&claims[middle..], right);
    }
}

/// The batch equation's random weights, drawn from a hash of everything that is being judged (Fiat-Shamir): nobody can choose
/// signatures that cancel out without choosing a hash's output, and this crate needs no source of randomness.
struct Weights {
    stream: blake3::OutputReader,
    /// One block of the stream, of which the weights are cut: asked for 16 bytes, it would make a whole one each time.
    block: [u8; 64],
    used: usize,
}

impl Weights {
    fn new(claims: &[&Claim]) -> Self {
        let mut hasher = Hasher::new_derive_key("dagger batch weights v1");
        for claim in claims {
            hasher.update(&claim.seed);
        }
        Self {
            stream: hasher.finalize_xof(),
            block: [0; 64],
            used: 64,
        }
    }
}

impl TryRng for Weights {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0u8; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0u8; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for byte in bytes {
            if self.used == self.block.len() {
                self.stream.fill(&mut self.block);
                self.used = 0;
            }
            *byte = self.block[self.used];
            self.used += 1;
        }
        Ok(())
    }
}

impl TryCryptoRng for Weights {}
