//! The feed of the list of services: the children of the prefix, and whether each of them has children, under one-shot watches.
//!
//! ZooKeeper tells of a folder's children only as a whole, so each change of one costs a list of its names. A service that changes all the
//! time is looked at once a second.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use sd_core::port::ServicesWatcher;
use sd_core::{Error, ErrorKind, Result, ServiceList, ServiceName};
use tokio::time::{Instant, sleep, sleep_until};
use zookeeper_client::{self as zk, SessionState, StateWatcher};

use crate::backend::ZkBackend;
use crate::client::Client;
use crate::client::error::{for_readers, translate};
use crate::client::parents::check_chroot;
use crate::client::session::{Session, Watching};
use crate::client::watch::fired;
use crate::codec::Layout;
use crate::codec::names::node_name;
use crate::reading::full_read::{AT_ONCE, FIRST_WITHIN};

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
    watching: Watching,
    connection: StateWatcher,
    root: String,
    /// The folders that are followed, with whether they have a record. Each is about to be looked into, or under one watch.
    services: BTreeMap<ServiceName, bool>,
    /// Folders to be looked into, when there is room.
    unread: VecDeque<ServiceName>,
    /// How many looks into folders are under way.
    looking: usize,
    is_listing: bool,
    /// Requests and watches that are under way. They are here, so that a dropped `next` loses none.
    under_way: FuturesUnordered<BoxFuture<'static, Told>>,
    /// How many folders are of no service.
    unlisted: usize,
    last: Option<ServiceList>,
    look_at: Instant,
}

enum Told {
    /// The folders, or none if there is no prefix.
    Root(Result<(Vec<String>, zk::OneshotWatcher)>),
    RootChanged(Result<zk::WatchedEvent>),
    /// Whether a service has records, or `None` if its folder has gone.
    Service(ServiceName, Result<Option<(bool, zk::OneshotWatcher)>>),
    ServiceChanged(ServiceName, Result<zk::WatchedEvent>),
    Looked(Result<()>),
}

impl ZkServicesWatcher {
    pub(crate) async fn open(backend: &ZkBackend) -> Result<Self> {
        let session = backend.client.session(OP).await?;
        let mut watcher = Self {
            client: Arc::clone(&backend.client),
            connection: session.states(),
            watching: session.watching(),
            session,
            root: backend.layout.root().to_owned(),
            services: BTreeMap::new(),
            unread: VecDeque::new(),
            looking: 0,
            is_listing: false,
            under_way: FuturesUnordered::new(),
            unlisted: 0,
            last: None,
            look_at: Instant::now() + LOOK_EVERY,
        };
        watcher.list(true);
        Ok(watcher)
    }

