//! What processes want to have registered, and what keeps it true.
//!
//! Each registration has a task of its own, which holds a guard of `sd-core`: that one renews the record, and registers it again after any
//! failure of the registry. What is asked of one registration is done in the order in which it was asked.

mod closing;
mod comparing;
mod deregistering;
mod draining;
mod entry;
mod identity;
mod keeping;
mod left;
mod opening;
#[cfg(test)]
mod room_tests;
#[cfg(feature = "consul")]
mod routes;
mod settings;
mod shared;
mod table;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use sd_core::sync::lock;
use sd_core::{Endpoint, Error, ErrorKind, RecordId, Registry};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tracing::error;

pub use self::closing::{How, LAST_WRITE, Leftover};
use self::entry::Key;
pub use self::entry::{Caller, Entry, Refused, Selector, Stage};
pub use self::identity::Identity;
use self::keeping::{Command, Keeping};
#[cfg(feature = "consul")]
use self::left::Left;
use self::opening::replaces;
use self::settings::LONGEST_DRAIN;
pub use self::settings::Settings;
pub(crate) use self::settings::{check_ttl, is_loopback, is_of_one_link, is_shared};
use self::shared::Shared;
use self::table::{Parked, Slot, Table, Unconfirmed, View, unconfirmed};
use crate::daemon::store::{Store, bytes_of};
use crate::wire::{CheckKind, CheckSpec, CheckState, Declaration, in_hours};

/// So many registrations one caller may have in any case, if there is room for them.
const FEW: usize = 16;

/// The registrations of one agent. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registrations {
    shared: Arc<Shared>,
    /// How long a caller waits for the registry to confirm.
    confirm_within: Duration,
}

impl Registrations {
    /// None yet, at `registry`, with the default settings and nothing on disk.
    pub fn new(registry: Registry) -> Self {
        Self::with_settings(registry, Settings::default())
    }

    /// None yet, at `registry`, and nothing on disk. Must be called inside a tokio runtime if routes are to be told.
    pub fn with_settings(registry: Registry, settings: Settings) -> Self {
        let table = Table::new(settings.show_gone_for, settings.most_gone);
        let table = Arc::new(Mutex::new(table));
        let this = Self::of(Shared::new(registry, settings, table, None));
        #[cfg(feature = "consul")]
        this.tell_routes(&[]);
        this
    }

    fn of(shared: Shared) -> Self {
        Self {
            confirm_within: shared.settings.confirm_within,
            shared: Arc::new(shared),
        }
    }

    /// The same registrations, for callers who wait for `limit` in place of [`Settings::confirm_within`].
    #[must_use]
    pub fn confirming_within(&self, limit: Duration) -> Self {
        Self {
            confirm_within: limit,
            ..self.clone()
        }
    }

    /// Tells the routes of what is registered, if that is wanted and the registry is Consul, and takes back those of what was `left` by the
    /// agent before. Must be called inside a tokio runtime then.
    #[cfg(feature = "consul")]
    fn tell_routes(&self, left: &[Arc<Left>]) {
        let shared = &self.shared;
        if let Some(identity) = &shared.settings.identity
            && let Some(prefix) = &identity.routes
            && shared.registry.backend().name() == "consul"
        {
            let source = routes::Source {
                registry: shared.registry.clone(),
                table: Arc::clone(&shared.table),
                changes: shared.changes.subscribe(),
                prefix: prefix.clone(),
                verify_every: shared.settings.verify_routes_every,
                left: left.to_vec(),
                saver: shared.store.as_ref().map(Store::saver),
            };
            *lock(&shared.routes) = Some(routes::Telling::start(source));
        }
    }

    /// The registry.
    pub fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// What was lost with a damaged state at this start.
    pub fn state_damage(&self) -> Option<&str> {
        self.shared.store.as_ref()?.damage()
    }

    /// How many registrations were lost with it, at least 1 if it was damaged.
    pub fn state_lost(&self) -> usize {
        self.shared.store.as_ref().map_or(0, Store::lost)
    }

    /// Why the next agent would not know of all registrations, if the state cannot be written. Always `None` without state.
    pub fn state_trouble(&self) -> watch::Receiver<Option<Arc<str>>> {
        match &self.shared.store {
            Some(store) => store.trouble(),
            None => watch::channel(None).1,
        }
    }

