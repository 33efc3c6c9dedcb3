//! The records, their leases and their history, behind one lock.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Moment;
use crate::error::{Error, ErrorKind, Result};
use crate::model::instance::{Incarnation, Instance, RecordId};
use crate::model::name::{InstanceId, ServiceName};
use crate::model::overriding::Override;
use crate::model::snapshot::{Revision, Snapshot};
use crate::port::operator::{check_run, no_such_record};
use crate::port::registrar::{Liveness, Renewed};
use crate::sync::lock;

/// How many withdrawals are kept for each service, for feeds that lag.
const WITHDRAWALS_KEPT: usize = 1024;

#[derive(Debug)]
pub(super) struct Store {
    domain: Arc<str>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    revision: u64,
    /// Signals each change of any service, with its revision.
    changed: watch::Sender<u64>,
    /// The revision of the last change in any service that has been forgotten.
    forgotten: u64,
    services: BTreeMap<ServiceName, Service>,
}

#[derive(Debug)]
struct Service {
    /// The store's revision at the last change of this service.
    revision: u64,
    records: BTreeMap<InstanceId, Record>,
    withdrawals: VecDeque<(u64, InstanceId)>,
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Record {
    instance: Arc<Instance>,
    /// The revision at which it was made.
    made: u64,
    ttl: Duration,
    expires: Moment,
    overridden: Option<Override>,
}

impl Record {
    /// The instance as readers see it.
    fn shown(&self) -> Arc<Instance> {
        match self.overridden {
            None => Arc::clone(&self.instance),
            Some(said) => Arc::new(self.instance.as_ref().clone().with_override(said)),
        }
    }
}

impl Service {
    /// A service without records. It may have had records, forgotten up to `revision`.
    fn new(revision: u64) -> Self {
        Self {
            revision,
            records: BTreeMap::new(),
            withdrawals: VecDeque::new(),
            changed: watch::Sender::new(revision),
        }
    }

    fn touch(&mut self, revision: u64) {
        self.revision = revision;
        self.changed.send_replace(revision);
    }

    /// The record that belongs to this incarnation.
    fn owned(&mut self, record: &RecordId) -> Option<&mut Record> {
        self.records
            .get_mut(&record.id)
            .filter(|held| held.instance.incarnation() == record.incarnation)
    }
}

impl State {
    /// Removes records that were not renewed in time.
    fn expire(&mut self, service: &ServiceName, now: Moment) {
        let Some(entry) = self.services.get_mut(service) else {
            return;
        };
        let before = entry.records.len();
        entry.records.retain(|_, record| record.expires > now);
        if entry.records.len() != before {
            self.revision += 1;
            entry.touch(self.revision);
            self.changed.send_replace(self.revision);
        }
    }

    /// Fails unless the record under this id is that of this incarnation.
    fn check_run(&self, op: &'static str, record: &RecordId) -> Result<()> {
        let service = self.services.get(&record.service);
        let held = service.and_then(|service| service.records.get(&record.id));
        let held = held.ok_or_else(|| no_such_record(op, record))?;
        check_run(op, record, &*held.instance)
    }

    /// Removes this incarnation's record on purpose.
    fn withdraw(&mut self, record: &RecordId) {
        let revision = self.revision + 1;
        let Some(entry) = self.services.get_mut(&record.service) else {
            return;
        };
        if entry.owned(record).is_some() {
            entry.records.remove(&record.id);
            if entry.withdrawals.len() == WITHDRAWALS_KEPT {
                entry.withdrawals.pop_front();
            }
            entry.withdrawals.push_back((revision, record.id.clone()));
            entry.touch(revision);
            self.advance(revision);
        }
        self.tidy(&record.service);
    }

    fn advance(&mut self, revision: u64) {
        self.revision = revision;
        self.changed.send_replace(revision);
    }

    /// Forgets a service that is not in use.
    fn tidy(&mut self, service: &ServiceName) {
        let idle = |s: &Service| s.records.is_empty() && s.changed.receiver_count() == 0;
        match self.services.entry(service.clone()) {
            Entry::Occupied(entry) if idle(entry.get()) => {
                self.forgotten = self.forgotten.max(entry.remove().revision);
            }
            _ => {}
        }
    }
}

impl Store {
    pub(super) fn new() -> Self {
        Self {
            domain: format!("memory-{}", Incarnation::random()).into(),
            state: Mutex::default(),
        }
    }

    pub(super) fn domain(&self) -> Arc<str> {
        Arc::clone(&self.domain)
    }

    /// Whether this store once had a set at this position.
    pub(super) fn has_been_at(&self, position: &Revision) -> bool {
        position.domain() == &*self.domain && position.value() <= self.lock().revision
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic can come only after a change is complete.
        lock(&self.state)
    }