    fn list(&mut self, syncs: bool) {
        let (session, root) = (self.session.clone(), self.root.clone());
        self.is_listing = true;
        self.under_way.push(Box::pin(async move {
            let listed = async {
                let client = session.client(OP).await?;
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
                        check_chroot(&session, OP).await?;
                        return Ok((Vec::new(), watch));
                    }
                }
            };
            Told::Root(listed.await)
        }));
    }

    /// Begins looks into folders while there is room for them.
    fn look_more(&mut self) {
        while self.looking < AT_ONCE
            && let Some(service) = self.unread.pop_front()
        {
            self.look_into(service);
        }
    }

    /// Looks whether a service has records, and watches that.
    fn look_into(&mut self, service: ServiceName) {
        let session = self.session.clone();
        let folder = format!("{}/{}", self.root, node_name(service.as_str()));
        self.looking += 1;
        self.under_way.push(Box::pin(async move {
            let looked = async {
                let client = session.client(OP).await?;
                match session
                    .answer(OP, client.list_and_watch_children(&folder))
                    .await?
                {
                    Ok((nodes, watch)) => Ok(Some((!nodes.is_empty(), watch))),
                    Err(zk::Error::NoNode) => Ok(None),
                    Err(error) => Err(translate(OP, error)),
                }
            };
            Told::Service(service, looked.await)
        }));
    }

    fn take(&mut self, told: Told) -> Result<()> {
        match told {
            Told::Root(listed) => {
                self.is_listing = false;
                let (folders, watch) = listed?;
                self.under_way
                    .push(fired(OP, watch).map(Told::RootChanged).boxed());
                let count = folders.len();
                let folders = folders.iter().filter_map(|node| Layout::service_of(node));
                let folders: HashSet<_> = folders.collect();
                self.unlisted = count - folders.len();
                // One that is gone is forgotten when its own watch has told that, so that none is ever under two.
                for (service, has_records) in &mut self.services {
                    *has_records &= folders.contains(service);
                }
                for service in folders {
                    if !self.services.contains_key(&service) {
                        self.services.insert(service.clone(), false);
                        self.unread.push_back(service);
                    }
                }
                let in_root = self.root.len() + 1;
                let names = self.services.keys();
                self.watching
                    .set(names.map(|name| in_root + node_name(name.as_str()).len()));
            }
            Told::RootChanged(event) => {
                event?;
                self.list(false);
            }
            Told::Service(service, looked) => {
                self.looking -= 1;
                let looked = match looked {
                    // Its records may not be listed. It is none of ours to follow.
                    Err(error) if error.kind() == ErrorKind::Denied => None,
                    looked => looked?,
                };
                let Some((has_records, watch)) = looked else {
                    self.services.remove(&service);
                    return Ok(());
                };
                if let Some(had) = self.services.get_mut(&service) {
                    *had = has_records;
                    self.under_way.push(Box::pin(async move {
                        let event = fired(OP, watch).await;
                        if has_records && event.is_ok() {
                            sleep(PAUSE).await;
                        }
                        Told::ServiceChanged(service, event)
                    }));
                }
            }
            Told::ServiceChanged(service, event) => {
                event?;
                self.unread.push_back(service);
            }
            Told::Looked(looked) => looked?,
        }
        Ok(())
    }

    fn listed(&self) -> ServiceList {
        let there = self
            .services
            .iter()
            .filter(|(_, has_records)| **has_records);
        let there: Vec<_> = there.map(|(service, _)| service.clone()).collect();
        ServiceList::from(there).with_unlisted(self.unlisted)
    }

    /// Whether all that is known to have changed was looked at.
    fn is_settled(&self) -> bool {
        !self.is_listing && self.looking == 0 && self.unread.is_empty()
    }

    fn tell(&mut self) -> Vec<ServiceName> {
        let listed = self.listed();
        self.last = Some(listed.clone());
        listed.services
    }

    async fn advance(&mut self) -> Result<Vec<ServiceName>> {
        loop {
            self.look_more();
            if self.is_settled() && self.last.as_ref() != Some(&self.listed()) {
                return Ok(self.tell());
            }
            tokio::select! {
                biased;
                closed = self.client.signal.closed(OP) => return Err(closed),
                lost = self.session.ended(OP) => return Err(lost),
                state = self.connection.changed() => if state == SessionState::Disconnected {
                    return Err(Error::new(ErrorKind::Unavailable, OP)
                        .because("the connection to the server is lost"));
                },
                Some(told) = self.under_way.next() => {
                    let has_looked = matches!(told, Told::Looked(_));
                    self.take(told)?;
                    // Also if so much changes that it never settles.
                    if has_looked && self.last.is_some() {
                        return Ok(self.tell());
                    }
                }
                () = sleep_until(self.look_at) => {
                    self.look_at = Instant::now() + LOOK_EVERY;
                    let (session, root) = (self.session.clone(), self.root.clone());
                    self.under_way.push(Box::pin(async move {
                        let looked = async {
                            let client = session.client(OP).await?;
                            session.call(OP, client.check_stat(&root)).await.map(drop)
                        };
                        Told::Looked(looked.await)
                    }));
                }
            }
        }
    }
}

#[async_trait]
impl ServicesWatcher for ZkServicesWatcher {
    async fn next(&mut self) -> Result<Vec<ServiceName>> {
        self.advance().await.map_err(for_readers)
    }

    fn unlisted(&self) -> usize {
        self.last.as_ref().map_or(0, |last| last.unlisted)
    }

    fn silence_limit(&self) -> Duration {
        if self.last.is_none() {
            return FIRST_WITHIN;
        }
        LOOK_EVERY + self.client.config().request_timeout * 2
    }
}
