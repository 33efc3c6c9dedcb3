//! A server's answer, as far as it was read before it becomes the caller's.
//!
//! Headers alone prove little: a server may die between them and its message, and the caller has seen nothing yet. A call that
//! may be sent again is therefore read further, as far as [`AnsweredBy`](crate::AnsweredBy) says. A message mostly comes
//! together with its headers and its end: then this is polling that the caller is spared.

use std::future::poll_fn;
use std::task::Poll;

use http::Response;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::beginning::Beginning;
use crate::incoming::Incoming;
use crate::observed::Observed;
use crate::options::AnsweredBy;
use crate::permit::StreamPermit;
use crate::request_body::Sending;
use crate::response_body::ResponseBody;
use crate::server_status::{self, Pushback};
use crate::status;

pub(crate) struct Answer {
    /// Ends the request with the response.
    sending: Option<Sending>,
    response: Response<Incoming>,
    beginning: Beginning,
}

impl Answer {
    /// Of a response that is [gRPC's](server_status::foreign).
    pub(crate) fn new(mut response: Response<Incoming>, sending: Option<Sending>) -> Self {
        server_status::make_safe(response.headers_mut());
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
    ) -> Result<(), h2::Error> {
        if until == AnsweredBy::Headers || server_status::code_in(self.response.headers()).is_some()
        {
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

    /// The status that it ends with, if that was read.
    pub(crate) fn known_code(&self) -> Option<Code> {
        let trailers = self.beginning.trailers();
        server_status::code_in(trailers.unwrap_or_else(|| self.response.headers()))
    }

    /// The status that it ends with, as far as it was read. OK where it is not known yet.
    pub(crate) fn code(&self) -> Code {
        self.known_code().unwrap_or(Code::Ok)
    }

    pub(crate) fn pushback(&self) -> Option<Pushback> {
        let trailers = self.beginning.trailers();
        server_status::pushback_in(trailers.unwrap_or_else(|| self.response.headers()))
    }

    /// Makes it the caller's. It is an error if its headers are a failure and all of it.
    pub(crate) fn into_response(
        self,
        mut permit: StreamPermit,
        deadline: Option<Instant>,
        attempts: u32,
        mut observed: Observed,
    ) -> Result<Response<tonic::body::Body>, Status> {
        if let Some(code) = self.known_code() {
            // Not every caller polls a body that is known to have ended.
            observed.ended(code);
            let info = || permit.info(attempts);
            if self.beginning.trailers().is_none()
                && let Some(status) = status::by_server(code, self.response.headers(), info)
            {
                permit.answered(code);
                return Err(status);
            }
        }
        let Self {
            sending,
            response,
            beginning,
        } = self;
        let info = permit.info(attempts);
        let mut response = response.map(|body| {
            tonic::body::Body::new(ResponseBody::new(
                beginning, body, sending, permit, deadline, attempts, observed,
            ))
        });
        response.extensions_mut().insert(info);
        Ok(response)
    }
}
