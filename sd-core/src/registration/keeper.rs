//! The task behind a registration guard: registers, renews, registers again after a loss, and finally withdraws.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::clock::{Clock, Moment};
use crate::error::{Error, ErrorKind, Result};
use crate::events::{EventLog, Events};
use crate::instrument;
use crate::model::instance::Instance;
use crate::model::overriding::Override;
use crate::panics::{caught, panicked};
use crate::port::registrar::{Attempt, Liveness, Registrar, Registration, Renewed, check_record};
use crate::registration::command::{Command, Confirm};
use crate::registration::config::RegistrationConfig;
use crate::registration::event::{RegistrationEvent, RegistrationPhase};
use crate::registration::status::RegistrationStatus;
use crate::retry::{Backoff, Retry, jittered, paced};

/// Owns one registration.
#[derive(Debug)]
pub(crate) struct Keeper {
    registrar: Arc<dyn Registrar>,
    config: RegistrationConfig,
    clock: Arc<dyn Clock>,
    commands: mpsc::Receiver<Command>,
    status: watch::Sender<RegistrationStatus>,
    events: Arc<EventLog<RegistrationEvent>>,
    stop: CancellationToken,
    /// Cancelled when an earlier registration under this id has withdrawn. Until then its record is a conflict, or its clean-up
    /// would remove our record.
    predecessor: Option<CancellationToken>,
    /// Updates that wait for the server.
    unconfirmed: Vec<oneshot::Sender<Result<()>>>,
    /// Whether the record may be at the server.
    attempted: bool,
    /// The record that the server confirmed last.
    confirmed: Option<Arc<Instance>>,
    /// How it stays alive.
    liveness: Option<Liveness>,
    leave_record: LeaveRecord,
    /// Whether it keeps the only registration under its id.
    is_entered: bool,
}

/// Whether the record stays at the server when the keeper stops. Said before it is told to stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct LeaveRecord(Arc<AtomicBool>);

impl LeaveRecord {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// How the keeper of a registration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Withdrawn,
    Released,
}

/// What the owner of a registration holds of its keeper.
#[derive(Debug)]
pub(crate) struct KeeperHandle {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) status: watch::Receiver<RegistrationStatus>,
    pub(crate) events: Events<RegistrationEvent>,
    /// Tells the keeper to stop, and to withdraw unless it is to leave the record.
    pub(crate) stop: CancellationToken,
    pub(crate) leave_record: LeaveRecord,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: RegistrationConfig,
}

/// An owner waits for the earlier run's record to go, so that is looked for often.
const LONGEST_PAUSE_FOR_EARLIER_RUN: Duration = Duration::from_secs(1);
/// Updates that the keeper has not taken yet.
const MOST_COMMANDS: usize = 8;
/// How many updates may wait for the server at once.
const MOST_UNCONFIRMED: usize = 64;
/// Events that are kept for the owner.
const MOST_EVENTS: usize = 64;

/// Why a loop of the keeper ended.
enum End {
    /// The owner let go.
    Stopped,
    /// The record is gone.
    Lost(Error),
    /// Registering can never succeed.
    Hopeless(Error),
}

