//! One term, as every part of an application can check it.

pub(crate) mod validity;

use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sd_core::clock::{Clock, Moment};
use sd_core::port::CandidateId;
use sd_core::{ElectionName, Error, ErrorKind, FencingToken, Result};
use tokio::sync::{mpsc, oneshot, watch};

use crate::end_reason::EndReason;
use crate::term::validity::Validity;

/// A new value for observers, and who waits until it is written.
pub(crate) struct Proclamation {
    pub(crate) value: Arc<[u8]>,
    pub(crate) done: oneshot::Sender<Result<()>>,
}

/// What a term's readers and its driver share.
pub(crate) struct Shared {
    pub(crate) name: ElectionName,
    pub(crate) id: CandidateId,
    pub(crate) token: FencingToken,
    pub(crate) validity: Validity,
    pub(crate) stop_margin: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    /// When the application last said that it makes progress, in nanoseconds from the clock's start.
    pub(crate) alive_at: Arc<AtomicU64>,
    pub(crate) proclaim: mpsc::Sender<Proclamation>,
}

/// A read-only view of one term. Cheap to clone: give a clone to each part that does the leader's work. Holding one keeps nothing
/// alive.
#[derive(Clone)]
pub struct Term {
    pub(crate) shared: Arc<Shared>,
    pub(crate) told_deadline: watch::Receiver<Moment>,
    pub(crate) ended: watch::Receiver<Option<EndReason>>,
}

impl Term {
    /// The election's name.
    pub fn name(&self) -> &ElectionName {
        &self.shared.name
    }

    /// The id of the participation that won.
    pub fn id(&self) -> CandidateId {
        self.shared.id
    }

    /// The fencing token. Send it along with every write, and let the store refuse lower tokens.
    pub fn token(&self) -> &FencingToken {
        &self.shared.token
    }

    /// Whether the term may be believed in now. Compares the deadline with the clock; no timer is involved, so the answer is right even
    /// after a pause of the process. Once false, it stays false.
    ///
    /// The process may be paused between this answer and what it does next. Only a store that compares [`token`](Self::token) is safe
    /// from that.
    pub fn is_leader(&self) -> bool {
        self.shared.validity.holds(self.shared.clock.now())
    }

    /// How long the term may be believed in unless it is confirmed again. Zero when the term is over.
    pub fn remaining(&self) -> Duration {
        let now = self.shared.clock.now();
        if self.shared.validity.holds(now) {
            self.deadline().since(now)
        } else {
            Duration::ZERO
        }
    }

    /// When belief ends unless the term is confirmed again, on the registry's clock. If the term is over, the last deadline that it had.
    pub fn deadline(&self) -> Moment {
        self.shared.validity.deadline()
    }

    /// Waits until the [deadline](Self::deadline) differs from `known`, and returns it. Use it to pass each deadline on to another
    /// process. The deadline moves to an earlier moment if the server grants less than before. If the term ends first, this never
    /// returns.
    ///
    /// # Cancel safety
    /// A dropped call loses nothing.
    pub async fn deadline_moved(&self, known: Moment) -> Moment {
        let mut deadline = self.told_deadline.clone();
        match deadline.wait_for(|deadline| *deadline != known).await {
            Ok(deadline) => *deadline,
            Err(_) => pending().await,
        }
    }

    /// When the server may hand the term to another candidate: the [stop margin](crate::TermConfig::stop_margin) after the deadline.
    /// The leader's work must have stopped by then.
    pub fn hand_over(&self) -> Moment {
        self.deadline() + self.shared.stop_margin
    }

    /// Waits until the term has ended, and returns why. This is a notification only: call [`is_leader`](Self::is_leader) before you act.
    ///
    /// # Cancel safety
    /// A dropped call loses nothing.
    pub async fn lost(&self) -> EndReason {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(EndReason::Cancelled),
            Err(_) => EndReason::Cancelled,
        }
    }

    /// Why the term ended; `None` while its end was not reported.
    pub fn ended(&self) -> Option<EndReason> {
        self.ended.borrow().clone()
    }

    /// Reports that the application makes progress, for [`progress_within`](crate::TermConfig::progress_within). Cheap.
    pub fn alive(&self) {
        let now = self.shared.clock.now().since_start();
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.shared.alive_at.fetch_max(nanos, Ordering::Relaxed);
    }

    /// Replaces the value that observers see.
    ///
    /// # Errors
    /// `InvalidInput` if the server does not accept the value; `Closed` if the term is over; otherwise why the server did not write it.
    ///
    /// # Cancel safety
    /// A dropped call may still be carried out while the term lasts.
    pub async fn proclaim(&self, value: impl AsRef<[u8]>) -> Result<()> {
        let over = || Error::new(ErrorKind::Closed, "proclaim").because("the term is over");
        let (done, confirmed) = oneshot::channel();
        let proclamation = Proclamation {
            value: value.as_ref().into(),
            done,
        };
        if !self.is_leader() {
            return Err(over());
        }
        tokio::select! {
            biased;
            sent = self.shared.proclaim.send(proclamation) => sent.map_err(|_| over())?,
            _ = self.lost() => return Err(over()),
        }
        tokio::select! {
            biased;
            confirmed = confirmed => confirmed.unwrap_or_else(|_| Err(over())),
            _ = self.lost() => Err(over()),
        }
    }
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Term")
            .field("name", &self.shared.name)
            .field("id", &self.shared.id)
            .field("token", &self.shared.token)
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use sd_core::clock::BootClock;

    use super::*;

    #[test]
    fn a_deadline_is_told_also_when_the_server_grants_less_than_before() {
        let [earlier, later] =
            [10, 20].map(|seconds| Moment::from_start(Duration::from_secs(seconds)));
        let (told, told_deadline) = watch::channel(later);
        let (_ended, ended) = watch::channel(None);
        let term = Term {
            shared: Arc::new(Shared {
                name: ElectionName::new("reports").unwrap(),
                id: CandidateId::random(),
                token: FencingToken::new("a", 1),
                validity: Validity::until(later),
                stop_margin: Duration::from_secs(1),
                clock: Arc::new(BootClock),
                alive_at: Arc::default(),
                proclaim: mpsc::channel(1).0,
            }),
            told_deadline,
            ended,
        };
        assert_eq!(term.deadline_moved(later).now_or_never(), None);
        told.send_replace(earlier);
        assert_eq!(term.deadline_moved(later).now_or_never(), Some(earlier));
    }
}
