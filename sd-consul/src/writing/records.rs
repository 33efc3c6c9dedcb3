//! Our records at the agent: whose a record is, how it is written, and when readers see that.
//!
//! The agent overwrites the record of another holder without asking, and brings it into the catalog a moment later. So whose a record
//! is, is looked up before each write, unless only ours can be there, and each write waits until the catalog shows it.

use std::time::Duration;

use sd_core::port::no_such_record;
use sd_core::{
    Address, Error, ErrorKind, Incarnation, Instance, InstanceId, Printable, RecordId, Result,
    ServiceName,
};
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::client::Client;
use crate::codec::{Codec, HealthEntry, Service, ServiceDefinition, service_id};
use crate::config::check_kind::CheckKind;
use crate::health_check::{Health, State, check_id};
use crate::maintenance::Reason;

/// The catalog takes a few milliseconds, so it is looked at soon, and then less and less often.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Who holds an id at the agent.
#[derive(Debug)]
pub(crate) enum Holder {
    Free,
    Us(RecordState),
    /// Us, but the catalog does not list the record.
    Unlisted(RecordState),
    /// Another run, or something that is no record of ours.
    Other(Other),
}

/// What else than our record has the id.
#[derive(Debug)]
pub(crate) struct Other {
    /// `None` for what is no record of ours.
    pub(crate) run: Option<sd_core::Holder>,
    alive: bool,
    state: RecordState,
}

impl Other {
    /// Whether it is the record of a run that has ended. What another program registered is its own, however its checks are: Consul
    /// keeps the checks of the service before, so that the critical one may be ours.
    pub(crate) fn has_ended(&self) -> bool {
        self.run.is_some() && !self.alive
    }

    /// The node of the agent that has it.
    pub(crate) fn node(&self) -> Option<&str> {
        self.state.node.as_deref()
    }

    /// The refusal of another run.
    pub(crate) fn conflict(&self, op: &'static str, id: &InstanceId) -> Error {
        let conflict = Error::new(ErrorKind::Conflict, op);
        match &self.run {
            Some(run) => conflict.held_by(run.clone()).because(format!(
                "the id {id} is taken: give this instance another id, or wait until that one is gone"
            )),
            None => conflict.because(format!(
                "the id {id} is held by a service that is not one of our records: give this instance another id, or remove that service"
            )),
        }
    }

    /// The run that the record belonged to, if that was at the TCP address of `instance`.
    fn run_at(&self, instance: &Instance) -> Option<&sd_core::Holder> {
        let is_tcp = matches!(instance.endpoint().address(), Address::Tcp { .. });
        let at_address = |run: &&sd_core::Holder| run.endpoint == *instance.endpoint();
        self.run.as_ref().filter(|_| is_tcp).filter(at_address)
    }
}

/// How our record is.
#[derive(Clone, Debug)]
pub(crate) struct RecordState {
    /// What its check says; `None` without one.
    check: Option<State>,
    /// Why it is in maintenance mode, if it is.
    pub(crate) maintenance: Option<Reason>,
    /// The agent's node, if the record has a check.
    node: Option<String>,
}

/// The agent's records.
#[derive(Debug)]
pub(crate) struct Records<'a> {
    pub(crate) client: &'a Client,
    pub(crate) op: &'static str,
}

