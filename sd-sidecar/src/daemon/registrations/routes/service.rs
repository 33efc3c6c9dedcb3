//! The routes of one service: told, verified, and taken back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sd_consul::{change_keys, list_keys};
use sd_core::retry::Backoff;
use sd_core::{Error, ErrorKind, RecordId, Registry, Result, ServiceName};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::super::left::Left;
use super::document::{Document, Kind, Place};
use super::found::Found;
use super::wanted::Wanted;
use crate::daemon::store::Saver;
use crate::wire::meta;

/// How often a write starts over because another agent has written meanwhile.
const MOST_ROUNDS: u32 = 8;
/// Consul takes no more changes at once.
const MOST_CHANGES: usize = 64;
/// How many records of one version are remembered: those that were withdrawn last may still be listed.
const MOST_RECORDS: usize = 256;
/// How many services are read and written at the same time.
const AT_ONCE: usize = 16;
/// An agent verifies no more services in a second than ten.
const VERIFIED_EACH: Duration = Duration::from_millis(100);

/// What the services of one agent have in common.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) registry: Registry,
    pub(super) prefix: String,
    verify_every: Duration,
    saver: Option<Saver>,
    turns: Semaphore,
    /// How many services there are.
    services: AtomicU32,
}

impl Common {
    pub(super) fn new(
        registry: Registry,
        prefix: &str,
        verify_every: Duration,
        saver: Option<Saver>,
    ) -> Self {
        Self {
            registry,
            prefix: prefix.to_owned(),
            verify_every,
            saver,
            turns: Semaphore::new(AT_ONCE),
            services: AtomicU32::new(0),
        }
    }

    /// How long until a service is verified, spread so that not all are at once.
    fn until_verified(&self) -> Duration {
        let services = self.services.load(Ordering::Relaxed);
        let every = self.verify_every.max(VERIFIED_EACH * services);
        every.mul_f64(0.75 + 0.5 * fastrand::f64())
    }
}

/// Keeps the documents of one service true.
pub(super) struct Service {
    common: Arc<Common>,
    place: Place,
    folder: String,
    /// What has been told of each version that was declared, if it is known that it is there.
    told: BTreeMap<Kind, Option<Document>>,
    /// The records of this agent that had each version.
    own: BTreeMap<Kind, VecDeque<RecordId>>,
    /// The registrations of an agent before that had each version, and are to end.
    left: BTreeMap<Kind, Vec<Arc<Left>>>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.common.services.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Service {
    /// Nothing is told yet. `None` if a name of the place has a slash: it has no folder of its own.
    pub(super) fn new(common: &Arc<Common>, place: Place) -> Option<Self> {
        let folder = place.folder(&common.prefix)?;
        common.services.fetch_add(1, Ordering::Relaxed);
        Some(Self {
            common: Arc::clone(common),
            place,
            folder,
            told: BTreeMap::new(),
            own: BTreeMap::new(),
            left: BTreeMap::new(),
        })
    }

    /// These versions may have been told for these registrations, which are to end.
    pub(super) fn with_left(mut self, left: BTreeMap<Kind, Vec<Arc<Left>>>) -> Self {
        for (version, left) in &left {
            let records = left.iter().flat_map(|left| left.stored.records());
            self.told.insert(version.clone(), None);
            self.own.insert(version.clone(), records.collect());
        }
        self.left = left;
        self
    }

    /// A version is taken back, or another registration has it: nothing is to be done for those before.
    fn end_left(&mut self, version: &Kind) {
        for left in self.left.remove(version).into_iter().flatten() {
            left.untold();
            if let Some(saver) = &self.common.saver {
                saver.save();
            }
        }
    }

    /// Follows what is wanted until nothing is and nothing is told, or to the last thing that is wanted.
    pub(super) async fn run(mut self, mut wanted: watch::Receiver<Arc<Wanted>>) -> Place {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        let (mut is_logged, mut troubles, mut verifies) = (false, 0, false);
        // However often something else is wanted, what is told is verified in time.
        let mut verify_at = Instant::now() + self.common.until_verified();
        loop {
            let is_last = wanted.has_changed().is_err();
            let now = Arc::clone(&wanted.borrow_and_update());
            if !now.has_trouble {
                verifies |= std::mem::replace(&mut troubles, now.troubles) != now.troubles;
            }
            let reconciled = self.reconcile(&now, verifies).await;
            let is_over = match &reconciled {
                Ok(()) => true,
                Err(error) => error.kind() == ErrorKind::Closed,
            };
            let next = match reconciled {
                Ok(()) => {
                    backoff.reset();
                    is_logged = false;
                    if std::mem::take(&mut verifies) {
                        verify_at = Instant::now() + self.common.until_verified();
                    }
                    if self.told.is_empty() {
                        return self.place.clone();
                    }
                    verify_at
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_logged, true) {
                        let service = &self.place.service;
                        warn!(?service, error = %error.report(), "routes cannot be told: tried again");
                    }
                    Instant::now() + backoff.next_delay()
                }
            };
            if is_last {
                if is_over {
                    return self.place.clone();
                }
                // What closes the agent gives this up in time.
                sleep_until(next).await;
                continue;
            }
            tokio::select! {
                // An error says that what is there now is the last.
                _ = wanted.changed() => {}
                () = sleep_until(next) => verifies = true,
            }
        }
    }

