//! A server that answers what a test says, over UDP and TCP at the same port.

use std::mem::take;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::SOA;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use sd_dns::DnsConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{LONGEST, SHORTEST};

/// What does not fit is for TCP.
const LONGEST_DATAGRAM: usize = 1232;

/// What the server does with a question.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Message(Box<Message>),
    Bytes(Vec<u8>),
    /// Several messages, one after the other.
    All(Vec<Message>),
    /// Over TCP one byte at a time, with so long before each.
    Slowly(Box<Message>, Duration),
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
    connections: AtomicUsize,
    asked: Mutex<Vec<(Name, RecordType, bool)>>,
    edns: Mutex<Vec<bool>>,
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
            connections: AtomicUsize::new(0),
            asked: Mutex::default(),
            edns: Mutex::default(),
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

    /// Asks this server for addresses that serve at port 80, in the domain `sd.test.`, as often as can be.
    pub(crate) fn config(&self) -> DnsConfig {
        DnsConfig::addresses(80)
            .with_resolvers([self.address.to_string()])
            .with_domain("sd.test.")
            .with_intervals(SHORTEST, LONGEST)
            .with_timeout(Duration::from_millis(500))
    }

    /// The same for SRV records.
    pub(crate) fn srv_config(&self) -> DnsConfig {
        DnsConfig::srv()
            .with_resolvers([self.address.to_string()])
            .with_domain("sd.test.")
            .with_intervals(SHORTEST, LONGEST)
    }

    /// Ends all connections, as resolvers do with idle ones. They are closed when this returns.
    pub(crate) async fn end_connections(&self) {
        let mut connections = take(&mut *self.connections.lock().unwrap());
        connections.shutdown().await;
    }

    /// How many connections there have been.
    pub(crate) fn connections_made(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// What was asked: name, type, and whether over TCP.
    pub(crate) fn asked(&self) -> Vec<(Name, RecordType, bool)> {
        self.state.asked.lock().unwrap().clone()
    }

    /// Of each question, whether it had EDNS(0).
    pub(crate) fn edns(&self) -> Vec<bool> {
        self.state.edns.lock().unwrap().clone()
    }

    /// What another protocol's server asks for each question.
    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.state)
    }
}

impl State {
    /// The messages to be sent, and how long to wait before each of their bytes.
    fn reply(&self, bytes: &[u8], over_tcp: bool) -> (Vec<Vec<u8>>, Duration) {
        let message = Message::from_vec(bytes).unwrap();
        let asked = Asked { message, over_tcp };
        let of = (asked.name().clone(), asked.wanted(), over_tcp);
        self.asked.lock().unwrap().push(of);
        let has_edns = asked.message.edns.is_some();
        self.edns.lock().unwrap().push(has_edns);
        let script = Arc::clone(&self.script.lock().unwrap());
        let mut pause = Duration::ZERO;
        let replies = match script(&asked) {
            Reply::Message(message) => {
                let whole = message.to_vec().unwrap();
                if over_tcp || whole.len() <= LONGEST_DATAGRAM {
                    vec![whole]
                } else {
                    let mut cut = asked.answer();
                    cut.metadata.truncation = true;
                    vec![cut.to_vec().unwrap()]
                }
            }
            Reply::All(messages) => {
                let messages = messages.iter();
                messages.map(|message| message.to_vec().unwrap()).collect()
            }
            Reply::Slowly(message, before_each) => {
                pause = before_each;
                vec![message.to_vec().unwrap()]
            }
            Reply::Bytes(bytes) => vec![bytes],
            Reply::Silence => Vec::new(),
        };
        (replies, pause)
    }
}

async fn serve_udp(socket: UdpSocket, state: Arc<State>) {
    let mut buffer = vec![0; 65_535];
    loop {
        let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
        for answer in state.reply(&buffer[..length], false).0 {
            // The client may be gone.
            let _ = socket.send_to(&answer, client).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, state: Arc<State>, connections: Connections) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        state.connections.fetch_add(1, Ordering::Relaxed);
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
        let (answers, pause) = state.reply(&question, true);
        for answer in answers {
            let length = u16::try_from(answer.len()).unwrap();
            let whole = [&length.to_be_bytes()[..], &answer].concat();
            let at_a_time = if pause.is_zero() { whole.len() } else { 1 };
            for part in whole.chunks(at_a_time) {
                sleep(pause).await;
                stream.write_all(part).await?;
                stream.flush().await?;
            }
        }
    }
}
