//! What happened, as lines: every process writes its own, and one clock orders them all.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use sd_core::clock::{BootClock, Clock};
use serde::{Deserialize, Serialize};

use crate::kind::Kind;

/// One line of a history, JSON when written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    #[serde(rename = "t_boottime_ns")]
    pub(crate) at: At,
    /// Who tells. For what is done to a process from outside: that process.
    pub(crate) node: String,
    #[serde(flatten)]
    pub(crate) event: Event,
}

/// A moment of the machine's boot-time clock, which all processes share.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct At(u64);

impl At {
    pub(crate) fn now() -> Self {
        Self::from_start(BootClock.now().since_start())
    }

    pub(crate) fn from_start(elapsed: Duration) -> Self {
        Self(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
    }

    /// The time from `earlier` to this; zero if `earlier` is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn plus(self, span: Duration) -> Self {
        Self::from_start(Duration::from_nanos(self.0).saturating_add(span))
    }

    pub(crate) fn minus(self, span: Duration) -> Self {
        Self::from_start(Duration::from_nanos(self.0).saturating_sub(span))
    }
}

impl fmt::Debug for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for At {
    /// Seconds, as far as a reader wants to tell lines apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{:06}",
            self.0 / 1_000_000_000,
            self.0 / 1_000 % 1_000_000
        )
    }
}

/// The elections of a run. Each process stands in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Election {
    /// Our candidates as they are by default.
    Plain,
    /// Our candidates with a takeover delay of one time-to-live, whose leaders an operator may remove.
    Delayed,
    /// Candidates that do what most programs do. They must be caught.
    Naive,
}

impl Election {
    pub(crate) const ALL: [Self; 3] = [Self::Plain, Self::Delayed, Self::Naive];
    /// Those that have promised something.
    pub(crate) const OURS: [Self; 2] = [Self::Plain, Self::Delayed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Delayed => "delayed",
            Self::Naive => "naive",
        }
    }
}

impl fmt::Display for Election {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who reads, in a process that is a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reader {
    /// A subscription of ours.
    Ours,
    /// One that asks now and then, and takes an error for an empty answer. It must be caught.
    Naive,
}

/// What a line tells. Tokens are the numbers of one etcd, whose data is never lost in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// A candidate is about to campaign.
    Campaigning { election: Election },
    /// It stands in line, or not even that while there is an error.
    Waiting {
        election: Election,
        ahead: Option<usize>,
        error: Option<String>,
    },
    /// It stands in line no longer without having led, and joins again.
    Lost { election: Election, reason: String },
    /// It is first and waits for the confirmation, and for the takeover delay.
    Taking { election: Election },
    /// Its campaign returned, and after `t_boottime_ns` it still believed to lead.
    Elected {
        election: Election,
        id: String,
        token: u64,
        domain: String,
    },
    /// Its campaign returned a term that was over by then, for instance because the process was frozen.
    ElectedLate { election: Election, token: u64 },
    /// It said that it leads when it was asked at `since`, at `until`, and each time in between.
    Believed {
        election: Election,
        token: u64,
        since: At,
        until: At,
    },
    /// Renewals fail.
    AtRisk { election: Election, token: u64 },
    /// They succeed again.
    Recovered { election: Election, token: u64 },
    /// It has stopped what only a leader may do and is about to resign.
    Resigning { election: Election, token: u64 },
    /// `resign` has returned.
    Resigned { election: Election, token: u64 },
    /// It is about to drop its leadership without resigning.
    Dropping { election: Election, token: u64 },
    /// A campaign was dropped before it was won.
    Cancelled { election: Election },
    /// A campaign failed.
    Failed { election: Election, error: String },
    /// The end of the term was announced.
    Ended {
        election: Election,
        token: u64,
        reason: String,
    },
    /// The process stands in no election any more.
    Idle,
    /// The register took `count` writes of this term from `first` to `last`, and none of another term in between.
    Accepted {
        election: Election,
        token: u64,
        fenced: bool,
        first: At,
        last: At,
        count: u64,
    },
    /// The register refused a write because of a greater token.
    Refused {
        election: Election,
        token: u64,
        highest: u64,
    },
    /// An observer was told who leads.
    Observed {
        election: Election,
        token: Option<u64>,
    },
    /// The run has begun to start the process.
    Started,
    /// The process is about to register its instance. From here on the registry may have a record of it.
    Registering { id: String },
    /// The registry has a record of this instance for the first time.
    Registered { id: String },
    /// The process is about to withdraw its instance.
    Withdrawing { id: String },
    /// The registry has confirmed that.
    Withdrawn { id: String },
    /// What a reader sees: the instances that are ready, and those of them that the registry no longer lists.
    Listed {
        reader: Reader,
        ready: BTreeSet<String>,
        held: BTreeSet<String>,
    },
    /// All processes have been started.
    Begun,
    /// A round begins.
    Fault {
        round: u32,
        kind: Kind,
        target: String,
        /// Whether it is done to the server that leads its cluster, or is alone.
        leads_cluster: bool,
    },
    /// An operator ended the term or the place of the candidate with this token, and the server has confirmed it.
    Removed { election: Election, token: u64 },
    /// No candidate has led since `since` though nothing was broken any more, and the run stopped waiting.
    NoneLeads { election: Election, since: At },
    /// Everything is as before the round.
    Healed { round: u32 },
    /// A thread that sleeps for a moment was not woken from `since` to now: the machine had no time for us.
    StoodStill { since: At },
    /// The process was stopped by a signal.
    Frozen,
    /// It goes on.
    Thawed,
    /// It was killed.
    Killed,
    /// Who leads according to the server, once every observer has had time to learn it.
    Backend {
        election: Election,
        token: Option<u64>,
    },
    /// All candidates were asked to leave; from here on there may be no leader.
    Ending,
    /// What is left at the server when all have left, or their time-to-live is over.
    Remaining { election: Election, entries: usize },
}

