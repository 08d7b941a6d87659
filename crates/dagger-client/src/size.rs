//! Sizes as people read them, the same from the node and from the command line.

/// A size in bytes, in the largest binary unit of which there is one, cut off after a decimal.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut scaled, mut unit) = (bytes, 0);
    let mut rest = 0;
    while scaled >= 1024 && unit + 1 < UNITS.len() {
        rest = (scaled % 1024) * 10 / 1024;
        scaled /= 1024;
        unit += 1;
    }
    match unit {
        0 => format!("{scaled} B"),
        _ => format!("{scaled}.{rest} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_are_in_the_largest_unit_there_is_one_of() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 30), "5.0 GiB");
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
    }
}
