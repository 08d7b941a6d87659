use super::*;

#[test]
fn four_cards_make_a_genesis_file() {
    let directory = tempfile::tempdir().unwrap();
    let cards: Vec<Card> = ["alpha", "bravo", "charlie", "delta"]
        .iter()
        .map(|name| make_keys(&directory.path().join(name), name, None).unwrap())
        .collect();
    let text = genesis(
        "test",
        1_800_000_000_000,
        parameters(Some(10_000), Some(5_000)),
        &cards,
    )
    .unwrap();
    let read = Genesis::from_json(text.as_bytes()).unwrap();
    assert_eq!(read.operators.len(), 4);
    assert_eq!(
        (read.parameters.lease_ms, read.parameters.heartbeat_ms),
        (10_000, 500)
    );
}

#[test]
fn keys_are_made_once() {
    let directory = tempfile::tempdir().unwrap();
    let first = make_keys(directory.path(), "alpha", None).unwrap();
    assert_eq!(make_keys(directory.path(), "alpha", None).unwrap(), first);
}

#[test]
fn a_card_given_twice_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let card = make_keys(directory.path(), "alpha", None).unwrap();
    let failure = genesis("test", 1, Parameters::default(), &[card.clone(), card]).unwrap_err();
    assert_eq!(failure.code, "E_GENESIS_INVALID");
}

#[test]
fn short_leases_keep_the_parameters_consistent() {
    for lease_ms in [1_000, 3_000, 10_000, 60_000] {
        parameters(Some(lease_ms), Some(1_000)).check().unwrap();
    }
}
