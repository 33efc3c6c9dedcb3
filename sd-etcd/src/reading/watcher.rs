//! The feed of one service: watch from now on, read everything, then apply what the watch tells.
//!
//! A service with a folder for plain values alone has a watch for each folder.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_core::clock::Clock;
use sd_core::port::Feed;
use sd_core::{Error, ErrorKind, Result, ServiceName, Snapshot, Watcher};
use tokio::time::{Instant, timeout_at};

use crate::backend::EtcdBackend;
use crate::client::answer::Position;
use crate::client::change_feed::{ChangeFeed, News};
use crate::reading::full_read::read_service;
use crate::reading::service_set::{ServiceSet, revision};

const OP: &str = "etcd: watch service";

/// One service, followed.
#[derive(Debug)]
pub(crate) struct EtcdWatcher {
    clock: Arc<dyn Clock>,
    ours: ChangeFeed,
    plain: Option<ChangeFeed>,
    /// When each feed last told something. One of two would otherwise fall silent unseen.
    heard_ours: Instant,
    heard_plain: Instant,
    set: ServiceSet,
    first: Option<Snapshot>,
}

impl EtcdWatcher {
    pub(crate) async fn open(
        backend: &EtcdBackend,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Self> {
        let (client, layout) = (&backend.client, &backend.layout);
        let folders = layout.folders(service);
        let (from, to) = folders.ours();
        let mut ours = ChangeFeed::open(client, OP, (&from, &to)).await?;
        let mut plain = match folders.plain() {
            Some((from, to)) => Some(ChangeFeed::open(client, OP, (&from, &to)).await?),
            None => None,
        };
        let as_of = backend.clock.now();
        let (mut set, positions) = read_service(client, layout, OP, service, known).await?;
        ours.skip_to(positions.ours)?;
        if let (Some(plain), Some(position)) = (&mut plain, positions.plain) {
            plain.skip_to(position)?;
        }
        let first = set.snapshot(positions.ours, as_of);
        Ok(Self {
            clock: Arc::clone(&backend.clock),
            ours,
            plain,
            heard_ours: Instant::now(),
            heard_plain: Instant::now(),
            set,
            first: Some(first),
        })
    }

    /// Where the feed that is further is. The other one may have nothing to tell for long.
    fn position(&self) -> Position {
        let ours = self.ours.position();
        match self.plain.as_ref().map(ChangeFeed::position) {
            Some(plain) if plain.revision > ours.revision => plain,
            _ => ours,
        }
    }

    /// Takes the next news of either feed.
    async fn advance(&mut self) -> Result<()> {
        let Some(plain) = &mut self.plain else {
            let news = self.ours.next().await?;
            return take(&mut self.ours, &mut self.set, &news);
        };
        tokio::select! {
            news = unless_silent(&mut self.ours, self.heard_ours) => {
                self.heard_ours = Instant::now();
                take(&mut self.ours, &mut self.set, &news?)
            }
            news = unless_silent(plain, self.heard_plain) => {
                self.heard_plain = Instant::now();
                take(plain, &mut self.set, &news?)
            }
        }
    }
}

/// The next news, unless a feed has told nothing for too long. Cancel-safe.
async fn unless_silent(feed: &mut ChangeFeed, heard_at: Instant) -> Result<News> {
    let limit = feed.silence_limit();
    let news = timeout_at(heard_at + limit, feed.next()).await;
    news.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Timeout, OP)
            .because(format!("a watch has told nothing for {limit:?}")))
    })
}

fn take(feed: &mut ChangeFeed, set: &mut ServiceSet, news: &News) -> Result<()> {
    feed.take(news, |entry| {
        // `Event::event_type` would panic on a type that it does not know.
        if entry.version() == 0 {
            set.delete(entry.key());
        } else {
            set.put(entry.key(), entry.value(), entry.into(), None);
        }
    })
}

#[async_trait]
impl Watcher for EtcdWatcher {
    async fn next(&mut self) -> Result<Feed> {
        if let Some(first) = self.first.take() {
            return Ok(Feed::Set(first));
        }
        self.advance().await?;
        let (position, as_of) = (self.position(), self.clock.now());
        Ok(if self.set.is_changed() {
            Feed::Set(self.set.snapshot(position, as_of))
        } else {
            Feed::Alive {
                revision: revision(position),
                as_of,
            }
        })
    }

    fn silence_limit(&self) -> Duration {
        self.ours.silence_limit()
    }
}
