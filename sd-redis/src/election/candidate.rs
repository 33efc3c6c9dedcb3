//! A candidate at the server: where it stands, and what wakes it.
//!
//! The message that a candidate is the first wakes it, and needs no further read: the server published it in the step that made it so. All
//! else is found by reading, which happens when the lease of the one before it may have ended, and now and then. So a message that is lost,
//! or that the server may not publish, costs time and nothing else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sd_backend::{CloseSignal, Place, Queued, TermRecorder, Woken};
use sd_core::port::{CandidateId, Predecessor, Ticket};
use sd_core::sync::lock;
use sd_core::{Error, ErrorKind, FencingToken, Result};
use tokio::time::{Instant, sleep_until};

use crate::client::Client;
use crate::client::answer::Answers;
use crate::client::script::Script;
use crate::election::changes::Changes;
use crate::election::keys::ElectionKeys;
use crate::election::news::News;
use crate::election::{scripts, term_record};

/// How much later than the end of a lease it is looked for, so that the server has reached it as well.
pub(crate) const LEASE_SLACK: Duration = Duration::from_millis(5);

/// An entry in the queue that is ours, as long as it is there.
#[derive(Debug)]
pub(crate) struct RedisCandidate {
    pub(crate) client: Arc<Client>,
    pub(crate) keys: ElectionKeys,
    pub(crate) id: CandidateId,
    /// Proves that the entry is of this participation.
    pub(crate) owner: String,
    pub(crate) ttl: Duration,
    /// The history in which it joined, and the number that it got there.
    pub(crate) token: FencingToken,
    /// What is told from before the last look on, until that is waited on.
    changes: Mutex<Option<Changes>>,
    /// When to look again although nothing was told.
    look_again: Mutex<Instant>,
    /// Whether it was the first once. It is until it is gone.
    has_led: AtomicBool,
}

/// What a confirmation has found.
#[derive(Debug)]
pub(crate) enum Confirmed {
    First,
    Behind,
    Gone(Error),
}

impl RedisCandidate {
    /// The candidate of a ticket that has joined with `token`. `changes` are told from before that on.
    pub(crate) fn new(
        client: &Arc<Client>,
        keys: ElectionKeys,
        ticket: &Ticket,
        owner: &str,
        token: FencingToken,
        changes: Changes,
    ) -> Self {
        Self {
            client: Arc::clone(client),
            keys,
            id: ticket.id,
            owner: owner.to_owned(),
            ttl: ticket.ttl,
            token,
            changes: Mutex::new(Some(changes)),
            look_again: Mutex::new(Instant::now()),
            has_led: AtomicBool::new(false),
        }
    }

    /// Runs a script about this entry, which is given whose it is, and then the rest. Returns its first word and the rest of its answer.
    pub(crate) async fn run(
        &self,
        op: &'static str,
        script: &Script,
        keys: &[&str],
        rest: &[&[u8]],
    ) -> Result<(String, Answers)> {
        let (id, token) = (self.id.to_string(), self.token.value().to_string());
        let entry = [
            self.keys.changes.as_bytes(),
            id.as_bytes(),
            self.owner.as_bytes(),
            self.token.domain().as_bytes(),
            token.as_bytes(),
        ];
        let args = [&entry, rest].concat();
        let mut said = self.client.run(op, script, keys, &args).await?;
        Ok((said.text()?, said))
    }

    /// Renews the lease, and finds out whether the entry is there and ours.
    pub(crate) async fn confirm(&self, op: &'static str) -> Result<Confirmed> {
        let (keys, ttl) = (self.keys.queue(), micros(self.ttl));
        let rest = [ttl.as_bytes()];
        let (said, _) = self.run(op, &scripts::CONFIRM, &keys, &rest).await?;
        Ok(match said.as_str() {
            "first" => {
                // A look would find nothing else.
                self.look_again_in(self.poll_interval());
                Confirmed::First
            }
            "behind" if self.has_led() => Confirmed::Gone(self.overtaken(op)),
            "behind" => Confirmed::Behind,
            why => Confirmed::Gone(self.loss(op, why)),
        })
    }

