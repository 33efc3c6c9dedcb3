//! A merged history, put in order for the checks: terms with their beliefs and ends, processes with their faults, rounds.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::history::{At, Election, Event, Line, merged};
use crate::kind::Kind;

/// What noticing, reconnecting and a busy machine may add to what the server promises.
pub(crate) const DETECTION: Duration = Duration::from_secs(5);

/// What a site's candidates have been promised, and what may be expected of it.
#[derive(Clone, Debug)]
pub(crate) struct Promise {
    /// How soon a killed leader's entry is gone, by `Safety`.
    pub(crate) failover_within: Duration,
    /// How long who leads the election after a term that did not end by resigning waits.
    pub(crate) takeover_delay: Duration,
    /// Whether candidates are elected in the order in which they joined.
    pub(crate) fair: bool,
}

impl Promise {
    /// How soon a leader that was killed is succeeded, by the promises alone.
    pub(crate) fn succeeded_within(&self, election: Election) -> Duration {
        let delay = match election {
            Election::Delayed => self.takeover_delay,
            Election::Plain | Election::Naive => Duration::ZERO,
        };
        self.failover_within + delay
    }

    /// How long there may be no leader while there are servers and a machine that work.
    pub(crate) fn led_within(&self, election: Election) -> Duration {
        self.succeeded_within(election) + DETECTION
    }
}

/// A span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) since: At,
    pub(crate) until: At,
}

impl Span {
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.since <= other.until && other.since <= self.until
    }

    pub(crate) fn length(self) -> Duration {
        self.until.since(self.since)
    }

    /// What is left of it without these.
    pub(crate) fn without(self, mut others: Vec<Self>) -> Vec<Self> {
        others.sort_by_key(|other| other.since);
        let mut left = Vec::new();
        let mut since = self.since;
        for other in others.into_iter().filter(|other| other.overlaps(self)) {
            if other.since > since {
                let until = other.since;
                left.push(Self { since, until });
            }
            since = since.max(other.until);
        }
        if self.until > since {
            let until = self.until;
            left.push(Self { since, until });
        }
        left
    }
}

/// One term as one process lived it.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    pub(crate) election: Election,
    pub(crate) token: u64,
    pub(crate) node: String,
    /// When the process was told that it leads, in time to believe it. Each time, though once is right.
    pub(crate) elected: Vec<At>,
    /// When it was told so too late.
    pub(crate) elected_late: Vec<At>,
    pub(crate) domain: Option<String>,
    /// In order; more than one is a belief that was resurrected.
    pub(crate) beliefs: Vec<Span>,
    pub(crate) ended: Vec<At>,
    pub(crate) resigning: Option<At>,
    pub(crate) resigned: Option<At>,
    pub(crate) dropping: Option<At>,
}

impl Term {
    /// When it was last heard that the process lives in this term or has just left it.
    pub(crate) fn last_sign(&self) -> Option<At> {
        let moments = self.elected.iter().chain(&self.elected_late).copied();
        let moments = moments.chain(self.beliefs.iter().map(|belief| belief.until));
        let steps = [self.resigning, self.resigned, self.dropping];
        moments.chain(steps.into_iter().flatten()).max()
    }
}

/// One fault, from when it begins to when everything is as before.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    pub(crate) number: u32,
    pub(crate) kind: Kind,
    pub(crate) target: String,
    /// Whether it was done to the server that led its cluster.
    pub(crate) leads_cluster: bool,
    /// The elections in which an operator removed a candidate.
    pub(crate) removed_in: Vec<Election>,
    pub(crate) span: Span,
}

impl Round {
    /// Whether our candidates were exposed to it, or only the naive one.
    pub(crate) fn is_ours(&self) -> bool {
        let mut removed_in = self.removed_in.iter();
        !self.kind.is_of_operator() || removed_in.any(|election| *election != Election::Naive)
    }
}

/// What was done to a process from outside.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fate {
    pub(crate) frozen: Vec<Span>,
    pub(crate) killed: Option<At>,
}

/// Everything that happened at one site.
#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) promise: Promise,
    /// In order of time.
    pub(crate) lines: Vec<Line>,
    pub(crate) terms: Vec<Term>,
    pub(crate) fates: BTreeMap<String, Fate>,
    pub(crate) rounds: Vec<Round>,
    /// When the machine had no time for us.
    pub(crate) still: Vec<Span>,
}

impl Story {
    pub(crate) fn new(promise: Promise, lines: Vec<Line>) -> Self {
        let lines = merged(lines);
        Self {
            terms: terms(&lines),
            fates: fates(&lines),
            rounds: rounds(&lines),
            still: still(&lines),
            lines,
            promise,
        }
    }

    pub(crate) fn terms_of(&self, election: Election) -> impl Iterator<Item = &Term> {
        let is_of = move |term: &&Term| term.election == election;
        self.terms.iter().filter(is_of)
    }

    /// The terms that were elected in time, in this order.
    pub(crate) fn elected_of(&self, election: Election) -> Vec<(At, &Term)> {
        let mut elected: Vec<_> = self
            .terms_of(election)
            .flat_map(|term| term.elected.iter().map(move |at| (*at, term)))
            .collect();
        elected.sort_by_key(|(at, _)| *at);
        elected
    }

