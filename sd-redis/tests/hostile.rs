//! What answers like no Redis does: nothing of it panics, grows without bound or shows a secret.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::refusing::Refusing;
use common::{LONG, config_at};
use sd_core::ErrorKind;
use tokio::time::Instant;

#[tokio::test]
async fn what_is_no_redis_is_told_as_such_and_shows_no_secret() {
    for (answer, kind, why) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            ErrorKind::Rejected,
            "no Redis or Valkey",
        ),
        (
            b"$99999999999999999999\r\n",
            ErrorKind::Rejected,
            "no Redis or Valkey",
        ),
        (b"*-7\r\n", ErrorKind::Rejected, "no Redis or Valkey"),
        (
            b"$3\r\nabcdef\r\n",
            ErrorKind::Rejected,
            "no Redis or Valkey",
        ),
        (b"+OK\r\n", ErrorKind::Rejected, "no Redis or Valkey"),
        (
            b"*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
            ErrorKind::Rejected,
            "no Redis or Valkey",
        ),
        (
            b"-ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'u' 'sesame'\r\n",
            ErrorKind::Rejected,
            "too old",
        ),
        (
            b"-ERR u may not, sesame is wrong\r\n",
            ErrorKind::Rejected,
            "is not shown",
        ),
        (
            b"-WRONGPASS invalid username-password pair\r\n",
            ErrorKind::Denied,
            "user and password",
        ),
        (b"-NOPERM no permissions\r\n", ErrorKind::Denied, "README"),
        (b"-LOADING reading\r\n", ErrorKind::Unavailable, "LOADING"),
        (
            b"-ERR max number of clients reached\r\n",
            ErrorKind::Unavailable,
            "maxclients",
        ),
    ] {
        let shown = answer.escape_ascii();
        let server = Refusing::with(answer).await;
        let url = server.url().replace("redis://", "redis://u:sesame@");
        let registry = sd_redis::connect(config_at(&url, "p")).unwrap();
        let since = Instant::now();
        let error = registry.list("greeter").await.unwrap_err();
        let report = error.report().to_string();
        assert_eq!(error.kind(), kind, "{shown}: {report}");
        assert!(report.contains(why), "{shown}: {report}");
        assert!(!report.contains("sesame"), "{shown}: {report}");
        assert!(since.elapsed() < LONG / 2, "{shown}");
    }
}

#[tokio::test]
async fn deep_nesting_and_endless_answers_end_with_an_error() {
    let deep: &[u8] = b"*1\r\n".repeat(10_000).leak();
    let endless: &[u8] = b"$536870912\r\nxxxxxxxxxxxxxxxx";
    for answer in [deep, endless] {
        let server = Refusing::with(answer).await;
        let registry = sd_redis::connect(config_at(&server.url(), "p")).unwrap();
        let error = registry.list("greeter").await.unwrap_err();
        let report = error.report().to_string();
        assert!(
            matches!(error.kind(), ErrorKind::Rejected | ErrorKind::Timeout),
            "{report}"
        );
    }
}

#[tokio::test]
async fn where_no_server_is_the_error_says_where_and_why() {
    let registry = sd_redis::connect(config_at("redis://127.0.0.1:1,127.0.0.1:2", "p")).unwrap();
    let error = registry.list("greeter").await.unwrap_err();
    let report = error.report().to_string();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{report}");
    for part in ["127.0.0.1:1", "127.0.0.1:2", "refused"] {
        assert!(report.contains(part), "{report}");
    }
}
