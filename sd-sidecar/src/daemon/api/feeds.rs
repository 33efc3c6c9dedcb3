//! The services that are followed for readers over HTTP: each once, and for a while after its last reader has gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use sd_core::clock::Clock;
use sd_core::sync::lock;
use sd_core::{
    Error, ErrorKind, Registry, Result, ServiceName, ServicesState, ServicesSubscription, State,
    Subscription,
};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::config::ApiConfig;
use super::failure::Failure;
use super::view::View;
use crate::daemon::registrations::Caller;

/// What is told of more instances than these is not rendered on a thread of the runtime.
const MANY: usize = 500;

/// A feed that was asked for this recently is not given up for another one: however many names are asked for, only so many feeds are
/// opened at the registry.
const SPARED: Duration = Duration::from_secs(5);

/// A caller may have as many services followed as these in any case.
const FEW: usize = 16;

/// What can be followed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Followed {
    Services,
    Service(ServiceName),
}

/// All that is followed. Cheap to clone. The tasks behind it end with the last clone.
#[derive(Clone, Debug)]
pub(super) struct Feeds(Arc<Table>);

#[derive(Debug)]
struct Table {
    registry: Registry,
    most: usize,
    /// How many of them one caller may have followed, once there are few left.
    most_of_one: usize,
    linger: Duration,
    feeds: Mutex<BTreeMap<Followed, Feed>>,
    stop: CancellationToken,
    _stop_at_end: DropGuard,
}

#[derive(Debug)]
struct Feed {
    views: watch::Sender<Arc<View>>,
    /// Who has asked for it last.
    asked_by: Caller,
    asked_at: Instant,
    stop: CancellationToken,
}

impl Feed {
    fn has_readers(&self) -> bool {
        !self.views.is_closed()
    }
}

impl Feeds {
    pub(super) fn new(registry: Registry, config: &ApiConfig) -> Self {
        let (stop, most) = (CancellationToken::new(), config.most_followed);
        Self(Arc::new(Table {
            registry,
            most,
            most_of_one: most.min((most / 4).max(FEW)),
            linger: config.linger,
            feeds: Mutex::default(),
            _stop_at_end: stop.clone().drop_guard(),
            stop,
        }))
    }

    /// The newest view of something, and those that follow. A slow reader skips to the newest. Refused where too much is followed already,
    /// by all callers or by this one.
    pub(super) fn follow(
        &self,
        caller: &Caller,
        what: &Followed,
    ) -> Result<watch::Receiver<Arc<View>>, Failure> {
        let table = &self.0;
        let mut feeds = lock(&table.feeds);
        if let Some(feed) = feeds.get_mut(what) {
            feed.asked_at = Instant::now();
            feed.asked_by = caller.clone();
            return Ok(feed.views.subscribe());
        }
        if feeds.len() >= table.most {
            let full = format!(
                "{} services are followed, which is as many as may be",
                table.most
            );
            forget_the_longest_unread(&mut feeds, |_| true, full)?;
        }
        // One alone may have more, as long as there are enough for others.
        if feeds.len() >= table.most / 2 {
            let is_own = |feed: &Feed| feed.asked_by == *caller;
            let count = feeds.values().filter(|feed| is_own(feed)).count();
            if count >= table.most_of_one {
                let full = format!(
                    "{count} services are followed for this caller, and half of the {} that may be are followed: one may have no more",
                    table.most
                );
                forget_the_longest_unread(&mut feeds, is_own, full)?;
            }
        }
        let source = Source::open(&table.registry, what);
        let source = source.map_err(|error| Failure::of_registry(&error))?;
        let (views, reader) = watch::channel(Arc::new(source.view()));
        let stop = table.stop.child_token();
        tokio::spawn({
            let (views, stop) = (views.clone(), stop.clone());
            let (table, what) = (Arc::downgrade(table), what.clone());
            async move {
                let following = async {
                    tokio::select! {
                        () = follow(source, &views) => {}
                        () = unread(&table, &what, &views) => {}
                    }
                };
                stop.run_until_cancelled(following).await;
                forget(&table, &what, &views);
            }
        });
        let feed = Feed {
            views,
            asked_by: caller.clone(),
            asked_at: Instant::now(),
            stop,
        };
        feeds.insert(what.clone(), feed);
        Ok(reader)
    }

    #[cfg(test)]
    fn followed(&self) -> Vec<Followed> {
        lock(&self.0.feeds).keys().cloned().collect()
    }
}

/// Makes room for one more, if of those that are meant there is one that has had no reader for a while. Or says that it is `full`.
fn forget_the_longest_unread(
    feeds: &mut BTreeMap<Followed, Feed>,
    is_meant: impl Fn(&Feed) -> bool,
    full: String,
) -> Result<(), Failure> {
    let is_unread =
        |feed: &Feed| is_meant(feed) && !feed.has_readers() && feed.asked_at.elapsed() >= SPARED;
    let unread = feeds.iter().filter(|(_, feed)| is_unread(feed));
    let oldest = unread.min_by_key(|(_, feed)| feed.asked_at);
    let oldest = oldest.map(|(what, _)| what.clone());
    let Some(feed) = oldest.and_then(|what| feeds.remove(&what)) else {
        let failure = Failure::unavailable("too_many_services", full);
        return Err(failure.retry_after(SPARED));
    };
    feed.stop.cancel();
    Ok(())
}

