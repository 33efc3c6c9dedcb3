//! The embedded registry with one deliberate flaw: its reading port, and what both ports share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sd_core::memory::{Memory, MemoryBackend};
use sd_core::port::{Attempt, Limits, ServicesWatcher, async_trait};
use sd_core::{
    Backend, Error, ErrorKind, Incarnation, Instance, InstanceId, Instancer, Operator, Override,
    RecordId, Registrar, RegistrationConfig, Result, Revision, ServiceName, Skipped, Snapshot,
    Watcher,
};
use sd_testing::{Ability, Fixture};

use crate::late::Late;
use crate::session::{Session, Sessions};
use crate::source::Source;
use crate::watcher::FlawedWatcher;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    // What is read.
    UnknownServiceIsAnError,
    ForgetsTheZone,
    MakesUpRuns,
    MatchesPrefixes,
    NamesServicesUnsorted,
    TellsServicesOnce,
    FailsOnGarbage,
    HidesGarbage,
    ReadsOnePage,
    ListsFromACache,
    TellsNoOrderOfRecords,
    OrdersRecordsById,
    OrdersRecordsByUpdate,
    NamesNoWithdrawals,
    CountsBackwards,
    IgnoresClose,
    // How a feed goes on.
    StaysSilentUntilAChange,
    ListsThenWatchesWithAGap,
    ComparesAddresses,
    ComparesIds,
    TellsDeltas,
    LosesWhatADroppedCallTook,
    TellsOneFeedOnly,
    NeverSaysThatItIsAlive,
    // How a feed resumes.
    ResumesFromNow,
    AddsToTheKnownSet,
    ResumesWithoutAnAnswer,
    TrustsAnyPosition,
    // What is written.
    ReplacesSlashes,
    DecodesNames,
    ConfirmsBeforeItWrites,
    WritesOnWhenDropped,
    RefusesItsOwnRecord,
    OverwritesOthers,
    OverwritesItsAddress,
    HidesTheHolder,
    WithdrawsWhenReleased,
    WithdrawsWhenClosed,
    RemembersIdsForEver,
    ReportsNoTtl,
    GrantsMoreThanItSays,
    GrantsLessThanItSays,
    CutsOversizedRecords,
    RefusesTheLongestTtl,
    WithdrawsWhenDropped,
    TellsFalseLosses,
    IgnoresWithdrawals,
    FailsToWithdrawWhatIsAbsent,
    WithdrawsTheRecordOfAnyOwner,
    WithdrawsAllItsRecords,
    UpdatesByDeleteAndPut,
    UpdatesWhatIsGone,
    UpdatesOthers,
    RenewsNothing,
    RenewsWithoutLooking,
    RenewsByRegisteringAgain,
    // How records are kept that have no leases.
    LetsRecordsExpire,
    TellsTheEndOfASessionOnce,
    LosesALossWhenACallIsDropped,
    KeepsTheRecordsOfAnEndedSession,
    EndsAllSessions,
    GoesOnInAnEndedSession,
    // What operators say.
    OverridesNothing,
    HidesOverrides,
    OverridesTheWholeService,
    HeedsTheOwnerFirst,
    ClearsByMakingReady,
    ClearsBeforeItSets,
    HeedsTheFirstOperator,
    OverridesAnyRunWithTheId,
    OverridesWhatIsAbsent,
    TellsNoOwnerOfOverrides,
    ClearsOverridesByUpdating,
    KeepsOverridesOfIds,
    ReleasesOverrides,
    RemovesNothing,
    RemovesAsIfLost,
    RemovesAnyRunWithTheId,
}

/// A store whose clients all have the same flaw. Records with the id `garbage` count as unreadable.
pub(crate) struct Store {
    memory: Memory,
    flaw: Flaw,
    source: Source,
    /// What the fixture says of it.
    said: Source,
    shared: Arc<Shared>,
}

