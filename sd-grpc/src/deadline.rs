//! One absolute deadline for a whole call, and its form on the wire.

use std::future::Future;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::{Instant, timeout_at};

/// The header that carries the time left.
pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

const MAX_DIGITS: usize = 8;

/// The time that a request's `grpc-timeout` header gives; `None` without one, or if it cannot be read.
pub(crate) fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > MAX_DIGITS || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// The header value for the time left, as fine as eight digits allow.
pub(crate) fn header_value(left: Duration) -> HeaderValue {
    let text = [
        (left.as_micros(), 'u'),
        (left.as_millis(), 'm'),
        (left.as_secs().into(), 'S'),
    ]
    .into_iter()
    .find(|(value, _)| *value < 10u128.pow(8))
    .map_or_else(
        || "99999999S".to_owned(),
        |(value, unit)| format!("{value}{unit}"),
    );
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text))
        .unwrap_or_else(|_| HeaderValue::from_static("0u"))
}

/// A server counts from when the request arrives, in whole milliseconds of what is left then.
const ROUNDING: Duration = Duration::from_millis(2);

/// Whether a server that was told of the deadline may say that it has passed.
pub(crate) fn may_have_passed(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() + ROUNDING >= deadline)
}

/// The earlier of two moments that may not be.
pub(crate) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The limit was reached first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elapsed;

/// Waits for `work`, until `limit` if there is one. Costs no timer without one.
pub(crate) async fn until<T>(
    limit: Option<Instant>,
    work: impl Future<Output = T>,
) -> Result<T, Elapsed> {
    match limit {
        Some(limit) => timeout_at(limit, work).await.map_err(|_| Elapsed),
        None => Ok(work.await),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_TIMEOUT, HeaderValue::from_str(text).unwrap());
        timeout_of(&headers)
    }

    #[test]
    fn reads_all_units_and_ignores_nonsense() {
        assert_eq!(read("2H"), Some(Duration::from_secs(2 * 3600)));
        assert_eq!(read("3M"), Some(Duration::from_secs(3 * 60)));
        assert_eq!(read("4S"), Some(Duration::from_secs(4)));
        assert_eq!(read("5m"), Some(Duration::from_millis(5)));
        assert_eq!(read("6u"), Some(Duration::from_micros(6)));
        assert_eq!(read("7n"), Some(Duration::from_nanos(7)));
        for nonsense in ["", "m", "123456789m", "-1m", "+1m", "1x", "1 m"] {
            assert_eq!(read(nonsense), None, "{nonsense:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_and_never_grows(micros in 0..u64::MAX / 2) {
            let left = Duration::from_micros(micros);
            let value = header_value(left);
            prop_assert!(value.len() <= MAX_DIGITS + 1);
            prop_assert!(read(value.to_str().unwrap()).unwrap() <= left);
        }

        #[test]
        fn short_times_keep_their_microseconds(micros in 0..100_000_000u64) {
            let left = Duration::from_micros(micros);
            prop_assert_eq!(read(header_value(left).to_str().unwrap()), Some(left));
        }
    }
}
