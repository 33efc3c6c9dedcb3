//! The routes of services in Consul, for gateways of the reference system: told once a registration is there, verified now and then, and
//! taken back with the last one.
//!
//! | key | what is there |
//! |---|---|
//! | `<prefix>/<env>/<namespace>/<service>/versions/<version>` | what one version offers |
//! | `<prefix>/<env>/<namespace>/<service>/current` | what all versions offer that are there, as the reference system writes it |
//!
//! Several agents write the same keys. Each write names what it is based on, and moves the keys: an agent that has found no instance and is
//! about to delete them is refused if another agent has told its routes meanwhile, which it does after its registration. There is no
//! conflict between versions: one that is new adds to what is offered.
//!
//! Each service has a task of its own, so that none waits for another one.

mod document;
mod found;
mod service;
mod wanted;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sd_core::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::error;

use self::document::{Document, Kind, Place};
use self::service::{Common, Service};
use self::wanted::Wanted;
use super::left::Left;
use super::table::{self, Table};
use crate::daemon::store::Saver;

/// Changes that follow each other this closely are told together.
const SETTLE: Duration = Duration::from_millis(100);

/// Before the routes of a service are told again after a bug has ended that: one that comes back costs little.
const AFTER_A_BUG: Duration = Duration::from_secs(30);

/// Whose routes are told, and where.
///
/// It has no part in what owns the task, which so ends with its owner.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) registry: Registry,
    pub(super) table: Arc<Mutex<Table>>,
    /// Counts the changes of the table.
    pub(super) changes: watch::Receiver<u64>,
    /// The folder of all routes.
    pub(super) prefix: String,
    /// How often it is verified that what was told is there.
    pub(super) verify_every: Duration,
    /// What an agent before was about to end, and did not come to take back.
    pub(super) left: Vec<Arc<Left>>,
    /// Has what is left of that written to disk, if there is one.
    pub(super) saver: Option<Saver>,
}

/// Has a task for each service that has routes.
struct Routes {
    table: Arc<Mutex<Table>>,
    changes: watch::Receiver<u64>,
    common: Arc<Common>,
    wanted: BTreeMap<Place, watch::Sender<Arc<Wanted>>>,
    services: JoinSet<Place>,
}

impl Routes {
    fn new(source: Source) -> Self {
        let common = Common::new(
            source.registry,
            &source.prefix,
            source.verify_every,
            source.saver,
        );
        let mut routes = Self {
            table: source.table,
            changes: source.changes,
            common: Arc::new(common),
            wanted: BTreeMap::new(),
            services: JoinSet::new(),
        };
        let left = left(&source.left, &routes.common);
        for (place, versions) in left {
            routes.begin(place, versions, Wanted::default());
        }
        routes
    }

    /// Follows the registrations until `stop`, and then takes back what has no registration any more.
    async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.follow()).await;
        // All that could be withdrawn is, and nothing is declared any more.
        self.tell();
        self.wanted.clear();
        while self.services.join_next().await.is_some() {}
    }

    async fn follow(&mut self) {
        loop {
            self.changes.mark_unchanged();
            self.tell();
            tokio::select! {
                changed = self.changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    sleep(SETTLE).await;
                }
                Some(ended) = self.services.join_next() => match ended {
                    // One that is wanted again meanwhile begins again.
                    Ok(place) => drop(self.wanted.remove(&place)),
                    Err(error) => {
                        error!(%error, "a bug has ended what tells the routes of a service: it begins again");
                        self.wanted.retain(|_, wanted| !wanted.is_closed());
                        sleep(AFTER_A_BUG).await;
                    }
                },
            }
        }
    }

    /// Tells each service what is wanted of it now.
    fn tell(&mut self) {
        let mut now = Wanted::of(&table::kept(&self.table));
        for (place, before) in &self.wanted {
            let now = now.remove(place).unwrap_or_default();
            before.send_if_modified(|before| {
                let is_news = **before != now;
                if is_news {
                    *before = Arc::new(now);
                }
                is_news
            });
        }
        for (place, wanted) in now {
            self.begin(place, BTreeMap::new(), wanted);
        }
    }

    fn begin(&mut self, place: Place, left: BTreeMap<Kind, Vec<Arc<Left>>>, wanted: Wanted) {
        // A name with a slash has no place among the routes.
        if let Some(service) = Service::new(&self.common, place.clone()) {
            let (wanted, follows) = watch::channel(Arc::new(wanted));
            self.services.spawn(service.with_left(left).run(follows));
            self.wanted.insert(place, wanted);
        }
    }
}

/// The versions that these registrations had, where they have a place.
fn left(all: &[Arc<Left>], common: &Common) -> BTreeMap<Place, BTreeMap<Kind, Vec<Arc<Left>>>> {
    let mut places = BTreeMap::<Place, BTreeMap<Kind, Vec<Arc<Left>>>>::new();
    for left in all {
        let stored = &left.stored;
        if let Some((place, document)) = Document::of(&stored.declaration, &stored.instance)
            && place.folder(&common.prefix).is_some()
        {
            left.is_told();
            let versions = places.entry(place).or_default();
            let of_version = versions.entry(document.kind()).or_default();
            of_version.push(Arc::clone(left));
        }
    }
    places
}

/// The task of an agent that tells routes. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Telling {
    stop: CancellationToken,
    ended: CancellationToken,
    _task: AbortOnDropHandle<()>,
}

impl Telling {
    /// Begins to tell what is registered.
    pub(super) fn start(source: Source) -> Self {
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let routes = Routes::new(source).run(stop.clone());
        let at_its_end = ended.clone().drop_guard();
        let task = tokio::spawn(async move {
            let _at_its_end = at_its_end;
            routes.await;
        });
        Self {
            stop,
            ended,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Has it take back what is registered no more, and end. The future waits for that, and may be dropped.
    pub(super) fn end(&self) -> impl Future<Output = ()> + use<> {
        self.stop.cancel();
        let ended = self.ended.clone();
        async move { ended.cancelled().await }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::{Identity, Registrations, Settings};

    #[tokio::test]
    async fn what_tells_routes_keeps_nothing_of_the_agent_and_ends_with_it() {
        let registry = sd_any::connect("consul://127.0.0.1:1").unwrap();
        let identity = Identity {
            cluster: "cluster-a".to_owned(),
            env: "prod".to_owned(),
            zone: String::new(),
            host_ip: "10.0.0.1".to_owned(),
            run_id: "run-1".to_owned(),
            started_at: SystemTime::now(),
            routes: Some("routes".to_owned()),
        };
        let settings = Settings {
            identity: Some(identity),
            ..Settings::default()
        };
        let registrations = Registrations::with_settings(registry, settings);
        let shared = std::sync::Arc::downgrade(&registrations.shared);
        let ended = {
            let telling = sd_core::sync::lock(&registrations.shared.routes);
            telling.as_ref().unwrap().ended.clone()
        };
        drop(registrations);
        assert_eq!(shared.strong_count(), 0);
        ended.cancelled().await;
    }
}
