//! What happens to a registration: its checks, the registry's answers, and its end.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sd_core::{Error, ErrorKind, RegistrationEvent};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::super::entry::{Entry, Stage};
use super::{CHANGE_RETRY, Held, Keeping, SLOW_RETRY};

/// What an event means for the task.
pub(super) enum Happened {
    /// sd-core goes on keeping the record.
    Goes,
    /// It does not.
    Ended,
    /// And the registration, which is new, can never succeed.
    Hopeless,
}

impl Keeping {
    /// The checks say something else.
    pub(super) fn judged(&mut self) {
        let is_ready = self.wanted().is_ready();
        if is_ready != self.held.guard.instance().is_ready() {
            self.change += 1;
        }
        self.is_unsaved |= self.slot.view.borrow().stored.passing != self.health.borrow().passing;
    }

    /// The registry has answered to a change.
    pub(super) fn applied(&mut self, change: u64, is_ready: bool, done: sd_core::Result<()>) {
        let Err(error) = done else {
            self.held.is_ready = is_ready;
            self.confirmed = self.confirmed.max(change);
            self.before = None;
            self.error = None;
            return;
        };
        self.error = Some(error.report().to_string());
        match error.kind() {
            // sd-core goes on trying.
            ErrorKind::Timeout => {}
            ErrorKind::InvalidInput | ErrorKind::Rejected => match self.before.take() {
                Some(before) => {
                    warn!(error = %error.report(), "the registry refuses a change");
                    self.refused = Some((change, error.into()));
                    self.take_back(before);
                    self.change += 1;
                }
                None => self.retry_after(CHANGE_RETRY),
            },
            _ => self.retry_after(CHANGE_RETRY),
        }
    }

    /// Something happened to the record.
    pub(super) fn happened(&mut self, event: Option<RegistrationEvent>) -> Happened {
        let Some(event) = event else {
            self.held.is_over = true;
            return Happened::Ended;
        };
        let (service, instance) = (self.dressed.service(), self.dressed.id());
        let why = event.error().map(|error| error.report().to_string());
        match event {
            RegistrationEvent::Registered(_) => {
                info!(?service, ?instance, "registered");
                self.confirmed = self.confirmed.max(self.held.made_with);
                self.held.is_ready = self.held.guard.instance().is_ready();
                self.refused = None;
                self.error = None;
                self.is_unsaved |= self.previous.is_some() || !self.left_behind.is_empty();
                let previous = self.previous.take();
                self.shared.withdraw(previous);
                for record in self.left_behind.drain(..) {
                    self.shared.withdraw_unkept(record);
                }
            }
            RegistrationEvent::Recovered | RegistrationEvent::Updated => self.error = None,
            RegistrationEvent::Released => {
                self.error = None;
                self.held.is_over = true;
                return Happened::Ended;
            }
            RegistrationEvent::Withdrawn => {
                self.error = Some("the registry has not confirmed the record".to_owned());
                self.held.is_over = true;
                return Happened::Ended;
            }
            // Records of this registry end with the session that made them, so that none can be left. It has been withdrawn instead, and
            // the next agent registers it again.
            RegistrationEvent::Failed(error) if self.is_withdrawn_instead(&error) => {
                self.shared.tell_withdrawn();
                self.error = None;
                self.held.is_over = true;
                return Happened::Ended;
            }
            RegistrationEvent::Failed(error) => {
                warn!(?service, ?instance, error = %error.report(), "the registration has failed");
                self.error = why;
                self.held.is_over = true;
                let can_never_be = matches!(
                    error.kind(),
                    ErrorKind::InvalidInput | ErrorKind::Unsupported
                );
                self.refused = Some((self.held.made_with, error.into()));
                if can_never_be && self.confirmed == 0 && !self.is_resumed {
                    return Happened::Hopeless;
                }
                return Happened::Ended;
            }
            other => {
                debug!(
                    ?service,
                    ?instance,
                    event = other.as_str(),
                    error = why,
                    "registration"
                );
                self.error = why.or(self.error.take());
            }
        }
        Happened::Goes
    }

    /// Whether this is why a record was not left to the next agent, where none can be.
    fn is_withdrawn_instead(&self, error: &Error) -> bool {
        let is_handed_over = self.shared.keeps_records() && self.confirmed > 0;
        is_handed_over && error.kind() == ErrorKind::Unsupported
    }

    pub(super) fn retry_after(&mut self, pause: Duration) {
        self.retry_at = Some(self.shared.now() + pause);
    }

    /// Tries again what has failed.
    pub(super) fn retry(&mut self) {
        self.retry_at = None;
        if !self.held.is_over {
            return;
        }
        match self.shared.register(self.wanted(), self.declaration.ttl) {
            Ok(guard) => self.held = Held::new(guard, self.change),
            Err(error) => {
                self.error = Some(error.to_string());
                self.retry_after(SLOW_RETRY);
            }
        }
    }

    /// As [`deregister`](Self::deregister) for a caller, who is answered in time.
    pub(super) async fn deregister_in_time(self) {
        let within = self.shared.settings.confirm_within * 4 / 5;
        self.deregister(Some(within)).await;
    }

    /// Withdraws the record, and shows that it is gone. What that takes beyond `within` is done in the background, as another one may be
    /// registered in its place.
    pub(super) async fn deregister(self, within: Option<Duration>) -> Entry {
        let Self {
            shared,
            slot,
            commands,
            held,
            previous,
            left_behind,
            confirmed,
            ..
        } = self;
        // Those who ask for something know at once that it is leaving.
        drop(commands);
        for record in left_behind {
            shared.withdraw_unkept(record);
        }
        let ending = Arc::clone(&shared);
        let withdrawing = shared.tasks.spawn(async move {
            let (current, ()) = tokio::join!(ending.end(held.guard, confirmed > 0), async {
                if let Some(guard) = previous {
                    // Its error has been logged.
                    let _ = ending.end(guard, true).await;
                }
            });
            current
        });
        let withdrawn = match within {
            Some(within) => timeout(within, withdrawing)
                .await
                .map_err(|_| unwithdrawn(within)),
            None => Ok(withdrawing.await),
        };
        let error = match withdrawn {
            Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(error))) => Some(error.report().to_string()),
            Ok(Err(bug)) => Some(bug.to_string()),
            Err(late) => Some(late),
        };
        slot.view.send_modify(|view| {
            view.unconfirmed_since = None;
            view.entry.stage = Stage::Deregistered;
            view.entry.drain_deadline = None;
            view.entry.updated_at = SystemTime::now();
            view.entry.error = error;
        });
        slot.entry()
    }
}

/// Why a record may still be at the registry, if that gives no reason.
pub(crate) fn unwithdrawn(within: Duration) -> String {
    format!(
        "the registry has not confirmed within {within:?} that it is withdrawn: the agent goes on trying, and it expires otherwise"
    )
}