/// Publishes each view until the source ends, which it does with the registry.
async fn follow(mut source: Source, views: &watch::Sender<Arc<View>>) {
    loop {
        let last = Arc::clone(&views.borrow());
        let Ok(view) = source.changed(last).await else {
            return;
        };
        views.send_if_modified(|last| {
            // Why nothing could be read yet is told once. Later reasons are for those who ask.
            let fails_now = !view.is_known() && view.error().is_some() && last.error().is_none();
            let is_news = last.index() != view.index() || fails_now;
            *last = Arc::new(view);
            is_news
        });
    }
}

/// Returns when there has been no reader for as long as feeds linger. Then the feed is no longer in the table.
async fn unread(table: &Weak<Table>, what: &Followed, views: &watch::Sender<Arc<View>>) {
    let mut unread_since = Instant::now();
    loop {
        if !views.is_closed() {
            views.closed().await;
            unread_since = Instant::now();
        }
        let remaining = {
            let Some(table) = table.upgrade() else { return };
            let mut feeds = lock(&table.feeds);
            let Some(feed) = feeds.get(what) else { return };
            let unread_for = feed.asked_at.max(unread_since).elapsed();
            // Decided under the lock, where no reader can come.
            if unread_for >= table.linger && !feed.has_readers() {
                feeds.remove(what);
                return;
            }
            table.linger.saturating_sub(unread_for)
        };
        sleep(remaining).await;
    }
}

/// Takes the feed out of the table, if it is still the one there. Its readers see that it has ended when its last sender is gone.
fn forget(table: &Weak<Table>, what: &Followed, views: &watch::Sender<Arc<View>>) {
    let Some(table) = table.upgrade() else { return };
    let mut feeds = lock(&table.feeds);
    let is_ours = feeds.get(what).map(|feed| feed.views.same_channel(views));
    if is_ours == Some(true) {
        feeds.remove(what);
    }
}

/// What a view is made of.
enum Source {
    Services(ServicesSubscription, Arc<dyn Clock>),
    Service(Subscription, Arc<dyn Clock>),
}

impl Source {
    fn open(registry: &Registry, what: &Followed) -> Result<Self> {
        let clock = Arc::clone(&registry.config().clock);
        Ok(match what {
            Followed::Services => Self::Services(registry.subscribe_services()?, clock),
            Followed::Service(name) => Self::Service(registry.subscribe(name.clone())?, clock),
        })
    }

    fn view(&self) -> View {
        match self {
            Self::Services(subscription, clock) => {
                View::of_services(&subscription.state(), clock.as_ref())
            }
            Self::Service(subscription, clock) => {
                View::of_service(subscription.state(), clock.as_ref())
            }
        }
    }

    /// The view after `last`.
    async fn changed(&mut self, last: Arc<View>) -> Result<View> {
        match self {
            Self::Services(subscription, clock) => {
                let state: ServicesState = subscription.changed().await?;
                let count = state.services().len();
                let clock = Arc::clone(clock);
                rendered(count, move || View::of_services(&state, clock.as_ref())).await
            }
            Self::Service(subscription, clock) => {
                let state: State = subscription.changed().await?;
                let count = state.instances().len();
                let clock = Arc::clone(clock);
                rendered(count, move || {
                    View::of_service(state, clock.as_ref()).after(&last)
                })
                .await
            }
        }
    }
}

/// Renders what is told of `count` things.
async fn rendered(count: usize, render: impl FnOnce() -> View + Send + 'static) -> Result<View> {
    if count <= MANY {
        return Ok(render());
    }
    let rendered = spawn_blocking(render).await;
    rendered.map_err(|error| Error::new(ErrorKind::Closed, "render a service").with_source(error))
}

#[cfg(test)]
mod tests {
    use sd_core::Instance;
    use sd_core::memory::Memory;
    use sd_testing::{LONG, eventually};
    use tokio::time::timeout;

    use super::*;

    fn service(name: &str) -> Followed {
        Followed::Service(ServiceName::new(name).unwrap())
    }

    fn caller(name: &str) -> Caller {
        Caller(name.into())
    }

