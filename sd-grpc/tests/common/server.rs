//! A gRPC server on a free port that does as it is told, and can be killed.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use sd_core::{Incarnation, Instance, InstanceId};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::transport::Server;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tonic::{Request, Response, Status};

use super::echo::{Echo, EchoServer, Text};

/// What a server does with a unary call.
pub type Answer =
    Arc<dyn Fn(Seen) -> Pin<Box<dyn Future<Output = Result<Text, Status>> + Send>> + Send + Sync>;

/// A unary call as the server sees it.
pub struct Seen {
    pub text: String,
    pub metadata: MetadataMap,
}

/// A server in a runtime of its own, so that it can die like a process: all at once, without a goodbye.
pub struct TestServer {
    pub address: SocketAddr,
    state: Arc<State>,
    runtime: Option<Runtime>,
    stop: Option<oneshot::Sender<()>>,
}

#[derive(Default)]
struct State {
    accepted: AtomicUsize,
    open: AtomicUsize,
    /// How often each text was executed.
    executed: Mutex<BTreeMap<String, usize>>,
    metadata: Mutex<Vec<MetadataMap>>,
}

struct Executor {
    state: Arc<State>,
    answer: Answer,
}

#[tonic::async_trait]
impl Echo for Executor {
    async fn unary(&self, request: Request<Text>) -> Result<Response<Text>, Status> {
        let (metadata, _, text) = request.into_parts();
        let text = text.text;
        *self
            .state
            .executed
            .lock()
            .unwrap()
            .entry(text.clone())
            .or_default() += 1;
        self.state.metadata.lock().unwrap().push(metadata.clone());
        (self.answer)(Seen { text, metadata })
            .await
            .map(Response::new)
    }
}

impl TestServer {
    /// A server that answers with its own address.
    pub fn start() -> Self {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into());
        let own = listener.local_addr().unwrap().to_string();
        let answer: Answer = Arc::new(move |_| {
            let own = own.clone();
            Box::pin(async move { Ok(Text::new(own)) })
        });
        Self::serve(listener, answer, |server| server)
    }

    /// A server that answers as told.
    pub fn answering<R>(answer: impl Fn(Seen) -> R + Send + Sync + 'static) -> Self
    where
        R: Future<Output = Result<Text, Status>> + Send + 'static,
    {
        Self::configured(answer, |server| server)
    }

    /// A server that answers as told and is set up as wanted.
    pub fn configured<R>(
        answer: impl Fn(Seen) -> R + Send + Sync + 'static,
        configure: impl FnOnce(Server) -> Server,
    ) -> Self
    where
        R: Future<Output = Result<Text, Status>> + Send + 'static,
    {
        let answer: Answer = Arc::new(move |seen| Box::pin(answer(seen)));
        Self::serve(listen((Ipv4Addr::LOCALHOST, 0).into()), answer, configure)
    }

    /// A server at this address, which was another's before.
    pub fn restart_at(address: SocketAddr) -> Self {
        let answer: Answer =
            Arc::new(move |_| Box::pin(async move { Ok(Text::new(address.to_string())) }));
        Self::serve(listen(address), answer, |server| server)
    }

    fn serve(
        listener: std::net::TcpListener,
        answer: Answer,
        configure: impl FnOnce(Server) -> Server,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (stop, stopped) = oneshot::channel();
        let echo = EchoServer(Arc::new(Executor {
            state: Arc::clone(&state),
            answer,
        }));
        let router = configure(Server::builder()).add_service(echo);
        let counted = Arc::clone(&state);
        runtime.spawn(async move {
            let incoming = TcpListenerStream::new(TcpListener::from_std(listener).unwrap())
                .map(move |accepted| accepted.map(|stream| Counted::new(stream, &counted)));
            router
                .serve_with_incoming_shutdown(incoming, async {
                    let _ = stopped.await;
                })
                .await
                .unwrap();
        });
        Self {
            address,
            state,
            runtime: Some(runtime),
            stop: Some(stop),
        }
    }

    /// An instance of the service `echo` at this server, with the port as its id.
    pub fn instance(&self) -> Instance {
        instance_at(self.address)
    }

    /// How many connections it has accepted.
    pub fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }

    /// How many unary calls it has executed.
    pub fn calls(&self) -> usize {
        self.state.executed.lock().unwrap().values().sum()
    }

    /// How often each text was executed.
    pub fn executed(&self) -> BTreeMap<String, usize> {
        self.state.executed.lock().unwrap().clone()
    }

    /// The metadata of each unary call.
    pub fn metadata(&self) -> Vec<MetadataMap> {
        self.state.metadata.lock().unwrap().clone()
    }

    /// Dies at once.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Says goodbye to its clients and ends when their calls have.
    pub fn stop_gracefully(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An instance of the service `echo` at this address, with the port as its id; always the same run.
pub fn instance_at(address: SocketAddr) -> Instance {
    Instance::new("echo", address)
        .unwrap()
        .with_id(InstanceId::new(format!("{:05}", address.port())).unwrap())
        .with_incarnation(Incarnation::from_u64(1))
}

fn listen(address: SocketAddr) -> std::net::TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    // tokio's listener needs a runtime of the caller; the server's own takes it over.
    socket.listen(1024).unwrap().into_std().unwrap()
}

/// A connection that is counted while it is open.
struct Counted {
    stream: TcpStream,
    state: Arc<State>,
}

impl Counted {
    fn new(stream: TcpStream, state: &Arc<State>) -> Self {
        stream.set_nodelay(true).unwrap();
        state.accepted.fetch_add(1, Ordering::SeqCst);
        state.open.fetch_add(1, Ordering::SeqCst);
        Self {
            stream,
            state: Arc::clone(state),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.state.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Connected for Counted {
    type ConnectInfo = TcpConnectInfo;
    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
