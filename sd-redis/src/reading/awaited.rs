//! A change that the server has named, and that is to be told: it is waited for a short while, since its message may be on its way.

use std::time::Duration;

use tokio::time::Instant;

/// How long a message may be late that tells of a version which the server has named already.
const LATE_BY: Duration = Duration::from_millis(200);
/// After how many changes of which none was told, nor anything else on any channel, the connection is taken for deaf.
const DEAF_AFTER: u32 = 2;

/// What is to be told, and what was not.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    /// A version, and until when it must have been told.
    next: Option<(u64, Instant)>,
    /// How many changes were not told since the connection told anything.
    unheard: u32,
    /// How much it has told.
    heard: u64,
}

impl Awaited {
    /// The server has named this version. It is not put off by those after it.
    pub(crate) fn expect(&mut self, version: u64) {
        self.next
            .get_or_insert_with(|| (version, Instant::now() + LATE_BY));
    }

    /// Another connection tells, which has told so much.
    pub(crate) fn begin(&mut self, heard: u64) {
        (self.unheard, self.heard) = (0, heard);
    }

    /// Everything was read.
    pub(crate) fn clear(&mut self) {
        self.next = None;
    }

    /// Whether nothing is waited for.
    pub(crate) fn is_empty(&self) -> bool {
        self.next.is_none()
    }

    /// When there has been enough waiting.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.next.map(|(_, by)| by)
    }

    /// Whether it has run out, which counts once, where so many versions were told.
    pub(crate) fn has_run_out(&mut self, told: u64) -> bool {
        let Some((version, by)) = self.next else {
            return false;
        };
        let is_told = told >= version;
        let is_late = !is_told && Instant::now() >= by;
        if is_told || is_late {
            self.next = None;
        }
        self.unheard += u32::from(is_late);
        is_late
    }

    /// The connection has told so much, of whatever channel: where the writers of one service may not publish, it serves all others. Returns
    /// whether that is more than before.
    pub(crate) fn hears(&mut self, heard: u64) -> bool {
        let is_more = heard != self.heard;
        if is_more {
            self.begin(heard);
        }
        is_more
    }

    /// Whether changes are made and nothing at all is told.
    pub(crate) fn is_deaf(&self) -> bool {
        self.unheard >= DEAF_AFTER
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_not_told_runs_out_although_more_and_more_is_named() {
        let mut awaited = Awaited::default();
        let mut ran_out = false;
        for version in 1..=5 {
            awaited.expect(version);
            ran_out |= awaited.has_run_out(0);
            advance(LATE_BY / 3).await;
        }
        assert!(ran_out);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_deaf_once_nothing_was_told_of_two_changes() {
        let mut awaited = Awaited::default();
        let run_out = async |awaited: &mut Awaited, version| {
            awaited.expect(version);
            assert!(!awaited.has_run_out(version - 1));
            advance(LATE_BY).await;
            assert!(awaited.has_run_out(version - 1) && awaited.is_empty());
        };
        awaited.begin(7);
        run_out(&mut awaited, 1).await;
        // Something was told, be it of another service.
        assert!(awaited.hears(8) && !awaited.is_deaf());
        run_out(&mut awaited, 2).await;
        assert!(!awaited.is_deaf());
        run_out(&mut awaited, 3).await;
        assert!(awaited.is_deaf());
        awaited.begin(0);
        awaited.expect(4);
        advance(LATE_BY).await;
        assert!(!awaited.has_run_out(4) && awaited.is_empty() && !awaited.is_deaf());
    }
}
