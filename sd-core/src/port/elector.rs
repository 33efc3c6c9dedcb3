//! The ownership port: who of many candidates leads.
//!
//! An elector knows one server's protocol and decides nothing: whether a term is believed, renewed, given up or ended is decided
//! once, in `sd-election`. Users hold a `Candidate` of that crate.

use std::fmt::{self, Debug};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::clock::Moment;
use crate::error::{Error, ErrorKind, Result};
use crate::model::name::ElectionName;
use crate::model::token::FencingToken;
use crate::port::registrar::Limits;
use crate::port::safety::Safety;

/// Tells one participation in an election from every other: random, new for each. Written as 16 hexadecimal digits, and never
/// zero or greater than `i64::MAX`, so that a backend can use it as the id of a lease.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CandidateId(u64);

impl CandidateId {
    const LARGEST: u64 = i64::MAX as u64;

    /// A new random id.
    pub fn random() -> Self {
        Self(fastrand::u64(1..=Self::LARGEST))
    }

    /// The id of this value; `None` for zero and above `i64::MAX`.
    pub fn from_u64(value: u64) -> Option<Self> {
        (1..=Self::LARGEST).contains(&value).then_some(Self(value))
    }

    /// The value.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for CandidateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Debug for CandidateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for CandidateId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        let value = u64::from_str_radix(text, 16).ok().filter(|_| digits);
        value.and_then(Self::from_u64).ok_or_else(|| {
            Error::invalid_input(
                "candidate id",
                format!(
                    "{text:?} is not 1 to 16 hexadecimal digits between 1 and 7fffffffffffffff"
                ),
            )
        })
    }
}

impl TryFrom<String> for CandidateId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<CandidateId> for String {
    fn from(id: CandidateId) -> Self {
        id.to_string()
    }
}

/// One participation in one election.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ticket {
    /// The election.
    pub name: ElectionName,
    /// Decides where the entry is at the server, so that a join whose outcome is unknown can be found and left.
    pub id: CandidateId,
    /// What observers are told of this candidate. Not empty.
    pub value: Arc<[u8]>,
    /// How long the entry is to outlive its last confirmation. What the server grants rules.
    pub ttl: Duration,
    /// Whether the term's beginning and end are recorded beside the entries, so that the next leader learns in
    /// [`Standing::First`] how this one ended. Costs one write for each term.
    pub records_term: bool,
}

impl Ticket {
    /// A ticket with a random id that does not record its term.
    pub fn new(name: ElectionName, value: impl Into<Arc<[u8]>>, ttl: Duration) -> Self {
        Self {
            name,
            id: CandidateId::random(),
            value: value.into(),
            ttl,
            records_term: false,
        }
    }

    /// Sets the id.
    #[must_use]
    pub fn with_id(mut self, id: CandidateId) -> Self {
        self.id = id;
        self
    }

    /// Records the term's beginning and end.
    #[must_use]
    pub fn with_term_record(mut self) -> Self {
        self.records_term = true;
        self
    }

    /// Checks what the ticket asks for.
    ///
    /// # Errors
    /// `InvalidInput` with the limit.
    pub fn check(&self, limits: &Limits) -> Result<()> {
        const OP: &str = "join election";
        limits.check_ttl(OP, self.ttl)?;
        check_value(OP, &self.value, limits)
    }
}

/// Checks what observers are to be told: not empty, and not larger than the server takes.
///
/// # Errors
/// `InvalidInput` with the limit.
pub fn check_value(op: &'static str, value: &[u8], limits: &Limits) -> Result<()> {
    if value.is_empty() {
        return Err(Error::invalid_input(
            op,
            "the value is empty: give what observers should know of the leader, for instance its host name",
        ));
    }
    if value.len() > limits.record_bytes {
        return Err(Error::invalid_input(
            op,
            format!(
                "the value has {} bytes, at most {} are allowed",
                value.len(),
                limits.record_bytes
            ),
        ));
    }
    Ok(())
}

