use super::*;

const NOW_MS: u64 = 1_800_000_000_000;
const LATER_MS: u64 = NOW_MS + 3_600_000;
const SCOPE: VmScope = VmScope {
    chain: [7; 32],
    vm: 3,
};

fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes([byte; 32])
}

fn token() -> String {
    issue(&key(1), SCOPE, &[Right::Tunnel], LATER_MS).unwrap()
}

fn check(
    token: &str,
    scope: VmScope,
    right: Right,
    port: Option<u16>,
    now_ms: u64,
) -> Result<(), &'static str> {
    verify(&key(1).public(), token, scope, right, port, now_ms).map_err(|error| error.code())
}

#[test]
fn allows_what_it_was_made_for_and_nothing_else() {
    let token = token();
    assert_eq!(
        check(&token, SCOPE, Right::Tunnel, Some(22), NOW_MS),
        Ok(())
    );
    assert_eq!(
        check(&token, SCOPE, Right::Console, None, NOW_MS),
        Err("E_TOKEN_DENIED")
    );
    assert_eq!(
        check(
            &token,
            VmScope { vm: 4, ..SCOPE },
            Right::Tunnel,
            Some(22),
            NOW_MS
        ),
        Err("E_TOKEN_DENIED")
    );
    assert_eq!(
        check(
            &token,
            VmScope {
                chain: [8; 32],
                ..SCOPE
            },
            Right::Tunnel,
            Some(22),
            NOW_MS
        ),
        Err("E_TOKEN_DENIED")
    );
}

#[test]
fn expires() {
    let token = token();
    assert_eq!(
        check(&token, SCOPE, Right::Tunnel, Some(22), LATER_MS - 1000),
        Ok(())
    );
    assert_eq!(
        check(&token, SCOPE, Right::Tunnel, Some(22), LATER_MS),
        Err("E_TOKEN_DENIED")
    );
    let error = verify(
        &key(1).public(),
        &token,
        SCOPE,
        Right::Tunnel,
        Some(22),
        LATER_MS,
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the token does not allow this (it has expired); ask the account's owner for another"
    );
}

#[test]
fn another_accounts_key_makes_no_token_for_this_vm() {
    let forged = issue(&key(2), SCOPE, &[Right::Tunnel], LATER_MS).unwrap();
    assert_eq!(
        check(&forged, SCOPE, Right::Tunnel, Some(22), NOW_MS),
        Err("E_TOKEN_SIGNATURE")
    );
}

#[test]
fn narrowing_only_narrows() {
    let full = issue(&key(1), SCOPE, &[Right::Tunnel, Right::Console], LATER_MS).unwrap();
    let narrow = attenuate(
        &full,
        &Restriction {
            rights: Some(vec![Right::Tunnel]),
            ports: Some(vec![22]),
            expires_at_ms: Some(NOW_MS + 60_000),
        },
    )
    .unwrap();
    assert_eq!(
        check(&narrow, SCOPE, Right::Tunnel, Some(22), NOW_MS),
        Ok(())
    );
    assert_eq!(
        check(&narrow, SCOPE, Right::Tunnel, Some(80), NOW_MS),
        Err("E_TOKEN_DENIED")
    );
    assert_eq!(
        check(&narrow, SCOPE, Right::Console, None, NOW_MS),
        Err("E_TOKEN_DENIED")
    );
    assert_eq!(
        check(&narrow, SCOPE, Right::Tunnel, Some(22), NOW_MS + 61_000),
        Err("E_TOKEN_DENIED")
    );
    let wider = attenuate(
        &narrow,
        &Restriction {
            ports: Some(vec![22, 80]),
            expires_at_ms: Some(LATER_MS),
            ..Default::default()
        },
    )
    .unwrap();
    assert_eq!(
        check(&wider, SCOPE, Right::Tunnel, Some(80), NOW_MS),
        Err("E_TOKEN_DENIED")
    );
}

#[test]
fn a_later_block_cannot_grant_a_right() {
    let token = UnverifiedBiscuit::from_base64(token()).unwrap();
    let (chain, vm) = (hex::encode(SCOPE.chain), 3i64);
    let chain = chain.as_str();
    let raised = token
        .append(block!(r#"right({chain}, {vm}, "console");"#))
        .unwrap()
        .to_base64()
        .unwrap();
    assert_eq!(
        check(&raised, SCOPE, Right::Console, None, NOW_MS),
        Err("E_TOKEN_DENIED")
    );
}

#[test]
fn garbage_is_refused() {
    for bad in ["", "x", "AAAA", &"A".repeat(TOKEN_BYTES_MAX + 1)] {
        assert_eq!(
            check(bad, SCOPE, Right::Tunnel, None, NOW_MS),
            Err("E_TOKEN_MALFORMED"),
            "{bad:.20}"
        );
    }
    let mut long = token();
    for _ in 0..TOKEN_BLOCKS_MAX {
        long = attenuate(
            &long,
            &Restriction {
                ports: Some(vec![22]),
                ..Default::default()
            },
        )
        .unwrap();
    }
    assert_eq!(
        check(&long, SCOPE, Right::Tunnel, Some(22), NOW_MS),
        Err("E_TOKEN_MALFORMED")
    );
    let mut bent = token().into_bytes();
    let middle = bent.len() / 2;
    bent[middle] = if bent[middle] == b'A' { b'B' } else { b'A' };
    let bent = String::from_utf8(bent).unwrap();
    assert!(check(&bent, SCOPE, Right::Tunnel, Some(22), NOW_MS).is_err());
}

fn upload_code(token: &str, chain: [u8; 32], now_ms: u64) -> Result<(), &'static str> {
    verify_upload(&key(1).public(), token, chain, now_ms).map_err(|error| error.code())
}

#[test]
fn an_upload_is_allowed_to_one_network_by_one_account_for_a_time() {
    let token = issue_upload(&key(1), SCOPE.chain, LATER_MS).unwrap();
    assert_eq!(upload_code(&token, SCOPE.chain, NOW_MS), Ok(()));
    assert_eq!(upload_code(&token, [8; 32], NOW_MS), Err("E_TOKEN_DENIED"));
    assert_eq!(
        upload_code(&token, SCOPE.chain, LATER_MS),
        Err("E_TOKEN_DENIED")
    );
    let strangers = issue_upload(&key(2), SCOPE.chain, LATER_MS).unwrap();
    assert_eq!(
        upload_code(&strangers, SCOPE.chain, NOW_MS),
        Err("E_TOKEN_SIGNATURE")
    );
}

#[test]
fn a_way_into_a_vm_and_an_upload_are_not_taken_for_one_another() {
    assert_eq!(
        upload_code(&token(), SCOPE.chain, NOW_MS),
        Err("E_TOKEN_DENIED")
    );
    let upload = issue_upload(&key(1), SCOPE.chain, LATER_MS).unwrap();
    for right in [Right::Tunnel, Right::Console, Right::Logs] {
        let verdict = check(&upload, SCOPE, right, Some(22), NOW_MS);
        assert_eq!(verdict, Err("E_TOKEN_DENIED"), "{right:?}");
    }
}
