//! Request bodies that can be sent again.
//!
//! A unary request is read at once: its message stays as shared bytes, and sending it again copies nothing. It is known to be the
//! last when it is sent, which saves a frame. A streamed request is recorded while it is sent, up to
//! [`REPLAY_BYTES`](crate::replay_budget::REPLAY_BYTES), as far as the channel's budget goes, and until the answer is the caller's.
//!
//! The connection's task goes on sending a stream even if the response is no longer read. A [`Sending`] ends that.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use h2::Reason;
use http_body::Body as _;
use sd_core::sync::lock;
use tonic::Status;
use tonic::body::Body;

use crate::replay_budget::{ReplayBudget, ReplayShare};

/// The body of a call, from which each attempt gets its own.
#[derive(Debug)]
pub(crate) enum CallBody {
    /// All there is to send.
    Whole(Option<Bytes>),
    /// A stream, and what was taken from it so far.
    Stream(Arc<Tape>),
}

impl CallBody {
    /// Reads what is there without waiting.
    ///
    /// # Errors
    /// The body's own error.
    pub(crate) fn read(
        mut body: Body,
        budget: &Arc<ReplayBudget>,
        cx: &mut Context<'_>,
    ) -> Result<Self, Status> {
        let mut recorded = Vec::new();
        // A unary body is one message and the end. One more message makes it a stream.
        while recorded.len() < 2 {
            match Pin::new(&mut body).poll_frame(cx) {
                Poll::Ready(None) if recorded.len() < 2 => {
                    return Ok(Self::Whole(recorded.pop()));
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => recorded.push(data),
                    Err(_) => {
                        return Err(Status::internal("a gRPC request must not have trailers"));
                    }
                },
                Poll::Ready(Some(Err(status))) => return Err(status),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        let mut share = ReplayShare::of(budget);
        let reel = Reel {
            source: body,
            recording: share.take(recorded.iter().map(Bytes::len).sum()),
            recorded,
            position: 0,
            share,
            complete: true,
            ended: false,
        };
        Ok(Self::Stream(Arc::new(Tape {
            attempt: AtomicU32::new(0),
            reader: AtomicWaker::new(),
            reel: Mutex::new(reel),
        })))
    }

    /// The body for the next attempt; `None` if what was sent before is no longer known.
    pub(crate) fn attempt(&self) -> Option<RequestBody> {
        match self {
            Self::Whole(data) => Some(RequestBody::Whole(data.clone())),
            Self::Stream(tape) => {
                let mut reel = tape.reel();
                if !reel.complete {
                    return None;
                }
                reel.position = 0;
                Some(RequestBody::Stream(Replay {
                    tape: Arc::clone(tape),
                    attempt: tape.next_attempt(),
                }))
            }
        }
    }

    /// What ends the sending of the attempt that was made last. `None` where all is given to h2.
    pub(crate) fn sending(&self) -> Option<Sending> {
        match self {
            Self::Whole(_) => None,
            Self::Stream(tape) => Some(Sending(Arc::clone(tape))),
        }
    }

    /// Whether another attempt is possible.
    pub(crate) fn can_repeat(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Stream(tape) => tape.reel().complete,
        }
    }

    /// Whether another attempt needs nothing more of the caller.
    pub(crate) fn is_known(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Stream(tape) => {
                let reel = tape.reel();
                reel.complete && reel.ended
            }
        }
    }

    /// The answer is the caller's: nothing will be sent again.
    pub(crate) fn commit(&self) {
        if let Self::Stream(tape) = self {
            tape.reel().commit();
        }
    }
}

/// A stream and the record of its beginning, of which the latest attempt reads.
#[derive(Debug)]
pub(crate) struct Tape {
    /// The attempt that may read. An abandoned one may still be polled until it is dropped. Not under the lock, because the
    /// user's stream may hold the response, and let it go while it is polled.
    attempt: AtomicU32,
    /// Waits for the next frame.
    reader: AtomicWaker,
    reel: Mutex<Reel>,
}

#[derive(Debug)]
struct Reel {
    source: Body,
    recorded: Vec<Bytes>,
    /// How many of them the latest attempt has read.
    position: usize,
    /// What they take from the channel's budget.
    share: ReplayShare,
    recording: bool,
    /// Whether `recorded` holds everything that was taken from the source.
    complete: bool,
    /// Whether the source has nothing more.
    ended: bool,
}

/// The sending of a call's stream. Ends when this is dropped: a request whose answer is no longer awaited would keep its place
/// at the server.
#[derive(Debug)]
pub(crate) struct Sending(Arc<Tape>);

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.next_attempt();
    }
}

