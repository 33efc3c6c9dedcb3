//! The protocol `grpc.health.v1` (github.com/grpc/grpc/blob/master/doc/health-checking.md), one call of it. It is one message with one
//! field each way, so `h2` is enough, and its connection needs no task of its own.

use std::pin::pin;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use sd_core::{Endpoint, brief};

use super::dial::{Authority, LookUps, dial};
use super::http::AGENT;
use super::probe::Answer;

const PATH: &str = "/grpc.health.v1.Health/Check";
const MOST_HEADER_BYTES: u32 = 16 * 1024;
/// An answer has two bytes. One with unknown fields may have some more.
const MOST_BYTES: usize = 1024;

const UNIMPLEMENTED: &str = "12";
const NOT_FOUND: &str = "5";

#[derive(Debug)]
pub(super) struct GrpcProbe {
    endpoint: Endpoint,
    service: String,
    uri: Uri,
    question: Bytes,
}

impl GrpcProbe {
    pub(super) fn new(endpoint: Endpoint, service: &str) -> Result<Self, String> {
        let uri = format!("http://{}{PATH}", Authority(&endpoint));
        Ok(Self {
            uri: uri.parse().map_err(|error| format!("address: {error}"))?,
            endpoint,
            question: framed(&question(service)),
            service: service.to_owned(),
        })
    }

    pub(super) async fn attempt(&self, look_ups: &LookUps) -> Answer {
        let connection = dial(&self.endpoint, look_ups).await?;
        let failed = |error: h2::Error| format!("gRPC at {}: {error}", self.endpoint);
        let (sender, connection) = h2::client::Builder::new()
            .max_header_list_size(MOST_HEADER_BYTES)
            .enable_push(false)
            .handshake::<_, Bytes>(connection)
            .await
            .map_err(failed)?;
        let mut answer = pin!(self.ask(sender));
        // The connection may end with the answer.
        let answer = tokio::select! {
            biased;
            answer = &mut answer => answer,
            _ = connection => answer.await,
        };
        answer.map_err(failed)?
    }

    async fn ask(&self, sender: h2::client::SendRequest<Bytes>) -> Result<Answer, h2::Error> {
        let mut sender = sender.ready().await?;
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = http::Version::HTTP_2;
        for (name, value) in [
            (CONTENT_TYPE, "application/grpc"),
            (TE, "trailers"),
            (USER_AGENT, AGENT),
        ] {
            let value = http::HeaderValue::from_static(value);
            request.headers_mut().insert(name, value);
        }
        let (answer, mut body) = sender.send_request(request, false)?;
        body.send_data(self.question.clone(), true)?;
        let (head, mut body) = answer.await?.into_parts();
        if head.status != StatusCode::OK {
            return Ok(Err(format!(
                "HTTP {}, which is no gRPC server's",
                head.status
            )));
        }
        let mut message = BytesMut::new();
        while let Some(part) = body.data().await {
            let part = part?;
            if message.len() + part.len() > MOST_BYTES {
                return Ok(Err("the answer is too long".to_owned()));
            }
            body.flow_control().release_capacity(part.len())?;
            message.put(part);
        }
        // An answer without a message has its status in the head.
        let trailers = body.trailers().await?.unwrap_or(head.headers);
        Ok(self.judge(&trailers, &message))
    }

    fn judge(&self, trailers: &HeaderMap, message: &[u8]) -> Answer {
        let text = |name: &str| {
            let value = trailers.get(name).map(http::HeaderValue::as_bytes);
            value.map(String::from_utf8_lossy)
        };
        let Some(status) = text("grpc-status") else {
            return Err("the answer has no gRPC status".to_owned());
        };
        match &*status {
            "0" => judge_message(message),
            NOT_FOUND => Err(format!("the server knows no service {:?}", self.service)),
            UNIMPLEMENTED => Err("the server has no grpc.health.v1.Health".to_owned()),
            other => {
                let message = text("grpc-message").unwrap_or_default();
                Err(format!(
                    "gRPC status {}: {}",
                    brief(other),
                    brief(&*message)
                ))
            }
        }
    }
}

