//! What the checks of one instance say, as its readers see it.

use std::sync::Arc;

use sd_core::{Printable, brief};
use tokio::sync::watch;

use super::{CheckReport, Health};
use crate::wire::CheckState;

#[derive(Clone, Debug)]
pub(super) struct Board(Arc<watch::Sender<Health>>);

/// The place of one check.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    board: Board,
    index: usize,
}

impl Board {
    pub(super) fn new(checks: impl Iterator<Item = CheckReport>) -> Self {
        let checks: Vec<_> = checks.collect();
        let passing = all_pass(&checks);
        Self(Arc::new(watch::Sender::new(Health { passing, checks })))
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        let board = self.clone();
        (0..self.0.borrow().checks.len()).map(move |index| Slot {
            board: board.clone(),
            index,
        })
    }

    pub(super) fn health(&self) -> watch::Receiver<Health> {
        self.0.subscribe()
    }
}

impl Slot {
    /// What the check says from now on.
    pub(super) fn tell(&self, state: CheckState, output: &str) {
        self.tell_if(|| true, state, output);
    }

    /// As [`tell`](Self::tell), if `condition` holds while no other can tell anything.
    pub(super) fn tell_if(
        &self,
        condition: impl FnOnce() -> bool,
        state: CheckState,
        output: &str,
    ) {
        let output = brief(Printable(output));
        self.board.0.send_if_modified(|health| {
            let Some(report) = health.checks.get_mut(self.index) else {
                return false;
            };
            if (report.state, &report.output) == (state, &output) || !condition() {
                return false;
            }
            if report.state != state {
                tracing::debug!(check = %report.name, ?state, %output, "a check has changed");
            }
            report.state = state;
            report.output = output;
            health.passing = all_pass(&health.checks);
            true
        });
    }

    pub(super) fn name(&self) -> String {
        let health = self.board.0.borrow();
        let report = health.checks.get(self.index);
        report.map_or_else(String::new, |report| report.name.clone())
    }

    pub(super) fn is_called(&self, name: &str) -> bool {
        let health = self.board.0.borrow();
        let report = health.checks.get(self.index);
        report.is_some_and(|report| report.name == name)
    }
}

fn all_pass(checks: &[CheckReport]) -> bool {
    checks
        .iter()
        .all(|report| report.state == CheckState::Passing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(states: &[CheckState]) -> Board {
        Board::new(states.iter().enumerate().map(|(index, state)| CheckReport {
            name: format!("check-{index}"),
            state: *state,
            output: String::new(),
        }))
    }

    #[test]
    fn an_instance_is_well_while_all_checks_pass_and_so_is_one_without_checks() {
        assert!(board(&[]).health().borrow().passing);
        let board = board(&[CheckState::Failing, CheckState::Failing]);
        let mut health = board.health();
        let slots: Vec<_> = board.slots().collect();
        for (slot, state, passing) in [
            (0, CheckState::Passing, false),
            (1, CheckState::Passing, true),
            (0, CheckState::Failing, false),
        ] {
            slots[slot].tell(state, "so it is");
            assert!(health.has_changed().unwrap());
            assert_eq!(health.borrow_and_update().passing, passing);
        }
    }

    #[test]
    fn what_is_no_news_wakes_no_reader_and_nothing_is_long_or_unprintable() {
        let board = board(&[CheckState::Failing]);
        let mut health = board.health();
        let slot = board.slots().next().unwrap();
        let hostile = "\u{1b}[2J\u{202e}".repeat(1000);
        slot.tell(CheckState::Failing, &hostile);
        let output = health.borrow_and_update().checks[0].output.clone();
        assert!(output.len() <= 256, "{output}");
        assert!(output.chars().all(Printable::is_printable), "{output}");
        slot.tell(CheckState::Failing, &hostile);
        assert!(!health.has_changed().unwrap());
        slot.tell_if(|| false, CheckState::Passing, "");
        assert!(!health.has_changed().unwrap());
        assert!(!health.borrow().passing);
    }
}
