use dagger_ledger::{
    Action, Attest, BODY_BYTES_MAX, CheckedTransaction, Digest, Key, MachineId, Transaction,
};
use ed25519_zebra::SigningKey;

use super::bounded;

#[test]
fn what_is_to_be_said_of_ten_thousand_machines_at_once_fits_one_transaction_after_the_other() {
    let key = SigningKey::from([7; 32]);
    // The longest ids there can be.
    let machines = || (0..10_000).map(|n| MachineId(u32::MAX - n)).collect();
    for (hears, lost) in [
        (machines(), Vec::new()),
        (Vec::new(), machines()),
        (machines(), machines()),
    ] {
        let attest = bounded(Attest { hears, lost });
        assert!(attest.hears.len() + attest.lost.len() > 4_000);
        let transaction = Transaction {
            chain: Digest([1; 32]),
            signer: Key(key.verification_key().into()),
            salt: "f".repeat(16),
            valid_until_ms: 1 << 52,
            action: Action::Attest(attest),
        };
        let wire = transaction.sign(&key).to_wire();
        assert!(wire.len() < BODY_BYTES_MAX);
        let checked = CheckedTransaction::check(&Digest([1; 32]), &wire);
        assert!(checked.code().is_ok(), "{:?}", checked.code());
    }
}
