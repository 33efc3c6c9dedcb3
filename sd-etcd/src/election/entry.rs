//! One candidate's entry: told where it stands, kept alive, proved to be ours.
//!
//! Everything is decided by reading: the vigil only says when to read again. So a lost, doubled or late event does no harm, and a
//! dropped call is made good by the next one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use etcd_client::{PutOptions, Txn, TxnOp};
use sd_core::{
    Confirmation, CountsFrom, Entry, Error, ErrorKind, Limits, Predecessor, Result, Standing,
    TermRecorder, Ticket, check_value,
};
use tokio::sync::watch;

use crate::client::{Client, found, position};
use crate::election::candidate_key::{Place, Seat};
use crate::election::deletion_watch::Vigil;
use crate::election::term_record;

/// An entry under one key, attached to one lease.
#[derive(Debug)]
pub(crate) struct EtcdEntry {
    seat: Seat,
    limits: Limits,
    term: Option<TermRecorder>,
    known: watch::Sender<Known>,
    /// Taken out by the call that waits on it.
    vigil: Mutex<Option<Vigil>>,
}

/// Where an entry stood when that was last read.
#[derive(Debug, Default)]
struct Known {
    /// `None` if it may have changed.
    place: Option<Place>,
    /// Counts how often that happened: a read that began before the last time does not count.
    doubts: u64,
}

impl EtcdEntry {
    /// The entry of `ticket` at `seat`.
    pub(crate) fn new(seat: Seat, ticket: &Ticket, limits: Limits) -> Self {
        let recorder = || TermRecorder::new(ticket.id, term_record::entry_on(seat.lease), seat.ttl);
        Self {
            term: ticket.records_term.then(recorder),
            seat,
            limits,
            known: watch::Sender::default(),
            vigil: Mutex::default(),
        }
    }

    fn client(&self) -> &Arc<Client> {
        &self.seat.client
    }

    /// Where the entry stands, read if that is not known, and the count of doubts until then. Whose one before is `said_to_be_gone` is
    /// mostly the first now, which takes a quicker read.
    async fn place(&self, op: &'static str, said_to_be_gone: bool) -> Result<(Place, u64)> {
        let (place, doubts) = {
            let known = self.known.borrow();
            (known.place.clone(), known.doubts)
        };
        if let Some(place) = place {
            return Ok((place, doubts));
        }
        let place = if said_to_be_gone && self.seat.is_known_as_first(op).await? {
            Place::First
        } else {
            self.seat.look(op).await?
        };
        self.known.send_if_modified(|known| {
            if known.doubts == doubts {
                known.place = Some(place.clone());
            }
            false
        });
        Ok((place, doubts))
    }

    /// Whoever waits reads again where the entry stands.
    fn doubt(&self) {
        self.known.send_modify(|known| {
            known.place = None;
            known.doubts += 1;
        });
    }

    /// Returns when there is a doubt more than these. Cancel-safe.
    async fn doubted(&self, doubts: u64) {
        let mut known = self.known.subscribe();
        // Cannot fail: `self` holds the sender.
        let _ = known.wait_for(|known| known.doubts != doubts).await;
    }

    /// Reads whether the entry is there: `Some` says why not. Doubts what is known if that is not there, or the one `behind` which
    /// it waits.
    async fn check(&self, op: &'static str, behind: Option<Vec<u8>>) -> Result<Option<Error>> {
        let (loss, same) = match behind {
            Some(key) => self.seat.check_both(op, key).await?,
            None => (self.seat.check(op).await?, true),
        };
        if loss.is_some() || !same {
            self.doubt();
        }
        Ok(loss)
    }

    /// What to tell of a place; `None` if it changed meanwhile.
    async fn tell(&self, place: &Place) -> Result<Option<Standing>> {
        let before = match (place, &self.term) {
            // To count them, the server would have to send them all.
            (Place::Behind(_), _) => return Ok(Some(Standing::Waiting { ahead: None })),
            (Place::Gone(why), _) => return Ok(Some(Standing::Gone(why.clone()))),
            (Place::First, None) => Predecessor::None,
            (Place::First, Some(recorder)) => match term_record::begin(recorder, &self.seat).await?
            {
                Some(before) => before,
                None => return Ok(None),
            },
        };
        let token = self.seat.token();
        Ok(Some(Standing::First { token, before }))
    }

    async fn next_standing(
        &self,
        op: &'static str,
        vigil: &mut Option<Vigil>,
        seen: Option<&Standing>,
    ) -> Result<Standing> {
        let mut said_to_be_gone = false;
        loop {
            let (place, doubts) = self.place(op, said_to_be_gone).await?;
            said_to_be_gone = false;
            let Some(standing) = self.tell(&place).await? else {
                self.doubt();
                continue;
            };
            if !seen.is_some_and(|seen| seen.is_same(&standing)) {
                return Ok(standing);
            }
            let behind = match place {
                Place::Gone(_) => return Err(self.client().closed(op).await),
                Place::First => None,
                Place::Behind(key) => Some(key),
            };
            let covering = vigil.as_mut();
            if let Some(vigil) = covering.filter(|vigil| vigil.covers(behind.as_deref())) {
                tokio::select! {
                    woken = vigil.woken(self.client(), op) => {
                        said_to_be_gone = woken?;
                        self.doubt();
                    }
                    () = self.doubted(doubts) => {}
                }
            } else {
                let (client, own) = (self.client(), &self.seat.key);
                let opened = Vigil::open(client, op, own, behind.clone()).await?;
                // For what went before the watches stood. Nobody can have come in between: who joins later is further behind.
                self.check(op, behind).await?;
                // Not sooner: a call that was dropped in between must not leave behind what only seems to cover.
                *vigil = Some(opened);
            }
        }
    }
}