impl Keeper {
    /// A keeper that registers `instance` when it runs, and withdraws it when `stop` is cancelled.
    pub(crate) fn new(
        instance: Instance,
        registrar: Arc<dyn Registrar>,
        config: RegistrationConfig,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> (Self, KeeperHandle) {
        let (status, status_seen) = watch::channel(RegistrationStatus {
            wanted: Arc::new(instance),
            phase: RegistrationPhase::Registering,
            since: clock.now(),
            error: None,
            overridden: None,
        });
        let (commands, commands_seen) = mpsc::channel(MOST_COMMANDS);
        let events = Arc::new(EventLog::keeping(MOST_EVENTS));
        let leave_record = LeaveRecord::default();
        let handle = KeeperHandle {
            commands,
            status: status_seen,
            events: events.events(),
            stop: stop.clone(),
            leave_record: leave_record.clone(),
            clock: Arc::clone(&clock),
            config: config.clone(),
        };
        let keeper = Self {
            registrar,
            config,
            clock,
            commands: commands_seen,
            status,
            events,
            stop,
            predecessor: None,
            unconfirmed: Vec::new(),
            attempted: false,
            confirmed: None,
            liveness: None,
            leave_record,
            is_entered: false,
        };
        (keeper, handle)
    }

    /// Lets it register only after an earlier registration under this id has withdrawn.
    pub(crate) fn after(mut self, predecessor: Option<CancellationToken>) -> Self {
        self.predecessor = predecessor;
        self.is_entered = true;
        self
    }

    /// Keeps the record until `stop` is cancelled, then withdraws it or leaves it.
    pub(crate) async fn run(mut self, confirm: Confirm) -> Result<Ending> {
        let keeping = AssertUnwindSafe(self.keep_and_withdraw(confirm));
        // What a backend is asked for is caught where it is asked. Should anything else panic, no guard may be left that claims to be
        // registered.
        let done = keeping.catch_unwind().await;
        done.unwrap_or_else(|panic| {
            let error = panicked("keep registration", panic.as_ref());
            self.emit(RegistrationEvent::Failed(error.clone()));
            self.abandon();
            Err(error)
        })
    }

    async fn keep_and_withdraw(&mut self, confirm: Confirm) -> Result<Ending> {
        let hopeless = self.keep(confirm).await.err();
        // From here on another registration may take this id.
        self.stop.cancel();
        let ended = self.end(hopeless.is_none()).await;
        self.answer_updates(&Err(Error::new(ErrorKind::Closed, "update registration")));
        if let Some(left) = self.predecessor.take() {
            // Our successor waits for us alone, so we leave no sooner than our own predecessor.
            left.cancelled().await;
        }
        match (hopeless, ended) {
            (Some(error), _) | (None, Err(error)) => {
                self.emit(RegistrationEvent::Failed(error.clone()));
                Err(error)
            }
            (None, Ok(ending)) => {
                self.emit(match ending {
                    Ending::Withdrawn => RegistrationEvent::Withdrawn,
                    Ending::Released => RegistrationEvent::Released,
                });
                Ok(ending)
            }
        }
    }

    /// Leaves the record if that is wanted, and withdraws it otherwise. What the server never confirmed is no record to leave.
    async fn end(&self, may_leave: bool) -> Result<Ending> {
        let confirmed = self.confirmed.as_ref().filter(|_| may_leave);
        let mut refused = None;
        if let Some(record) = confirmed.filter(|_| self.leave_record.get()) {
            let record = record.record_id();
            let release = self.registrar.release(&record);
            match within("release registration", self.attempt_limit(), release).await {
                Ok(()) => return Ok(Ending::Released),
                Err(error) => refused = Some(error),
            }
        }
        if self.attempted {
            self.withdraw().await?;
        }
        match refused {
            Some(error) => Err(error),
            None => Ok(Ending::Withdrawn),
        }
    }

    /// Keeps the record at the server until the owner lets go. An error says why it never can be there.
    async fn keep(&mut self, confirm: Confirm) -> Result<()> {
        let mut registration = match confirm {
            Confirm::InBackground => self.register(None).await,
            Confirm::InTime(confirmed) => {
                let give_up_at = self.clock.now() + self.config.confirm_within;
                let first = self.register(Some(give_up_at)).await;
                // The waiting owner may have let go.
                let _ = match &first {
                    Ok(_) => confirmed.send(Ok(())),
                    Err(End::Hopeless(error)) => confirmed.send(Err(error.clone())),
                    Err(_) => Ok(()),
                };
                first
            }
        };
        loop {
            let end = match registration {
                Ok(held) => self.hold(held).await,
                Err(end) => end,
            };
            match end {
                End::Stopped => return Ok(()),
                End::Hopeless(error) => return Err(error),
                End::Lost(error) => {
                    self.emit(RegistrationEvent::Lost(error));
                    // Many may have lost their records at once: spread their return.
                    let spread = (self.config.ttl / 10)
                        .min(Duration::from_secs(1))
                        .mul_f64(fastrand::f64());
                    registration = match self.pause(spread).await {
                        Ok(()) => self.register(None).await,
                        Err(end) => Err(end),
                    };
                }
            }
        }
    }

    /// Attempts to register until the server confirms; until `give_up_at`, if there is such a time.
    async fn register(&mut self, mut give_up_at: Option<Moment>) -> Result<Held, End> {
        if let Some(left) = self.predecessor.clone() {
            self.wait_for(left, give_up_at).await?;
            self.predecessor = None;
        }
        // A session may grant less than was asked for.
        let longest = self.config.ttl / 3;
        let longest = self
            .liveness
            .map_or(longest, |granted| granted.renew_every().min(longest));
        let mut backoff = Backoff::new(Duration::from_millis(100), longest);
        let mut earlier_run = None;
        loop {
            let wanted = Arc::clone(&self.status.borrow().wanted);
            let limit = give_up_at.map_or(self.attempt_limit(), |at| {
                at.since(self.clock.now()).min(self.attempt_limit())
            });
            let sent = self.clock.now();
            let is_first = !std::mem::replace(&mut self.attempted, true);
            let registrar = Arc::clone(&self.registrar);
            let mut attempt = Attempt::new(self.config.ttl);
            if is_first && wanted.id_holds_incarnation() {
                attempt = attempt.with_id_is_new();
            }
            if self.confirmed.is_some() {
                attempt = attempt.with_was_confirmed();
            }
            let attempt = async move { registrar.register(&wanted, &attempt).await };
            let error = match self
                .unless_stopped(within("register", limit, attempt))
                .await?
            {
                Ok(registration) => {
                    let liveness = registration.liveness();
                    self.liveness = Some(liveness);
                    self.emit(RegistrationEvent::Registered(liveness));
                    // The record that was written holds every change that was wanted until now.
                    self.confirm_updates();
                    return Ok(Held {
                        registration,
                        confirmed_at: sent,
                    });
                }
                Err(error) => error,
            };
            // The record may succeed without the changes since the last confirmation.
            if self.is_update_refused(&error) && self.refuse_updates(&error) {
                continue;
            }
            let mut delay = match error.kind().retry() {
                Retry::Never => return Err(End::Hopeless(error)),
                Retry::After(asked) => paced(asked, &mut backoff),
                Retry::Backoff | Retry::Resync => backoff.next_delay(),
            };
            let is_earlier_run = self.is_of_earlier_run(&error);
            if is_earlier_run && give_up_at.is_some() {
                delay = delay.min(LONGEST_PAUSE_FOR_EARLIER_RUN);
                if earlier_run.replace(error.clone()).is_none() {
                    give_up_at = give_up_at.map(|at| at + self.config.ttl);
                }
            }
            if let Some(at) = give_up_at {
                let may_pass = matches!(
                    error.kind(),
                    ErrorKind::Unavailable
                        | ErrorKind::Timeout
                        | ErrorKind::RateLimited { .. }
                        | ErrorKind::LeaseLost
                );
                if !(may_pass || is_earlier_run) || self.clock.now() + delay >= at {
                    // The bound may have cut the last attempt short, which then tells nothing.
                    let was_cut =
                        error.kind() == ErrorKind::Timeout && limit < self.attempt_limit();
                    let outlasted = earlier_run.filter(|_| is_earlier_run || was_cut);
                    return Err(End::Hopeless(match outlasted {
                        Some(conflict) => conflict.because(
                            "another run at this address has outlasted the time-to-live: it is alive, or its time-to-live is longer. Stop \
                             it, wait until its record is gone, or give this instance another id",
                        ),
                        None => error,
                    }));
                }
            }
            self.emit(RegistrationEvent::Retrying { error, delay });
            self.pause(delay).await?;
        }
    }

    /// Whether the id is held by another run at our own address. That is most probably an earlier run of ours which crashed, and
    /// whose record goes when its time-to-live ends.
    fn is_of_earlier_run(&self, error: &Error) -> bool {
        let wanted = self.status.borrow();
        let wanted = &wanted.wanted;
        error.kind() == ErrorKind::Conflict
            && error.holder().is_some_and(|holder| {
                holder.endpoint == *wanted.endpoint() && holder.incarnation != wanted.incarnation()
            })
    }

    /// Waits until an earlier registration has left, at most until `give_up_at`.
    async fn wait_for(
        &self,
        left: CancellationToken,
        give_up_at: Option<Moment>,
    ) -> Result<(), End> {
        let too_late = async {
            match give_up_at {
                Some(at) => self.clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(End::Stopped),
            () = left.cancelled() => Ok(()),
            () = too_late => Err(End::Hopeless(
                Error::new(ErrorKind::Timeout, "register")
                    .because("an earlier registration under this id is still withdrawing"),
            )),
        }
    }

    /// Renews and updates the record until it is lost or the owner lets go.
    async fn hold(&mut self, held: Held) -> End {
        let Held {
            registration,
            confirmed_at,
        } = held;
        let mut every = registration.liveness().renew_every();
        let pace = || {
            Backoff::new(
                Duration::from_millis(100),
                every.min(Duration::from_secs(2)),
            )
        };
        let (mut renewals, mut updates) = (pace(), pace());
        let mut renew_at = confirmed_at + jittered(every, 0.1);
        let mut update_at: Option<Moment> = None;
        let mut at_risk = false;
        loop {
            let next = update_at.map_or(renew_at, |at| at.min(renew_at));
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return End::Stopped,
                error = lost(registration.as_ref()) => return End::Lost(error),
                () = self.clock.sleep_until(next) => {}
                Some(command) = self.commands.recv() => {
                    if self.accept(command) {
                        update_at = Some(self.clock.now());
                    }
                    continue;
                }
            }
            let sent = self.clock.now();
            // A renewal that is due goes first: no stream of updates may starve it.
            let wanted = (renew_at > sent).then(|| Arc::clone(&self.status.borrow().wanted));
            let is_update = wanted.is_some();
            let step = async {
                match wanted {
                    Some(wanted) => registration.update(&wanted).await.map(|()| None),
                    None => registration.renew().await.map(Some),
                }
            };
            let limit = self.attempt_limit();
            let done = tokio::select! {
                biased;
                () = self.stop.cancelled() => return End::Stopped,
                error = lost(registration.as_ref()) => return End::Lost(error),
                done = within("renew registration", limit, step) => done,
            };
            let error = match done {
                Ok(None) => {
                    update_at = None;
                    updates.reset();
                    self.confirm_updates();
                    continue;
                }
                Ok(Some(Renewed {
                    liveness,
                    overridden,
                })) => {
                    every = liveness.renew_every();
                    renew_at = sent + jittered(every, 0.1);
                    if std::mem::take(&mut at_risk) {
                        self.emit(RegistrationEvent::Recovered);
                    }
                    self.note_override(overridden);
                    renewals.reset();
                    continue;
                }
                Err(error) => error,
            };
            if matches!(
                error.kind(),
                ErrorKind::LeaseLost | ErrorKind::NotFound | ErrorKind::Conflict
            ) {
                return End::Lost(error);
            }
            if is_update && self.is_update_refused(&error) {
                self.refuse_updates(&error);
                update_at = None;
                continue;
            }
            if is_update {
                // The change stays wanted. Renewals go on as before: they tell whether the record is still ours.
                debug!(error = %error.report(), "update failed");
                self.status.send_modify(|status| status.error = Some(error));
                update_at = Some(self.clock.now() + updates.next_delay());
                continue;
            }
            if std::mem::replace(&mut at_risk, true) {
                debug!(error = %error.report(), "renewal still fails");
            } else {
                self.emit(RegistrationEvent::AtRisk(error));
            }
            renew_at = self.clock.now() + renewals.next_delay();
        }
    }

    /// Tells the registrar that nothing is done for the record any more.
    fn abandon(&self) {
        if self.attempted {
            let record = self.status.borrow().wanted.record_id();
            self.registrar.abandoned(&record);
        }
    }

    /// Removes the record, several times if need be, within the configured time.
    async fn withdraw(&self) -> Result<()> {
        let record = self.status.borrow().wanted.record_id();
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(500));
        let mut last = None;
        let attempts = async {
            loop {
                match within(
                    "withdraw",
                    self.attempt_limit(),
                    self.registrar.withdraw(&record),
                )
                .await
                {
                    Ok(()) => return Ok(()),
                    Err(error) if error.kind().retry() == Retry::Never => return Err(error),
                    Err(error) => last = Some(error),
                }
                tokio::time::sleep(backoff.next_delay()).await;
            }
        };
        let limit = self.config.withdraw_within;
        timeout(limit, attempts).await.unwrap_or_else(|_| {
            let left = match self.liveness {
                Some(liveness) => format!(
                    "the record may still be there: {}",
                    liveness.when_abandoned()
                ),
                None => "the record may be there".to_owned(),
            };
            let why = match last {
                Some(reason) => reason.report().to_string(),
                None => "no answer".to_owned(),
            };
            Err(Error::new(ErrorKind::Timeout, "withdraw").because(format!(
                "the server did not confirm within {limit:?}, {left} ({why})"
            )))
        })
    }