impl Tape {
    /// The user's stream is the only foreign code under the lock, and its panics are caught: nothing poisons the lock.
    fn reel(&self) -> MutexGuard<'_, Reel> {
        lock(&self.reel)
    }

    /// Ends the sending of the attempt before.
    fn next_attempt(&self) -> u32 {
        let attempt = self.attempt.fetch_add(1, Ordering::SeqCst) + 1;
        self.reader.wake();
        attempt
    }
}

impl Reel {
    fn keep(&mut self, data: &Bytes) {
        if self.recording && self.share.take(data.len()) {
            self.recorded.push(data.clone());
            self.position = self.recorded.len();
        } else {
            self.recording = false;
            self.forget();
        }
    }

    /// Lets go what was read: it will not be played again.
    fn forget(&mut self) {
        self.recorded = self.recorded.split_off(self.position);
        self.position = 0;
        self.complete = false;
        if self.recorded.is_empty() {
            self.share.give_back();
        }
    }

    fn commit(&mut self) {
        self.recording = false;
        self.forget();
    }
}

/// The body of one attempt.
#[derive(Debug)]
pub(crate) enum RequestBody {
    Whole(Option<Bytes>),
    Stream(Replay),
}

/// Plays the tape from its beginning, then goes on with the source.
#[derive(Debug)]
pub(crate) struct Replay {
    tape: Arc<Tape>,
    attempt: u32,
}