    /// Registers, or replays the same declaration: then the entry is what it was, and a draining one of an earlier run leaves its drain.
    ///
    /// A declaration with the same id, or without an id and at the same address, changes the one that is there, and readers see no gap:
    /// the record changes in place, or another one takes its place and the old one is withdrawn after that. The latter is so if the
    /// declaration names an application, as in the reference system.
    ///
    /// Returns once the registry has the record as it is declared, or after [`Settings::confirm_within`]: then the entry says why, and the
    /// registration holds.
    ///
    /// # Errors
    /// `Invalid` for what can never work, `NotYours` if another caller or another application has it, `TooMany`, or `Registry` if the
    /// registry refuses it, or if the one before is still being withdrawn after [`Settings::confirm_within`]. Nothing is changed then.
    /// `Stopping` after [`close`](Self::close).
    ///
    /// # Cancel safety
    /// If the future is dropped, the registration holds, if it was begun.
    pub async fn register(
        &self,
        by: &Caller,
        mut declaration: Declaration,
    ) -> Result<Entry, Refused> {
        let settings = &self.shared.settings;
        Settings::check(&declaration)?;
        // Another process may have its id by the time that the next agent looks.
        let checks = declaration.checks.into_iter();
        declaration.checks = checks.map(of_this_process).collect();
        let endpoint = settings.endpoint(&self.shared.registry, &declaration)?;
        self.shared.check_ttl(&declaration)?;
        let key = Key::of(&declaration, &endpoint);
        let until = Instant::now() + self.confirm_within;
        loop {
            let slot = match self.find_or_begin(by, &declaration, &endpoint, &key)? {
                Found::New(slot) => return self.settled(&slot, 1, until).await,
                Found::Known(slot) => slot,
            };
            check_owner(by, &slot.view.borrow().entry, Some(&declaration))?;
            let before = bytes_of(&slot.view.borrow().stored.declaration);
            self.check_room(bytes_of(&declaration).saturating_sub(before))?;
            let (reply, answer) = oneshot::channel();
            let command = Command::Declare {
                declaration: Box::new(declaration.clone()),
                endpoint: endpoint.clone(),
                reply,
            };
            // One that is leaving takes no more commands: the next round begins another one.
            if slot.commands.send(command).await.is_ok()
                && let Ok(change) = answer.await
            {
                return self.settled(&slot, change?, until).await;
            }
            if timeout_at(until, over(&slot)).await.is_err() {
                let late = Error::new(ErrorKind::Timeout, "register");
                let why = "the registration before it is still being withdrawn: register again";
                return Err(late.because(why).into());
            }
        }
    }

    fn find_or_begin(
        &self,
        by: &Caller,
        declaration: &Declaration,
        endpoint: &Endpoint,
        key: &Key,
    ) -> Result<Found, Refused> {
        let mut table = lock(&self.shared.table);
        if table.is_closed {
            return Err(Refused::Stopping);
        }
        if let Some(slot) = table.get(key) {
            return Ok(Found::Known(Arc::clone(slot)));
        }
        let most = self.shared.settings.most_registrations;
        if table.len() >= most {
            return Err(Refused::TooMany(format!(
                "the agent holds {most} registrations and may hold no more: deregister some"
            )));
        }
        // One alone may have more, as long as there is room for others.
        let (count, most_of_one) = (table.count_of(by), (most / 4).max(FEW));
        if table.len() >= most / 2 && count >= most_of_one {
            return Err(Refused::TooMany(format!(
                "{count} registrations are of this caller, and half of the {most} that the agent may hold are there: deregister some, or \
                 see limits.registrations"
            )));
        }
        let growth = bytes_of(declaration);
        self.check_room(growth)?;
        let (by, declared) = (by.clone(), declaration.clone());
        let keeping = Keeping::begin(&self.shared, by, declared, endpoint, None)?;
        if let Some(store) = &self.shared.store {
            store.will_grow(growth);
        }
        Ok(Found::New(self.enter(&mut table, keeping)))
    }

    /// Refuses what would have the state on disk grow beyond what the next agent reads.
    fn check_room(&self, growth: u64) -> Result<(), Refused> {
        match &self.shared.store {
            Some(store) if growth > 0 && !store.has_room_for(growth) => {
                Err(Refused::TooMany(
                    "the state on disk would become larger than the next agent reads: declare less, or deregister what is large".to_owned(),
                ))
            }
            _ => Ok(()),
        }
    }

    fn enter(&self, table: &mut Table, keeping: Keeping) -> Arc<Slot> {
        let slot = Arc::clone(keeping.slot());
        {
            let entry = &slot.view.borrow().entry;
            table.forget(&entry.record);
            let is_replaced =
                |parked: &Parked| replaces(&entry.declaration, &entry.instance, &parked.stored);
            for parked in table.unpark(is_replaced) {
                let others = parked.stored.records();
                for record in others.filter(|record| *record != entry.record) {
                    self.shared.withdraw_unkept(record);
                }
            }
        }
        table.insert(keeping.key().clone(), Arc::clone(&slot));
        self.shared.save();
        self.shared.changed();
        let record = slot.view.borrow().entry.record.clone();
        let running = AssertUnwindSafe(keeping.run()).catch_unwind();
        self.shared.tasks.spawn(async move {
            if running.await.is_err() {
                let RecordId { service, id, .. } = record;
                error!(?service, instance = ?id, "a bug has ended this registration: its process must register again");
            }
        });
        slot
    }