    /// Accepts a wanted change. Returns whether there is something to send.
    fn accept(&mut self, command: Command) -> bool {
        let before = Arc::clone(&self.status.borrow().wanted);
        let change = AssertUnwindSafe(|| (command.change)(before.as_ref().clone()));
        // A panic in the caller's code must not end the registration.
        let after = catch_unwind(change).map_err(|_| {
            Error::invalid_input(
                "update registration",
                "the change panicked: nothing was changed",
            )
        });
        // One that was read may have an override, which the owner does not say.
        let after = after.map(|after| after.with_override(None));
        let after = match after.and_then(|after| self.check(&before, &after).map(|()| after)) {
            Ok(after) => after,
            Err(error) => {
                let _ = command.reply.send(Err(error));
                return false;
            }
        };
        // Those whose callers have given up wait for nothing.
        self.unconfirmed.retain(|reply| !reply.is_closed());
        if self.unconfirmed.len() >= MOST_UNCONFIRMED {
            let full = Error::new(
                ErrorKind::RateLimited { retry_after: None },
                "update registration",
            );
            let _ = command.reply.send(Err(
                full.because("too many updates wait for the server: try again later")
            ));
            return false;
        }
        self.unconfirmed.push(command.reply);
        self.status
            .send_modify(|status| status.wanted = Arc::new(after));
        true
    }

