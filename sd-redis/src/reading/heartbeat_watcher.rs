//! The feed of one service whose records are heartbeats: all of it is read again and again, when one may have ended, and when one of our
//! clients says that it has written or removed one.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_core::clock::{Clock, Moment};
use sd_core::port::Feed;
use sd_core::{ErrorKind, Result, Revision, ServiceName, Snapshot, Watcher};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::client::subscriptions::Subscription;
use crate::codec::heartbeat::channel;
use crate::heartbeats::{Heartbeats, Read};
use crate::scripts::new_history;

const OP: &str = "redis: watch service";

/// One service, followed.
#[derive(Debug)]
pub(crate) struct HeartbeatWatcher {
    heartbeats: Heartbeats,
    clock: Arc<dyn Clock>,
    service: ServiceName,
    told: Option<Subscription>,
    history: String,
    /// How often another set was read.
    sets: u64,
    read_at: Instant,
    last: Option<Snapshot>,
    /// What has ended and is to be removed.
    ended: Vec<Vec<u8>>,
    may_remove: bool,
}

impl HeartbeatWatcher {
    pub(crate) async fn open(
        heartbeats: &Heartbeats,
        clock: &Arc<dyn Clock>,
        service: &ServiceName,
    ) -> Result<Self> {
        let subscriptions = heartbeats.readers.subscriptions();
        Ok(Self {
            told: subscriptions
                .subscribe_if_allowed(&channel(service))
                .await?,
            heartbeats: heartbeats.clone(),
            clock: Arc::clone(clock),
            service: service.clone(),
            history: new_history(),
            sets: 0,
            read_at: Instant::now(),
            last: None,
            ended: Vec::new(),
            may_remove: true,
        })
    }

    /// After the set was told, which nothing of this holds up. What is not removed is found again.
    async fn remove_ended(&mut self) {
        let ended = mem::take(&mut self.ended);
        if !self.may_remove {
            return;
        }
        if let Err(error) = self.heartbeats.sweep(OP, &self.service, &ended).await {
            debug!(error = %error.report(), "what has ended was not removed");
            self.may_remove = error.kind() != ErrorKind::Denied;
        }
    }

    async fn wait(&mut self) -> Result<()> {
        let Some(told) = &mut self.told else {
            sleep_until(self.read_at).await;
            return Ok(());
        };
        tokio::select! {
            told = told.next() => drop(told?),
            () = sleep_until(self.read_at) => {}
        }
        // A call that is dropped now reads the next time.
        self.read_at = Instant::now();
        while self
            .told
            .as_mut()
            .and_then(Subscription::try_next)
            .is_some()
        {}
        Ok(())
    }
}

/// The set of what was read.
pub(super) fn snapshot(service: &ServiceName, read: Read, sets: u64, as_of: Moment) -> Snapshot {
    let revision = Revision::new("heartbeats", sets);
    Snapshot::new(service.clone(), revision, as_of, read.alive).with_skipped(read.skipped)
}

#[async_trait]
impl Watcher for HeartbeatWatcher {
    async fn next(&mut self) -> Result<Feed> {
        self.remove_ended().await;
        if self.read_at > Instant::now() {
            self.wait().await?;
        }
        let as_of = self.clock.now();
        let mut read = self.heartbeats.read(OP, &self.service).await?;
        self.ended = mem::take(&mut read.ended);
        let poll = self.heartbeats.client.config().next_poll();
        self.read_at = Instant::now() + read.next_end.map_or(poll, |end| end.min(poll));
        let read = snapshot(&self.service, read, self.sets, as_of);
        let is_same = |last: &Snapshot| last.is_same_set(&read) && last.skipped() == read.skipped();
        let at = |sets| Revision::new(self.history.as_str(), sets);
        if self.last.as_ref().is_some_and(is_same) {
            let revision = at(self.sets);
            return Ok(Feed::Alive { revision, as_of });
        }
        self.sets += 1;
        let set = read.with_position(at(self.sets), as_of);
        self.last = Some(set.clone());
        Ok(Feed::Set(set))
    }

    fn silence_limit(&self) -> Duration {
        self.heartbeats.client.config().silence_limit()
    }
}