/// What the flaws of all clients of a store have in common.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) cache: Mutex<BTreeMap<ServiceName, Snapshot>>,
    pub(crate) newest_feed: Mutex<BTreeMap<ServiceName, u64>>,
    pub(crate) first_owners: Mutex<BTreeMap<(ServiceName, InstanceId), Incarnation>>,
    pub(crate) registered: Mutex<BTreeSet<RecordId>>,
    pub(crate) sessions: Sessions,
    pub(crate) late: Late,
    pub(crate) said: Mutex<BTreeMap<(ServiceName, InstanceId), Override>>,
}

const GARBAGE: &str = "garbage";
const PAGE: usize = 100;

impl Store {
    pub(crate) fn new(source: Source, flaw: Flaw) -> Self {
        Self {
            memory: Memory::new(),
            flaw,
            said: source.clone(),
            source,
            shared: Arc::default(),
        }
    }

    /// With a fixture that says this of its source, whatever it is like.
    pub(crate) fn said_to_be(self, said: Source) -> Self {
        Self { said, ..self }
    }
}

#[async_trait]
impl Fixture for Store {
    async fn backend(&self) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(Flawed {
            memory: self.memory.clone(),
            inner: Arc::new(self.memory.backend()),
            flaw: self.flaw,
            source: self.source.clone(),
            session: Arc::new(Mutex::new(self.shared.sessions.open())),
            shared: Arc::clone(&self.shared),
        }))
    }

    fn lacks(&self) -> Vec<Ability> {
        self.said.lacks.clone()
    }

    fn visible_within(&self) -> Duration {
        // What is shown then has still to be read.
        self.said.late * 2
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn write_garbage(&self, service: &ServiceName) -> Result<()> {
        self.source
            .check(Ability::UnreadableEntries, "write garbage")?;
        let garbage = Instance::new(service.as_str(), "10.0.0.9:1")?;
        let garbage = garbage.with_id(InstanceId::new(GARBAGE)?);
        let attempt = Attempt::new(RegistrationConfig::DEFAULT_TTL);
        let registrar = self.memory.backend();
        registrar.register(&garbage, &attempt).await.map(drop)
    }

    async fn remove_record(&self, record: &RecordId) -> Result<()> {
        self.source.check(Ability::Removal, "remove record")?;
        self.memory.operator().remove(record);
        Ok(())
    }

    async fn expire(&self, record: &RecordId) -> Result<()> {
        self.source.check(Ability::Sessions, "expire record")?;
        let stored = stored(&self.source, record);
        self.shared
            .sessions
            .end_of(&stored, &self.memory, self.flaw);
        Ok(())
    }
}

/// What identifies a record in a store. Where ids need not be unique, each run has a record of its own.
pub(crate) fn stored(source: &Source, record: &RecordId) -> RecordId {
    let mut stored = record.clone();
    if !source.has(Ability::UniqueIds) {
        stored.id = InstanceId::new(record.incarnation.to_string()).unwrap();
    }
    stored
}

#[derive(Clone, Debug)]
pub(crate) struct Flawed {
    pub(crate) memory: Memory,
    pub(crate) inner: Arc<MemoryBackend>,
    pub(crate) flaw: Flaw,
    pub(crate) source: Source,
    /// The session that keeps what this client writes, where there are sessions.
    pub(crate) session: Arc<Mutex<Arc<Session>>>,
    pub(crate) shared: Arc<Shared>,
}

