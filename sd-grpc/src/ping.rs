//! PING: keep-alive, and the question whether a server that answers no call is there at all.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::config::KeepAlive;
use crate::connection::Connection;

/// How long a server may take to answer the question whether it is there.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// A server that answers a PING but no call is not asked again before this: servers count PINGs between which they sent no
/// headers or data, and by default allow two within five minutes.
const PAUSES: [Duration; 3] = [
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(310),
];

/// What was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The server answers.
    Alive,
    /// The server did not answer when it was asked because calls got nothing.
    Silent,
    /// The server did not answer a keep-alive ping.
    Dead,
}

/// The PINGs of one connection, of which at most one is under way.
pub(crate) struct Pings {
    ping_pong: PingPong,
    sent: Option<Sent>,
    keep_alive: Option<KeepAliveTimer>,
    questions: Questions,
}

/// When the server may be asked whether it is there.
#[derive(Default)]
struct Questions {
    /// How often it was asked since it last sent headers or data.
    asked: usize,
    last_asked: Option<Instant>,
    /// How many frames of headers and data it had sent by then.
    answers: u64,
}

impl Questions {
    /// Counts a question to a server that has sent so many frames of headers and data, if it may be asked `now`.
    fn may_ask(&mut self, now: Instant, answers: u64) -> bool {
        if self.answers != answers {
            self.answers = answers;
            self.asked = 0;
        }
        let pause = PAUSES.get(self.asked.saturating_sub(1));
        let pause = pause.or(PAUSES.last()).copied().unwrap_or_default();
        let too_soon = |last| now.saturating_duration_since(last) < pause;
        if self.last_asked.is_some_and(too_soon) {
            return false;
        }
        self.asked += 1;
        self.last_asked = Some(now);
        true
    }
}

struct Sent {
    at: Instant,
    /// When it counts as unanswered.
    limit: Pin<Box<Sleep>>,
    /// Because calls got nothing, and not for keep-alive.
    doubted: bool,
    /// Its time is over, and this was told.
    told: bool,
}

struct KeepAliveTimer {
    settings: KeepAlive,
    due: Pin<Box<Sleep>>,
    life: u64,
    last_life: Instant,
}

impl Pings {
    pub(crate) fn new(ping_pong: PingPong, keep_alive: Option<KeepAlive>) -> Self {
        Self {
            ping_pong,
            sent: None,
            keep_alive: keep_alive.map(|settings| KeepAliveTimer {
                settings,
                due: Box::pin(sleep(settings.interval)),
                life: 0,
                last_life: Instant::now(),
            }),
            questions: Questions::default(),
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, connection: &Connection) -> Poll<Found> {
        if connection.is_open() && connection.is_doubted() && !self.ask(connection) {
            return Poll::Ready(Found::Alive);
        }
        self.keep_alive(cx, connection);
        let Some(sent) = &mut self.sent else {
            return Poll::Pending;
        };
        if let Poll::Ready(answer) = self.ping_pong.poll_pong(cx) {
            self.sent = None;
            if answer.is_err() {
                // The connection has ended, which its own future tells.
                return Poll::Pending;
            }
            return Poll::Ready(Found::Alive);
        }
        if !sent.told && sent.limit.as_mut().poll(cx).is_ready() {
            if !sent.doubted {
                sent.told = true;
                return Poll::Ready(Found::Dead);
            }
            // The answer is waited for nevertheless: it may be late. With keep-alive, no later than that allows.
            if let Some(timer) = &self.keep_alive {
                sent.doubted = false;
                sent.limit = Box::pin(sleep_until(later(sent.at, timer.settings.timeout)));
                // The next poll registers the timer.
                cx.waker().wake_by_ref();
            } else {
                sent.told = true;
            }
            return Poll::Ready(Found::Silent);
        }
        Poll::Pending
    }

    /// Asks the server whether it is there. Says `false` where it has told so not long ago.
    fn ask(&mut self, connection: &Connection) -> bool {
        if let Some(sent) = &mut self.sent {
            if !sent.doubted {
                sent.doubted = true;
                sent.limit = Box::pin(sleep(ANSWER_WITHIN));
            }
            return true;
        }
        let answers = connection.wire().answers();
        if !self.questions.may_ask(Instant::now(), answers) {
            return false;
        }
        self.sent = send(&mut self.ping_pong, ANSWER_WITHIN, true);
        true
    }

    fn keep_alive(&mut self, cx: &mut Context<'_>, connection: &Connection) {
        let Some(timer) = &mut self.keep_alive else {
            return;
        };
        let (now, life) = (Instant::now(), connection.wire().life());
        if timer.life != life {
            timer.life = life;
            timer.last_life = now;
        }
        while timer.due.as_mut().poll(cx).is_ready() {
            let KeepAlive {
                interval,
                timeout,
                while_idle,
            } = timer.settings;
            let quiet = now.saturating_duration_since(timer.last_life);
            if quiet < interval {
                timer.due.as_mut().reset(later(timer.last_life, interval));
                continue;
            }
            timer.due.as_mut().reset(later(now, interval));
            if self.sent.is_none() && (while_idle || connection.calls() > 0) {
                self.sent = send(&mut self.ping_pong, timeout, false);
            }
        }
    }
}

fn send(ping_pong: &mut PingPong, within: Duration, doubted: bool) -> Option<Sent> {
    // This fails if one is under way, which the caller knows, or if the connection has ended, which its future tells.
    ping_pong.send_ping(Ping::opaque()).ok()?;
    Some(Sent {
        at: Instant::now(),
        limit: Box::pin(sleep(within)),
        doubted,
        told: false,
    })
}

/// Never, as good as, where time does not reach.
fn later(from: Instant, after: Duration) -> Instant {
    const YEARS: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    from.checked_add(after).unwrap_or_else(|| from + YEARS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_headers_and_data_shorten_the_pause_between_two_questions_and_never_below_the_first() {
        let (start, mut questions) = (Instant::now(), Questions::default());
        let mut may_ask =
            |seconds, answers| questions.may_ask(start + Duration::from_secs(seconds), answers);
        assert!(may_ask(0, 1));
        assert!(!may_ask(9, 2), "whatever came");
        assert!(may_ask(10, 2));
        assert!(!may_ask(19, 2));
        assert!(may_ask(20, 2));
        assert!(!may_ask(79, 2));
        assert!(may_ask(80, 2));
        assert!(!may_ask(389, 2));
        assert!(may_ask(390, 2));
        assert!(!may_ask(699, 2));
        assert!(may_ask(700, 3) && may_ask(710, 3));
    }
}
