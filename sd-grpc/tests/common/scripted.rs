//! A server that answers every call frame by frame, as its script says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Ping, PingPong, SendStream};
use prost::Message;
use sd_core::Instance;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tonic::Code;
use tonic::codegen::http::{HeaderMap, Response};

use super::echo::Text;
use super::instance_at;

/// What a server does next for a call. After the last step it leaves the stream open.
#[derive(Clone, Debug)]
pub enum Step {
    /// Waits for the end of the request.
    Request,
    Headers,
    /// A data frame.
    Data(Bytes),
    /// Trailers with a status, and what they say about sending the call again.
    Trailers(Code, Option<&'static str>),
    /// Waits until the test adds a permit.
    Wait(Arc<Semaphore>),
    /// Closes the connection when the client has read what was sent before.
    Close,
    /// Freezes it then: it stays open, and not even a PING is answered.
    Freeze,
}

impl Step {
    /// A data frame with one whole message.
    pub fn message(text: &str) -> Self {
        Self::Data(message(text))
    }
}

/// A message as it goes over the wire.
pub fn message(text: &str) -> Bytes {
    let text = Text::new(text).encode_to_vec();
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    [&[0], &length[..], &text].concat().into()
}

pub struct Scripted {
    pub address: SocketAddr,
    calls: Arc<AtomicUsize>,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Scripted {
    pub async fn start(script: impl IntoIterator<Item = Step>) -> Self {
        let script: Arc<[Step]> = script.into_iter().collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (calls, accepted) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let (called, opened) = (Arc::clone(&calls), Arc::clone(&accepted));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                opened.fetch_add(1, Ordering::SeqCst);
                connections.spawn(serve(stream, Arc::clone(&script), Arc::clone(&called)));
            }
        });
        Self {
            address,
            calls,
            accepted,
            task,
        }
    }

    pub fn instance(&self) -> Instance {
        instance_at(self.address)
    }

    /// How many calls have come.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// How many connections it has accepted.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, script: Arc<[Step]>, calls: Arc<AtomicUsize>) {
    // The client may be gone at any time.
    let Ok(mut connection) = server::handshake(stream).await else {
        return;
    };
    let ping_pong = Arc::new(Mutex::new(connection.ping_pong().unwrap()));
    let (close, mut closing) = oneshot::channel();
    let close = Arc::new(Mutex::new(Some(close)));
    let mut answers = JoinSet::new();
    loop {
        tokio::select! {
            request = connection.accept() => {
                let Some(Ok((request, respond))) = request else {
                    return;
                };
                calls.fetch_add(1, Ordering::SeqCst);
                let (script, ping_pong) = (Arc::clone(&script), Arc::clone(&ping_pong));
                let close = Arc::clone(&close);
                answers.spawn(async move {
                    // The rest of the request may come at any time.
                    let mut body = request.into_body();
                    let read = Semaphore::new(0);
                    let answering = async {
                        let last = answer(respond, &script, &read, &ping_pong).await;
                        if let Some(close) = close.lock().await.take() {
                            let _ = close.send(last);
                        }
                        std::future::pending::<()>().await;
                    };
                    let reading = async {
                        while let Some(Ok(data)) = body.data().await {
                            let _ = body.flow_control().release_capacity(data.len());
                        }
                        read.add_permits(1);
                        std::future::pending::<()>().await;
                    };
                    tokio::join!(answering, reading);
                });
            }
            last = &mut closing => match last {
                Ok(Step::Freeze) => std::future::pending().await,
                _ => return,
            },
        }
    }
}

/// Returns the step that concerns the whole connection.
async fn answer(
    mut respond: SendResponse<Bytes>,
    script: &[Step],
    read: &Semaphore,
    ping_pong: &Mutex<PingPong>,
) -> Step {
    let mut sending: Option<SendStream<Bytes>> = None;
    for step in script {
        match (step, &mut sending) {
            (Step::Request, _) => read.acquire().await.unwrap().forget(),
            (Step::Headers, None) => {
                let response = Response::builder()
                    .header("content-type", "application/grpc")
                    .body(())
                    .unwrap();
                // The client may have given the call up; so for the other steps.
                let Ok(stream) = respond.send_response(response, false) else {
                    return std::future::pending().await;
                };
                sending = Some(stream);
            }
            (Step::Data(data), Some(stream)) => {
                let _ = stream.send_data(data.clone(), false);
            }
            (Step::Trailers(code, pushback), Some(stream)) => {
                let _ = stream.send_trailers(trailers(*code, *pushback));
            }
            (Step::Wait(gate), _) => gate.acquire().await.unwrap().forget(),
            (Step::Close | Step::Freeze, _) => {
                let mut ping_pong = ping_pong.lock().await;
                // A ping overtakes what waits to be sent. A second one does not: the first has flushed it.
                for _ in 0..2 {
                    let _ = ping_pong.ping(Ping::opaque()).await;
                }
                return step.clone();
            }
            step => panic!("not possible now: {step:?}"),
        }
    }
    std::future::pending().await
}

fn trailers(code: Code, pushback: Option<&'static str>) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", (code as i32).into());
    trailers.insert("grpc-message", "not now".parse().unwrap());
    if let Some(pushback) = pushback {
        trailers.insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
    }
    trailers
}
