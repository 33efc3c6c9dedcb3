//! The feed of one service: each list that its session brings.
//!
//! Every list is a full set. Between them, answers to pings say that the session lives, and so that nothing has changed but what is still
//! under way, or what the service has left out: isp-config-service can lose a change. So each feed that is opened asks again, and core opens
//! one now and then.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_core::port::Feed;
use sd_core::{ErrorKind, Result, ServiceName, Snapshot, Watcher};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::client::newest::{Told, Topic};
use crate::client::{Client, SharedSession};
use crate::reading::instancer::not_told;
use crate::reading::service_set::set;

/// How often a quiet feed says that it lives.
const ALIVE_EVERY: Duration = Duration::from_secs(5);
/// For how long a list is not asked for again. Many feeds are opened at once.
const FRESH_FOR: Duration = Duration::from_secs(5);
/// How much longer than the end of its session a feed may be silent, on a busy machine.
const SLACK: Duration = Duration::from_secs(5);

/// One service, followed.
#[derive(Debug)]
pub(crate) struct ClusterWatcher {
    op: &'static str,
    client: Arc<Client>,
    session: SharedSession,
    service: ServiceName,
    topic: Topic,
    newest: watch::Receiver<Option<Told>>,
    /// The number of what was told last.
    seen: u64,
    last: Option<Snapshot>,
    /// When the first list must have come.
    first_by: Instant,
    alive_at: Instant,
}

impl ClusterWatcher {
    /// Has the service tell of the topic, unless it does already.
    pub(crate) async fn open(
        op: &'static str,
        client: &Arc<Client>,
        service: &ServiceName,
        topic: Topic,
    ) -> Result<Self> {
        let session = client.session(op).await?;
        let newest = session.newest.follow(topic.clone());
        let first_by = ask_unless_fresh(op, client, &session, &topic, &newest).await?;
        Ok(Self {
            op,
            client: Arc::clone(client),
            session,
            service: service.clone(),
            topic,
            newest,
            seen: 0,
            last: None,
            first_by,
            alive_at: Instant::now() + ALIVE_EVERY,
        })
    }