    /// Tells what is there and not told, and takes back what is declared no more.
    async fn reconcile(&mut self, wanted: &Wanted, verifies: bool) -> Result<()> {
        for (version, records) in &wanted.declared {
            self.end_left(version);
            let told = self.told.entry(version.clone()).or_default();
            // What the registry has lost may have been lost with it.
            told.take_if(|_| !wanted.there.contains_key(version));
            let own = self.own.entry(version.clone()).or_default();
            for record in records {
                if !own.contains(record) {
                    own.push_back(record.clone());
                }
            }
            own.drain(..own.len().saturating_sub(MOST_RECORDS));
        }
        if verifies {
            self.verify().await?;
        }
        let mut failed = Ok(());
        for (version, document) in &wanted.there {
            if self.told.get(version).and_then(Option::as_ref) == Some(document) {
                continue;
            }
            match self.change(&Act::Tell(document)).await {
                Ok(()) => drop(self.told.insert(version.clone(), Some(document.clone()))),
                Err(error) => failed = Err(error),
            }
        }
        let is_gone = |version: &&Kind| !wanted.declared.contains_key(*version);
        let gone: Vec<Kind> = if wanted.is_in_transition() {
            Vec::new()
        } else {
            self.told.keys().filter(is_gone).cloned().collect()
        };
        for version in gone {
            // It may be taken back although no answer says so.
            self.told.insert(version.clone(), None);
            let act = Act::TakeBack {
                version: &version,
                declared: &wanted.versions(),
            };
            match self.change(&act).await {
                Ok(()) => {
                    self.told.remove(&version);
                    self.own.remove(&version);
                    self.end_left(&version);
                }
                Err(error) => failed = Err(error),
            }
        }
        failed
    }

    /// Looks whether what was told is still there.
    async fn verify(&mut self) -> Result<()> {
        if self.told.values().all(Option::is_none) {
            return Ok(());
        }
        let found = self.find().await?;
        for told in self.told.values_mut() {
            if told.take_if(|told| !found.tells(told)).is_some() {
                warn!(folder = ?self.folder, "routes were changed or deleted by another program: they are told again");
            }
        }
        Ok(())
    }

    async fn find(&self) -> Result<Found> {
        let keys = list_keys(&self.common.registry, &self.folder).await?;
        Ok(Found::new(&self.folder, keys))
    }

    /// Reads the keys and changes them, again if others do so meanwhile.
    async fn change(&self, act: &Act<'_>) -> Result<()> {
        // It is never closed.
        let _turn = self.common.turns.acquire().await;
        'rounds: for _ in 0..MOST_ROUNDS {
            let found = self.find().await?;
            let changes = match act {
                Act::Tell(document) => found.told(document),
                // After the keys: what is registered later writes them again.
                Act::TakeBack { version, declared } => {
                    let mut there = self.others(version).await?;
                    there.extend(declared.iter().cloned());
                    found.taken_back(version, &there)
                }
            };
            for part in changes.chunks(MOST_CHANGES) {
                if !change_keys(&self.common.registry, part).await? {
                    continue 'rounds;
                }
            }
            let done = match act {
                Act::Tell(_) => "told",
                Act::TakeBack { .. } => "taken back",
            };
            info!(folder = ?self.folder, keys = changes.len(), "routes were {done}");
            return Ok(());
        }
        let why = format!(
            "{} changed between read and write {MOST_ROUNDS} times in a row",
            self.folder
        );
        Err(Error::new(ErrorKind::Unavailable, "tell routes").because(why))
    }

    /// The versions that are there, but for what this agent has just withdrawn of one.
    async fn others(&self, version: &Kind) -> Result<BTreeSet<Kind>> {
        let own = self.own.get(version);
        let service = ServiceName::new(&self.place.service)?;
        let there = self.common.registry.list(service).await?;
        let there = there.instances().iter().filter_map(|instance| {
            let said = |key: &str| instance.metadata().get(key).map(String::as_str);
            let is_there = said(meta::ENV) == Some(self.place.env.as_str())
                && said(meta::NAMESPACE) == Some(self.place.namespace.as_str());
            let is_own = own.is_some_and(|own| own.contains(&instance.record_id()));
            let its = Kind::version(instance.version().unwrap_or_default());
            (is_there && !(is_own && its == *version)).then_some(its)
        });
        Ok(there.collect())
    }
}

/// What is done to the keys of a service.
enum Act<'a> {
    Tell(&'a Document),
    /// Unless another instance of the version is there.
    TakeBack {
        version: &'a Kind,
        /// What this agent has declared of the service.
        declared: &'a BTreeSet<Kind>,
    },
}
