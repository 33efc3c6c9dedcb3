//! One connection of HTTP, and how long it may take: little for the head of a request, and longer for a rest between two.
//!
//! Pools of clients keep connections that rest, those of Go for 90 s. A client that sends a request at the moment in which its server ends
//! the connection sees an error, and so the server is the one that waits longer. Connections that rest are the first to go where others
//! need their places.

mod request_bytes;

use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use hyper::body::{Body as _, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::io::InspectReader;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::request_bytes::RequestBytes;
use super::write_deadline::WriteDeadline;

/// How long a client may take for the head of a request. A connection may rest as long where places are scarce.
pub(crate) const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// How long a connection may rest between two requests otherwise.
const REST_WITHIN: Duration = Duration::from_secs(120);
/// How long a client may take nothing of what is sent to it.
const TAKE_WITHIN: Duration = Duration::from_secs(30);
/// The longest head of a request.
const MOST_HEAD_BYTES: usize = 16 * 1024;
const MOST_HEADERS: usize = 64;

/// What ends a connection.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    /// After the request that is under way.
    pub(crate) stop: CancellationToken,
    /// At once.
    pub(crate) cut: CancellationToken,
    /// If it rests: others need its place.
    pub(crate) scarce: watch::Receiver<bool>,
    /// After the request that is under way: its client is no longer let in.
    pub(crate) revoked: CancellationToken,
}

/// Answers the requests of one connection until it ends.
pub(crate) async fn serve<F>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    answer: impl Fn(Request<Incoming>) -> F,
    mut ends: Ends,
) where
    F: Future<Output = Response<Body>>,
{
    let progress = watch::Sender::new(Progress::BEGIN);
    let stream = InspectReader::new(WriteDeadline::new(stream, TAKE_WITHIN), |bytes| {
        progress.send_if_modified(|progress| progress.read(bytes));
    });
    let service = service_fn(|request: Request<Incoming>| {
        let answering = Answering::begin(&progress, request.body().size_hint().exact());
        let answered = answer(request);
        async move {
            let response = answered.await;
            Ok::<_, Infallible>(response.map(|body| AnsweringBody {
                body,
                _answering: answering,
            }))
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .header_read_timeout(None)
            .max_buf_size(MOST_HEAD_BYTES)
            .max_headers(MOST_HEADERS)
            .serve_connection(TokioIo::new(stream), service)
    );
    let mut is_revoked = false;
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = ends.revoked.cancelled(), if !is_revoked => {
                is_revoked = true;
                connection.as_mut().graceful_shutdown();
            }
            phase = late(&progress, &mut ends.scarce) => match phase {
                Phase::Rest => connection.as_mut().graceful_shutdown(),
                Phase::Head | Phase::Answer => {
                    debug!("the head of a request took too long");
                    return;
                }
            },
            () = ends.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => break ended,
                    () = ends.cut.cancelled() => return,
                }
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended");
    }
}

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The head of a request is to come, all of it.
    Head,
    /// A request is answered.
    Answer,
    /// Nothing of a further request has come.
    Rest,
}

/// What a connection does, and what has come of its requests.
#[derive(Debug)]
struct Progress {
    phase: Phase,
    /// What has come since the last request ended.
    come: RequestBytes,
    /// How long the body is of the request that is answered, if it says so.
    body_bytes: Option<u64>,
    /// The client sends requests before it has its answers. It is not known any more where one begins, so that no time counts as a rest.
    sends_ahead: bool,
}

impl Progress {
    const BEGIN: Self = Self {
        phase: Phase::Head,
        come: RequestBytes::NONE,
        body_bytes: None,
        sends_ahead: false,
    };

    /// Whether the phase is another one now.
    fn read(&mut self, bytes: &[u8]) -> bool {
        if !self.sends_ahead {
            self.come.add(bytes);
        }
        let begins = self.phase == Phase::Rest;
        if begins {
            self.phase = Phase::Head;
        }
        begins
    }

    fn answer(&mut self, body_bytes: Option<u64>) {
        self.phase = Phase::Answer;
        self.body_bytes = body_bytes;
    }

    fn answered(&mut self) {
        self.sends_ahead |= !self.come.end_with_request(self.body_bytes);
        self.come = RequestBytes::NONE;
        self.phase = if self.sends_ahead {
            Phase::Head
        } else {
            Phase::Rest
        };
    }
}

/// Returns the phase that has taken too long.
async fn late(progress: &watch::Sender<Progress>, scarce: &mut watch::Receiver<bool>) -> Phase {
    let mut phases = progress.subscribe();
    loop {
        let now = phases.borrow_and_update().phase;
        let too_long = async {
            if now == Phase::Answer {
                pending::<()>().await;
            }
            sleep(HEAD_WITHIN).await;
            if now == Phase::Rest {
                tokio::select! {
                    // An error says that the address is served no more.
                    _ = scarce.wait_for(|scarce| *scarce) => {}
                    () = sleep(REST_WITHIN.saturating_sub(HEAD_WITHIN)) => {}
                }
            }
        };
        tokio::select! {
            () = too_long => return now,
            // The sender is there.
            _ = phases.changed() => {}
        }
    }
}

/// A request is answered until this is dropped.
struct Answering(watch::Sender<Progress>);

