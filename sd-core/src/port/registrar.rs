//! The writing port: keep one record at the server.

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::{Error, Result};
use crate::model::instance::{Instance, RecordId};
use crate::model::overriding::Override;

/// What a server accepts, and how long it may take. Core checks it before it sends anything.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The times-to-live that the server accepts.
    pub ttl: RangeInclusive<Duration>,
    /// The largest record, and the largest value of a candidate, in bytes as the backend writes them.
    pub record_bytes: usize,
    /// How long one write of a record may take: one `register`, `renew`, `update` or `withdraw`. A write that takes longer is
    /// given up and tried again. Where records live on leases, it must be so short that several writes fit into a time-to-live.
    /// Default `None`: a third of the time-to-live, but at least 500 ms and at most 2 s.
    pub attempt: Option<Duration>,
}

/// The bounds of one write where the backend states none.
const SHORTEST_ATTEMPT: Duration = Duration::from_millis(500);
const LONGEST_ATTEMPT: Duration = Duration::from_secs(2);

impl Limits {
    /// Limits with this range of times-to-live, and this largest record in bytes.
    pub fn new(ttl: RangeInclusive<Duration>, record_bytes: usize) -> Self {
        Self {
            ttl,
            record_bytes,
            attempt: None,
        }
    }

    /// Sets how long one write of a record may take.
    #[must_use]
    pub fn with_attempt(mut self, attempt: Duration) -> Self {
        self.attempt = Some(attempt);
        self
    }

    /// How long one write of a record with this time-to-live may take.
    pub(crate) fn attempt_within(&self, ttl: Duration) -> Duration {
        self.attempt
            .unwrap_or_else(|| (ttl / 3).clamp(SHORTEST_ATTEMPT, LONGEST_ATTEMPT))
    }

    pub(crate) fn check_ttl(&self, op: &'static str, ttl: Duration) -> Result<()> {
        if self.ttl.contains(&ttl) {
            return Ok(());
        }
        let (shortest, longest) = (self.ttl.start(), self.ttl.end());
        Err(Error::invalid_input(
            op,
            format!("the ttl {ttl:?} is outside of {shortest:?} to {longest:?}"),
        ))
    }
}

/// Checks a registration against what its backend accepts.
pub(crate) fn check_registration(
    registrar: &dyn Registrar,
    record: &Instance,
    ttl: Duration,
) -> Result<()> {
    const OP: &str = "register";
    registrar.limits().check_ttl(OP, ttl)?;
    check_record(OP, registrar, record)
}

/// Checks whether a backend can write a record, and whether the record is small enough.
pub(crate) fn check_record(
    op: &'static str,
    registrar: &dyn Registrar,
    record: &Instance,
) -> Result<()> {
    let (bytes, most) = (
        registrar.record_bytes(record)?,
        registrar.limits().record_bytes,
    );
    if bytes > most {
        return Err(Error::invalid_input(
            op,
            format!(
                "the record has {bytes} bytes, at most {most} are allowed: shorten tags or metadata"
            ),
        ));
    }
    Ok(())
}

/// What core tells a registrar of one attempt to register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// How long the record should outlive its last renewal. The server may grant another time-to-live, which then applies.
    pub ttl: Duration,
    /// Whether no other process can hold the id: the id [holds the incarnation](Instance::id_holds_incarnation), and this is
    /// the first attempt to write it. A registrar that would look up the holder of an id may then skip the lookup. If an
    /// earlier registration of the same instance left a record, this attempt may fail; the next one has `false` here and must
    /// succeed.
    pub id_is_new: bool,
    /// Whether the server has confirmed this registration before. A record of another run under the id is then that of a
    /// successor, even where a [check of the address](Registrar::register) would make it ours.
    pub was_confirmed: bool,
}

impl Attempt {
    /// An attempt with this time-to-live, under an id that may have a holder.
    pub fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            id_is_new: false,
            was_confirmed: false,
        }
    }

    /// Says that the server has confirmed this registration before.
    #[must_use]
    pub fn with_was_confirmed(mut self) -> Self {
        self.was_confirmed = true;
        self
    }

    /// Says that no other process can hold the id.
    #[must_use]
    pub fn with_id_is_new(mut self) -> Self {
        self.id_is_new = true;
        self
    }
}

