//! The feed of the list of services: the children of the prefix, and whether each of them has children, under one-shot watches.
//!
//! ZooKeeper tells of a folder's children only as a whole, so each change of one costs a list of its names. A service that changes all the
//! time is looked at once a second.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use sd_core::port::ServicesWatcher;
use sd_core::{Error, ErrorKind, Result, ServiceName, panics};
use tokio::time::{Instant, sleep, sleep_until};
use zookeeper_client::{self as zk, EventType, SessionState, StateWatcher};

use crate::backend::ZkBackend;
use crate::client::Client;
use crate::client::error::{for_readers, translate};
use crate::client::session::Session;
use crate::codec::Layout;
use crate::codec::names::node_name;

const OP: &str = "zk: watch services";

/// How often a quiet feed asks the server something, which proves that it is alive.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often one service is looked at, at most, after it had a record.
const PAUSE: Duration = Duration::from_secs(1);

/// All services, followed.
#[derive(Debug)]
pub(crate) struct ZkServicesWatcher {
    client: Arc<Client>,
    session: Session,
    connection: StateWatcher,
    root: String,
    /// The folders that are followed, with whether they have a record.
    services: BTreeMap<ServiceName, bool>,
    /// How many requests are under way whose answers may change the list.
    pending: usize,
    /// Requests and watches that are under way. They are here, so that a dropped `next` loses none.
    under_way: FuturesUnordered<BoxFuture<'static, Told>>,
    last: Option<Vec<ServiceName>>,
    look_at: Instant,
}

enum Told {
    /// The folders, or none if there is no prefix.
    Root(Result<(Vec<String>, zk::OneshotWatcher)>),
    RootChanged(Result<()>),
    /// Whether a service has records, or `None` if its folder has gone.
    Service(ServiceName, Result<Option<(bool, zk::OneshotWatcher)>>),
    ServiceChanged(ServiceName, Result<()>),
    Looked(Result<()>),
}

impl ZkServicesWatcher {
    pub(crate) async fn open(backend: &ZkBackend) -> Result<Self> {
        let session = backend.client.session(OP).await?;
        let mut watcher = Self {
            client: Arc::clone(&backend.client),
            connection: session.states(),
            session,
            root: backend.layout.root().to_owned(),
            services: BTreeMap::new(),
            pending: 0,
            under_way: FuturesUnordered::new(),
            last: None,
            look_at: Instant::now() + LOOK_EVERY,
        };
        watcher.list(true)?;
        Ok(watcher)
    }

    fn list(&mut self, syncs: bool) -> Result<()> {
        let (session, root) = (self.session.clone(), self.root.clone());
        let client = session.client(OP)?;
        self.pending += 1;
        self.under_way.push(Box::pin(async move {
            let listed = async {
                if syncs {
                    session.call(OP, client.sync(&root)).await?;
                }
                loop {
                    match session
                        .answer(OP, client.list_and_watch_children(&root))
                        .await?
                    {
                        Ok(listed) => return Ok(listed),
                        Err(zk::Error::NoNode) => {}
                        Err(error) => return Err(translate(OP, error)),
                    }
                    let look = client.check_and_watch_stat(&root);
                    if let (None, watch) = session.call(OP, look).await? {
                        return Ok((Vec::new(), watch));
                    }
                }
            };
            Told::Root(listed.await)
        }));
        Ok(())
    }

    /// Looks whether a service has records, and watches that.
    fn look_into(&mut self, service: ServiceName) -> Result<()> {
        let session = self.session.clone();
        let client = session.client(OP)?;
        let folder = format!("{}/{}", self.root, node_name(service.as_str()));
        self.pending += 1;
        self.under_way.push(Box::pin(async move {
            let looked = match session
                .answer(OP, client.list_and_watch_children(&folder))
                .await
            {
                Ok(Ok((nodes, watch))) => Ok(Some((!nodes.is_empty(), watch))),
                Ok(Err(zk::Error::NoNode)) => Ok(None),
                Ok(Err(error)) => Err(translate(OP, error)),
                Err(error) => Err(error),
            };
            Told::Service(service, looked)
        }));
        Ok(())
    }

