//! The feed of the list of services: the names of modules in the routes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sd_core::port::ServicesWatcher;
use sd_core::{Result, ServiceList, ServiceName};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::client::newest::{Told, Topic};
use crate::client::{Client, SharedSession};
use crate::protocol::declaration::BackendDeclaration;
use crate::reading::instancer::not_told;

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
    last: Option<ServiceList>,
    alive_at: Instant,
}

impl ClusterServicesWatcher {
    pub(crate) async fn open(op: &'static str, client: &Arc<Client>) -> Result<Self> {
        // With routes, each session asks for them at its beginning.
        let session = client.session(op).await?;
        Ok(Self {
            op,
            newest: session.newest.follow(Topic::Routes),
            client: Arc::clone(client),
            session,
            seen: 0,
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
        let first = self.seen == 0;
        let waiting = async {
            let told = session.wait_for(self.op, &mut self.newest, self.seen);
            match timeout(limit, told).await {
                Ok(told) => told,
                Err(_) if first => Err(not_told(self.op, limit)),
                Err(_) => std::future::pending().await,
            }
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
    use super::*;

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
