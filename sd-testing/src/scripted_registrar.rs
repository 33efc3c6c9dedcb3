//! A registrar whose answers a test scripts, and which remembers its calls.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use sd_core::port::{Attempt, Limits, Liveness, Registration, Renewed};
use sd_core::sync::lock;
use sd_core::{Error, ErrorKind, Instance, RecordId, Registrar, Result};
use tokio::sync::watch;
use tokio::time::Instant;

/// The outcome of a scripted call.
#[derive(Clone, Debug, Default)]
pub enum Answer {
    /// It succeeds.
    #[default]
    Succeed,
    /// It fails.
    Fail(Error),
    /// It succeeds after this long.
    SucceedAfter(Duration),
    /// It fails after this long.
    FailAfter(Duration, Error),
    /// It never returns.
    Hang,
    /// It panics, as a backend with a mistake does.
    Panic,
}

impl Answer {
    #[expect(clippy::panic, reason = "the test asks for it")]
    pub(super) async fn give(self) -> Result<()> {
        match self {
            Self::Succeed => Ok(()),
            Self::Fail(error) => Err(error),
            Self::SucceedAfter(delay) => {
                tokio::time::sleep(delay).await;
                Ok(())
            }
            Self::FailAfter(delay, error) => {
                tokio::time::sleep(delay).await;
                Err(error)
            }
            Self::Hang => std::future::pending().await,
            Self::Panic => panic!("it was written so"),
        }
    }
}

/// The operations of a registrar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// `register`
    Register,
    /// `renew`
    Renew,
    /// `update`
    Update,
    /// `withdraw`
    Withdraw,
    /// `release`
    Release,
    /// `abandoned`, which has no outcome.
    Abandoned,
}

/// One call of a [`ScriptedRegistrar`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Call {
    /// When it was made.
    pub at: Instant,
    /// The operation.
    pub op: Op,
    /// The record to write, for `register` and `update`.
    pub instance: Option<Instance>,
    /// What `register` was told besides.
    pub attempt: Option<Attempt>,
}

/// A [`Registrar`] with scripted answers. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct ScriptedRegistrar {
    shared: Arc<Shared>,
    limits: Limits,
    verify_every: Option<Duration>,
    session: Option<Duration>,
}

#[derive(Debug)]
struct Shared {
    answers: Mutex<BTreeMap<Op, Answers>>,
    calls: watch::Sender<Vec<Call>>,
    lost: watch::Sender<Option<Error>>,
    /// How often the session has ended, and why it did last.
    ends: watch::Sender<(usize, Option<Error>)>,
}

#[derive(Debug, Default)]
struct Answers {
    next: VecDeque<Answer>,
    then: Answer,
}

impl Default for ScriptedRegistrar {
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared {
                answers: Mutex::default(),
                calls: watch::Sender::new(Vec::new()),
                lost: watch::Sender::new(None),
                ends: watch::Sender::default(),
            }),
            limits: Limits::new(Self::TTL, Self::RECORD_BYTES),
            verify_every: None,
            session: None,
        }
    }
}

impl ScriptedRegistrar {
    /// The times-to-live that it accepts and grants: 1 s to 10 min.
    pub const TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(10 * 60);
    /// The largest record that it accepts, in bytes.
    pub const RECORD_BYTES: usize = 4096;

    /// Says that one write may take this long.
    #[must_use]
    pub fn with_attempt(mut self, attempt: Duration) -> Self {
        self.limits = self.limits.with_attempt(attempt);
        self
    }

    /// Keeps permanent records, to be verified this often. By default it keeps records on leases.
    #[must_use]
    pub fn with_permanent_records(mut self, verify_every: Duration) -> Self {
        self.verify_every = Some(verify_every);
        self
    }

    /// Keeps all records in one session with this time-to-live, whatever is asked for. [`lose_all`](Self::lose_all) ends it.
    #[must_use]
    pub fn with_session(mut self, ttl: Duration) -> Self {
        self.session = Some(ttl);
        self
    }

    /// Queues this answer to a call of `op`.
    pub fn answer_next(&self, op: Op, answer: Answer) {
        self.answers().entry(op).or_default().next.push_back(answer);
    }

    /// Answers calls of `op` in this way once the queued answers are used up. By default calls succeed.
    pub fn answer_all(&self, op: Op, answer: Answer) {
        self.answers().entry(op).or_default().then = answer;
    }

    /// Tells every registration of now that its record is lost, as when the session ends that kept them all.
    pub fn lose_all(&self, error: Error) {
        self.shared.ends.send_modify(|(ends, why)| {
            *ends += 1;
            *why = Some(error);
        });
    }

