//! An HTTP proxy in this process that counts requests, and answers chosen ones itself.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sd_core::sync::lock;
use sd_core::{Error, ErrorKind, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::http_message::{Head, answer};

const BUFFER_BYTES: usize = 16 * 1024;
/// How long a client that already has its answer may go on sending its request.
const LINGER: Duration = Duration::from_secs(2);
/// How many requests the proxy remembers. A client that sends so many is what the test wants to find out.
const MOST_REQUESTS: usize = 100_000;

/// What an [`HttpProxy`] does with some requests: it delays them, answers them without the server, or changes headers of the
/// server's answer. Requests without a rule pass unchanged.
#[derive(Clone, Debug)]
pub struct HttpRule {
    method: String,
    path: String,
    body: Option<String>,
    delay: Duration,
    answer: Option<(u16, String)>,
    loses_answer: bool,
    headers: Vec<(String, String)>,
    left: usize,
}

impl HttpRule {
    /// A rule for requests with this method whose path begins with `path`. An empty method stands for all methods.
    #[must_use]
    pub fn new(method: impl Into<String>, path: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            path: path.into(),
            body: None,
            delay: Duration::ZERO,
            answer: None,
            loses_answer: false,
            headers: Vec::new(),
            left: usize::MAX,
        }
    }

    /// Concerns only requests whose body has this text in it. The proxy then reads the whole body before it does anything else, and knows its
    /// end by its `Content-Length` alone.
    #[must_use]
    pub fn with_body(mut self, part: impl Into<String>) -> Self {
        self.body = Some(part.into());
        self
    }

    /// Hangs up in place of the server's answer, once the server has given it.
    #[must_use]
    pub fn lose_answer(mut self) -> Self {
        self.loses_answer = true;
        self
    }

    /// Delays the requests by this long before anything else happens.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Gives this answer. The server does not see the requests.
    #[must_use]
    pub fn answer(mut self, status: u16, body: impl Into<String>) -> Self {
        self.answer = Some((status, body.into()));
        self
    }

    /// Sets this header of the answer. It replaces the server's header of that name.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Applies the rule to this many requests only. By default it applies to all.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.left = times;
        self
    }

    /// Whether it applies to such a request, if its body is as meant.
    fn may_apply_to(&self, method: &str, path: &str) -> bool {
        self.left > 0
            && (self.method.is_empty() || self.method == method)
            && path.starts_with(&self.path)
    }

    fn applies_to(&self, method: &str, path: &str, body: &[u8]) -> bool {
        let is_in = |part: &String| {
            let part = part.as_bytes();
            part.is_empty() || body.windows(part.len()).any(|window| window == part)
        };
        self.may_apply_to(method, path) && self.body.as_ref().is_none_or(is_in)
    }
}

/// A request that an [`HttpProxy`] has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpRequest {
    /// `GET`
    pub method: String,
    /// `/v1/health/service/web`, as sent.
    pub path: String,
    /// `passing&index=7`, as sent. Empty without a query.
    pub query: String,
    /// What has become of it.
    pub state: HttpState,
}

/// What has become of an [`HttpRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpState {
    /// The request waits for its answer.
    Waiting,
    /// The answer had this status.
    Answered(u16),
    /// The client, the server or the proxy closed the connection before the answer began.
    Dropped,
}

/// Listens on a free loopback port and forwards HTTP/1.1 to a target. Dropping it ends its tasks and connections.
///
/// Each request has a connection of its own on both sides, which ends with the answer. A client that keeps connections sees
/// `Connection: close`.
#[derive(Debug)]
pub struct HttpProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    rules: Mutex<Vec<HttpRule>>,
    requests: watch::Sender<Vec<HttpRequest>>,
}

impl HttpProxy {
    /// Starts a proxy in front of `target`.
    ///
    /// # Errors
    /// `Unavailable` if no port can be listened on.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let failed = |e: io::Error| Error::new(ErrorKind::Unavailable, "http proxy").with_source(e);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared {
            target,
            rules: Mutex::default(),
            requests: watch::Sender::default(),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self {
            address,
            shared,
            task,
        })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same address as a URL: `http://127.0.0.1:12345`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Replaces all rules, for requests that arrive from now on. The first rule that fits a request applies.
    pub fn set_rules(&self, rules: impl IntoIterator<Item = HttpRule>) {
        *self.shared.rules() = rules.into_iter().collect();
    }

    /// All requests so far, in order of arrival.
    pub fn requests(&self) -> Vec<HttpRequest> {
        self.shared.requests.borrow().clone()
    }

    /// Waits until the requests satisfy `condition`, and returns them. Cancel-safe. Has no deadline of its own.
    pub async fn seen(
        &self,
        mut condition: impl FnMut(&[HttpRequest]) -> bool,
    ) -> Vec<HttpRequest> {
        let mut requests = self.shared.requests.subscribe();
        // Cannot fail: `self` holds the sender.
        match requests.wait_for(|requests| condition(requests)).await {
            Ok(requests) => requests.clone(),
            Err(_) => self.requests(),
        }
    }
}

