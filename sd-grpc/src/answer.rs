//! A server's answer, as far as it was read before it becomes the caller's.
//!
//! Headers alone prove little: a server may die between them and its message, and the caller has seen nothing yet. A call that
//! may be sent again is therefore read further, as far as [`AnsweredBy`](crate::AnsweredBy) says. A message mostly comes
//! together with its headers and its end: then this is polling that the caller is spared.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Response, StatusCode};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::connection::StreamPermit;
use crate::options::AnsweredBy;
use crate::request_body::Sending;
use crate::response_body::ResponseBody;

const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// A server that asks for more patience than this gets no further attempt.
const LONGEST_PUSHBACK: Duration = Duration::from_mins(1);

/// An answer that is longer than this becomes the caller's before its end.
pub(crate) const MOST_HELD: usize = 64 * 1024;

/// What the server says about sending again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushback {
    After(Duration),
    Never,
}

/// The beginning of a body. Allocates only for a message that came in pieces.
#[derive(Debug, Default)]
pub(crate) struct Beginning {
    first: Option<Bytes>,
    more: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Beginning {
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none() && self.more.is_empty() && self.trailers.is_none()
    }

    /// The next frame, in the order in which they came.
    pub(crate) fn next(&mut self) -> Option<Frame<Bytes>> {
        let data = self.first.take().or_else(|| self.more.pop_front());
        data.map(Frame::data)
            .or_else(|| self.trailers.take().map(Frame::trailers))
    }

    /// Reads until this is an answer by `until`. Ready with `false` for every frame before.
    fn poll_read(
        &mut self,
        body: &mut Incoming,
        until: AnsweredBy,
        cx: &mut Context<'_>,
    ) -> Poll<hyper::Result<bool>> {
        let Some(frame) = ready!(Pin::new(body).poll_frame(cx)).transpose()? else {
            return Poll::Ready(Ok(true));
        };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                self.trailers = frame.into_trailers().ok();
                return Poll::Ready(Ok(true));
            }
        };
        if data.is_empty() {
            return Poll::Ready(Ok(false));
        }
        if self.first.is_none() {
            self.first = Some(data);
        } else {
            self.more.push_back(data);
        }
        let held = self.first.iter().chain(&self.more).map(Bytes::len);
        Poll::Ready(Ok(
            until != AnsweredBy::End || held.sum::<usize>() > MOST_HELD
        ))
    }
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
        let code = match &self.beginning.trailers {
            Some(trailers) => status_in(trailers),
            None => bare_status(&self.response),
        };
        code.unwrap_or(Code::Ok)
    }

    pub(crate) fn pushback(&self) -> Option<Pushback> {
        let trailers = self.beginning.trailers.as_ref();
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
