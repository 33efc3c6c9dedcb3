//! One participation in an election, from joining to having left: a state machine without I/O.
//!
//! [`Machine::step`] is told what happened and when, and answers with what to do. It owns every decision: when to renew, whether an
//! answer came too late, when a term begins and that it ends exactly once. The [participation](crate::campaign::participation)
//! carries its actions out, over a real server or a simulated one.
//!
//! ```text
//! Joining ──► Waiting ──► Taking ──► Leading ──► Stopping ──► Leaving ──► Done
//!                         (grace, and   (AtRisk)   (belief is over, the work
//!                          a fresh                  has until the hand-over)
//!                          confirmation)
//! ```

use std::mem;
use std::time::Duration;

use sd_core::clock::Moment;
use sd_core::port::{Confirmation, Safety, Standing};
use sd_core::retry::{Backoff, Retry};
use sd_core::{Error, ErrorKind, FencingToken, Result};

use crate::campaign::term_rules::{Confirmed, TermRules, attempt_limit, renew_every};
use crate::end_reason::EndReason;
use crate::flaw::{Flaw, flawed, unless};

/// How long one try to join may take. Backends have limits of their own for each request.
const JOIN_LIMIT: Duration = Duration::from_secs(15);
/// How long one try to leave may take.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);
/// Leaving is given up this long after the lease must have ended: the server has then removed the entry itself.
const LEAVE_SLACK: Duration = Duration::from_secs(5);
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(2);
/// What a server asks to wait for before joining is cut to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is under way for the machine, at most one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Join,
    Standing,
    Confirm,
    Leave,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// Nothing but time.
    Tick,
    Joined(Result<()>),
    Standing(Result<Standing>),
    Confirmed(Result<Confirmation>),
    Left(Result<()>),
    /// The application gives the term up and has stopped.
    Resign,
    /// The owner has dropped the term, and its work has stopped.
    Cancel,
    /// The registry is being closed. Told once more when the end that follows from it was told: the work has its time to stop from
    /// there.
    Close,
    /// A reader saw the deadline pass while we meant to extend it.
    Expired,
}

/// What to do.
#[derive(Debug)]
pub(crate) enum Action {
    Begin(Call),
    /// Drop the call that is under way. Its answer must not be heard.
    Abandon(Call),
    Tell(Notice),
}

/// What changed for those who watch.
#[derive(Clone, Debug)]
pub(crate) enum Notice {
    /// In the queue.
    Waiting {
        ahead: Option<usize>,
    },
    /// First in the queue, but not yet leading.
    Taking,
    /// Why it does not go on; `None` when it does again.
    Trouble(Option<Error>),
    /// The term begins. Believe in it from here to the deadline.
    Elected {
        token: FencingToken,
        deadline: Moment,
    },
    /// Belief goes on to this deadline.
    Extended {
        deadline: Moment,
    },
    AtRisk(Error),
    Recovered,
    /// The term is over. Stop believing before anything else is done.
    Ended(EndReason),
}

/// A call that is made again and again.
#[derive(Debug)]
struct Repeated {
    call: Call,
    running_since: Option<Moment>,
    due: Option<Moment>,
    backoff: Backoff,
}

impl Repeated {
    fn new(call: Call) -> Self {
        Self {
            call,
            running_since: None,
            due: None,
            backoff: Backoff::new(FIRST_DELAY, LONGEST_DELAY),
        }
    }

    /// Asks for the call at `at`, or sooner if that was asked for.
    fn want(&mut self, at: Moment) {
        if self.running_since.is_none() {
            self.due = Some(self.due.map_or(at, |due| due.min(at)));
        }
    }

    fn want_later(&mut self, now: Moment) {
        let delay = self.backoff.next_delay();
        self.due = Some(now + delay);
    }

    fn is_due(&self, now: Moment) -> bool {
        self.due.is_some_and(|due| due <= now)
    }
}

#[derive(Debug)]
enum Phase {
    Joining,
    Waiting,
    /// First in the queue.
    Taking {
        token: FencingToken,
        from: Moment,
    },
    Leading {
        token: FencingToken,
    },
    /// The term is over; its work may go on stopping until then.
    Stopping {
        until: Moment,
    },
    Leaving {
        give_up_at: Moment,
    },
    Done,
}

