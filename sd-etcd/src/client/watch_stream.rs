//! One stream for all watches of a connection, as etcd means it and as its Go client does: a process that follows a thousand services has
//! one stream at the server, and asks once how far all of its watches are.
//!
//! A task reads the stream and hands each answer to its watch. No watch waits for another: one whose reader does not keep up ends, and what
//! it follows is read again.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use etcd_client::{
    Event, KeyValue, WatchClient, WatchOptions, WatchRequestSender, WatchResponse,
    WatchResponseStream, WatchStream,
};
use sd_core::sync::lock;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{Notify, OnceCell, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::client::error::{caught, copy, stream_ended};
use crate::client::server_progress::{Progress, ServerProgress};

/// The watch id in an answer to a progress request, which concerns all watches of a stream.
pub(crate) const ALL_WATCHES: i64 = -1;
/// etcd takes the id that a watch is given, and answers requests in their order. Its proxy does neither, and counts from 0.
const FIRST_ID: i64 = 1 << 32;
/// How much may wait for the reader of one watch, in answers and in bytes. A single answer may have more.
const MOST_ANSWERS: usize = 4096;
const MOST_WAITING: usize = 16 * 1024 * 1024;
/// So many watches wait to be asked for, and others wait for a place.
const MOST_REQUESTS: usize = 64;
/// What an event or an answer takes beside keys and values, roughly.
const OVERHEAD: usize = 128;

/// The stream of a connection: made for the first watch, and made again when it has ended.
#[derive(Debug)]
pub(crate) struct Watches {
    progress: Arc<ServerProgress>,
    current: Mutex<Arc<OnceCell<Stream>>>,
}

/// One watch. It ends at the server when this is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    /// `None` if the server refused it.
    id: Option<i64>,
    answers: Receiver<Arc<WatchResponse>>,
    waiting: Arc<AtomicUsize>,
    shared: Arc<Shared>,
}

/// Why a watch has no further answers.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Its reader left too much waiting.
    Behind,
    Failed(etcd_client::Error),
}

/// What the server says first of a watch: that it stands, and from which revision on, or that it is refused.
pub(crate) type Opened = (WatchResponse, Watch);

#[derive(Debug)]
struct Stream {
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

/// What the task of a stream and its watches have in common.
#[derive(Debug)]
struct Shared {
    requests: Sender<Request>,
    table: Mutex<Table>,
    /// A watch stands, or was refused.
    answered: Notify,
    /// A watch is to end.
    dropped: Notify,
    /// Whether requests are answered in their order.
    in_order: bool,
    progress: Arc<ServerProgress>,
    ended: OnceLock<etcd_client::Error>,
}

#[derive(Debug, Default)]
struct Table {
    /// Those that the server was asked for, the oldest first.
    asked: VecDeque<Asked>,
    standing: HashMap<i64, Reader>,
    /// Those that are to end at the server.
    dropped: Vec<i64>,
}

#[derive(Debug)]
struct Asked {
    id: i64,
    opened: oneshot::Sender<Opened>,
}

#[derive(Debug)]
struct Reader {
    answers: Sender<Arc<WatchResponse>>,
    waiting: Arc<AtomicUsize>,
}

/// A watch that is wanted.
#[derive(Debug)]
struct Request {
    range: (String, String),
    opened: oneshot::Sender<Opened>,
}

/// Why a stream was not made.
#[derive(Debug)]
enum NotMade {
    /// The server refuses its first watch, and says why.
    Refused(Opened),
    Failed(etcd_client::Error),
}

impl Watches {
    pub(crate) fn new(progress: Arc<ServerProgress>) -> Self {
        Self {
            progress,
            current: Mutex::default(),
        }
    }

    /// Watches a range from now on. Cancel-safe.
    pub(crate) async fn open(
        &self,
        client: WatchClient,
        (key, end): (&str, &str),
    ) -> Result<Opened, etcd_client::Error> {
        let current = self.current();
        let mut first = None;
        let making = {
            let first = &mut first;
            async move {
                let (stream, opened) = Stream::begin(client, (key, end), &self.progress).await?;
                *first = Some(opened);
                Ok(stream)
            }
        };
        let shared = match current.get_or_try_init(|| making).await {
            Ok(stream) => Arc::clone(&stream.shared),
            Err(NotMade::Refused(opened)) => return Ok(opened),
            Err(NotMade::Failed(error)) => return Err(error),
        };
        if let Some(opened) = first {
            return Ok(opened);
        }
        let (opened, answer) = oneshot::channel();
        let range = (key.to_owned(), end.to_owned());
        // A stream that has ended takes no request, and answers none.
        let _ = shared.requests.send(Request { range, opened }).await;
        answer.await.map_err(|_| shared.error())
    }

