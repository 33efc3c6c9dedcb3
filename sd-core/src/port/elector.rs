//! The ownership port: which of many candidates leads.
//!
//! An elector speaks one server's protocol and decides nothing. `sd-election` alone decides whether a term is believed,
//! renewed, given up or ended. Users hold that crate's `Candidate`.

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

/// Identifies one participation in an election: random, new for each participation. Written as 16 hexadecimal digits. Never
/// zero and never above `i64::MAX`, so that a backend can use it as a lease id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CandidateId(u64);

impl CandidateId {
    const LARGEST: u64 = i64::MAX as u64;

    /// A new random id.
    pub fn random() -> Self {
        Self(fastrand::u64(1..=Self::LARGEST))
    }

    /// The id with this value. `None` for zero and above `i64::MAX`.
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
                    "{text:?} is no candidate id: write 1 to 16 hexadecimal digits, 1 to 7fffffffffffffff"
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
    /// Determines the entry's place at the server, so that a join whose outcome is unknown can be found, or undone by
    /// [`Elector::leave`].
    pub id: CandidateId,
    /// The value that observers see for this candidate. Not empty.
    pub value: Arc<[u8]>,
    /// How long the entry should outlive its last confirmation. The server may grant another time-to-live, which then applies.
    pub ttl: Duration,
    /// Whether the beginning and the end of the term are recorded beside the entries. The next leader then learns from
    /// [`Standing::First`] how this term ended. Costs one write for each term. Default false.
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

    /// Sets the candidate's id.
    #[must_use]
    pub fn with_id(mut self, id: CandidateId) -> Self {
        self.id = id;
        self
    }

    /// Records the beginning and the end of the term.
    #[must_use]
    pub fn with_term_record(mut self) -> Self {
        self.records_term = true;
        self
    }

    /// Checks the time-to-live and the value against `limits`.
    ///
    /// # Errors
    /// `InvalidInput` names the limit that is broken.
    pub fn check(&self, limits: &Limits) -> Result<()> {
        const OP: &str = "join election";
        limits.check_ttl(OP, self.ttl)?;
        check_value(OP, &self.value, limits)
    }
}

/// Checks a candidate's value: not empty, and not larger than the server accepts.
///
/// # Errors
/// `InvalidInput` names the limit that is broken.
pub fn check_value(op: &'static str, value: &[u8], limits: &Limits) -> Result<()> {
    if value.is_empty() {
        return Err(Error::invalid_input(
            op,
            "the candidate's value is empty: give what observers should know of the leader, for example its host name",
        ));
    }
    if value.len() > limits.record_bytes {
        return Err(Error::invalid_input(
            op,
            format!(
                "the candidate's value has {} bytes, at most {} are allowed: shorten it",
                value.len(),
                limits.record_bytes
            ),
        ));
    }
    Ok(())
}

/// The elections of one server, as one client takes part in them: join, leave, observe. An elector makes one attempt and
/// reports its outcome; `sd-election` retries.
///
/// `join`, `leave` and the calls on entries go over a connection apart from those of the other ports. The runtime that first needs it
/// opens it, and only electors that are used on one runtime may share it. An election can therefore go on while the application's
/// runtime is blocked.
#[async_trait]
pub trait Elector: Debug + Send + Sync + 'static {
    /// What the server accepts: the range of times-to-live, and the size of a value in bytes.
    fn limits(&self) -> &Limits;

    /// What this server promises about its elections.
    ///
    /// # Errors
    /// Why the server did not answer.
    async fn safety(&self) -> Result<Safety>;

    /// Enters the election, at the end of the queue if the server keeps one. Idempotent for each ticket.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) if the ticket's id belongs to a participation that another elector began.
    ///
    /// # Cancel safety
    /// Not cancel-safe. After a dropped call, or an error of unknown outcome, the entry may exist: join again with the same
    /// ticket, or [`leave`](Self::leave).
    async fn join(&self, ticket: &Ticket) -> Result<Box<dyn Entry>>;

    /// Removes this ticket's entry, never another one, and ends its lease. Candidates behind it are told. Succeeds
    /// if the entry is already gone, and may be called after any outcome of [`join`](Self::join). Before this call, the caller
    /// must have stopped believing that it leads.
    ///
    /// If the ticket records its term, the end of the term is recorded too. If it does not, the end is not recorded, even if
    /// the beginning was. The next leader then assumes that this candidate may still believe that it leads.
    ///
    /// # Errors
    /// When the server did not confirm. The entry then goes when its lease expires.
    ///
    /// # Cancel safety
    /// After a dropped call the entry may still be there: call again.
    async fn leave(&self, ticket: &Ticket) -> Result<()>;

    /// Opens a feed of who leads. Keeps nothing alive at the server.
    ///
    /// # Errors
    /// Why the feed could not be opened.
    async fn observe(&self, name: &ElectionName) -> Result<Box<dyn LeaderWatcher>>;
}

