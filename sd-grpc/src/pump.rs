//! Sends the rest of a streamed request, in the task of its connection.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};

use crate::request_body::Replay;

/// Ends with the request, when its attempt is abandoned, or when the server wants no more of it.
pub(crate) struct Pump {
    messages: Replay,
    stream: SendStream<Bytes>,
}

impl Pump {
    pub(crate) fn new(messages: Replay, stream: SendStream<Bytes>) -> Self {
        Self { messages, stream }
    }
}

impl Future for Pump {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { messages, stream } = &mut *self;
        loop {
            // First, because neither the server nor the source may ever wake us.
            if messages.poll_abandoned(cx).is_ready() {
                stream.send_reset(Reason::CANCEL);
                return Poll::Ready(());
            }
            // Room for a byte is enough: h2 keeps what exceeds the window, which is at most one message.
            stream.reserve_capacity(1);
            if stream.capacity() == 0 {
                match ready!(stream.poll_capacity(cx)) {
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => return Poll::Ready(()),
                }
            }
            if stream.poll_reset(cx).is_ready() {
                return Poll::Ready(());
            }
            let sent = match ready!(messages.poll_next(cx)) {
                Some(Ok(message)) => stream.send_data(message, false),
                Some(Err(reason)) => {
                    stream.send_reset(reason);
                    return Poll::Ready(());
                }
                None => {
                    // What failed meanwhile is told by the response.
                    let _ = stream.send_data(Bytes::new(), true);
                    return Poll::Ready(());
                }
            };
            if sent.is_err() {
                return Poll::Ready(());
            }
        }
    }
}