    /// The place of the stream that runs, or of the next one.
    fn current(&self) -> Arc<OnceCell<Stream>> {
        let mut current = lock(&self.current);
        let has_ended = |stream: &Stream| stream.shared.requests.is_closed();
        if current.get().is_some_and(has_ended) {
            *current = Arc::default();
        }
        Arc::clone(&current)
    }
}

impl Stream {
    /// Makes a stream, by asking for its first watch.
    async fn begin(
        mut client: WatchClient,
        (key, end): (&str, &str),
        progress: &Arc<ServerProgress>,
    ) -> Result<(Self, Opened), NotMade> {
        let asked = client.watch(key, Some(options(end, FIRST_ID))).await;
        let mut stream = asked.map_err(NotMade::Failed)?;
        let answer = match stream.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => return Err(NotMade::Failed(stream_ended())),
            Err(error) => return Err(NotMade::Failed(error)),
        };
        let (requests, asked_for) = channel(MOST_REQUESTS);
        let shared = Arc::new(Shared {
            requests,
            table: Mutex::default(),
            answered: Notify::new(),
            dropped: Notify::new(),
            in_order: answer.watch_id() == FIRST_ID,
            progress: Arc::clone(progress),
            ended: OnceLock::new(),
        });
        let watch = shared.stand(&answer);
        if answer.canceled() {
            return Err(NotMade::Refused((answer, watch)));
        }
        let task = tokio::spawn(run(stream, asked_for, Arc::clone(&shared)));
        let stream = Self {
            shared,
            _task: AbortOnDropHandle::new(task),
        };
        Ok((stream, (answer, watch)))
    }
}

impl Watch {
    /// The next answer. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Arc<WatchResponse>, Ended> {
        let answer = self.answers.recv().await;
        let answer = answer.ok_or_else(|| match self.shared.ended.get() {
            Some(error) => Ended::Failed(copy(error)),
            None => Ended::Behind,
        })?;
        self.waiting.fetch_sub(bytes_of(&answer), Ordering::Relaxed);
        Ok(answer)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let mut table = lock(&self.shared.table);
            table.standing.remove(&id);
            table.dropped.push(id);
            self.shared.dropped.notify_one();
        }
    }
}

impl Shared {
    /// Why the stream has ended.
    fn error(&self) -> etcd_client::Error {
        self.ended.get().map_or_else(stream_ended, copy)
    }

    /// The watch that this answer is the first of.
    fn stand(self: &Arc<Self>, answer: &WatchResponse) -> Watch {
        let (answers, reader) = channel(MOST_ANSWERS);
        let waiting = Arc::new(AtomicUsize::new(0));
        let id = (!answer.canceled()).then(|| answer.watch_id());
        if let Some(id) = id {
            let waiting = Arc::clone(&waiting);
            let reader = Reader { answers, waiting };
            lock(&self.table).standing.insert(id, reader);
        }
        Watch {
            id,
            answers: reader,
            waiting,
            shared: Arc::clone(self),
        }
    }

    /// Hands an answer to those whom it concerns.
    fn take(self: &Arc<Self>, answer: WatchResponse) -> Result<(), etcd_client::Error> {
        let id = answer.watch_id();
        if answer.created() {
            return self.take_first(answer);
        }
        let answer = Arc::new(answer);
        let mut table = lock(&self.table);
        if id == ALL_WATCHES {
            self.progress.note_told();
            table
                .standing
                .retain(|_, reader| reader.has_room_for(&answer));
        } else if let Some(reader) = table.standing.get(&id)
            && (!reader.has_room_for(&answer) || answer.canceled())
        {
            table.standing.remove(&id);
        }
        Ok(())
    }

    /// The first answer of the watch that was asked for first.
    fn take_first(self: &Arc<Self>, answer: WatchResponse) -> Result<(), etcd_client::Error> {
        let Some(asked) = lock(&self.table).asked.pop_front() else {
            return Err(unasked());
        };
        self.answered.notify_one();
        // A refusal may bear no id.
        if self.in_order && !answer.canceled() && answer.watch_id() != asked.id {
            return Err(unasked());
        }
        let watch = self.stand(&answer);
        // One that is no longer wanted is dropped here, and ends.
        let _ = asked.opened.send((answer, watch));
        Ok(())
    }

    fn end(&self, error: etcd_client::Error) {
        let _ = self.ended.set(error);
        // Each reader finds out when it has taken what waits for it.
        *lock(&self.table) = Table::default();
    }
}