/// An elector whose server grants at most one valid term at any time, with strictly increasing tokens. A backend that cannot
/// promise both, for example Redis, implements only [`Elector`].
pub trait StrictElector: Elector {}

/// An elector with the guarantee that its type makes, for registries that are opened from a URL.
#[derive(Clone, Debug)]
pub enum AnyElector {
    /// At most one valid term.
    Strict(Arc<dyn StrictElector>),
    /// Usually one valid term, sometimes two.
    BestEffort(Arc<dyn Elector>),
}

impl AnyElector {
    /// The elector, whatever it guarantees.
    pub fn into_any(self) -> Arc<dyn Elector> {
        match self {
            Self::Strict(elector) => elector,
            Self::BestEffort(elector) => elector,
        }
    }

    /// The elector, if it is strict.
    ///
    /// # Errors
    /// `Unsupported` if the elector is best effort. The cause says how to accept that.
    pub fn into_strict(self) -> Result<Arc<dyn StrictElector>> {
        match self {
            Self::Strict(elector) => Ok(elector),
            Self::BestEffort(_) => Err(Error::new(ErrorKind::Unsupported, "elect").because(
                "this registry's elections are best effort: two candidates may lead at once. To accept that, use \
                 Candidate::best_effort",
            )),
        }
    }
}

/// One candidate's entry at the server. Dropping it changes nothing at the server: the caller leaves, or the lease expires.
///
/// Callers run `standing` and `confirm` concurrently.
#[async_trait]
pub trait Entry: Debug + Send + Sync + 'static {
    /// Returns where the entry stands as soon as that differs from `seen`, at once if `seen` is `None`. An entry that leads is
    /// watched in the same way. The answer `Gone` comes only from a read of the entry itself. So does `First`, or else from an event
    /// that proves as much: told in the server's own order, so that at its revision the entry was there and nothing was before it.
    /// No answer says how much longer the entry lives: only confirmations do.
    ///
    /// The caller sets no deadline. If the source of changes dies without a sign, this call or [`confirm`](Self::confirm) must
    /// notice it.
    ///
    /// # Errors
    /// Why the standing could not be read. The standing is then unknown: call again.
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped call loses no change.
    async fn standing(&self, seen: Option<&Standing>) -> Result<Standing>;

    /// Extends the entry's life. The answer proves, through a quorum where the server has one, that the entry is there and
    /// belongs to this candidate. The caller reads its clock before the call.
    ///
    /// # Errors
    /// [`LeaseLost`](ErrorKind::LeaseLost), [`NotFound`](ErrorKind::NotFound) or [`Conflict`](ErrorKind::Conflict) if the entry
    /// is gone for good. After any other error the entry may still be there.
    ///
    /// # Cancel safety
    /// A dropped call may have extended the entry's life.
    async fn confirm(&self) -> Result<Confirmation>;

    /// Replaces the value that observers see, if the entry is still there and belongs to this candidate.
    ///
    /// # Errors
    /// As [`confirm`](Self::confirm).
    ///
    /// # Cancel safety
    /// After a dropped call either value may be stored.
    async fn proclaim(&self, value: &[u8]) -> Result<()>;
}

/// Where an entry stands.
#[derive(Clone, Debug)]
pub enum Standing {
    /// Other candidates are ahead of the entry.
    Waiting {
        /// How many, if the server can count them cheaply.
        ahead: Option<usize>,
    },
    /// The entry leads, as far as the server is concerned.
    First {
        /// The term's token.
        token: FencingToken,
        /// How the previous term ended.
        before: Predecessor,
    },
    /// The entry is gone and will not come back, for this reason.
    Gone(Error),
}

