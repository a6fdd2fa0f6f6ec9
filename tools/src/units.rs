//! Numbers with units on the command line, and times.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes, with K, M, G or T for powers of 1,024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(['K', 'M', 'G', 'T']);
    let shift = match &text[digits.len()..] {
        "" => Some(0),
        "K" => Some(10),
        "M" => Some(20),
        "G" => Some(30),
        "T" => Some(40),
        _ => None,
    };
    let number = digits.parse::<u64>().ok();
    let bytes = number.zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "expected a number of bytes, as 4096, 64K, 256M or 10G".into())
}

/// A span of time, as 10ms, 90s, 12h or 7days.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = |_| "expected a span of time, as 10ms, 90s, 12h or 7days".to_owned();
    humantime::parse_duration(text).map_err(wrong)
}

/// A time as people write it, UTC, to the nanosecond.
pub(crate) fn utc(unix_ns: u64) -> String {
    humantime::format_rfc3339_nanos(UNIX_EPOCH + Duration::from_nanos(unix_ns)).to_string()
}

/// Now, ns since the Unix epoch.
pub(crate) fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_understood() {
        assert_eq!((bytes("4096"), bytes("64K"), bytes("2T")), (Ok(4096), Ok(65536), Ok(2 << 40)));
        for bad in ["", "K", "1KK", "1Q", "-1", "99999999T"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(duration("10ms"), Ok(Duration::from_millis(10)));
        assert!(duration("10").is_err());
        assert_eq!(utc(1_763_788_800_250_000_001), "2025-11-22T05:20:00.250000001Z");
    }
}
