//! The sums over what many test programs print.

use std::fmt::{self, Display};
use std::process::ExitStatus;

/// Sums of libtest's `test result:` lines.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    passed: usize,
    ignored: usize,
    failed: Vec<String>,
    /// Commands that failed; one that crashes says no result.
    failed_commands: usize,
}

impl Counts {
    /// Takes one line that a test program printed.
    pub(crate) fn add_line(&mut self, line: &str) {
        if let Some((passed, ignored)) = result(line) {
            self.passed += passed;
            self.ignored += ignored;
        }
        self.failed.extend(failed_test(line).map(str::to_owned));
    }

    /// Takes the end of a command whose lines were added.
    pub(crate) fn add_status(&mut self, status: ExitStatus) {
        if !status.success() {
            self.failed_commands += 1;
        }
    }

    /// `count` tests that an earlier command ignored have run after all.
    pub(crate) fn were_ignored(&mut self, count: usize) {
        self.ignored = self.ignored.saturating_sub(count);
    }

    pub(crate) fn is_success(&self) -> bool {
        self.failed.is_empty() && self.failed_commands == 0
    }

    /// Says again, at the end of a long output, what failed.
    pub(crate) fn print_failed(&self) {
        for test in &self.failed {
            println!("failed: {test}");
        }
        if self.failed.is_empty() && self.failed_commands > 0 {
            println!("failed: a test program ended before its result, see above");
        }
    }
}

impl Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passed, ignored) = (self.passed, self.ignored);
        let failed = self.failed.len().max(self.failed_commands);
        write!(f, "{passed} passed, {failed} failed, {ignored} ignored")
    }
}

/// Passed and ignored, from `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; ...`.
fn result(line: &str) -> Option<(usize, usize)> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let count = |what: &str| {
        let part = counts.split("; ").find_map(|part| part.strip_suffix(what));
        part?.trim().parse().ok()
    };
    Some((count("passed")?, count("ignored")?))
}

/// The name in `test some::name ... FAILED`.
fn failed_test(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(lines: &[&str]) -> Counts {
        let mut counts = Counts::default();
        for line in lines {
            counts.add_line(line);
        }
        counts
    }

    #[test]
    fn results_add_up() {
        let counts = counted(&[
            "running 4 tests",
            "test a::b ... ok",
            "test a::c ... ignored, needs etcd: cargo xtask test --backend etcd",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s",
            "test result: ok. 40 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 1.00s",
        ]);
        assert_eq!(counts.to_string(), "43 passed, 0 failed, 3 ignored");
        assert!(counts.is_success());
    }

    #[test]
    fn a_failed_test_is_named_and_counted() {
        let counts = counted(&[
            "test a::b ... FAILED",
            "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        ]);
        assert_eq!(counts.failed, ["a::b"]);
        assert_eq!(counts.to_string(), "3 passed, 1 failed, 0 ignored");
        assert!(!counts.is_success());
    }

    #[test]
    fn what_a_test_prints_is_no_result() {
        let counts = counted(&[
            "test result: strange",
            "test result: ok. many passed; 0 ignored",
        ]);
        assert_eq!(counts.to_string(), "0 passed, 0 failed, 0 ignored");
    }

    #[test]
    fn a_crash_without_a_result_is_a_failure() {
        let mut counts = counted(&["running 4 tests"]);
        let crash = std::process::Command::new("sh")
            .args(["-c", "kill -SEGV $$"])
            .status()
            .unwrap();
        counts.add_status(crash);
        assert_eq!(counts.to_string(), "0 passed, 1 failed, 0 ignored");
        assert!(!counts.is_success());
    }

    #[test]
    fn ignored_tests_that_ran_later_are_ignored_no_more() {
        let mut counts = counted(&[
            "test result: ok. 0 passed; 0 failed; 5 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0.00s",
        ]);
        counts.were_ignored(4);
        assert_eq!(counts.to_string(), "4 passed, 0 failed, 1 ignored");
    }
}
