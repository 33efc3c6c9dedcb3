//! The task behind one registration: what is declared, what its checks say and when it is to leave become the record that sd-core
//! keeps at the registry.

mod declaring;
mod leave;
mod reacting;

use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use sd_core::clock::Moment;
use sd_core::{
    Endpoint, Events, Instance, RecordId, RegistrationEvent, RegistrationGuard, RegistrationPhase,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use self::leave::Leave;
use self::reacting::Happened;
pub(super) use self::reacting::unwithdrawn;
use super::entry::{Caller, Entry, Key, Refused, Stage};
use super::shared::Shared;
use super::table::{Slot, View};
use crate::checks::Health;
use crate::daemon::store::{Drain, Stored};
use crate::wire::Declaration;

/// What the task of a registration is asked.
#[derive(Debug)]
pub(crate) enum Command {
    /// To be as this declaration says. Answers the number of the change.
    Declare {
        declaration: Box<Declaration>,
        endpoint: Endpoint,
        reply: oneshot::Sender<Result<u64, Refused>>,
    },
    /// To have no new calls, and to leave after `grace`. Answers the number of the change.
    Drain {
        grace: Duration,
        by_administrator: bool,
        reply: oneshot::Sender<u64>,
    },
    /// To want calls or none. Answers the number of the change.
    Ready {
        ready: bool,
        reply: oneshot::Sender<u64>,
    },
    /// To leave. Answers when it is gone, or after `within`.
    Deregister {
        within: Duration,
        reply: oneshot::Sender<Entry>,
    },
}

/// Commands that the task has not taken yet.
const MOST_COMMANDS: usize = 16;
/// Before a registration that sd-core has given up, or a change that could not be sent, is tried again.
const SLOW_RETRY: Duration = Duration::from_secs(30);
const CHANGE_RETRY: Duration = Duration::from_secs(1);
/// Records of former agents that one registration takes the place of.
const MOST_REPLACED: usize = 16;

/// The guard of a record, and what happens to it.
struct Held {
    guard: RegistrationGuard,
    events: Events<RegistrationEvent>,
    /// The change that it was made with.
    made_with: u64,
    /// Whether it is ready, as the registry has confirmed it last.
    is_ready: bool,
    /// The update in flight.
    sending: Option<Sending>,
    /// sd-core keeps it no more.
    is_over: bool,
}

/// An update that was sent. It is kept while other things happen: a dropped update is still applied, and its event would cancel the next one.
struct Sending {
    change: u64,
    instance: Instance,
    answer: Pin<Box<dyn Future<Output = sd_core::Result<()>> + Send>>,
}

impl Sending {
    /// What became of the update, if there is one. Cancel-safe.
    async fn answered(sending: &mut Option<Self>) -> sd_core::Result<()> {
        match sending {
            Some(sending) => sending.answer.as_mut().await,
            None => pending().await,
        }
    }
}

/// When a registration leaves.
#[derive(Clone, Copy)]
struct Leaving {
    at: Moment,
    told: Drain,
}

impl Leaving {
    fn of(shared: &Shared, told: Drain) -> Self {
        Self {
            at: shared.deadline(&told),
            told,
        }
    }
}

/// How it was before a change that is not confirmed yet.
struct Before {
    declaration: Declaration,
    declared_ready: bool,
    endpoint: Endpoint,
    dressed: Instance,
}

pub(crate) struct Keeping {
    shared: Arc<Shared>,
    key: Key,
    slot: Arc<Slot>,
    commands: mpsc::Receiver<Command>,
    owner: Caller,
    declaration: Declaration,
    /// What the declaration said of `ready`, which may have been said otherwise since.
    declared_ready: bool,
    endpoint: Endpoint,
    /// The instance as it is declared, whatever its checks say.
    dressed: Instance,
    held: Held,
    /// The record that this one takes the place of, until this one is at the registry.
    previous: Option<RegistrationGuard>,
    /// The same, for those that an agent before has registered, and that are not kept.
    left_behind: Vec<RecordId>,
    health: watch::Receiver<Health>,
    /// The number of the newest change.
    change: u64,
    confirmed: u64,
    refused: Option<(u64, Refused)>,
    before: Option<Before>,
    leaving: Option<Leaving>,
    registered_at: SystemTime,
    updated_at: SystemTime,
    error: Option<String>,
    /// How often there has been an error where there was none.
    troubles: u64,
    retry_at: Option<Moment>,
    /// What is kept on disk is no longer what it should be.
    is_unsaved: bool,
    /// Another run of the agent has made it.
    is_resumed: bool,
}

/// What happened next.
enum Step {
    Stop,
    /// The registry has answered to the update that was sent.
    Applied(sd_core::Result<()>),
    Event(Option<RegistrationEvent>),
    Command(Command),
    Health,
    Deadline,
    Retry,
    /// The agent ends, and sd-core keeps the record no more.
    Closing,
}

/// What is kept of a registration that another run of the agent has made.
pub(crate) struct Past {
    pub(crate) instance: Instance,
    pub(crate) declared_ready: bool,
    pub(crate) drain: Option<Drain>,
    pub(crate) replaces: Vec<RecordId>,
    pub(crate) passing: bool,
    pub(crate) registered_at: SystemTime,
    pub(crate) updated_at: SystemTime,
}

impl Keeping {
    /// Begins to register, in the background.
    ///
    /// # Errors
    /// Why that can never succeed. Then nothing was begun.
    pub(crate) fn begin(
        shared: &Arc<Shared>,
        owner: Caller,
        declaration: Declaration,
        endpoint: &Endpoint,
        past: Option<Past>,
    ) -> Result<Self, Refused> {
        let now = SystemTime::now();
        let registered_at = past.as_ref().map_or(now, |past| past.registered_at);
        let updated_at = past.as_ref().map_or(now, |past| past.updated_at);
        let drain = past.as_ref().and_then(|past| past.drain);
        let is_resumed = past.is_some();
        let declared_ready = past
            .as_ref()
            .map_or(declaration.ready, |past| past.declared_ready);
        // What was well at another address may not be at this one.
        let was_passing = past
            .as_ref()
            .is_some_and(|past| past.passing && past.instance.endpoint() == endpoint);
        let (dressed, left_behind) = match past {
            Some(past) => again(shared, past, &declaration, endpoint)?,
            None => (
                shared.new_instance(&declaration, endpoint, now)?,
                Vec::new(),
            ),
        };
        let checks =
            shared.start_checks(&owner, &declaration.checks, dressed.endpoint(), was_passing)?;
        let health = checks.health();
        let leaving = drain.map(|told| Leaving::of(shared, told));
        let is_ready = declaration.ready && health.borrow().passing && leaving.is_none();
        let dressed = dressed.with_ready(true);
        let guard = shared.register(dressed.clone().with_ready(is_ready), declaration.ttl)?;
        let held = Held::new(guard, 1);
        let (sender, commands) = mpsc::channel(MOST_COMMANDS);
        let stored = Arc::new(Stored {
            owner: owner.0.to_string(),
            declaration: declaration.clone(),
            instance: dressed.clone(),
            declared_ready: Some(declared_ready),
            passing: health.borrow().passing,
            drain,
            replaces: left_behind.clone(),
            registered_at,
            updated_at,
            unread: None,
        });
        let entry = Entry {
            declaration: declaration.clone(),
            owner: owner.clone(),
            record: dressed.record_id(),
            instance: held.guard.instance(),
            stage: if leaving.is_some() {
                Stage::Draining
            } else {
                Stage::Init
            },
            registered_at,
            updated_at,
            drain_deadline: drain.map(|drain| drain.deadline),
            health: health.borrow().clone(),
            overridden: None,
            is_confirmed: false,
            error: None,
            troubles: 0,
        };
        let slot = Slot {
            commands: sender,
            confirm_within: shared.settings.confirm_within,
            view: watch::Sender::new(View {
                entry,
                confirmed: 0,
                unconfirmed_since: Some(Instant::now()),
                refused: None,
                stored,
                was_seen: is_resumed,
                is_over: false,
            }),
            checks: Mutex::new(Arc::new(checks)),
        };
        Ok(Self {
            shared: Arc::clone(shared),
            key: Key::of(&declaration, endpoint),
            slot: Arc::new(slot),
            commands,
            owner,
            endpoint: dressed.endpoint().clone(),
            declaration,
            declared_ready,
            dressed,
            held,
            previous: None,
            left_behind,
            health,
            change: 1,
            confirmed: 0,
            refused: None,
            before: None,
            leaving,
            registered_at,
            updated_at,
            error: None,
            troubles: 0,
            retry_at: None,
            is_unsaved: false,
            is_resumed,
        })
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    pub(crate) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    /// Keeps the registration until it is to leave.
    pub(crate) async fn run(mut self) {
        let leave = Leave {
            shared: Arc::clone(&self.shared),
            key: self.key.clone(),
            slot: Arc::clone(&self.slot),
            stays: false,
        };
        loop {
            self.publish();
            match self.next().await {
                Step::Closing if self.shared.keeps_records() => {
                    self.slot.view.send_modify(|view| view.is_over = true);
                    leave.not();
                    return;
                }
                // What closes the agent says how long that may take.
                Step::Stop | Step::Closing => {
                    self.deregister(None).await;
                    return;
                }
                Step::Deadline => {
                    self.deregister_in_time().await;
                    return;
                }
                // The next agent is the one to ask: what is on disk for it must not change any more.
                Step::Command(_) if self.shared.keeps_records() => {}
                Step::Command(Command::Deregister { within, reply }) => {
                    let entry = self.deregister(Some(within)).await;
                    drop(leave);
                    // The caller may have let go.
                    let _ = reply.send(entry);
                    return;
                }
                Step::Command(Command::Declare {
                    declaration,
                    endpoint,
                    reply,
                }) => {
                    let change = self.declare(*declaration, endpoint);
                    self.publish();
                    let _ = reply.send(change);
                }
                Step::Command(Command::Drain {
                    grace,
                    by_administrator,
                    reply,
                }) => {
                    let change = self.drain(grace, by_administrator);
                    self.publish();
                    let _ = reply.send(change);
                }
                Step::Command(Command::Ready { ready, reply }) => {
                    let change = self.set_ready(ready);
                    self.publish();
                    let _ = reply.send(change);
                }
                Step::Applied(done) => {
                    if let Some(sent) = self.held.sending.take() {
                        self.applied(sent.change, sent.instance.is_ready(), done);
                    }
                }
                Step::Event(event) => match self.happened(event) {
                    Happened::Goes => {}
                    Happened::Hopeless => {
                        self.publish();
                        self.deregister_in_time().await;
                        return;
                    }
                    // If the agent ends, that is what comes next.
                    Happened::Ended => self.retry_after(SLOW_RETRY),
                },
                Step::Health => self.judged(),
                Step::Retry => self.retry(),
            }
        }
    }

    /// Waits for what happens next, and has the registry confirm what is not confirmed yet.
    async fn next(&mut self) -> Step {
        let clock = Arc::clone(&self.shared.registry.config().clock);
        let at = |at: Option<Moment>| {
            let clock = Arc::clone(&clock);
            async move {
                match at {
                    Some(at) => clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            }
        };
        let change = self.change;
        let is_unsent = change > self.confirmed && change > self.held.made_with;
        let applies = is_unsent && !self.held.is_over && self.retry_at.is_none();
        if applies {
            let wanted = self.wanted();
            // A check that turns again is no new change while sd-core has not taken up the last one.
            let is_sent = |sent: &Sending| sent.change == change && sent.instance == wanted;
            if !self.held.sending.as_ref().is_some_and(is_sent) {
                let instance = wanted.clone();
                self.held.sending = Some(Sending {
                    change,
                    instance: wanted,
                    answer: Box::pin(self.held.guard.update(move |_| instance)),
                });
            }
        }
        tokio::select! {
            biased;
            () = self.shared.stop.cancelled() => Step::Stop,
            done = Sending::answered(&mut self.held.sending), if applies => Step::Applied(done),
            event = self.held.events.next(), if !self.held.is_over => Step::Event(event),
            () = self.shared.closing.cancelled(), if self.held.is_over => Step::Closing,
            Some(command) = self.commands.recv() => Step::Command(command),
            Ok(()) = self.health.changed() => Step::Health,
            () = at(self.leaving.map(|leaving| leaving.at)) => Step::Deadline,
            () = at(self.retry_at) => Step::Retry,
        }
    }

    /// The instance as the registry should have it.
    fn wanted(&self) -> Instance {
        let is_well = self.health.borrow().passing;
        let is_ready = self.declaration.ready && is_well && self.leaving.is_none();
        self.dressed.clone().with_ready(is_ready)
    }

    fn stage(&self) -> Stage {
        if self.leaving.is_some() {
            return Stage::Draining;
        }
        let guard = &self.held.guard;
        let said = guard.overridden().map(sd_core::Override::is_ready);
        let is_ready = said.unwrap_or(self.held.is_ready);
        match is_ready {
            _ if !self.is_at_registry() => Stage::Init,
            true => Stage::Serving,
            false => Stage::Registered,
        }
    }

    fn is_at_registry(&self) -> bool {
        let phase = self.held.guard.phase();
        matches!(
            phase,
            RegistrationPhase::Registered | RegistrationPhase::AtRisk
        )
    }

    /// The records that go once this one is at the registry.
    fn replaces(&self) -> Vec<RecordId> {
        let previous = self.previous.iter().map(RegistrationGuard::record_id);
        let left_behind = self.left_behind.iter();
        left_behind.chain(previous).cloned().collect()
    }

    /// Shows how it is now.
    fn publish(&mut self) {
        let had_error = self.slot.view.borrow().entry.error.is_some();
        self.troubles += u64::from(self.error.is_some() && !had_error);
        let entry = Entry {
            declaration: self.declaration.clone(),
            owner: self.owner.clone(),
            record: self.dressed.record_id(),
            instance: self.held.guard.instance(),
            stage: self.stage(),
            registered_at: self.registered_at,
            updated_at: self.updated_at,
            drain_deadline: self.leaving.map(|leaving| leaving.told.deadline),
            health: self.health.borrow().clone(),
            overridden: self.held.guard.overridden(),
            is_confirmed: self.confirmed >= self.change && self.is_at_registry(),
            error: self.error.clone(),
            troubles: self.troubles,
        };
        let is_unsaved = std::mem::take(&mut self.is_unsaved);
        let stored = is_unsaved.then(|| {
            Arc::new(Stored {
                owner: self.owner.0.to_string(),
                declaration: self.declaration.clone(),
                instance: self.dressed.clone(),
                declared_ready: Some(self.declared_ready),
                passing: entry.health.passing,
                drain: self.leaving.map(|leaving| leaving.told),
                replaces: self.replaces(),
                registered_at: self.registered_at,
                updated_at: self.updated_at,
                unread: None,
            })
        });
        let is_changed = self.slot.view.send_if_modified(|view| {
            let is_changed = view.entry != entry
                || view.confirmed != self.confirmed
                || view.refused.as_ref().map(|(change, _)| *change)
                    != self.refused.as_ref().map(|(change, _)| *change);
            view.entry = entry;
            view.unconfirmed_since = match view.unconfirmed_since {
                _ if self.confirmed >= self.change => None,
                Some(since) if self.confirmed == view.confirmed => Some(since),
                _ => Some(Instant::now()),
            };
            view.confirmed = self.confirmed;
            view.refused.clone_from(&self.refused);
            view.was_seen |= self.is_at_registry();
            if let Some(stored) = stored {
                view.stored = stored;
            }
            is_changed
        });
        if is_changed {
            self.shared.changed();
        }
        if is_unsaved {
            self.shared.save();
        }
    }
}

/// The instance that goes on with the one of the agent before, and the records that it takes the place of. If this host has another address
/// now and the instance has no id of its own, it is another one.
fn again(
    shared: &Shared,
    past: Past,
    declaration: &Declaration,
    endpoint: &Endpoint,
) -> Result<(Instance, Vec<RecordId>), Refused> {
    let (before, registered_at) = (past.instance, past.registered_at);
    let mut replaces = past.replaces;
    if before.endpoint() == endpoint {
        return Ok((before, replaces));
    }
    let record = before.record_id();
    if declaration.id.is_none() {
        let another = shared.new_instance(declaration, endpoint, registered_at)?;
        // The oldest have expired.
        let oldest = (replaces.len() + 1).saturating_sub(MOST_REPLACED);
        replaces.drain(..oldest);
        replaces.push(record);
        return Ok((another, replaces));
    }
    let RecordId {
        service,
        id,
        incarnation,
    } = record;
    let bare = Instance::of_run(service, id, incarnation, endpoint.clone());
    let moved = shared.dress(bare, declaration, registered_at);
    Ok((moved, replaces))
}

impl Held {
    fn new(guard: RegistrationGuard, made_with: u64) -> Self {
        Self {
            events: guard.events(),
            is_ready: guard.instance().is_ready(),
            guard,
            made_with,
            sending: None,
            is_over: false,
        }
    }
}