impl Event {
    /// The election that it is about.
    pub(crate) fn election(&self) -> Option<Election> {
        match self {
            Self::Campaigning { election }
            | Self::Waiting { election, .. }
            | Self::Lost { election, .. }
            | Self::Taking { election }
            | Self::Elected { election, .. }
            | Self::ElectedLate { election, .. }
            | Self::Believed { election, .. }
            | Self::AtRisk { election, .. }
            | Self::Recovered { election, .. }
            | Self::Resigning { election, .. }
            | Self::Resigned { election, .. }
            | Self::Dropping { election, .. }
            | Self::Cancelled { election }
            | Self::Failed { election, .. }
            | Self::Ended { election, .. }
            | Self::Accepted { election, .. }
            | Self::Refused { election, .. }
            | Self::Removed { election, .. }
            | Self::NoneLeads { election, .. }
            | Self::Observed { election, .. }
            | Self::Backend { election, .. }
            | Self::Remaining { election, .. } => Some(*election),
            Self::Idle
            | Self::Started
            | Self::Registering { .. }
            | Self::Registered { .. }
            | Self::Withdrawing { .. }
            | Self::Withdrawn { .. }
            | Self::Listed { .. }
            | Self::Begun
            | Self::Fault { .. }
            | Self::Healed { .. }
            | Self::StoodStill { .. }
            | Self::Frozen
            | Self::Thawed
            | Self::Killed
            | Self::Ending => None,
        }
    }
}

/// Brings the lines of all processes into one order.
pub(crate) fn merged(mut lines: Vec<Line>) -> Vec<Line> {
    // Stable: what one process wrote within one nanosecond stays in its order.
    lines.sort_by_key(|line| line.at);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let line = Line {
            at: At::from_start(Duration::from_nanos(12)),
            node: "n1.1".to_owned(),
            event: Event::Believed {
                election: Election::Plain,
                token: 7,
                since: At::from_start(Duration::from_nanos(5)),
                until: At::from_start(Duration::from_nanos(11)),
            },
        };
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(
            text,
            r#"{"t_boottime_ns":12,"node":"n1.1","event":"believed","election":"plain","token":7,"since":5,"until":11}"#
        );
        assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
    }

    #[test]
    fn lines_are_merged_by_time() {
        let line = |ns, node: &str| Line {
            at: At::from_start(Duration::from_nanos(ns)),
            node: node.to_owned(),
            event: Event::Idle,
        };
        let lines = merged(vec![line(2, "a"), line(3, "a"), line(1, "b"), line(2, "b")]);
        let order: Vec<_> = lines
            .iter()
            .map(|line| (line.at.0, line.node.as_str()))
            .collect();
        assert_eq!(order, [(1, "b"), (2, "a"), (2, "b"), (3, "a")]);
    }
}