impl Reader {
    /// Leaves an answer to the reader. False if too much waits for it already.
    fn has_room_for(&self, answer: &Arc<WatchResponse>) -> bool {
        let bytes = bytes_of(answer);
        let waiting = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let has_room = waiting == 0 || waiting.saturating_add(bytes) <= MOST_WAITING;
        // One that is dropped at this moment needs it no more.
        has_room && self.answers.try_send(Arc::clone(answer)).is_ok()
    }
}

/// The task of a stream.
async fn run(stream: WatchStream, asked_for: Receiver<Request>, shared: Arc<Shared>) {
    let (sender, answers) = stream.split();
    let error = tokio::select! {
        error = read(answers, &shared) => error,
        error = write(sender, asked_for, &shared) => error,
    };
    shared.end(error);
}

/// Returns why there is nothing more to read.
async fn read(mut answers: WatchResponseStream, shared: &Arc<Shared>) -> etcd_client::Error {
    loop {
        let taken = match caught(answers.message()).await {
            Ok(Some(answer)) => shared.take(answer),
            Ok(None) => Err(stream_ended()),
            Err(error) => Err(error),
        };
        if let Err(error) = taken {
            return error;
        }
    }
}

/// Sends what the watches ask for, and asks how far they are. Returns why nothing more can be sent.
async fn write(
    mut sender: WatchRequestSender,
    mut asked_for: Receiver<Request>,
    shared: &Shared,
) -> etcd_client::Error {
    let mut next_id = FIRST_ID;
    let mut ask_at = shared.progress.next_beat(Instant::now());
    // By when a server that was never seen to tell its progress should have told it.
    let mut told_by = None;
    loop {
        let sent = tokio::select! {
            request = asked_for.recv() => match request {
                Some(Request { range: (key, end), opened }) => {
                    while !shared.in_order && !lock(&shared.table).asked.is_empty() {
                        shared.answered.notified().await;
                    }
                    next_id += 1;
                    let asked = Asked { id: next_id, opened };
                    lock(&shared.table).asked.push_back(asked);
                    sender.watch(key, Some(options(&end, next_id))).await
                }
                None => Err(stream_ended()),
            },
            () = shared.dropped.notified() => {
                let dropped = std::mem::take(&mut lock(&shared.table).dropped);
                cancel(&mut sender, dropped).await
            }
            () = at(told_by) => {
                told_by = None;
                shared.progress.note_never_told();
                Ok(())
            }
            () = sleep_until(ask_at) => {
                ask_at = shared.progress.next_beat(Instant::now());
                let seen = shared.progress.seen();
                if seen == Progress::NeverTold || lock(&shared.table).standing.is_empty() {
                    Ok(())
                } else {
                    if seen == Progress::Unknown {
                        let limit = shared.progress.tell_within();
                        told_by.get_or_insert(Instant::now() + limit);
                    }
                    sender.request_progress().await
                }
            }
        };
        if let Err(error) = sent {
            return error;
        }
    }
}

async fn cancel(sender: &mut WatchRequestSender, ids: Vec<i64>) -> Result<(), etcd_client::Error> {
    for id in ids {
        sender.cancel(id).await?;
    }
    Ok(())
}

fn options(end: &str, id: i64) -> WatchOptions {
    let options = WatchOptions::new().with_range(end).with_progress_notify();
    options.with_watch_id(id)
}

fn unasked() -> etcd_client::Error {
    let why = "the server answers for a watch that it was not asked for";
    etcd_client::Error::WatchError(why.to_owned())
}

