//! Reading: one service once, and the feed of one service.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sd_core::clock::{Clock, Moment};
use sd_core::{
    Error, ErrorKind, Incarnation, Instancer, Result, Revision, ServiceName, Snapshot, Watcher,
};

use crate::backend::DnsBackend;
use crate::client::Client;
use crate::reading::lookup::read;
use crate::reading::remembered::Remembered;
use crate::reading::service_set::ServiceSet;
use crate::reading::targets::Targets;
use crate::reading::watcher::DnsWatcher;

/// What all reads of a backend share.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) client: Client,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) remembered: Remembered,
    domain: Arc<str>,
    reads: AtomicU64,
}

/// Where a read stands among the others, and since when what it tells was so.
#[derive(Debug)]
pub(crate) struct Position {
    pub(crate) revision: Revision,
    pub(crate) as_of: Moment,
}

impl Source {
    pub(crate) fn new(client: Client, clock: Arc<dyn Clock>) -> Self {
        Self {
            client,
            clock,
            remembered: Remembered::default(),
            domain: format!("dns-{}", Incarnation::random()).into(),
            reads: AtomicU64::new(0),
        }
    }

    /// The position of a read that begins now. DNS has none, so reads are counted.
    pub(crate) fn position(&self) -> Position {
        let number = self.reads.fetch_add(1, Ordering::Relaxed) + 1;
        Position {
            revision: Revision::new(Arc::clone(&self.domain), number),
            as_of: self.clock.now(),
        }
    }
}

#[async_trait]
impl Instancer for DnsBackend {
    /// DNS has no list of names.
    async fn services(&self) -> Result<Vec<ServiceName>> {
        const OP: &str = "dns: list services";
        self.source.client.signal.check_open(OP)?;
        Err(Error::new(ErrorKind::Unsupported, OP)
            .because("DNS tells of names that it is asked for, and lists none: name the service"))
    }

    fn tells_withdrawals(&self) -> bool {
        false
    }

    /// What the name tells now: with servers that answer with samples, one sample.
    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        const OP: &str = "dns: list service";
        let client = &self.source.client;
        client.signal.check_open(OP)?;
        let name = client.settings().names.of(service)?;
        let position = self.source.position();
        let reading = read(client, OP, &name, &mut Targets::default()).await?;
        if let Some(unknown) = reading.unknown.first() {
            return Err(unknown.error.clone());
        }
        let mut set = ServiceSet::new(service.clone(), client.settings().keep_absent);
        // It holds nothing yet that could be doubted.
        set.take(&reading, Duration::ZERO, position.as_of);
        Ok(set.snapshot(position.revision))
    }

    /// Asks nothing yet: the first call of the feed does.
    async fn watch(
        &self,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        self.source.client.signal.check_open("dns: watch service")?;
        Ok(Box::new(DnsWatcher::open(self, service, known)?))
    }
}
