//! Times as RFC 3339 text.

use std::time::{Duration, SystemTime};

/// RFC 3339 in UTC with as many digits of a second as it needs, as `2026-01-02T15:04:05.25Z`.
pub fn rfc3339(at: SystemTime) -> String {
    let text = humantime::format_rfc3339_nanos(with_four_digits(at)).to_string();
    let text = text.trim_end_matches('Z').trim_end_matches('0');
    format!("{}Z", text.trim_end_matches('.'))
}

/// RFC 3339 in UTC without parts of a second, as `2026-01-02T15:04:05Z`.
#[cfg(feature = "daemon")]
pub(crate) fn rfc3339_seconds(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(with_four_digits(at)).to_string()
}

/// A duration as the documentation writes it: `24h` and not `1day`.
#[cfg(feature = "daemon")]
pub(crate) fn in_hours(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds > 0 && seconds.is_multiple_of(3600) && duration.subsec_nanos() == 0 {
        return format!("{}h", seconds / 3600);
    }
    humantime::format_duration(duration).to_string()
}

/// The time, or the nearest one whose year has a form of four digits.
fn with_four_digits(at: SystemTime) -> SystemTime {
    const LAST: u64 = 253_402_300_799;
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    SystemTime::UNIX_EPOCH + since.unwrap_or_default().min(Duration::from_secs(LAST))
}

/// Reads RFC 3339 with `Z` or an offset, as `2026-01-02T15:04:05+08:00`. `None` for other text and for times before 1970.
pub fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    if let Some(local) = text.strip_suffix(['Z', 'z']) {
        return parse_utc(local);
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let (sign, offset) = offset.split_at_checked(1)?;
    let (hours, minutes) = offset.split_once(':')?;
    let number = |digits: &str, below: u64| {
        let all_digits = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_digit());
        let number = all_digits.then(|| digits.parse::<u64>().ok()).flatten()?;
        (number < below).then_some(number)
    };
    let offset = Duration::from_secs(number(hours, 24)? * 3600 + number(minutes, 60)? * 60);
    let local = parse_utc(local)?;
    let at = match sign {
        "+" => local.checked_sub(offset)?,
        "-" => local.checked_add(offset)?,
        _ => return None,
    };
    (at >= SystemTime::UNIX_EPOCH).then_some(at)
}

/// Reads a time without its zone.
fn parse_utc(local: &str) -> Option<SystemTime> {
    // The other forms that humantime takes, of which one has a blank.
    if local.as_bytes().get(10) != Some(&b'T') && local.as_bytes().get(10) != Some(&b't') {
        return None;
    }
    humantime::parse_rfc3339(&format!("{}Z", local.replace('t', "T"))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_utc_with_the_digits_that_it_needs() {
        let at = |millis| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(1_767_366_245_250), "2026-01-02T15:04:05.25Z");
        assert_eq!(at(1_767_366_250_000), "2026-01-02T15:04:10Z");
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert!(rfc3339(far).starts_with("9999-12-31T23:59:59"));
        #[cfg(feature = "daemon")]
        assert_eq!(rfc3339_seconds(far), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn a_time_is_read_with_its_offset() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_366_245);
        for text in [
            "2026-01-02T15:04:05Z",
            "2026-01-02T23:04:05+08:00",
            "2026-01-02T10:34:05-04:30",
            "2026-01-02t15:04:05z",
        ] {
            assert_eq!(parse_rfc3339(text), Some(at), "{text}");
        }
        let half = parse_rfc3339("2026-01-02T15:04:05.5Z").unwrap();
        assert_eq!(half, at + Duration::from_millis(500));
        for text in [
            "",
            "Z",
            "2026-01-02",
            "2026-01-02 15:04:05Z",
            "2026-01-02T15:04:05",
            "2026-13-02T15:04:05Z",
            "2026-01-02T15:04:05+8:00",
            "2026-01-02T15:04:05+99:00",
            "1970-01-01T00:00:00+08:00",
            "ü26-01-02T15:04:05+08:0ü",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}
