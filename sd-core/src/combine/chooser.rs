//! Which of several sources is in use. Knows only how long each has been healthy or not. Does no I/O and reads no clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::state::{State, Status};
use crate::retry::later;

/// When a source is healthy, and for how long it must be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    /// How long a source must have failed before the next one is used.
    pub(super) fall_back_after: Duration,
    /// How long a preferred source must have been healthy before it is used again.
    pub(super) return_after: Duration,
    /// Whether a source without instances is unhealthy.
    pub(super) skip_empty: bool,
}

impl Policy {
    pub(super) fn is_healthy(&self, state: &State) -> bool {
        matches!(state.status, Status::Live) && !(self.skip_empty && state.snapshot.is_empty())
    }
}

/// Decides which source is in use.
#[derive(Debug)]
pub(super) struct Chooser {
    policy: Policy,
    sources: Vec<Health>,
    current: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Health {
    healthy: bool,
    since: Instant,
}

impl Chooser {
    /// No source is known to be healthy. Each has been unhealthy for the given time.
    pub(super) fn new(
        now: Instant,
        failing_for: impl IntoIterator<Item = Duration>,
        policy: Policy,
    ) -> Self {
        let sources = failing_for.into_iter().map(|span| Health {
            healthy: false,
            since: now.checked_sub(span).unwrap_or(now),
        });
        Self {
            policy,
            sources: sources.collect(),
            current: None,
        }
    }

    pub(super) fn policy(&self) -> Policy {
        self.policy
    }

    /// The source in use. `None` before any source was healthy.
    pub(super) fn current(&self) -> Option<usize> {
        self.current
    }

    pub(super) fn observe(&mut self, now: Instant, healthy: impl IntoIterator<Item = bool>) {
        for (source, healthy) in self.sources.iter_mut().zip(healthy) {
            if source.healthy != healthy {
                *source = Health {
                    healthy,
                    since: now,
                };
            }
        }
    }

    pub(super) fn is_healthy(&self, index: usize) -> bool {
        self.sources.get(index).is_some_and(|source| source.healthy)
    }

    /// When the source counts as failed unless it recovers. `None` while it is healthy.
    fn fails_at(&self, index: usize) -> Option<Instant> {
        let source = self.sources.get(index)?;
        (!source.healthy).then(|| later(source.since, self.policy.fall_back_after))
    }

    fn has_failed(&self, now: Instant, index: usize) -> bool {
        self.fails_at(index).is_some_and(|at| at <= now)
    }

    pub(super) fn all_have_failed(&self, now: Instant) -> bool {
        (0..self.sources.len()).all(|index| self.has_failed(now, index))
    }

    /// Chooses again. Without a healthy source the choice stays.
    pub(super) fn choose(&mut self, now: Instant) {
        let wanted = match self.current {
            None => self.first_choice(now),
            Some(current) => self.better_than(now, current),
        };
        self.current = wanted.or(self.current);
    }

    /// The first healthy source, unless an earlier one may still answer in time.
    fn first_choice(&self, now: Instant) -> Option<usize> {
        let candidate = (0..self.sources.len()).find(|index| !self.has_failed(now, *index))?;
        self.is_healthy(candidate).then_some(candidate)
    }

    fn better_than(&self, now: Instant, current: usize) -> Option<usize> {
        let is_stable = |source: &Health| {
            source.healthy && later(source.since, self.policy.return_after) <= now
        };
        let preferred = self.sources.iter().take(current).position(is_stable);
        preferred.or_else(|| {
            self.has_failed(now, current)
                .then(|| self.sources.iter().position(|source| source.healthy))
                .flatten()
        })
    }

    /// When the choice may change by time alone.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let fails = (0..self.sources.len()).filter_map(|index| self.fails_at(index));
        let preferred = self.sources.iter().take(self.current.unwrap_or(0));
        let returns = preferred
            .filter(|source| source.healthy)
            .map(|source| later(source.since, self.policy.return_after));
        fails.chain(returns).filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(3);
    const STABLE: Duration = Duration::from_secs(1);

    fn chooser(sources: usize) -> (Chooser, Instant) {
        let policy = Policy {
            fall_back_after: GRACE,
            return_after: STABLE,
            skip_empty: false,
        };
        let now = Instant::now();
        let failing_for = vec![Duration::ZERO; sources];
        (Chooser::new(now, failing_for, policy), now)
    }

    #[test]
    fn sources_without_an_answer_are_waited_for_no_longer_than_the_grace() {
        let (mut chooser, start) = chooser(3);
        chooser.observe(start, [false, false, true]);
        chooser.choose(start);
        assert_eq!(chooser.current(), None);
        let end = chooser.due(start).unwrap();
        assert_eq!(end, start + GRACE);
        chooser.choose(end);
        assert_eq!((chooser.current(), chooser.due(end)), (Some(2), None));
    }

    #[test]
    fn a_failed_source_is_left_after_the_grace_and_a_preferred_one_taken_when_stable() {
        let (mut chooser, start) = chooser(2);
        chooser.observe(start, [true, true]);
        chooser.choose(start);
        assert_eq!((chooser.current(), chooser.due(start)), (Some(0), None));
        chooser.observe(start, [false, true]);
        chooser.choose(start + GRACE / 2);
        assert_eq!(chooser.current(), Some(0));
        let left = chooser.due(start).unwrap();
        chooser.choose(left);
        assert_eq!((left, chooser.current()), (start + GRACE, Some(1)));
        chooser.observe(left, [true, true]);
        chooser.choose(left);
        assert_eq!(chooser.current(), Some(1));
        let back = chooser.due(left).unwrap();
        chooser.choose(back);
        assert_eq!((back, chooser.current()), (left + STABLE, Some(0)));
    }

    #[test]
    fn without_a_healthy_source_the_choice_stays() {
        let (mut chooser, start) = chooser(2);
        chooser.observe(start, [true, false]);
        chooser.choose(start);
        chooser.observe(start, [false, false]);
        let late = start + 10 * GRACE;
        chooser.choose(late);
        assert_eq!((chooser.current(), chooser.due(late)), (Some(0), None));
        assert!(chooser.all_have_failed(late));
    }
}