    fn check(&self, before: &Instance, after: &Instance) -> Result<()> {
        const OP: &str = "update registration";
        if before.record_id() != after.record_id() {
            return Err(Error::invalid_input(
                OP,
                "service, id and incarnation cannot change: register another instance",
            ));
        }
        check_record(OP, self.registrar.as_ref(), after)
    }

    /// The server confirmed the wanted record.
    fn confirm_updates(&mut self) {
        self.confirmed = Some(Arc::clone(&self.status.borrow().wanted));
        if !self.unconfirmed.is_empty() {
            self.answer_updates(&Ok(()));
            self.emit(RegistrationEvent::Updated);
        }
    }

    /// Whether an error is the answer to wanted changes. What a server refuses may have nothing to do with them, and pass. So changes whose
    /// callers were told that they stay wanted are not taken back for it.
    fn is_update_refused(&self, error: &Error) -> bool {
        let is_awaited = || self.unconfirmed.iter().any(|reply| !reply.is_closed());
        error.kind().retry() == Retry::Never
            || (error.kind() == ErrorKind::Rejected && is_awaited())
    }

    /// The wanted record is refused: goes back to the last confirmed one. Returns whether that differs.
    fn refuse_updates(&mut self, error: &Error) -> bool {
        let Some(confirmed) = self.confirmed.clone() else {
            return false;
        };
        self.answer_updates(&Err(error.clone()));
        let refused = self.status.borrow().wanted != confirmed;
        self.status.send_modify(|status| status.wanted = confirmed);
        refused
    }