    /// Waits until the registry has confirmed a change, and the disk has it.
    async fn settled(&self, slot: &Slot, change: u64, until: Instant) -> Result<Entry, Refused> {
        let mut seen = slot.view.subscribe();
        let refused = |view: &View| {
            let refused = view.refused.as_ref();
            refused
                .filter(|(refused, _)| *refused == change)
                .map(|(_, why)| why.clone())
        };
        let is_confirmed =
            |view: &View| view.confirmed >= change && view.entry.stage != Stage::Init;
        let is_settled =
            |view: &View| is_confirmed(view) || view.is_over || refused(view).is_some();
        let confirmed = async {
            let settled = timeout_at(until, seen.wait_for(is_settled)).await;
            // The sender lives as long as the slot.
            let view = match settled {
                Ok(Ok(view)) => view.clone(),
                _ => slot.view.borrow().clone(),
            };
            if let Some(why) = refused(&view) {
                return Err(why);
            }
            let mut entry = view.entry.clone();
            entry.is_confirmed = is_confirmed(&view);
            if !entry.is_confirmed {
                let limit = self.confirm_within;
                entry.error.get_or_insert_with(|| unconfirmed(limit));
            }
            Ok(entry)
        };
        let saved = async {
            if let Some(store) = &self.shared.store {
                store.saved().await;
            }
        };
        tokio::join!(confirmed, saved).0
    }

    /// Has readers see what is selected as not ready, and deregisters it after `grace`, 24 h at most. Draining again sets another
    /// deadline. Returns once the registry has it so, or after [`Settings::confirm_within`].
    ///
    /// # Errors
    /// `NotFound`, `NotYours` or `Invalid`; nothing is changed then. `Stopping` after [`close`](Self::close).
    ///
    /// # Cancel safety
    /// If the future is dropped, what was begun goes on.
    pub async fn drain(
        &self,
        by: &Caller,
        which: &Selector,
        grace: Duration,
    ) -> Result<Vec<Entry>, Refused> {
        self.drained(by, which, grace, false).await
    }

    /// As [`drain`](Self::drain), by an administrator who is not the owner: the owner's declaration again does not end it, unless it names
    /// another run than before, or changes something.
    ///
    /// # Errors
    /// As [`drain`](Self::drain).
    ///
    /// # Cancel safety
    /// As [`drain`](Self::drain).
    pub async fn drain_for(
        &self,
        owner: &Caller,
        which: &Selector,
        grace: Duration,
    ) -> Result<Vec<Entry>, Refused> {
        self.drained(owner, which, grace, true).await
    }

    async fn drained(
        &self,
        by: &Caller,
        which: &Selector,
        grace: Duration,
        by_administrator: bool,
    ) -> Result<Vec<Entry>, Refused> {
        if grace > LONGEST_DRAIN {
            return Err(Refused::Invalid(format!(
                "grace: {} is too long: at most 24h are allowed",
                in_hours(grace)
            )));
        }
        let drain = |reply| Command::Drain {
            grace,
            by_administrator,
            reply,
        };
        self.told(by, which, drain).await
    }

    /// A process says whether it wants calls, as the declaration's `ready` does. Nothing else changes. Returns once the registry has it so,
    /// or after [`Settings::confirm_within`].
    ///
    /// # Errors
    /// `NotFound` or `NotYours`; nothing is changed then. `Stopping` after [`close`](Self::close).
    ///
    /// # Cancel safety
    /// If the future is dropped, what was begun goes on.
    pub async fn set_ready(
        &self,
        by: &Caller,
        which: &Selector,
        ready: bool,
    ) -> Result<Vec<Entry>, Refused> {
        self.told(by, which, |reply| Command::Ready { ready, reply })
            .await
    }

    /// Tells all that are meant, and waits until each is so.
    async fn told(
        &self,
        by: &Caller,
        which: &Selector,
        command: impl Fn(oneshot::Sender<u64>) -> Command,
    ) -> Result<Vec<Entry>, Refused> {
        let until = Instant::now() + self.confirm_within;
        let mut told = Vec::new();
        for slot in self.owned(by, which)? {
            let (reply, answer) = oneshot::channel();
            if slot.commands.send(command(reply)).await.is_ok()
                && let Ok(change) = answer.await
            {
                told.push((slot, change));
            }
        }
        if told.is_empty() {
            return Err(if lock(&self.shared.table).is_closed {
                Refused::Stopping
            } else {
                which.not_found()
            });
        }
        let settling = told
            .iter()
            .map(|(slot, change)| self.settled(slot, *change, until));
        futures_util::future::join_all(settling)
            .await
            .into_iter()
            .collect()
    }

