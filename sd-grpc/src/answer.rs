//! A server's answer, as far as it was read before it becomes the caller's.
//!
//! Headers alone prove little: a server may die between them and its message, and the caller has seen nothing yet. A call that
//! may be sent again is therefore read further, as far as [`AnsweredBy`](crate::AnsweredBy) says. A message mostly comes
//! together with its headers and its end: then this is polling that the caller is spared.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::beginning::Beginning;
use crate::connection::StreamPermit;
use crate::options::AnsweredBy;
use crate::request_body::Sending;
use crate::response_body::ResponseBody;

const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// A server that asks for more patience than this gets no further attempt.
const LONGEST_PUSHBACK: Duration = Duration::from_secs(60);

/// What the server says about sending again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushback {
    After(Duration),
    Never,
}

pub(crate) struct Answer {
    /// Ends the request with the response.
    sending: Option<Sending>,
    response: Response<Incoming>,
    beginning: Beginning,
}

impl Answer {
    pub(crate) fn new(response: Response<Incoming>, sending: Option<Sending>) -> Self {
        Self {
            sending,
            response,
            beginning: Beginning::default(),
        }
    }

    /// Reads until this is an answer by `until`. Calls `waits` whenever there is nothing more yet.
    pub(crate) async fn read(
        &mut self,
        until: AnsweredBy,
        mut waits: impl FnMut(),
    ) -> hyper::Result<()> {
        if until == AnsweredBy::Headers || bare_status(&self.response).is_some() {
            return Ok(());
        }
        let (beginning, body) = (&mut self.beginning, self.response.body_mut());
        let mut is_waiting = false;
        let reading = poll_fn(|cx| {
            loop {
                let Poll::Ready(read) = beginning.poll_read(body, until, cx) else {
                    // It may be polled again for other reasons.
                    if !is_waiting {
                        is_waiting = true;
                        waits();
                    }
                    return Poll::Pending;
                };
                is_waiting = false;
                if read? {
                    return Poll::Ready(Ok(()));
                }
            }
        });
        reading.await
    }

    /// The status that it ends with, as far as it was read. OK where it is not known yet.
    pub(crate) fn code(&self) -> Code {
        let code = match self.beginning.trailers() {
            Some(trailers) => status_in(trailers),
            None => bare_status(&self.response),
        };
        code.unwrap_or(Code::Ok)
    }

    pub(crate) fn pushback(&self) -> Option<Pushback> {
        let trailers = self.beginning.trailers();
        pushback_in(trailers.unwrap_or_else(|| self.response.headers()))
    }

    /// Makes it the caller's.
    pub(crate) fn into_response(
        self,
        permit: StreamPermit,
        deadline: Option<Instant>,
        attempts: u32,
    ) -> Response<tonic::body::Body> {
        let Self {
            sending,
            response,
            beginning,
        } = self;
        let info = permit.info(attempts);
        let mut response = response.map(|body| {
            let body = ResponseBody::new(beginning, body, sending, permit, deadline, attempts);
            tonic::body::Body::new(body)
        });
        response.extensions_mut().insert(info);
        response
    }
}

fn status_in(headers: &HeaderMap) -> Option<Code> {
    let code = headers.get(Status::GRPC_STATUS)?;
    Some(Code::from_bytes(code.as_bytes()))
}

/// The status of a response whose headers are all of it; of one that is no gRPC at all, what gRPC makes of it.
fn bare_status(response: &Response<Incoming>) -> Option<Code> {
    status_in(response.headers()).or_else(|| match response.status() {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Some(Code::Unavailable),
        _ => None,
    })
}

fn pushback_in(headers: &HeaderMap) -> Option<Pushback> {
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
