//! The guard that the owner of a registration holds.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::DropGuard;

use crate::error::{Error, ErrorKind, Result};
use crate::events::Events;
use crate::model::instance::{Instance, RecordId};
use crate::model::overriding::Override;
use crate::registration::command::Command;
use crate::registration::event::{RegistrationEvent, RegistrationPhase};
use crate::registration::keeper::{Ending, KeeperHandle};
use crate::runtime::runtime;

/// Keeps one instance registered for as long as the guard lives: renews the record, and registers it again after a loss.
///
/// A task owns the registration, not this handle. Dropping the guard tells the task to withdraw in the background.
/// [`deregister`](Self::deregister) withdraws and waits for the confirmation.
#[derive(Debug)]
pub struct RegistrationGuard {
    record: RecordId,
    keeper: KeeperHandle,
    ended: oneshot::Receiver<Result<Ending>>,
    _stop_on_drop: DropGuard,
}

impl RegistrationGuard {
    /// `ended` tells how the keeper ended.
    pub(crate) fn new(
        record: RecordId,
        keeper: KeeperHandle,
        ended: oneshot::Receiver<Result<Ending>>,
    ) -> Self {
        Self {
            record,
            _stop_on_drop: keeper.stop.clone().drop_guard(),
            keeper,
            ended,
        }
    }

    /// The identity of the record at the server.
    pub fn record_id(&self) -> &RecordId {
        &self.record
    }

    /// The instance as it should be at the server. The server may not have confirmed it yet.
    pub fn instance(&self) -> Arc<Instance> {
        Arc::clone(&self.keeper.status.borrow().wanted)
    }

    /// Where the registration stands.
    pub fn phase(&self) -> RegistrationPhase {
        self.keeper.status.borrow().phase
    }

    /// What an operator says of the record in place of its owner, as the last renewal found it. Readers go by it, whatever
    /// [`set_ready`](Self::set_ready) says.
    pub fn overridden(&self) -> Option<Override> {
        self.keeper.status.borrow().overridden
    }

