//! What the tasks of all registrations share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, SystemTime};

use sd_core::clock::Moment;
use sd_core::retry::{Backoff, Retry};
use sd_core::sync::lock;
use sd_core::{Endpoint, Error, ErrorKind, Instance, RecordId, RegistrationGuard, Registry};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::entry::{Caller, Refused};
#[cfg(feature = "consul")]
use super::routes::Telling;
use super::settings::{Settings, check_ttl};
use super::table::Table;
use crate::checks::{Checks, LookUps};
use crate::daemon::store::{Drain, Store};
use crate::wire::{CheckKind, CheckSpec, CheckState, Declaration};

/// How long a record that could not be withdrawn is tried to be removed. Where records have a time-to-live, they are gone before.
const LATE_WITHDRAWAL: Duration = Duration::from_secs(3600);
const LATE_ATTEMPT: Duration = Duration::from_secs(10);
/// Why a record may still be at the registry, if that has not answered by the end.
pub(super) const LATE: &str = "not done in time";

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) registry: Registry,
    pub(crate) settings: Settings,
    pub(crate) table: Arc<Mutex<Table>>,
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) store: Option<Store>,
    /// Everything is to be withdrawn.
    pub(crate) stop: CancellationToken,
    /// The agent ends, in whichever way.
    pub(crate) closing: CancellationToken,
    pub(crate) tasks: TaskTracker,
    /// The records are to be left for the next agent.
    keeps_records: AtomicBool,
    /// That they cannot be left is told once.
    told_withdrawn: Once,
    /// The records whose withdrawal has begun and has not succeeded, with why not: what closes the agent tells of them. Each has a task.
    withdrawing: Mutex<BTreeMap<RecordId, String>>,
    /// Those of each caller that has checks.
    look_ups: Mutex<BTreeMap<Caller, LookUps>>,
    /// What tells routes, until the agent ends.
    #[cfg(feature = "consul")]
    pub(super) routes: Mutex<Option<Telling>>,
}

impl Shared {
    pub(crate) fn new(
        registry: Registry,
        settings: Settings,
        table: Arc<Mutex<Table>>,
        store: Option<Store>,
    ) -> Self {
        Self {
            registry,
            settings,
            table,
            changes: watch::Sender::new(0),
            store,
            stop: CancellationToken::new(),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
            keeps_records: AtomicBool::new(false),
            told_withdrawn: Once::new(),
            withdrawing: Mutex::default(),
            look_ups: Mutex::default(),
            #[cfg(feature = "consul")]
            routes: Mutex::default(),
        }
    }

    /// Something that readers see has changed.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// What is on disk is to be written again.
    pub(crate) fn save(&self) {
        if let Some(store) = &self.store {
            store.save();
        }
    }

    /// Notes on disk that everything is about to be withdrawn, and waits for that, 1 s at most.
    pub(crate) async fn note_end(&self) {
        let is_noted = std::mem::replace(&mut lock(&self.table).is_ending, true);
        if !is_noted {
            self.save();
        }
        if let Some(store) = &self.store {
            store.saved().await;
        }
    }

    pub(crate) fn keep_records(&self) {
        self.keeps_records.store(true, Ordering::Release);
    }

    pub(crate) fn keeps_records(&self) -> bool {
        self.keeps_records.load(Ordering::Acquire)
    }

    /// Says that records were withdrawn which were to be left.
    pub(crate) fn tell_withdrawn(&self) {
        self.told_withdrawn.call_once(|| {
            warn!(
                "records of this registry end with the agent that registered them: they are withdrawn, and the next agent registers them again"
            );
        });
    }

    pub(crate) fn now(&self) -> Moment {
        self.registry.config().clock.now()
    }

    /// When what leaves then leaves by the clock that goes on while the machine is suspended.
    pub(crate) fn deadline(&self, drain: &Drain) -> Moment {
        self.now() + drain.left(SystemTime::now())
    }

    /// A new instance as it is declared.
    pub(crate) fn new_instance(
        &self,
        declaration: &Declaration,
        endpoint: &Endpoint,
        now: SystemTime,
    ) -> Result<Instance, Refused> {
        let bare = Instance::new(declaration.service.clone(), endpoint.clone())?;
        let bare = match &declaration.id {
            Some(id) => bare.with_id(id.clone()),
            None => bare,
        };
        Ok(self.dress(bare, declaration, now))
    }

