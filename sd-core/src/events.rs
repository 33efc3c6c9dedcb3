//! Events told in order to any number of listeners. A slow listener delays no other, and never the teller.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::{Stream, StreamExt};
use tokio::sync::watch;
use tokio_util::sync::ReusableBoxFuture;

/// How many events a listener missed because it was too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    /// The number of events that are gone.
    pub count: u64,
}

/// What happened to one registration or one candidate, in order: a [`Stream`]. It ends after the last event.
///
/// Each listener gets each event. A listener that falls too far behind is told how many events it missed, and goes on with the oldest
/// one that is kept. A clone goes on where the original stands.
pub struct Events<E> {
    log: watch::Receiver<Log<E>>,
    /// The number of the next event.
    position: u64,
    /// Waits for the next event. Kept, because a pending poll must be woken.
    told: Option<ReusableBoxFuture<'static, Told>>,
}

type Told = Result<(), watch::error::RecvError>;

/// The side that tells the events. Dropping it ends every [`Events`] of it.
#[derive(Debug)]
pub struct EventLog<E>(watch::Sender<Log<E>>);

/// The newest events.
struct Log<E> {
    kept: VecDeque<E>,
    most: usize,
    /// How many were told in all.
    told: u64,
}

impl<E: Clone + From<Missed> + Send + Sync + 'static> EventLog<E> {
    /// An empty log that keeps the newest `most` events, at least one, for those who listen later or slowly.
    pub fn keeping(most: usize) -> Self {
        Self(watch::Sender::new(Log {
            kept: VecDeque::new(),
            most: most.max(1),
            told: 0,
        }))
    }

    /// Tells an event to every listener.
    pub fn tell(&self, event: E) {
        self.0.send_modify(|log| {
            if log.kept.len() == log.most {
                log.kept.pop_front();
            }
            log.kept.push_back(event);
            log.told += 1;
        });
    }

    /// All events: those told so far, as far as they are kept, and those to come.
    pub fn events(&self) -> Events<E> {
        self.since(0)
    }

    /// The events that are told from now on.
    pub fn events_from_now(&self) -> Events<E> {
        let told = self.0.borrow().told;
        self.since(told)
    }

    fn since(&self, position: u64) -> Events<E> {
        Events {
            log: self.0.subscribe(),
            position,
            told: None,
        }
    }
}

impl<E: Clone + From<Missed> + Send + Sync + 'static> Events<E> {
    /// Waits for the next event. `None` after the last one.
    ///
    /// # Cancel safety
    /// Cancel-safe: a dropped call loses nothing.
    pub async fn next(&mut self) -> Option<E> {
        StreamExt::next(self).await
    }

    /// The next event, if it has been told.
    fn take(&mut self) -> Option<E> {
        let log = self.log.borrow_and_update();
        let oldest = log.told - log.kept.len() as u64;
        if self.position < oldest {
            let count = oldest - self.position;
            self.position = oldest;
            return Some(Missed { count }.into());
        }
        let index = usize::try_from(self.position - oldest).ok()?;
        let event = log.kept.get(index)?.clone();
        self.position += 1;
        Some(event)
    }
}

impl<E: Clone + From<Missed> + Send + Sync + 'static> Stream for Events<E> {
    type Item = E;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<E>> {
        let this = self.get_mut();
        loop {
            if let Some(event) = this.take() {
                return Poll::Ready(Some(event));
            }
            let told = this.told.get_or_insert_with(|| {
                let mut log = this.log.clone();
                ReusableBoxFuture::new(async move { log.changed().await })
            });
            let told = ready!(told.poll(context));
            this.told = None;
            if told.is_err() {
                return Poll::Ready(None);
            }
        }
    }
}

impl<E> Clone for Events<E> {
    fn clone(&self) -> Self {
        Self {
            log: self.log.clone(),
            position: self.position,
            told: None,
        }
    }
}

impl<E> fmt::Debug for Events<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Events");
        debug.field("position", &self.position);
        debug.finish_non_exhaustive()
    }
}

impl<E> fmt::Debug for Log<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Log");
        debug.field("kept", &self.kept.len());
        debug.field("told", &self.told);
        debug.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Event {
        Number(u64),
        Missed(u64),
    }

    impl From<Missed> for Event {
        fn from(missed: Missed) -> Self {
            Self::Missed(missed.count)
        }
    }

    use Event::{Missed as Gone, Number};

    fn log_of(events: impl IntoIterator<Item = u64>) -> EventLog<Event> {
        let log = EventLog::keeping(3);
        events.into_iter().for_each(|one| log.tell(Number(one)));
        log
    }

    async fn rest(events: Events<Event>) -> Vec<Event> {
        events.collect().await
    }

    #[tokio::test]
    async fn what_was_told_before_is_heard_unless_only_what_follows_is_wanted() {
        let log = log_of([1, 2]);
        let (all, later) = (log.events(), log.events_from_now());
        log.tell(Number(3));
        drop(log);
        assert_eq!(rest(all).await, [Number(1), Number(2), Number(3)]);
        assert_eq!(rest(later).await, [Number(3)]);
    }

    #[tokio::test]
    async fn a_listener_that_is_too_slow_hears_how_many_it_missed_and_the_rest() {
        let log = log_of([1]);
        let mut events = log.events();
        assert_eq!(events.next().await, Some(Number(1)));
        (2..=6).for_each(|one| log.tell(Number(one)));
        drop(log);
        assert_eq!(
            rest(events).await,
            [Gone(2), Number(4), Number(5), Number(6)]
        );
    }

    #[tokio::test]
    async fn a_clone_goes_on_where_the_original_stands() {
        let log = log_of([1, 2]);
        let mut events = log.events();
        assert_eq!(events.next().await, Some(Number(1)));
        let copy = events.clone();
        drop(log);
        assert_eq!(rest(copy).await, [Number(2)]);
        assert_eq!(rest(events).await, [Number(2)]);
    }

    #[tokio::test]
    async fn a_dropped_call_loses_nothing_and_each_listener_is_woken() {
        let log = log_of([]);
        let mut listeners = [log.events(), log.events()];
        for events in &mut listeners {
            assert_eq!(events.next().now_or_never(), None);
        }
        let told = async { log.tell(Number(1)) };
        let [first, second] = &mut listeners;
        let (first, second, ()) = tokio::join!(first.next(), second.next(), told);
        assert_eq!((first, second), (Some(Number(1)), Some(Number(1))));
    }
}