impl Drop for HttpProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn rules(&self) -> MutexGuard<'_, Vec<HttpRule>> {
        lock(&self.rules)
    }

    /// Whether which rule fits depends on the body.
    fn looks_at_body(&self, method: &str, path: &str) -> bool {
        let rules = self.rules();
        let mut rules = rules.iter();
        rules.any(|rule| rule.body.is_some() && rule.may_apply_to(method, path))
    }

    /// The first rule that fits this request. One of its uses is now spent.
    fn rule(&self, method: &str, path: &str, body: &[u8]) -> Option<HttpRule> {
        let mut rules = self.rules();
        let rule = rules
            .iter_mut()
            .find(|rule| rule.applies_to(method, path, body))?;
        rule.left = rule.left.saturating_sub(1);
        Some(rule.clone())
    }
}

/// The record of one request. If it is dropped before the request was answered, the request counts as dropped.
struct Record<'a> {
    requests: &'a watch::Sender<Vec<HttpRequest>>,
    place: usize,
}

impl<'a> Record<'a> {
    fn new(shared: &'a Shared, head: &Head) -> io::Result<Self> {
        let (path, query) = split(head);
        let request = HttpRequest {
            method: head.word(0).to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            state: HttpState::Waiting,
        };
        let mut place = MOST_REQUESTS;
        shared.requests.send_if_modified(|requests| {
            place = requests.len();
            let room = place < MOST_REQUESTS;
            if room {
                requests.push(request);
            }
            room
        });
        if place == MOST_REQUESTS {
            let why = format!("the proxy remembers no more than {MOST_REQUESTS} requests");
            return Err(io::Error::other(why));
        }
        Ok(Self {
            requests: &shared.requests,
            place,
        })
    }

    fn becomes(&self, state: HttpState) {
        self.requests.send_if_modified(|requests| {
            let waiting = requests
                .get_mut(self.place)
                .filter(|request| request.state == HttpState::Waiting);
            waiting.map(|request| request.state = state).is_some()
        });
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        self.becomes(HttpState::Dropped);
    }
}

/// Owns the port and all connections.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            Ok((client, _)) = listener.accept() => {
                let shared = Arc::clone(&shared);
                // A connection that breaks is what clients are tested with.
                connections.spawn(async move { drop(serve(client, &shared).await) });
            }
        }
    }
}

/// One connection, which is one request.
async fn serve(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    let Some(mut head) = Head::read(&mut client).await? else {
        return Ok(());
    };
    let record = Record::new(shared, &head)?;
    if shared.looks_at_body(head.word(0), split(&head).0) {
        head.read_body(&mut client).await?;
    }
    let rule = shared.rule(head.word(0), split(&head).0, &head.rest);
    let HttpRule {
        delay,
        answer: own,
        loses_answer,
        headers,
        ..
    } = rule.unwrap_or_else(|| HttpRule::new("", ""));
    if delay > Duration::ZERO {
        sleep(delay).await;
    }
    if loses_answer {
        return lose_answer(client, head, shared.target).await;
    }
    match own {
        Some((status, body)) => {
            record.becomes(HttpState::Answered(status));
            client.write_all(&answer(status, &headers, &body)).await?;
            hang_up(client).await
        }
        None => forward(client, head, &headers, shared.target, &record).await,
    }
}

/// Ends a connection so that the client gets the whole answer even if it has not sent its whole request: closing with unread
/// bytes would reset the connection.
async fn hang_up(mut client: TcpStream) -> io::Result<()> {
    client.shutdown().await?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let to_its_end = async {
        while client.read(&mut buffer).await? > 0 {}
        io::Result::Ok(())
    };
    timeout(LINGER, to_its_end).await.unwrap_or(Ok(()))
}

/// Has the server answer, and hangs up before the client hears of it.
async fn lose_answer(mut client: TcpStream, mut head: Head, target: SocketAddr) -> io::Result<()> {
    head.read_body(&mut client).await?;
    head.set("Connection", "close");
    let mut server = TcpStream::connect(target).await?;
    server.write_all(&head.into_bytes()).await?;
    Head::read(&mut server).await.map(drop)
}

async fn forward(
    mut client: TcpStream,
    mut head: Head,
    headers: &[(String, String)],
    target: SocketAddr,
    record: &Record<'_>,
) -> io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    head.set("Connection", "close");
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let request = async {
        to_server.write_all(&head.into_bytes()).await?;
        match tokio::io::copy(&mut from_client, &mut to_server).await {
            // The client has hung up.
            Ok(_) => Ok(()),
            // The server reads no more, but its answer may be on its way.
            Err(_) => std::future::pending().await,
        }
    };
    let response = async {
        let Some(mut head) = Head::read(&mut from_server).await? else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        for (name, value) in headers {
            head.set(name, value);
        }
        record.becomes(HttpState::Answered(head.status()?));
        to_client.write_all(&head.into_bytes()).await?;
        tokio::io::copy(&mut from_server, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::select! {
        result = request => result,
        result = response => result,
    }
}

/// Path and query of a request.
fn split(head: &Head) -> (&str, &str) {
    let target = head.word(1);
    target.split_once('?').unwrap_or((target, ""))
}