    /// Why the entry is gone, by what a script says.
    pub(crate) fn loss(&self, op: &'static str, why: &str) -> Error {
        let (id, order) = (self.id, &self.keys.order);
        let (kind, what) = match why {
            "missing" => (ErrorKind::NotFound, "was removed, or its lease ended"),
            "history" => (
                ErrorKind::NotFound,
                "was lost with the data of the election, which begins from the beginning",
            ),
            "replaced" => (
                ErrorKind::Conflict,
                "is now that of another participation with this id",
            ),
            _ => (ErrorKind::InvalidData, "is told of in an unknown way"),
        };
        Error::new(kind, op).because(format!("{id} in {order} {what}"))
    }

    /// Candidates lead in the order of joining, so that no other one can come before the first one.
    fn overtaken(&self, op: &'static str) -> Error {
        let why = format!(
            "{} in {} was the first, and another one is before it again: the server has lost what it had confirmed",
            self.id, self.keys.order
        );
        Error::new(ErrorKind::LeaseLost, op).because(why)
    }

    fn has_led(&self) -> bool {
        self.has_led.load(Ordering::Relaxed)
    }

    fn poll_interval(&self) -> Duration {
        self.client.config().poll_interval
    }

    fn look_again_in(&self, delay: Duration) {
        *lock(&self.look_again) = Instant::now() + delay;
    }
}

impl Queued for RedisCandidate {
    /// How long it waits is known from the last look.
    type Ahead = ();
    type Watch = Changes;

    fn signal(&self) -> &CloseSignal {
        &self.client.signal
    }

    fn token(&self) -> FencingToken {
        self.token.clone()
    }

    async fn look(&self, op: &'static str) -> Result<Place<()>> {
        let keys = self.keys.queue();
        let (said, mut rest) = self.run(op, &scripts::LOOK, &keys, &[]).await?;
        let mut again = self.poll_interval();
        let place = match said.as_str() {
            "first" => {
                self.has_led.store(true, Ordering::Relaxed);
                Place::First
            }
            "behind" if self.has_led() => Place::Gone(self.overtaken(op)),
            "behind" => {
                // Of one without a lease nothing is known but that it is not the first.
                if let Ok(left) = rest.number() {
                    again = again.min(Duration::from_micros(left) + LEASE_SLACK);
                }
                Place::Behind(())
            }
            why => Place::Gone(self.loss(op, why)),
        };
        self.look_again_in(again);
        Ok(place)
    }

    async fn begin_term(&self, recorder: &TermRecorder) -> Result<Option<Predecessor>> {
        term_record::begin(recorder, self).await
    }

    /// Only where nothing was told when it was last looked, something may have been missed.
    async fn watch(&self, _op: &'static str, _ahead: Option<&()>) -> Result<Option<Changes>> {
        if let Some(changes) = lock(&self.changes).take() {
            return Ok(Some(changes));
        }
        let changes = Changes::follow(&self.client, &self.keys).await?;
        *lock(&self.changes) = Some(changes);
        Ok(None)
    }

    fn covers(watch: &Changes, _ahead: Option<&()>) -> bool {
        !watch.have_ended()
    }

    async fn woken(
        &self,
        op: &'static str,
        watch: &mut Changes,
        _ahead: Option<&()>,
    ) -> Result<Woken> {
        let again = *lock(&self.look_again);
        loop {
            tokio::select! {
                message = watch.next(op) => {
                    let message = match message {
                        Ok(message) => message,
                        Err(closed) if closed.kind() == ErrorKind::Closed => return Err(closed),
                        Err(_) => return Ok(Woken::Unsure),
                    };
                    let Some(news) = News::parse(&message) else {
                        continue;
                    };
                    if news.is_first(self.id, self.token.value()) {
                        self.has_led.store(true, Ordering::Relaxed);
                        self.look_again_in(self.poll_interval());
                        return Ok(Woken::First);
                    }
                    if news.may_have_lost(self.id) {
                        return Ok(Woken::Unsure);
                    }
                }
                () = sleep_until(again) => return Ok(Woken::Unsure),
            }
        }
    }
}

/// As the scripts count.
pub(crate) fn micros(time: Duration) -> String {
    time.as_micros().to_string()
}
