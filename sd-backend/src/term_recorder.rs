//! The record of an election's last term, which tells the next leader how that term ended.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use sd_core::Result;
use sd_core::port::{CandidateId, Predecessor};
use sd_core::sync::lock;
use serde::{Deserialize, Serialize};

/// A term as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Term {
    token: u64,
    id: CandidateId,
    /// Tells the term from one of another participation with the same id.
    entry: String,
    /// For how long its leader, or the leader of a term before it, may believe that it leads if the term does not end well.
    ttl_ms: u64,
    /// Whether its leader has stopped.
    ended: bool,
}

impl Term {
    /// `None` if another program wrote this.
    fn decode(stored: &[u8]) -> Option<Self> {
        serde_json::from_slice(stored).ok()
    }

    fn encode(&self) -> Vec<u8> {
        // Text and numbers can always be written as JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What the next leader learns if this term does not end well.
    fn unknown(&self) -> Predecessor {
        Predecessor::Unknown {
            ttl: Duration::from_millis(self.ttl_ms),
        }
    }
}

/// Decides what is recorded of an entry's term and how the term before it ended, even if answers to single attempts are lost.
/// For electors whose server stores the [record](sd_core::port::Ticket::records_term) of a term.
///
/// A backend keeps one record for each election, under a key that belongs to no lease or session, so that the record outlives
/// both. It does the following:
///
/// - When the entry is first, it calls [`begin`](Self::begin), which has it read the record, and write one in a step with the proof that
///   the record is unchanged and the entry still first.
/// - When the leader has stopped, it writes what [`ended`](Self::ended) makes of the record, if the record is unchanged.
#[derive(Debug)]
pub struct TermRecorder {
    id: CandidateId,
    entry: String,
    ttl: Duration,
    progress: Mutex<Progress>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// How the term before ended, as found before the first attempt to write. The outcome of that attempt may be unknown.
    before: Option<Predecessor>,
    recorded: bool,
}

impl TermRecorder {
    /// A recorder for the candidate with this id and this time-to-live. `entry` tells its entry from those of other
    /// participations with the same id, for example by lease or session.
    pub fn new(id: CandidateId, entry: impl Into<String>, ttl: Duration) -> Self {
        Self {
            id,
            entry: entry.into(),
            ttl,
            progress: Mutex::default(),
        }
    }

    /// Records that the term has begun, once, and tells how the one before it ended. `None` if the record changed while it was written,
    /// or the entry is not the first any more.
    ///
    /// `read` finds what is stored, and `value` is the record in that. `write` is given what was found and the record to put in its
    /// place, and says whether it did.
    ///
    /// # Errors
    /// Those of `read` and `write`.
    ///
    /// # Cancel safety
    /// After a dropped call the record may be written: the next one finds it.
    pub async fn begin<F, W>(
        &self,
        token: u64,
        read: impl Future<Output = Result<Option<F>>>,
        value: impl Fn(&F) -> &[u8],
        write: impl FnOnce(Option<F>, Vec<u8>) -> W,
    ) -> Result<Option<Predecessor>>
    where
        W: Future<Output = Result<bool>>,
    {
        if let Some(before) = self.recorded() {
            return Ok(Some(before));
        }
        let found = read.await?;
        let (before, record) = self.attempt(token, found.as_ref().map(value));
        if let Some(record) = record {
            if !write(found, record).await? {
                return Ok(None);
            }
        }
        self.progress().recorded = true;
        Ok(Some(before))
    }

    /// How the term before ended. `None` until this term is recorded.
    fn recorded(&self) -> Option<Predecessor> {
        let progress = self.progress();
        progress.before.filter(|_| progress.recorded)
    }

    /// How the term before this one ended, given the record that is `stored` now, and what to write. There is nothing to write
    /// if an earlier attempt whose answer was lost has already written it.
    pub fn attempt(&self, token: u64, stored: Option<&[u8]>) -> (Predecessor, Option<Vec<u8>>) {
        let mine = |ttl: Duration| Term {
            token,
            id: self.id,
            entry: self.entry.clone(),
            ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
            ended: false,
        };
        let is_mine = |term: &Term| {
            (term.token, term.id, &term.entry, term.ended) == (token, self.id, &self.entry, false)
        };
        let mut progress = self.progress();
        let (before, is_done) = match stored.map(Term::decode) {
            None => (Predecessor::None, false),
            Some(Some(term)) if is_mine(&term) => (progress.before.unwrap_or(term.unknown()), true),
            Some(Some(term)) if term.ended => (Predecessor::Resigned, false),
            Some(Some(term)) => (term.unknown(), false),
            Some(None) => (mine(self.ttl).unknown(), false),
        };
        progress.before = Some(before);
        let record = || mine(before.recorded_ttl(self.ttl)).encode();
        (before, (!is_done).then(record))
    }