/// Writes records to one server. A registrar makes one attempt and reports its outcome; core retries and renews.
#[async_trait]
pub trait Registrar: Debug + Send + Sync + 'static {
    /// What the server accepts.
    fn limits(&self) -> &Limits;

    /// How many bytes the record has as this backend writes it. Before anything is sent, core compares that with
    /// [`Limits::record_bytes`].
    ///
    /// # Errors
    /// `InvalidInput` if the record can never be written, whatever its size.
    fn record_bytes(&self, record: &Instance) -> Result<usize>;

    /// Writes a record and returns when the server has confirmed it. Idempotent for each [`RecordId`]. The caller has checked the
    /// time-to-live and the record against [`limits`](Self::limits).
    ///
    /// A record of another incarnation is never replaced while it lives, with one exception. A server may find out by itself whether
    /// the record's TCP address is served, for example with a check of Consul's agent. Such a record belongs to whatever listens at the
    /// address now. The first attempt of a run at the same address replaces it, if it still is as it was found.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) if another incarnation has a live record under this id.
    /// [`Error::held_by`] names it, so that core can tell an earlier run at the same address from another instance.
    ///
    /// # Cancel safety
    /// Not cancel-safe. After a dropped call, or an error of unknown outcome, the record may exist:
    /// [`withdraw`](Self::withdraw) removes it.
    async fn register(&self, record: &Instance, attempt: &Attempt)
    -> Result<Box<dyn Registration>>;

    /// Removes this incarnation's record, never another one. Succeeds if there is none. Readers learn that the record was
    /// withdrawn on purpose, if the server has a way to tell them. Also cleans up after a `register` of unknown outcome.
    ///
    /// # Errors
    /// When the server did not confirm. What becomes of the record then depends on its [`Liveness`].
    ///
    /// # Cancel safety
    /// After a dropped call the record may still be there: call again.
    async fn withdraw(&self, record: &RecordId) -> Result<()>;

    /// Says that what kept this incarnation's record has ended, as with the runtime that it ran on: nothing renews or withdraws the record
    /// any more. A registrar by whose own session it would stay nevertheless begins to withdraw it. Does not wait, and is called outside
    /// a runtime as well. By default there is nothing to do: the record ends as its [`Liveness`] says.
    fn abandoned(&self, record: &RecordId) {
        let _ = record;
    }

    /// Forgets this incarnation's record and leaves it at the server, for another client that registers the same incarnation.
    /// Returns when no earlier write of the record can still reach the server. By default there is nothing to do.
    ///
    /// # Errors
    /// `Unsupported` if the record ends with this client.
    ///
    /// # Cancel safety
    /// A dropped call leaves the record at the server.
    async fn release(&self, record: &RecordId) -> Result<()> {
        let _ = record;
        Ok(())
    }
}

/// One record at the server. Dropping this handle changes nothing at the server: core withdraws the record, or what its
/// [`Liveness`] says becomes of it.
#[async_trait]
pub trait Registration: Debug + Send + Sync + 'static {
    /// How the record stays alive, as granted when it was registered.
    fn liveness(&self) -> Liveness;

    /// Extends the record's life. The answer proves that the record is there and belongs to this incarnation, and says what an
    /// [`Operator`](crate::port::Operator) says of it.
    ///
    /// # Errors
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost), `NotFound` or `Conflict` if the record is gone or belongs to another
    /// incarnation: register again. After any other error the record may still be there.
    ///
    /// # Cancel safety
    /// A dropped call may have extended the record's life.
    async fn renew(&self) -> Result<Renewed>;

    /// Replaces the record in place: readiness, weight, tags, metadata. An override stays as it is. The caller has checked that service,
    /// id and incarnation are the same, and the record against [`Registrar::limits`].
    ///
    /// # Errors
    /// As [`renew`](Self::renew).
    ///
    /// # Cancel safety
    /// After a dropped call either record may be stored.
    async fn update(&self, record: &Instance) -> Result<()>;

    /// Returns when the server reports that the record is lost. Where a session keeps several records alive, each of their registrations
    /// reports its end. Never returns, which is the default, if the server does not report losses: the next renewal then finds out.
    /// Cancel-safe: what a dropped call missed, the next one returns.
    async fn lost(&self) -> Error {
        std::future::pending().await
    }
}

/// What a renewal found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Renewed {
    /// How the record stays alive.
    pub liveness: Liveness,
    /// What an operator says of the record in place of its owner.
    pub overridden: Option<Override>,
}

impl Renewed {
    /// A record that stays alive like this, and of which no operator says anything.
    pub fn new(liveness: Liveness) -> Self {
        Self {
            liveness,
            overridden: None,
        }
    }

    /// Sets what an operator says of the record.
    #[must_use]
    pub fn with_override(mut self, said: Option<Override>) -> Self {
        self.overridden = said;
        self
    }
}

/// How a record stays alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Liveness {
    /// A lease: the server removes the record unless it is renewed within `ttl`.
    Lease {
        /// As the server granted it.
        ttl: Duration,
    },
    /// A session that the client library or a socket keeps alive. A renewal only verifies the record.
    Session {
        /// How long the server keeps the session without a sign of life.
        ttl: Duration,
    },
    /// The record stays until it is withdrawn or removed, whatever becomes of its owner.
    Permanent {
        /// How often to verify that the record is still there.
        verify_every: Duration,
    },
}

/// Keeps us from spinning if a server grants hardly any time.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(3);

impl Liveness {
    /// How often to renew: three times within a time-to-live, never more often than every 3 ms. A permanent record is verified every
    /// `verify_every`.
    pub fn renew_every(self) -> Duration {
        match self {
            Self::Lease { ttl } | Self::Session { ttl } => ttl / 3,
            Self::Permanent { verify_every } => verify_every,
        }
        .max(SHORTEST_INTERVAL)
    }

    /// What becomes of a record whose owner does nothing more for it, for people.
    pub(crate) fn when_abandoned(self) -> String {
        match self {
            Self::Lease { ttl } => {
                format!("the server removes it unless it is renewed within {ttl:?}")
            }
            Self::Session { ttl } => {
                format!("the server removes it {ttl:?} after its session ends")
            }
            Self::Permanent { .. } => {
                "it stays until it is withdrawn or removed by an operator".to_owned()
            }
        }
    }
}
