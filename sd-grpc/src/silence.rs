//! When a server that answers nothing is to be asked whether it is there.

use std::time::Duration;

use tokio::time::Instant;

/// Calls in a row that got nothing.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    count: u32,
    /// What the server had sent when they were counted.
    life: u64,
    /// When the last one was counted.
    last: Option<Instant>,
}

/// Who waited less knows nothing about the server.
const FLOOR: Duration = Duration::from_millis(100);

impl Silence {
    /// Counts a call that got nothing from `began` until `now`, while the server had sent `life`. Says how many there were one
    /// after another: calls that waited together found out the same thing, and count as one.
    pub(crate) fn count(&mut self, began: Instant, now: Instant, life: u64) -> u32 {
        if self.life != life {
            *self = Self::default();
        }
        let is_next = self.last.is_none_or(|last| began >= last);
        if is_next && now.duration_since(began) >= FLOOR {
            self.count += 1;
            self.life = life;
            self.last = Some(now);
        }
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_one_after_another_and_without_a_sign_of_life_in_between_count() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut silence = Silence::default();
        assert_eq!(silence.count(at(0), at(99), 7), 0, "too short");
        assert_eq!(silence.count(at(0), at(100), 7), 1);
        assert_eq!(
            silence.count(at(0), at(101), 7),
            1,
            "together with the first"
        );
        assert_eq!(
            silence.count(at(50), at(300), 7),
            1,
            "together with the first"
        );
        assert_eq!(silence.count(at(100), at(300), 7), 2);
        assert_eq!(silence.count(at(300), at(400), 8), 1, "a byte came");
        assert_eq!(silence.count(at(400), at(500), 8), 2);
    }
}