    /// A process says how it is, for its check with this name. Readers are told soon after.
    ///
    /// # Errors
    /// `NotFound` if there is no such registration, `NoCheck` if it has no such check, `NotYours`, or `Stopping` after [`close`](Self::close).
    pub fn beat(
        &self,
        by: &Caller,
        which: &Selector,
        check: &str,
        state: CheckState,
        output: &str,
    ) -> Result<Entry, Refused> {
        let mut beaten = None;
        for slot in self.owned(by, which)? {
            let checks = Arc::clone(&lock(&slot.checks));
            let beat = checks.beat(check, state, output);
            beat.map_err(|error| Refused::NoCheck(error.report().to_string()))?;
            // What was said counts already; the record follows.
            beaten.get_or_insert_with(|| Entry {
                health: checks.health().borrow().clone(),
                ..slot.entry()
            });
        }
        beaten.ok_or_else(|| which.not_found())
    }

    /// Those that are meant, if all of them are the caller's.
    fn owned(&self, by: &Caller, which: &Selector) -> Result<Vec<Arc<Slot>>, Refused> {
        let mut table = lock(&self.shared.table);
        if table.is_closed {
            return Err(Refused::Stopping);
        }
        let slots = table.selected(which);
        if slots.is_empty() {
            let is_gone = !table.gone(which).is_empty();
            return Err(if is_gone {
                which.already_gone()
            } else {
                which.not_found()
            });
        }
        for slot in &slots {
            check_owner(by, &slot.view.borrow().entry, None)?;
        }
        Ok(slots)
    }

    /// Those that are meant and wanted, or else those that are gone, the last ones first.
    pub(crate) fn selected(&self, which: &Selector) -> Vec<Entry> {
        let mut table = lock(&self.shared.table);
        let kept = table.selected(which);
        let mut wanted: Vec<Entry> = kept.iter().map(|slot| slot.entry()).collect();
        for parked in table.parked() {
            let entry = &parked.entry;
            if which.selects(entry) && wanted.iter().all(|other| other.record != entry.record) {
                wanted.push(entry.clone());
            }
        }
        if wanted.is_empty() {
            return table.gone(which);
        }
        wanted
    }

    /// All entries, also those that are gone, by service and id. One that was refused at the start of the agent and is left for the next
    /// one is at the stage `Init`, and its error says so.
    pub fn entries(&self) -> Vec<Entry> {
        table::entries(&self.shared.table)
    }

    /// One that is meant: one that is wanted, or else the last one that is gone.
    pub fn entry(&self, which: &Selector) -> Option<Entry> {
        self.selected(which).into_iter().next()
    }

    /// How many entries stand where, also those that are gone.
    pub fn stages(&self) -> BTreeMap<Stage, usize> {
        lock(&self.shared.table).stages()
    }

    /// How many of them have a change that the registry has not confirmed.
    pub(crate) fn unconfirmed(&self) -> Unconfirmed {
        lock(&self.shared.table).unconfirmed()
    }

    /// Counts the changes of any entry.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }
}

/// A check that never means another process than the one that has the id now. If there is none, no process is meant.
fn of_this_process(spec: CheckSpec) -> CheckSpec {
    let mut spec = spec.with_start_of_process();
    if let CheckKind::Pid { pid, started } = &mut spec.kind
        && started.is_none()
        && let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw)
        && test_kill_process(pid) == Err(Errno::SRCH)
    {
        // No process that can end began then.
        *started = Some(0);
    }
    spec
}

/// A registration under a key.
enum Found {
    New(Arc<Slot>),
    Known(Arc<Slot>),
}

/// Waits until a registration that takes no more commands has left the table.
async fn over(slot: &Slot) {
    // The sender lives as long as the slot.
    let _ = slot.view.subscribe().wait_for(|view| view.is_over).await;
}

/// Refuses what is another's.
fn check_owner(by: &Caller, entry: &Entry, new: Option<&Declaration>) -> Result<(), Refused> {
    let RecordId { service, id, .. } = &entry.record;
    if entry.owner != *by {
        return Err(Refused::NotYours(format!(
            "{id:?} of {service:?} was registered by another user of this agent, who alone can change it"
        )));
    }
    let app = |declaration: &Declaration| declaration.app.as_ref().map(|app| app.app_id.clone());
    if let (Some(old), Some(new)) = (app(&entry.declaration), new.and_then(app))
        && old != new
    {
        return Err(Refused::NotYours(format!(
            "{id:?} of {service:?} belongs to the application {old:?} and not to {new:?}: deregister it first"
        )));
    }
    Ok(())
}
