//! One participation in an election: carries out what the [machine](crate::campaign::machine) decides, from joining to having left.

use std::future::{Future, pending};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sd_core::clock::{Clock, Moment};
use sd_core::port::{Closing, Entry, Safety, Ticket};
use sd_core::{Error, FencingToken, Result};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info, warn};

use crate::campaign::Campaign;
use crate::campaign::calls::{Calls, outcome};
use crate::campaign::machine::{Action, Call, Event, Machine, Notice};
use crate::campaign::running_term::RunningTerm;
use crate::campaign::term_rules::TermRules;
use crate::cancellation::close_requested;
use crate::end_reason::EndReason;
use crate::event::{CandidatePhase, ElectionEvent};
use crate::flaw::{Flaw, flawed};
use crate::leadership::{Control, Leadership};
use crate::term::validity::{Over, Validity};
use crate::term::{Shared, Term};

/// How a participation ended.
pub(crate) struct Outcome {
    pub(crate) reason: Option<EndReason>,
    /// Whether it had come to a term.
    pub(crate) led: bool,
    /// Whether the server has confirmed that nothing of it is left.
    pub(crate) left: Result<()>,
}

/// Where the victory is reported to.
pub(crate) type Won = Option<oneshot::Sender<Result<Leadership>>>;

/// Tells the caller, unless it was told before, that the campaign cannot win.
pub(crate) fn refuse(won: &mut Won, error: Error) {
    if let Some(won) = won.take() {
        // It may have stopped waiting.
        let _ = won.send(Err(error));
    }
}

pub(crate) struct Participation<'a> {
    campaign: &'a Campaign,
    control: &'a Control,
    closing: Option<&'a Closing>,
    won: &'a mut Won,
    promise: &'a mut Option<Safety>,
    ticket: Ticket,
    machine: Machine,
    calls: Calls,
    entry: Option<Arc<dyn Entry>>,
    running: Option<RunningTerm>,
    told_to_stop: bool,
    told_to_close: bool,
    /// Whether the caller has been told that it cannot lead.
    told_hopeless: bool,
    /// When the machine was last told what happened.
    now: Moment,
    /// When the application last said that it makes progress, in nanoseconds from the clock's start.
    alive_at: Arc<AtomicU64>,
}

impl<'a> Participation<'a> {
    pub(crate) fn new(
        campaign: &'a Campaign,
        control: &'a Control,
        closing: Option<&'a Closing>,
        won: &'a mut Won,
        promise: &'a mut Option<Safety>,
    ) -> Self {
        let rules = TermRules {
            ttl: campaign.ttl,
            config: campaign.config.clone(),
            promise: promise.clone(),
            was_admitted: campaign.was_admitted.load(Ordering::Relaxed),
        };
        Self {
            ticket: campaign.ticket(),
            machine: Machine::new(rules),
            campaign,
            control,
            closing,
            won,
            promise,
            calls: Calls::default(),
            entry: None,
            running: None,
            told_to_stop: false,
            told_to_close: false,
            told_hopeless: false,
            now: Moment::ZERO,
            alive_at: Arc::default(),
        }
    }

    pub(crate) async fn run(mut self) -> Outcome {
        self.campaign.set_phase(CandidatePhase::Joining);
        let mut event = Event::Tick;
        loop {
            let now = self.campaign.clock.now();
            self.now = now;
            let alive_at =
                Moment::from_start(Duration::from_nanos(self.alive_at.load(Ordering::Relaxed)));
            let actions = self.machine.step(now, event, alive_at);
            let at_once = self.carry_out(actions);
            self.tell_hopeless();
            if self.machine.is_done() {
                break;
            }
            event = match at_once {
                Some(event) => event,
                None => self.next_event(now).await,
            };
        }
        let led = self.running.is_some();
        let (reason, left) = self.machine.into_end();
        if let (false, Some(reason)) = (led || self.told_hopeless, &reason) {
            self.campaign.lost(reason);
        }
        if let Err(error) = &left {
            warn!(name = %self.ticket.name, id = %self.ticket.id, error = %error.report(), "could not leave the election");
        }
        Outcome { reason, led, left }
    }

