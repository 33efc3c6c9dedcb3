//! One stream for all watches of a connection, as etcd means it and as its Go client does: a process that follows a thousand services has
//! one stream at the server, and asks once how far all of its watches are.
//!
//! A task reads the stream and hands each answer to its watch. No watch waits for another: one whose reader does not keep up ends, and what
//! it follows is read again. While one watch lags at the server, etcd tells no progress of any on the stream: then what comes for one proves
//! to all that the server is there.
//!
//! etcd's proxy answers the requests of a stream in any order. There, each watch has a stream of its own.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
/// How much may wait for the reader of one watch, in bytes. A single answer may have more.
const MOST_WAITING: usize = 16 * 1024 * 1024;
/// As many answers have so many bytes in any case.
const MOST_ANSWERS: usize = MOST_WAITING / OVERHEAD;
/// So many watches wait to be asked for, and others wait for a place.
const MOST_REQUESTS: usize = 64;
/// What an event or an answer takes beside keys and values, roughly.
const OVERHEAD: usize = 128;

/// The stream of a connection: made when there is a watch, and ended with the last one.
#[derive(Debug)]
pub(crate) struct Watches {
    progress: Arc<ServerProgress>,
    current: Mutex<Arc<OnceCell<Stream>>>,
    /// The server answers in any order.
    is_proxy: AtomicBool,
}

/// One watch. It ends at the server when this is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    /// `None` if the server refused it.
    id: Option<i64>,
    news: Receiver<News>,
    waiting: Arc<AtomicUsize>,
    shared: Arc<Shared>,
    /// The stream that is for this watch alone, if it has one.
    own: Option<Stream>,
}

/// What a server says.
#[derive(Clone, Debug)]
pub(crate) enum News {
    /// It answers the watch.
    Told(Arc<WatchResponse>),
    /// It is there, and the watch has nothing to tell.
    Alive,
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
    /// A watch is to end.
    dropped: Notify,
    progress: Arc<ServerProgress>,
    /// Whether the server has told its progress, and whether it has told anything, since it was asked last.
    has_told_progress: AtomicBool,
    has_told: AtomicBool,
    ended: OnceLock<Ending>,
}

/// Why a stream has ended.
#[derive(Debug)]
enum Ending {
    /// It had no watch any more.
    Unused,
    Failed(etcd_client::Error),
}

/// Ends a stream with its task, however that ends: also if its runtime is shut down.
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(Ending::Failed(stream_ended()));
    }
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
    news: Sender<News>,
    waiting: Arc<AtomicUsize>,
}

/// A watch that is wanted.
#[derive(Debug)]
struct Request {
    range: (String, String),
    opened: oneshot::Sender<Opened>,
}

/// Why there is no stream for all watches.
#[derive(Debug)]
enum NotShared {
    /// The server refuses its first watch, and says why. Or it is a proxy, and the stream is for this watch alone.
    Opened(Opened),
    Failed(etcd_client::Error),
}

impl Watches {
    pub(crate) fn new(progress: Arc<ServerProgress>) -> Self {
        Self {
            progress,
            current: Mutex::default(),
            is_proxy: AtomicBool::new(false),
        }
    }

    /// Watches a range from now on. Cancel-safe.
    pub(crate) async fn open(
        &self,
        client: &WatchClient,
        range: (&str, &str),
    ) -> Result<Opened, etcd_client::Error> {
        loop {
            let shared = match self.stream(client, range).await {
                Ok((_, Some(opened))) | Err(NotShared::Opened(opened)) => return Ok(opened),
                Ok((shared, None)) => shared,
                Err(NotShared::Failed(error)) => return Err(error),
            };
            let (opened, answer) = oneshot::channel();
            let (key, end) = range;
            let range = (key.to_owned(), end.to_owned());
            // A stream that has ended takes no request, and answers none.
            let _ = shared.requests.send(Request { range, opened }).await;
            match (answer.await, shared.ended.get()) {
                (Ok(opened), _) => return Ok(opened),
                // Its last watch ended just now.
                (Err(_), Some(Ending::Unused)) => {}
                (Err(_), _) => return Err(shared.error()),
            }
        }
    }

