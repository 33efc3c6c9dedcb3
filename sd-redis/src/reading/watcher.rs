//! The feed of one service: what is told is a hint, and the position at the server is the truth.
//!
//! A change that follows what we have is applied: it names the sum of all changes before it. Anything else has everything read again. So a
//! server that takes the place of another and has lost changes is never taken for that one, although both count alike. The server is asked
//! where the service is whenever a record may have ended, and now and then: by its clock alone, of which only spans are used here.

use std::iter;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_core::clock::{Clock, Moment};
use sd_core::port::Feed;
use sd_core::{ErrorKind, Result, Revision, ServiceName, Snapshot, Watcher};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::backend::RedisBackend;
use crate::client::Client;
use crate::client::subscriptions::Subscription;
use crate::codec::change::{self, Done};
use crate::codec::names::Keys;
use crate::config::RedisConfig;
use crate::reading::awaited::Awaited;
use crate::reading::full_read::{read_position, read_service};
use crate::reading::position::{Position, Positions};
use crate::reading::service_set::ServiceSet;

const OP: &str = "redis: watch service";
/// For how many poll intervals a connection is kept that tells nothing. Where writers may not publish, another one tells nothing either.
const DEAF_KEPT_FOR: u32 = 10;
/// How many changes make one set at most.
const MOST_AT_ONCE: usize = 1024;
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
    /// When its connection told anything, of whatever channel, or was made.
    told_since: Instant,
    set: ServiceSet,
    at: Position,
    positions: Arc<Positions>,
    /// When the server is asked next.
    look_at: Instant,
    awaited: Awaited,
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
        let told = client
            .subscriptions()
            .subscribe_if_allowed(&keys.channel)
            .await?;
        let (as_of, before) = (backend.clock.now(), backend.positions.last(service));
        let (set, looked) = read_service(&client, OP, service, &keys, known).await?;
        let look_at = next_look(client.config(), looked.next_end);
        let mut awaited = Awaited::default();
        awaited.begin(told.as_ref().map_or(0, Subscription::heard));
        Ok(Self {
            client,
            keys,
            service: service.clone(),
            clock: Arc::clone(&backend.clock),
            told,
            told_since: Instant::now(),
            set,
            at: looked.at.after(before.as_ref()),
            positions: Arc::clone(&backend.positions),
            look_at,
            awaited,
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
        // One that is older. Or it is of a server that has lost changes, which the next look finds out.
        if self.must_read || (is_ours && change.version <= self.at.version) {
            return;
        }
        let is_next = change.version == self.at.version + 1 && change.before == self.at.sum;
        if !is_ours || !is_next {
            self.must_read = true;
            return;
        }
        match change.done {
            Done::Put { id, value, ends_in } => {
                self.set.put(id, value, None);
                let look_at = next_look(self.client.config(), Some(ends_in));
                self.look_at = self.look_at.min(look_at);
            }
            Done::Ended { id } => self.set.end(id),
            Done::More => {
                self.must_read = true;
                return;
            }
        }
        self.at.version = change.version;
        change.sum.clone_into(&mut self.at.sum);
        self.as_of = self.clock.now();
    }

    /// Where the service is, for readers.
    fn revision(&self) -> Revision {
        self.positions.tell(&self.service, &self.at);
        self.at.revision()
    }

    fn snapshot(&mut self) -> Snapshot {
        self.is_new = false;
        let set = self.set.snapshot(self.revision(), self.as_of);
        self.last = Some(set.clone());
        set
    }

    /// Reads everything. What was told until the server answered is older.
    async fn read_all(&mut self) -> Result<()> {
        let (known, as_of) = (self.last.as_ref(), self.clock.now());
        let reading = read_service(&self.client, OP, &self.service, &self.keys, known);
        let (set, looked) = reading.await?;
        self.look_at = next_look(self.client.config(), looked.next_end);
        self.at = looked.at.after(Some(&self.at));
        (self.set, self.as_of) = (set, as_of);
        self.must_read = false;
        self.awaited.clear();
        self.is_new = true;
        Ok(())
    }

    /// Asks the server where the service is.
    async fn look(&mut self) -> Result<()> {
        let as_of = self.clock.now();
        let looked = read_position(&self.client, OP, &self.keys).await;
        let looked = match looked {
            // Another program has made a key something else. To read everything says which.
            Err(error) if error.kind() == ErrorKind::InvalidData => return self.read_all().await,
            looked => looked?,
        };
        self.look_at = next_look(self.client.config(), looked.next_end);
        self.as_of = as_of;
        for id in &looked.ended {
            self.set.hide(id);
        }
        let at = &looked.at;
        if at.is_at(&self.at) {
            if looked.entries != self.set.entries() {
                debug!(service = %self.service, "another program has changed the service");
                self.must_read = true;
            }
        } else if at.history == self.at.history
            && at.version > self.at.version
            && self.told.is_some()
        {
            self.awaited.expect(at.version);
        } else {
            self.must_read = true;
        }
        Ok(())
    }

    /// Has changes told by another connection where this one tells nothing at all.
    async fn leave_deaf(&mut self) -> Result<()> {
        let poll = self.client.config().poll_interval;
        if let Some(told) = &self.told
            && self.awaited.hears(told.heard())
        {
            self.told_since = Instant::now();
        }
        if let Some(told) = &self.told
            && self.awaited.is_deaf()
            && self.told_since.elapsed() >= poll * DEAF_KEPT_FOR
        {
            debug!(service = %self.service, "changes are not told: another connection is made");
            told.give_up();
            let subscriptions = self.client.subscriptions();
            self.told = subscriptions
                .subscribe_if_allowed(&self.keys.channel)
                .await?;
            self.told_since = Instant::now();
            let heard = self.told.as_ref().map_or(0, Subscription::heard);
            self.awaited.begin(heard);
            self.must_read = true;
        }
        Ok(())
    }

    /// Waits until something is told, or the server is to be asked. Returns whether it is.
    async fn wait(&mut self) -> Result<bool> {
        let due = self.awaited.due();
        let wake_at = due.map_or(self.look_at, |due| due.min(self.look_at));
        let Some(told) = &mut self.told else {
            sleep_until(wake_at).await;
            return Ok(true);
        };
        let message = tokio::select! {
            biased;
            message = told.next() => message?,
            () = sleep_until(wake_at) => return Ok(Instant::now() >= self.look_at),
        };
        // What came with it makes one set together with it. More may come all the time.
        let mut messages = vec![message];
        messages.extend(iter::from_fn(|| told.try_next()).take(MOST_AT_ONCE));
        for message in messages {
            self.take(&message);
        }
        Ok(Instant::now() >= self.look_at)
    }
}

/// When the server is to be asked next.
fn next_look(config: &RedisConfig, next_end: Option<Duration>) -> Instant {
    let spread = Duration::from_millis(fastrand::u64(SPREAD));
    let poll = config.next_poll();
    let next_end = next_end.map(|end| end.saturating_add(spread));
    let wait = next_end.map_or(poll, |end| end.min(poll));
    Instant::now() + wait
}

#[async_trait]
impl Watcher for RedisWatcher {
    async fn next(&mut self) -> Result<Feed> {
        loop {
            self.must_read |= self.awaited.has_run_out(self.at.version);
            self.leave_deaf().await?;
            if self.must_read {
                self.read_all().await?;
            }
            if self.is_new || self.set.is_changed() {
                return Ok(Feed::Set(self.snapshot()));
            }
            if self.wait().await? {
                self.look().await?;
                let is_certain = !self.must_read && self.awaited.is_empty();
                if is_certain && !self.is_new && !self.set.is_changed() {
                    return Ok(Feed::Alive {
                        revision: self.revision(),
                        as_of: self.as_of,
                    });
                }
            }
        }
    }

    fn silence_limit(&self) -> Duration {
        self.client.config().silence_limit()
    }
}