    fn take(&mut self, told: Told) -> Result<()> {
        match told {
            Told::Root(listed) => {
                self.pending -= 1;
                let (folders, watch) = listed?;
                self.under_way
                    .push(fired(watch).map(Told::RootChanged).boxed());
                let folders = folders.iter().filter_map(|node| Layout::service_of(node));
                let folders: HashSet<_> = folders.collect();
                self.services.retain(|service, _| folders.contains(service));
                for service in folders {
                    if !self.services.contains_key(&service) {
                        self.services.insert(service.clone(), false);
                        self.look_into(service)?;
                    }
                }
            }
            Told::RootChanged(event) => {
                event?;
                self.list(false)?;
            }
            Told::Service(service, looked) => {
                self.pending -= 1;
                let looked = match looked {
                    // Its records may not be listed. It is none of ours to follow.
                    Err(error) if error.kind() == ErrorKind::Denied => return Ok(()),
                    looked => looked?,
                };
                let Some((has_records, watch)) = looked else {
                    self.services.remove(&service);
                    return Ok(());
                };
                if let Some(had) = self.services.get_mut(&service) {
                    *had = has_records;
                    self.under_way.push(Box::pin(async move {
                        let event = fired(watch).await;
                        if has_records && event.is_ok() {
                            sleep(PAUSE).await;
                        }
                        Told::ServiceChanged(service, event)
                    }));
                }
            }
            Told::ServiceChanged(service, event) => {
                event?;
                if self.services.contains_key(&service) {
                    self.look_into(service)?;
                }
            }
            Told::Looked(looked) => looked?,
        }
        Ok(())
    }

    fn listed(&self) -> Vec<ServiceName> {
        let there = self
            .services
            .iter()
            .filter(|(_, has_records)| **has_records);
        there.map(|(service, _)| service.clone()).collect()
    }

    async fn advance(&mut self) -> Result<Vec<ServiceName>> {
        loop {
            if self.pending == 0 {
                let listed = self.listed();
                if self.last.as_ref() != Some(&listed) {
                    self.last = Some(listed.clone());
                    return Ok(listed);
                }
            }
            tokio::select! {
                biased;
                closed = self.client.closed(OP) => return Err(closed),
                lost = self.session.ended(OP) => return Err(lost),
                state = self.connection.changed() => if state == SessionState::Disconnected {
                    return Err(Error::new(ErrorKind::Unavailable, OP)
                        .because("the connection to the server is lost"));
                },
                Some(told) = self.under_way.next() => {
                    let has_looked = matches!(told, Told::Looked(_));
                    self.take(told)?;
                    if has_looked && let Some(last) = &self.last {
                        return Ok(last.clone());
                    }
                }
                () = sleep_until(self.look_at) => {
                    self.look_at = Instant::now() + LOOK_EVERY;
                    let (session, root) = (self.session.clone(), self.root.clone());
                    let client = session.client(OP)?;
                    self.under_way.push(Box::pin(async move {
                        let looked = session.call(OP, client.check_stat(&root)).await;
                        Told::Looked(looked.map(drop))
                    }));
                }
            }
        }
    }
}

/// Returns when a watch has fired. The client crate panics if the session is gone without a word.
async fn fired(watch: zk::OneshotWatcher) -> Result<()> {
    let event = panics::caught(OP, async { Ok(watch.changed().await) }).await?;
    if event.event_type == EventType::Session {
        return Err(Error::new(ErrorKind::Unavailable, OP)
            .because(format!("the session is over: {}", event.session_state)));
    }
    Ok(())
}

#[async_trait]
impl ServicesWatcher for ZkServicesWatcher {
    async fn next(&mut self) -> Result<Vec<ServiceName>> {
        self.advance().await.map_err(for_readers)
    }

    fn silence_limit(&self) -> Duration {
        LOOK_EVERY + self.client.config().request_timeout * 2
    }
}