    /// The stream of all watches. If it was made for this range, the watch of that comes with it.
    async fn stream(
        &self,
        client: &WatchClient,
        range: (&str, &str),
    ) -> Result<(Arc<Shared>, Option<Opened>), NotShared> {
        let begin = || Stream::begin(client.clone(), range, &self.progress);
        let alone = |(stream, (answer, mut watch)): (Stream, Opened)| {
            watch.own = Some(stream);
            NotShared::Opened((answer, watch))
        };
        if self.is_proxy.load(Ordering::Relaxed) {
            return Err(alone(begin().await?));
        }
        let current = self.current();
        let mut first = None;
        let making = {
            let first = &mut first;
            async move {
                let (stream, opened) = begin().await?;
                if opened.0.watch_id() != FIRST_ID {
                    self.is_proxy.store(true, Ordering::Relaxed);
                    return Err(alone((stream, opened)));
                }
                *first = Some(opened);
                Ok(stream)
            }
        };
        let shared = Arc::clone(&current.get_or_try_init(|| making).await?.shared);
        Ok((shared, first))
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
    ) -> Result<(Self, Opened), NotShared> {
        let asked = client.watch(key, Some(options(end, FIRST_ID))).await;
        let mut stream = asked.map_err(NotShared::Failed)?;
        let answer = match stream.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => return Err(NotShared::Failed(stream_ended())),
            Err(error) => return Err(NotShared::Failed(error)),
        };
        let (requests, asked_for) = channel(MOST_REQUESTS);
        let shared = Arc::new(Shared {
            requests,
            table: Mutex::default(),
            dropped: Notify::new(),
            progress: Arc::clone(progress),
            has_told_progress: AtomicBool::new(false),
            has_told: AtomicBool::new(false),
            ended: OnceLock::new(),
        });
        let watch = shared.stand(&answer);
        if answer.canceled() {
            return Err(NotShared::Opened((answer, watch)));
        }
        let ending = EndOnDrop(Arc::clone(&shared));
        let task = tokio::spawn(run(stream, asked_for, ending));
        let stream = Self {
            shared,
            _task: AbortOnDropHandle::new(task),
        };
        Ok((stream, (answer, watch)))
    }
}

impl Watch {
    /// What the server says next. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<News, Ended> {
        let news = self.news.recv().await;
        let news = news.ok_or_else(|| match self.shared.ended.get() {
            Some(_) => Ended::Failed(self.shared.error()),
            None => Ended::Behind,
        })?;
        self.waiting.fetch_sub(bytes_of(&news), Ordering::Relaxed);
        Ok(news)
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
        match self.ended.get() {
            Some(Ending::Failed(error)) => copy(error),
            Some(Ending::Unused) | None => stream_ended(),
        }
    }

    /// The watch that this answer is the first of.
    fn stand(self: &Arc<Self>, answer: &WatchResponse) -> Watch {
        let (sender, news) = channel(MOST_ANSWERS);
        let waiting = Arc::new(AtomicUsize::new(0));
        let id = (!answer.canceled()).then(|| answer.watch_id());
        if let Some(id) = id {
            let reader = Reader {
                news: sender,
                waiting: Arc::clone(&waiting),
            };
            lock(&self.table).standing.insert(id, reader);
        }
        Watch {
            id,
            news,
            waiting,
            shared: Arc::clone(self),
            own: None,
        }
    }

    /// Hands an answer to those whom it concerns.
    fn take(self: &Arc<Self>, answer: WatchResponse) -> Result<(), etcd_client::Error> {
        let (id, is_last) = (answer.watch_id(), answer.canceled());
        self.has_told.store(true, Ordering::Relaxed);
        if answer.created() {
            return self.take_first(answer);
        }
        let news = News::Told(Arc::new(answer));
        if id == ALL_WATCHES {
            self.progress.note_told();
            self.has_told_progress.store(true, Ordering::Relaxed);
            self.tell_all(&news);
            return Ok(());
        }
        let mut table = lock(&self.table);
        if let Some(reader) = table.standing.get(&id)
            && (!reader.has_room_for(&news) || is_last)
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
        // A refusal may bear no id.
        if !answer.canceled() && answer.watch_id() != asked.id {
            return Err(unasked());
        }
        let watch = self.stand(&answer);
        // One that is no longer wanted is dropped here, and ends.
        let _ = asked.opened.send((answer, watch));
        Ok(())
    }

    /// If the server has told no progress since this was called last, but something else, it is there.
    fn tell_alive(&self) {
        let has_told_progress = self.has_told_progress.swap(false, Ordering::Relaxed);
        if self.has_told.swap(false, Ordering::Relaxed) && !has_told_progress {
            self.tell_all(&News::Alive);
        }
    }

    fn tell_all(&self, news: &News) {
        let mut table = lock(&self.table);
        table.standing.retain(|_, reader| reader.has_room_for(news));
    }

    fn end(&self, ending: Ending) {
        // The first reason counts.
        let _ = self.ended.set(ending);
        // Each reader finds out when it has taken what waits for it.
        *lock(&self.table) = Table::default();
    }
}