    /// Waits until the server has confirmed the record. It already has unless the registration began
    /// [in the background](crate::Register::in_background).
    ///
    /// # Errors
    /// Why the registration has ended.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn registered(&self) -> Result<()> {
        use RegistrationPhase::{AtRisk, Ended, Registered};
        let closed = || Error::new(ErrorKind::Closed, "wait until registered");
        let mut status = self.keeper.status.clone();
        let settled = status.wait_for(|status| matches!(status.phase, Registered | AtRisk | Ended));
        let settled = settled.await.map_err(|_| closed())?;
        match settled.phase {
            Ended => Err(settled.error.clone().unwrap_or_else(closed)),
            _ => Ok(()),
        }
    }

    /// The events that [`next_event`](Self::next_event) has not returned yet, as a stream that another task can read. It ends after
    /// the last event of the registration. The newest 64 events are kept for a listener that is slow or comes late.
    pub fn events(&self) -> Events<RegistrationEvent> {
        self.keeper.events.clone()
    }

    /// Waits for the next event. Returns `None` after the last one. The newest 64 events are kept;
    /// [`RegistrationEvent::Missed`] says how many older ones are gone.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn next_event(&mut self) -> Option<RegistrationEvent> {
        self.keeper.events.next().await
    }

    /// Changes the record in place: weight, readiness, zone, tags, metadata, address. Returns when the server has confirmed the
    /// change, and waits at most [`RegistrationConfig::confirm_within`](crate::RegistrationConfig::confirm_within).
    ///
    /// # Errors
    /// - `InvalidInput` outside a tokio runtime, or if the change touches service, id or incarnation, panics, or makes the record too
    ///   large. Nothing changes then.
    /// - `Rejected` if the server refuses the record with the change. Nothing changes then, and earlier changes that were not confirmed are
    ///   given up as well.
    /// - `Timeout` if the server did not confirm in time, with the reason if one is known. The change stays wanted and is
    ///   applied when the server answers.
    /// - `RateLimited` if too many updates wait for the server.
    /// - `Closed` if the registration has ended.
    ///
    /// # Cancel safety
    /// After a dropped call the change may or may not be wanted. If it is, the event `Updated` follows as after any other.
    pub fn update<C>(&self, change: C) -> impl Future<Output = Result<()>> + Send + use<C>
    where
        C: FnOnce(Instance) -> Instance + Send + 'static,
    {
        const OP: &str = "update registration";
        let commands = self.keeper.commands.clone();
        let status = self.keeper.status.clone();
        let limit = self.keeper.config.confirm_within;
        async move {
            runtime(OP)?;
            let closed = || Error::new(ErrorKind::Closed, OP);
            let (reply, confirmed) = oneshot::channel();
            let asking = async {
                let command = Command {
                    change: Box::new(change),
                    reply,
                };
                commands.send(command).await.map_err(|_| closed())?;
                confirmed.await.map_err(|_| closed())?
            };
            if let Ok(done) = timeout(limit, asking).await {
                return done;
            }
            let error = Error::new(ErrorKind::Timeout, OP);
            Err(match status.borrow().error.clone() {
                Some(reason) => error.with_source(reason),
                None => error.because(format!(
                    "the server did not confirm the change within {limit:?}: it is applied when the server answers"
                )),
            })
        }
    }

    /// Tells readers whether this instance wants calls.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    ///
    /// # Cancel safety
    /// As [`update`](Self::update).
    pub async fn set_ready(&self, ready: bool) -> Result<()> {
        self.update(move |instance| instance.with_ready(ready))
            .await
    }

    /// Withdraws the record and waits for the confirmation. Retries for at most
    /// [`RegistrationConfig::withdraw_within`](crate::RegistrationConfig::withdraw_within).
    ///
    /// # Errors
    /// When the server did not confirm in time. The error says what becomes of the record then: the server removes one that lives
    /// on a lease or a session, and a permanent one stays.
    ///
    /// # Cancel safety
    /// If the future is dropped, the withdrawal goes on in the background.
    pub async fn deregister(self) -> Result<()> {
        self.end("deregister").await.map(drop)
    }

    /// Ends the keeping of the record and leaves the record at the server, for a process that continues this run: one that replaces
    /// this one while the service goes on, for example an agent that is upgraded. Returns what that process needs.
    ///
    /// The record is not renewed any more. The next process has the rest of its time-to-live, at least two thirds of it while the
    /// registry answers, to register the same incarnation: an instance made with [`Instance::of_run`], or with
    /// [`Instance::with_id`] and [`Instance::with_incarnation`]. Readers see no change. Changes that the server has not confirmed are
    /// lost.
    ///
    /// # Errors
    /// After an error the record is withdrawn.
    /// - `NotFound` if the server never confirmed the record.
    /// - `Unsupported` if records of this registry end with the process that registered them.
    /// - Why the registration had ended before.
    ///
    /// # Cancel safety
    /// If the future is dropped, the record is left nevertheless.
    pub async fn release(self) -> Result<RecordId> {
        const OP: &str = "release registration";
        self.keeper.leave_record.set();
        let record = self.record.clone();
        match self.end(OP).await? {
            Ending::Released => Ok(record),
            Ending::Withdrawn => Err(Error::new(ErrorKind::NotFound, OP).because(
                "the registry has not confirmed the record: there is nothing to continue",
            )),
        }
    }

    /// Tells the keeper to stop, and waits until it has.
    async fn end(self, op: &'static str) -> Result<Ending> {
        let Self { keeper, ended, .. } = self;
        keeper.stop.cancel();
        ended.await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Closed, op).because("the runtime is shutting down"))
        })
    }

    /// Tells readers that this instance wants no more calls, waits for `wait` so that they stop sending, then withdraws. If the
    /// server does not answer, the first and the last step each take at most
    /// [`RegistrationConfig::withdraw_within`](crate::RegistrationConfig::withdraw_within).
    ///
    /// # Errors
    /// As [`deregister`](Self::deregister). If the server does not confirm the first step, the others follow nevertheless.
    /// `InvalidInput` outside a tokio runtime: then the record is withdrawn at once, in the background.
    ///
    /// # Cancel safety
    /// If the future is dropped, the record is withdrawn at once, in the background.
    pub async fn drain(self, wait: Duration) -> Result<()> {
        runtime("drain")?;
        let told = timeout(self.keeper.config.withdraw_within, self.set_ready(false)).await;
        let told = told.unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "drain")));
        if let Err(error) = told {
            tracing::warn!(error = %error.report(), "could not mark the instance as not ready before withdrawing it");
        }
        let clock = &self.keeper.clock;
        clock.sleep_until(clock.now() + wait).await;
        self.deregister().await
    }
}
