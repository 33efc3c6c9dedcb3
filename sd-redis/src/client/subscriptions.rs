//! What is told of channels: one connection for all of them, beside that of the commands.
//!
//! It is plain Pub/Sub. A sharded subscription is lost without a word when its slot moves. Messages are lost while there is no connection,
//! so a subscription ends with its connection, and says so. A connection that is silent is pinged.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use redis::aio::{AsyncPushSender, SendError};
use redis::{Pipeline, PushInfo, PushKind, Value};
use sd_backend::{CloseSignal, SharedConnection};
use sd_core::sync::lock;
use sd_core::{Endpoint, Error, ErrorKind, Result};
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::client::connection::{Dialer, Link};
use crate::client::error::no_answer;
use crate::client::topology::Topology;
use crate::config::topology::Topology as Kind;

const OP: &str = "redis: subscribe";
/// A reader that is further behind reads everything instead: by so many messages, or by so many bytes.
const MOST_WAITING: usize = 1024;
const MOST_WAITING_BYTES: usize = 1024 * 1024;

/// The channels that are told to readers here.
pub(crate) struct Subscriptions {
    dialer: Arc<Dialer>,
    topology: Arc<Topology>,
    shared: Arc<SharedConnection<Told>>,
    signal: CloseSignal,
}

/// A connection on which channels are told.
struct Told {
    link: Arc<Link>,
    readers: Arc<Readers>,
    channels: Arc<tokio::sync::Mutex<Channels>>,
    _keeping: AbortOnDropHandle<()>,
}

/// What the server tells, or may: whether it has confirmed each channel. Held while that changes.
type Channels = HashMap<String, bool>;

/// Who reads which channel.
#[derive(Default)]
struct Readers {
    by_channel: Mutex<HashMap<String, Vec<Reader>>>,
    next: AtomicU64,
    /// How many messages came, on all channels.
    heard: AtomicU64,
    has_ended: AtomicBool,
}

struct Reader {
    id: u64,
    messages: mpsc::Sender<Bytes>,
    waiting: Arc<Waiting>,
}

/// What a reader was told and has not read.
#[derive(Default)]
struct Waiting {
    bytes: AtomicUsize,
    is_too_much: AtomicBool,
}

/// What is told of one channel, until it ends.
pub(crate) struct Subscription {
    messages: mpsc::Receiver<Bytes>,
    waiting: Arc<Waiting>,
    channel: String,
    id: u64,
    /// Keeps the connection.
    told: sd_backend::Connection<Told>,
    shared: Arc<SharedConnection<Told>>,
    signal: CloseSignal,
}

impl Subscriptions {
    pub(crate) fn new(
        dialer: &Arc<Dialer>,
        topology: &Arc<Topology>,
        signal: &CloseSignal,
    ) -> Self {
        Self {
            dialer: Arc::clone(dialer),
            topology: Arc::clone(topology),
            shared: Arc::new(SharedConnection::new(signal)),
            signal: signal.clone(),
        }
    }

    /// Begins to read a channel. What is published after this returns is told.
    ///
    /// # Errors
    /// Why the server does not tell it. `Denied` if the user may not read the channel.
    ///
    /// # Cancel safety
    /// After a dropped call, the server may tell what is not read, until the connection is pinged the next time.
    pub(crate) async fn subscribe(&self, channel: &str) -> Result<Subscription> {
        let limit = self.dialer.config().request_timeout;
        let subscribing = async {
            let done = timeout(limit, self.begin(channel)).await;
            done.unwrap_or_else(|_| {
                if let Some(current) = self.shared.current() {
                    self.shared.retire(&current);
                }
                Err(no_answer(OP, limit))
            })
        };
        self.signal.unless_closed(OP, subscribing).await
    }

