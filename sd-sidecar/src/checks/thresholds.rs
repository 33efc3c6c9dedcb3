//! From which answer on a check passes or fails.

use crate::wire::{CheckSpec, CheckState};

/// A state that changes only after several answers against it in a row, so that one lost packet is no outage, and one lucky answer no
/// recovery.
#[derive(Debug)]
pub(super) struct Thresholds {
    state: CheckState,
    passes_after: u32,
    fails_after: u32,
    /// How many answers in a row were against the state.
    against: u32,
}

impl Thresholds {
    pub(super) fn new(spec: &CheckSpec) -> Self {
        Self {
            state: spec.initial,
            passes_after: spec.passes_after.get(),
            fails_after: spec.fails_after.get(),
            against: 0,
        }
    }

    /// Takes an answer. Returns what counts now.
    pub(super) fn note(&mut self, is_good: bool) -> CheckState {
        let (needed, other) = match self.state {
            CheckState::Passing => (self.fails_after, CheckState::Failing),
            CheckState::Failing => (self.passes_after, CheckState::Passing),
        };
        if is_good == (self.state == CheckState::Passing) {
            self.against = 0;
        } else {
            self.against += 1;
        }
        if self.against >= needed {
            self.against = 0;
            self.state = other;
        }
        self.state
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::wire::CheckKind;

    /// The states after each answer: `+` is a good one and `-` a bad one, `P` is passing and `F` failing.
    fn states(initial: CheckState, passes_after: u32, fails_after: u32, answers: &str) -> String {
        let mut spec = CheckSpec::new(CheckKind::Tcp { address: None });
        spec.initial = initial;
        spec.passes_after = NonZeroU32::new(passes_after).unwrap();
        spec.fails_after = NonZeroU32::new(fails_after).unwrap();
        let mut thresholds = Thresholds::new(&spec);
        let states = answers.chars().map(|answer| thresholds.note(answer == '+'));
        let letters = states.map(|state| match state {
            CheckState::Passing => 'P',
            CheckState::Failing => 'F',
        });
        letters.collect()
    }

    #[test]
    fn only_so_many_answers_in_a_row_change_the_state() {
        use CheckState::{Failing, Passing};
        for (initial, passes_after, fails_after, answers, expected) in [
            (Failing, 1, 1, "+-+-", "PFPF"),
            (Failing, 1, 2, "-+-+--+", "FPPPPFP"),
            (Failing, 3, 2, "++-+++-+--", "FFFFFPPPPF"),
            (Passing, 2, 3, "--+---+-++", "PPPPPFFFFP"),
        ] {
            let seen = states(initial, passes_after, fails_after, answers);
            assert_eq!(seen, expected, "{answers}");
        }
    }
}
