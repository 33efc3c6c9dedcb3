//! Response bodies: hold the call's place on its connection until the end, and keep to its deadline.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Code, Status};

use crate::beginning::Beginning;
use crate::deadline;
use crate::incoming::Incoming;
use crate::observed::Observed;
use crate::options::AttemptInfo;
use crate::permit::StreamPermit;
use crate::request_body::Sending;
use crate::server_status;
use crate::status;

pub(crate) struct ResponseBody {
    /// What was read before the body became the caller's.
    beginning: Beginning,
    /// `None` after the end. Dropping it resets the stream.
    open: Option<Open>,
    deadline: Option<Instant>,
    /// Made when the body first has to wait: a unary response is mostly there with its headers.
    timer: Option<Pin<Box<Sleep>>>,
    /// There was nothing to read when it was polled last.
    is_waiting: bool,
    attempts: u32,
    observed: Observed,
}

struct Open {
    incoming: Incoming,
    /// Where the request is a stream: ends with the response, and before the place is free.
    _sending: Option<Sending>,
    permit: StreamPermit,
}

impl ResponseBody {
    pub(crate) fn new(
        beginning: Beginning,
        incoming: Incoming,
        sending: Option<Sending>,
        mut permit: StreamPermit,
        deadline: Option<Instant>,
        attempts: u32,
        observed: Observed,
    ) -> Self {
        // Not every caller polls a body that is known to have ended.
        if beginning.trailers().is_some() || (beginning.is_empty() && incoming.is_end_stream()) {
            permit.succeeded();
        }
        Self {
            beginning,
            open: Some(Open {
                incoming,
                _sending: sending,
                permit,
            }),
            deadline,
            timer: None,
            is_waiting: false,
            attempts,
            observed,
        }
    }

    fn is_late(&mut self, cx: &mut Context<'_>, must_wait: bool) -> bool {
        match self.deadline {
            None => false,
            Some(deadline) if must_wait => self
                .timer
                .get_or_insert_with(|| Box::pin(sleep_until(deadline)))
                .as_mut()
                .poll(cx)
                .is_ready(),
            Some(deadline) => Instant::now() >= deadline,
        }
    }

    /// The server's silence counts from the first time that there is nothing to read.
    fn wait(&mut self) {
        if let Some(open) = &mut self.open
            && !std::mem::replace(&mut self.is_waiting, true)
        {
            open.permit.wait();
        }
    }

    fn end(&mut self) -> Option<(StreamPermit, AttemptInfo)> {
        let Open { permit, .. } = self.open.take()?;
        let attempt = permit.info(self.attempts);
        Some((permit, attempt))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(open) = &mut this.open else {
            return Poll::Ready(None);
        };
        let polled = match this.beginning.next() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => open.incoming.poll_frame(cx),
        };
        let failure = match polled {
            Poll::Ready(None) => {
                open.permit.succeeded();
                this.open = None;
                this.observed.ended(Code::Unknown);
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Err(error))) => Some(error),
            Poll::Pending if !this.is_late(cx, true) => {
                this.wait();
                return Poll::Pending;
            }
            Poll::Ready(Some(Ok(mut frame))) if !this.is_late(cx, false) => {
                this.is_waiting = false;
                if let Some(trailers) = frame.trailers_mut() {
                    // The trailers of `Incoming` have one.
                    let mut code = server_status::code_in(trailers).unwrap_or(Code::Unknown);
                    if code == Code::Cancelled && deadline::may_have_passed(this.deadline) {
                        let why = "the deadline passed at the server";
                        code = Code::DeadlineExceeded;
                        server_status::set_status(trailers, code, why);
                    }
                    this.observed.ended(code);
                    // Nothing can follow, and not every caller polls for it.
                    if let Some(mut open) = this.open.take() {
                        open.permit.answered(code);
                        let info = || open.permit.info(this.attempts);
                        if let Some(status) = status::by_server(code, trailers, info) {
                            return Poll::Ready(Some(Err(status)));
                        }
                    }
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            Poll::Pending | Poll::Ready(Some(Ok(_))) => None,
        };
        let Some((mut permit, attempt)) = this.end() else {
            return Poll::Ready(None);
        };
        let status = match failure {
            Some(error)
                if status::is_cancelled(&error) && deadline::may_have_passed(self.deadline) =>
            {
                status::deadline_exceeded("at the server", Some(attempt))
            }
            Some(error) => status::broken(error, permit.connection().close_reason(), attempt),
            None => {
                permit.gave_up();
                status::deadline_exceeded("while the response was read", Some(attempt))
            }
        };
        permit.failed(status.code());
        self.observed.ended(status.code());
        Poll::Ready(Some(Err(status)))
    }

    fn is_end_stream(&self) -> bool {
        self.open
            .as_ref()
            .is_none_or(|open| self.beginning.is_empty() && open.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.open {
            None => SizeHint::with_exact(0),
            Some(_) => SizeHint::default(),
        }
    }
}
