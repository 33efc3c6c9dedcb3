//! What a backend promises about its elections, and what it warns of.

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;

/// What an elector promises, as found when the server was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Safety {
    /// How many terms may be valid at once.
    pub guarantee: Guarantee,
    /// How much sooner than its time-to-live the server may end a lease. Local deadlines are this much earlier.
    pub early_expiry: Duration,
    /// A killed leader is replaced within its time-to-live times this factor …
    pub failover_factor: u32,
    /// … plus this duration.
    pub failover_extra: Duration,
    /// Whether candidates are elected in the order in which they joined.
    pub fair: bool,
    /// What to know about this particular server.
    pub notes: Vec<SafetyNote>,
}

/// How many terms may be valid at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Guarantee {
    /// At most one: the server's decisions are linearizable and survive the loss of a minority of its members.
    Strict,
    /// Usually one. A failover of the server may lead to two, even with equal tokens.
    BestEffort,
}

/// Something to know about a server's elections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SafetyNote {
    /// A stable name, for example `lease-revoked-by-stuck-leader`.
    pub code: &'static str,
    /// Whether it weakens the promise.
    pub warning: bool,
    /// One sentence: what it means and what to do.
    pub text: Cow<'static, str>,
}

impl SafetyNote {
    /// A note with a stable name; `warning` says whether it weakens the promise.
    pub const fn new(code: &'static str, warning: bool, text: Cow<'static, str>) -> Self {
        Self {
            code,
            warning,
            text,
        }
    }
}

impl Safety {
    /// A promise without notes: strict, in order of joining, no early expiry, failover within the time-to-live.
    pub fn strict() -> Self {
        Self {
            guarantee: Guarantee::Strict,
            early_expiry: Duration::ZERO,
            failover_factor: 1,
            failover_extra: Duration::ZERO,
            fair: true,
            notes: Vec::new(),
        }
    }

    /// How long after its death a leader with a lease of `ttl` is replaced, at most.
    pub fn failover_within(&self, ttl: Duration) -> Duration {
        ttl.saturating_mul(self.failover_factor)
            .saturating_add(self.failover_extra)
    }

    /// The notes that weaken the promise.
    pub fn warnings(&self) -> impl Iterator<Item = &SafetyNote> {
        self.notes.iter().filter(|note| note.warning)
    }
}