/// What an answer takes in memory, roughly.
fn bytes_of(answer: &WatchResponse) -> usize {
    let entries = answer.events().iter().filter_map(Event::kv);
    let bytes = |entry: &KeyValue| OVERHEAD + entry.key().len() + entry.value().len();
    OVERHEAD + entries.map(bytes).sum::<usize>()
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use etcd_client::PutOptions;
    use sd_core::ErrorKind;
    use sd_testing::required_env;
    use tokio::time::timeout;

    use super::*;
    use crate::EtcdConfig;
    use crate::client::Client;
    use crate::client::connection::Connection;

    const OP: &str = "test";
    const LONG: Duration = Duration::from_secs(30);

    /// A client, and a raw one to write with below the prefix.
    async fn clients() -> (Client, etcd_client::KvClient, String) {
        let url = required_env("SD_TEST_ETCD").unwrap();
        let prefix = format!("/sd-test/{:016x}", fastrand::u64(..));
        let client = Client::new(EtcdConfig::new([&*url]).checked().unwrap());
        let raw = etcd_client::Client::connect([url], None).await.unwrap();
        (client, raw.kv_client(), prefix)
    }

    /// Watches all keys that begin with this.
    async fn watch(client: &Client, begin: &str) -> (Connection, Watch) {
        let end = format!("{begin}~");
        let (connection, (_, watch)) = client.watch(OP, (begin, &end)).await.unwrap();
        (connection, watch)
    }

    /// The key of the next event.
    async fn told(watch: &mut Watch) -> String {
        loop {
            let answer = timeout(LONG, watch.next()).await.unwrap().unwrap();
            if let Some(entry) = answer.events().iter().find_map(Event::kv) {
                return entry.key_str().unwrap().to_owned();
            }
        }
    }

    #[tokio::test]
    #[ignore = "needs etcd: cargo xtask test --backend etcd"]
    async fn each_watch_of_a_stream_is_told_what_is_its_own_whatever_becomes_of_the_others() {
        let (client, mut raw, prefix) = clients().await;
        let key = |name: &str| format!("{prefix}/{name}/key");
        let watched = |name: &str| format!("{prefix}/{name}/");
        let (_connection, mut one) = watch(&client, &watched("one")).await;
        let (at_two, at_three) = (watched("two"), watched("three"));
        let both = tokio::join!(watch(&client, &at_two), watch(&client, &at_three));
        let ((_, two), (_, mut three)) = both;
        assert!(Arc::ptr_eq(&one.shared, &two.shared) && Arc::ptr_eq(&two.shared, &three.shared));
        // A range that ends before it begins.
        let refused = client.watch(OP, ("b", "a")).await.unwrap_err();
        assert_ne!(refused.kind(), ErrorKind::Outdated, "{}", refused.report());
        drop(two);
        for name in ["two", "three", "one"] {
            raw.put(key(name), "", None).await.unwrap();
        }
        assert_eq!(told(&mut three).await, key("three"));
        assert_eq!(told(&mut one).await, key("one"));
        assert_eq!(lock(&one.shared.table).standing.len(), 2);
    }

    #[tokio::test]
    #[ignore = "needs etcd: cargo xtask test --backend etcd"]
    async fn a_watch_whose_reader_takes_nothing_ends_and_no_other_waits_for_it() {
        const MEBIBYTE: usize = 1024 * 1024;
        let (client, mut raw, prefix) = clients().await;
        let (slow, quick) = (format!("{prefix}/slow/"), format!("{prefix}/quick/"));
        let (_connection, mut watched) = watch(&client, &slow).await;
        let (_, mut other) = watch(&client, &quick).await;
        let value = vec![b'x'; MEBIBYTE];
        for _ in 0..MOST_WAITING / MEBIBYTE + 2 {
            let (key, options) = (format!("{slow}key"), PutOptions::new());
            raw.put(key, value.clone(), Some(options)).await.unwrap();
        }
        raw.put(format!("{quick}key"), "", None).await.unwrap();
        assert_eq!(told(&mut other).await, format!("{quick}key"));
        let mut events = 0;
        let ended = loop {
            match timeout(LONG, watched.next()).await.unwrap() {
                Ok(answer) => events += answer.events().len(),
                Err(ended) => break ended,
            }
        };
        assert!(matches!(ended, Ended::Behind), "{ended:?}");
        assert!((1..=MOST_WAITING / MEBIBYTE).contains(&events), "{events}");
        raw.delete(format!("{slow}key"), None).await.unwrap();
    }

    #[tokio::test]
    #[ignore = "needs etcd: cargo xtask test --backend etcd"]
    async fn a_watch_that_is_given_up_while_it_is_asked_for_is_cancelled() {
        let (client, mut raw, prefix) = clients().await;
        let (_connection, mut first) = watch(&client, &format!("{prefix}/first/")).await;
        for _ in 0..50 {
            let begin = format!("{prefix}/given-up/");
            let asking = client.watch(OP, (&begin, "~"));
            // Sent, and hardly answered.
            let _ = timeout(Duration::from_micros(fastrand::u64(..500)), asking).await;
        }
        let (_, last) = watch(&client, &format!("{prefix}/last/")).await;
        raw.put(format!("{prefix}/first/key"), "", None)
            .await
            .unwrap();
        told(&mut first).await;
        let table = lock(&last.shared.table);
        let mut standing: Vec<i64> = table.standing.keys().copied().collect();
        standing.sort_unstable();
        let mut kept = [first.id, last.id].map(Option::unwrap);
        kept.sort_unstable();
        assert_eq!((standing, table.asked.len()), (kept.to_vec(), 0));
    }
}
