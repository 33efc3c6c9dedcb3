//! An agent over TCP or a Unix socket that answers what a test says.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// What must happen soon, happens within this time also on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A request without its stream.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// With names in small letters.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

type Stream = Box<dyn AsyncWrite + Send + Unpin>;

/// One stream of events.
pub(crate) struct Watch {
    pub(crate) request: Request,
    stream: Stream,
    /// Ends when the client is gone.
    gone: JoinHandle<()>,
}

impl Watch {
    pub(crate) async fn refuse(mut self, status: &str) {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        self.stream.write_all(answer.as_bytes()).await.unwrap();
    }

    /// Answers that it is a stream.
    pub(crate) async fn open(mut self) -> Self {
        self.send(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\r\n",
        )
        .await;
        self
    }

    pub(crate) async fn send(&mut self, bytes: &str) {
        self.stream.write_all(bytes.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Ends the stream in order.
    pub(crate) async fn close(mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Waits until the client has closed it.
    pub(crate) async fn gone(&mut self) {
        timeout(SOON, &mut self.gone)
            .await
            .expect("the client closes the stream")
            .unwrap();
    }
}

/// What is answered, by path, one after another. Without an entry it is a success.
type Answers = Arc<Mutex<HashMap<String, VecDeque<Answer>>>>;

#[derive(Clone)]
pub(crate) enum Answer {
    /// A status with its words, and a body.
    Whole(String, String),
    /// Nothing, ever.
    Never,
    /// The beginning of a body that never ends.
    Endless,
}

pub(crate) struct FakeAgent {
    pub(crate) url: String,
    answers: Answers,
    requests: mpsc::Receiver<Request>,
    watches: mpsc::Receiver<Watch>,
    task: JoinHandle<()>,
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeAgent {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (serve, start) = Self::parts(url);
        start(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve.clone().connection(stream));
            }
        }))
    }

    pub(crate) fn start_at(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let (serve, start) = Self::parts(format!("unix:{}", path.display()));
        start(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve.clone().connection(stream));
            }
        }))
    }

    fn parts(url: String) -> (Serve, impl FnOnce(JoinHandle<()>) -> Self) {
        let (asked, requests) = mpsc::channel(1024);
        let (opened, watches) = mpsc::channel(64);
        let answers = Answers::default();
        let serve = Serve {
            answers: Arc::clone(&answers),
            requests: asked,
            watches: opened,
        };
        (serve, move |task| Self {
            url,
            answers,
            requests,
            watches,
            task,
        })
    }

    /// What the next request of this path is answered with.
    pub(crate) fn answer(&self, path: &str, answer: Answer) {
        let mut answers = self.answers.lock().unwrap();
        answers
            .entry(path.to_owned())
            .or_default()
            .push_back(answer);
    }

    pub(crate) fn refuse(&self, path: &str, status: &str, body: &str) {
        self.answer(path, Answer::Whole(status.to_owned(), body.to_owned()));
    }

    pub(crate) async fn request(&mut self) -> Request {
        timeout(SOON, self.requests.recv())
            .await
            .expect("a request")
            .unwrap()
    }

    pub(crate) async fn watch(&mut self) -> Watch {
        timeout(SOON, self.watches.recv())
            .await
            .expect("a stream")
            .unwrap()
    }

    /// The next stream, which says that it is connected.
    pub(crate) async fn connected(&mut self) -> Watch {
        let mut watch = self.watch().await.open().await;
        watch.send("event: connected\ndata: ok\n\n").await;
        watch
    }

    /// No stream and no request comes for a while.
    pub(crate) async fn is_left_alone(&mut self, span: Duration) -> bool {
        let some = async {
            tokio::select! {
                watch = self.watches.recv() => watch.map(|watch| watch.request),
                request = self.requests.recv() => request,
            }
        };
        timeout(span, some).await.is_err()
    }
}

#[derive(Clone)]
struct Serve {
    answers: Answers,
    requests: mpsc::Sender<Request>,
    watches: mpsc::Sender<Watch>,
}

impl Serve {
    /// One request: the client has a connection for each.
    async fn connection<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(self, stream: S) {
        let (read, mut write) = tokio::io::split(stream);
        let mut read = BufReader::new(read);
        let Some(request) = read_request(&mut read).await else {
            return;
        };
        if request.method == "GET" {
            let gone = tokio::spawn(async move {
                let mut rest = Vec::new();
                let _ = read.read_to_end(&mut rest).await;
            });
            let watch = Watch {
                request,
                stream: Box::new(write),
                gone,
            };
            let _ = self.watches.send(watch).await;
            return;
        }
        let path = request.path.clone();
        let _ = self.requests.send(request).await;
        let answer = {
            let mut answers = self.answers.lock().unwrap();
            answers.get_mut(&path).and_then(VecDeque::pop_front)
        };
        match answer {
            Some(Answer::Never) => std::future::pending().await,
            Some(Answer::Endless) => {
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                let _ = write.write_all(head.as_bytes()).await;
                let piece = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
                while write.write_all(piece.as_bytes()).await.is_ok() {}
            }
            other => {
                let (status, body) = match other {
                    Some(Answer::Whole(status, body)) => (status, body),
                    _ => (
                        "200 OK".to_owned(),
                        r#"{"success":true,"code":"ok"}"#.to_owned(),
                    ),
                };
                let answer = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                let _ = write.write_all(answer.as_bytes()).await;
            }
        }
    }
}

async fn read_request(read: &mut (impl AsyncBufReadExt + Unpin)) -> Option<Request> {
    let mut line = String::new();
    read.read_line(&mut line)
        .await
        .ok()
        .filter(|read| *read > 0)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        read.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers
        .get("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    read.read_exact(&mut body).await.ok()?;
    Some(Request {
        method,
        path,
        headers,
        body: String::from_utf8(body).unwrap(),
    })
}
