//! The routes of services in Consul, for gateways of the reference system: told once a registration is there, and taken back with the last
//! one.
//!
//! | key | what is there |
//! |---|---|
//! | `<prefix>/<env>/<namespace>/<service>/versions/<version>` | what one version offers |
//! | `<prefix>/<env>/<namespace>/<service>/current` | what all versions offer that are there, as the reference system writes it |
//!
//! Several agents write the same keys. Each write names what it is based on, and moves the keys: an agent that has found no instance and is
//! about to delete them is refused if another agent has told its routes meanwhile, which it does after its registration. There is no
//! conflict between versions: one that is new adds to what is offered.

mod document;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use sd_consul::{KeyChange, KeyValue, change_keys, list_keys};
use sd_core::retry::Backoff;
use sd_core::{Error, ErrorKind, RecordId, Result, ServiceName};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use self::document::{Document, Kind, Place};
use super::{Entry, Registrations, Stage};
use crate::wire::meta;

/// Changes that follow each other this closely are told together.
const SETTLE: Duration = Duration::from_millis(100);
/// How often a write starts over because another agent has written meanwhile.
const MOST_ROUNDS: u32 = 8;
/// Consul takes no more changes at once.
const AT_ONCE: usize = 64;
/// How many records of one version are remembered: those that were withdrawn last may still be listed.
const MOST_RECORDS: usize = 256;

/// One version of a service.
type Version = (Place, Kind);

/// Keeps the documents true for the registrations of one agent.
struct Routes {
    registrations: Registrations,
    prefix: String,
    /// What has been told of each version that was declared, if it is known that it is there.
    told: BTreeMap<Version, Option<Document>>,
    /// The records of this agent that had each version.
    own: BTreeMap<Version, VecDeque<RecordId>>,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq)]
struct Wanted {
    /// There, and to be told.
    there: BTreeMap<Version, Document>,
    /// Declared, whether it is there now or not, and by which records.
    declared: BTreeMap<Version, Vec<RecordId>>,
}

impl Wanted {
    fn of<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Self {
        let mut wanted = Self::default();
        for entry in entries {
            let Some((place, document)) = Document::of(entry) else {
                continue;
            };
            let of_version = (place, document.kind());
            match entry.stage {
                Stage::Deregistered => continue,
                Stage::Init => {}
                Stage::Registered | Stage::Serving | Stage::Draining => {
                    let there = wanted.there.remove(&of_version);
                    let document = match there {
                        Some(other) => document.with(&other),
                        None => document,
                    };
                    wanted.there.insert(of_version.clone(), document);
                }
            }
            let records = wanted.declared.entry(of_version).or_default();
            records.push(entry.record.clone());
        }
        wanted
    }

    /// The versions that are declared at a place.
    fn declared_at(&self, place: &Place) -> BTreeSet<Kind> {
        let here = self.declared.keys().filter(|(other, _)| other == place);
        here.map(|(_, version)| version.clone()).collect()
    }

    /// Whether a version that is declared at a place is not there yet. What it replaces may still serve.
    fn is_in_transition(&self, place: &Place) -> bool {
        let mut here = self.declared.keys().filter(|(other, _)| other == place);
        here.any(|of| !self.there.contains_key(of))
    }
}

impl Routes {
    /// Follows the registrations until `stop`, and then takes back what has no registration any more.
    async fn run(mut self, stop: CancellationToken) {
        let mut changes = self.registrations.changes();
        let following = stop.run_until_cancelled(self.follow(&mut changes));
        following.await;
        // All that could be withdrawn is, and nothing is declared any more.
        if let Err(error) = self.reconcile().await {
            warn!(error = %error.report(), "routes could not be taken back at the stop");
        }
    }

