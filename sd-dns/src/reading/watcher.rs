//! The feed of one service: ask, wait for as long as the answer holds, and ask again.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hickory_resolver::proto::rr::Name;
use sd_core::port::Feed;
use sd_core::{Error, ErrorKind, Result, ServiceName, Snapshot, Watcher};
use tokio::time::Instant;

use crate::backend::DnsBackend;
use crate::client::READ_WITHIN;
use crate::reading::answers::Reading;
use crate::reading::instancer::Source;
use crate::reading::interval::{MOST_ADDED, holds, interval};
use crate::reading::lookup::read;
use crate::reading::service_set::{ServiceSet, Taken};
use crate::reading::targets::Targets;

const OP: &str = "dns: watch service";
/// How much longer than its longest interval and read a feed may be silent, on a busy machine.
const SLACK: Duration = Duration::from_secs(5);

/// One service, followed.
#[derive(Debug)]
pub(crate) struct DnsWatcher {
    source: Arc<Source>,
    service: ServiceName,
    name: Name,
    set: ServiceSet,
    targets: Targets,
    /// The set that was told last.
    last: Option<Snapshot>,
    read_at: Instant,
    /// Lives as long as the feed.
    alive: Arc<()>,
}

impl DnsWatcher {
    pub(crate) fn open(
        backend: &DnsBackend,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Self> {
        let source = Arc::clone(&backend.source);
        let settings = source.client.settings();
        Ok(Self {
            name: settings.names.of(service)?,
            set: source
                .remembered
                .begin(service, known, settings.keep_absent),
            service: service.clone(),
            targets: Targets::default(),
            last: None,
            read_at: Instant::now(),
            alive: Arc::new(()),
            source,
        })
    }

    /// How long to take a reading for what is. What is missing in it is asked for soon.
    fn holds(&self, reading: &Reading) -> Duration {
        let ttl = if reading.unknown.is_empty() {
            reading.ttl
        } else {
            0
        };
        holds(ttl, self.source.client.settings())
    }

    /// What a reading tells.
    fn tell(&mut self, reading: &Reading, read: Snapshot, taken: &Taken) -> Feed {
        let same = self
            .last
            .as_ref()
            .is_some_and(|last| last.is_same_set(&read));
        let (revision, as_of) = (read.revision().clone(), read.as_of());
        self.last = Some(read.clone());
        let doubt = (*taken == Taken::Doubted).then(|| empty(reading));
        let unknown = reading.unknown.first();
        let unknown = unknown.map(|unknown| unknown.error.clone());
        match doubt.or(unknown) {
            Some(error) => Feed::Partial { set: read, error },
            None if same => Feed::Alive { revision, as_of },
            None => Feed::Set(read),
        }
    }
}

/// Why a set is not believed to be empty yet.
fn empty(reading: &Reading) -> Error {
    let what = if reading.exists {
        "has no such records"
    } else {
        "does not exist"
    };
    Error::new(ErrorKind::NotFound, OP).because(format!(
        "the resolver says that the name {what}: its instances go if it says so again"
    ))
}

#[async_trait]
impl Watcher for DnsWatcher {
    async fn next(&mut self) -> Result<Feed> {
        self.source.client.wait_until(OP, self.read_at).await?;
        let position = self.source.position();
        // What a dropped call has asked is asked again.
        let mut targets = self.targets.clone();
        let reading = read(&self.source.client, OP, &self.name, &mut targets).await?;
        self.targets = targets;
        let holds = self.holds(&reading);
        let taken = self.set.take(&reading, holds, position.as_of);
        // Not before what was doubted may be believed.
        self.read_at = Instant::now() + interval(holds);
        let set = self.set.snapshot(position.revision);
        self.source
            .remembered
            .keep(&self.service, &self.set, &self.alive);
        Ok(self.tell(&reading, set, &taken))
    }

    fn silence_limit(&self) -> Duration {
        self.source.client.settings().max_interval + MOST_ADDED + READ_WITHIN + SLACK
    }
}