#[async_trait]
impl Entry for EtcdEntry {
    async fn standing(&self, seen: Option<&Standing>) -> Result<Standing> {
        const OP: &str = "etcd: standing";
        self.client().check_open(OP)?;
        if seen.is_none() {
            self.doubt();
        }
        let mut vigil = Borrowed::from(&self.vigil);
        let standing = self.next_standing(OP, &mut vigil.item, seen).await;
        if standing.is_err() {
            vigil.item = None;
            self.doubt();
        }
        standing
    }

    /// The check also looks after the one that the entry waits for: events get lost in some versions of etcd, and in connections
    /// that died.
    async fn confirm(&self) -> Result<Confirmation> {
        const OP: &str = "etcd: confirm entry";
        let behind = match &self.known.borrow().place {
            Some(Place::Behind(key)) => Some(key.clone()),
            _ => None,
        };
        let (extended, loss) = tokio::join!(
            self.client().keep_alive(OP, self.seat.lease),
            self.check(OP, behind),
        );
        // What is known for good says more than what could not be asked.
        if let Ok(Some(loss)) = loss {
            return Err(loss);
        }
        extended?;
        loss?;
        Ok(Confirmation {
            // Each keep-alive grants the same again.
            ttl: self.seat.ttl,
            counts_from: CountsFrom::ThisSend,
        })
    }

    async fn proclaim(&self, value: &[u8]) -> Result<()> {
        const OP: &str = "etcd: proclaim";
        check_value(OP, value, &self.limits)?;
        let attached = PutOptions::new().with_lease(self.seat.lease);
        let txn = Txn::new()
            .when(self.seat.is_there())
            .and_then([TxnOp::put(self.seat.key.as_str(), value, Some(attached))])
            .or_else([self.seat.get_own()]);
        let answer = self.client().txn(OP, &txn).await?;
        if answer.succeeded() {
            return Ok(());
        }
        let at = position(OP, answer.header())?;
        let loss = self.seat.loss(OP, at, found(&answer).as_ref());
        Err(loss.unwrap_or_else(|| {
            Error::new(ErrorKind::InvalidData, OP).because("the answer contradicts itself")
        }))
    }
}

/// A vigil that goes back to where it was when the call that waits on it is dropped.
struct Borrowed<'a> {
    item: Option<Vigil>,
    home: &'a Mutex<Option<Vigil>>,
}

impl<'a> From<&'a Mutex<Option<Vigil>>> for Borrowed<'a> {
    fn from(home: &'a Mutex<Option<Vigil>>) -> Self {
        let item = lock(home).take();
        Self { item, home }
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        *lock(self.home) = self.item.take();
    }
}

/// What the lock guards is replaced as a whole, so that a panic elsewhere cannot leave it half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sd_core::ElectionName;
    use sd_core::testing::required_env;
    use tokio::time::timeout;

    use super::*;
    use crate::backend::EtcdBackend;
    use crate::config::EtcdConfig;
    use crate::election::elector::EtcdElector;

    const LONG: Duration = Duration::from_secs(30);

    fn elector() -> EtcdElector {
        let url = required_env("SD_TEST_ETCD").unwrap();
        let config = EtcdConfig::new([url]).with_election_prefix("/sd-test-elections");
        EtcdElector::new(Arc::new(EtcdBackend::new(config).unwrap()))
    }

    fn tickets() -> [Ticket; 2] {
        let name = format!("{:016x}", fastrand::u64(..));
        let name = ElectionName::new(name).unwrap();
        [b"a", b"b"].map(|value| Ticket::new(name.clone(), *value, LONG * 2))
    }

    /// As with a server that loses events, or a connection that died on one side.
    #[tokio::test]
    #[ignore = "needs etcd: cargo xtask test --backend etcd"]
    async fn a_confirmation_finds_what_the_vigil_was_not_told() {
        use sd_core::Elector;

        let (elector, [a, b]) = (elector(), tickets());
        let leader = elector.enter(&a).await.unwrap();
        let next = elector.enter(&b).await.unwrap();
        let waiting = next.standing(None).await.unwrap();
        let before = leader.seat.key.clone().into_bytes();
        let vigil = Vigil::open(next.client(), "test", "/nothing", None).await;
        *lock(&next.vigil) = Some(vigil.unwrap().deaf_to(before));

        let told = next.standing(Some(&waiting));
        tokio::pin!(told);
        elector.leave(&a).await.unwrap();
        let moment = Duration::from_millis(300);
        assert!(timeout(moment, &mut told).await.is_err());
        next.confirm().await.unwrap();
        let told = timeout(LONG, told).await.unwrap().unwrap();
        assert!(matches!(told, Standing::First { .. }), "{told:?}");

        // And its own end.
        let leading = told;
        let vigil = Vigil::open(next.client(), "test", "/nothing", None).await;
        *lock(&next.vigil) = Some(vigil.unwrap());
        let told = next.standing(Some(&leading));
        tokio::pin!(told);
        elector.leave(&b).await.unwrap();
        assert!(timeout(moment, &mut told).await.is_err());
        next.confirm().await.unwrap_err();
        let told = timeout(LONG, told).await.unwrap().unwrap();
        assert!(matches!(told, Standing::Gone(_)), "{told:?}");
    }
}
