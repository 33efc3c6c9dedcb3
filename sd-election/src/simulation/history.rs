//! What happened in a schedule, in virtual true time: what the invariants are checked on, and what is printed when one is broken.

use std::fmt;

use sd_core::ErrorKind;
use sd_core::clock::Moment;
use sd_core::port::CandidateId;

use super::cut::Cut;
use super::node::Node;
use crate::campaign::machine::Call;

pub(super) type History = Vec<Record>;

#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) at: Moment,
    pub(super) node: Node,
    pub(super) what: What,
}

/// How a call was answered, as far as it matters to the holder of a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Fine,
    Failed,
    /// The entry is gone for good.
    Gone,
}

/// What happened. A term is named by the participation that holds it.
#[derive(Clone, Debug)]
#[expect(dead_code, reason = "some fields are only printed")]
pub(super) enum What {
    // The application.
    Campaigns,
    CampaignDropped,
    CampaignFailed(ErrorKind),
    Won {
        id: CandidateId,
    },
    /// Asked whether it leads.
    Asked {
        id: CandidateId,
        leads: bool,
    },
    Alive {
        id: CandidateId,
    },
    WorkBegan {
        id: CandidateId,
    },
    /// The work has returned or was dropped.
    WorkOver {
        id: CandidateId,
    },
    /// The application has stopped, and resigns or drops its leadership.
    GivenUp {
        id: CandidateId,
    },
    /// Closes its registry.
    Closes,
    /// `resign` has returned.
    Resigned {
        id: CandidateId,
        error: Option<ErrorKind>,
        still_there: bool,
    },
    /// Wrote where no token is asked for, within the stop margin of having asked whether it leads.
    Probed {
        id: CandidateId,
    },
    /// A write with a token has arrived.
    Wrote {
        id: CandidateId,
        token: u64,
        admitted: bool,
    },
    /// Has led once more after all faults were over, and has left.
    Finished,

    // What the election told.
    Elected {
        id: CandidateId,
        token: u64,
        deadline: Moment,
        hand_over: Moment,
    },
    AtRisk,
    Recovered,
    Ended {
        id: Option<CandidateId>,
        token: u64,
        reason: &'static str,
    },
    Lost {
        reason: &'static str,
    },
    /// From now on `is_leader` is true until then unless something changes, or false.
    Belief {
        id: CandidateId,
        until: Option<Moment>,
        hand_over: Moment,
    },
    /// Asks the server to let this participation in.
    Joins {
        id: CandidateId,
    },
    /// An answer has reached the node.
    Answered {
        id: CandidateId,
        call: Call,
        answer: Answer,
    },
    /// What an observer was told last.
    Saw {
        token: Option<u64>,
        lineage: u32,
        live: bool,
    },

    // The server.
    Joined {
        id: CandidateId,
    },
    Left {
        id: CandidateId,
    },
    /// A lease ended sooner than the embedded registry would have ended it.
    Expired {
        id: CandidateId,
    },

    // Faults.
    /// One task, or its node, was stopped at a reading of its clock, and goes on.
    Stalled {
        since: Moment,
        until: Moment,
    },
    Stopped {
        until: Moment,
    },
    Killed,
    CutOff(Cut),
    Healed,
    ServerDown,
    ServerUp {
        leases_restarted: bool,
    },
    ServerFrozen {
        until: Moment,
    },
    EntryRemoved {
        id: CandidateId,
    },
    LeaseEnded {
        id: CandidateId,
    },
    Storm,
    /// From here on nothing goes wrong any more.
    Calm,

    // What is at the server, and how many tasks candidates have.
    Remains {
        entries: Vec<CandidateId>,
        tasks: usize,
    },
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.since_start().as_secs_f64();
        if self.node == Node::SERVER {
            write!(f, "{at:>12.6}  server  {:?}", self.what)
        } else {
            write!(f, "{at:>12.6}  node {:<2} {:?}", self.node.0, self.what)
        }
    }
}
