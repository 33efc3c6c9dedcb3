//! Spans of time as Go's `time.ParseDuration` reads them and `Duration.String` writes them.

use std::fmt::Write;
use std::time::Duration;

/// Reads a span as Go does, for example `20s`, `1m30s` or `1.5h`: numbers, each with one of the units `ns`, `us`, `µs`, `ms`, `s`, `m`
/// and `h`. A negative span is read as zero: where a span is asked for, both are refused alike.
///
/// # Errors
/// Go's text of what is wrong.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("time: invalid duration {}", quoted(text));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    // Go counts in nanoseconds of 64 bits, of which one is for the sign.
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (whole, after) = split_digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => split_digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let unit_end = after.find(|c: char| c == '.' || c.is_ascii_digit());
        let (unit, after) = after.split_at(unit_end.unwrap_or(after.len()));
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {}", quoted(text)));
        }
        let Some(nanos) = unit_nanos(unit) else {
            return Err(format!(
                "time: unknown unit {} in duration {}",
                quoted(unit),
                quoted(text)
            ));
        };
        let whole = if whole.is_empty() {
            Some(0)
        } else {
            whole.parse().ok()
        };
        let part = whole
            .and_then(|whole: u64| whole.checked_mul(nanos))
            .and_then(|whole| whole.checked_add(fraction_nanos(fraction, nanos)));
        total = part
            .and_then(|part| total.checked_add(part))
            .filter(|total| *total <= 1 << 63)
            .ok_or_else(invalid)?;
        rest = after;
    }
    if negative {
        return Ok(Duration::ZERO);
    }
    if total > i64::MAX as u64 {
        return Err(invalid());
    }
    Ok(Duration::from_nanos(total))
}

/// The decimal digits at the beginning, and what follows.
fn split_digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text.split_at(end.unwrap_or(text.len()))
}

fn unit_nanos(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        // Two characters look like this one.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// `0.digits` of a unit, rounded down. Digits that do not fit change nothing.
fn fraction_nanos(digits: &str, unit: u64) -> u64 {
    let (mut value, mut scale) = (0_u128, 1_u128);
    for digit in digits.bytes().take(18) {
        value = value * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    u64::try_from(u128::from(unit) * value / scale).unwrap_or(0)
}

/// Text as Go quotes it in these errors: what is not printable ASCII is written in hexadecimal. At most 64 bytes of it.
fn quoted(text: &str) -> String {
    const MOST: usize = 64;
    let mut quoted = String::from("\"");
    for byte in text.bytes().take(MOST) {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b' '..=b'~' => quoted.push(char::from(byte)),
            _ => drop(write!(quoted, "\\x{byte:02x}")),
        }
    }
    if text.len() > MOST {
        quoted.push('…');
    }
    quoted.push('"');
    quoted
}

/// Writes a span as Go does: `20s`, `1m30s`, `500ms`, `1h0m0s`. What Go cannot hold is written as the longest that it can.
pub fn format_duration(span: Duration) -> String {
    let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    let nanos = nanos.min(i64::MAX as u64);
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < 1_000_000_000 {
        let (unit, name) = match nanos {
            1_000_000.. => (1_000_000, "ms"),
            1_000.. => (1_000, "µs"),
            _ => (1, "ns"),
        };
        return format!("{}{name}", decimal(nanos, unit));
    }
    let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
    let seconds = decimal(rest, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// `value / unit` without zeros at its end. `unit` is a power of ten.
fn decimal(value: u64, unit: u64) -> String {
    let (whole, fraction) = (value / unit, value % unit);
    if fraction == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let text = format!("{whole}.{fraction:0width$}");
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_go_reads_them() {
        let millis = Duration::from_millis;
        for (text, span) in [
            ("20s", millis(20_000)),
            ("1m30s", millis(90_000)),
            ("500ms", millis(500)),
            ("1.5h", millis(5_400_000)),
            (".5s", millis(500)),
            ("5.s", millis(5_000)),
            ("+1s", millis(1_000)),
            ("0", Duration::ZERO),
            ("-0", Duration::ZERO),
            ("-5s", Duration::ZERO),
            ("1us1µs1μs", Duration::from_micros(3)),
            (
                "9223372036854775807ns",
                Duration::from_nanos(i64::MAX as u64),
            ),
            (
                "0.3333333333333333333h",
                Duration::from_secs(1200) - Duration::from_nanos(1),
            ),
        ] {
            assert_eq!(parse_duration(text), Ok(span), "{text}");
        }
    }

    #[test]
    fn an_error_is_in_gos_words() {
        for (text, error) in [
            ("", "time: invalid duration \"\""),
            ("-", "time: invalid duration \"-\""),
            ("s", "time: invalid duration \"s\""),
            (".s", "time: invalid duration \".s\""),
            ("20", "time: missing unit in duration \"20\""),
            ("20 s", "time: unknown unit \" s\" in duration \"20 s\""),
            ("1d", "time: unknown unit \"d\" in duration \"1d\""),
            ("1mm", "time: unknown unit \"mm\" in duration \"1mm\""),
            (" 20s", "time: invalid duration \" 20s\""),
            (
                "9223372036854775808ns",
                "time: invalid duration \"9223372036854775808ns\"",
            ),
            (
                "99999999999999999999s",
                "time: invalid duration \"99999999999999999999s\"",
            ),
            ("3000000h", "time: invalid duration \"3000000h\""),
            ("\u{1b}\"", "time: invalid duration \"\\x1b\\\"\""),
            (
                "1ü",
                "time: unknown unit \"\\xc3\\xbc\" in duration \"1\\xc3\\xbc\"",
            ),
        ] {
            assert_eq!(parse_duration(text).unwrap_err(), error, "{text}");
        }
        assert!(parse_duration(&"x".repeat(1 << 20)).unwrap_err().len() < 200);
    }

    #[test]
    fn spans_are_written_as_go_writes_them() {
        let nanos = Duration::from_nanos;
        for (span, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (500_000_000, "500ms"),
            (20_000_000_000, "20s"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (3_661_001_000_000, "1h1m1.001s"),
        ] {
            assert_eq!(format_duration(nanos(span)), text);
            assert_eq!(parse_duration(text), Ok(nanos(span)));
        }
        assert_eq!(format_duration(Duration::MAX), "2562047h47m16.854775807s");
    }
}
