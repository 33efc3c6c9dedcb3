//! One check, again and again.

use std::future::Future;
use std::time::Duration;

use sd_core::panics::caught;
use tokio::time::{sleep, timeout};

use super::board::Slot;
use super::probe::Answer;
use super::thresholds::Thresholds;
use crate::wire::{CheckSpec, CheckState};

/// The first pause of a check that has not passed yet. What was just started is up soon, or not for a while.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// At most how long after its start a check is attempted for the first time: an agent starts many at once.
const SPREAD: Duration = Duration::from_millis(100);

/// Attempts a check for ever, each time within its time-out. A panic of `attempt` is a bad answer.
pub(super) async fn run<F>(spec: CheckSpec, slot: Slot, attempt: impl Fn() -> F)
where
    F: Future<Output = Answer>,
{
    let mut thresholds = Thresholds::new(&spec);
    let mut has_passed = spec.initial == CheckState::Passing;
    let mut pause = FIRST_PAUSE;
    sleep(SPREAD.mul_f64(fastrand::f64())).await;
    loop {
        let answer = once(spec.timeout, attempt()).await;
        let (is_good, output) = match &answer {
            Ok(output) => (true, output),
            Err(output) => (false, output),
        };
        let state = thresholds.note(is_good);
        slot.tell(state, output);
        has_passed |= state == CheckState::Passing;
        if has_passed {
            pause = spec.interval;
        }
        sleep(pause).await;
        pause = pause.saturating_mul(2).min(spec.interval);
    }
}

async fn once(limit: Duration, attempt: impl Future<Output = Answer>) -> Answer {
    let attempt = caught("check", async { Ok(attempt.await) });
    match timeout(limit, attempt).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panicked)) => Err(panicked.report().to_string()),
        Err(_) => {
            let limit = humantime_serde::re::humantime::format_duration(limit);
            Err(format!("no answer within {limit}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::num::NonZeroU32;
    use std::sync::{Arc, Mutex};

    use tokio::sync::watch;
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    use super::*;
    use crate::checks::board::Board;
    use crate::checks::{CheckReport, Health};
    use crate::wire::CheckKind;

    /// A check with answers in order: `+` good, `-` bad, `.` none, `!` a panic. The last one is given for ever.
    struct Scripted {
        health: watch::Receiver<Health>,
        /// When each attempt began.
        begun: Arc<Mutex<Vec<Instant>>>,
        task: JoinHandle<()>,
    }

    impl Drop for Scripted {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    impl Scripted {
        fn start(spec: CheckSpec, answers: &'static str) -> Self {
            let board = Board::new(
                [CheckReport {
                    name: "scripted".to_owned(),
                    state: spec.initial,
                    output: String::new(),
                }]
                .into_iter(),
            );
            let begun = Arc::new(Mutex::new(Vec::new()));
            let noted = Arc::clone(&begun);
            let attempt = move || {
                let mut noted = noted.lock().unwrap();
                let answer = answers.chars().nth(noted.len());
                noted.push(Instant::now());
                let answer = answer.or(answers.chars().last());
                async move {
                    match answer.unwrap() {
                        '+' => Ok("good".to_owned()),
                        '-' => Err("bad".to_owned()),
                        '!' => panic!("out of order"),
                        _ => pending().await,
                    }
                }
            };
            let slot = board.slots().next().unwrap();
            Self {
                health: board.health(),
                begun,
                task: tokio::spawn(run(spec, slot, attempt)),
            }
        }

        /// Waits until so many attempts have begun. Returns the pauses between the begins, in milliseconds.
        async fn pauses(&mut self, attempts: usize) -> Vec<u128> {
            while self.begun.lock().unwrap().len() < attempts {
                sleep(Duration::from_millis(10)).await;
            }
            let begun = self.begun.lock().unwrap();
            begun
                .windows(2)
                .take(attempts - 1)
                .map(|pair| (pair[1] - pair[0]).as_millis())
                .collect()
        }

        async fn state(&mut self, state: CheckState) -> String {
            let health = self
                .health
                .wait_for(|health| health.checks[0].state == state);
            health.await.unwrap().checks[0].output.clone()
        }
    }

    fn spec() -> CheckSpec {
        CheckSpec::new(CheckKind::Tcp { address: None })
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_attempt_is_made_at_once() {
        let start = Instant::now();
        Scripted::start(spec(), "+")
            .state(CheckState::Passing)
            .await;
        assert!(start.elapsed() <= SPREAD);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_not_passed_yet_is_attempted_sooner_and_then_with_the_interval() {
        let mut spec = spec();
        spec.interval = Duration::from_secs(1);
        let mut check = Scripted::start(spec, "------+-+-----");
        let pauses = check.pauses(14).await;
        let early = [100, 200, 400, 800, 1000, 1000];
        assert_eq!(pauses[..6], early);
        assert!(pauses[6..].iter().all(|pause| *pause == 1000), "{pauses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_counts_as_passing_before_it_is_asked_keeps_its_interval() {
        let mut spec = spec();
        spec.initial = CheckState::Passing;
        let mut check = Scripted::start(spec, "-");
        assert_eq!(check.pauses(3).await, [10_000, 10_000]);
        assert_eq!(check.state(CheckState::Failing).await, "bad");
    }

    #[tokio::test(start_paused = true)]
    async fn no_answer_in_time_is_a_bad_one_and_the_next_attempt_follows() {
        let mut spec = spec();
        spec.fails_after = NonZeroU32::MIN;
        let mut check = Scripted::start(spec, "+.+");
        check.state(CheckState::Passing).await;
        let why = check.state(CheckState::Failing).await;
        assert_eq!(why, "no answer within 2s");
        check.state(CheckState::Passing).await;
        assert_eq!(check.pauses(3).await, [10_000, 12_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_a_bad_answer_and_no_end() {
        let mut spec = spec();
        spec.fails_after = NonZeroU32::MIN;
        let mut check = Scripted::start(spec, "+!+");
        check.state(CheckState::Passing).await;
        let why = check.state(CheckState::Failing).await;
        assert!(why.contains("out of order"), "{why}");
        check.state(CheckState::Passing).await;
    }

    #[tokio::test(start_paused = true)]
    async fn one_bad_answer_does_not_count_and_two_in_a_row_do() {
        let mut check = Scripted::start(spec(), "+-+-+--");
        check.state(CheckState::Passing).await;
        check.state(CheckState::Failing).await;
        assert_eq!(check.begun.lock().unwrap().len(), 7);
    }
}