impl Reader {
    /// Leaves news to the reader. False if too much waits for it already.
    fn has_room_for(&self, news: &News) -> bool {
        let bytes = bytes_of(news);
        let waiting = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let has_room = waiting == 0 || waiting.saturating_add(bytes) <= MOST_WAITING;
        // One that is dropped at this moment needs it no more.
        has_room && self.news.try_send(news.clone()).is_ok()
    }
}

/// The task of a stream.
async fn run(stream: WatchStream, asked_for: Receiver<Request>, ending: EndOnDrop) {
    let (sender, answers) = stream.split();
    let shared = &ending.0;
    let why = tokio::select! {
        error = read(answers, shared) => Ending::Failed(error),
        why = write(sender, asked_for, shared) => why,
    };
    shared.end(why);
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

/// Sends what the watches ask for, and asks how far they are. Returns why nothing more is sent.
async fn write(
    mut sender: WatchRequestSender,
    mut asked_for: Receiver<Request>,
    shared: &Shared,
) -> Ending {
    let mut next_id = FIRST_ID;
    let mut ask_at = shared.progress.next_beat(Instant::now());
    // By when a server that was never seen to tell its progress should have told it.
    let mut told_by = None;
    loop {
        let sent = tokio::select! {
            request = asked_for.recv() => match request {
                Some(Request { range: (key, end), opened }) => {
                    next_id += 1;
                    let asked = Asked { id: next_id, opened };
                    lock(&shared.table).asked.push_back(asked);
                    sender.watch(key, Some(options(&end, next_id))).await
                }
                None => Err(stream_ended()),
            },
            () = shared.dropped.notified() => {
                let dropped = std::mem::take(&mut lock(&shared.table).dropped);
                let sent = cancel(&mut sender, dropped).await;
                let is_unused = || {
                    let table = lock(&shared.table);
                    table.standing.is_empty() && table.asked.is_empty()
                };
                // etcd takes pings on a stream without watches for an attack.
                if asked_for.is_empty() && is_unused() {
                    // Told before requests are refused.
                    shared.end(Ending::Unused);
                    return Ending::Unused;
                }
                sent
            }
            () = at(told_by) => {
                told_by = None;
                // While a watch lags, no progress is told.
                if !shared.has_told.load(Ordering::Relaxed) {
                    shared.progress.note_never_told();
                }
                Ok(())
            }
            () = sleep_until(ask_at) => {
                ask_at = shared.progress.next_beat(Instant::now());
                shared.tell_alive();
                match shared.progress.seen() {
                    Progress::NeverTold => Ok(()),
                    seen => {
                        if seen == Progress::Unknown {
                            let limit = shared.progress.tell_within();
                            told_by.get_or_insert(Instant::now() + limit);
                        }
                        sender.request_progress().await
                    }
                }
            }
        };
        if let Err(error) = sent {
            return Ending::Failed(error);
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

/// What news take in memory, roughly.
fn bytes_of(news: &News) -> usize {
    let News::Told(answer) = news else {
        return OVERHEAD;
    };
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

    use etcd_client::{GetOptions, PutOptions};
    use sd_core::ErrorKind;
    use sd_testing::required_env;
    use tokio::runtime::Builder;
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
        // No beat comes while a test runs.
        let config = EtcdConfig::new([&*url]).with_keep_alive(LONG * 10, LONG);
        let client = Client::new(config.checked().unwrap());
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
            let news = timeout(LONG, watch.next()).await.unwrap().unwrap();
            if let News::Told(answer) = news
                && let Some(entry) = answer.events().iter().find_map(Event::kv)
            {
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
                Ok(News::Told(answer)) => events += answer.events().len(),
                Ok(News::Alive) => {}
                Err(ended) => break ended,
            }
        };
        assert!(matches!(ended, Ended::Behind), "{ended:?}");
        assert!((1..=MOST_WAITING / MEBIBYTE).contains(&events), "{events}");
        raw.delete(format!("{slow}key"), None).await.unwrap();
    }

    #[tokio::test]
    #[ignore = "needs etcd: cargo xtask test --backend etcd"]
    async fn watches_end_with_the_runtime_of_their_stream_and_the_next_one_has_another_stream() {
        let (client, _raw, prefix) = clients().await;
        let client = Arc::new(client);
        let watched = |name: &str| format!("{prefix}/{name}/");
        // The connection belongs to this runtime.
        let read = client.get(OP, b"key", &GetOptions::new()).await;
        read.unwrap();
        let other = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let watching = {
            let (client, watched) = (Arc::clone(&client), watched("one"));
            other.spawn(async move { watch(&client, &watched).await })
        };
        let (_connection, first) = watching.await.unwrap();
        let (_, mut second) = watch(&client, &watched("two")).await;
        assert!(Arc::ptr_eq(&first.shared, &second.shared));
        other.shutdown_background();
        let ended = timeout(LONG, second.next()).await.unwrap().unwrap_err();
        assert!(matches!(ended, Ended::Failed(_)), "{ended:?}");
        let (_, third) = watch(&client, &watched("three")).await;
        assert!(!Arc::ptr_eq(&third.shared, &second.shared));
    }

    #[tokio::test]
    #[ignore = "needs etcd: cargo xtask test --backend etcd"]
    async fn a_stream_ends_with_its_last_watch_and_the_next_watch_has_another() {
        let (client, _raw, prefix) = clients().await;
        let mut streams = Vec::new();
        for name in 0..20 {
            let (_connection, watch) = watch(&client, &format!("{prefix}/{name}/")).await;
            let shared = Arc::clone(&watch.shared);
            drop(watch);
            if name % 2 == 0 {
                timeout(LONG, shared.requests.closed()).await.unwrap();
                assert!(matches!(shared.ended.get(), Some(Ending::Unused)));
            }
            streams.push(shared);
        }
        let others = |at: usize| !Arc::ptr_eq(&streams[at], &streams[at + 1]);
        assert!((0..19).step_by(2).all(others));
    }

    /// etcd tells no progress while one watch lags.
    #[tokio::test]
    #[ignore = "needs etcd: cargo xtask test --backend etcd"]
    async fn where_no_progress_is_told_what_comes_for_one_watch_shows_all_that_the_server_is_there()
    {
        let (client, mut raw, prefix) = clients().await;
        let (busy, quiet) = (format!("{prefix}/busy/"), format!("{prefix}/quiet/"));
        let (_connection, mut busy_watch) = watch(&client, &busy).await;
        let (_, mut quiet_watch) = watch(&client, &quiet).await;
        let shared = Arc::clone(&quiet_watch.shared);
        // What has come until now is spent.
        shared.tell_alive();
        while quiet_watch.news.try_recv().is_ok() {}
        raw.put(format!("{busy}key"), "", None).await.unwrap();
        told(&mut busy_watch).await;
        shared.tell_alive();
        let news = quiet_watch.news.try_recv();
        assert!(matches!(news, Ok(News::Alive)), "{news:?}");
        // Nothing has come since.
        shared.tell_alive();
        let news = quiet_watch.news.try_recv();
        assert!(news.is_err(), "{news:?}");
        // Progress was told to each by itself.
        raw.put(format!("{busy}key"), "", None).await.unwrap();
        told(&mut busy_watch).await;
        shared.has_told_progress.store(true, Ordering::Relaxed);
        shared.tell_alive();
        let news = quiet_watch.news.try_recv();
        assert!(news.is_err(), "{news:?}");
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