    fn config(most_followed: usize) -> ApiConfig {
        ApiConfig {
            most_followed,
            ..ApiConfig::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_is_followed_for_a_while_after_its_last_reader_and_then_no_more() {
        let registry = Memory::new().connect();
        let config = config(10);
        let feeds = Feeds::new(registry.clone(), &config);
        let mut reader = feeds.follow(&caller("one"), &service("greeter")).unwrap();
        let known = reader.wait_for(|view| view.is_known());
        drop(timeout(LONG, known).await.unwrap().unwrap());
        // Read for longer than it lingers.
        sleep(config.linger * 3).await;
        drop(reader);
        sleep(config.linger / 2).await;
        let again = feeds.follow(&caller("one"), &service("greeter")).unwrap();
        assert!(
            again.borrow().is_known(),
            "one that was forgotten has to read first"
        );
        drop(again);
        let subscriptions = || registry.dump().subscriptions.len();
        assert_eq!(subscriptions(), 1);
        sleep(config.linger + Duration::from_secs(1)).await;
        assert_eq!(feeds.followed(), []);
        eventually("released", LONG, async || subscriptions() == 0).await;
    }

    #[tokio::test(start_paused = true)]
    async fn of_too_many_services_the_longest_unread_is_forgotten_and_none_that_is_read() {
        let feeds = Feeds::new(Memory::new().connect(), &config(3));
        let read = feeds.follow(&caller("one"), &service("read")).unwrap();
        for name in ["a", "b"] {
            drop(feeds.follow(&caller("one"), &service(name)).unwrap());
            sleep(Duration::from_millis(1)).await;
        }
        let refused = feeds.follow(&caller("one"), &service("c")).unwrap_err();
        assert_eq!(
            refused.status(),
            503,
            "feeds are opened faster than they are spared"
        );
        sleep(SPARED).await;
        drop(feeds.follow(&caller("one"), &service("c")).unwrap());
        let followed = [service("b"), service("c"), service("read")];
        assert_eq!(feeds.followed(), followed);
        let _readers = ["b", "c"].map(|name| feeds.follow(&caller("one"), &service(name)).unwrap());
        sleep(SPARED).await;
        let refused = feeds.follow(&caller("one"), &service("d")).unwrap_err();
        assert_eq!(refused.status(), 503);
        assert_eq!(feeds.followed(), followed);
        assert!(read.has_changed().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn one_caller_leaves_services_to_be_followed_to_others_and_what_it_reads_no_more_makes_room()
     {
        let feeds = Feeds::new(Memory::new().connect(), &config(100));
        let (hostile, other) = (caller("hostile"), caller("other"));
        let open = |by: &Caller, at: usize| feeds.follow(by, &service(&format!("{}-{at}", by.0)));
        let mut readers: Vec<_> = (0..50).map(|at| open(&hostile, at).unwrap()).collect();
        let refused = format!("{:?}", open(&hostile, 50).unwrap_err());
        assert!(
            refused.contains("50 services are followed for this caller"),
            "{refused}"
        );
        // What is followed already costs nothing more.
        drop(open(&hostile, 0).unwrap());
        let of_other: Vec<_> = (0..25).map(|at| open(&other, at).unwrap()).collect();
        let refused = open(&other, 25).unwrap_err();
        assert_eq!(refused.status(), 503);
        // Nothing of another caller's is given up for it.
        readers.pop();
        sleep(SPARED).await;
        assert_eq!(open(&other, 25).unwrap_err().status(), 503);
        readers.push(open(&hostile, 50).unwrap());
        let followed = feeds.followed();
        assert_eq!(followed.len(), readers.len() + of_other.len());
        assert!(!followed.contains(&service("hostile-49")));
        assert!(followed.contains(&service("hostile-50")));
    }

    #[tokio::test(start_paused = true)]
    async fn readers_see_that_the_registry_was_closed() {
        let registry = Memory::new().connect();
        let feeds = Feeds::new(registry.clone(), &config(10));
        let mut reader = feeds.follow(&caller("one"), &service("greeter")).unwrap();
        registry.close().await.unwrap();
        let ended = async { while reader.changed().await.is_ok() {} };
        timeout(LONG, ended).await.unwrap();
        assert_eq!(feeds.followed(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn no_task_outlives_the_feeds() {
        let registry = Memory::new().connect();
        let feeds = Feeds::new(registry.clone(), &config(10));
        let _reader = feeds.follow(&caller("one"), &service("greeter")).unwrap();
        drop(feeds);
        let subscriptions = || registry.dump().subscriptions.len();
        eventually("released", LONG, async || subscriptions() == 0).await;
    }

    #[tokio::test]
    async fn a_large_service_is_rendered_as_a_small_one_is() {
        let registry = Memory::new().connect();
        let feeds = Feeds::new(registry.clone(), &config(10));
        let mut reader = feeds.follow(&caller("one"), &service("greeter")).unwrap();
        let mut guards = Vec::new();
        for port in 1..=MANY + 1 {
            let instance = Instance::new("greeter", format!("h:{port}")).unwrap();
            guards.push(registry.register(instance).in_background().unwrap());
        }
        let is_full = |view: &Arc<View>| {
            let json: serde_json::Value = serde_json::from_slice(&view.body()).unwrap();
            json["instances"].as_array().map(Vec::len) == Some(MANY + 1)
        };
        drop(
            timeout(LONG, reader.wait_for(is_full))
                .await
                .unwrap()
                .unwrap(),
        );
    }
}
