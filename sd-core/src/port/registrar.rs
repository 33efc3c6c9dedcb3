//! The writing port: keep one record at the server.

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::{Error, Result};
use crate::model::instance::{Instance, RecordId};

/// What a server accepts. Core checks it before anything is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The times-to-live that may be asked for.
    pub ttl: RangeInclusive<Duration>,
    /// The largest record, or value of a candidate, in bytes as the backend writes it.
    pub record_bytes: usize,
}

impl Limits {
    /// Limits with this range of times-to-live and this size of a record in bytes.
    pub fn new(ttl: RangeInclusive<Duration>, record_bytes: usize) -> Self {
        Self { ttl, record_bytes }
    }

    /// Checks what a registration asks for.
    ///
    /// # Errors
    /// `InvalidInput` with the limit.
    pub fn check(&self, instance: &Instance, options: &RegisterOptions) -> Result<()> {
        const OP: &str = "register";
        self.check_ttl(OP, options.ttl)?;
        self.check_size(OP, instance)
    }

    pub(crate) fn check_ttl(&self, op: &'static str, ttl: Duration) -> Result<()> {
        if self.ttl.contains(&ttl) {
            return Ok(());
        }
        let (shortest, longest) = (self.ttl.start(), self.ttl.end());
        Err(Error::invalid_input(
            op,
            format!("a ttl of {ttl:?} is outside of {shortest:?} to {longest:?}"),
        ))
    }

    pub(crate) fn check_size(&self, op: &'static str, instance: &Instance) -> Result<()> {
        let bytes = serde_json::to_vec(instance)
            .map_err(|e| Error::invalid_input(op, e.to_string()))?
            .len();
        if bytes > self.record_bytes {
            return Err(Error::invalid_input(
                op,
                format!(
                    "the record has {bytes} bytes, at most {} are allowed: shorten tags or metadata",
                    self.record_bytes
                ),
            ));
        }
        Ok(())
    }
}

/// What a registration asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegisterOptions {
    /// How long the record outlives its last renewal. Default [`DEFAULT_TTL`](Self::DEFAULT_TTL); what the server grants rules.
    pub ttl: Duration,
    /// Whether nobody else can hold the id, since it [holds the incarnation](Instance::id_holds_incarnation), and this is the first
    /// attempt to write it: a registrar that has to look up who holds an id may then leave that out. If an earlier registration of the
    /// same instance has left a record, this attempt may fail; the next one says false here and must succeed. A registry sets this
    /// for each attempt, whatever it was. Default false.
    pub id_is_new: bool,
}

impl Default for RegisterOptions {
    fn default() -> Self {
        Self {
            ttl: Self::DEFAULT_TTL,
            id_is_new: false,
        }
    }
}

impl RegisterOptions {
    /// The time-to-live that a registration asks for by default.
    pub const DEFAULT_TTL: Duration = Duration::from_secs(10);

    /// Asks for this time-to-live.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }
}

/// Writes records to one server. An implementation sends one attempt and reports; core retries and renews.
#[async_trait]
pub trait Registrar: Debug + Send + Sync + 'static {
    /// What the server accepts.
    fn limits(&self) -> &Limits;

    /// Writes a record and returns when the server confirmed it. Idempotent per [`RecordId`]. Not cancel-safe: after a dropped
    /// call or an error of unknown outcome the record may exist, and [`withdraw`](Self::withdraw) removes it.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) if another incarnation's record is live under this id.
    async fn register(
        &self,
        record: &Instance,
        options: &RegisterOptions,
    ) -> Result<Box<dyn Registration>>;

    /// Removes this incarnation's record, and no other's. Absent is fine. Readers learn that it was on purpose, where the
    /// server has a way to tell them. Also cleans up a `register` whose outcome is unknown.
    ///
    /// # Errors
    /// When the server did not confirm; the time-to-live then removes the record.
    async fn withdraw(&self, record: &RecordId) -> Result<()>;
}

/// One record kept at the server. Dropping it changes nothing there: core withdraws, or the time-to-live does.
#[async_trait]
pub trait Registration: Debug + Send + Sync + 'static {
    /// How the record stays alive, as granted when it was registered.
    fn liveness(&self) -> Liveness;

    /// Extends the record's life and proves that it is there and ours.
    ///
    /// # Errors
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost), `NotFound` or `Conflict` if it is gone or another's: register anew. Any
    /// other error leaves it open.
    async fn renew(&self) -> Result<Liveness>;

    /// Replaces the record in place, same incarnation: readiness, weight, tags, metadata.
    ///
    /// # Errors
    /// As [`renew`](Self::renew).
    async fn update(&self, record: &Instance) -> Result<()>;

    /// Returns when the server tells that the record is lost; never, where it does not tell. Cancel-safe.
    async fn lost(&self) -> Error;
}

/// How a record stays alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Liveness {
    /// Gone unless renewed within `ttl`.
    Lease {
        /// As granted by the server.
        ttl: Duration,
    },
    /// A session that the client library or a socket keeps; a renewal only verifies.
    Session {
        /// How long the server keeps it without a sign of life.
        ttl: Duration,
    },
    /// Stays until withdrawn.
    Permanent {
        /// How often to look whether it is still there.
        verify_every: Duration,
    },
}

/// A server that grants next to nothing must not make us spin.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(3);

impl Liveness {
    /// How often to renew: three times within a time-to-live.
    pub fn renew_every(self) -> Duration {
        match self {
            Self::Lease { ttl } | Self::Session { ttl } => ttl / 3,
            Self::Permanent { verify_every } => verify_every,
        }
        .max(SHORTEST_INTERVAL)
    }
}
