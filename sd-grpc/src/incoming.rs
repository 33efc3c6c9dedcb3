//! What a server sends after its headers.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::Frame;
use tonic::Code;

use crate::server_status;

/// h2 leaves out what exceeds the limit.
const NO_STATUS: &str =
    "the trailers hold no grpc-status, or are larger than max_header_list_size allows";

/// The body of a response, as it comes.
pub(crate) struct Incoming(RecvStream);

impl Incoming {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self(stream)
    }

    /// The next data, or the trailers.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if let Some(data) = ready!(self.0.poll_data(cx)).transpose()? {
            // Who takes a frame has room for the next. This fails only for more than was received.
            let _ = self.0.flow_control().release_capacity(data.len());
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let trailers = ready!(self.0.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|mut trailers| {
            server_status::make_safe(&mut trailers);
            server_status::ensure_status(&mut trailers, Code::Internal, NO_STATUS);
            Ok(Frame::trailers(trailers))
        }))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}
