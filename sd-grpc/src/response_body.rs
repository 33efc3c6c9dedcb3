//! Response bodies: hold the call's place on its connection until the end, and keep to its deadline.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

use crate::beginning::Beginning;
use crate::connection::StreamPermit;
use crate::options::AttemptInfo;
use crate::request_body::Sending;
use crate::status;

pub(crate) struct ResponseBody {
    /// What was read before the body became the caller's.
    beginning: Beginning,
    /// `None` after the end. Dropping it resets the stream.
    open: Option<Open>,
    deadline: Option<Instant>,
    /// Made when the body first has to wait: a unary response is mostly there with its headers.
    timer: Option<Pin<Box<Sleep>>>,
    attempts: u32,
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
            attempts,
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
            None => Pin::new(&mut open.incoming).poll_frame(cx),
        };
        let failure = match polled {
            Poll::Ready(None) => {
                open.permit.succeeded();
                this.open = None;
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Err(error))) => Some(error),
            Poll::Pending if !this.is_late(cx, true) => return Poll::Pending,
            Poll::Ready(Some(Ok(frame))) if !this.is_late(cx, false) => {
                if frame.is_trailers() {
                    // Nothing can follow, and not every caller polls for it.
                    if let (Some(mut open), Some(trailers)) =
                        (this.open.take(), frame.trailers_ref())
                    {
                        open.permit.answered(trailers);
                    }
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            Poll::Pending | Poll::Ready(Some(Ok(_))) => None,
        };
        let Some((mut permit, attempt)) = this.end() else {
            return Poll::Ready(None);
        };
        permit.failed();
        Poll::Ready(Some(Err(match failure {
            Some(error) => status::broken(error, permit.close_reason(), attempt),
            None => status::deadline_exceeded("while the response was read", Some(attempt)),
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.open
            .as_ref()
            .is_none_or(|open| self.beginning.is_empty() && open.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.open {
            None => SizeHint::with_exact(0),
            // The rest's own hint says nothing of it.
            Some(_) if !self.beginning.is_empty() => SizeHint::default(),
            Some(open) => open.incoming.size_hint(),
        }
    }
}