#[derive(Debug)]
pub(crate) struct Machine {
    rules: TermRules,
    phase: Phase,
    actions: Vec<Action>,
    join: Repeated,
    standing: Repeated,
    confirm: Repeated,
    leave: Repeated,
    seen: Option<Standing>,
    confirmed: Option<Confirmed>,
    /// When the application last showed that it makes progress.
    alive_at: Moment,
    /// Why it does not go on.
    trouble: Option<Error>,
    joined_once: bool,
    /// Whether no term before ours can be believed in any more.
    settled: bool,
    ended: Option<EndReason>,
    left: Result<()>,
}

impl Machine {
    /// A participation that joins with its first step.
    pub(crate) fn new(rules: TermRules) -> Self {
        let mut confirm = Repeated::new(Call::Confirm);
        confirm.backoff = Backoff::new(rules.ttl / 24, rules.ttl / 12);
        let mut join = Repeated::new(Call::Join);
        join.due = Some(Moment::ZERO);
        Self {
            rules,
            phase: Phase::Joining,
            actions: Vec::new(),
            join,
            standing: Repeated::new(Call::Standing),
            confirm,
            leave: Repeated::new(Call::Leave),
            seen: None,
            confirmed: None,
            alive_at: Moment::ZERO,
            trouble: None,
            joined_once: false,
            settled: false,
            ended: None,
            left: Ok(()),
        }
    }

    /// What the server promises; known before the first join.
    pub(crate) fn set_promise(&mut self, promise: Safety) {
        self.rules.promise = Some(promise);
    }

    /// The standing that was told last.
    pub(crate) fn seen(&self) -> Option<Standing> {
        self.seen.clone()
    }

    /// How long the application has to stop.
    pub(crate) fn stop_margin(&self) -> Duration {
        self.rules.stop_margin()
    }