    /// As [`subscribe`](Self::subscribe). `None` if the user may not read the channel.
    ///
    /// # Errors
    /// Why the server does not tell it, other than that it may not.
    pub(crate) async fn subscribe_if_allowed(&self, channel: &str) -> Result<Option<Subscription>> {
        match self.subscribe(channel).await {
            Ok(subscription) => Ok(Some(subscription)),
            Err(error) if error.kind() == ErrorKind::Denied => {
                debug!(error = %error.report(), "changes are not told, and are asked for now and then");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn begin(&self, channel: &str) -> Result<Subscription> {
        if let Some(current) = self.shared.current()
            && current.readers.has_ended.load(Ordering::Acquire)
        {
            // None of its readers was there to notice.
            self.shared.retire(&current);
        }
        let told = self.shared.get_or_connect(Box::pin(self.open())).await?;
        let (sender, messages) = mpsc::channel(MOST_WAITING);
        let waiting = Arc::<Waiting>::default();
        let id = told.readers.add(channel, sender, &waiting);
        let subscription = Subscription {
            messages,
            waiting,
            channel: channel.to_owned(),
            id,
            told: told.clone(),
            shared: Arc::clone(&self.shared),
            signal: self.signal.clone(),
        };
        let mut channels = told.channels.lock().await;
        if channels.get(channel) != Some(&true) {
            // Before it is asked for, so that it is given back also if this call is dropped meanwhile.
            channels.insert(channel.to_owned(), false);
            let subscribed = told.link.subscribe(OP, &[channel.to_owned()]).await;
            if let Err(error) = subscribed {
                channels.remove(channel);
                if error.kind() != ErrorKind::Denied {
                    self.shared.retire(&told);
                }
                return Err(error);
            }
            channels.insert(channel.to_owned(), true);
        }
        drop(channels);
        // Else the messages would come to no reader.
        if told.readers.has_ended.load(Ordering::Acquire) {
            return Err(subscription.end());
        }
        Ok(subscription)
    }

    async fn open(&self) -> Result<Told> {
        let readers = Arc::new(Readers::default());
        let sender = Arc::clone(&readers);
        let link = Arc::new(self.topology.open_for_pushes(OP, sender).await?);
        let channels = Arc::<tokio::sync::Mutex<Channels>>::default();
        let keeping = keep(
            Arc::clone(&self.dialer),
            Arc::clone(&link),
            Arc::clone(&readers),
            Arc::clone(&channels),
        );
        Ok(Told {
            link,
            readers,
            channels,
            _keeping: AbortOnDropHandle::new(tokio::spawn(keeping)),
        })
    }

    /// Commands go to this server now. Unless it is one of a Cluster, what is told comes from the same one: the next connection is tried there
    /// first, since another one may call itself the primary as well.
    pub(crate) fn follow(&self, server: &Endpoint) {
        if self.dialer.config().topology == Kind::Cluster {
            return;
        }
        if let Some(current) = self.shared.current()
            && current.link.address() != server
        {
            current.readers.end();
            self.topology.prefer(server);
            self.shared.renew(&current);
        }
    }
}

/// Pings the server, and has it tell no more what is not read any more. Ends when the server does not answer.
async fn keep(
    dialer: Arc<Dialer>,
    link: Arc<Link>,
    readers: Arc<Readers>,
    channels: Arc<tokio::sync::Mutex<Channels>>,
) {
    let config = dialer.config();
    let mut beats = interval(config.keep_alive_interval);
    beats.tick().await;
    let mut ping = Pipeline::new();
    ping.cmd("PING");
    loop {
        beats.tick().await;
        let beat = async {
            link.send(&ping).await.map_err(drop)?;
            let mut channels = channels.lock().await;
            let unread = readers.unread(&channels);
            if !unread.is_empty() {
                link.unsubscribe(OP, &unread).await.map_err(drop)?;
                channels.retain(|channel, _| !unread.contains(channel));
            }
            Ok::<_, ()>(())
        };
        if !matches!(timeout(config.request_timeout, beat).await, Ok(Ok(()))) {
            debug!(server = %link.address(), "the connection that tells of changes is given up");
            readers.end();
            return;
        }
    }
}

impl Readers {
    fn add(&self, channel: &str, messages: mpsc::Sender<Bytes>, waiting: &Arc<Waiting>) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let reader = Reader {
            id,
            messages,
            waiting: Arc::clone(waiting),
        };
        let mut by_channel = lock(&self.by_channel);
        by_channel
            .entry(channel.to_owned())
            .or_default()
            .push(reader);
        id
    }

    fn remove(&self, channel: &str, id: u64) {
        let mut by_channel = lock(&self.by_channel);
        if let Some(readers) = by_channel.get_mut(channel) {
            readers.retain(|reader| reader.id != id);
            if readers.is_empty() {
                by_channel.remove(channel);
            }
        }
    }

    /// Those of the channels that are not read.
    fn unread(&self, channels: &Channels) -> Vec<String> {
        let by_channel = lock(&self.by_channel);
        let unread = channels.keys();
        let unread = unread.filter(|channel| !by_channel.contains_key(channel.as_str()));
        unread.cloned().collect()
    }

    /// Ends all subscriptions.
    fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
        lock(&self.by_channel).clear();
    }

    fn deliver(&self, channel: &str, message: &Bytes) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        let mut by_channel = lock(&self.by_channel);
        let Some(readers) = by_channel.get_mut(channel) else {
            return;
        };
        // All of them share its bytes.
        readers.retain(|reader| {
            let is_sent =
                reader.waiting.takes(message) && reader.messages.try_send(message.clone()).is_ok();
            if !is_sent {
                reader.waiting.is_too_much.store(true, Ordering::Release);
            }
            is_sent
        });
    }
}

impl Waiting {
    /// Counts a message, if there is room for it.
    fn takes(&self, message: &Bytes) -> bool {
        let waiting = self.bytes.fetch_add(message.len(), Ordering::Relaxed);
        waiting.saturating_add(message.len()) <= MOST_WAITING_BYTES
    }

    /// A message that was counted is read.
    fn read(&self, message: &Bytes) {
        self.bytes.fetch_sub(message.len(), Ordering::Relaxed);
    }
}

