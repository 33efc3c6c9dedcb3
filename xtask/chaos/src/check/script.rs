//! Histories written by hand, in milliseconds, all about the plain election.

use std::time::Duration;

use crate::check::{Findings, Invariant, check};
use crate::history::{At, Election, Event, Line};
use crate::kind::Kind;
use crate::story::{Promise, Story};

const PLAIN: Election = Election::Plain;

#[derive(Clone, Default)]
pub(crate) struct Script {
    lines: Vec<Line>,
    rounds: u32,
    unfair: bool,
}

/// Which invariants were violated in the plain election, in order of time.
pub(crate) fn found(findings: &Findings) -> Vec<Invariant> {
    let plain = findings
        .violations
        .iter()
        .filter(|violation| violation.election == PLAIN);
    plain.map(|violation| violation.invariant).collect()
}

fn at(ms: u64) -> At {
    At::from_start(Duration::from_millis(ms))
}

impl Script {
    pub(crate) fn check(&self) -> Findings {
        check(&self.story())
    }

    pub(crate) fn story(&self) -> Story {
        let promise = Promise {
            failover_within: Duration::from_secs(1),
            takeover_delay: Duration::from_secs(1),
            fair: !self.unfair,
        };
        Story::new(promise, self.lines.clone())
    }

    /// Over servers that promise no order.
    pub(crate) fn unfair(&mut self) -> &mut Self {
        self.unfair = true;
        self
    }

    fn add(&mut self, ms: u64, node: &str, event: Event) -> &mut Self {
        self.lines.push(Line {
            at: at(ms),
            node: node.to_owned(),
            event,
        });
        self
    }

    pub(crate) fn campaigning(&mut self, node: &str, ms: u64) -> &mut Self {
        self.add(ms, node, Event::Campaigning { election: PLAIN })
    }

    pub(crate) fn waiting(&mut self, node: &str, ms: u64) -> &mut Self {
        self.add(
            ms,
            node,
            Event::Waiting {
                election: PLAIN,
                ahead: Some(1),
                error: None,
            },
        )
    }

    pub(crate) fn lost(&mut self, node: &str, ms: u64) -> &mut Self {
        let reason = "session_lost".to_owned();
        self.add(
            ms,
            node,
            Event::Lost {
                election: PLAIN,
                reason,
            },
        )
    }

    pub(crate) fn elected(&mut self, node: &str, token: u64, ms: u64) -> &mut Self {
        self.elected_of(node, "cluster", token, ms)
    }

    pub(crate) fn elected_of(
        &mut self,
        node: &str,
        domain: &str,
        token: u64,
        ms: u64,
    ) -> &mut Self {
        let (id, domain) = (format!("{node}{token}"), domain.to_owned());
        self.add(
            ms,
            node,
            Event::Elected {
                election: PLAIN,
                id,
                token,
                domain,
            },
        )
    }

    pub(crate) fn elected_late(&mut self, node: &str, token: u64, ms: u64) -> &mut Self {
        self.add(
            ms,
            node,
            Event::ElectedLate {
                election: PLAIN,
                token,
            },
        )
    }

    pub(crate) fn believed(&mut self, node: &str, token: u64, since: u64, until: u64) -> &mut Self {
        let (since, to) = (at(since), at(until));
        self.add(
            until,
            node,
            Event::Believed {
                election: PLAIN,
                token,
                since,
                until: to,
            },
        )
    }

    pub(crate) fn resigning(&mut self, node: &str, token: u64, ms: u64) -> &mut Self {
        self.add(
            ms,
            node,
            Event::Resigning {
                election: PLAIN,
                token,
            },
        )
    }

    pub(crate) fn resigned(&mut self, node: &str, token: u64, ms: u64) -> &mut Self {
        self.add(
            ms,
            node,
            Event::Resigned {
                election: PLAIN,
                token,
            },
        )
    }