/// A `HealthCheckRequest`.
fn question(service: &str) -> Vec<u8> {
    // A default value is not sent.
    if service.is_empty() {
        return Vec::new();
    }
    let mut message = vec![1 << 3 | LENGTH_DELIMITED];
    let mut length = service.len();
    // Seven bits at a time, the lowest first, and the eighth bit says that more follow.
    while length >= 0x80 {
        let [low, ..] = length.to_le_bytes();
        message.push(low | 0x80);
        length >>= 7;
    }
    let [last, ..] = length.to_le_bytes();
    message.push(last);
    message.extend_from_slice(service.as_bytes());
    message
}

/// As gRPC sends a message: not compressed, and with its length.
fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or_default());
    frame.put(message);
    frame.freeze()
}

fn judge_message(frame: &[u8]) -> Answer {
    let message = match frame.split_first_chunk::<5>() {
        Some(([0, length @ ..], message))
            if usize::try_from(u32::from_be_bytes(*length)) == Ok(message.len()) =>
        {
            message
        }
        _ => return Err("the answer is not one message".to_owned()),
    };
    match status(message) {
        Some(1) => Ok("SERVING".to_owned()),
        Some(0) => Err("UNKNOWN".to_owned()),
        Some(2) => Err("NOT_SERVING".to_owned()),
        Some(3) => Err("SERVICE_UNKNOWN".to_owned()),
        Some(other) => Err(format!("the unknown status {other}")),
        None => Err("the answer is no HealthCheckResponse".to_owned()),
    }
}

const VARINT: u8 = 0;
const EIGHT_BYTES: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;
const FOUR_BYTES: u8 = 5;

