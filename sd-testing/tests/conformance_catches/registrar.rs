//! The writing port of the embedded registry with one deliberate flaw.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_core::port::{Attempt, Limits, Liveness, Registration, Renewed, async_trait};
use sd_core::{Error, ErrorKind, Instance, InstanceId, Instancer, RecordId, Registrar, Result};
use sd_testing::Ability;
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::flawed::{Flaw, Flawed, limits, stored};
use crate::session::Session;

/// How late something is written that is written too late.
const LATE: Duration = Duration::from_millis(20);

impl Flawed {
    /// Removes the record with the id, whichever incarnation it has.
    async fn evict(&self, record: &RecordId) -> Result<()> {
        let listed = self.inner.list(&record.service).await?;
        if let Some(owner) = listed.get(&record.id) {
            self.inner.withdraw(&owner.record_id()).await?;
        }
        Ok(())
    }

    pub(crate) async fn withdraw_all(&self) -> Result<()> {
        let all = std::mem::take(&mut *self.shared.registered.lock().unwrap());
        for record in all {
            self.inner.withdraw(&record).await?;
        }
        Ok(())
    }

    async fn owner_of(&self, record: &RecordId) -> Result<Option<Arc<Instance>>> {
        let listed = self.inner.list(&record.service).await?;
        Ok(listed.get(&record.id).cloned())
    }

    fn stored_record(&self, record: &RecordId) -> RecordId {
        let mut stored = stored(&self.source, record);
        if self.has(Flaw::ReplacesSlashes) {
            stored.id = InstanceId::new(stored.id.as_str().replace('/', "_")).unwrap();
        }
        stored
    }

    /// The session that keeps what is written now, if sessions keep records.
    fn session(&self) -> Option<Arc<Session>> {
        if !self.source.has(Ability::Sessions) {
            return None;
        }
        let mut session = self.session.lock().unwrap();
        if session.has_ended() && !self.has(Flaw::GoesOnInAnEndedSession) {
            *session = self.shared.sessions.open();
        }
        Some(Arc::clone(&session))
    }

    async fn write(&self, record: &Instance, attempt: &Attempt) -> Result<()> {
        self.inner.register(record, attempt).await.map(drop)
    }

    /// The record as it is stored.
    fn cut(&self, record: Instance) -> Instance {
        if !self.has(Flaw::CutsOversizedRecords) {
            return record;
        }
        let mut json = serde_json::to_value(&record).unwrap();
        json["metadata"] = serde_json::json!({});
        serde_json::from_value(json).unwrap()
    }
}

#[async_trait]
impl Registrar for Flawed {
    fn limits(&self) -> &Limits {
        limits(self)
    }

    fn record_bytes(&self, record: &Instance) -> Result<usize> {
        self.inner.record_bytes(&self.cut(record.clone()))
    }

    async fn register(
        &self,
        record: &Instance,
        attempt: &Attempt,
    ) -> Result<Box<dyn Registration>> {
        self.record(record.service()).await?;
        let stored_id = self.stored_record(&record.record_id()).id;
        let mut record = record.clone().with_id(stored_id);
        if self.has(Flaw::DecodesNames) {
            let mut json = serde_json::to_value(&record).unwrap();
            json["service"] = self.stored_service(record.service()).as_str().into();
            record = serde_json::from_value(json).unwrap();
        }
        let record = self.cut(record);
        let id = record.record_id();
        let mut stored = *attempt;
        let session = self.session();
        if !self.source.has(Ability::Leases) && !self.has(Flaw::LetsRecordsExpire) {
            stored.ttl = *self.limits().ttl.end();
        }
        match self.flaw {
            Flaw::GrantsMoreThanItSays => stored.ttl *= 100,
            Flaw::GrantsLessThanItSays => stored.ttl /= 2,
            Flaw::RefusesTheLongestTtl if attempt.ttl == *self.limits().ttl.end() => {
                return Err(Error::invalid_input("register", "that is too long"));
            }
            Flaw::OverwritesOthers => self.evict(&id).await?,
            Flaw::OverwritesItsAddress => {
                let owner = self.owner_of(&id).await?;
                if owner.is_some_and(|owner| owner.endpoint() == record.endpoint()) {
                    self.evict(&id).await?;
                }
            }
            Flaw::RefusesItsOwnRecord if self.owner_of(&id).await?.is_some() => {
                return Err(Error::new(ErrorKind::Conflict, "register"));
            }
            Flaw::RemembersIdsForEver => {
                let mut owners = self.shared.first_owners.lock().unwrap();
                let key = (id.service.clone(), id.id.clone());
                if *owners.entry(key).or_insert(id.incarnation) != id.incarnation {
                    return Err(Error::new(ErrorKind::Conflict, "register"));
                }
            }
            _ => {}
        }
        self.shared.registered.lock().unwrap().insert(id.clone());
        let mut registration = FlawedRegistration {
            backend: self.clone(),
            inner: None,
            is_first: session.as_ref().is_some_and(|session| session.keep(&id)),
            session,
            told: AtomicBool::new(false),
            record: id,
            stored,
            reported: attempt.ttl,
        };
        let (backend, late) = (self.clone(), record.clone());
        let writing = async move {
            sleep(LATE).await;
            backend.write(&late, &stored).await
        };
        if self.has(Flaw::ConfirmsBeforeItWrites) {
            tokio::spawn(writing);
            return Ok(Box::new(registration));
        }
        if self.has(Flaw::WritesOnWhenDropped) {
            tokio::spawn(writing).await.unwrap()?;
        }
        let registered = self.inner.register(&record, &stored).await;
        registration.inner = Some(match registered {
            Err(error) if self.has(Flaw::HidesTheHolder) => {
                return Err(Error::new(error.kind(), "register"));
            }
            registered => registered?,
        });
        self.inherit(&registration.record).await?;
        Ok(Box::new(registration))
    }