    /// Tells the caller at once if it cannot lead. Whatever may be left of it is left while nothing waits for that.
    fn tell_hopeless(&mut self) {
        let Some(error) = self.machine.hopeless().filter(|_| self.running.is_none()) else {
            return;
        };
        if std::mem::replace(&mut self.told_hopeless, true) {
            return;
        }
        self.campaign.set_phase(CandidatePhase::Leaving);
        self.campaign.set_error(Some(error.clone()));
        self.campaign.lost(&EndReason::Fatal(error.clone()));
        refuse(self.won, error.clone());
    }

    async fn next_event(&mut self, now: Moment) -> Event {
        let clock = self.campaign.clock.as_ref();
        let may_proclaim = self.calls.proclaim.is_none();
        tokio::select! {
            biased;
            () = stop_requested(self.control), if !self.told_to_stop => {
                self.told_to_stop = true;
                if self.control.resign.is_cancelled() { Event::Resign } else { Event::Cancel }
            }
            () = close_requested(self.closing), if !self.told_to_close => {
                self.told_to_close = true;
                Event::Close
            }
            joined = outcome(&mut self.calls.join) => Event::Joined(joined.map(|(entry, promise)| {
                *self.promise = Some(promise.clone());
                self.machine.set_promise(promise);
                self.entry = Some(entry);
                self.campaign.was_admitted.store(true, Ordering::Relaxed);
            })),
            confirmed = outcome(&mut self.calls.confirm) => Event::Confirmed(confirmed),
            standing = outcome(&mut self.calls.standing) => Event::Standing(standing),
            left = outcome(&mut self.calls.leave) => Event::Left(left),
            () = outcome(&mut self.calls.proclaim) => Event::Tick,
            Some(proclamation) = RunningTerm::next_proclamation(self.running.as_mut()), if may_proclaim => {
                if let Some(entry) = &self.entry {
                    self.calls.proclaim(Arc::clone(entry), proclamation, clock);
                }
                Event::Tick
            }
            () = sleep_until(clock, self.machine.wake_at(now)) => Event::Tick,
        }
    }

    /// Does what was decided. Returns what has to be decided before anything else happens.
    fn carry_out(&mut self, actions: Vec<Action>) -> Option<Event> {
        let mut at_once = None;
        for action in actions {
            match action {
                Action::Begin(call) => self.begin(call),
                Action::Abandon(call) => self.calls.abandon(call),
                Action::Tell(Notice::Elected { token, deadline }) => self.elected(token, deadline),
                Action::Tell(Notice::Extended { deadline }) => {
                    if self.extend(deadline) == Err(Over::Expired) {
                        at_once = Some(Event::Expired);
                    }
                }
                Action::Tell(Notice::Ended(reason)) => {
                    if let Some(running) = &self.running {
                        running.end(reason, Some(self.now));
                    }
                    if self.told_to_close {
                        at_once = Some(Event::Close);
                    }
                }
                Action::Tell(notice) => self.tell(notice),
            }
        }
        at_once
    }

    fn begin(&mut self, call: Call) {
        let elector = || Arc::clone(&self.campaign.elector);
        match (call, &self.entry) {
            (Call::Join, _) => {
                let (ticket, promise) = (self.ticket.clone(), self.promise.clone());
                self.calls.join(elector(), ticket, promise);
            }
            (Call::Leave, _) => {
                let mut ticket = self.ticket.clone();
                ticket.records_term &= self.machine.is_settled() || flawed(Flaw::GraceTakenForTerm);
                self.calls.leave(elector(), ticket);
            }
            (Call::Standing, Some(entry)) => {
                self.calls.standing(Arc::clone(entry), self.machine.seen());
            }
            (Call::Confirm, Some(entry)) => self.calls.confirm(Arc::clone(entry)),
            // The machine asks for these only once it has joined.
            (Call::Standing | Call::Confirm, None) => {}
        }
    }

