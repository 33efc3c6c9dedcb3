//! The standing of a candidate in a queue: for servers that keep candidates in the order in which they joined, so that the first one leads.
//!
//! Almost everything is decided by reading: a watch only says when to read again. So a lost, doubled or late event does no harm, and a
//! dropped call is made good by the next one. What a watch may tell by itself is that the candidate is the first now.

use std::fmt;
use std::sync::Mutex;

use sd_core::port::{Predecessor, Standing};
use sd_core::{Error, FencingToken, Result};

use crate::borrowed::Borrowed;
use crate::close_signal::CloseSignal;
use crate::last_read::LastRead;
use crate::term_recorder::TermRecorder;

/// Where a candidate stands.
#[derive(Clone, Debug)]
pub enum Place<A> {
    /// Behind this one.
    Behind(A),
    /// It leads.
    First,
    /// It is not there any more, and never will be again.
    Gone(Error),
}

/// What is known when a watch wakes a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Anything may have changed.
    Unsure,
    /// The candidate was there and the first, after it was last read where it stands.
    First,
}

/// What a server does with a candidate that has joined its queue. None of this decides anything: [`QueueEntry`] does.
pub trait Queued: Send + Sync {
    /// What the candidate waits for.
    type Ahead: Clone + Send + Sync;
    /// What tells that this may have changed.
    type Watch: Send;

    /// The end of the candidate's client.
    fn signal(&self) -> &CloseSignal;

    /// The token of the candidate's term, if there will be one.
    fn token(&self) -> FencingToken;

    /// Reads where it stands.
    fn look(&self, op: &'static str) -> impl Future<Output = Result<Place<Self::Ahead>>> + Send;

    /// Records its term: see [`TermRecorder::begin`].
    fn begin_term(
        &self,
        recorder: &TermRecorder,
    ) -> impl Future<Output = Result<Option<Predecessor>>> + Send;

    /// Begins to watch what matters to a candidate that stands behind `ahead`, or is the first. `None` if it does not stand there any more.
    fn watch(
        &self,
        op: &'static str,
        ahead: Option<&Self::Ahead>,
    ) -> impl Future<Output = Result<Option<Self::Watch>>> + Send;

    /// Whether a watch still tells all that matters to a candidate that stands behind `ahead`, or is the first.
    fn covers(watch: &Self::Watch, ahead: Option<&Self::Ahead>) -> bool;

    /// Returns when something has changed, or may have. Cancel-safe.
    fn woken(
        &self,
        op: &'static str,
        watch: &mut Self::Watch,
        ahead: Option<&Self::Ahead>,
    ) -> impl Future<Output = Result<Woken>> + Send;
}

/// A candidate in a queue, and what is known of where it stands.
pub struct QueueEntry<C: Queued> {
    candidate: C,
    term: Option<TermRecorder>,
    known: LastRead<Place<C::Ahead>>,
    /// Taken out by the call that waits on it.
    watch: Mutex<Option<C::Watch>>,
}

impl<C: Queued> QueueEntry<C> {
    /// The entry of a candidate that has joined. With a recorder, its term is recorded.
    pub fn new(candidate: C, term: Option<TermRecorder>) -> Self {
        Self {
            candidate,
            term,
            known: LastRead::default(),
            watch: Mutex::default(),
        }
    }

    /// The candidate.
    pub fn candidate(&self) -> &C {
        &self.candidate
    }

    /// What it was last known to wait for.
    pub fn ahead(&self) -> Option<C::Ahead> {
        match self.known.value() {
            Some(Place::Behind(ahead)) => Some(ahead),
            _ => None,
        }
    }

    /// Why it is gone, if that is known.
    pub fn gone(&self) -> Option<Error> {
        match self.known.value() {
            Some(Place::Gone(why)) => Some(why),
            _ => None,
        }
    }

    /// Takes it that the entry is gone for good, for this reason. Calls that wait are told.
    pub fn lose(&self, why: Error) -> Error {
        self.known.set(Place::Gone(why.clone()));
        why
    }

    /// Makes calls that wait read again where it stands.
    pub fn invalidate(&self) {
        self.known.invalidate();
    }

    /// Where it stands, once that is something else than was `seen`: [`Entry::standing`](sd_core::port::Entry::standing).
    ///
    /// # Errors
    /// `Closed`, or those of the candidate. What was known is then read again by the next call.
    ///
    /// # Cancel safety
    /// The next call goes on with the watch of a dropped one.
    pub async fn standing(&self, op: &'static str, seen: Option<&Standing>) -> Result<Standing> {
        self.candidate.signal().check_open(op)?;
        if seen.is_none() {
            self.known.invalidate();
        }
        let mut watch = Borrowed::from(&self.watch);
        let standing = self.next_standing(op, &mut watch.item, seen).await;
        if standing.is_err() {
            watch.item = None;
            self.known.invalidate();
        }
        standing
    }

