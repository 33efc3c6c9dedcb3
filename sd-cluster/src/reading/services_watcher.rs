//! The feed of the list of services: the names of modules in the routes.
//!
//! Routes that cannot be read end the feed with why. The next feed of the same session waits for other ones, so that it has them as soon
//! as they come.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_core::port::ServicesWatcher;
use sd_core::{Error, Result, ServiceList, ServiceName};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::client::newest::{Told, Topic};
use crate::client::{Client, SharedSession};
use crate::protocol::declaration::BackendDeclaration;
use crate::reading::instancer::not_told;
use crate::reading::watcher::ask_unless_fresh;

const ALIVE_EVERY: Duration = Duration::from_secs(5);
const SLACK: Duration = Duration::from_secs(5);

/// All services, followed.
#[derive(Debug)]
pub(crate) struct ClusterServicesWatcher {
    op: &'static str,
    client: Arc<Client>,
    session: SharedSession,
    newest: watch::Receiver<Option<Told>>,
    seen: u64,
    /// Why nothing is known yet, if there are routes that cannot be read.
    unreadable: Option<Error>,
    last: Option<ServiceList>,
    alive_at: Instant,
}

impl ClusterServicesWatcher {
    pub(crate) async fn open(op: &'static str, client: &Arc<Client>) -> Result<Self> {
        let session = client.session(op).await?;
        let newest = session.newest.follow(Topic::Routes);
        ask_unless_fresh(op, client, &session, &Topic::Routes, &newest).await?;
        let unreadable = session.unreadable_routes();
        let (seen, unreadable) = unreadable.map_or((0, None), |(number, why)| (number, Some(why)));
        Ok(Self {
            op,
            newest,
            client: Arc::clone(client),
            session,
            seen,
            unreadable,
            last: None,
            alive_at: Instant::now() + ALIVE_EVERY,
        })
    }
}

#[async_trait]
impl ServicesWatcher for ClusterServicesWatcher {
    async fn next(&mut self) -> Result<Vec<ServiceName>> {
        let (client, session) = (Arc::clone(&self.client), self.session.clone());
        let limit = client.config().handshake_timeout;
        let is_first = self.last.is_none();
        let waiting = async {
            let told = session.wait_for(self.op, &mut self.newest, self.seen);
            if !is_first {
                return told.await;
            }
            timeout(limit, told).await.unwrap_or_else(|_| {
                let unreadable = self.unreadable.clone();
                Err(unreadable.unwrap_or_else(|| not_told(self.op, limit)))
            })
        };
        let told = tokio::select! {
            biased;
            closed = client.signal.closed(self.op) => return Err(closed),
            told = waiting => told?,
            () = alive(&session, self.alive_at), if self.last.is_some() => {
                self.alive_at = Instant::now() + ALIVE_EVERY;
                return Ok(self.last.clone().unwrap_or_default().services);
            }
        };
        let list = services_of(&session.routes(self.op, &told).await?);
        self.seen = told.number;
        self.unreadable = None;
        self.alive_at = Instant::now() + ALIVE_EVERY;
        self.last = Some(list.clone());
        Ok(list.services)
    }

    fn unlisted(&self) -> usize {
        self.last.as_ref().map_or(0, |last| last.unlisted)
    }

    fn silence_limit(&self) -> Duration {
        let config = self.client.config();
        config
            .handshake_timeout
            .max(ALIVE_EVERY + config.silent_after())
            + SLACK
    }
}

async fn alive(session: &SharedSession, at: Instant) {
    sleep_until(at).await;
    session.heard().await;
}

/// The names of the modules in the routes, and how many entries have none that a service can have.
pub(crate) fn services_of(routes: &[BackendDeclaration]) -> ServiceList {
    let (mut names, mut unlisted) = (BTreeSet::new(), 0);
    for route in routes {
        match ServiceName::new(&route.module_name) {
            Ok(name) => drop(names.insert(name)),
            Err(_) => unlisted += 1,
        }
    }
    let names: Vec<_> = names.into_iter().collect();
    ServiceList::from(names).with_unlisted(unlisted)
}

#[cfg(test)]
mod tests {
    use sd_core::{ErrorKind, Instancer};

    use super::*;
    use crate::ClusterBackend;
    use crate::protocol::events::MODULE_SEND_REQUIREMENTS;
    use crate::scripted::{SOON, Service, SetClock};

    const ROUTES: &str = "CONFIG:SEND_ROUTES_CHANGED";

    #[tokio::test]
    async fn routes_that_cannot_be_read_are_told_once_and_the_next_ones_come_at_once() {
        let service = Service::start().await;
        let config = service.config().with_routes(true);
        let backend = ClusterBackend::with_clock(config, Arc::<SetClock>::default()).unwrap();
        let play = async {
            let mut played = service.accept().await;
            played.take(MODULE_SEND_REQUIREMENTS).await;
            played.tell(ROUTES, "garbage").await;
            played
        };
        let (watcher, played) = tokio::join!(backend.watch_services(), play);
        let mut watcher = watcher.unwrap().unwrap();
        let next = timeout(SOON, watcher.next()).await.unwrap();
        assert_eq!(next.unwrap_err().kind(), ErrorKind::InvalidData);

        // As core does. It is told what the trouble is, but not at once again.
        let mut watcher = backend.watch_services().await.unwrap().unwrap();
        let next = timeout(SOON, watcher.next()).await.unwrap();
        assert_eq!(next.unwrap_err().kind(), ErrorKind::InvalidData);
        let mut watcher = backend.watch_services().await.unwrap().unwrap();
        let reading = async {
            let first = watcher.next().await.unwrap();
            played.tell(ROUTES, "garbage").await;
            let second = watcher.next().await.unwrap_err();
            (first, second)
        };
        let telling = played.tell(ROUTES, r#"[{"moduleName":"A"}]"#);
        let (read, ()) = timeout(SOON, async { tokio::join!(reading, telling) })
            .await
            .unwrap();
        assert_eq!(read.0[0].as_str(), "A");
        assert_eq!(read.1.kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn each_module_of_the_routes_is_named_once_and_sorted() {
        let routes: Vec<BackendDeclaration> = ["b", "a", "b", "", "x\ny"]
            .map(|name| BackendDeclaration {
                module_name: name.to_owned(),
                ..BackendDeclaration::default()
            })
            .into();
        let list = services_of(&routes);
        let names: Vec<_> = list.services.iter().map(ServiceName::as_str).collect();
        assert_eq!((names, list.unlisted), (vec!["a", "b"], 2));
    }
}
