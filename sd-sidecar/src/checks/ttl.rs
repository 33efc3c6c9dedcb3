//! The check of which the process itself tells, and that fails when it falls silent.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::board::Slot;
use crate::wire::CheckState;

#[derive(Clone, Debug)]
pub(super) struct Ttl {
    most_silence: Duration,
    slot: Slot,
    /// Until when what was said counts.
    deadline: watch::Sender<Instant>,
}

impl Ttl {
    /// Silence begins now.
    pub(super) fn new(most_silence: Duration, slot: Slot) -> Self {
        Self {
            most_silence,
            slot,
            deadline: watch::Sender::new(Instant::now() + most_silence),
        }
    }

    pub(super) fn name(&self) -> String {
        self.slot.name()
    }

    pub(super) fn is_called(&self, name: &str) -> bool {
        self.slot.is_called(name)
    }

    pub(super) fn beat(&self, state: CheckState, output: &str) {
        // Before it is told, so that it cannot be taken back because of the deadline before.
        self.deadline
            .send_replace(Instant::now() + self.most_silence);
        self.slot.tell(state, output);
    }

    /// Fails the check at each deadline that has passed.
    pub(super) async fn expire(self) {
        let mut deadlines = self.deadline.subscribe();
        loop {
            let deadline = *deadlines.borrow_and_update();
            sleep_until(deadline).await;
            let has_passed = || *self.deadline.borrow() <= Instant::now();
            let limit = humantime_serde::re::humantime::format_duration(self.most_silence);
            let silent = format!("the process has said nothing for {limit}");
            self.slot.tell_if(has_passed, CheckState::Failing, &silent);
            if *self.deadline.borrow() == deadline && deadlines.changed().await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use crate::checks::{Checks, Commands};
    use crate::wire::{CheckKind, CheckSpec};

    use super::*;

    const TTL: Duration = Duration::from_secs(15);

    fn checks(initial: CheckState) -> Checks {
        let mut spec = CheckSpec::new(CheckKind::Ttl { ttl: TTL });
        spec.initial = initial;
        let target = "127.0.0.1:80".parse().unwrap();
        Checks::start(&[spec], &target, Commands::Refused).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_process_says_counts_at_once_and_until_it_falls_silent() {
        let checks = checks(CheckState::Failing);
        let mut health = checks.health();
        sleep(TTL * 2).await;
        assert!(!health.borrow_and_update().passing);
        let start = Instant::now();
        checks.beat("ttl", CheckState::Passing, "warm").unwrap();
        let report = health.borrow_and_update().checks[0].clone();
        assert_eq!(
            (report.state, &*report.output),
            (CheckState::Passing, "warm")
        );
        // One beat in time keeps it, and wakes no reader.
        sleep(Duration::from_secs(14)).await;
        checks.beat("ttl", CheckState::Passing, "warm").unwrap();
        assert!(!health.has_changed().unwrap());
        health.changed().await.unwrap();
        assert_eq!(start.elapsed().as_secs(), (TTL * 2).as_secs() - 1);
        let report = health.borrow_and_update().checks[0].clone();
        assert_eq!(report.state, CheckState::Failing);
        assert_eq!(report.output, "the process has said nothing for 15s");
        checks.beat("ttl", CheckState::Passing, "back").unwrap();
        assert!(health.borrow().passing);
        checks.beat("ttl", CheckState::Failing, "no disk").unwrap();
        assert_eq!(health.borrow().checks[0].output, "no disk");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_counts_as_passing_at_first_does_so_for_one_time_to_live() {
        let checks = checks(CheckState::Passing);
        let mut health = checks.health();
        let start = Instant::now();
        assert!(health.borrow_and_update().passing);
        health.wait_for(|health| !health.passing).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), TTL.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_beat_for_no_check_is_an_error() {
        let checks = checks(CheckState::Passing);
        let error = checks.beat("web", CheckState::Passing, "").unwrap_err();
        assert_eq!(error.kind(), sd_core::ErrorKind::NotFound);
        let text = error.report().to_string();
        assert!(text.contains("called \"web\"; there are: ttl"), "{text}");
    }
}