impl Flawed {
    pub(crate) fn has(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    pub(crate) async fn record(&self, service: &ServiceName) -> Result<()> {
        let Self { shared, inner, .. } = self;
        shared.late.record(inner, service, self.source.late).await
    }

    async fn list_stored(&self, service: &ServiceName) -> Result<Snapshot> {
        let now = self.inner.list(service).await?;
        if self.source.late.is_zero() {
            return Ok(now);
        }
        self.record(service).await?;
        Ok(self.shared.late.list(service))
    }

    /// What a set of the store looks like to a reader.
    pub(crate) fn read(&self, stored: &Snapshot) -> Result<Snapshot> {
        let (garbage, mut good): (Vec<_>, Vec<_>) = stored
            .instances()
            .iter()
            .cloned()
            .partition(|instance| instance.id().as_str() == GARBAGE);
        if self.has(Flaw::FailsOnGarbage) && !garbage.is_empty() {
            return Err(Error::new(ErrorKind::InvalidData, "decode"));
        }
        if self.has(Flaw::UnknownServiceIsAnError) && good.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, "list service"));
        }
        if self.has(Flaw::ReadsOnePage) {
            good.truncate(PAGE);
        }
        if self.has(Flaw::ForgetsTheZone) {
            for instance in &mut good {
                let mut json = serde_json::to_value(instance.as_ref()).unwrap();
                json["zone"] = serde_json::Value::Null;
                *instance = serde_json::from_value(json).unwrap();
            }
        }
        if self.has(Flaw::MakesUpRuns) {
            for instance in &mut good {
                let made_up = Incarnation::random();
                *instance = Arc::new(instance.as_ref().clone().with_incarnation(made_up));
            }
        }
        let mut set = self.overridden(stored.clone().with_instances(good));
        if !self.has(Flaw::HidesGarbage) {
            let garbage = garbage.iter();
            let skipped = garbage.map(|instance| Skipped::new(instance.id(), "is garbage"));
            set = set.with_skipped(skipped.collect());
        }
        if self.has(Flaw::TellsNoOrderOfRecords) {
            set = in_order(&set, None::<fn(&Instance, u64) -> u64>);
        }
        if self.has(Flaw::OrdersRecordsById) {
            set = in_order(&set, Some(|_: &Instance, listed| listed));
        }
        if self.has(Flaw::OrdersRecordsByUpdate) {
            let updates = |one: &Instance| 1_000_000 * one.metadata().len() as u64;
            let place = |one: &Instance| stored.run_order(one.id()).unwrap() + updates(one);
            set = in_order(&set, Some(|one: &Instance, _| place(one)));
        }
        if self.has(Flaw::NamesNoWithdrawals) {
            set = set.with_withdrawn(Vec::new());
        }
        if self.has(Flaw::CountsBackwards) {
            let at = stored.revision();
            let back = Revision::new(at.domain(), u64::MAX - at.value());
            set = set.with_position(back, stored.as_of());
        }
        Ok(self.without_what_is_lacking(set))
    }

    fn without_what_is_lacking(&self, mut set: Snapshot) -> Snapshot {
        if !self.source.has(Ability::RunOrder) {
            set = in_order(&set, None::<fn(&Instance, u64) -> u64>);
        }
        if !self.source.has(Ability::Withdrawals) {
            set = set.with_withdrawn(Vec::new());
        }
        if self.source.has(Ability::Metadata) && self.source.has(Ability::Ids) {
            return set;
        }
        let seen = set.instances().iter().map(|instance| {
            let mut seen = instance.as_ref().clone();
            if !self.source.has(Ability::Ids) {
                let id = InstanceId::new(seen.endpoint().to_string()).unwrap();
                seen = seen.with_id(id).with_incarnation(Incarnation::from_u64(1));
            }
            if !self.source.has(Ability::Metadata) {
                seen = Instance::of_run(
                    seen.service().clone(),
                    seen.id().clone(),
                    seen.incarnation(),
                    seen.endpoint().clone(),
                );
            }
            (seen.id().clone(), Arc::new(seen))
        });
        let seen: BTreeMap<_, _> = seen.collect();
        set.with_instances(seen.into_values().collect())
    }

    /// A name that holds what stands for a slash elsewhere is mistaken for one with a slash.
    pub(crate) fn stored_service(&self, service: &ServiceName) -> ServiceName {
        if self.has(Flaw::DecodesNames) {
            ServiceName::new(service.as_str().replace("%2F", "/")).unwrap()
        } else {
            service.clone()
        }
    }

    async fn list_with_prefix(&self, prefix: &ServiceName) -> Result<Snapshot> {
        let own = self.inner.list(prefix).await?;
        let mut all = own.instances().to_vec();
        for service in self.inner.services().await? {
            if service.as_str().starts_with(prefix.as_str()) {
                all.extend_from_slice(self.inner.list(&service).await?.instances());
            }
        }
        Ok(own.with_instances(all))
    }
}