impl Answering {
    fn begin(progress: &watch::Sender<Progress>, body_bytes: Option<u64>) -> Self {
        progress.send_modify(|progress| progress.answer(body_bytes));
        Self(progress.clone())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.send_modify(Progress::answered);
    }
}

/// The body of an answer, which is done when this is dropped.
struct AnsweringBody {
    body: Body,
    _answering: Answering,
}

impl hyper::body::Body for AnsweringBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n";

    /// A connection that is served, and what ends it.
    struct Client {
        stream: DuplexStream,
        scarce: watch::Sender<bool>,
        revoked: CancellationToken,
        _serving: JoinHandle<()>,
    }

    impl Client {
        /// Answers each request after `takes`.
        fn connect(takes: Duration) -> Self {
            let (stream, theirs) = duplex(1024);
            let (scarce, told) = watch::channel(false);
            let revoked = CancellationToken::new();
            let ends = Ends {
                revoked: revoked.clone(),
                stop: CancellationToken::new(),
                cut: CancellationToken::new(),
                scarce: told,
            };
            let answer = move |request: Request<Incoming>| async move {
                let body = axum::body::to_bytes(Body::new(request.into_body()), 1024);
                body.await.unwrap();
                sleep(takes).await;
                Response::new(Body::from("done"))
            };
            Self {
                stream,
                scarce,
                revoked,
                _serving: tokio::spawn(serve(theirs, answer, ends)),
            }
        }

        async fn asks(&mut self) {
            self.sends(REQUEST).await;
        }

        /// Sends this, and reads the first answer.
        async fn sends(&mut self, bytes: &[u8]) {
            self.stream.write_all(bytes).await.unwrap();
            self.reads_answer().await;
        }

        async fn reads_answer(&mut self) {
            let mut answer = Vec::new();
            while !answer.ends_with(b"done") {
                answer.push(self.stream.read_u8().await.unwrap());
            }
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.contains("content-length: 4"), "{answer}");
        }

        /// After how many seconds the server ends the connection.
        async fn ends_after(&mut self) -> u64 {
            let begin = Instant::now();
            assert_eq!(self.stream.read(&mut [0]).await.unwrap(), 0);
            begin.elapsed().as_secs()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_rests_for_longer_than_pools_of_clients_keep_it() {
        let mut client = Client::connect(Duration::ZERO);
        for _ in 0..3 {
            client.asks().await;
            sleep(Duration::from_secs(90)).await;
        }
        client.asks().await;
        assert_eq!(client.ends_after().await, REST_WITHIN.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn where_places_are_scarce_those_that_rest_go_and_none_that_is_answered() {
        let mut resting = Client::connect(Duration::ZERO);
        resting.asks().await;
        sleep(Duration::from_secs(60)).await;
        resting.scarce.send_replace(true);
        assert_eq!(resting.ends_after().await, 0);

        let mut slow = Client::connect(REST_WITHIN * 2);
        slow.scarce.send_replace(true);
        slow.asks().await;
        assert_eq!(slow.ends_after().await, HEAD_WITHIN.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_no_longer_let_in_is_answered_once_more_and_asks_nothing_after_that() {
        let mut resting = Client::connect(Duration::ZERO);
        resting.asks().await;
        resting.revoked.cancel();
        assert_eq!(resting.ends_after().await, 0);

        let mut asking = Client::connect(REST_WITHIN * 2);
        asking.stream.write_all(REQUEST).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        asking.revoked.cancel();
        asking.reads_answer().await;
        assert_eq!(asking.ends_after().await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_time_from_its_first_byte_however_long_the_connection_has_rested() {
        let mut silent = Client::connect(Duration::ZERO);
        assert_eq!(silent.ends_after().await, HEAD_WITHIN.as_secs());

        let mut slow = Client::connect(Duration::ZERO);
        slow.asks().await;
        sleep(Duration::from_secs(60)).await;
        let begin = Instant::now();
        for byte in REQUEST {
            if slow.stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(900)).await;
        }
        let took = begin.elapsed();
        assert!(took < HEAD_WITHIN + Duration::from_secs(2), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_was_begun_before_the_last_answer_has_no_longer_time() {
        let half = &REQUEST[..REQUEST.len() - 2];
        // In one piece with the request before.
        let mut client = Client::connect(Duration::ZERO);
        client.sends(&[REQUEST, half].concat()).await;
        assert_eq!(client.ends_after().await, HEAD_WITHIN.as_secs());
        // While that one is answered.
        let mut client = Client::connect(Duration::from_secs(1));
        client.stream.write_all(REQUEST).await.unwrap();
        sleep(Duration::from_millis(500)).await;
        client.sends(half).await;
        assert_eq!(client.ends_after().await, HEAD_WITHIN.as_secs());
        // After several whole ones.
        let mut client = Client::connect(Duration::ZERO);
        client.sends(&[REQUEST, REQUEST, half].concat()).await;
        client.reads_answer().await;
        assert_eq!(client.ends_after().await, HEAD_WITHIN.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_rests_also_after_a_request_with_a_body() {
        for rest in [
            "content-length: 4\r\n\r\nbody",
            "transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        ] {
            let mut client = Client::connect(Duration::ZERO);
            let request = format!("POST / HTTP/1.1\r\nhost: h\r\n{rest}");
            client.sends(request.as_bytes()).await;
            assert_eq!(client.ends_after().await, REST_WITHIN.as_secs(), "{rest}");
        }
    }
}