    fn elected(&mut self, token: FencingToken, deadline: Moment) {
        let (name, id) = (self.ticket.name.clone(), self.ticket.id);
        info!(%name, %id, %token, "elected");
        self.campaign.set_phase(CandidatePhase::Leading {
            token: token.clone(),
        });
        let elected = ElectionEvent::Elected {
            id,
            token: token.clone(),
            deadline,
            at: self.now,
        };
        let (proclaim, proclamations) = mpsc::channel(1);
        let (deadline_told, told_deadline) = watch::channel(deadline);
        let (ended, ended_seen) = watch::channel(None);
        let shared = Arc::new(Shared {
            name,
            id,
            token,
            validity: Validity::until(deadline),
            stop_margin: self.machine.stop_margin(),
            clock: Arc::clone(&self.campaign.clock),
            alive_at: Arc::clone(&self.alive_at),
            proclaim,
        });
        let term = Term {
            shared: Arc::clone(&shared),
            told_deadline,
            ended: ended_seen,
        };
        self.running = Some(RunningTerm {
            campaign: self.campaign.clone(),
            term: shared,
            deadline_told,
            ended,
            proclamations,
        });
        if let Some(won) = self.won.take() {
            // If the caller has stopped waiting, the leadership is dropped here, and that cancels.
            let _ = won.send(Ok(Leadership {
                term,
                control: self.control.clone(),
            }));
        }
        // A listener that gets this finds that the owner has the leadership.
        self.campaign.emit(elected);
    }

    fn extend(&self, deadline: Moment) -> Result<(), Over> {
        if let Some(running) = &self.running {
            running.term.validity.extend(deadline)?;
            running.deadline_told.send_replace(deadline);
        }
        Ok(())
    }

    /// What changes neither belief nor the calls.
    fn tell(&self, notice: Notice) {
        let token = self
            .running
            .as_ref()
            .map(|running| running.term.token.clone());
        match (notice, token) {
            (Notice::Waiting { ahead }, _) => {
                self.campaign.set_phase(CandidatePhase::Waiting { ahead });
                self.campaign
                    .emit(ElectionEvent::Waiting { ahead, error: None });
            }
            (Notice::Taking, _) => {
                self.campaign.set_phase(CandidatePhase::Taking);
                self.campaign.emit(ElectionEvent::Taking);
            }
            (Notice::Trouble(error), _) => {
                if let Some(error) = &error {
                    debug!(name = %self.ticket.name, error = %error.report(), "cannot join or lead yet");
                }
                let ahead = self.campaign.set_error(error.clone());
                self.campaign.emit(ElectionEvent::Waiting { ahead, error });
            }
            (Notice::AtRisk(error), Some(token)) => {
                warn!(name = %self.ticket.name, %token, error = %error.report(), "leadership at risk");
                self.campaign.set_error(Some(error.clone()));
                self.campaign.emit(ElectionEvent::AtRisk { token, error });
            }
            (Notice::Recovered, Some(token)) => {
                info!(name = %self.ticket.name, %token, "leadership confirmed again");
                self.campaign.set_error(None);
                self.campaign.emit(ElectionEvent::Recovered { token });
            }
            _ => {}
        }
    }
}

async fn stop_requested(control: &Control) {
    tokio::select! {
        biased;
        () = control.resign.cancelled() => {}
        () = control.cancel.cancelled() => {}
    }
}

fn sleep_until(clock: &dyn Clock, at: Option<Moment>) -> impl Future<Output = ()> + use<> {
    let sleep = at.map(|at| clock.sleep_until(at));
    async move {
        match sleep {
            Some(sleep) => sleep.await,
            None => pending().await,
        }
    }
}