/// The same set with another order of its records, which tells the place of an instance by what it is and where it is listed.
fn in_order(set: &Snapshot, place: Option<impl Fn(&Instance, u64) -> u64>) -> Snapshot {
    let (service, at) = (set.service().clone(), set.revision().clone());
    let instances = set.instances().iter().cloned();
    let other = match place {
        None => Snapshot::new(service, at, set.as_of(), instances.collect()),
        Some(place) => {
            let records = instances.zip(1..).map(|(one, listed)| {
                let place = place(&one, listed);
                (one, place)
            });
            Snapshot::ordered(service, at, set.as_of(), records.collect())
        }
    };
    other
        .with_withdrawn(set.withdrawn().to_vec())
        .with_skipped(set.skipped().to_vec())
}

#[async_trait]
impl Instancer for Flawed {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        let mut services = self.inner.services().await?;
        self.source.check(Ability::Services, "list services")?;
        if self.has(Flaw::NamesServicesUnsorted) {
            services.reverse();
        }
        Ok(services)
    }

    async fn watch_services(&self) -> Result<Option<Box<dyn ServicesWatcher>>> {
        if self.has(Flaw::NamesServicesUnsorted) {
            return Ok(None);
        }
        let inner = self.inner.watch_services().await?;
        let Some(inner) = inner.filter(|_| self.has(Flaw::TellsServicesOnce)) else {
            return self.inner.watch_services().await;
        };
        Ok(Some(Box::new(ServicesOnce { inner, told: None })))
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        let service = &self.stored_service(service);
        self.source.check(Ability::ReadOnDemand, "list service")?;
        if self.has(Flaw::MatchesPrefixes) {
            return self.list_with_prefix(service).await;
        }
        let set = self.read(&self.list_stored(service).await?)?;
        if self.has(Flaw::ListsFromACache) {
            let mut cache = self.shared.cache.lock().unwrap();
            return Ok(cache.entry(service.clone()).or_insert(set).clone());
        }
        Ok(set)
    }

    async fn watch(
        &self,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        let watcher = FlawedWatcher::open(self.clone(), service, known).await?;
        Ok(Box::new(watcher))
    }
}

/// Tells its first list again and again.
#[derive(Debug)]
struct ServicesOnce {
    inner: Box<dyn ServicesWatcher>,
    told: Option<Vec<ServiceName>>,
}

#[async_trait]
impl ServicesWatcher for ServicesOnce {
    async fn next(&mut self) -> Result<Vec<ServiceName>> {
        let services = self.inner.next().await?;
        Ok(self.told.get_or_insert(services).clone())
    }

    fn silence_limit(&self) -> Duration {
        self.inner.silence_limit()
    }
}

#[async_trait]
impl Backend for Flawed {
    fn name(&self) -> &'static str {
        "flawed"
    }

    fn registrar(self: Arc<Self>) -> Option<Arc<dyn Registrar>> {
        Some(self)
    }

    fn operator(self: Arc<Self>) -> Option<Arc<dyn Operator>> {
        let operator: Arc<dyn Operator> = Arc::<Self>::clone(&self);
        self.source.has(Ability::Operators).then_some(operator)
    }

    fn elector(self: Arc<Self>) -> Option<sd_core::port::AnyElector> {
        None
    }

    async fn close(&self) -> Result<()> {
        if self.has(Flaw::IgnoresClose) {
            return Ok(());
        }
        if self.has(Flaw::WithdrawsWhenClosed) {
            self.withdraw_all().await?;
        }
        self.inner.close().await?;
        if self.source.has(Ability::Sessions) {
            let session = Arc::clone(&self.session.lock().unwrap());
            session.end(&self.memory, self.flaw);
        }
        Ok(())
    }
}

/// Limits are the store's own.
pub(crate) fn limits(flawed: &Flawed) -> &Limits {
    flawed.inner.limits()
}
