//! PING: keep-alive, and the question whether a server that answers no call is there at all.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

use crate::config::KeepAlive;
use crate::connection::Connection;

/// How long a server may take to answer the question whether it is there.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// A server that answers a PING but no call is not asked again before this: servers count PINGs between which they sent
/// nothing, and by default allow two within five minutes.
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
    /// How often the server was asked since it last sent anything else, when, and what it had sent.
    asked: usize,
    last_asked: Option<Instant>,
    life: u64,
}

struct Sent {
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
            asked: 0,
            last_asked: None,
            life: 0,
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
            // The answer is waited for nevertheless: it may be late.
            sent.told = true;
            return Poll::Ready(if sent.doubted {
                Found::Silent
            } else {
                Found::Dead
            });
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
        let life = connection.wire().life();
        if life != self.life {
            self.life = life;
            self.asked = 0;
        }
        let pause = self.asked.checked_sub(1).map_or(Duration::ZERO, |before| {
            let last = PAUSES.len() - 1;
            PAUSES.get(before.min(last)).copied().unwrap_or_default()
        });
        if self.last_asked.is_some_and(|last| last.elapsed() < pause) {
            return false;
        }
        self.asked += 1;
        self.last_asked = Some(Instant::now());
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
