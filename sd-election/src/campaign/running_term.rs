//! A term as its driver holds it, from its victory to the end of the participation.

use std::future::pending;
use std::sync::Arc;

use sd_core::clock::Moment;
use sd_core::{Error, ErrorKind};
use tokio::sync::{mpsc, watch};
use tracing::info;

use crate::campaign::Campaign;
use crate::end_reason::EndReason;
use crate::event::{CandidatePhase, ElectionEvent};
use crate::flaw::{Flaw, flawed};
use crate::term::{Proclamation, Shared};

/// A term that was told to its owner. Belief ends with this, whatever becomes of the driver.
pub(super) struct RunningTerm {
    pub(super) campaign: Campaign,
    pub(super) term: Arc<Shared>,
    pub(super) deadline_told: watch::Sender<Moment>,
    pub(super) ended: watch::Sender<Option<EndReason>>,
    pub(super) proclamations: mpsc::Receiver<Proclamation>,
}

impl RunningTerm {
    /// Ends it. Belief goes first, so that `now`, if it is not known, is read afterwards.
    pub(super) fn end(&self, reason: EndReason, now: Option<Moment>) {
        if !flawed(Flaw::BeliefWhileLeaving) {
            self.term.validity.end();
        }
        if self.ended.borrow().is_some() {
            return;
        }
        self.ended.send_replace(Some(reason.clone()));
        let (name, token) = (&self.term.name, self.term.token.clone());
        info!(%name, %token, %reason, "term ended");
        if flawed(Flaw::EndNotTold) {
            return;
        }
        self.campaign.set_phase(CandidatePhase::Leaving);
        let now = now.unwrap_or_else(|| self.campaign.clock.now());
        let at = now.min(self.term.validity.deadline());
        let ended = ElectionEvent::Ended { token, reason, at };
        if flawed(Flaw::EndToldTwice) {
            self.campaign.emit(ended.clone());
        }
        self.campaign.emit(ended);
    }

    /// The next value to proclaim. Pending while there is no term, and once it has ended.
    pub(super) async fn next_proclamation(running: Option<&mut Self>) -> Option<Proclamation> {
        match running {
            Some(running) if running.ended.borrow().is_none() => running.proclamations.recv().await,
            _ => pending().await,
        }
    }
}

impl Drop for RunningTerm {
    fn drop(&mut self) {
        let error = Error::new(ErrorKind::Closed, "lead")
            .because("the task that drives the term has ended");
        self.end(EndReason::Fatal(error), None);
    }
}
