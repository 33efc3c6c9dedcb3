//! The feed of one service: its folder's children and the data of each, under one-shot watches.
//!
//! A watch is set by the read whose answer it watches over, so nothing falls between. When it fires, only what it was about is read again:
//! one change of a record costs one read. The client crate sets watches again when it reconnects in the same session, and the server
//! then tells what has changed meanwhile. A read that was under way when the connection broke ends the feed.
//!
//! A record that is withdrawn is marked and deleted in one transaction, of which a data watch tells the mark. So a node that is gone
//! after its data changed was withdrawn. One whose watch tells the deletion alone was not.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use futures_util::{FutureExt, future};
use sd_core::clock::Clock;
use sd_core::port::Feed;
use sd_core::{Error, ErrorKind, Result, ServiceName, Snapshot, Watcher};
use tokio::time::{Instant, sleep_until};
use zookeeper_client::{self as zk, EventType, SessionState, Stat, StateWatcher};

use crate::backend::ZkBackend;
use crate::client::Client;
use crate::client::error::{for_readers, translate};
use crate::client::parents::check_chroot;
use crate::client::session::{Session, Watching};
use crate::client::watch::fired;
use crate::reading::full_read::{AT_ONCE, FIRST_WITHIN};
use crate::reading::service_set::ServiceSet;

const OP: &str = "zk: watch service";

/// How often a quiet feed looks at its folder, which proves that it is alive and that no change went untold.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long changes are gathered while more of them arrive.
const GATHER: Duration = Duration::from_millis(50);

/// One service, followed.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are independent: each says of one request or state whether it is there"
)]
pub(crate) struct ZkWatcher {
    client: Arc<Client>,
    clock: Arc<dyn Clock>,
    session: Session,
    watching: Watching,
    connection: StateWatcher,
    folder: String,
    known: Option<Snapshot>,
    set: ServiceSet,
    nodes: HashMap<Arc<str>, Node>,
    /// Nodes to be read, when there is room.
    unread: VecDeque<Arc<str>>,
    /// How many reads of nodes are under way.
    reading: usize,
    is_listing: bool,
    /// The last change of the folder's children that was read. `None` if there was no folder.
    pzxid: Option<i64>,
    /// Requests that are under way. They are here, as watches are, so that a dropped `next` loses none.
    requests: FuturesUnordered<BoxFuture<'static, Told>>,
    /// Apart from requests, so that all that have fired can be taken at any moment.
    watches: FuturesUnordered<BoxFuture<'static, Told>>,
    is_connected: bool,
    has_told: bool,
    look_at: Instant,
    is_looking: bool,
    /// Whether a look was answered since something was told.
    has_looked: bool,
    /// When changes that were not told must be, although more arrive.
    tell_by: Option<Instant>,
}

/// What is known of a node that the folder has, or had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    /// Being read, or about to be, since it is new.
    New,
    /// Being read, or about to be, since its data changed.
    Changed,
    /// Read, and under watch.
    Watched,
    /// Its watch told that it was deleted. It may have been made again.
    Deleted,
}

/// What a request or a watch told.
enum Told {
    Listed(Result<Listing>),
    Read(
        Arc<str>,
        Result<Option<(Vec<u8>, Stat, zk::OneshotWatcher)>>,
    ),
    /// Something happened to the folder.
    Folder(Result<zk::WatchedEvent>),
    /// Something happened to a node.
    Node(Arc<str>, Result<zk::WatchedEvent>),
    Looked(Result<Option<Stat>>),
}

/// The folder as it was read, with a watch for what comes next.
enum Listing {
    Folder(Vec<String>, Stat, zk::OneshotWatcher),
    Missing(zk::OneshotWatcher),
}