/// Where candidates of one client join, leave and are observed. Sends one attempt and reports; `sd-election` retries.
///
/// Each elector that [`Backend::elector`](crate::Backend::elector) gives has a connection of its own for `join`, `leave` and the
/// entries, opened by the runtime that first needs it. So an election can go on while the application's runtime is blocked.
#[async_trait]
pub trait Elector: Debug + Send + Sync + 'static {
    /// What the server accepts: times-to-live, and the size of a value in bytes.
    fn limits(&self) -> &Limits;

    /// What this server promises.
    ///
    /// # Errors
    /// What kept the server from answering.
    async fn safety(&self) -> Result<Safety>;

    /// Enters the election, at the end of the queue where there is one. Idempotent for each ticket. Not cancel-safe: after a dropped
    /// call or an error of unknown outcome the entry may exist; join again with the same ticket, or [`leave`](Self::leave).
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) if the ticket's id is that of a participation that this elector did not begin.
    async fn join(&self, ticket: &Ticket) -> Result<Box<dyn Entry>>;

    /// Removes this ticket's entry and no other's, and ends its lease; whoever waits behind it is told. Fine if it is gone, and
    /// after any outcome of [`join`](Self::join). The caller has stopped believing that it leads.
    ///
    /// If the ticket records its term, the term's end is recorded with it. Without that flag it is not, also if the beginning was:
    /// the next leader then takes it that this one may still believe.
    ///
    /// # Errors
    /// When the server did not confirm; the time-to-live then removes the entry.
    async fn leave(&self, ticket: &Ticket) -> Result<()>;

    /// Opens a feed of who leads. Holds nothing alive at the server.
    ///
    /// # Errors
    /// What kept the feed from being opened.
    async fn observe(&self, name: &ElectionName) -> Result<Box<dyn LeaderWatcher>>;
}

/// An elector whose server grants at most one valid term at any time, with strictly increasing tokens. What is not so, Redis for
/// instance, is an [`Elector`] only.
pub trait StrictElector: Elector {}

/// An elector together with what its type promises, for registries that are opened from a URL.
#[derive(Clone, Debug)]
pub enum AnyElector {
    /// At most one valid term.
    Strict(Arc<dyn StrictElector>),
    /// Usually one.
    BestEffort(Arc<dyn Elector>),
}

impl AnyElector {
    /// The elector, whatever it promises.
    pub fn into_any(self) -> Arc<dyn Elector> {
        match self {
            Self::Strict(elector) => elector,
            Self::BestEffort(elector) => elector,
        }
    }

    /// The elector, if it is strict.
    ///
    /// # Errors
    /// `Unsupported` says what else to do.
    pub fn into_strict(self) -> Result<Arc<dyn StrictElector>> {
        match self {
            Self::Strict(elector) => Ok(elector),
            Self::BestEffort(_) => Err(Error::new(ErrorKind::Unsupported, "elect").because(
                "this registry's elections are best effort only, two may lead at once: if that will do, ask for it with \
                 Candidate::best_effort",
            )),
        }
    }
}

/// One candidate's entry at the server. Dropping it changes nothing there: the caller leaves, or the time-to-live does.
///
/// `standing` and `confirm` are called side by side.
#[async_trait]
pub trait Entry: Debug + Send + Sync + 'static {
    /// Where the entry stands, as soon as that differs from `seen`; at once if `seen` is `None`. Also while it is first. Answers
    /// `First` and `Gone` only from a linearizable read of the entry itself. The caller waits for as long as it takes, so a source of
    /// changes that has died unseen must be noticed here, or by [`confirm`](Self::confirm).
    ///
    /// # Errors
    /// What kept it from being known. The standing is then open: call again.
    ///
    /// # Cancel safety
    /// A dropped call loses nothing.
    async fn standing(&self, seen: Option<&Standing>) -> Result<Standing>;

    /// Extends the entry's life and proves, through a quorum where there is one, that it is there and ours. The caller samples its
    /// clock before.
    ///
    /// # Errors
    /// [`LeaseLost`](ErrorKind::LeaseLost), [`NotFound`](ErrorKind::NotFound) or [`Conflict`](ErrorKind::Conflict) if it is gone
    /// for good. Any other error leaves it open.
    async fn confirm(&self) -> Result<Confirmation>;

    /// Replaces the value that observers are told, if the entry is still there and ours.
    ///
    /// # Errors
    /// As [`confirm`](Self::confirm).
    async fn proclaim(&self, value: &[u8]) -> Result<()>;
}

