use super::*;
use dagger_ledger::{CheckedTransaction, MachineName};

fn action() -> Action {
    Action::MachineDrain(MachineName {
        machine: "m1".to_owned(),
    })
}

#[test]
fn what_is_signed_here_passes_the_ledgers_check() {
    let key = SecretKey::from_bytes([1; 32]);
    let chain = Digest([2; 32]);
    let signed = sign(&key, chain, action(), 1_800_000_000_000);
    let checked = CheckedTransaction::check(&chain, &signed.to_wire());
    assert_eq!(checked.code(), Ok(()));
    assert_eq!(checked.digest(), signed.digest());
}

#[test]
fn two_requests_are_two_transactions() {
    let key = SecretKey::from_bytes([1; 32]);
    let chain = Digest([2; 32]);
    assert_ne!(
        sign(&key, chain, action(), 1).digest(),
        sign(&key, chain, action(), 1).digest()
    );
}
