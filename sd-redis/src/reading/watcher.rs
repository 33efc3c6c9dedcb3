//! The feed of one service: what is told is a hint, and the version is the truth.
//!
//! A change whose version follows ours is applied. Anything else has everything read again. The server is asked where the service is
//! whenever a record may have ended, and now and then: by its clock alone, of which only spans are used here.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_core::clock::{Clock, Moment};
use sd_core::port::Feed;
use sd_core::{ErrorKind, Result, ServiceName, Snapshot, Watcher};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::backend::RedisBackend;
use crate::client::Client;
use crate::client::subscriptions::{Subscription, Subscriptions};
use crate::codec::change::{self, Done};
use crate::codec::names::Keys;
use crate::reading::full_read::{Position, read_position, read_service};
use crate::reading::service_set::ServiceSet;

const OP: &str = "redis: watch service";
/// How long a message may be late that tells of a version which the server has named already.
const LATE_BY: Duration = Duration::from_millis(200);
/// How far apart readers ask whose records end at once. The first that asks removes them for all.
const SPREAD: std::ops::Range<u64> = 5..100;

/// One service, followed.
#[derive(Debug)]
pub(crate) struct RedisWatcher {
    client: Arc<Client>,
    keys: Keys,
    service: ServiceName,
    clock: Arc<dyn Clock>,
    /// `None` where we may not read the channel: then the server is only asked.
    told: Option<Subscription>,
    set: ServiceSet,
    at: Position,
    /// When the server is asked next.
    look_at: Instant,
    /// A version that the server has named, and until when it must have been told.
    awaited: Option<(u64, Instant)>,
    /// Whether the set cannot be made of what was told.
    must_read: bool,
    /// Whether the set was read, and not told since.
    is_new: bool,
    /// Since when it is known.
    as_of: Moment,
    /// What was told last.
    last: Option<Snapshot>,
}

