//! What a policy learns of the calls at one endpoint.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// How a call at an endpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The endpoint answered.
    Success,
    /// The endpoint did not answer, or answered that it cannot serve the call now.
    Failure,
    /// The caller gave up, or the call moved elsewhere before it was sent. This says nothing about the endpoint.
    Dropped,
}

impl Outcome {
    /// `Success` for `Ok`, `Failure` for `Err`.
    pub fn of<T, E>(result: &Result<T, E>) -> Self {
        if result.is_ok() {
            Self::Success
        } else {
            Self::Failure
        }
    }
}

/// What a [`Policy`](super::Policy) keeps of the calls at one endpoint: calls in flight, latencies, failures.
///
/// Its owner calls it from any thread, on the way of every call. It must neither lock nor allocate nor panic.
pub trait Load: Any + fmt::Debug + Send + Sync {
    /// A call begins. What this returns comes back to [`end`](Self::end): for instance the time.
    fn begin(&self) -> u64;

    /// The call ended for which [`begin`](Self::begin) returned `begun`. Called exactly once for each `begin`.
    fn end(&self, begun: u64, outcome: Outcome);
}

/// One call at an endpoint, from its begin to its end. Dropping it ends the call, as [`Outcome::Dropped`] unless something else
/// was [told](Self::tell) before.
#[derive(Debug)]
#[must_use = "dropping it ends the call"]
pub struct LoadGuard {
    load: Arc<dyn Load>,
    begun: u64,
    outcome: Outcome,
}

impl LoadGuard {
    /// Begins a call.
    pub fn begin(load: Arc<dyn Load>) -> Self {
        Self {
            begun: load.begin(),
            load,
            outcome: Outcome::Dropped,
        }
    }

    /// Says how the call ended, before the guard is dropped. What is told first stays.
    pub fn tell(&mut self, outcome: Outcome) {
        if self.outcome == Outcome::Dropped {
            self.outcome = outcome;
        }
    }
}

impl Drop for LoadGuard {
    fn drop(&mut self) {
        self.load.end(self.begun, self.outcome);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::sync::lock;

    #[derive(Debug, Default)]
    struct Journal(Mutex<Vec<String>>);

    impl Load for Journal {
        fn begin(&self) -> u64 {
            let mut lines = lock(&self.0);
            lines.push("begin".to_owned());
            lines.len() as u64
        }

        fn end(&self, begun: u64, outcome: Outcome) {
            lock(&self.0).push(format!("end {begun} {outcome:?}"));
        }
    }

    #[test]
    fn a_guard_ends_its_call_once_with_what_was_told_first() {
        let journal = Arc::new(Journal::default());
        let begin = || LoadGuard::begin(Arc::<Journal>::clone(&journal));
        let (mut told, silent) = (begin(), begin());
        told.tell(Outcome::Failure);
        told.tell(Outcome::Success);
        drop(told);
        drop(silent);
        let lines = journal.0.lock().unwrap().clone();
        assert_eq!(lines, ["begin", "begin", "end 1 Failure", "end 2 Dropped"]);
    }
}
