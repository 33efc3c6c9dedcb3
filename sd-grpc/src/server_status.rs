//! What a server's headers and trailers say about how a call ended, also where the server is none of gRPC's.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const GRPC: &[u8] = b"application/grpc";

/// A server that asks for more patience than this gets no further attempt.
const LONGEST_PUSHBACK: Duration = Duration::from_secs(60);

/// What the server says about sending again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushback {
    After(Duration),
    Never,
}

pub(crate) fn code_in(headers: &HeaderMap) -> Option<Code> {
    let code = headers.get(Status::GRPC_STATUS)?;
    Some(Code::from_bytes(code.as_bytes()))
}

pub(crate) fn pushback_in(headers: &HeaderMap) -> Option<Pushback> {
    let value = headers.get(PUSHBACK)?;
    // Negative or malformed: never.
    let millis = value.to_str().ok().and_then(|text| text.parse().ok());
    let delay = millis.map(Duration::from_millis);
    Some(
        delay
            .filter(|delay| *delay <= LONGEST_PUSHBACK)
            .map_or(Pushback::Never, Pushback::After),
    )
}

/// What gRPC makes of a response that is none of its own, such as a proxy's: code and reason, by its http-grpc-status-mapping.
pub(crate) fn foreign<B>(response: &Response<B>) -> Option<(Code, String)> {
    let headers = response.headers();
    if headers.contains_key(Status::GRPC_STATUS) {
        return None;
    }
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_grpc = kind.is_some_and(|kind| {
        let rest = kind.strip_prefix(GRPC);
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
    });
    let status = response.status();
    if status == StatusCode::OK && is_grpc {
        return None;
    }
    let code = match status {
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
        _ => Code::Unknown,
    };
    let kind = match kind {
        Some(kind) => format!("content type {:?}", String::from_utf8_lossy(kind)),
        None => "no content type".to_owned(),
    };
    let why = format!("answered with HTTP status {} and {kind}", status.as_u16());
    Some((code, why))
}

/// Takes out what would harm the caller: tonic panics at details that are not base64.
pub(crate) fn make_safe(headers: &mut HeaderMap) {
    let Some(details) = headers.get(Status::GRPC_STATUS_DETAILS) else {
        return;
    };
    let mut alone = HeaderMap::new();
    alone.insert(Status::GRPC_STATUS_DETAILS, details.clone());
    let decoded = MetadataMap::from_headers(alone)
        .get_bin(Status::GRPC_STATUS_DETAILS.as_str())
        .is_some_and(|details| details.to_bytes().is_ok());
    if !decoded {
        headers.remove(Status::GRPC_STATUS_DETAILS);
    }
}

/// Makes sure that trailers hold a status, `otherwise` this one.
pub(crate) fn ensure_status(trailers: &mut HeaderMap, otherwise: Code, why: &'static str) {
    if !trailers.contains_key(Status::GRPC_STATUS) {
        set_status(trailers, otherwise, why);
    }
}

/// Replaces the status.
pub(crate) fn set_status(trailers: &mut HeaderMap, code: Code, why: &'static str) {
    trailers.insert(Status::GRPC_STATUS, HeaderValue::from(code as i32));
    trailers.insert(Status::GRPC_MESSAGE, HeaderValue::from_static(why));
    trailers.remove(Status::GRPC_STATUS_DETAILS);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, kind: Option<&str>) -> Response<()> {
        let mut response = Response::builder().status(status);
        if let Some(kind) = kind {
            response = response.header(CONTENT_TYPE, kind);
        }
        response.body(()).unwrap()
    }

    #[test]
    fn what_is_no_grpc_is_mapped_by_its_http_status() {
        let html = Some("text/html");
        for (status, code) in [
            (400, Code::Internal),
            (401, Code::Unauthenticated),
            (403, Code::PermissionDenied),
            (404, Code::Unimplemented),
            (413, Code::Unknown),
            (429, Code::Unavailable),
            (500, Code::Unknown),
            (502, Code::Unavailable),
            (503, Code::Unavailable),
            (504, Code::Unavailable),
            (200, Code::Unknown),
        ] {
            let (found, why) = foreign(&response(status, html)).unwrap();
            assert_eq!(found, code, "{status}");
            assert!(why.contains(&status.to_string()), "{why}");
        }
        for ours in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc; x",
        ] {
            assert_eq!(foreign(&response(200, Some(ours))), None, "{ours}");
            assert!(foreign(&response(503, Some(ours))).is_some(), "{ours}");
        }
        assert!(foreign(&response(200, Some("application/grpc-web"))).is_some());
        assert!(foreign(&response(200, None)).is_some());
    }

    #[test]
    fn a_grpc_status_counts_whatever_the_http_status_is() {
        let mut bare = response(503, Some("text/html"));
        bare.headers_mut()
            .insert(Status::GRPC_STATUS, HeaderValue::from(7));
        assert_eq!(foreign(&bare), None);
    }

    #[test]
    fn only_details_that_can_be_decoded_stay() {
        for (details, stays) in [
            ("AAEC", true),
            ("AAE=", true),
            ("AAE", true),
            ("%%%", false),
            ("A", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(Status::GRPC_STATUS, HeaderValue::from(9));
            let value = HeaderValue::from_str(details).unwrap();
            headers.insert(Status::GRPC_STATUS_DETAILS, value);
            make_safe(&mut headers);
            let status = Status::from_header_map(&headers).unwrap();
            assert_eq!(!status.details().is_empty(), stays, "{details}");
        }
    }
}
