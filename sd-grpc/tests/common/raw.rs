//! A server that answers each call as a closure says, below gRPC, and ends its connections as told.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use sd_core::Instance;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tonic::codegen::http::{HeaderMap, Request, Response};

use super::instance_at;
use super::scripted::message;

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// GOAWAY without an error, first as a warning, then with the last stream that counts. Calls in flight are finished.
    Polite,
    /// GOAWAY without an error, and the socket is closed at once.
    Abrupt,
    /// The socket is closed.
    Closed,
}

type Answering = Pin<Box<dyn Future<Output = ()> + Send>>;
type Answer = Arc<dyn Fn(Request<RecvStream>, SendResponse<Bytes>) -> Answering + Send + Sync>;

#[derive(Clone)]
struct Plan {
    answer: Answer,
    settings: Builder,
    /// With which call a connection ends.
    end: Option<(usize, End)>,
    calls: Arc<AtomicUsize>,
}

pub struct Raw {
    pub address: SocketAddr,
    calls: Arc<AtomicUsize>,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Raw {
    pub async fn start<R>(
        settings: &Builder,
        end: Option<(usize, End)>,
        answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> R + Send + Sync + 'static,
    ) -> Self
    where
        R: Future<Output = ()> + Send + 'static,
    {
        let (calls, accepted) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let plan = Plan {
            answer: Arc::new(move |request, respond| Box::pin(answer(request, respond))),
            settings: settings.clone(),
            end,
            calls: Arc::clone(&calls),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let opened = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                opened.fetch_add(1, Ordering::SeqCst);
                connections.spawn(serve(stream, plan.clone()));
                while connections.try_join_next().is_some() {}
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

impl Drop for Raw {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, plan: Plan) {
    // The client may be gone at any time.
    let Ok(mut connection) = plan.settings.handshake(stream).await else {
        return;
    };
    let mut answers = JoinSet::new();
    let mut left = plan.end.map(|(calls, _)| calls);
    while let Some(Ok((request, respond))) = connection.accept().await {
        plan.calls.fetch_add(1, Ordering::SeqCst);
        if let Some(left) = &mut left {
            *left = left.saturating_sub(1);
        }
        match plan.end {
            Some((_, end)) if left == Some(0) => match end {
                End::Polite => connection.graceful_shutdown(),
                End::Abrupt => connection.abrupt_shutdown(Reason::NO_ERROR),
                End::Closed => return,
            },
            _ => {}
        }
        answers.spawn((plan.answer)(request, respond));
        while answers.try_join_next().is_some() {}
    }
}

/// A whole gRPC answer with one message.
pub fn echo(_: Request<RecvStream>, respond: SendResponse<Bytes>) -> std::future::Ready<()> {
    answer(respond, HeaderMap::new());
    std::future::ready(())
}

/// Headers, a message, and trailers with status 0 and these.
pub fn answer(mut respond: SendResponse<Bytes>, more: HeaderMap) {
    let response = Response::builder()
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let mut trailers = more;
    trailers.entry("grpc-status").or_insert(0.into());
    // The client may have given the call up.
    let Ok(mut stream) = respond.send_response(response, false) else {
        return;
    };
    let _ = stream.send_data(message("done"), false);
    let _ = stream.send_trailers(trailers);
}