    async fn withdraw(&self, record: &RecordId) -> Result<()> {
        let record = self.stored_record(record);
        match self.flaw {
            Flaw::IgnoresWithdrawals => return Ok(()),
            Flaw::WithdrawsTheRecordOfAnyOwner => return self.evict(&record).await,
            Flaw::FailsToWithdrawWhatIsAbsent if self.owner_of(&record).await?.is_none() => {
                return Err(Error::new(ErrorKind::NotFound, "withdraw"));
            }
            Flaw::WithdrawsAllItsRecords => {
                self.withdraw_all().await?;
            }
            _ => {}
        }
        self.inner.withdraw(&record).await
    }

    async fn release(&self, record: &RecordId) -> Result<()> {
        self.source.check(Ability::Release, "release")?;
        if self.has(Flaw::WithdrawsWhenReleased) {
            self.inner.withdraw(record).await?;
        }
        if self.has(Flaw::ReleasesOverrides) {
            self.clear_override(record).await?;
        }
        self.inner.release(record).await
    }
}

#[derive(Debug)]
struct FlawedRegistration {
    backend: Flawed,
    /// `None` if it was confirmed before it was written.
    inner: Option<Box<dyn Registration>>,
    session: Option<Arc<Session>>,
    /// Whether it has the first record of its session.
    is_first: bool,
    /// Whether it was asked for its loss.
    told: AtomicBool,
    record: RecordId,
    stored: Attempt,
    reported: Duration,
}

impl FlawedRegistration {
    fn has(&self, flaw: Flaw) -> bool {
        self.backend.has(flaw)
    }

    fn inner(&self) -> Result<&dyn Registration> {
        let unwritten = || Error::new(ErrorKind::LeaseLost, "registration");
        self.inner.as_deref().ok_or_else(unwritten)
    }

    /// The record as it would be written again.
    fn again(&self) -> Instance {
        Instance::new(self.record.service.as_str(), "10.0.0.7:50051")
            .unwrap()
            .with_id(self.record.id.clone())
            .with_incarnation(self.record.incarnation)
    }
}

#[async_trait]
impl Registration for FlawedRegistration {
    fn liveness(&self) -> Liveness {
        let ttl = if self.has(Flaw::ReportsNoTtl) {
            Duration::ZERO
        } else {
            self.reported
        };
        if self.session.is_some() {
            Liveness::Session { ttl }
        } else if self.backend.source.has(Ability::PermanentRecords) {
            Liveness::Permanent { verify_every: ttl }
        } else {
            Liveness::Lease { ttl }
        }
    }

    async fn renew(&self) -> Result<Renewed> {
        let unseen = Renewed::new(self.liveness());
        if self.has(Flaw::RenewsNothing) {
            return Ok(unseen);
        }
        match self.inner()?.renew().await {
            Err(_) if self.has(Flaw::RenewsWithoutLooking) => Ok(unseen),
            Err(_) if self.has(Flaw::RenewsByRegisteringAgain) => {
                self.backend.write(&self.again(), &self.stored).await?;
                Ok(unseen)
            }
            renewed => {
                let said = renewed?.overridden;
                Ok(unseen.with_override(said.filter(|_| !self.has(Flaw::TellsNoOwnerOfOverrides))))
            }
        }
    }

    async fn update(&self, record: &Instance) -> Result<()> {
        let record = record.clone().with_id(self.record.id.clone());
        if self.has(Flaw::ClearsOverridesByUpdating) {
            self.backend.clear_override(&self.record).await?;
        }
        if !self.backend.source.has(Ability::UpdateInPlace) {
            self.inner()?.renew().await?;
        }
        if self.has(Flaw::UpdatesByDeleteAndPut) || !self.backend.source.has(Ability::UpdateInPlace)
        {
            self.backend.inner.withdraw(&self.record).await?;
            yield_now().await;
            return self.backend.write(&record, &self.stored).await;
        }
        match self.inner()?.update(&record).await {
            Err(_) if self.has(Flaw::UpdatesWhatIsGone) => {
                self.backend.write(&record, &self.stored).await
            }
            Err(_) if self.has(Flaw::UpdatesOthers) => {
                self.backend.evict(&self.record).await?;
                self.backend.write(&record, &self.stored).await
            }
            updated => updated,
        }
    }

    async fn lost(&self) -> Error {
        if self.has(Flaw::TellsFalseLosses) {
            return Error::new(ErrorKind::LeaseLost, "registration");
        }
        let first_call = !self.told.swap(true, Ordering::Relaxed);
        let is_told = match self.backend.flaw {
            Flaw::TellsTheEndOfASessionOnce => self.is_first,
            Flaw::LosesALossWhenACallIsDropped => first_call,
            _ => true,
        };
        match &self.session {
            Some(session) if is_told => {
                session.ended().await;
                Error::new(ErrorKind::LeaseLost, "registration")
            }
            _ => std::future::pending().await,
        }
    }
}

impl Drop for FlawedRegistration {
    fn drop(&mut self) {
        if self.has(Flaw::WithdrawsWhenDropped) && self.inner.is_some() {
            self.backend.memory.operator().remove(&self.record);
        }
    }
}
