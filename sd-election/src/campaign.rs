//! What a campaign knows, and what it tells of its state and its events.

mod calls;
pub(crate) mod driver;
pub(crate) mod machine;
pub(crate) mod participation;
mod running_term;
pub(crate) mod term_rules;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sd_core::clock::Clock;
use sd_core::events::EventLog;
use sd_core::port::Ticket;
use sd_core::{ElectionName, Elector, Error};
use tokio::sync::watch;
use tracing::debug;

use crate::config::TermConfig;
use crate::end_reason::EndReason;
use crate::event::{CandidatePhase, CandidateState, ElectionEvent};
use crate::instrument;

/// A campaign of a candidate. All of them have everything but the number in common.
#[derive(Clone, Debug)]
pub(crate) struct Campaign {
    pub(crate) elector: Arc<dyn Elector>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) name: ElectionName,
    pub(crate) value: Arc<[u8]>,
    pub(crate) ttl: Duration,
    pub(crate) config: TermConfig,
    /// Whether a campaign has ever joined.
    pub(crate) was_admitted: Arc<AtomicBool>,
    /// Which campaign of its candidate this is. Only the last one that began sets the candidate's state.
    pub(crate) number: u64,
    pub(crate) last_number: Arc<AtomicU64>,
    pub(crate) state: watch::Sender<CandidateState>,
    pub(crate) events: Arc<EventLog<ElectionEvent>>,
}

impl Campaign {
    pub(crate) fn ticket(&self) -> Ticket {
        let ticket = Ticket::new(self.name.clone(), Arc::clone(&self.value), self.ttl);
        if self.config.takeover_delay.is_zero() {
            ticket
        } else {
            ticket.with_term_record()
        }
    }

    pub(crate) fn set_phase(&self, phase: CandidatePhase) {
        let since = self.clock.now();
        self.state.send_if_modified(|state| {
            let is_last = self.is_last();
            if is_last {
                *state = CandidateState {
                    phase,
                    since,
                    error: None,
                };
            }
            is_last
        });
    }

    /// Returns how many are ahead, as far as is known.
    pub(crate) fn set_error(&self, error: Option<Error>) -> Option<usize> {
        self.state.send_if_modified(|state| {
            let is_last = self.is_last();
            if is_last {
                state.error = error;
            }
            is_last
        });
        match self.state.borrow().phase {
            CandidatePhase::Waiting { ahead } => ahead,
            _ => None,
        }
    }

    fn is_last(&self) -> bool {
        self.number == self.last_number.load(Ordering::Relaxed)
    }

    /// A participation has ended before it led.
    pub(crate) fn lost(&self, reason: &EndReason) {
        debug!(name = %self.name, reason = %reason, "participation ended");
        self.emit(ElectionEvent::Lost {
            reason: reason.clone(),
        });
    }

    pub(crate) fn emit(&self, event: ElectionEvent) {
        instrument::event(&self.name, &event);
        self.events.tell(event);
    }
}