impl AsyncPushSender for Readers {
    fn send(&self, info: PushInfo) -> Result<(), SendError> {
        match info.kind {
            PushKind::Disconnection => self.end(),
            PushKind::Message => {
                let mut data = info.data.into_iter();
                let (channel, message) = (data.next(), data.next());
                if let (Some(Value::BulkString(channel)), Some(Value::BulkString(message))) =
                    (channel, message)
                    && let Ok(channel) = std::str::from_utf8(&channel)
                {
                    self.deliver(channel, &Bytes::from(message));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Subscription {
    /// The next message.
    ///
    /// # Errors
    /// `Outdated` if more came than was read. `Unavailable` if the connection has ended.
    ///
    /// # Cancel safety
    /// A dropped call loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Bytes> {
        let received = self
            .signal
            .unless_closed(OP, async { Ok(self.messages.recv().await) });
        match received.await? {
            Some(message) => {
                self.waiting.read(&message);
                Ok(message)
            }
            None => Err(self.end()),
        }
    }

    /// A message that is there already.
    pub(crate) fn try_next(&mut self) -> Option<Bytes> {
        let message = self.messages.try_recv().ok()?;
        self.waiting.read(&message);
        Some(message)
    }

    /// How many messages its connection has told, on all channels.
    pub(crate) fn heard(&self) -> u64 {
        self.told.readers.heard.load(Ordering::Relaxed)
    }

    /// Ends all that is told on its connection, which does not tell what is published. The next subscription is on another one.
    pub(crate) fn give_up(&self) {
        self.told.readers.end();
        self.shared.retire(&self.told);
    }

    /// Why there is nothing more to read.
    fn end(&self) -> Error {
        if self.waiting.is_too_much.load(Ordering::Acquire) {
            let why = format!(
                "more than {MOST_WAITING} changes, or {MOST_WAITING_BYTES} bytes of them, came at once"
            );
            return Error::new(ErrorKind::Outdated, OP).because(why);
        }
        self.shared.retire(&self.told);
        let why = format!("the connection to {} ended", self.told.link.address());
        Error::new(ErrorKind::Unavailable, OP).because(why)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.told.readers.remove(&self.channel, self.id);
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Subscription");
        shown.field("channel", &self.channel);
        shown.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(readers: &Readers, channel: &str) -> (u64, mpsc::Receiver<Bytes>, Arc<Waiting>) {
        let (sender, receiver) = mpsc::channel(2);
        let waiting = Arc::default();
        let id = readers.add(channel, sender, &waiting);
        (id, receiver, waiting)
    }

    fn is_behind(waiting: &Waiting) -> bool {
        waiting.is_too_much.load(Ordering::Acquire)
    }

    fn tell(readers: &Readers, channel: &str, text: &str) {
        let words = [channel, text].map(|word| Value::BulkString(word.into()));
        let info = PushInfo {
            kind: PushKind::Message,
            data: words.into(),
        };
        assert!(readers.send(info).is_ok());
    }

    #[test]
    fn each_reader_is_told_its_channel_and_one_that_falls_behind_holds_up_no_other() {
        let readers = Readers::default();
        let (_, mut slow, slow_waiting) = reader(&readers, "a");
        let (gone, _, _) = reader(&readers, "b");
        let (_, mut quick, quick_waiting) = reader(&readers, "a");
        for text in ["1", "2", "3"] {
            tell(&readers, "a", text);
            assert_eq!(quick.try_recv().unwrap(), text.as_bytes());
        }
        assert_eq!(
            [slow.try_recv().unwrap(), slow.try_recv().unwrap()],
            ["1", "2"]
        );
        assert!(slow.try_recv().is_err() && is_behind(&slow_waiting));
        assert!(!is_behind(&quick_waiting));
        readers.remove("b", gone);
        let channels = ["a", "b"].map(|channel| (channel.to_owned(), true));
        assert_eq!(readers.unread(&channels.into()), ["b"]);
        tell(&readers, "b", "no reader reads this");
    }

    #[test]
    fn a_reader_is_behind_by_bytes_as_well_and_readers_share_those_of_a_message() {
        let readers = Readers::default();
        let (_, mut slow, slow_waiting) = reader(&readers, "a");
        let (_, mut quick, quick_waiting) = reader(&readers, "a");
        let large = "x".repeat(MOST_WAITING_BYTES / 2 + 1);
        tell(&readers, "a", &large);
        let message = quick.try_recv().unwrap();
        quick_waiting.read(&message);
        tell(&readers, "a", &large);
        let both = [slow.try_recv().unwrap(), message];
        assert_eq!(both[0].as_ptr(), both[1].as_ptr());
        assert!(slow.try_recv().is_err() && is_behind(&slow_waiting));
        assert!(quick.try_recv().is_ok() && !is_behind(&quick_waiting));
    }

    #[test]
    fn a_connection_that_ends_ends_all_that_it_told() {
        let readers = Readers::default();
        let (_, mut reader, waiting) = reader(&readers, "a");
        let end = PushInfo {
            kind: PushKind::Disconnection,
            data: Vec::new(),
        };
        assert!(readers.send(end).is_ok());
        let ended = reader.try_recv().unwrap_err();
        assert_eq!(ended, mpsc::error::TryRecvError::Disconnected);
        assert!(!is_behind(&waiting) && readers.has_ended.load(Ordering::Acquire));
    }
}