    /// What to write when the leader with this entry has stopped. `None` if another term is stored, or this one has already
    /// ended.
    pub fn ended(stored: &[u8], entry: &str) -> Option<Vec<u8>> {
        let term = Term::decode(stored).filter(|term| term.entry == entry && !term.ended)?;
        let ended = Term {
            ended: true,
            ..term
        };
        Some(ended.encode())
    }

    /// No code under the lock panics.
    fn progress(&self) -> MutexGuard<'_, Progress> {
        lock(&self.progress)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use futures_util::FutureExt;
    use sd_core::{Error, ErrorKind};

    use super::*;

    const SHORT: Duration = Duration::from_secs(5);
    const LONG: Duration = Duration::from_secs(60);

    fn recorder(entry: &str, ttl: Duration) -> TermRecorder {
        TermRecorder::new(CandidateId::from_u64(7).unwrap(), entry, ttl)
    }

    fn unknown(ttl: Duration) -> Predecessor {
        Predecessor::Unknown { ttl }
    }

    /// What is stored once a term was recorded.
    fn stored(entry: &str, ttl: Duration) -> Vec<u8> {
        recorder(entry, ttl).attempt(1, None).1.unwrap()
    }

    #[test]
    fn the_next_leader_learns_how_the_term_before_ended() {
        let next = recorder("b", SHORT);
        assert_eq!(next.attempt(2, None).0, Predecessor::None);
        let before = stored("a", LONG);
        assert_eq!(next.attempt(2, Some(&before)).0, unknown(LONG));
        let before = TermRecorder::ended(&before, "a").unwrap();
        assert_eq!(next.attempt(2, Some(&before)).0, Predecessor::Resigned);
        assert_eq!(next.attempt(2, Some(b"?")).0, unknown(SHORT));
    }

    #[test]
    fn a_term_carries_the_longer_time_to_live_before_it() {
        let before = stored("a", LONG);
        let (_, short) = recorder("b", SHORT).attempt(2, Some(&before));
        let (told, _) = recorder("c", SHORT).attempt(3, short.as_deref());
        assert_eq!(told, unknown(LONG));
    }

    #[test]
    fn an_attempt_whose_answer_was_lost_is_found_and_not_repeated() {
        let before = TermRecorder::ended(&stored("a", LONG), "a").unwrap();
        let mine = recorder("b", SHORT);
        let (_, written) = mine.attempt(2, Some(&before));
        assert_eq!(mine.recorded(), None);
        let found = mine.attempt(2, written.as_deref());
        assert_eq!(found, (Predecessor::Resigned, None));
        // Without the memory of the first attempt it is not known any more.
        let again = recorder("b", SHORT).attempt(2, written.as_deref());
        assert_eq!(again, (unknown(SHORT), None));
        // Another participation, or a later term of this one, is none of that.
        for (entry, token) in [("c", 2), ("b", 3)] {
            let (told, record) = recorder(entry, SHORT).attempt(token, written.as_deref());
            assert!(told == unknown(SHORT) && record.is_some());
        }
    }

    #[test]
    fn only_the_own_term_is_marked_as_ended_and_once() {
        let stored = stored("a", LONG);
        assert_eq!(TermRecorder::ended(&stored, "b"), None);
        assert_eq!(TermRecorder::ended(b"?", "a"), None);
        let ended = TermRecorder::ended(&stored, "a").unwrap();
        assert_eq!(TermRecorder::ended(&ended, "a"), None);
    }

    #[test]
    fn a_term_is_recorded_once_whatever_becomes_of_the_answers() {
        let server = RefCell::new(TermRecorder::ended(&stored("a", LONG), "a"));
        let reads = Cell::new(0);
        let mine = recorder("b", SHORT);
        let begin = |is_written: bool, answer: fn() -> Result<bool>| {
            let read = async {
                reads.set(reads.get() + 1);
                Ok(server.borrow().clone())
            };
            let write = async |found: Option<Vec<u8>>, record| {
                assert_eq!(found, *server.borrow());
                if is_written {
                    *server.borrow_mut() = Some(record);
                }
                answer()
            };
            let begun = mine.begin(2, read, |found: &Vec<u8>| found.as_slice(), write);
            begun.now_or_never().expect("nothing waits")
        };
        assert_eq!(begin(false, || Ok(false)).unwrap(), None);
        let lost = begin(true, || Err(Error::new(ErrorKind::Timeout, "test")));
        assert_eq!(lost.unwrap_err().kind(), ErrorKind::Timeout);
        for _ in 0..2 {
            let told = begin(true, || panic!("it is written already"));
            assert_eq!(told.unwrap(), Some(Predecessor::Resigned));
        }
        assert_eq!(reads.get(), 3);
    }
}