impl Records<'_> {
    /// Looks up who holds the record's id.
    pub(crate) async fn holder(&self, record: &RecordId) -> Result<Holder> {
        let id = service_id(&record.service, &record.id);
        let Some(found) = self.client.agent_service(self.op, &id).await? else {
            return Ok(Holder::Free);
        };
        let run = found.service.run_of(&record.service);
        let state = RecordState {
            check: Health::of_check(&found.checks, &check_id(&id)),
            maintenance: Reason::of(&found.checks, &id),
            node: found.checks.first().map(|check| check.node.clone()),
        };
        if run.as_ref().is_some_and(|run| is_of(record, run)) {
            return Ok(Holder::Us(state));
        }
        Ok(Holder::Other(Other {
            run: run_in(&found.service, &record.service),
            alive: Health::of(&found.checks).state < State::Critical,
            state,
        }))
    }

    /// Makes ours the record of another run whose address we serve now. Its record lives on the agent's check of that address, which
    /// would find it alive for ever. The catalog gives it to one successor: it compares the index at which the run was found. Returns
    /// what the agent has until then; `None` if the record belongs to another run.
    pub(crate) async fn succeed(
        &self,
        other: &Other,
        definition: &ServiceDefinition,
        instance: &Instance,
    ) -> Result<Option<Holder>> {
        let Some(run) = other.run_at(instance) else {
            return Ok(None);
        };
        let service = instance.service();
        let read = self
            .client
            .entries_with_id(self.op, service, &definition.id)
            .await?;
        let entries = read.unwrap_or_default();
        // Only one agent has this run, unless its process spoke to several.
        let [entry] = entries.as_slice() else {
            return Ok(None);
        };
        let found = entry.service.run_of(service);
        let is_found = found.is_some_and(|(_, incarnation)| incarnation == run.incarnation);
        // The agent itself does not tell the kinds of its checks.
        if !is_found || !Health::is_probed(&entry.checks, &check_id(&definition.id)) {
            return Ok(None);
        }
        let record = definition.in_place_of(entry.service.modify_index);
        let node = &entry.node.name;
        let replaced = self
            .client
            .replace_in_catalog(self.op, node, &record)
            .await?;
        Ok(replaced.then(|| Holder::Us(other.state.clone())))
    }

    /// Removes what earlier runs that crashed have left at the address of `instance`, whose record is listed. Their records live on the
    /// agent's checks of that address, which find this run there, so they would stay for ever. As with a fixed id, each goes only if it
    /// still is as it was found, and only at our own agent. Ids that users chose are left alone: they stand for instances of their own.
    pub(crate) async fn remove_remnants(&self, instance: &Instance) -> Result<()> {
        let (op, client, service) = (self.op, self.client, instance.service());
        let endpoint = instance.endpoint();
        let Address::Tcp { host, port } = endpoint.address() else {
            return Ok(());
        };
        if !instance.id_holds_incarnation() {
            return Ok(());
        }
        let read = client.entries_at(op, service, host, port).await?;
        let entries = read.unwrap_or_default();
        let record = instance.record_id();
        let Some(own) = entries.iter().find(|entry| is_ours(&record, entry)) else {
            return Ok(());
        };
        let is_remnant = |entry: &&HealthEntry| {
            let Some((id, incarnation)) = entry.service.run_of(service) else {
                return false;
            };
            let run = Instance::of_run(service.clone(), id, incarnation, endpoint.clone());
            entry.node.name == own.node.name
                && entry.service.create_index < own.service.create_index
                && run.id_holds_incarnation()
                && Health::is_probed(&entry.checks, &check_id(&entry.service.id))
        };
        for entry in entries.iter().filter(is_remnant) {
            let (node, found) = (&entry.node.name, &entry.service);
            if client.remove_from_catalog(op, node, found).await? {
                debug!(id = %Printable(&found.id), "removed what an earlier run has left");
                client.remove_service(op, &found.id).await?;
            }
        }
        Ok(())
    }

    /// Fails if the agent has a service whose id differs only in case: each would replace the other in the catalog.
    ///
    /// # Errors
    /// `Conflict` names the other id.
    pub(crate) async fn check_case(&self, record: &RecordId) -> Result<()> {
        let id = service_id(&record.service, &record.id);
        match self.client.id_of_other_case(self.op, &id).await? {
            None => Ok(()),
            Some(other) => Err(Error::new(ErrorKind::Conflict, self.op).because(format!(
                "the agent has a service with the id {other:?}, and Consul ignores case: give the instance {:?} an id that differs in more",
                record.id
            ))),
        }
    }

    /// Fails if the catalog lists another living run under the record's id at another agent, or an instance whose service's name differs
    /// only in case. Looked up before the record is written, so that the second holder of an id is never seen. `here` is the node of our
    /// agent, if that is known.
    ///
    /// What the catalog lists at our own agent does not count: the agent has been asked, and the catalog lags a moment behind it. If
    /// the node of our agent is unknown, only what stays there counts.
    ///
    /// # Errors
    /// `Conflict` names the holder or its node.
    pub(crate) async fn check_elsewhere(
        &self,
        record: &RecordId,
        here: Option<&str>,
    ) -> Result<()> {
        let id = service_id(&record.service, &record.id);
        let mut pause = FIRST_PAUSE;
        let mut here = here.map(str::to_owned);
        let mut is_here_asked = here.is_some();
        loop {
            let read = self.client.entries_with_id(self.op, &record.service, &id);
            let entries = read.await?.unwrap_or_default();
            let others = || {
                let all = entries.iter();
                all.filter(|entry| !is_ours(record, entry) && is_alive(entry))
            };
            if others().next().is_none() {
                return Ok(());
            }
            if !std::mem::replace(&mut is_here_asked, true) {
                let own = self.client.agent_node(self.op).await?;
                here = own.map(|own| own.name);
            }
            let is_elsewhere = |entry: &&HealthEntry| {
                let is_other_name = entry.other_name(&record.service).is_some();
                is_other_name || here.as_deref() != Some(&entry.node.name)
            };
            let Some(other) = others().find(is_elsewhere) else {
                return Ok(());
            };
            if here.is_some() || pause > LONGEST_PAUSE {
                return Err(self.held_elsewhere(record, other));
            }
            sleep(pause).await;
            pause *= 2;
        }
    }

    /// The refusal of what another agent has.
    fn held_elsewhere(&self, record: &RecordId, other: &HealthEntry) -> Error {
        let why = match other.other_name(&record.service) {
            Some(name) => format!(
                "Consul ignores case, and the service {:?} is registered as {name:?} at the node {:?}: use that name",
                record.service, other.node.name
            ),
            None => format!(
                "the id {:?} is already registered at the node {:?}: give this instance another id, or wait until that one is gone",
                record.id, other.node.name
            ),
        };
        let error = Error::new(ErrorKind::Conflict, self.op).because(why);
        match run_in(&other.service, &record.service) {
            Some(run) => error.held_by(run),
            None => error,
        }
    }

    /// Whether the catalog, from which readers read, lists our record in this state. Scripts that clean up remove records there alone,
    /// and the agent brings them back only when it next compares everything, after a minute or two.
    pub(crate) async fn is_listed(&self, record: &RecordId, state: &RecordState) -> Result<bool> {
        let Some(node) = &state.node else {
            return Ok(true);
        };
        let check = check_id(&service_id(&record.service, &record.id));
        self.client.lists_check(self.op, node, &check).await
    }

    /// Our record, if it is there and alive.
    ///
    /// # Errors
    /// `NotFound`, `LeaseLost` or `Conflict` if not.
    pub(crate) async fn ours(&self, record: &RecordId) -> Result<RecordState> {
        let lost = |kind, why: String| Err(Error::new(kind, self.op).because(why));
        let id = &record.id;
        match self.holder(record).await? {
            Holder::Free => lost(
                ErrorKind::NotFound,
                format!(
                    "{id} is no longer at the agent: it was removed, or the agent lost its data"
                ),
            ),
            Holder::Other(Other { run: Some(run), .. }) => {
                let error = Error::new(ErrorKind::Conflict, self.op).held_by(run);
                Err(error.because(format!("{id} was taken over")))
            }
            Holder::Other(_) => lost(
                ErrorKind::Conflict,
                format!("{id} was taken over by a service that is not one of our records"),
            ),
            Holder::Us(RecordState { check: None, .. }) => lost(
                ErrorKind::NotFound,
                format!("the check of {id} was removed"),
            ),
            Holder::Us(RecordState {
                check: Some(State::Critical),
                ..
            }) if self.is_kept_by_us() => lost(
                ErrorKind::LeaseLost,
                format!(
                    "the check of {id} is critical: it was not renewed in time, or an operator failed it"
                ),
            ),
            Holder::Us(state) | Holder::Unlisted(state) => Ok(state),
        }
    }

    /// Whether the record lives on our renewals, and not on what the agent finds out by itself.
    pub(crate) fn is_kept_by_us(&self) -> bool {
        self.client.config().check == CheckKind::Ttl
    }

    /// Whether our record has ended, though the agent still has it.
    pub(crate) fn is_over(&self, state: &RecordState) -> bool {
        match state.check {
            None => true,
            Some(check) => check == State::Critical && self.is_kept_by_us(),
        }
    }

    /// Writes the record over what is there. Says whether what an operator said of the record was dropped.
    pub(crate) async fn write(
        &self,
        definition: &ServiceDefinition,
        instance: &Instance,
        before: &Holder,
    ) -> Result<bool> {
        let (client, op, id) = (self.client, self.op, definition.id.as_str());
        let known = match before {
            Holder::Us(state) | Holder::Unlisted(state) => Some(state),
            _ => None,
        };
        let now = known.and_then(|state| state.maintenance.as_ref());
        // What was said of a record that has ended says nothing of the one that is written in its place.
        let is_over = known.is_some_and(|state| self.is_over(state));
        let is_dropped = is_over && matches!(now, Some(Reason::Override(_)));
        let wanted = Reason::wanted(instance, now.filter(|_| !is_dropped));
        if matches!(before, Holder::Unlisted(_)) {
            // To the agent, the same record again is no change that it would bring into the catalog.
            client.remove_service(op, id).await?;
            let Some(reason) = &wanted else {
                client.put_service(op, definition).await?;
                return self.begin(id).await.map(|()| is_dropped);
            };
            client.put_service(op, &definition.critical()).await?;
            client.set_maintenance(op, id, Some(reason)).await?;
            return self.begin(id).await.map(|()| is_dropped);
        }
        let changed = now != wanted.as_ref();
        // It must get no more calls before it looks different, nor before it looks as it should.
        if let (true, Some(reason)) = (known.is_some() && changed, &wanted) {
            if now.is_some() {
                client.replace_maintenance(op, id, reason).await?;
            } else {
                client.set_maintenance(op, id, Some(reason)).await?;
            }
        }
        client.put_service(op, definition).await?;
        let is_due = match (known, &wanted) {
            (Some(_), Some(_)) => false,
            (Some(_), None) => {
                changed && (is_dropped || self.may_end_maintenance(instance).await?)
            }
            (None, _) => changed,
        };
        if is_due {
            client.set_maintenance(op, id, wanted.as_ref()).await?;
        }
        self.begin(id).await?;
        Ok(is_dropped)
    }

    /// Passes the check of a record that was written. One that was there before goes on as it was, and that of a record that is not ready
    /// begins as critical. Also, an agent that is restarted knows of a pass, but not how a check began.
    async fn begin(&self, service_id: &str) -> Result<()> {
        if !self.is_kept_by_us() {
            return Ok(());
        }
        self.client.pass_check(self.op, service_id).await
    }

    /// Whether the maintenance mode is still one that the record's owner ends. An operator may have overridden it since it was read, and
    /// the agent ends it for any reason.
    async fn may_end_maintenance(&self, instance: &Instance) -> Result<bool> {
        let Holder::Us(now) = self.holder(&instance.record_id()).await? else {
            return Ok(false);
        };
        Ok(Reason::wanted(instance, now.maintenance.as_ref()).is_none())
    }

    /// Returns when the catalog shows the record, with or without what an operator says of it; without if that was dropped.
    ///
    /// # Errors
    /// `Conflict` if it shows that another run held the id before, at another agent, or that the service has another name before,
    /// which differs only in case.
    pub(crate) async fn until_visible(&self, instance: &Instance, is_dropped: bool) -> Result<()> {
        let record = instance.record_id();
        self.until(&record, |entries| {
            // More than one if the process spoke to another agent before.
            let ours = || entries.iter().filter(|entry| is_ours(&record, entry));
            let since = ours().map(|entry| entry.service.create_index).min();
            // While ours is not listed, another one may be what it replaces.
            let other = entries.iter().find(|entry| {
                !is_ours(&record, entry)
                    && since.is_some_and(|since| entry.service.create_index < since)
                    && is_alive(entry)
            });
            if let Some(other) = other {
                return Err(self.held_elsewhere(&record, other));
            }
            Ok(ours().any(|entry| self.shows(entry, instance, is_dropped)))
        })
        .await
    }

    /// Returns when the catalog shows the record in the maintenance mode that the agent has for it, and says why it is in it. That need
    /// not be what was written: several may change it at once.
    ///
    /// # Errors
    /// `NotFound` if the record is gone meanwhile.
    pub(crate) async fn until_maintained(&self, record: &RecordId) -> Result<Option<Reason>> {
        let reading = async {
            let mut pause = FIRST_PAUSE;
            loop {
                let entries = self.look(record, &mut pause).await?;
                // The agent after the catalog: so what both say was not written away in between.
                let Holder::Us(RecordState { maintenance, .. }) = self.holder(record).await? else {
                    return Err(no_such_record(self.op, record));
                };
                let is_shown = entries.is_none_or(|entries| {
                    let mut ours = entries.iter().filter(|entry| is_ours(record, entry));
                    ours.any(|entry| Reason::of(&entry.checks, &entry.service.id) == maintenance)
                });
                if is_shown {
                    return Ok(maintenance);
                }
            }
        };
        self.within_limit(reading).await
    }

    /// Returns when the catalog does not show the record as alive.
    pub(crate) async fn until_gone(&self, record: &RecordId) -> Result<()> {
        self.until(record, |entries| {
            let mut ours = entries.iter().filter(|entry| is_ours(record, entry));
            Ok(!ours.any(is_alive))
        })
        .await
    }

    /// Reads the entries with the record's id until they are as wanted. Without the right to see them, the agent's word must do.
    async fn until(
        &self,
        record: &RecordId,
        wanted: impl Fn(&[HealthEntry]) -> Result<bool>,
    ) -> Result<()> {
        let reading = async {
            let mut pause = FIRST_PAUSE;
            while let Some(entries) = self.look(record, &mut pause).await? {
                if wanted(&entries)? {
                    break;
                }
            }
            Ok(())
        };
        self.within_limit(reading).await
    }

    /// Reads the entries with the record's id after a pause, which grows. `None` if we may not see them. A blocking query would wake up
    /// for every other instance of the service, too.
    async fn look(
        &self,
        record: &RecordId,
        pause: &mut Duration,
    ) -> Result<Option<Vec<HealthEntry>>> {
        sleep(*pause).await;
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        let id = service_id(&record.service, &record.id);
        let read = self.client.entries_with_id(self.op, &record.service, &id);
        let read = read.await?;
        if read.is_none() {
            debug!("the token may not read what was written");
        }
        Ok(read)
    }

    async fn within_limit<T>(&self, reading: impl Future<Output = Result<T>>) -> Result<T> {
        let limit = self.client.config().request_timeout;
        timeout(limit, reading).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, self.op).because(format!(
                "the agent accepted the write, but the catalog did not show it within {limit:?}"
            )))
        })
    }

    fn shows(&self, entry: &HealthEntry, instance: &Instance, is_dropped: bool) -> bool {
        if self.is_kept_by_us()
            && Health::of_check(&entry.checks, &check_id(&entry.service.id)) != Some(State::Passing)
        {
            return false;
        }
        let maintenance = Reason::of(&entry.checks, &entry.service.id);
        let stays = maintenance.as_ref().filter(|_| !is_dropped);
        let is_as_wanted = maintenance == Reason::wanted(instance, stays);
        let read = Codec::verbatim().decode(instance.service(), entry.clone());
        // An operator's maintenance mode is none of ours.
        let read = read
            .ok()
            .flatten()
            .map(|read| read.with_override(None).with_ready(instance.is_ready()));
        is_as_wanted && read.as_ref() == Some(instance)
    }
}

fn is_of(record: &RecordId, (id, incarnation): &(InstanceId, Incarnation)) -> bool {
    *id == record.id && *incarnation == record.incarnation
}

/// The run whose record this is, and its address; `None` for what is no record of ours.
pub(crate) fn run_in(found: &Service, service: &ServiceName) -> Option<sd_core::Holder> {
    let (_, incarnation) = found.run_of(service)?;
    let endpoint = found.own_endpoint().ok()?;
    Some(sd_core::Holder::new(endpoint, incarnation))
}

fn is_ours(record: &RecordId, entry: &HealthEntry) -> bool {
    let run = entry.service.run_of(&record.service);
    run.is_some_and(|run| is_of(record, &run))
}

fn is_alive(entry: &HealthEntry) -> bool {
    Health::of(&entry.checks).state < State::Critical
}