impl RedisWatcher {
    pub(crate) async fn open(
        backend: &RedisBackend,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Self> {
        let client = Arc::clone(&backend.client);
        let keys = backend.layout.keys(service);
        let told = subscribe(client.subscriptions(), &keys.channel).await?;
        let as_of = backend.clock.now();
        let (set, at) = read_service(&client, OP, service, &keys, known).await?;
        let look_at = next_look(client.config().poll_interval, at.next_end);
        Ok(Self {
            client,
            keys,
            service: service.clone(),
            clock: Arc::clone(&backend.clock),
            told,
            set,
            at,
            look_at,
            awaited: None,
            must_read: false,
            is_new: true,
            as_of,
            last: known.cloned(),
        })
    }

    /// Takes what was told, as far as it follows what is known.
    fn take(&mut self, message: &[u8]) {
        let Some(change) = change::decode(message) else {
            return;
        };
        let is_ours = change.history == self.at.history;
        if self.must_read || (is_ours && change.version <= self.at.version) {
            return;
        }
        if !is_ours || change.version != self.at.version + 1 {
            self.must_read = true;
            return;
        }
        match change.done {
            Done::Put { id, value, ends_in } => {
                self.set.put(id, value, None);
                let poll = self.client.config().poll_interval;
                self.look_at = self.look_at.min(next_look(poll, Some(ends_in)));
            }
            Done::Ended { id } => self.set.end(id),
            Done::More => {
                self.must_read = true;
                return;
            }
        }
        self.at.version = change.version;
        self.as_of = self.clock.now();
    }

    fn snapshot(&mut self) -> Snapshot {
        self.is_new = false;
        let set = self.set.snapshot(self.at.revision(), self.as_of);
        self.last = Some(set.clone());
        set
    }

    /// Reads everything. What was told until the server answered is older.
    async fn read_all(&mut self) -> Result<()> {
        let (known, as_of) = (self.last.as_ref(), self.clock.now());
        let (set, at) = read_service(&self.client, OP, &self.service, &self.keys, known).await?;
        self.look_at = next_look(self.client.config().poll_interval, at.next_end);
        (self.set, self.at, self.as_of) = (set, at, as_of);
        (self.must_read, self.awaited) = (false, None);
        self.is_new = true;
        Ok(())
    }

    /// Asks the server where the service is.
    async fn look(&mut self) -> Result<()> {
        let as_of = self.clock.now();
        let looked = read_position(&self.client, OP, &self.keys).await;
        let at = match looked {
            // Another program has made a key something else. To read everything says which.
            Err(error) if error.kind() == ErrorKind::InvalidData => return self.read_all().await,
            looked => looked?,
        };
        self.look_at = next_look(self.client.config().poll_interval, at.next_end);
        self.as_of = as_of;
        for id in &at.ended {
            self.set.hide(id);
        }
        // What was told was published before: one that says less has been told something false, or is a replica that lags.
        if at.history != self.at.history || at.version < self.at.version {
            self.must_read = true;
        } else if at.version > self.at.version {
            match self.told {
                Some(_) => self.awaited = Some((at.version, Instant::now() + LATE_BY)),
                None => self.must_read = true,
            }
        } else if at.entries != self.set.entries() {
            debug!(service = %self.service, "another program has changed the service");
            self.must_read = true;
        }
        Ok(())
    }

    /// Whether what the server has named was told meanwhile.
    fn check_awaited(&mut self) {
        if let Some((version, by)) = self.awaited {
            if self.at.version >= version {
                self.awaited = None;
            } else if Instant::now() >= by {
                self.must_read = true;
            }
        }
    }

    /// Waits until something is told, or the server is to be asked. Returns whether it is.
    async fn wait(&mut self) -> Result<bool> {
        let wake_at = match self.awaited {
            Some((_, by)) => by.min(self.look_at),
            None => self.look_at,
        };
        let Some(told) = &mut self.told else {
            sleep_until(wake_at).await;
            return Ok(true);
        };
        let message = tokio::select! {
            biased;
            message = told.next() => message?,
            () = sleep_until(wake_at) => return Ok(Instant::now() >= self.look_at),
        };
        self.take(&message);
        // What came with it makes one set together with it.
        while let Some(message) = self.told.as_mut().and_then(Subscription::try_next) {
            self.take(&message);
        }
        Ok(false)
    }
}

/// When the server is to be asked next.
fn next_look(poll_interval: Duration, next_end: Option<Duration>) -> Instant {
    let spread = Duration::from_millis(fastrand::u64(SPREAD));
    let poll = poll_interval.mul_f64(0.9 + 0.2 * fastrand::f64());
    let next_end = next_end.map(|end| end.saturating_add(spread));
    let wait = next_end.map_or(poll, |end| end.min(poll));
    Instant::now() + wait
}

/// Begins to read a channel; `None` if we may not.
pub(super) async fn subscribe(
    subscriptions: &Subscriptions,
    channel: &str,
) -> Result<Option<Subscription>> {
    match subscriptions.subscribe(channel).await {
        Ok(subscription) => Ok(Some(subscription)),
        Err(error) if error.kind() == ErrorKind::Denied => {
            debug!(error = %error.report(), "changes are not told, and are asked for now and then");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[async_trait]
impl Watcher for RedisWatcher {
    async fn next(&mut self) -> Result<Feed> {
        loop {
            self.check_awaited();
            if self.must_read {
                self.read_all().await?;
            }
            if self.is_new || self.set.is_changed() {
                return Ok(Feed::Set(self.snapshot()));
            }
            if self.wait().await? {
                self.look().await?;
                let is_certain = !self.must_read && self.awaited.is_none();
                if is_certain && !self.is_new && !self.set.is_changed() {
                    return Ok(Feed::Alive {
                        revision: self.at.revision(),
                        as_of: self.as_of,
                    });
                }
            }
        }
    }

    fn silence_limit(&self) -> Duration {
        let config = self.client.config();
        // Its own jitter, and a look with a full read after it.
        config.poll_interval.mul_f64(1.1) + config.request_timeout * 3
    }
}