    pub(crate) fn ended(&mut self, node: &str, token: u64, ms: u64) -> &mut Self {
        self.add(
            ms,
            node,
            Event::Ended {
                election: PLAIN,
                token,
                reason: "resigned".to_owned(),
            },
        )
    }

    /// Ends every term that was won, where its end is not what is tried.
    pub(crate) fn ended_all(&mut self) -> &mut Self {
        for Line { at, node, event } in self.lines.clone() {
            if let Event::Elected { token, .. } | Event::ElectedLate { token, .. } = event {
                let reason = "resigned".to_owned();
                let event = Event::Ended {
                    election: PLAIN,
                    token,
                    reason,
                };
                self.lines.push(Line { at, node, event });
            }
        }
        self
    }

    /// Two unfenced writes.
    pub(crate) fn wrote(&mut self, node: &str, token: u64, first: u64, last: u64) -> &mut Self {
        self.accepted(node, token, false, (first, last))
    }

    /// Two fenced writes.
    pub(crate) fn wrote_fenced(
        &mut self,
        node: &str,
        token: u64,
        first: u64,
        last: u64,
    ) -> &mut Self {
        self.accepted(node, token, true, (first, last))
    }

    fn accepted(&mut self, node: &str, token: u64, fenced: bool, ms: (u64, u64)) -> &mut Self {
        let (first, last) = (at(ms.0), at(ms.1));
        let event = Event::Accepted {
            election: PLAIN,
            token,
            fenced,
            first,
            last,
            count: 2,
        };
        self.add(ms.0, node, event)
    }

    pub(crate) fn observed(&mut self, token: Option<u64>, ms: u64) -> &mut Self {
        self.add(
            ms,
            "observer",
            Event::Observed {
                election: PLAIN,
                token,
            },
        )
    }

    pub(crate) fn backend(&mut self, token: Option<u64>, ms: u64) -> &mut Self {
        self.add(
            ms,
            "run",
            Event::Backend {
                election: PLAIN,
                token,
            },
        )
    }

    pub(crate) fn begun(&mut self, ms: u64) -> &mut Self {
        self.add(ms, "run", Event::Begun)
    }

    pub(crate) fn ending(&mut self, ms: u64) -> &mut Self {
        self.add(ms, "run", Event::Ending)
    }

    pub(crate) fn remaining(&mut self, entries: usize, ms: u64) -> &mut Self {
        self.add(
            ms,
            "run",
            Event::Remaining {
                election: PLAIN,
                entries,
            },
        )
    }

    pub(crate) fn fault(&mut self, kind: Kind, since: u64, until: u64) -> &mut Self {
        self.fault_of(true, kind, since, until)
    }

    /// A fault of the server that leads its cluster, or of one that does not.
    pub(crate) fn fault_of(
        &mut self,
        leads_cluster: bool,
        kind: Kind,
        since: u64,
        until: u64,
    ) -> &mut Self {
        self.rounds += 1;
        let round = self.rounds;
        let target = String::new();
        self.add(
            since,
            "run",
            Event::Fault {
                round,
                kind,
                target,
                leads_cluster,
            },
        );
        self.add(until, "run", Event::Healed { round })
    }

    pub(crate) fn removed(&mut self, election: Election, token: u64, ms: u64) -> &mut Self {
        self.add(ms, "run", Event::Removed { election, token })
    }

    pub(crate) fn none_leads(&mut self, since: u64, ms: u64) -> &mut Self {
        let since = at(since);
        let election = PLAIN;
        self.add(ms, "run", Event::NoneLeads { election, since })
    }

    pub(crate) fn stood_still(&mut self, since: u64, until: u64) -> &mut Self {
        self.add(until, "run", Event::StoodStill { since: at(since) })
    }

    pub(crate) fn frozen(&mut self, node: &str, since: u64, until: u64) -> &mut Self {
        self.add(since, node, Event::Frozen)
            .add(until, node, Event::Thawed)
    }

    pub(crate) fn killed(&mut self, node: &str, ms: u64) -> &mut Self {
        self.add(ms, node, Event::Killed)
    }
}