impl ZkWatcher {
    pub(crate) async fn open(
        backend: &ZkBackend,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Self> {
        let session = backend.client.session(OP).await?;
        let folder = backend.layout.folder(service);
        let connection = session.states();
        let mut watcher = Self {
            client: Arc::clone(&backend.client),
            clock: Arc::clone(&backend.clock),
            connection,
            set: ServiceSet::new(service.clone(), folder.clone()),
            watching: session.watching(),
            session,
            folder,
            known: known.cloned(),
            nodes: HashMap::new(),
            unread: VecDeque::new(),
            reading: 0,
            is_listing: false,
            pzxid: None,
            requests: FuturesUnordered::new(),
            watches: FuturesUnordered::new(),
            is_connected: true,
            has_told: false,
            look_at: Instant::now() + LOOK_EVERY,
            is_looking: false,
            has_looked: false,
            tell_by: None,
        };
        watcher.list();
        Ok(watcher)
    }

    /// Reads the folder again, and watches it.
    fn list(&mut self) {
        let (session, folder) = (self.session.clone(), self.folder.clone());
        let syncs = !self.has_told;
        self.is_listing = true;
        self.requests.push(Box::pin(async move {
            let listed = async {
                let client = session.client(OP).await?;
                if syncs {
                    session.call(OP, client.sync(&folder)).await?;
                }
                loop {
                    match session
                        .answer(OP, client.get_and_watch_children(&folder))
                        .await?
                    {
                        Ok((nodes, stat, watch)) => return Ok(Listing::Folder(nodes, stat, watch)),
                        Err(zk::Error::NoNode) => {}
                        Err(error) => return Err(translate(OP, error)),
                    }
                    let look = client.check_and_watch_stat(&folder);
                    if let (None, watch) = session.call(OP, look).await? {
                        check_chroot(&session, OP).await?;
                        return Ok(Listing::Missing(watch));
                    }
                }
            };
            Told::Listed(listed.await)
        }));
    }

    /// Begins reads of nodes while there is room for them.
    fn read_more(&mut self) {
        while self.reading < AT_ONCE
            && let Some(node) = self.unread.pop_front()
        {
            let session = self.session.clone();
            let path = format!("{}/{node}", self.folder);
            self.reading += 1;
            self.requests.push(Box::pin(async move {
                let read = async {
                    let client = session.client(OP).await?;
                    match session.answer(OP, client.get_and_watch_data(&path)).await? {
                        Ok(read) => Ok(Some(read)),
                        Err(zk::Error::NoNode) => Ok(None),
                        Err(error) => Err(translate(OP, error)),
                    }
                };
                Told::Read(node, read.await)
            }));
        }
    }

    /// Asks how the folder is.
    fn look(&mut self) {
        let (session, folder) = (self.session.clone(), self.folder.clone());
        self.is_looking = true;
        self.requests.push(Box::pin(async move {
            let looked = async {
                let client = session.client(OP).await?;
                let synced = session.call(OP, client.sync(&folder));
                let looked = session.call(OP, client.check_stat(&folder));
                let (synced, looked) = tokio::join!(synced, looked);
                match synced.and(looked)? {
                    None => check_chroot(&session, OP).await.map(|()| None),
                    found => Ok(found),
                }
            };
            Told::Looked(looked.await)
        }));
    }

    fn take(&mut self, told: Told) -> Result<()> {
        match told {
            Told::Listed(listing) => self.take_listing(listing?),
            Told::Read(node, read) => {
                self.reading -= 1;
                self.take_read(node, read)
            }
            Told::Folder(event) => {
                event?;
                self.list();
                Ok(())
            }
            Told::Node(node, event) => {
                self.take_event(&node, event?.event_type);
                Ok(())
            }
            Told::Looked(stat) => {
                self.is_looking = false;
                let pzxid = stat?.map(|stat| stat.pzxid);
                self.has_looked = true;
                if pzxid == self.pzxid {
                    return Ok(());
                }
                // A watch that has fired was told before this answer.
                self.take_fired()?;
                if self.is_listing {
                    return Ok(());
                }
                Err(Error::new(ErrorKind::Outdated, OP)
                    .because(format!("{} changed, and no watch told it", self.folder)))
            }
        }
    }

    fn take_listing(&mut self, listing: Listing) -> Result<()> {
        self.is_listing = false;
        let (nodes, watch) = match listing {
            Listing::Folder(nodes, stat, watch) => {
                self.pzxid = Some(stat.pzxid);
                self.set.note(stat.pzxid);
                (nodes, watch)
            }
            Listing::Missing(watch) => {
                self.pzxid = None;
                (Vec::new(), watch)
            }
        };
        // What watches have told by now was before this list: it says why a node is not in it.
        self.take_fired()?;
        self.watches
            .push(fired(OP, watch).map(Told::Folder).boxed());
        let mut listed: HashMap<Arc<str>, Node> = HashMap::with_capacity(nodes.len());
        for node in nodes {
            let (node, before) = match self.nodes.remove_entry(node.as_str()) {
                Some((node, before)) => (node, Some(before)),
                None => (node.into(), None),
            };
            let now = match before {
                Some(before @ (Node::New | Node::Changed | Node::Watched)) => before,
                None | Some(Node::Deleted) => {
                    self.unread.push_back(Arc::clone(&node));
                    Node::New
                }
            };
            listed.insert(node, now);
        }
        let in_folder = self.folder.len() + 1;
        self.watching
            .set(listed.keys().map(|node| in_folder + node.len()));
        for (node, before) in std::mem::replace(&mut self.nodes, listed) {
            if before == Node::Changed {
                self.set.withdraw(&node);
            } else {
                self.set.forget(&node);
            }
        }
        Ok(())
    }

    /// Takes what watches have told by now.
    fn take_fired(&mut self) -> Result<()> {
        while let Some(Some(told)) = self.watches.next().now_or_never() {
            self.take(told)?;
        }
        Ok(())
    }

    fn take_event(&mut self, node: &Arc<str>, event: EventType) {
        let Some(state) = self.nodes.get_mut(node) else {
            return;
        };
        // The folder's watch tells a deletion, too, and the list whether it was made again.
        if event == EventType::NodeDeleted {
            *state = Node::Deleted;
            return;
        }
        // Otherwise it is about to be read, and watched, in any case.
        if *state == Node::Watched {
            *state = Node::Changed;
            self.unread.push_back(Arc::clone(node));
        }
    }

    fn take_read(
        &mut self,
        node: Arc<str>,
        read: Result<Option<(Vec<u8>, Stat, zk::OneshotWatcher)>>,
    ) -> Result<()> {
        let Some(state) = self.nodes.get_mut(&node) else {
            // It has left the folder since.
            return read.map(drop);
        };
        match read {
            Ok(Some((data, stat, watch))) => {
                *state = Node::Watched;
                self.set.put(&node, &data, &stat, self.known.as_ref());
                self.watches.push(Box::pin(async move {
                    let event = fired(OP, watch).await;
                    Told::Node(node, event)
                }));
            }
            Ok(None) => {
                if *state == Node::Changed {
                    self.set.withdraw(&node);
                } else {
                    self.set.forget(&node);
                }
                // The folder's watch is about to tell it. If it was made again, it is new.
                *state = Node::Deleted;
            }
            // Nothing tells when that changes, so the next feed finds out.
            Err(error) if error.kind() == ErrorKind::Denied => {
                *state = Node::Watched;
                self.set.refuse(&node);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Whether all that is known to have changed was read.
    fn is_settled(&self) -> bool {
        !self.is_listing && self.reading == 0 && self.unread.is_empty()
    }

    /// What is to be told now.
    fn news(&mut self) -> Result<Option<Feed>> {
        if !self.is_connected {
            return Ok(None);
        }
        let settled = self.is_settled();
        let is_due = settled || self.tell_by.is_some_and(|by| by <= Instant::now());
        if self.has_told && self.set.is_changed() && !is_due {
            self.tell_by.get_or_insert_with(|| Instant::now() + GATHER);
        }
        let tells = if self.has_told {
            self.set.is_changed() && is_due
        } else {
            settled
        };
        if !tells {
            // Not as long as something is being read: what it finds may be a set.
            let is_unchanged = self.has_told && settled && !self.set.is_changed();
            let is_alive = is_unchanged && std::mem::take(&mut self.has_looked);
            return Ok(is_alive.then(|| Feed::Alive {
                revision: self.set.revision(self.session.id()),
                as_of: self.clock.now(),
            }));
        }
        self.has_looked = false;
        self.tell_by = None;
        if settled {
            self.set.check_rights(OP)?;
        }
        self.has_told = true;
        self.known = None;
        let set = self.set.snapshot(self.session.id(), self.clock.now());
        Ok(Some(Feed::Set(set)))
    }

    async fn advance(&mut self) -> Result<Feed> {
        loop {
            // All that is there is taken before a set is made of it.
            self.take_fired()?;
            self.read_more();
            while let Some(Some(told)) = self.requests.next().now_or_never() {
                self.take(told)?;
                self.read_more();
            }
            if let Some(news) = self.news()? {
                return Ok(news);
            }
            let tell_by = self.tell_by;
            tokio::select! {
                biased;
                closed = self.client.signal.closed(OP) => return Err(closed),
                lost = self.session.ended(OP) => return Err(lost),
                state = self.connection.changed() => match state {
                    SessionState::Disconnected => {
                        self.is_connected = false;
                        self.has_looked = false;
                        return Ok(Feed::Degraded(Error::new(ErrorKind::Unavailable, OP)
                            .because("the connection to the server is lost")));
                    }
                    // Watches that have fired meanwhile are told first.
                    _ if !self.is_connected => {
                        self.is_connected = true;
                        self.look();
                    }
                    _ => {}
                },
                Some(told) = self.watches.next() => self.take(told)?,
                Some(told) = self.requests.next() => self.take(told)?,
                () = sleep_until(self.look_at) => {
                    self.look_at = Instant::now() + LOOK_EVERY;
                    if self.is_connected && !self.is_looking {
                        self.look();
                    }
                }
                () = until(tell_by) => {}
            }
        }
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => future::pending().await,
    }
}

#[async_trait]
impl Watcher for ZkWatcher {
    async fn next(&mut self) -> Result<Feed> {
        self.advance().await.map_err(for_readers)
    }

    fn silence_limit(&self) -> Duration {
        if !self.has_told {
            return FIRST_WITHIN;
        }
        LOOK_EVERY + self.client.config().request_timeout * 2
    }
}

#[cfg(test)]
mod tests {
    use sd_testing::{LONG, required_env};
    use tokio::time::timeout;

    use super::*;
    use crate::config::ZkConfig;

    /// As when the connection is back, and what its watches tell turns out to be no difference.
    #[tokio::test]
    #[ignore = "needs zk: cargo xtask test --backend zk"]
    async fn a_feed_is_told_to_be_alive_as_soon_as_what_is_read_after_a_look_is_no_difference() {
        let address = required_env("SD_TEST_ZK").unwrap();
        let prefix = format!("/sd-test-{:016x}", fastrand::u64(..));
        let backend = ZkBackend::new(ZkConfig::new([address]).with_prefix(prefix)).unwrap();
        let service = ServiceName::new("s").unwrap();
        let mut watcher = ZkWatcher::open(&backend, &service, None).await.unwrap();
        let told = timeout(LONG, watcher.next()).await.unwrap().unwrap();
        assert!(matches!(told, Feed::Set(_)), "{told:?}");
        // So that no other look comes to its help.
        watcher.look_at = Instant::now() + 10 * LONG;
        watcher.list();
        watcher.take(Told::Looked(Ok(None))).unwrap();
        assert!(watcher.news().unwrap().is_none());
        let told = timeout(LONG, watcher.next()).await.unwrap().unwrap();
        assert!(matches!(told, Feed::Alive { .. }), "{told:?}");
    }
}
