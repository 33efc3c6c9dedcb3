//! The sums over what many test programs print.

use std::fmt::{self, Display};

use crate::capture::Captured;

/// How many lines of a failed test are said again at the end, and how much of each.
const SAID_AGAIN: usize = 8;
const OF_A_LINE: usize = 400;

/// Sums of libtest's `test result:` lines.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    passed: usize,
    ignored: usize,
    /// Of the ignored, those that another program runs.
    run_elsewhere: usize,
    failed: Vec<Failure>,
}

/// One test, or one program that failed besides its tests.
#[derive(Debug)]
struct Failure {
    what: String,
    /// The beginning of what it printed.
    said: Vec<String>,
}

impl Failure {
    fn without_words(what: String) -> Self {
        let said = Vec::new();
        Self { what, said }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed: {}", self.what)?;
        self.said
            .iter()
            .try_for_each(|line| write!(f, "\n    {line}"))
    }
}

impl Counts {
    /// Takes what one program has printed and how it ended.
    pub(crate) fn add(&mut self, title: &str, captured: &Captured) {
        let before = self.failed.len();
        for line in captured.output() {
            self.add_line(title, line);
        }
        for failure in &mut self.failed[before..] {
            let test = failure.what.rsplit(": ").next().unwrap_or_default();
            failure.said = said_by(test, captured);
        }
        if captured.is_success() {
            return;
        }
        // One that crashes or is killed says no result. That it named a failed test explains a status and no trouble.
        if let Some(trouble) = &captured.trouble {
            let what = format!("{title}: {trouble}");
            self.failed.push(Failure::without_words(what));
        } else if self.failed.len() == before {
            let status = captured.status;
            let what = format!("{title}: reported no failed test, but ended with {status}");
            self.failed.push(Failure::without_words(what));
        }
    }

    fn add_line(&mut self, title: &str, line: &str) {
        if let Some((passed, ignored)) = result(line) {
            self.passed += passed;
            self.ignored += ignored;
        }
        let failed = failed_test(line).map(|test| format!("{title}: {test}"));
        self.failed.extend(failed.map(Failure::without_words));
    }

    /// `count` tests that one program ignores are run by another, sooner or later.
    pub(crate) fn are_run_elsewhere(&mut self, count: usize) {
        self.run_elsewhere += count;
    }

    /// What failed and what it said, to be told again at the end of a long output.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.failed.iter().map(Failure::to_string).collect()
    }
}

impl Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ignored = self.ignored.saturating_sub(self.run_elsewhere);
        let passed = self.passed;
        let failed = self.failed.len();
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

/// The beginning of what libtest prints below `---- some::name stdout ----`.
fn said_by(test: &str, captured: &Captured) -> Vec<String> {
    let heading = format!("---- {test} stdout ----");
    let lines = captured.output().skip_while(|line| *line != heading);
    let lines = lines.skip(1);
    let lines = lines.take_while(|line| !line.starts_with("---- ") && *line != "failures:");
    let lines = lines.filter(|line| !line.is_empty()).take(SAID_AGAIN);
    lines
        .map(|line| line.chars().take(OF_A_LINE).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::capture::capture;
    use crate::command::Run;

    fn counted(script: &str) -> Counts {
        let mut counts = Counts::default();
        add(&mut counts, script);
        counts
    }

    fn add(counts: &mut Counts, script: &str) {
        let run = Run::new("sh").args(["-c", script]);
        let captured = capture(run, Duration::from_secs(2)).unwrap();
        counts.add("p faults", &captured);
    }

    const RESULT: &str = "0 measured; 2 filtered out; finished in 0.01s";

    #[test]
    fn results_add_up() {
        let counts = counted(&format!(
            "echo 'running 4 tests'
             echo 'test a::b ... ok'
             echo 'test a::c ... ignored, needs etcd: cargo xtask test --backend etcd'
             echo 'test result: ok. 3 passed; 0 failed; 1 ignored; {RESULT}'
             echo 'test result: ok. 40 passed; 0 failed; 2 ignored; {RESULT}'
             echo 'test result: ok. 5 passed; 0 failed; 0 ignored; {RESULT}' >&2"
        ));
        assert_eq!(counts.to_string(), "43 passed, 0 failed, 3 ignored");
        assert!(counts.failed.is_empty());
    }

    #[test]
    fn a_failed_test_is_named_with_its_program_and_counted_once() {
        let counts = counted(&format!(
            "echo 'test a::b ... FAILED'
             echo 'test result: FAILED. 3 passed; 1 failed; 0 ignored; {RESULT}'
             exit 101"
        ));
        assert_eq!(counts.failures(), ["failed: p faults: a::b"]);
        assert_eq!(counts.to_string(), "3 passed, 1 failed, 0 ignored");
        assert!(!counts.failed.is_empty());
    }

    #[test]
    fn what_each_failed_test_said_is_told_again_in_a_few_lines() {
        let counts = counted(
            "echo 'test a::b ... FAILED'
             echo 'test a::c ... FAILED'
             echo
             echo 'failures:'
             echo
             echo '---- a::b stdout ----'
             echo
             echo 'left is not right'
             echo '---- a::c stdout ----'
             for line in 1 2 3 4 5 6 7 8 9; do echo line $line; done
             echo
             echo 'failures:'
             echo '    a::b'
             exit 101",
        );
        let [first, second] = &counts.failures()[..] else {
            panic!("{counts:?}")
        };
        assert_eq!(first, "failed: p faults: a::b\n    left is not right");
        assert!(second.starts_with("failed: p faults: a::c\n    line 1\n"));
        assert!(second.ends_with("\n    line 8"), "{second}");
    }

    #[test]
    fn what_a_test_prints_is_no_result() {
        let counts = counted(
            "echo 'test result: strange'
             echo 'test result: ok. many passed; 0 ignored'",
        );
        assert_eq!(counts.to_string(), "0 passed, 0 failed, 0 ignored");
    }

    #[test]
    fn a_crash_without_a_result_is_a_failure() {
        let counts = counted("echo 'running 4 tests'; kill -SEGV $$");
        assert_eq!(counts.to_string(), "0 passed, 1 failed, 0 ignored");
        assert!(counts.failed[0].what.starts_with("p faults: "));
    }

    #[test]
    fn a_program_that_had_to_be_killed_failed_besides_its_tests() {
        let counts = counted("echo 'test a::b ... FAILED'; sleep 600");
        assert_eq!(counts.failed.len(), 2, "{:?}", counts.failed);
        assert!(counts.failed[1].what.contains("killed"));
    }

    #[test]
    fn ignored_tests_that_are_run_elsewhere_are_not_ignored_whichever_ends_first() {
        let ignoring = format!("echo 'test result: ok. 0 passed; 0 failed; 5 ignored; {RESULT}'");
        let running = format!("echo 'test result: ok. 4 passed; 0 failed; 0 ignored; {RESULT}'");
        for scripts in [[&ignoring, &running], [&running, &ignoring]] {
            let mut counts = Counts::default();
            for script in scripts {
                add(&mut counts, script);
                let elsewhere = if *script == running { 4 } else { 0 };
                counts.are_run_elsewhere(elsewhere);
            }
            assert_eq!(counts.to_string(), "4 passed, 0 failed, 1 ignored");
        }
    }

    #[test]
    fn where_nothing_was_ignored_nothing_is_missing() {
        let mut counts = counted(&format!(
            "echo 'test result: ok. 4 passed; 0 failed; 0 ignored; {RESULT}'"
        ));
        counts.are_run_elsewhere(4);
        assert_eq!(counts.to_string(), "4 passed, 0 failed, 0 ignored");
    }
}