    async fn next_standing(
        &self,
        op: &'static str,
        watch: &mut Option<C::Watch>,
        seen: Option<&Standing>,
    ) -> Result<Standing> {
        let (candidate, known) = (&self.candidate, &self.known);
        loop {
            let (place, generation) = known.get_or_read(candidate.look(op)).await?;
            let Some(standing) = self.tell(&place).await? else {
                known.invalidate();
                continue;
            };
            if !seen.is_some_and(|seen| seen.is_same(&standing)) {
                return Ok(standing);
            }
            let ahead = match &place {
                Place::Behind(ahead) => Some(ahead),
                Place::First => None,
                // Nothing comes after that.
                Place::Gone(_) => return Err(candidate.signal().closed(op).await),
            };
            let covering = watch.as_mut().filter(|watch| C::covers(watch, ahead));
            let Some(covering) = covering else {
                // Not sooner: a call that was dropped meanwhile must not leave behind what only seems to cover.
                *watch = candidate.watch(op, ahead).await?;
                if watch.is_none() {
                    known.invalidate();
                }
                continue;
            };
            tokio::select! {
                woken = candidate.woken(op, covering, ahead) => match woken? {
                    // Unless a confirmation has just found something else.
                    Woken::First => known.set_after(generation, Place::First),
                    Woken::Unsure => known.invalidate(),
                },
                () = known.invalidated(generation) => {}
            }
        }
    }

    /// What to tell of a place; `None` if it changed meanwhile.
    async fn tell(&self, place: &Place<C::Ahead>) -> Result<Option<Standing>> {
        let before = match (place, &self.term) {
            // To count those before it, the server would have to send them all.
            (Place::Behind(_), _) => return Ok(Some(Standing::Waiting { ahead: None })),
            (Place::Gone(why), _) => return Ok(Some(Standing::Gone(why.clone()))),
            (Place::First, None) => Some(Predecessor::None),
            (Place::First, Some(recorder)) => self.candidate.begin_term(recorder).await?,
        };
        let token = self.candidate.token();
        Ok(before.map(|before| Standing::First { token, before }))
    }
}

impl<C: Queued + fmt::Debug> fmt::Debug for QueueEntry<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QueueEntry").field(&self.candidate).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures_util::FutureExt;
    use sd_core::ErrorKind;
    use sd_core::port::CandidateId;
    use sd_core::sync::lock;
    use tokio::sync::mpsc;

    use super::*;

    const OP: &str = "test: standing";

    /// A candidate that stands behind so many, as a server has it that tells nothing but through `events`.
    struct Scripted {
        signal: CloseSignal,
        place: Mutex<Place<u32>>,
        events: Mutex<Option<mpsc::Receiver<Result<Woken>>>>,
        /// Whether a watch that is asked for comes too late.
        is_late: Mutex<bool>,
        looks: AtomicUsize,
        watches: AtomicUsize,
        begins: Mutex<Vec<Option<Predecessor>>>,
    }

    struct Watch {
        ahead: Option<u32>,
        events: mpsc::Receiver<Result<Woken>>,
    }

    impl Queued for Scripted {
        type Ahead = u32;
        type Watch = Watch;

        fn signal(&self) -> &CloseSignal {
            &self.signal
        }

        fn token(&self) -> FencingToken {
            FencingToken::new("test", 7)
        }

        async fn look(&self, _op: &'static str) -> Result<Place<u32>> {
            self.looks.fetch_add(1, Ordering::Relaxed);
            Ok(lock(&self.place).clone())
        }

        async fn begin_term(&self, _recorder: &TermRecorder) -> Result<Option<Predecessor>> {
            Ok(lock(&self.begins).pop().expect("not so often"))
        }

        async fn watch(&self, _op: &'static str, ahead: Option<&u32>) -> Result<Option<Watch>> {
            self.watches.fetch_add(1, Ordering::Relaxed);
            if std::mem::take(&mut *lock(&self.is_late)) {
                return Ok(None);
            }
            let events = lock(&self.events).take().unwrap_or(mpsc::channel(1).1);
            let ahead = ahead.copied();
            Ok(Some(Watch { ahead, events }))
        }

        fn covers(watch: &Watch, ahead: Option<&u32>) -> bool {
            watch.ahead.as_ref() == ahead
        }

        async fn woken(
            &self,
            _op: &'static str,
            watch: &mut Watch,
            _ahead: Option<&u32>,
        ) -> Result<Woken> {
            match watch.events.recv().await {
                Some(event) => event,
                None => std::future::pending().await,
            }
        }
    }

    type Events = mpsc::Sender<Result<Woken>>;

    fn entry(place: Place<u32>, term: Option<TermRecorder>) -> (QueueEntry<Scripted>, Events) {
        let (tell, events) = mpsc::channel(8);
        let candidate = Scripted {
            signal: CloseSignal::new(),
            place: Mutex::new(place),
            events: Mutex::new(Some(events)),
            is_late: Mutex::default(),
            looks: AtomicUsize::new(0),
            watches: AtomicUsize::new(0),
            begins: Mutex::default(),
        };
        (QueueEntry::new(candidate, term), tell)
    }

    fn looks(entry: &QueueEntry<Scripted>) -> usize {
        entry.candidate.looks.load(Ordering::Relaxed)
    }

