//! What was read of a response's body before it became the caller's.

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use crate::incoming::Incoming;
use crate::options::AnsweredBy;

/// An answer that is longer than this becomes the caller's before its end.
const MOST_HELD: usize = 64 * 1024;

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

    pub(crate) fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }

    /// The next frame, in the order in which they came.
    pub(crate) fn next(&mut self) -> Option<Frame<Bytes>> {
        let data = self.first.take().or_else(|| self.more.pop_front());
        data.map(Frame::data)
            .or_else(|| self.trailers.take().map(Frame::trailers))
    }

    /// Reads until this is an answer by `until`. Ready with `false` for every frame before.
    pub(crate) fn poll_read(
        &mut self,
        body: &mut Incoming,
        until: AnsweredBy,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, h2::Error>> {
        let Some(frame) = ready!(body.poll_frame(cx)).transpose()? else {
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