    /// Tells one registration that its record is lost.
    pub fn lose(&self, error: Error) {
        self.shared.lost.send_replace(Some(error));
    }

    /// Every call so far.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.borrow().clone()
    }

    /// The calls of `op` so far.
    pub fn calls_of(&self, op: Op) -> Vec<Call> {
        let calls = self.shared.calls.borrow();
        calls.iter().filter(|call| call.op == op).cloned().collect()
    }

    /// Waits until `op` has been called this often, and returns all its calls. Cancel-safe. Has no deadline of its own.
    pub async fn called(&self, op: Op, times: usize) -> Vec<Call> {
        let mut seen = self.shared.calls.subscribe();
        let enough = |calls: &Vec<Call>| calls.iter().filter(|call| call.op == op).count() >= times;
        // Cannot fail: `self` holds the sender.
        let _ = seen.wait_for(enough).await;
        self.calls_of(op)
    }

    async fn call(
        &self,
        op: Op,
        instance: Option<&Instance>,
        attempt: Option<&Attempt>,
    ) -> Result<()> {
        self.note(op, instance, attempt);
        let answer = {
            let mut answers = self.answers();
            let answers = answers.entry(op).or_default();
            let next = answers.next.pop_front();
            next.unwrap_or_else(|| answers.then.clone())
        };
        answer.give().await
    }

    fn note(&self, op: Op, instance: Option<&Instance>, attempt: Option<&Attempt>) {
        let call = Call {
            at: Instant::now(),
            op,
            instance: instance.cloned(),
            attempt: attempt.copied(),
        };
        self.shared.calls.send_modify(|calls| calls.push(call));
    }

    fn answers(&self) -> MutexGuard<'_, BTreeMap<Op, Answers>> {
        // Every change is one push or pop.
        let answers = &self.shared.answers;
        lock(answers)
    }
}

#[async_trait]
impl Registrar for ScriptedRegistrar {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The bytes of its metadata.
    fn record_bytes(&self, record: &Instance) -> Result<usize> {
        let metadata = record.metadata().iter();
        Ok(metadata.map(|(key, value)| key.len() + value.len()).sum())
    }

    async fn register(
        &self,
        record: &Instance,
        attempt: &Attempt,
    ) -> Result<Box<dyn Registration>> {
        self.call(Op::Register, Some(record), Some(attempt)).await?;
        Ok(Box::new(ScriptedRegistration {
            ends_before: self.shared.ends.borrow().0,
            registrar: self.clone(),
            liveness: match (self.verify_every, self.session) {
                (Some(verify_every), _) => Liveness::Permanent { verify_every },
                (None, Some(ttl)) => Liveness::Session { ttl },
                (None, None) => Liveness::Lease { ttl: attempt.ttl },
            },
        }))
    }

    async fn withdraw(&self, _record: &RecordId) -> Result<()> {
        self.call(Op::Withdraw, None, None).await
    }

    fn abandoned(&self, _record: &RecordId) {
        self.note(Op::Abandoned, None, None);
    }

    async fn release(&self, _record: &RecordId) -> Result<()> {
        self.call(Op::Release, None, None).await
    }
}

#[derive(Debug)]
struct ScriptedRegistration {
    registrar: ScriptedRegistrar,
    ends_before: usize,
    liveness: Liveness,
}

#[async_trait]
impl Registration for ScriptedRegistration {
    fn liveness(&self) -> Liveness {
        self.liveness
    }

    async fn renew(&self) -> Result<Renewed> {
        self.registrar.call(Op::Renew, None, None).await?;
        Ok(Renewed::new(self.liveness))
    }

    async fn update(&self, record: &Instance) -> Result<()> {
        self.registrar.call(Op::Update, Some(record), None).await
    }

    async fn lost(&self) -> Error {
        let shared = &self.registrar.shared;
        let (mut lost, mut ends) = (shared.lost.subscribe(), shared.ends.subscribe());
        let told = tokio::select! {
            Ok(told) = lost.wait_for(Option::is_some) => told.clone(),
            Ok(told) = ends.wait_for(|(ends, _)| *ends > self.ends_before) => {
                return told.1.clone().unwrap_or_else(|| Error::new(ErrorKind::LeaseLost, "scripted"));
            }
            else => None,
        };
        match told {
            Some(error) => {
                // One loss ends one registration.
                shared.lost.send_replace(None);
                error
            }
            None => std::future::pending().await,
        }
    }
}