impl Replay {
    /// Ready when another attempt reads, or none does.
    pub(crate) fn poll_abandoned(&self, cx: &Context<'_>) -> Poll<()> {
        let is_abandoned = || self.tape.attempt.load(Ordering::SeqCst) != self.attempt;
        if !is_abandoned() {
            self.tape.reader.register(cx.waker());
        }
        // Looked at after the waker is there: it is not abandoned unseen.
        if is_abandoned() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// The next message, or with what reason the stream is to be reset.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Reason>>> {
        let tape = Arc::clone(&self.tape);
        let mut reel = tape.reel();
        // Under the lock: another attempt begins by rewinding.
        if self.poll_abandoned(cx).is_ready() {
            return Poll::Ready(Some(Err(Reason::CANCEL)));
        }
        if let Some(data) = reel.recorded.get(reel.position).cloned() {
            reel.position += 1;
            return Poll::Ready(Some(Ok(data)));
        }
        if !reel.recording && !reel.recorded.is_empty() {
            // Played to its end for the last time.
            reel.forget();
        }
        if reel.ended {
            return Poll::Ready(None);
        }
        let source = &mut reel.source;
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(source).poll_frame(cx)));
        let polled = polled.unwrap_or_else(|_| {
            // This is the connection's task: the panic must cost this call alone.
            reel.source = Body::empty();
            let status = Status::internal("the request stream panicked");
            Poll::Ready(Some(Err(status)))
        });
        match ready!(polled) {
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else {
                    // A gRPC request must not have trailers.
                    reel.complete = false;
                    return Poll::Ready(Some(Err(Reason::INTERNAL_ERROR)));
                };
                reel.keep(&data);
                Poll::Ready(Some(Ok(data)))
            }
            Some(Err(_)) => {
                // The source cannot fail twice.
                reel.complete = false;
                Poll::Ready(Some(Err(Reason::INTERNAL_ERROR)))
            }
            None => {
                reel.ended = true;
                Poll::Ready(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt, stream};
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;
    use crate::replay_budget::REPLAY_BYTES;

    fn read(body: Body) -> CallBody {
        read_within(&Arc::new(ReplayBudget::new(usize::MAX)), body)
    }

    fn read_within(budget: &Arc<ReplayBudget>, body: Body) -> CallBody {
        let waker = futures_util::task::noop_waker();
        CallBody::read(body, budget, &mut Context::from_waker(&waker)).unwrap()
    }

    /// Whether the budget has exactly this much left.
    fn has_left(budget: &Arc<ReplayBudget>, bytes: usize) -> bool {
        let mut all = ReplayShare::of(budget);
        all.take(bytes) && !ReplayShare::of(budget).take(1)
    }

    fn body(messages: Vec<Bytes>) -> Body {
        let frames = messages
            .into_iter()
            .map(|m| Ok::<_, Infallible>(Frame::data(m)));
        Body::new(StreamBody::new(stream::iter(frames)))
    }

    fn message(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    /// The messages of an attempt, one after another.
    struct Messages(RequestBody);

    impl Messages {
        fn of(call: &CallBody) -> Self {
            Self(call.attempt().unwrap())
        }

        async fn next(&mut self) -> Option<Result<Bytes, Reason>> {
            match &mut self.0 {
                RequestBody::Whole(message) => message.take().map(Ok),
                RequestBody::Stream(replay) => {
                    std::future::poll_fn(|cx| replay.poll_next(cx)).await
                }
            }
        }

        async fn text(mut self) -> String {
            let mut bytes = Vec::new();
            while let Some(message) = self.next().await {
                bytes.extend(message.unwrap());
            }
            String::from_utf8(bytes).unwrap()
        }
    }

    #[tokio::test]
    async fn one_message_is_sent_with_its_end_and_can_be_sent_again() {
        let call = read(body(vec![message("hello")]));
        for _ in 0..2 {
            let mut attempt = Messages::of(&call);
            assert_eq!(attempt.next().await.unwrap().unwrap(), "hello");
            assert!(attempt.next().await.is_none());
        }
        let empty = read(body(vec![]));
        assert!(matches!(empty.attempt(), Some(RequestBody::Whole(None))));
    }

    #[tokio::test]
    async fn a_stream_plays_again_from_its_beginning_and_goes_on() {
        let call = read(body(vec![
            message("a"),
            message("b"),
            message("c"),
            message("d"),
        ]));
        let mut first = Messages::of(&call);
        for _ in 0..3 {
            first.next().await.unwrap().unwrap();
        }
        let second = Messages::of(&call);
        assert!(
            first.next().await.unwrap().is_err(),
            "the first was abandoned"
        );
        assert_eq!(second.text().await, "abcd");
        assert_eq!(Messages::of(&call).text().await, "abcd");
    }

    #[tokio::test]
    async fn a_response_that_begins_during_the_replay_loses_no_message() {
        let call = read(body(vec![
            message("a"),
            message("b"),
            message("c"),
            message("d"),
        ]));
        assert_eq!(Messages::of(&call).text().await, "abcd");
        let mut second = Messages::of(&call);
        second.next().await.unwrap().unwrap();
        call.commit();
        assert_eq!(second.text().await, "bcd");
        assert!(!call.can_repeat());
    }

    #[tokio::test]
    async fn a_stream_longer_than_the_tape_cannot_be_sent_again_but_arrives_whole() {
        let block = Bytes::from(vec![b'x'; REPLAY_BYTES / 2]);
        let call = read(body(vec![
            block.clone(),
            block.clone(),
            block.clone(),
            block,
        ]));
        let sent = Messages::of(&call);
        assert!(call.can_repeat());
        assert_eq!(sent.text().await.len(), 2 * REPLAY_BYTES);
        assert!(!call.can_repeat());
        assert!(call.attempt().is_none());
    }

    #[tokio::test]
    async fn streams_share_a_budget_and_give_back_what_they_took() {
        let budget = Arc::new(ReplayBudget::new(5));
        let four = || body(["a", "b", "c", "d"].map(message).to_vec());
        let (first, second) = (read_within(&budget, four()), read_within(&budget, four()));
        assert_eq!(Messages::of(&first).text().await, "abcd");
        assert!(!first.can_repeat(), "three were all that was left for it");
        assert!(
            has_left(&budget, 3),
            "the first gave back what it cannot use"
        );
        assert_eq!(Messages::of(&second).text().await, "abcd");
        assert!(second.can_repeat());
        assert!(has_left(&budget, 1));
        drop(second);
        assert!(has_left(&budget, 5));
    }

    #[tokio::test]
    async fn a_quiet_stream_keeps_nothing_once_its_response_has_begun() {
        let budget = Arc::new(ReplayBudget::new(5));
        let quiet = stream::iter(["a", "b", "c"])
            .map(|text| Ok::<_, Infallible>(Frame::data(message(text))))
            .chain(stream::pending());
        let call = read_within(&budget, Body::new(StreamBody::new(quiet)));
        let mut sent = Messages::of(&call);
        for _ in 0..3 {
            sent.next().await.unwrap().unwrap();
        }
        assert!(has_left(&budget, 2));
        call.commit();
        assert!(has_left(&budget, 5));
    }

    #[tokio::test]
    async fn a_stream_that_has_nothing_yet_is_no_whole_body() {
        let (messages, receiver) = tokio::sync::mpsc::channel(1);
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver)
            .map(|data: Bytes| Ok::<_, Infallible>(Frame::data(data)));
        let call = read(Body::new(StreamBody::new(stream)));
        messages.send(message("late")).await.unwrap();
        drop(messages);
        assert_eq!(Messages::of(&call).text().await, "late");
    }
}