    pub(crate) fn dress(
        &self,
        bare: Instance,
        declaration: &Declaration,
        registered_at: SystemTime,
    ) -> Instance {
        self.settings
            .dress(&self.registry, bare, declaration, registered_at)
    }

    /// Starts the checks of an instance. If it was well until now, it is until they have answered: readers need not see that other checks
    /// have begun.
    pub(crate) fn start_checks(
        &self,
        owner: &Caller,
        specs: &[CheckSpec],
        target: &Endpoint,
        was_passing: bool,
    ) -> Result<Checks, Refused> {
        let mut specs = specs.to_vec();
        if was_passing {
            for spec in &mut specs {
                spec.initial = CheckState::Passing;
            }
        }
        let look_ups = self.look_ups_of(owner);
        let checks = Checks::start_for(&look_ups, &specs, target, self.settings.commands);
        checks.map_err(|error| match error.kind() {
            ErrorKind::Denied => Refused::Invalid(commands_are_off(&specs)),
            _ => error.into(),
        })
    }

    /// The look-ups of names of all checks of one caller.
    fn look_ups_of(&self, owner: &Caller) -> LookUps {
        let mut of_callers = lock(&self.look_ups);
        if let Some(look_ups) = of_callers.get(owner) {
            return look_ups.clone();
        }
        of_callers.retain(|_, look_ups| !look_ups.is_unused());
        of_callers.entry(owner.clone()).or_default().clone()
    }

    /// Refuses a time-to-live that the registry would not take.
    pub(crate) fn check_ttl(&self, declaration: &Declaration) -> Result<(), Refused> {
        let registrar = Arc::clone(self.registry.backend()).registrar();
        match (registrar, declaration.ttl) {
            (Some(registrar), Some(ttl)) => check_ttl(registrar.limits(), ttl)
                .map_err(|why| Refused::Invalid(format!("ttl: {why}"))),
            _ => Ok(()),
        }
    }

    /// Refuses a record that the registry would not take.
    pub(crate) fn check(&self, instance: &Instance) -> Result<(), Refused> {
        let Some(registrar) = Arc::clone(self.registry.backend()).registrar() else {
            // Registering says so.
            return Ok(());
        };
        let (bytes, most) = (
            registrar.record_bytes(instance)?,
            registrar.limits().record_bytes,
        );
        if bytes > most {
            return Err(Refused::Invalid(format!(
                "the record has {bytes} bytes, at most {most} are allowed: shorten tags or metadata"
            )));
        }
        Ok(())
    }

    /// Has sd-core keep a record, in the background.
    pub(crate) fn register(
        &self,
        instance: Instance,
        ttl: Option<Duration>,
    ) -> Result<RegistrationGuard, Refused> {
        let register = self.registry.register(instance);
        // Why a change is not confirmed is known before its caller is answered.
        let register = register.confirm_within(self.settings.confirm_within * 4 / 5);
        let register = match ttl {
            Some(ttl) => register.ttl(ttl),
            None => register,
        };
        Ok(register.in_background()?)
    }

    /// Withdraws a record in the background.
    pub(crate) fn withdraw(self: &Arc<Self>, guard: Option<RegistrationGuard>) {
        if let Some(guard) = guard {
            let shared = Arc::clone(self);
            self.tasks.spawn(async move {
                // Its error has been logged.
                let _ = shared.end(guard, true).await;
            });
        }
    }

    /// Drains and withdraws a record in the background.
    pub(crate) fn drain(self: &Arc<Self>, guard: RegistrationGuard, grace: Duration) {
        let shared = Arc::clone(self);
        self.tasks.spawn(async move {
            tokio::select! {
                // A guard that is dropped withdraws.
                () = shared.closing.cancelled() => {}
                done = guard.drain(grace) => {
                    if let Err(error) = done {
                        warn!(error = %error.report(), "a record that was replaced could not be withdrawn");
                    }
                }
            }
        });
    }

