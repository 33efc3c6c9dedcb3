//! The embedded registry whose elections have one deliberate flaw: the store and its clients.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sd_core::memory::{Memory, MemoryBackend};
use sd_core::port::{AnyElector, CandidateId, Ticket, async_trait};
use sd_core::{
    Backend, ElectionName, Elector, Instancer, Registrar, Result, ServiceName, Snapshot, Watcher,
};
use sd_testing::{Ability, Fixture};

use crate::elector::{FlawedElector, Own};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    // How one joins and leaves.
    PromisesWhatItsTypeDoesNot,
    JoinsAnewEachTime,
    SharesIdsAmongClients,
    LeavesForAnyHolderOfTheId,
    RejoinsInPlaceOfOthers,
    EntersAnything,
    CutsNames,
    IgnoresClose,
    JoinsWhenClosed,
    FailsToLeaveWhatIsAbsent,
    LeavesForTheLeader,
    IgnoresLeaving,
    JoinsOnWhenDropped,
    // Where one stands.
    StaysSilentUntilAChange,
    ElectsEverybody,
    NeverTellsOfAChange,
    HandsOverToTheNewest,
    CountsTokensPerClient,
    CountsTokensAnewWhenEmpty,
    TakesAnyChangeForTheEnd,
    TellsAgain,
    LosesWhatADroppedQuestionTook,
    WatchesOnlyTheOneBefore,
    LooksNoMoreOnceItLeads,
    // How an entry is kept.
    LeavesWhenDropped,
    ReportsLessThanWasAskedFor,
    GrantsMoreThanItSays,
    GrantsLessThanItSays,
    ConfirmsNothing,
    ConfirmsWhileItStands,
    ConfirmsWithoutLooking,
    ConfirmsByJoiningAgain,
    ProclaimsWithoutLooking,
    ProclaimsNothing,
    // What is observed.
    TellsNothingUntilAChange,
    ReadsValuesAsText,
    TellsItsOwnTokens,
    NeverTellsThatNoneLeads,
    ComparesLeadersOnly,
    ComparesNothingAfterTheFirst,
    TellsOldTermsAgain,
    TellsWhatAnyCandidateProclaims,
    LosesWhatADroppedCallTook,
    NeverSaysThatItIsAlive,
    // What is recorded.
    MakesUpATerm,
    RecordsNoResignation,
    RecordsOnlyResignations,
    TellsTheShorterTtl,
    RecordsUnasked,
    RecordsEveryEnd,
    ForgetsWhatItFound,
    // What a session keeps.
    EndsOneEntryOfASession,
    EndsAllSessions,
}

/// What the elections of a store are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    OnLeases,
    OnSessions,
    BestEffort,
}

/// A store whose clients all have the same flaw.
pub(crate) struct Store {
    memory: Memory,
    flaw: Flaw,
    kind: Kind,
    /// What the fixture says.
    said: Kind,
    shared: Arc<Shared>,
}

/// What the flaws of all clients of a store have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) elector: Arc<dyn Elector>,
    pub(crate) clients: Mutex<Vec<Arc<Own>>>,
    pub(crate) joins: AtomicU64,
    pub(crate) joins_since_empty: Mutex<BTreeMap<ElectionName, u64>>,
    pub(crate) holders: Mutex<BTreeMap<ElectionName, CandidateId>>,
    pub(crate) proclaimed: Mutex<BTreeMap<ElectionName, Arc<[u8]>>>,
}

impl Store {
    pub(crate) fn new(kind: Kind, flaw: Flaw) -> Self {
        let memory = Memory::new();
        let shared = Arc::new(Shared {
            elector: elector_of(memory.backend()),
            clients: Mutex::default(),
            joins: AtomicU64::new(0),
            joins_since_empty: Mutex::default(),
            holders: Mutex::default(),
            proclaimed: Mutex::default(),
        });
        Self {
            memory,
            flaw,
            kind,
            said: kind,
            shared,
        }
    }

    pub(crate) fn client(&self) -> Arc<dyn Backend> {
        Arc::new(Flawed {
            memory: self.memory.clone(),
            inner: Arc::new(self.memory.backend()),
            flaw: self.flaw,
            kind: self.kind,
            shared: Arc::clone(&self.shared),
        })
    }

    /// With a fixture that says this, whatever the elections are like.
    pub(crate) fn said_to_be(self, said: Kind) -> Self {
        Self { said, ..self }
    }
}

pub(crate) fn elector_of(backend: MemoryBackend) -> Arc<dyn Elector> {
    Arc::new(backend).elector().unwrap().into_any()
}

#[async_trait]
impl Fixture for Store {
    async fn backend(&self) -> Result<Arc<dyn Backend>> {
        Ok(self.client())
    }

    fn lacks(&self) -> Vec<Ability> {
        let mut lacks = vec![Ability::PermanentRecords];
        lacks.push(match self.said {
            Kind::OnSessions => Ability::Leases,
            Kind::OnLeases | Kind::BestEffort => Ability::Sessions,
        });
        if self.said == Kind::BestEffort {
            lacks.push(Ability::StrictElections);
        }
        lacks
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn remove_entry(&self, ticket: &Ticket) -> Result<()> {
        self.memory.operator().remove_entry(&ticket.name, ticket.id);
        Ok(())
    }

    async fn expire_entry(&self, ticket: &Ticket) -> Result<()> {
        if self.kind != Kind::OnSessions || self.flaw == Flaw::EndsOneEntryOfASession {
            self.memory.operator().expire_entry(&ticket.name, ticket.id);
            return Ok(());
        }
        for client in &*self.shared.clients.lock().unwrap() {
            if client.keeps(ticket) || self.flaw == Flaw::EndsAllSessions {
                client.end_session(&self.memory);
            }
        }
        Ok(())
    }

    async fn entries(&self, election: &ElectionName) -> Result<usize> {
        Ok(self.memory.operator().entries(election).len())
    }
}

#[derive(Debug)]
struct Flawed {
    memory: Memory,
    inner: Arc<MemoryBackend>,
    flaw: Flaw,
    kind: Kind,
    shared: Arc<Shared>,
}

#[async_trait]
impl Instancer for Flawed {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        self.inner.services().await
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        self.inner.list(service).await
    }

    async fn watch(
        &self,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        self.inner.watch(service, known).await
    }
}

#[async_trait]
impl Backend for Flawed {
    fn name(&self) -> &'static str {
        "flawed"
    }

    fn registrar(self: Arc<Self>) -> Option<Arc<dyn Registrar>> {
        None
    }

    fn elector(self: Arc<Self>) -> Option<AnyElector> {
        let inner = match self.flaw {
            Flaw::SharesIdsAmongClients => Arc::clone(&self.shared.elector),
            _ => Arc::clone(&self.inner).elector()?.into_any(),
        };
        let (memory, shared) = (self.memory.clone(), Arc::clone(&self.shared));
        let elector = FlawedElector::new(memory, inner, self.flaw, shared, self.kind);
        Some(match self.kind {
            Kind::BestEffort => AnyElector::BestEffort(Arc::new(elector)),
            Kind::OnLeases | Kind::OnSessions => AnyElector::Strict(Arc::new(elector)),
        })
    }

    async fn close(&self) -> Result<()> {
        if self.flaw == Flaw::IgnoresClose {
            return Ok(());
        }
        self.inner.close().await
    }
}
