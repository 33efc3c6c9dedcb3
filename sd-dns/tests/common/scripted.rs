//! A server that answers what a test says, over UDP and TCP at the same port.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::SOA;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

/// What the server does with a question.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Message(Box<Message>),
    Bytes(Vec<u8>),
    Silence,
}

/// One question that was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) message: Message,
    pub(crate) over_tcp: bool,
}

type Connections = Arc<Mutex<JoinSet<()>>>;
type Script = dyn Fn(&Asked) -> Reply + Send + Sync;

/// A server. It ends when it is dropped.
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    connections: Connections,
    _tasks: JoinSet<()>,
}

pub(crate) struct State {
    script: Mutex<Arc<Script>>,
    asked: Mutex<Vec<(Name, RecordType, bool)>>,
}

impl Asked {
    pub(crate) fn name(&self) -> &Name {
        self.message.queries[0].name()
    }

    pub(crate) fn wanted(&self) -> RecordType {
        self.message.queries[0].query_type()
    }

    /// An answer without records.
    pub(crate) fn answer(&self) -> Message {
        let mut answer = Message::response(self.message.metadata.id, OpCode::Query);
        answer.queries.clone_from(&self.message.queries);
        answer
    }

    /// These records of the name that was asked, as far as they are of the type that was.
    pub(crate) fn records(&self, ttl: u32, data: &[RData]) -> Reply {
        let mut answer = self.answer();
        let wanted = data
            .iter()
            .filter(|data| data.record_type() == self.wanted());
        let records = wanted.map(|data| Record::from_rdata(self.name().clone(), ttl, data.clone()));
        answer.answers = records.collect();
        if answer.answers.is_empty() {
            answer.authorities = vec![soa(ttl)];
        }
        answer.into()
    }

    /// The name does not exist, for `ttl` seconds.
    pub(crate) fn no_such_name(&self, ttl: u32) -> Reply {
        let mut answer = self.answer();
        answer.metadata.response_code = ResponseCode::NXDomain;
        answer.authorities = vec![soa(ttl)];
        answer.into()
    }

    pub(crate) fn refuse(&self, code: ResponseCode) -> Reply {
        let mut answer = self.answer();
        answer.metadata.response_code = code;
        answer.into()
    }
}

impl From<Message> for Reply {
    fn from(message: Message) -> Self {
        Self::Message(Box::new(message))
    }
}

fn soa(ttl: u32) -> Record {
    let name = |text| Name::from_ascii(text).unwrap();
    let soa = SOA::new(name("ns.test."), name("admin.test."), 1, 1, 1, 1, ttl);
    Record::from_rdata(name("test."), ttl, RData::SOA(soa))
}

impl Scripted {
    pub(crate) async fn start(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), script).await
    }

    pub(crate) async fn start_at(
        address: SocketAddr,
        script: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let state = Arc::new(State {
            script: Mutex::new(Arc::new(script)),
            asked: Mutex::default(),
        });
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind(address).await.unwrap();
            let own = tcp.local_addr().unwrap();
            // The port may be taken over UDP.
            if let Ok(udp) = UdpSocket::bind(own).await {
                break (udp, tcp);
            }
            assert_eq!(address.port(), 0, "{own} is taken");
        };
        let address = tcp.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(udp, Arc::clone(&state)));
        let connections = Connections::default();
        tasks.spawn(serve_tcp(tcp, Arc::clone(&state), Arc::clone(&connections)));
        Self {
            address,
            state,
            connections,
            _tasks: tasks,
        }
    }

    pub(crate) fn answers_with(&self, script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) {
        *self.state.script.lock().unwrap() = Arc::new(script);
    }

    /// Ends all connections, as resolvers do with idle ones.
    pub(crate) fn end_connections(&self) {
        self.connections.lock().unwrap().abort_all();
    }

    /// What was asked: name, type, and whether over TCP.
    pub(crate) fn asked(&self) -> Vec<(Name, RecordType, bool)> {
        self.state.asked.lock().unwrap().clone()
    }

    /// What another protocol's server asks for each question.
    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.state)
    }
}

impl State {
    fn reply(&self, bytes: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
        let message = Message::from_vec(bytes).unwrap();
        let asked = Asked { message, over_tcp };
        let of = (asked.name().clone(), asked.wanted(), over_tcp);
        self.asked.lock().unwrap().push(of);
        let script = Arc::clone(&self.script.lock().unwrap());
        match script(&asked) {
            Reply::Message(message) => Some(message.to_vec().unwrap()),
            Reply::Bytes(bytes) => Some(bytes),
            Reply::Silence => None,
        }
    }
}

async fn serve_udp(socket: UdpSocket, state: Arc<State>) {
    let mut buffer = vec![0; 65_535];
    loop {
        let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
        if let Some(answer) = state.reply(&buffer[..length], false) {
            // The client may be gone.
            let _ = socket.send_to(&answer, client).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, state: Arc<State>, connections: Connections) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let state = Arc::clone(&state);
        connections.lock().unwrap().spawn(async move {
            // The client ends the connection.
            let _ = serve_stream(stream, &state).await;
        });
    }
}

/// Answers over a connection until it ends.
pub(crate) async fn serve_stream(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    state: &State,
) -> std::io::Result<()> {
    loop {
        let mut question = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut question).await?;
        if let Some(answer) = state.reply(&question, true) {
            stream
                .write_u16(u16::try_from(answer.len()).unwrap())
                .await?;
            stream.write_all(&answer).await?;
            stream.flush().await?;
        }
    }
}