    /// Withdraws a record. One that could not be withdrawn is tried again for a while, if the registry may have it.
    pub(crate) async fn end(
        self: &Arc<Self>,
        guard: RegistrationGuard,
        may_be_there: bool,
    ) -> sd_core::Result<()> {
        let record = guard.record_id().clone();
        if may_be_there {
            self.withdrawal_begins(&record);
        }
        let done = guard.deregister().await;
        self.withdrawal_answered(&record, &done);
        match &done {
            Ok(()) => {
                info!(service = ?record.service, instance = ?record.id, "deregistered");
            }
            Err(error) => {
                warn!(service = ?record.service, instance = ?record.id, error = %error.report(), "could not deregister");
                if may_be_there && !self.closing.is_cancelled() {
                    self.withdraw_unkept(record);
                }
            }
        }
        done
    }

    fn withdrawal_begins(&self, record: &RecordId) {
        let mut withdrawing = lock(&self.withdrawing);
        withdrawing
            .entry(record.clone())
            .or_insert_with(|| LATE.to_owned());
    }

    fn withdrawal_answered(&self, record: &RecordId, answer: &sd_core::Result<()>) {
        let mut withdrawing = lock(&self.withdrawing);
        match answer {
            Ok(()) => drop(withdrawing.remove(record)),
            Err(error) => {
                if let Some(why) = withdrawing.get_mut(record) {
                    *why = error.report().to_string();
                }
            }
        }
    }

    /// The records that are to be withdrawn and are not, with the reasons.
    pub(super) fn not_withdrawn(&self) -> BTreeMap<RecordId, String> {
        lock(&self.withdrawing).clone()
    }

    /// Withdraws in the background, for a while, what no guard keeps. At the end of the agent, it is tried once more.
    pub(crate) fn withdraw_unkept(self: &Arc<Self>, record: RecordId) {
        let shared = Arc::clone(self);
        self.withdrawal_begins(&record);
        self.tasks.spawn(async move {
            if shared.withdraw_for_long(&record).await {
                lock(&shared.withdrawing).remove(&record);
            }
        });
    }

    /// Withdraws what no guard keeps, for a while, and once more at the end of the agent. Says whether more attempts would be in vain: it is
    /// withdrawn, or can never be, or has expired by now.
    pub(super) async fn withdraw_for_long(&self, record: &RecordId) -> bool {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let attempts = async {
            while self
                .withdraw_once(record)
                .await
                .is_err_and(|error| may_pass(&error))
            {
                sleep(backoff.next_delay()).await;
            }
        };
        let attempts = timeout(LATE_WITHDRAWAL, attempts);
        if self.closing.run_until_cancelled(attempts).await.is_some() {
            return true;
        }
        // Its error has been logged.
        self.withdraw_once(record).await.is_ok()
    }

    /// Withdraws what no guard keeps, or says why not.
    pub(crate) async fn withdraw_once(&self, record: &RecordId) -> sd_core::Result<()> {
        const OP: &str = "deregister";
        let Some(registrar) = Arc::clone(self.registry.backend()).registrar() else {
            return Err(Error::new(ErrorKind::Unsupported, OP));
        };
        let withdrawn = timeout(LATE_ATTEMPT, registrar.withdraw(record)).await;
        let withdrawn = withdrawn.unwrap_or_else(|_| {
            let late = format!("no answer within {LATE_ATTEMPT:?}");
            Err(Error::new(ErrorKind::Timeout, OP).because(late))
        });
        self.withdrawal_answered(record, &withdrawn);
        let (service, instance) = (&record.service, &record.id);
        match &withdrawn {
            Ok(()) => info!(?service, ?instance, "deregistered late"),
            Err(error) => {
                debug!(?service, ?instance, error = %error.report(), "could not deregister late");
            }
        }
        withdrawn
    }
}

/// What is said of a check that runs a program where none may be run.
fn commands_are_off(specs: &[CheckSpec]) -> String {
    let is_command = |spec: &CheckSpec| matches!(spec.kind, CheckKind::Command { .. });
    let at = specs.iter().position(is_command).unwrap_or_default();
    format!(
        "checks[{at}]: this agent runs no programs as checks: use another kind, or set checks.commands in its configuration"
    )
}

fn may_pass(error: &Error) -> bool {
    error.kind().retry() != Retry::Never
}