    /// What comes of a call that has nothing left to wait for.
    fn now<T>(call: impl Future<Output = T>) -> T {
        call.now_or_never().expect("it waits")
    }

    async fn waiting(entry: &QueueEntry<Scripted>) -> Standing {
        let standing = entry.standing(OP, None).await.unwrap();
        assert!(standing.is_same(&Standing::Waiting { ahead: None }));
        standing
    }

    #[tokio::test]
    async fn a_watch_that_knows_the_first_makes_it_lead_without_a_look() {
        let (entry, tell) = entry(Place::Behind(1), None);
        let seen = waiting(&entry).await;
        let mut next = Box::pin(entry.standing(OP, Some(&seen)));
        assert!(next.as_mut().now_or_never().is_none());
        tell.send(Ok(Woken::First)).await.unwrap();
        let standing = now(next).unwrap();
        assert!(matches!(standing, Standing::First { .. }), "{standing:?}");
        assert_eq!(looks(&entry), 1);
    }

    #[tokio::test]
    async fn a_watch_that_is_unsure_has_it_looked_at_and_a_dropped_call_leaves_its_watch() {
        let (entry, tell) = entry(Place::Behind(1), None);
        let seen = waiting(&entry).await;
        assert!(entry.standing(OP, Some(&seen)).now_or_never().is_none());
        *lock(&entry.candidate.place) = Place::First;
        tell.send(Ok(Woken::Unsure)).await.unwrap();
        let standing = now(entry.standing(OP, Some(&seen))).unwrap();
        assert!(matches!(standing, Standing::First { .. }), "{standing:?}");
        assert_eq!(
            (
                looks(&entry),
                entry.candidate.watches.load(Ordering::Relaxed)
            ),
            (2, 1)
        );
    }

    #[tokio::test]
    async fn what_a_confirmation_finds_is_told_although_the_watch_tells_nothing() {
        let (entry, _tell) = entry(Place::Behind(1), None);
        let seen = waiting(&entry).await;
        let mut next = Box::pin(entry.standing(OP, Some(&seen)));
        assert!(next.as_mut().now_or_never().is_none());
        assert_eq!(entry.ahead(), Some(1));
        entry.lose(Error::new(ErrorKind::NotFound, OP));
        let gone = now(next).unwrap();
        assert!(matches!(gone, Standing::Gone(_)), "{gone:?}");
        assert_eq!(entry.gone().unwrap().kind(), ErrorKind::NotFound);
        // Nothing comes after that but the end of the registry.
        let mut next = Box::pin(entry.standing(OP, Some(&gone)));
        assert!(next.as_mut().now_or_never().is_none());
        entry.candidate.signal.close();
        assert_eq!(now(next).unwrap_err().kind(), ErrorKind::Closed);
    }

    #[tokio::test]
    async fn a_first_place_is_not_believed_once_something_else_was_found() {
        // Both are there at once, and either may be taken.
        for _ in 0..32 {
            let (entry, tell) = entry(Place::Behind(1), None);
            let seen = waiting(&entry).await;
            let mut next = Box::pin(entry.standing(OP, Some(&seen)));
            assert!(next.as_mut().now_or_never().is_none());
            *lock(&entry.candidate.place) = Place::Gone(Error::new(ErrorKind::NotFound, OP));
            tell.send(Ok(Woken::First)).await.unwrap();
            entry.invalidate();
            let standing = now(next).unwrap();
            assert!(matches!(standing, Standing::Gone(_)), "{standing:?}");
        }
    }

    #[tokio::test]
    async fn it_is_looked_at_again_if_a_watch_comes_too_late_or_fails() {
        let (entry, tell) = entry(Place::Behind(1), None);
        let seen = waiting(&entry).await;
        *lock(&entry.candidate.is_late) = true;
        assert!(entry.standing(OP, Some(&seen)).now_or_never().is_none());
        assert_eq!(looks(&entry), 2);
        let failed = Err(Error::new(ErrorKind::Unavailable, OP));
        tell.send(failed).await.unwrap();
        now(entry.standing(OP, Some(&seen))).unwrap_err();
        assert!(entry.standing(OP, Some(&seen)).now_or_never().is_none());
        assert_eq!(
            (
                looks(&entry),
                entry.candidate.watches.load(Ordering::Relaxed)
            ),
            (3, 3)
        );
    }

    #[tokio::test]
    async fn a_term_is_told_once_it_is_recorded() {
        let id = CandidateId::from_u64(1).unwrap();
        let recorder = TermRecorder::new(id, "entry", Duration::from_secs(1));
        let (entry, _tell) = entry(Place::First, Some(recorder));
        // The record changed during the first attempt.
        *lock(&entry.candidate.begins) = vec![Some(Predecessor::Resigned), None];
        let standing = now(entry.standing(OP, None)).unwrap();
        let Standing::First { before, .. } = standing else {
            panic!("{standing:?}");
        };
        assert_eq!((before, looks(&entry)), (Predecessor::Resigned, 2));
    }
}
