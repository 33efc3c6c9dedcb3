//! Whether a history kept what was promised. Each invariant has a function and a number, by which the report speaks of it.

mod beliefs;
mod endings;
mod handover;
mod leaderless;
mod observers;
mod order;
#[cfg(test)]
pub(crate) mod script;
mod writes;

use std::fmt;
use std::time::Duration;

use sd_core::port::Guarantee;

pub(crate) use self::handover::{Handover, Way};
pub(crate) use self::leaderless::Gap;
use crate::history::{At, Election};
use crate::story::Story;

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Invariant {
    I1,
    I2,
    I3,
    I4,
    I5,
    I6,
    I7,
    I8,
    I9,
    I10,
}

impl Invariant {
    pub(crate) const ALL: [Self; 10] = [
        Self::I1,
        Self::I2,
        Self::I3,
        Self::I4,
        Self::I5,
        Self::I6,
        Self::I7,
        Self::I8,
        Self::I9,
        Self::I10,
    ];

    /// The guarantee without which it is not promised. Best-effort elections may break those of the strict ones while their servers fail
    /// over.
    pub(crate) fn needs(self) -> Guarantee {
        match self {
            Self::I1 | Self::I2 | Self::I4 => Guarantee::Strict,
            Self::I3 | Self::I5 | Self::I6 | Self::I7 | Self::I8 | Self::I9 | Self::I10 => {
                Guarantee::BestEffort
            }
        }
    }

    pub(crate) fn says(self) -> &'static str {
        match self {
            Self::I1 => "no two terms are believed in at once",
            Self::I2 => "each elected leader has a greater token than all before it",
            Self::I3 => "the fenced register takes no write of a term after one of a later term",
            Self::I4 => "even unfenced, the last write of a term comes before the next is elected",
            Self::I5 => "there is a leader again within the bound, once there is a server",
            Self::I6 => "a candidate that has left leaves no entry behind",
            Self::I7 => "a term ends exactly once, and nothing of it comes after",
            Self::I8 => "observers never go back, and end up agreeing with the server",
            Self::I9 => {
                "candidates are elected in the order in which they joined, if that is promised"
            }
            Self::I10 => "a killed or resigned leader is succeeded within the bound",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Something that must not be.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) invariant: Invariant,
    pub(crate) election: Election,
    pub(crate) at: At,
    pub(crate) text: String,
    /// How the term ended, where that matters.
    pub(crate) way: Option<Way>,
}

/// What the checks found, beside what they measured on the way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    pub(crate) violations: Vec<Violation>,
    /// Of ours: the shortest time between the end of one term's belief and the beginning of the next one's.
    pub(crate) smallest_gap: Option<Duration>,
    /// The same where the first leader did not end its term itself.
    pub(crate) smallest_gap_lost: Option<Duration>,
    /// Of ours: the spans in which no candidate believed that it leads.
    pub(crate) leaderless: Vec<Gap>,
    pub(crate) handovers: Vec<Handover>,
    pub(crate) writes: writes::Counts,
}

impl Findings {
    fn violate(&mut self, invariant: Invariant, election: Election, at: At, text: String) {
        self.violations.push(Violation {
            invariant,
            election,
            at,
            text,
            way: None,
        });
    }
}

/// Checks everything. For the naive election only what needs no promise.
pub(crate) fn check(story: &Story) -> Findings {
    let mut findings = Findings::default();
    for election in Election::ALL {
        beliefs::check(story, election, &mut findings);
        order::check_tokens(story, election, &mut findings);
        writes::check(story, election, &mut findings);
        endings::check(story, election, &mut findings);
    }
    for election in Election::OURS {
        order::check_queue(story, election, &mut findings);
        leaderless::check(story, election, &mut findings);
        observers::check(story, election, &mut findings);
        handover::check(story, election, &mut findings);
    }
    findings.violations.sort_by_key(|violation| violation.at);
    findings
}
