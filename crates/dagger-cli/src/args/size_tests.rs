use super::*;

#[test]
fn sizes() {
    assert_eq!(parse_size_mib("512"), Ok(512));
    assert_eq!(parse_size_mib("512M"), Ok(512));
    assert_eq!(parse_size_mib("2G"), Ok(2048));
    assert_eq!(parse_size_mib("1TiB"), Ok(1 << 20));
    for wrong in ["", "G", "0", "2X", "-1", "1.5G", "99999999999999999T"] {
        assert!(parse_size_mib(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn durations() {
    assert_eq!(parse_duration_ms("90s"), Ok(90_000));
    assert_eq!(parse_duration_ms("250ms"), Ok(250));
    assert_eq!(parse_duration_ms("2h"), Ok(7_200_000));
    for wrong in ["", "90", "s", "1.5h", "2w"] {
        assert!(parse_duration_ms(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn ports_to_publish() {
    let publish = |guest_port, host_port| {
        Ok(dagger_ledger::Publish {
            guest_port,
            host_port,
        })
    };
    assert_eq!(parse_publish("80"), publish(80, None));
    assert_eq!(parse_publish("80:8080"), publish(80, Some(8080)));
    for wrong in ["", "0", "80:", ":80", "80:0", "65536", "80:80:80", "http"] {
        assert!(parse_publish(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn labels() {
    assert_eq!(
        parse_label("region=eu-1"),
        Ok(("region".into(), "eu-1".into()))
    );
    assert!(parse_label("region").is_err());
    assert!(parse_label("=x").is_err());
}

#[test]
fn ratios() {
    assert_eq!(parse_permille("2"), Ok(2_000));
    assert_eq!(parse_permille("1.5"), Ok(1_500));
    assert_eq!(parse_permille("0.125"), Ok(125));
    for wrong in ["", ".5", "1.", "1.2345", "-1", "1e3", "5000000"] {
        assert!(parse_permille(wrong).is_err(), "{wrong}");
    }
}
