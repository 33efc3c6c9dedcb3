//! Reading a request's body, within bounds, and what is wrong with it in words.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http::StatusCode;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::failure::Failure;
use super::plain_words::{EXPECTED_U16, in_plain_words};

/// How much of a body that is too large is read nevertheless, in times of what is allowed, and for how long: a client that is still
/// sending would see a broken connection in place of the answer.
const READ_ON: usize = 4;
const READ_ON_FOR: Duration = Duration::from_secs(1);

/// Reads a body of at most `most` bytes, within `limit`.
pub(in crate::daemon) async fn read(
    body: Body,
    most: usize,
    limit: Duration,
) -> Result<Bytes, Failure> {
    if body.size_hint().lower() > most.saturating_mul(READ_ON) as u64 {
        return Err(too_large(most));
    }
    timeout(limit, collect(body, most))
        .await
        .unwrap_or_else(|_| {
            let text = format!("the body did not arrive within {limit:?}");
            let failure = Failure::new(StatusCode::REQUEST_TIMEOUT, "timeout", text);
            Err(failure.leaving_the_rest_unread())
        })
}

async fn collect(mut body: Body, most: usize) -> Result<Bytes, Failure> {
    let mut read = Vec::new();
    while let Some(part) = next(&mut body).await? {
        if read.len() + part.len() > most {
            drop(read);
            let rest = async {
                let mut count = 0;
                while count < most.saturating_mul(READ_ON)
                    && let Ok(Some(part)) = next(&mut body).await
                {
                    count += part.len();
                }
            };
            // However that ends, the answer is the same.
            let _ = timeout(READ_ON_FOR, rest).await;
            return Err(too_large(most));
        }
        read.extend_from_slice(&part);
    }
    Ok(read.into())
}

/// The next bytes of a body.
async fn next(body: &mut Body) -> Result<Option<Bytes>, Failure> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let text = format!("the body ended early: {error}");
            Failure::bad_request(text).leaving_the_rest_unread()
        })?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

fn too_large(most: usize) -> Failure {
    let text = format!("the body is larger than {most} bytes");
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", text).leaving_the_rest_unread()
}

/// The value that a body is the JSON of. What is wrong is told with the field and its place.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    match body.trim_ascii_start().first() {
        Some(b'{') => {}
        None => {
            return Err(Failure::bad_request(
                "the body is empty: send a JSON object",
            ));
        }
        // The values of a list would be taken for the fields in their order.
        Some(_) => return Err(Failure::bad_request("the body is no JSON object")),
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        wrong(&path, &error.into_inner())
    })?;
    json.end().map_err(|error| wrong("", &error))?;
    Ok(value)
}

/// The place comes first, since a long text is cut at its end.
fn wrong(path: &str, error: &serde_json::Error) -> Failure {
    let place = format!("line {} column {}", error.line(), error.column());
    let text = error.to_string();
    let text = text.strip_suffix(&format!(" at {place}")).unwrap_or(&text);
    let mut text = in_plain_words(text);
    // No port is 0.
    if path == "port" && text.ends_with(EXPECTED_U16) {
        text = text.replace("from 0 to", "from 1 to").into();
    }
    // Which one it is stands in the text.
    let path = match path.rsplit_once('.') {
        _ if !text.starts_with("unknown field `") => path,
        Some((above, _)) => above,
        None => "",
    };
    match path {
        "" | "." | "?" => Failure::bad_request(format_args!("{place}: {text}")),
        path => Failure::bad_request(format_args!("{place}: {path}: {text}")),
    }
}

/// As [`parse`], where no body stands for an empty object.
pub(in crate::daemon) fn parse_or_default<T: DeserializeOwned + Default>(
    body: &[u8],
) -> Result<T, Failure> {
    if body.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    parse(body)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt, stream};
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        inner: Vec<Inner>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        port: u16,
    }

    fn refusal(body: &str) -> String {
        format!("{:?}", parse::<Outer>(body.as_bytes()).unwrap_err())
    }

    #[test]
    fn what_is_wrong_is_told_with_the_field_and_its_place() {
        let told = refusal("{\"inner\": [\n {\"port\": 70000}]}");
        assert!(
            told.contains("line 2 column 15: inner[0].port: invalid value"),
            "{told}"
        );
        let told = refusal("{\"innner\": []}");
        assert!(told.contains("innner"), "{told}");
        let told = refusal("{\"inner\": []} x");
        assert!(told.contains("trailing"), "{told}");
        assert!(refusal("  ").contains("empty"));
        for no_object in [
            "[[]]",
            " \n[[{\"port\": 1}]]",
            "null",
            "1",
            "\"{}\"",
            "\u{feff}{}",
        ] {
            let told = refusal(no_object);
            assert!(told.contains("no JSON object"), "{no_object}: {told}");
        }
        assert_eq!(
            parse::<Outer>(b" \n{\"inner\": []}").unwrap(),
            Outer::default()
        );
        assert!(refusal("{\"\u{9b}2J\": 1}").contains("\\\\u{9b}2J"));
        assert_eq!(parse_or_default::<Outer>(b" ").unwrap(), Outer::default());
    }

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_too_large_or_too_slow_is_given_up() {
        let parts = |count| stream::iter((0..count).map(|_| Ok::<_, Infallible>("123")));
        for too_large in [
            Body::from("12345"),
            Body::from("x".repeat(100)),
            Body::from_stream(parts(2)),
            Body::from_stream(parts(5)),
            // It is not read to its end, which it does not have.
            Body::from_stream(parts(2).chain(stream::pending())),
        ] {
            let refused = read(too_large, 4, LIMIT).await.unwrap_err();
            assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
        }
        let never = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let never = read(never, 4, LIMIT).await.unwrap_err();
        assert_eq!(never.status(), StatusCode::REQUEST_TIMEOUT);
        let fits = read(Body::from("1234"), 4, LIMIT).await.unwrap();
        assert_eq!(fits, "1234");
    }
}
