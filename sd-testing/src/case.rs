//! Conformance cases with names, and the report of a suite, which names every case that failed or was skipped.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use futures_util::future::BoxFuture;
use sd_core::{Error, ErrorKind};
use tokio::time::timeout;

use crate::{Ability, Fixture};

/// The time limit of a case. One that hangs has failed.
const CASE_WITHIN: Duration = Duration::from_secs(3 * 60);

/// One behaviour that every backend must have whose source has the abilities for it.
#[derive(Clone, Copy)]
pub struct Case {
    /// A sentence that is true when the case passes.
    pub name: &'static str,
    /// What it needs. If the source lacks one of these, the case is skipped.
    pub needs: &'static [Ability],
    pub(super) run: for<'a> fn(&'a dyn Fixture) -> BoxFuture<'a, Result<(), Failure>>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Case").field(&self.name).finish()
    }
}

/// Why a case did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The backend does not behave that way.
    Broken(String),
    /// The source lacks this, and the case needs it.
    Skipped(Ability),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Broken(error.report().to_string())
    }
}

/// The outcome of one case.
pub type Outcome = Result<(), Failure>;

impl Case {
    /// Runs this case alone, for at most 3 minutes, unless the source lacks what it needs.
    ///
    /// # Errors
    /// Why the case did not pass.
    pub async fn run(&self, fixture: &dyn Fixture) -> Outcome {
        if let Some(lacking) = self.needs.iter().find(|need| !fixture.has(**need)) {
            return Err(Failure::Skipped(*lacking));
        }
        match timeout(CASE_WITHIN, (self.run)(fixture)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::Broken(format!(
                "not done within {CASE_WITHIN:?}: something hangs"
            ))),
        }
    }
}

/// The outcomes of all cases of a suite.
#[derive(Clone, Debug)]
pub struct SuiteReport {
    outcomes: Vec<(&'static str, Outcome)>,
}

impl SuiteReport {
    pub(super) async fn of(cases: Vec<Case>, fixture: &dyn Fixture) -> Self {
        let mut outcomes = Vec::with_capacity(cases.len());
        for case in cases {
            outcomes.push((case.name, case.run(fixture).await));
        }
        Self { outcomes }
    }

    /// Each case with its outcome.
    pub fn outcomes(&self) -> &[(&'static str, Outcome)] {
        &self.outcomes
    }

    /// The names of the cases that failed.
    pub fn failed(&self) -> Vec<&'static str> {
        self.names(|outcome| matches!(outcome, Err(Failure::Broken(_))))
    }

    /// The names of the cases that were skipped.
    pub fn skipped(&self) -> Vec<&'static str> {
        self.names(|outcome| matches!(outcome, Err(Failure::Skipped(_))))
    }

    /// Prints which cases were skipped for lack of what, and panics unless all others passed.
    ///
    /// # Panics
    /// With the name and the reason of every case that failed.
    #[track_caller]
    pub fn expect_passed(&self) {
        let mut failed = Vec::new();
        for (name, outcome) in &self.outcomes {
            match outcome {
                Ok(()) => {}
                Err(Failure::Skipped(lacking)) => {
                    tell_skipped(name, *lacking);
                }
                Err(Failure::Broken(why)) => failed.push(format!("{name}: {why}")),
            }
        }
        assert!(
            failed.is_empty(),
            "{} of {} cases failed:\n{}",
            failed.len(),
            self.outcomes.len(),
            failed.join("\n")
        );
    }

    fn names(&self, is: impl Fn(&Outcome) -> bool) -> Vec<&'static str> {
        let chosen = self.outcomes.iter().filter(|(_, outcome)| is(outcome));
        chosen.map(|(name, _)| *name).collect()
    }
}

/// Says that a case is skipped, also where the output of tests is captured.
pub(super) fn tell_skipped(name: &str, lacking: Ability) {
    // Without a standard error the report still says so.
    let _ = writeln!(io::stderr(), "skipped, for lack of {lacking}: {name}");
}

/// The outcome of an act of the fixture.
pub(super) fn done(act: sd_core::Result<()>) -> Outcome {
    act.map_err(|error| match error.kind() {
        ErrorKind::Unsupported => Failure::Broken(format!(
            "the fixture cannot {}: implement it, or state what the source lacks",
            error.op()
        )),
        _ => error.into(),
    })
}

/// The outcome of a check.
pub(super) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if holds {
        Ok(())
    } else {
        Err(Failure::Broken(otherwise()))
    }
}

/// Fails unless the call failed with one of these kinds.
pub(super) fn ensure_fails<T>(
    what: &str,
    result: sd_core::Result<T>,
    kinds: &[ErrorKind],
) -> Outcome {
    match result {
        Ok(_) => Err(Failure::Broken(format!(
            "{what} succeeded, {kinds:?} expected"
        ))),
        Err(error) => ensure(kinds.contains(&error.kind()), || {
            format!("{what} failed with {}, {kinds:?} expected", error.report())
        }),
    }
}

/// A [`Case`] named after the function that runs it, and the abilities that it needs.
macro_rules! case {
    ($run:ident $(, $need:ident)*) => {
        $crate::Case {
            name: stringify!($run),
            needs: &[$($crate::Ability::$need),*],
            run: |fixture| Box::pin($run(fixture)),
        }
    };
}
pub(super) use case;