    fn answer_updates(&mut self, answer: &Result<()>) {
        for reply in self.unconfirmed.drain(..) {
            // The caller may have let go.
            let _ = reply.send(answer.clone());
        }
    }

    /// A renewal found that an operator says this of the record.
    fn note_override(&self, found: Option<Override>) {
        if self.status.borrow().overridden == found {
            return;
        }
        self.status.send_modify(|status| status.overridden = found);
        self.emit(match found {
            Some(said) => RegistrationEvent::Overridden(said),
            None => RegistrationEvent::OverrideCleared,
        });
    }

    /// How long one request may take.
    fn attempt_limit(&self) -> Duration {
        self.registrar.limits().attempt_within(self.config.ttl)
    }

    /// Waits, taking wanted changes meanwhile.
    async fn pause(&mut self, span: Duration) -> Result<(), End> {
        let until = self.clock.now() + span;
        loop {
            let sleep = self.clock.sleep_until(until);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(End::Stopped),
                Some(command) = self.commands.recv() => {
                    self.accept(command);
                }
                () = sleep => return Ok(()),
            }
        }
    }

    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, End> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(End::Stopped),
            done = work => Ok(done),
        }
    }

    fn emit(&self, event: RegistrationEvent) {
        let now = self.clock.now();
        self.status.send_modify(|status| {
            let Some(phase) = event.phase() else { return };
            if status.phase == RegistrationPhase::AtRisk
                && matches!(event, RegistrationEvent::Updated)
            {
                // Only a renewal proves that the record stays.
                return;
            }
            if status.phase != phase {
                status.phase = phase;
                status.since = now;
            }
            // An operator's word says nothing about an update that waits.
            if !matches!(
                event,
                RegistrationEvent::Overridden(_) | RegistrationEvent::OverrideCleared
            ) {
                status.error = event.error().cloned();
            }
            if matches!(event, RegistrationEvent::Lost(_)) {
                status.overridden = None;
            }
        });
        let name = event.as_str();
        instrument::registration(self.status.borrow().wanted.service(), &event);
        match event.error().map(Error::report) {
            None => info!(event = name, "registration"),
            Some(error) => warn!(event = name, %error, "registration"),
        }
        self.events.tell(event);
    }
}

