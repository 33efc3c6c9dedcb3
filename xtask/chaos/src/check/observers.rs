//! I8: observers never go back, and end with what the server says.

use std::collections::BTreeMap;

use crate::check::{Findings, Invariant};
use crate::history::{Election, Event, Line};
use crate::story::Story;

/// What one observer knows.
#[derive(Default)]
struct Seen {
    highest: Option<u64>,
    last: Option<u64>,
}

pub(super) fn check(story: &Story, election: Election, findings: &mut Findings) {
    let mut observers: BTreeMap<&str, Seen> = BTreeMap::new();
    for Line { at, node, event } in story.lines_of(election) {
        match event {
            Event::Observed { token, .. } => {
                let seen = observers.entry(node).or_default();
                if let (Some(token), Some(highest)) = (token, seen.highest)
                    && *token < highest
                {
                    let text = format!("{node} was told of term {token} after {highest}");
                    findings.violate(Invariant::I8, election, *at, text);
                }
                seen.highest = seen.highest.max(*token);
                seen.last = *token;
            }
            Event::Backend { token, .. } => {
                if observers.is_empty() {
                    let text = "no observer reported anything".to_owned();
                    findings.violate(Invariant::I8, election, *at, text);
                }
                for (node, seen) in observers.iter().filter(|(_, seen)| seen.last != *token) {
                    let text = format!("{node} still says {:?}, the server {token:?}", seen.last);
                    findings.violate(Invariant::I8, election, *at, text);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::script::{Script, found};

    #[test]
    fn an_observer_that_follows_is_fine() {
        let mut script = Script::default();
        script
            .observed(Some(1), 10)
            .observed(None, 20)
            .observed(Some(1), 25);
        script.observed(Some(4), 30).backend(Some(4), 40);
        script.observed(None, 50).backend(None, 60);
        assert_eq!(found(&script.check()), []);
    }

    #[test]
    fn an_observer_that_goes_back_is_found() {
        let mut script = Script::default();
        script
            .observed(Some(4), 10)
            .observed(None, 20)
            .observed(Some(1), 30);
        assert_eq!(found(&script.check()), [Invariant::I8]);
    }

    #[test]
    fn an_observer_that_stays_behind_is_found() {
        let mut script = Script::default();
        script.observed(Some(1), 10).backend(Some(4), 40);
        script.observed(Some(4), 50).backend(None, 60);
        assert_eq!(found(&script.check()), [Invariant::I8, Invariant::I8]);
    }

    #[test]
    fn observing_nothing_is_found() {
        let mut script = Script::default();
        script.backend(Some(4), 40);
        assert_eq!(found(&script.check()), [Invariant::I8]);
    }
}