    /// What a list tells. A list that cannot be read takes nothing away.
    async fn take(&mut self, told: Told) -> Result<Feed> {
        let read = set(self.op, &self.session, &self.topic, &self.service, &told).await;
        self.seen = told.number;
        self.alive_at = Instant::now() + ALIVE_EVERY;
        match read {
            Ok(read) => {
                let same = |last: &Snapshot| last.is_same_set(&read);
                if self.last.as_ref().is_some_and(same) {
                    let (revision, as_of) = (read.revision().clone(), read.as_of());
                    self.last = Some(read);
                    return Ok(Feed::Alive { revision, as_of });
                }
                self.last = Some(read.clone());
                Ok(Feed::Set(read))
            }
            Err(error) if error.kind() == ErrorKind::InvalidData => Ok(Feed::Degraded(error)),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Watcher for ClusterWatcher {
    async fn next(&mut self) -> Result<Feed> {
        let (client, session) = (Arc::clone(&self.client), self.session.clone());
        let told = tokio::select! {
            biased;
            closed = client.signal.closed(self.op) => return Err(closed),
            told = session.wait_for(self.op, &mut self.newest, self.seen) => told?,
            () = sleep_until(self.first_by), if self.seen == 0 => {
                return Err(not_told(self.op, client.config().handshake_timeout));
            }
            alive = alive(&session, &client, self.alive_at, self.last.as_ref()) => {
                self.alive_at = Instant::now() + ALIVE_EVERY;
                return Ok(alive);
            }
        };
        self.take(told).await
    }

    fn silence_limit(&self) -> Duration {
        let config = self.client.config();
        config
            .handshake_timeout
            .max(ALIVE_EVERY + config.silent_after())
            + SLACK
    }
}

/// Has the service tell of a topic, unless it has done so just now, as at the beginning of a session. Returns when a first list must have
/// come. Cancel-safe.
///
/// # Errors
/// Why the service does not tell.
pub(crate) async fn ask_unless_fresh(
    op: &'static str,
    client: &Client,
    session: &SharedSession,
    topic: &Topic,
    newest: &watch::Receiver<Option<Told>>,
) -> Result<Instant> {
    let limit = client.config().handshake_timeout;
    let by = Instant::now() + limit;
    let now = client.clock.now();
    let is_fresh = |told: &Told| now.since(told.as_of) < FRESH_FOR;
    if !newest.borrow().as_ref().is_some_and(is_fresh) {
        let requiring = async {
            match timeout_at(by, session.require(op, topic)).await {
                Ok(required) => required.map(drop),
                Err(_) => Err(not_told(op, limit)),
            }
        };
        client.signal.unless_closed(op, requiring).await?;
    }
    Ok(by)
}

/// Waits until it is time to say that nothing has changed, and something has come since then that shows it. Cancel-safe.
async fn alive(
    session: &SharedSession,
    client: &Client,
    at: Instant,
    last: Option<&Snapshot>,
) -> Feed {
    let Some(last) = last else {
        return pending().await;
    };
    sleep_until(at).await;
    session.heard().await;
    Feed::Alive {
        revision: last.revision().clone(),
        as_of: client.clock.now(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use sd_core::clock::TokioClock;
    use sd_core::{Backend, Instancer};
    use tokio::time::timeout;

    use super::*;
    use crate::ClusterBackend;
    use crate::protocol::events::MODULE_SEND_REQUIREMENTS;
    use crate::scripted::{Played, SOON, Service, SetClock};

    async fn next(watcher: &mut dyn Watcher) -> Result<Feed> {
        timeout(SOON, watcher.next()).await.expect("news in time")
    }

    fn ports(feed: &Feed) -> Vec<u16> {
        let Feed::Set(set) = feed else {
            panic!("{feed:?}");
        };
        let ports = set.instances().iter();
        ports
            .filter_map(|instance| instance.endpoint().port())
            .collect()
    }

    async fn open(service: &Service, hosts: &[u16]) -> (ClusterBackend, Box<dyn Watcher>, Played) {
        let backend = ClusterBackend::with_clock(service.config(), Arc::new(TokioClock)).unwrap();
        let name = ServiceName::new("A").unwrap();
        let play = async {
            let mut played = service.accept().await;
            played.take_question("A", hosts).await;
            played
        };
        let (watcher, played) = tokio::join!(backend.watch(&name, None), play);
        (backend, watcher.unwrap(), played)
    }

    #[tokio::test]
    async fn each_list_is_the_set_and_only_the_newest_counts_for_who_is_slow() {
        let service = Service::start().await;
        let (_backend, mut watcher, played) = open(&service, &[2, 1, 1]).await;
        let watcher = watcher.as_mut();
        assert_eq!(ports(&next(watcher).await.unwrap()), [1, 2]);
        for port in 3..300 {
            played.tell_hosts("A", &[port]).await;
        }
        played.tell_hosts("A", &[]).await;
        let mut last = next(watcher).await.unwrap();
        let mut sets = 1;
        while !ports(&last).is_empty() {
            last = next(watcher).await.unwrap();
            sets += 1;
        }
        assert!(sets < 290, "{sets} sets of 298 were told to a slow reader");
    }

    #[tokio::test]
    async fn null_is_empty_and_what_cannot_be_read_takes_nothing_away() {
        let service = Service::start().await;
        let (_backend, mut watcher, played) = open(&service, &[1]).await;
        let watcher = watcher.as_mut();
        assert_eq!(ports(&next(watcher).await.unwrap()), [1]);
        for garbage in [r#"[{"ip":"a","port":1}]"#, "hunter", "{}"] {
            played.tell("A_MODULE_CONNECTED", garbage).await;
            let degraded = next(watcher).await.unwrap();
            assert!(matches!(degraded, Feed::Degraded(_)), "{degraded:?}");
        }
        played.tell_hosts("A", &[1]).await;
        let same = next(watcher).await.unwrap();
        assert!(matches!(same, Feed::Alive { .. }), "{same:?}");
        played.tell("A_MODULE_CONNECTED", "null").await;
        assert!(ports(&next(watcher).await.unwrap()).is_empty());
    }

    #[tokio::test]
    async fn the_end_of_the_session_ends_the_feed_and_the_next_one_asks_again() {
        let service = Service::start().await;
        let (backend, mut watcher, played) = open(&service, &[1]).await;
        assert_eq!(ports(&next(watcher.as_mut()).await.unwrap()), [1]);
        // An event of the old session that is on its way comes to no other one.
        played.tell_hosts("A", &[9]).await;
        drop(played);
        while let Ok(feed) = next(watcher.as_mut()).await {
            assert_eq!(ports(&feed), [9]);
        }
        let name = ServiceName::new("A").unwrap();
        let play = async {
            let mut played = service.accept().await;
            played.take_question("A", &[2]).await;
            played
        };
        let (watcher, _played) = tokio::join!(backend.watch(&name, None), play);
        assert_eq!(ports(&next(watcher.unwrap().as_mut()).await.unwrap()), [2]);
        backend.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_list_is_what_the_service_says_after_it_was_asked() {
        let service = Service::start().await;
        let (backend, _watcher, mut played) = open(&service, &[1]).await;
        let name = ServiceName::new("A").unwrap();
        let play = async {
            let asked = played.expect(MODULE_SEND_REQUIREMENTS).await;
            played.answer(&asked, "ok").await;
            played.tell_hosts("A", &[2]).await;
        };
        let (listed, ()) = tokio::join!(backend.list(&name), play);
        assert_eq!(listed.unwrap().instances()[0].endpoint().port(), Some(2));
        let error = backend.services().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }

    #[tokio::test]
    async fn a_list_that_was_not_told_is_asked_for_again_by_the_next_feed() {
        let service = Service::start().await;
        let clock = Arc::<SetClock>::default();
        let with_clock = Arc::<SetClock>::clone(&clock);
        let backend = ClusterBackend::with_clock(service.config(), with_clock).unwrap();
        let name = ServiceName::new("A").unwrap();
        let play = async {
            let mut played = service.accept().await;
            played.take_question("A", &[1]).await;
            played
        };
        let (watcher, mut played) = tokio::join!(backend.watch(&name, None), play);
        assert_eq!(ports(&next(watcher.unwrap().as_mut()).await.unwrap()), [1]);
        // Nothing is gained by asking at once.
        let mut watcher = backend.watch(&name, None).await.unwrap();
        assert_eq!(ports(&next(watcher.as_mut()).await.unwrap()), [1]);
        clock.0.fetch_add(FRESH_FOR.as_secs(), Ordering::Relaxed);
        let (watcher, ()) =
            tokio::join!(backend.watch(&name, None), played.take_question("A", &[2]));
        let mut watcher = watcher.unwrap();
        let mut last = next(watcher.as_mut()).await.unwrap();
        while ports(&last) != [2] {
            last = next(watcher.as_mut()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_service_that_tells_nothing_is_given_up_in_time() {
        let service = Service::start().await;
        let limit = Duration::from_millis(300);
        let config = service.config().with_handshake_timeout(limit);
        let backend = ClusterBackend::with_clock(config, Arc::new(TokioClock)).unwrap();
        let name = ServiceName::new("A").unwrap();
        let play = async {
            let mut played = service.accept().await;
            played.take(MODULE_SEND_REQUIREMENTS).await;
            played
        };
        let (watcher, _played) = tokio::join!(backend.watch(&name, None), play);
        let error = next(watcher.unwrap().as_mut()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }
}