/// The status in a `HealthCheckResponse`, which may have fields that we do not know.
fn status(mut message: &[u8]) -> Option<u64> {
    // A default value is not sent.
    let mut status = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let wire_type = (key & 7) as u8;
        let skipped = match wire_type {
            VARINT => {
                let value = varint(&mut message)?;
                if key >> 3 == 1 {
                    status = value;
                }
                0
            }
            EIGHT_BYTES => 8,
            FOUR_BYTES => 4,
            LENGTH_DELIMITED => usize::try_from(varint(&mut message)?).ok()?,
            _ => return None,
        };
        message = message.get(skipped..)?;
    }
    Some(status)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use http::Response;
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    use super::*;

    /// How a server answers.
    #[derive(Clone, Debug)]
    struct Says {
        status: u16,
        frame: Vec<u8>,
        /// In the head if there is no frame, else after it.
        trailers: Vec<(&'static str, &'static str)>,
    }

    impl Says {
        fn message(message: &[u8]) -> Self {
            Self {
                status: 200,
                frame: framed(message).to_vec(),
                trailers: vec![("grpc-status", "0")],
            }
        }

        fn error(trailers: &[(&'static str, &'static str)]) -> Self {
            Self {
                status: 200,
                frame: Vec::new(),
                trailers: trailers.to_vec(),
            }
        }
    }

    /// Asks a server for a service. Returns the question as well.
    async fn served(service: &str, says: Says) -> (Answer, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let probe = GrpcProbe::new(address.parse().unwrap(), service).unwrap();
        let server = async {
            let (connection, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(connection).await.unwrap();
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            let (head, mut body) = request.into_parts();
            assert_eq!((head.method.as_str(), head.uri.path()), ("POST", PATH));
            assert_eq!(head.uri.authority().unwrap().as_str(), address);
            assert_eq!(head.headers["content-type"], "application/grpc");
            assert_eq!(head.headers["te"], "trailers");
            let answered = async {
                let mut question = Vec::new();
                while let Some(part) = body.data().await {
                    question.extend_from_slice(&part.unwrap());
                }
                let mut answer = Response::new(());
                *answer.status_mut() = says.status.try_into().unwrap();
                let mut trailers = HeaderMap::new();
                for (name, value) in &says.trailers {
                    trailers.insert(*name, value.parse().unwrap());
                }
                if says.frame.is_empty() {
                    *answer.headers_mut() = trailers;
                    respond.send_response(answer, true).unwrap();
                } else {
                    let mut stream = respond.send_response(answer, false).unwrap();
                    stream.send_data(says.frame.into(), false).unwrap();
                    stream.send_trailers(trailers).unwrap();
                }
                question
            };
            let question = tokio::select! {
                question = answered => question,
                _ = std::future::poll_fn(|context| connection.poll_closed(context)) => panic!("it has gone"),
            };
            // Until the client has closed it.
            let _ = std::future::poll_fn(|context| connection.poll_closed(context)).await;
            question
        };
        let look_ups = LookUps::default();
        tokio::join!(probe.attempt(&look_ups), server)
    }

    #[tokio::test]
    async fn only_a_server_that_says_serving_passes() {
        let long = [0x12, 0x03, b'a', b'b', b'c', 0x08, 0x01];
        for (says, expected) in [
            (Says::message(&[8, 1]), Ok("SERVING")),
            (Says::message(&long), Ok("SERVING")),
            (Says::message(&[]), Err("UNKNOWN")),
            (Says::message(&[8, 2]), Err("NOT_SERVING")),
            (Says::message(&[8, 3]), Err("SERVICE_UNKNOWN")),
            (Says::message(&[8, 9]), Err("the unknown status 9")),
            (
                Says::message(&[8]),
                Err("the answer is no HealthCheckResponse"),
            ),
            (
                Says::message(&[0x12, 0x7f]),
                Err("the answer is no HealthCheckResponse"),
            ),
            (Says::message(&[0; 4096]), Err("the answer is too long")),
            (
                Says {
                    frame: vec![1, 0, 0, 0, 2, 8, 1],
                    ..Says::message(&[])
                },
                Err("the answer is not one message"),
            ),
            (
                Says {
                    trailers: Vec::new(),
                    ..Says::message(&[8, 1])
                },
                Err("the answer has no gRPC status"),
            ),
            (
                Says::error(&[("grpc-status", "5")]),
                Err("the server knows no service \"acme.Greeter\""),
            ),
            (
                Says::error(&[("grpc-status", "12")]),
                Err("the server has no grpc.health.v1.Health"),
            ),
            (
                Says::error(&[("grpc-status", "16"), ("grpc-message", "who are you")]),
                Err("gRPC status 16: who are you"),
            ),
            (
                Says {
                    status: 404,
                    ..Says::error(&[])
                },
                Err("HTTP 404 Not Found, which is no gRPC server's"),
            ),
        ] {
            let (answer, question) = served("acme.Greeter", says.clone()).await;
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(answer, expected, "{says:?}");
            assert_eq!(question, b"\0\0\0\0\x0e\x0a\x0cacme.Greeter");
        }
    }

    #[tokio::test]
    async fn without_a_service_the_server_as_a_whole_is_asked_for() {
        let (answer, question) = served("", Says::message(&[8, 1])).await;
        assert_eq!(
            (answer.unwrap().as_str(), &*question),
            ("SERVING", &[0; 5][..])
        );
        assert_eq!(question_length(&"s".repeat(200)), 3 + 200);
    }

    fn question_length(service: &str) -> usize {
        question(service).len()
    }

    #[tokio::test]
    async fn a_server_of_another_protocol_fails_with_what_is_wrong() {
        use tokio::io::AsyncWriteExt;

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let probe = GrpcProbe::new(address.parse().unwrap(), "").unwrap();
        let server = async {
            let (mut connection, _) = listener.accept().await.unwrap();
            let says = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n";
            let _ = connection.write_all(says).await;
        };
        let look_ups = LookUps::default();
        let (answer, ()) = tokio::join!(probe.attempt(&look_ups), server);
        let error = answer.unwrap_err();
        assert!(
            error.starts_with(&format!("gRPC at {address}: ")),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn no_answer_is_too_odd(frame in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = judge_message(&frame);
            let _ = judge_message(&framed(&frame));
        }
    }
}