    async fn follow(&mut self, changes: &mut watch::Receiver<u64>) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        let mut is_told = true;
        loop {
            changes.mark_unchanged();
            match self.reconcile().await {
                Ok(()) => {
                    backoff.reset();
                    is_told = true;
                    if changes.changed().await.is_err() {
                        return;
                    }
                    sleep(SETTLE).await;
                }
                Err(error) => {
                    if std::mem::take(&mut is_told) {
                        warn!(error = %error.report(), "routes cannot be told: tried again");
                    }
                    // Of one service it may be for long, and of the others there may be news.
                    tokio::select! {
                        () = sleep(backoff.next_delay()) => {}
                        news = changes.changed() => {
                            if news.is_err() {
                                return;
                            }
                            sleep(SETTLE).await;
                        }
                    }
                }
            }
        }
    }

    /// Tells what is there and not told, and takes back what is declared no more.
    async fn reconcile(&mut self) -> Result<()> {
        let wanted = Wanted::of(&self.registrations.entries());
        for (of, records) in &wanted.declared {
            let told = self.told.entry(of.clone()).or_default();
            // What the registry has lost may have been lost with it.
            told.take_if(|_| !wanted.there.contains_key(of));
            let own = self.own.entry(of.clone()).or_default();
            for record in records {
                if !own.contains(record) {
                    own.push_back(record.clone());
                }
            }
            own.drain(..own.len().saturating_sub(MOST_RECORDS));
        }
        let mut failed = Ok(());
        for (of, document) in &wanted.there {
            if self.told.get(of).and_then(Option::as_ref) == Some(document) {
                continue;
            }
            match self.change(&of.0, &Act::Tell(document)).await {
                Ok(()) => drop(self.told.insert(of.clone(), Some(document.clone()))),
                Err(error) => failed = Err(error),
            }
        }
        let gone = self.told.keys();
        let gone = gone.filter(|of| !wanted.declared.contains_key(of));
        let gone = gone.filter(|of| !wanted.is_in_transition(&of.0));
        for of in gone.cloned().collect::<Vec<_>>() {
            // It may be taken back although no answer says so.
            self.told.insert(of.clone(), None);
            let act = Act::TakeBack {
                version: &of.1,
                declared: &wanted.declared_at(&of.0),
            };
            match self.change(&of.0, &act).await {
                Ok(()) => {
                    self.told.remove(&of);
                    self.own.remove(&of);
                }
                Err(error) => failed = Err(error),
            }
        }
        failed
    }

    /// Reads the keys of a service and changes them, again if others do so meanwhile.
    async fn change(&self, place: &Place, act: &Act<'_>) -> Result<()> {
        let Some(folder) = place.folder(&self.prefix) else {
            debug!(?place, "a name with a slash has no place among the routes");
            return Ok(());
        };
        let registry = self.registrations.registry();
        'rounds: for _ in 0..MOST_ROUNDS {
            let found = Found::new(&folder, list_keys(registry, &folder).await?);
            let changes = match act {
                Act::Tell(document) => found.told(document),
                // After the keys: what is registered later writes them again.
                Act::TakeBack { version, declared } => {
                    let mut there = self.others(place, version).await?;
                    there.extend(declared.iter().cloned());
                    found.taken_back(version, &there)
                }
            };
            for part in changes.chunks(AT_ONCE) {
                if !change_keys(registry, part).await? {
                    continue 'rounds;
                }
            }
            info!(?folder, keys = changes.len(), "routes were told");
            return Ok(());
        }
        let why = format!("{folder} changed between read and write {MOST_ROUNDS} times in a row");
        Err(Error::new(ErrorKind::Unavailable, "tell routes").because(why))
    }

    /// The versions of a service that are there, but for what this agent has just withdrawn of one.
    async fn others(&self, place: &Place, version: &Kind) -> Result<BTreeSet<Kind>> {
        let own = self.own.get(&(place.clone(), version.clone()));
        let service = ServiceName::new(&place.service)?;
        let there = self.registrations.registry().list(service).await?;
        let there = there.instances().iter().filter_map(|instance| {
            let said = |key: &str| instance.metadata().get(key).map(String::as_str);
            let is_there = said(meta::ENV) == Some(place.env.as_str())
                && said(meta::NAMESPACE) == Some(place.namespace.as_str());
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

/// The keys of one service, as they were found.
struct Found {
    folder: String,
    keys: BTreeMap<Kind, KeyValue>,
}

impl Found {
    fn new(folder: &str, keys: Vec<KeyValue>) -> Self {
        let keys = keys.into_iter();
        let keys = keys.filter_map(|found| Some((Kind::of_key(folder, &found.key)?, found)));
        Self {
            folder: folder.to_owned(),
            keys: keys.collect(),
        }
    }

    /// What tells this as well.
    fn told(&self, document: &Document) -> Vec<KeyChange> {
        let kind = document.kind();
        // Other hosts may offer more in the same version, and an agent of the reference system has one document for all versions.
        let with = |document: &Document, kind: &Kind| {
            let found = self.document(kind);
            found.map_or(document.clone(), |found| document.clone().with(&found))
        };
        let own = with(document, &kind);
        let others = self.versions_but(&kind);
        let all = others.values().fold(own.clone(), Document::with);
        let all = with(&all, &Kind::Current);
        vec![self.put(&kind, &own), self.put(&Kind::Current, &all)]
    }

    /// What takes back a version, if these are there besides.
    fn taken_back(&self, version: &Kind, there: &BTreeSet<Kind>) -> Vec<KeyChange> {
        if there.is_empty() {
            // `current` last, if it takes more than one write.
            let all = self.keys.keys().rev();
            return all.map(|kind| self.delete(kind)).collect();
        }
        if there.contains(version) || !self.keys.contains_key(version) {
            return Vec::new();
        }
        let mut changes = vec![self.delete(version)];
        let left = self.versions_but(version);
        // Of an agent of the reference system it is not known what its version alone offers.
        let is_known = there.iter().all(|version| left.contains_key(version));
        if let Some(all) = Document::all(&left).filter(|_| is_known) {
            changes.push(self.put(&Kind::Current, &all));
        }
        changes
    }

    fn document(&self, kind: &Kind) -> Option<Document> {
        Document::parse(&self.keys.get(kind)?.value)
    }

    fn versions_but(&self, but: &Kind) -> BTreeMap<Kind, Document> {
        let others = self.keys.keys();
        let others = others.filter(|kind| **kind != Kind::Current && *kind != but);
        let others = others.filter_map(|kind| Some((kind.clone(), self.document(kind)?)));
        others.collect()
    }

    fn modified(&self, kind: &Kind) -> u64 {
        self.keys.get(kind).map_or(0, |found| found.modified)
    }

    fn put(&self, kind: &Kind, document: &Document) -> KeyChange {
        KeyChange::Put {
            key: kind.key(&self.folder),
            value: document.bytes(),
            modified: self.modified(kind),
        }
    }

    fn delete(&self, kind: &Kind) -> KeyChange {
        KeyChange::Delete {
            key: kind.key(&self.folder),
            modified: self.modified(kind),
        }
    }
}

/// The task of an agent that tells routes.
#[derive(Debug)]
pub(super) struct Telling {
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Telling {
    /// Begins to tell what is registered.
    pub(super) fn start(registrations: Registrations, prefix: &str) -> Self {
        let stop = CancellationToken::new();
        let routes = Routes {
            registrations,
            prefix: prefix.to_owned(),
            told: BTreeMap::new(),
            own: BTreeMap::new(),
        };
        Self {
            task: AbortOnDropHandle::new(tokio::spawn(routes.run(stop.clone()))),
            stop,
        }
    }

    /// Takes back what is registered no more, and ends. If the future is dropped, what was told stays.
    pub(super) async fn end(self) {
        self.stop.cancel();
        // It has logged why it failed.
        let _ = self.task.await;
    }
}