/// Where an entry stands.
#[derive(Clone, Debug)]
pub enum Standing {
    /// Others are before it.
    Waiting {
        /// How many, where the server can say so cheaply.
        ahead: Option<usize>,
    },
    /// It leads, as far as the server is concerned.
    First {
        /// The term's token.
        token: FencingToken,
        /// How the term before ended.
        before: Predecessor,
    },
    /// It is not there any more and never will be again.
    Gone(Error),
}

impl Standing {
    /// Whether both say the same. Two entries that are gone are, whatever the reason.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Waiting { ahead: a }, Self::Waiting { ahead: b }) => a == b,
            (Self::First { token: a, .. }, Self::First { token: b, .. }) => a == b,
            (Self::Gone(_), Self::Gone(_)) => true,
            _ => false,
        }
    }
}

/// What is recorded of the term before one that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predecessor {
    /// No term was recorded before.
    None,
    /// Its leader had stopped before it left.
    Resigned,
    /// It ended by itself, or it was ended by somebody else: its leader, or that of a term before it, may believe for up to `ttl` more.
    Unknown {
        /// The time-to-live that was [recorded](Self::recorded_ttl) for it.
        ttl: Duration,
    },
}

impl Predecessor {
    /// What a backend records for a term with this time-to-live that follows: if it ends before its leader has waited out the one
    /// before, whoever is next must still do so.
    pub fn recorded_ttl(self, ttl: Duration) -> Duration {
        match self {
            Self::None | Self::Resigned => ttl,
            Self::Unknown { ttl: before } => ttl.max(before),
        }
    }
}

/// A server's answer to [`Entry::confirm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// How long the entry lives from the moment that `counts_from` names.
    pub ttl: Duration,
    /// Which moment that is.
    pub counts_from: CountsFrom,
}

/// From when on a confirmed time-to-live counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountsFrom {
    /// From when this confirmation was sent.
    ThisSend,
    /// From when the confirmation before this one was sent: this one only proves that that one arrived where sessions are timed.
    PreviousSend,
}

/// A feed of who leads one election. Like a [`Watcher`](crate::Watcher): its first call answers at once, and an error ends it.
#[async_trait]
pub trait LeaderWatcher: Debug + Send + 'static {
    /// What is to be told next.
    ///
    /// # Errors
    /// Any error ends this feed. The caller opens another.
    ///
    /// # Cancel safety
    /// A dropped call loses nothing.
    async fn next(&mut self) -> Result<LeaderFeed>;

    /// A longer silence than this means that the server is gone, though the connection does not show it.
    fn silence_limit(&self) -> Duration;
}

/// What a [`LeaderWatcher`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaderFeed {
    /// Who leads now.
    Leader {
        /// `None` while nobody does.
        leader: Option<Leader>,
        /// The moment, of the backend's clock, from which on this is known.
        as_of: Moment,
    },
    /// The server answered and nothing changed.
    Alive {
        /// The moment of the answer.
        as_of: Moment,
    },
}

/// Whoever leads an election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Its participation. `None` if another program wrote the entry in its own way.
    pub id: Option<CandidateId>,
    /// What it wants observers to know.
    pub value: Arc<[u8]>,
    /// Its term.
    pub token: FencingToken,
}
