//! Sizes, durations and labels as people write them.

/// Reads `GUEST` or `GUEST:HOST`, each a TCP port.
pub fn parse_publish(text: &str) -> Result<dagger_ledger::Publish, String> {
    let port = |text: &str| {
        let port = text.parse().ok().filter(|port| *port > 0);
        port.ok_or_else(|| format!("`{text}` is not a port (1 to 65535)"))
    };
    let (guest, host) = match text.split_once(':') {
        Some((guest, host)) => (guest, Some(port(host)?)),
        None => (text, None),
    };
    Ok(dagger_ledger::Publish {
        guest_port: port(guest)?,
        host_port: host,
    })
}

/// `512M`, `2G`, `1T`, or a plain number of MiB, as MiB.
pub fn parse_size_mib(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size; write for example 512M, 2G or 1T");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let factor = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "m" | "mib" => 1,
        "g" | "gib" => 1 << 10,
        "t" | "tib" => 1 << 20,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(factor)
        .filter(|mib| *mib > 0)
        .ok_or_else(wrong)
}

/// `500ms`, `90s`, `5m`, `2h`, `1d` as milliseconds.
pub fn parse_duration_ms(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a duration; write for example 90s, 5m or 2h");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let factor = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).ok_or_else(wrong)
}

/// `2`, `1.5` or `1.333` as thousandths.
pub fn parse_permille(text: &str) -> Result<u32, String> {
    let wrong =
        || format!("`{text}` is not a ratio; write for example 1.5, with at most three decimals");
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 3 {
        return Err(wrong());
    }
    let permille = format!("{whole}{decimals:0<3}");
    permille.parse().map_err(|_| wrong())
}

/// `key=value`.
pub fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not a label; write KEY=VALUE")),
    }
}

#[cfg(test)]
#[path = "size_tests.rs"]
mod tests;