    pub(super) fn services(&self, now: Moment) -> Vec<ServiceName> {
        let mut state = self.lock();
        let names: Vec<_> = state.services.keys().cloned().collect();
        for name in &names {
            state.expire(name, now);
        }
        state
            .services
            .iter()
            .filter(|(_, service)| !service.records.is_empty())
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Signals each change of any service, with its revision.
    pub(super) fn all_changes(&self) -> watch::Receiver<u64> {
        self.lock().changed.subscribe()
    }

    /// When the next lease of any service ends.
    pub(super) fn next_end(&self) -> Option<Moment> {
        let state = self.lock();
        let records = state.services.values().flat_map(|one| one.records.values());
        records.map(|record| record.expires).min()
    }

    /// The set, with the ids withdrawn after the revision `since`.
    pub(super) fn snapshot(&self, service: &ServiceName, now: Moment, since: u64) -> Snapshot {
        let mut state = self.lock();
        state.expire(service, now);
        let revision = Revision::new(Arc::clone(&self.domain), state.revision);
        let Some(entry) = state.services.get(service) else {
            return Snapshot::new(service.clone(), revision, now, Vec::new());
        };
        let records = entry
            .records
            .values()
            .map(|record| (record.shown(), record.made))
            .collect();
        let withdrawn = entry
            .withdrawals
            .iter()
            .filter(|(at, id)| *at > since && !entry.records.contains_key(id))
            .map(|(_, id)| id.clone())
            .collect();
        Snapshot::ordered(service.clone(), revision, now, records).with_withdrawn(withdrawn)
    }

    /// Signals each change of a service, with the revision of the change.
    pub(super) fn changes(&self, service: &ServiceName) -> watch::Receiver<u64> {
        let mut state = self.lock();
        let forgotten = state.forgotten;
        state
            .services
            .entry(service.clone())
            .or_insert_with(|| Service::new(forgotten))
            .changed
            .subscribe()
    }

    /// The newest revision of the store, the revision of the service's last change, and when its next lease ends.
    pub(super) fn position(
        &self,
        service: &ServiceName,
        now: Moment,
    ) -> (Revision, u64, Option<Moment>) {
        let mut state = self.lock();
        state.expire(service, now);
        let entry = state.services.get(service);
        let changed_at = entry.map_or(0, |entry| entry.revision);
        let next_end =
            entry.and_then(|entry| entry.records.values().map(|record| record.expires).min());
        (
            Revision::new(Arc::clone(&self.domain), state.revision),
            changed_at,
            next_end,
        )
    }

    pub(super) fn forget(&self, service: &ServiceName) {
        self.lock().tidy(service);
    }

    pub(super) fn register(&self, instance: &Instance, ttl: Duration, now: Moment) -> Result<()> {
        let mut state = self.lock();
        state.expire(instance.service(), now);
        let revision = state.revision + 1;
        let entry = state
            .services
            .entry(instance.service().clone())
            .or_insert_with(|| Service::new(revision));
        let held = entry.records.get(instance.id());
        let is_other = |held: &&Record| held.instance.incarnation() != instance.incarnation();
        if let Some(held) = held.filter(is_other) {
            let error = Error::new(ErrorKind::Conflict, "memory: register");
            return Err(error.held_by(&*held.instance).because(format!(
                "{:?} of {:?} is already registered: use another id",
                instance.id(),
                instance.service()
            )));
        }
        let record = Record {
            instance: Arc::new(instance.clone()),
            made: held.map_or(revision, |held| held.made),
            ttl,
            expires: now + ttl,
            overridden: held.and_then(|held| held.overridden),
        };
        entry.records.insert(instance.id().clone(), record);
        entry.touch(revision);
        state.advance(revision);
        Ok(())
    }

    pub(super) fn renew(&self, record: &RecordId, now: Moment) -> Result<Renewed> {
        let mut state = self.lock();
        state.expire(&record.service, now);
        let held = state
            .services
            .get_mut(&record.service)
            .and_then(|service| service.owned(record));
        let held = held.ok_or_else(|| Error::new(ErrorKind::LeaseLost, "memory: renew"))?;
        held.expires = now + held.ttl;
        let liveness = Liveness::Lease { ttl: held.ttl };
        Ok(Renewed::new(liveness).with_override(held.overridden))
    }

    pub(super) fn update(&self, instance: &Instance, now: Moment) -> Result<()> {
        let lost = || Error::new(ErrorKind::LeaseLost, "memory: update");
        let mut state = self.lock();
        state.expire(instance.service(), now);
        let revision = state.revision + 1;
        let entry = state
            .services
            .get_mut(instance.service())
            .ok_or_else(lost)?;
        let held = entry.owned(&instance.record_id()).ok_or_else(lost)?;
        held.instance = Arc::new(instance.clone());
        entry.touch(revision);
        state.advance(revision);
        Ok(())
    }

    /// What an operator says of this incarnation's record. Readers see that.
    pub(super) fn set_override(
        &self,
        op: &'static str,
        record: &RecordId,
        wanted: Option<Override>,
        now: Moment,
    ) -> Result<()> {
        let mut state = self.lock();
        state.expire(&record.service, now);
        state.check_run(op, record)?;
        let revision = state.revision + 1;
        let gone = || no_such_record(op, record);
        let entry = state.services.get_mut(&record.service).ok_or_else(gone)?;
        entry.owned(record).ok_or_else(gone)?.overridden = wanted;
        entry.touch(revision);
        state.advance(revision);
        Ok(())
    }

    /// Removes this incarnation's record on purpose, for an operator.
    pub(super) fn remove_on_purpose(
        &self,
        op: &'static str,
        record: &RecordId,
        now: Moment,
    ) -> Result<()> {
        let mut state = self.lock();
        state.expire(&record.service, now);
        state.check_run(op, record)?;
        state.withdraw(record);
        Ok(())
    }

    /// Removes this incarnation's record on purpose.
    pub(super) fn withdraw(&self, record: &RecordId) {
        self.lock().withdraw(record);
    }

    /// Removes this incarnation's record as an operator would: readers are not told that it was on purpose.
    pub(super) fn remove(&self, record: &RecordId) -> bool {
        let mut state = self.lock();
        let revision = state.revision + 1;
        let Some(entry) = state.services.get_mut(&record.service) else {
            return false;
        };
        if entry.owned(record).is_none() {
            return false;
        }
        entry.records.remove(&record.id);
        entry.touch(revision);
        state.advance(revision);
        true
    }
}