impl Standing {
    /// Whether both say the same. Two entries that are gone do, whatever the reasons.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Waiting { ahead: a }, Self::Waiting { ahead: b }) => a == b,
            (Self::First { token: a, .. }, Self::First { token: b, .. }) => a == b,
            (Self::Gone(_), Self::Gone(_)) => true,
            _ => false,
        }
    }
}

/// What is recorded about the term before the one that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predecessor {
    /// No earlier term is recorded.
    None,
    /// The previous leader had stopped before it left.
    Resigned,
    /// The previous term expired, or was ended from outside. Its leader, or the leader of a term before it, may go on believing
    /// that it leads for up to `ttl` more.
    Unknown {
        /// The time-to-live that was [recorded](Self::recorded_ttl) for that term.
        ttl: Duration,
    },
}

impl Predecessor {
    /// The time-to-live that a backend records for the term after this one, whose own time-to-live is `ttl`: the longer of the
    /// two after [`Unknown`](Self::Unknown), else `ttl`. That term may end before its leader has waited out this one. The next
    /// leader must then still wait for it.
    pub fn recorded_ttl(self, ttl: Duration) -> Duration {
        match self {
            Self::None | Self::Resigned => ttl,
            Self::Unknown { ttl: before } => ttl.max(before),
        }
    }
}

/// A server's answer to [`Entry::confirm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Confirmation {
    /// How long the entry lives, counted from the moment that `counts_from` names.
    pub ttl: Duration,
    /// The moment from which `ttl` counts.
    pub counts_from: CountsFrom,
}

impl Confirmation {
    /// The entry lives for `ttl`, counted from the moment that `counts_from` names.
    pub fn new(ttl: Duration, counts_from: CountsFrom) -> Self {
        Self { ttl, counts_from }
    }
}

/// The moment from which a confirmed time-to-live counts: that of the earliest request that the server is proven to have timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountsFrom {
    /// The moment at which this confirmation was sent. The server had timed it when it answered.
    ThisSend,
    /// This moment, on the backend's clock: when a request was sent that the server has timed for certain, apart from the
    /// confirmations of this entry. For a fresh session that is the request that made it. For an older one it may be a request of long
    /// ago, and a term does not begin on it.
    ///
    /// For servers whose answer to a confirmation does not prove that it was timed. ZooKeeper times sessions at the member that leads,
    /// which hears of their signs of life when it next pings the member that got them. Such an answer proves the confirmations that
    /// were answered at least a quarter of the time-to-live before it was asked for, for one ping lies in between. The caller keeps
    /// account of these.
    EarlierSend(Moment),
}

/// A feed of who leads one election. As with a [`Watcher`](crate::Watcher), the first call answers at once, and an error ends
/// the feed.
#[async_trait]
pub trait LeaderWatcher: Debug + Send + 'static {
    /// Waits for the next news.
    ///
    /// # Errors
    /// Any error ends this feed. The caller opens another one.
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped call loses nothing.
    async fn next(&mut self) -> Result<LeaderFeed>;

    /// How long `next` may stay silent. After a longer silence the caller takes the server for gone, even if the connection
    /// looks alive.
    fn silence_limit(&self) -> Duration;
}

/// What a [`LeaderWatcher`] reports.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaderFeed {
    /// Who leads now.
    Leader {
        /// `None` while there is no leader.
        leader: Option<Leader>,
        /// The moment, on the backend's clock, since which this is known.
        as_of: Moment,
    },
    /// The server answered and nothing changed.
    Alive {
        /// The moment of the answer.
        as_of: Moment,
    },
}

/// The leader of an election.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leader {
    /// Its candidate id. `None` if another program wrote the entry in its own format.
    pub id: Option<CandidateId>,
    /// The value that it shows to observers.
    pub value: Arc<[u8]>,
    /// The fencing token of its term.
    pub token: FencingToken,
}

impl Leader {
    /// The candidate `id`, if it is one of ours, which shows `value` and leads with `token`.
    pub fn new(id: Option<CandidateId>, value: impl Into<Arc<[u8]>>, token: FencingToken) -> Self {
        Self {
            id,
            value: value.into(),
            token,
        }
    }
}