/// Whatever ends the task, the guard does not go on to claim that the record is kept.
impl Drop for Keeper {
    fn drop(&mut self) {
        if self.is_entered && self.status.borrow().phase != RegistrationPhase::Ended {
            let ended = Error::new(ErrorKind::Closed, "keep registration").because(
                "the runtime that kept the registration has ended: the record is not renewed any more",
            );
            self.emit(RegistrationEvent::Failed(ended));
            self.abandon();
        }
    }
}

/// Returns when the backend says that the record is lost. Should it panic, the next renewal finds out.
async fn lost(registration: &dyn Registration) -> Error {
    let told = caught("hear of a loss", async { Ok(registration.lost().await) });
    match told.await {
        Ok(error) => error,
        Err(panic) => {
            warn!(error = %panic.report(), "cannot hear of the loss of a record");
            std::future::pending().await
        }
    }
}

/// A record at the server and when the request that confirmed it was sent.
struct Held {
    registration: Box<dyn Registration>,
    confirmed_at: Moment,
}

async fn within<T>(
    op: &'static str,
    limit: Duration,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    match timeout(limit, caught(op, work)).await {
        Ok(done) => done,
        Err(_) => {
            Err(Error::new(ErrorKind::Timeout, op).because(format!("no answer within {limit:?}")))
        }
    }
}
