//! One campaign: participations one after another, until one has led to a term that is over, or the campaign is cancelled.
//!
//! Like all below it, this knows the elector's port and a clock, but no timers or tasks of a particular runtime. So the simulation
//! runs this very code in virtual time.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use sd_core::port::Closing;
use sd_core::retry::Backoff;
use sd_core::{Error, ErrorKind, Result};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info_span};

use crate::campaign::Campaign;
use crate::campaign::participation::{Participation, Won, refuse};
use crate::cancellation::cancelled;
use crate::end_reason::EndReason;
use crate::event::CandidatePhase;
use crate::flaw::{Flaw, flawed};
use crate::leadership::{Control, Leadership};

/// The pause before the next participation, after one whose entry was lost before it led.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A campaign that has begun.
pub(crate) struct Begun {
    /// Gets the leadership, or why the campaign cannot win.
    pub(crate) winning: oneshot::Receiver<Result<Leadership>>,
    /// Ends it.
    pub(crate) cancel: CancellationToken,
}

impl Campaign {
    /// Begins one. The future drives it to its end and must be spawned.
    pub(crate) fn begin(
        mut self,
        closing: Option<Closing>,
    ) -> (Begun, impl Future<Output = ()> + Send + 'static) {
        self.number = self.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        let (left, left_seen) = watch::channel(None);
        let (won, winning) = oneshot::channel();
        let control = Control {
            resign: CancellationToken::new(),
            cancel: CancellationToken::new(),
            left: left_seen,
        };
        let cancel = control.cancel.clone();
        let span = info_span!("election", name = self.name.as_str());
        let driven = async move {
            let driven = self.drive(&control, closing.as_ref(), Some(won));
            // A backend's mistake must not leave a candidate behind that seems to wait or to lead.
            let outcome = AssertUnwindSafe(driven).catch_unwind().await;
            let outcome = outcome.unwrap_or_else(|_| {
                let error = Error::new(ErrorKind::Closed, "elect").because("the campaign panicked");
                error!(error = %error.report(), "the campaign panicked; its entry expires with its time-to-live");
                Err(error)
            });
            self.set_phase(CandidatePhase::Idle);
            left.send_replace(Some(outcome));
        };
        (Begun { winning, cancel }, driven.instrument(span))
    }

    /// Returns whether the server has confirmed that nothing is left of it.
    async fn drive(
        &self,
        control: &Control,
        closing: Option<&Closing>,
        mut won: Won,
    ) -> Result<()> {
        let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        // Asked for once: what a server promises does not change.
        let mut promise = None;
        loop {
            let participation = Participation::new(self, control, closing, &mut won, &mut promise);
            let outcome = participation.run().await;
            match outcome.reason {
                Some(EndReason::EntryGone(_) | EndReason::SessionLost(_))
                    if !outcome.led && !flawed(Flaw::LossEndsCampaign) =>
                {
                    let again = self.clock.now() + pauses.next_delay();
                    tokio::select! {
                        biased;
                        () = cancelled(&control.cancel, closing) => {}
                        () = self.clock.sleep_until(again) => continue,
                    }
                }
                Some(EndReason::Fatal(error)) => refuse(&mut won, error),
                _ => refuse(
                    &mut won,
                    Error::new(ErrorKind::Closed, "campaign").because("the registry was closed"),
                ),
            }
            return outcome.left;
        }
    }
}