    /// Whether our leaving tells the next leader that no earlier leader believes any more. Not if we leave within the takeover delay:
    /// our word would stand for that of a leader that may not know yet that its term is over.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled
    }

    /// Why it cannot lead, as soon as that is known. Something may still have to be left.
    pub(crate) fn hopeless(&self) -> Option<&Error> {
        match &self.ended {
            Some(EndReason::Fatal(error)) => Some(error),
            _ => None,
        }
    }

    /// Whether everything is over.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// Why it ended, and whether the server confirmed that the entry was left.
    pub(crate) fn into_end(self) -> (Option<EndReason>, Result<()>) {
        (self.ended, self.left)
    }

    /// When the next step is needed if nothing happens before. The confirmation's limit and the deadline are among these.
    pub(crate) fn wake_at(&self, now: Moment) -> Option<Moment> {
        let phase = match &self.phase {
            // After that it is a confirmation that is waited for.
            Phase::Taking { from, .. } => Some(*from).filter(|from| *from > now),
            Phase::Leading { .. } => self.deadline(),
            Phase::Stopping { until } => Some(*until),
            Phase::Leaving { give_up_at } => Some(*give_up_at),
            Phase::Joining | Phase::Waiting | Phase::Done => None,
        };
        let calls = [&self.join, &self.standing, &self.confirm, &self.leave];
        let due = calls.iter().filter_map(|repeated| repeated.due);
        let limits = calls.iter().filter_map(|repeated| {
            let limit = self.limit(repeated.call)?;
            repeated.running_since.map(|since| since + limit)
        });
        due.chain(limits).chain(phase).min()
    }

    /// Takes what happened, at a moment that was read afterwards. `alive_at` is when the application last said that it makes
    /// progress.
    pub(crate) fn step(&mut self, now: Moment, event: Event, alive_at: Moment) -> Vec<Action> {
        #[cfg(feature = "simulation")]
        let event = self.misheard(event);
        let alive_at = unless(Flaw::ProgressIgnored, alive_at, now);
        self.alive_at = self.alive_at.max(alive_at);
        // Before the event: what comes after the deadline changes nothing any more.
        if !(flawed(Flaw::LateAnswerRevives) && matches!(event, Event::Confirmed(_))) {
            self.check_deadline(now);
        }
        match event {
            Event::Tick => {}
            Event::Joined(outcome) => self.joined(now, outcome),
            Event::Standing(outcome) => self.told_standing(now, outcome),
            Event::Confirmed(outcome) => self.told_confirmed(now, outcome),
            Event::Left(outcome) => self.told_left(now, outcome),
            Event::Resign => self.stop(now, EndReason::Resigned),
            Event::Cancel => self.stop(now, EndReason::Cancelled),
            Event::Close => self.close(now),
            Event::Expired => self.end(now, EndReason::LeaseExpired(self.trouble.clone())),
        }
        self.abandon_overdue(now);
        self.pass_time(now);
        self.begin_due(now);
        mem::take(&mut self.actions)
    }

    fn joined(&mut self, now: Moment, outcome: Result<()>) {
        self.join.running_since = None;
        if !matches!(self.phase, Phase::Joining) {
            return;
        }
        match outcome {
            Ok(()) => {
                self.trouble_is_over();
                self.phase = Phase::Waiting;
                self.standing.want(now);
                self.confirm.want(now);
            }
            Err(error) if is_lost(&error) => self.end(now, EndReason::of_lost_entry(error)),
            Err(error) if is_hopeless(&error) || self.rules.is_refused(&error) => {
                self.end(now, EndReason::Fatal(error));
            }
            Err(error) => {
                self.join.want_later(now);
                if let Retry::After(pause) = error.kind().retry() {
                    self.join.due = self.join.due.max(Some(now + pause.min(LONGEST_PAUSE)));
                }
                self.in_trouble(error);
            }
        }
    }

    fn told_standing(&mut self, now: Moment, outcome: Result<Standing>) {
        self.standing.running_since = None;
        if !self.has_entry() {
            return;
        }
        let standing = match outcome {
            Ok(standing) => standing,
            Err(error) if is_lost(&error) => Standing::Gone(error),
            Err(error) if is_hopeless(&error) => return self.end(now, EndReason::Fatal(error)),
            Err(error) => {
                self.standing.want_later(now);
                // It may be that we are cut off: find out now, and not with the next renewal.
                self.confirm.want(now);
                return self.in_trouble(error);
            }
        };
        self.standing.backoff.reset();
        self.standing.want(now);
        self.seen = Some(standing.clone());
        match standing {
            Standing::Waiting { ahead } => {
                if matches!(self.phase, Phase::Leading { .. }) {
                    let error = Error::new(ErrorKind::Conflict, "lead")
                        .because("other candidates are ahead of us in the queue");
                    self.end(now, EndReason::EntryGone(error));
                } else {
                    self.phase = Phase::Waiting;
                    self.tell(Notice::Waiting { ahead });
                }
            }
            Standing::First { token, before } => match &self.phase {
                Phase::Waiting => {
                    let delay = self.rules.takeover_delay(before);
                    self.phase = Phase::Taking {
                        token,
                        from: now + delay,
                    };
                    self.tell(Notice::Taking);
                }
                Phase::Taking { token: held, .. } | Phase::Leading { token: held }
                    if *held != token =>
                {
                    let error = Error::new(ErrorKind::Conflict, "lead")
                        .because("the token of our entry has changed");
                    self.end(now, EndReason::EntryGone(error));
                }
                _ => {}
            },
            Standing::Gone(error) => self.end(now, EndReason::of_lost_entry(error)),
        }
    }

    fn told_confirmed(&mut self, now: Moment, outcome: Result<Confirmation>) {
        let Some(sent) = self.confirm.running_since.take() else {
            return;
        };
        if !self.has_entry() {
            return;
        }
        match outcome {
            Ok(answer) if !self.rules.is_long_enough(answer.ttl) => {
                let error = Error::invalid_input(
                    "lead",
                    format!(
                        "the granted ttl of {:?} leaves no room to renew after a clock error of {}, {:?} by which the server may end a \
                         lease early, and a stop margin of {:?}: ask for a longer ttl",
                        answer.ttl,
                        self.rules.config.clock_error,
                        self.rules.early_expiry(),
                        self.rules.stop_margin()
                    ),
                );
                self.end(now, EndReason::Fatal(error));
            }
            Ok(answer) => {
                let confirmed = self.rules.confirmed(sent, now, answer, self.confirmed);
                let before = self.deadline();
                self.confirmed = Some(confirmed);
                self.confirm.backoff.reset();
                // Not later than a third of the time-to-live, unless it would prove nothing, and not all candidates at once.
                let every = renew_every(confirmed.ttl).mul_f64(1.0 - 0.1 * fastrand::f64());
                self.confirm.due = Some((sent + every).max(confirmed.proves_from));
                self.trouble_is_over();
                match (&self.phase, self.deadline()) {
                    (Phase::Leading { .. }, Some(deadline)) if Some(deadline) != before => {
                        self.tell(Notice::Extended { deadline });
                    }
                    _ => {}
                }
            }
            Err(error) if is_lost(&error) => self.end(now, EndReason::of_lost_entry(error)),
            Err(error) if is_hopeless(&error) => self.end(now, EndReason::Fatal(error)),
            Err(error) => self.not_confirmed(now, error),
        }
    }

    fn not_confirmed(&mut self, now: Moment, error: Error) {
        if matches!(self.phase, Phase::Leading { .. }) && self.rules.steps_down_on_error() {
            return self.end(now, EndReason::SteppedDown(error));
        }
        self.confirm.want_later(now);
        self.in_trouble(error);
    }

    fn told_left(&mut self, now: Moment, outcome: Result<()>) {
        self.leave.running_since = None;
        match outcome {
            Err(error) if !is_hopeless(&error) && !self.is_shut_out(&error) => {
                self.left = Err(error);
                self.leave.want_later(now);
            }
            outcome => {
                self.left = outcome;
                self.phase = Phase::Done;
                self.leave.due = None;
            }
        }
    }

    /// Whether the server lets us neither join nor leave: then it has taken nothing of ours, or will end it by itself.
    fn is_shut_out(&self, error: &Error) -> bool {
        self.hopeless().is_some() && self.confirmed.is_none() && self.rules.is_refused(error)
    }

    /// Ends everything on behalf of the term's owner, whose work has stopped.
    fn stop(&mut self, now: Moment, reason: EndReason) {
        self.end(now, reason);
        if matches!(self.phase, Phase::Stopping { .. }) {
            self.leave(now);
        }
    }

    /// Ends everything, and gives work that goes on the time to stop.
    fn close(&mut self, now: Moment) {
        if let Phase::Stopping { until } = &mut self.phase {
            let margin = unless(Flaw::ClosedAtOnce, self.rules.stop_margin(), Duration::ZERO);
            *until = (*until).min(now + margin);
        } else {
            self.end(now, EndReason::Cancelled);
        }
    }

    /// Ends the term, if there is one, and what is kept at the server.
    fn end(&mut self, now: Moment, reason: EndReason) {
        match mem::replace(&mut self.phase, Phase::Done) {
            // Nothing of ours can be at the server.
            Phase::Joining if !self.joined_once || flawed(Flaw::UnknownJoinNotLeft) => {
                self.drop_entry();
            }
            Phase::Leading { .. } => {
                self.tell(Notice::Ended(reason.clone()));
                let until = self.confirmed.and_then(|confirmed| confirmed.hand_over);
                self.phase = Phase::Stopping {
                    until: unless(Flaw::LeftBeforeHandOver, until.unwrap_or(now), now),
                };
                self.drop_entry();
            }
            Phase::Joining | Phase::Waiting | Phase::Taking { .. } => {
                self.ended = Some(reason.clone());
                self.leave(now);
            }
            over => {
                self.phase = over;
                return;
            }
        }
        self.ended = Some(reason);
    }

    fn leave(&mut self, now: Moment) {
        self.drop_entry();
        if flawed(Flaw::CancelledWithoutLeaving) {
            self.phase = Phase::Done;
            return;
        }
        let is_gone = matches!(
            self.ended,
            Some(EndReason::EntryGone(_) | EndReason::SessionLost(_))
        );
        let lasts = if is_gone {
            // There is nothing left but perhaps a lease that is not renewed.
            Duration::ZERO
        } else {
            let confirmed = self.confirmed;
            self.rules
                .gone_within(confirmed.map_or(self.rules.ttl, |confirmed| confirmed.ttl))
        };
        self.phase = Phase::Leaving {
            give_up_at: now + lasts + LEAVE_SLACK,
        };
        self.leave.want(now);
    }

    /// Lets go of the entry: nothing is renewed from here on.
    fn drop_entry(&mut self) {
        for repeated in [&mut self.join, &mut self.standing, &mut self.confirm] {
            repeated.due = None;
            if repeated.running_since.take().is_some() {
                self.actions.push(Action::Abandon(repeated.call));
            }
        }
    }

    fn check_deadline(&mut self, now: Moment) {
        if matches!(self.phase, Phase::Leading { .. })
            && self.deadline().is_none_or(|deadline| now >= deadline)
        {
            let why = self.trouble.clone();
            self.end(now, EndReason::LeaseExpired(why));
        }
    }

    /// A call that takes too long has failed.
    fn abandon_overdue(&mut self, now: Moment) {
        for call in [Call::Join, Call::Confirm, Call::Leave] {
            let Some(limit) = self.limit(call) else {
                continue;
            };
            let repeated = self.repeated(call);
            if repeated
                .running_since
                .is_none_or(|since| now < since + limit)
            {
                continue;
            }
            self.actions.push(Action::Abandon(call));
            let error = Error::new(ErrorKind::Timeout, "elect")
                .because(format!("no answer within {limit:?}"));
            match call {
                Call::Join => self.joined(now, Err(error)),
                Call::Confirm => self.told_confirmed(now, Err(error)),
                Call::Leave | Call::Standing => self.told_left(now, Err(error)),
            }
        }
    }

    /// What is due because of the time alone.
    fn pass_time(&mut self, now: Moment) {
        match &self.phase {
            Phase::Taking { token, from } if now >= *from => {
                self.settled = true;
                match self.confirmed {
                    Some(confirmed) if self.rules.is_fresh(confirmed, now) => {
                        let token = token.clone();
                        self.lead(now, token);
                    }
                    // One is under way or due.
                    _ => {}
                }
            }
            Phase::Stopping { until } if now >= *until => self.leave(now),
            Phase::Leaving { give_up_at } if now >= *give_up_at => {
                self.phase = Phase::Done;
                self.leave.due = None;
                if self.leave.running_since.take().is_some() {
                    self.actions.push(Action::Abandon(Call::Leave));
                }
            }
            _ => {}
        }
    }

    fn lead(&mut self, now: Moment, token: FencingToken) {
        #[cfg(feature = "simulation")]
        self.assume_confirmed(now);
        self.alive_at = now;
        self.phase = Phase::Leading {
            token: token.clone(),
        };
        if let Some(deadline) = self.deadline() {
            self.tell(Notice::Elected { token, deadline });
        }
        // It may have begun before the term did.
        if let Some(error) = self.trouble.clone() {
            self.tell(Notice::AtRisk(error));
        }
    }

    fn begin_due(&mut self, now: Moment) {
        for call in [Call::Join, Call::Standing, Call::Confirm, Call::Leave] {
            if !self.repeated(call).is_due(now) {
                continue;
            }
            if call == Call::Confirm && self.is_stalled(now) {
                let error = Error::new(ErrorKind::Timeout, "renew")
                    .because("the leader makes no progress, so its term is not renewed: call Term::alive from the work");
                self.confirm.want_later(now);
                self.in_trouble(error);
                continue;
            }
            self.joined_once |= call == Call::Join;
            let repeated = self.repeated(call);
            repeated.due = None;
            repeated.running_since = Some(now);
            self.actions.push(Action::Begin(call));
        }
    }

    /// Whether the application should have shown progress and has not.
    fn is_stalled(&self, now: Moment) -> bool {
        matches!(self.phase, Phase::Leading { .. })
            && self
                .rules
                .config
                .progress_within
                .is_some_and(|within| now > self.alive_at + within)
    }

    fn in_trouble(&mut self, error: Error) {
        let leading = matches!(self.phase, Phase::Leading { .. });
        match (leading, self.trouble.replace(error.clone())) {
            (true, None) => self.tell(Notice::AtRisk(error)),
            (false, _) => self.tell(Notice::Trouble(Some(error))),
            (true, Some(_)) => {}
        }
    }

    fn trouble_is_over(&mut self) {
        if self.trouble.take().is_some() {
            let leading = matches!(self.phase, Phase::Leading { .. });
            self.tell(if leading {
                Notice::Recovered
            } else {
                Notice::Trouble(None)
            });
        }
    }

    fn tell(&mut self, notice: Notice) {
        self.actions.push(Action::Tell(notice));
    }

    fn has_entry(&self) -> bool {
        matches!(
            self.phase,
            Phase::Waiting | Phase::Taking { .. } | Phase::Leading { .. }
        )
    }

    /// When belief ends unless another confirmation comes.
    fn deadline(&self) -> Option<Moment> {
        let hand_over = self.confirmed?.hand_over?;
        Some(self.rules.deadline(hand_over))
    }

    fn limit(&self, call: Call) -> Option<Duration> {
        match call {
            _ if flawed(Flaw::AnswerAwaitedForEver) => None,
            Call::Join => Some(JOIN_LIMIT),
            Call::Standing => None,
            Call::Confirm => Some(attempt_limit(
                self.confirmed
                    .map_or(self.rules.ttl, |confirmed| confirmed.ttl),
            )),
            Call::Leave => Some(LEAVE_LIMIT),
        }
    }

    fn repeated(&mut self, call: Call) -> &mut Repeated {
        match call {
            Call::Join => &mut self.join,
            Call::Standing => &mut self.standing,
            Call::Confirm => &mut self.confirm,
            Call::Leave => &mut self.leave,
        }
    }
}

/// Whether the entry is gone for good.
pub(crate) fn is_lost(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::LeaseLost | ErrorKind::NotFound | ErrorKind::Conflict
    )
}

fn is_hopeless(error: &Error) -> bool {
    error.kind().retry() == Retry::Never
}

#[cfg(feature = "simulation")]
mod flaws;
#[cfg(test)]
mod tests;