    pub(crate) fn lines_of(&self, election: Election) -> impl Iterator<Item = &Line> {
        let is_of = move |line: &&Line| line.event.election() == Some(election);
        self.lines.iter().filter(is_of)
    }

    pub(crate) fn was_frozen(&self, node: &str, during: Span) -> bool {
        let frozen = |fate: &Fate| fate.frozen.iter().any(|span| span.overlaps(during));
        self.fates.get(node).is_some_and(frozen)
    }

    /// The round that began last before `at`, over or not: what happens after it was healed is its doing, too.
    pub(crate) fn round_at(&self, at: At) -> Option<&Round> {
        self.rounds
            .iter()
            .rev()
            .find(|round| round.span.since <= at)
    }

    pub(crate) fn first(&self, is: impl Fn(&Event) -> bool) -> Option<At> {
        self.lines
            .iter()
            .find(|line| is(&line.event))
            .map(|line| line.at)
    }

    /// From when all candidates run to when they are asked to leave.
    pub(crate) fn window(&self) -> Option<Span> {
        let since = self.first(|event| *event == Event::Begun)?;
        let end = || self.lines.last().map(|line| line.at);
        let until = self.first(|event| *event == Event::Ending).or_else(end)?;
        Some(Span { since, until })
    }
}

fn terms(lines: &[Line]) -> Vec<Term> {
    let mut terms: BTreeMap<(Election, u64, &str), Term> = BTreeMap::new();
    for Line { at, node, event } in lines {
        let (election, token) = match event {
            Event::Elected {
                election, token, ..
            }
            | Event::ElectedLate { election, token }
            | Event::Believed {
                election, token, ..
            }
            | Event::Ended {
                election, token, ..
            }
            | Event::Resigning { election, token }
            | Event::Resigned { election, token }
            | Event::Dropping { election, token } => (*election, *token),
            _ => continue,
        };
        let term = terms
            .entry((election, token, node.as_str()))
            .or_insert_with(|| Term {
                election,
                token,
                node: node.clone(),
                elected: Vec::new(),
                elected_late: Vec::new(),
                domain: None,
                beliefs: Vec::new(),
                ended: Vec::new(),
                resigning: None,
                resigned: None,
                dropping: None,
            });
        match event {
            Event::Elected { domain, .. } => {
                term.elected.push(*at);
                term.domain = Some(domain.clone());
            }
            Event::ElectedLate { .. } => term.elected_late.push(*at),
            Event::Believed { since, until, .. } => match term.beliefs.last_mut() {
                // A belief is told again and again while it goes on.
                Some(belief) if belief.since == *since => belief.until = belief.until.max(*until),
                _ => term.beliefs.push(Span {
                    since: *since,
                    until: *until,
                }),
            },
            Event::Ended { .. } => term.ended.push(*at),
            Event::Resigning { .. } => term.resigning = Some(*at),
            Event::Resigned { .. } => term.resigned = Some(*at),
            Event::Dropping { .. } => term.dropping = Some(*at),
            _ => {}
        }
    }
    terms.into_values().collect()
}

fn fates(lines: &[Line]) -> BTreeMap<String, Fate> {
    let end = lines.last().map(|line| line.at);
    let mut fates: BTreeMap<String, Fate> = BTreeMap::new();
    for Line { at, node, event } in lines {
        if !matches!(event, Event::Frozen | Event::Thawed | Event::Killed) {
            continue;
        }
        let fate = fates.entry(node.clone()).or_default();
        match (event, fate.frozen.last_mut()) {
            (Event::Thawed, Some(span)) => span.until = *at,
            (Event::Killed, _) => fate.killed = Some(*at),
            _ => fate.frozen.push(Span {
                since: *at,
                until: end.unwrap_or(*at),
            }),
        }
    }
    fates
}

fn rounds(lines: &[Line]) -> Vec<Round> {
    let end = lines.last().map(|line| line.at);
    let mut rounds: Vec<Round> = Vec::new();
    for Line { at, event, .. } in lines {
        match event {
            Event::Fault {
                round,
                kind,
                target,
                leads_cluster,
            } => rounds.push(Round {
                number: *round,
                kind: *kind,
                target: target.clone(),
                leads_cluster: *leads_cluster,
                removed_in: Vec::new(),
                span: Span {
                    since: *at,
                    until: end.unwrap_or(*at),
                },
            }),
            Event::Healed { round } => {
                if let Some(known) = rounds.iter_mut().find(|known| known.number == *round) {
                    known.span.until = *at;
                }
            }
            Event::Removed { election, .. } => {
                if let Some(last) = rounds.last_mut() {
                    last.removed_in.push(*election);
                }
            }
            _ => {}
        }
    }
    rounds
}

fn still(lines: &[Line]) -> Vec<Span> {
    let still = |line: &Line| match line.event {
        Event::StoodStill { since } => Some(Span {
            since,
            until: line.at,
        }),
        _ => None,
    };
    lines.iter().filter_map(still).collect()
}
