//! What a backend promises of its elections, and what it warns of.

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;

/// What an elector promises, as it was found when the server was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Safety {
    /// How much a term at the server is worth.
    pub guarantee: Guarantee,
    /// How much sooner than its time-to-live the server may end a lease. Subtracted from each local deadline.
    pub early_expiry: Duration,
    /// A leader that was killed is replaced within its time-to-live times this factor …
    pub failover_factor: u32,
    /// … and this much more.
    pub failover_extra: Duration,
    /// Whether candidates are elected in the order in which they joined.
    pub fair: bool,
    /// What to know about this very server.
    pub notes: Vec<SafetyNote>,
}

/// How much a term at the server is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Guarantee {
    /// At most one valid term at any time: the server's decisions are linearizable and survive the loss of a minority.
    Strict,
    /// Usually one. A failover of the server may yield two, even with equal tokens.
    BestEffort,
}

/// Something to know about a server's elections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SafetyNote {
    /// A stable name, for instance `lease-revoked-by-stuck-leader`.
    pub code: &'static str,
    /// Whether it weakens what is promised.
    pub warning: bool,
    /// What it means and what to do, in a sentence.
    pub text: Cow<'static, str>,
}

impl Safety {
    /// A promise without notes: strict and in the order of joining, never early, replaced within the time-to-live.
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

    /// How soon a leader with a lease of `ttl` is replaced when it was killed.
    pub fn failover_within(&self, ttl: Duration) -> Duration {
        ttl.saturating_mul(self.failover_factor)
            .saturating_add(self.failover_extra)
    }

    /// The notes that weaken the promise.
    pub fn warnings(&self) -> impl Iterator<Item = &SafetyNote> {
        self.notes.iter().filter(|note| note.warning)
    }
}
