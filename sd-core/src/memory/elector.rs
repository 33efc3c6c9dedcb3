//! The ownership port of the embedded registry. [`Elections`] decides; candidates wait here.

use async_trait::async_trait;
use tokio::sync::watch;

use super::client::Client;
use super::elections::{ElectorNumber, End, Joined, Place};
use super::leader_watcher::MemoryLeaderWatcher;
use super::{MemoryBackend, check_open};
use crate::error::{Error, ErrorKind, Result};
use crate::model::name::ElectionName;
use crate::port::elector::{
    Confirmation, CountsFrom, Elector, Entry, LeaderWatcher, Standing, StrictElector, Ticket,
    check_value,
};
use crate::port::registrar::Limits;
use crate::port::safety::Safety;

#[derive(Debug)]
pub(super) struct MemoryElector {
    client: Client,
    number: ElectorNumber,
    limits: Limits,
}

impl MemoryElector {
    pub(super) fn new(backend: &MemoryBackend) -> Self {
        Self {
            client: Client::of(backend),
            number: backend.elections.new_elector(),
            limits: backend.limits.clone(),
        }
    }
}

#[async_trait]
impl Elector for MemoryElector {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn safety(&self) -> Result<Safety> {
        check_open(&self.client.closed, "memory: tell safety")?;
        Ok(Safety::strict())
    }

    /// Completes on its first poll, so that nothing of a dropped call can arrive after a later `leave`.
    async fn join(&self, ticket: &Ticket) -> Result<Box<dyn Entry>> {
        let client = self.client.clone();
        check_open(&client.closed, "memory: join election")?;
        ticket.check(&self.limits)?;
        let Joined { token, news } =
            client
                .elections
                .join(self.number, ticket, client.clock.now())?;
        Ok(Box::new(MemoryEntry {
            client,
            name: ticket.name.clone(),
            token,
            news,
            limits: self.limits.clone(),
        }))
    }

    async fn leave(&self, ticket: &Ticket) -> Result<()> {
        let Client {
            elections,
            clock,
            closed,
        } = &self.client;
        check_open(closed, "memory: leave election")?;
        elections.leave(self.number, ticket, clock.now());
        Ok(())
    }

    async fn observe(&self, name: &ElectionName) -> Result<Box<dyn LeaderWatcher>> {
        check_open(&self.client.closed, "memory: observe election")?;
        Ok(Box::new(MemoryLeaderWatcher::open(
            self.client.clone(),
            name,
        )))
    }
}

impl StrictElector for MemoryElector {}

#[derive(Debug)]
struct MemoryEntry {
    client: Client,
    name: ElectionName,
    /// Tells this entry from every other, even from a later one of the same ticket.
    token: u64,
    news: watch::Receiver<Option<End>>,
    limits: Limits,
}

impl MemoryEntry {
    /// Why the entry is gone, once it is.
    fn gone(&self, op: &'static str) -> Error {
        let end = *self.news.borrow();
        end.map_or_else(|| Error::new(ErrorKind::NotFound, op), |end| end.error(op))
    }

    /// `None` if it is gone.
    fn place(&self) -> Option<Place> {
        let Client {
            elections, clock, ..
        } = &self.client;
        elections.place(&self.name, self.token, clock.now())
    }

    fn standing_at(&self, place: Option<&Place>) -> Standing {
        match place {
            None => Standing::Gone(self.gone("memory: stand in election")),
            Some(Place {
                leads: Some(before),
                ..
            }) => Standing::First {
                token: self.client.elections.token(self.token),
                before: *before,
            },
            // Counting those ahead would mean waking every candidate whenever one leaves.
            Some(Place { leads: None, .. }) => Standing::Waiting { ahead: None },
        }
    }
}

#[async_trait]
impl Entry for MemoryEntry {
    async fn standing(&self, seen: Option<&Standing>) -> Result<Standing> {
        let mut news = self.news.clone();
        loop {
            check_open(&self.client.closed, "memory: stand in election")?;
            news.mark_unchanged();
            let place = self.place();
            let standing = self.standing_at(place.as_ref());
            if seen.is_none_or(|seen| !seen.is_same(&standing)) {
                return Ok(standing);
            }
            let Some(Place { look_again, .. }) = place else {
                self.client.closed.cancelled().await;
                continue;
            };
            tokio::select! {
                biased;
                () = self.client.closed.cancelled() => {}
                // The sender lives as long as the entry, and the entry's end is signalled first.
                _ = news.changed() => {}
                () = self.client.clock.sleep_until(look_again) => {}
            }
        }
    }

    async fn confirm(&self) -> Result<Confirmation> {
        const OP: &str = "memory: confirm entry";
        let Client {
            elections,
            clock,
            closed,
        } = &self.client;
        check_open(closed, OP)?;
        let ttl = elections.confirm(&self.name, self.token, clock.now());
        Ok(Confirmation {
            ttl: ttl.ok_or_else(|| self.gone(OP))?,
            counts_from: CountsFrom::ThisSend,
        })
    }

    async fn proclaim(&self, value: &[u8]) -> Result<()> {
        const OP: &str = "memory: proclaim value";
        let Client {
            elections,
            clock,
            closed,
        } = &self.client;
        check_open(closed, OP)?;
        check_value(OP, value, &self.limits)?;
        let done = elections.proclaim(&self.name, self.token, value, clock.now());
        done.ok_or_else(|| self.gone(OP))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Poll, Wake, Waker};
    use std::time::Duration;

    use futures_util::FutureExt;
    use futures_util::future::join_all;

    use super::*;
    use crate::clock::Clock;
    use crate::clock::{Moment, Sleep};
    use crate::memory::Memory;
    use crate::port::elector::Predecessor;

    const TTL: Duration = Duration::from_secs(1);

    fn elector(memory: &Memory) -> MemoryElector {
        MemoryElector::new(&memory.backend())
    }

    fn ticket() -> Ticket {
        Ticket::new(ElectionName::new("e").unwrap(), *b"v", TTL)
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn leads(standing: &Standing) -> Option<(u64, Predecessor)> {
        match standing {
            Standing::First { token, before } => Some((token.value(), *before)),
            _ => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn candidates_lead_in_the_order_of_joining_with_growing_tokens() {
        let memory = Memory::new();
        let elector = elector(&memory);
        let tickets: Vec<_> = (0..3).map(|_| ticket()).collect();
        let mut entries = Vec::new();
        for ticket in &tickets {
            entries.push(elector.join(ticket).await.unwrap());
        }
        let ids: Vec<_> = tickets.iter().map(|ticket| ticket.id).collect();
        assert_eq!(memory.operator().entries(&tickets[0].name), ids);
        let mut last = 0;
        for (ticket, entry) in tickets.iter().zip(&entries) {
            let (token, _) = leads(&entry.standing(None).await.unwrap()).unwrap();
            assert!(token > last);
            last = token;
            elector.leave(ticket).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_exit_wakes_only_the_candidate_behind() {
        let memory = Memory::new();
        let elector = elector(&memory);
        let tickets: Vec<_> = (0..100).map(|_| ticket()).collect();
        let entries = join_all(tickets.iter().map(|ticket| elector.join(ticket))).await;
        let entries: Vec<_> = entries.into_iter().map(Result::unwrap).collect();
        let waiting = Standing::Waiting { ahead: None };
        let mut waiters: Vec<_> = entries[1..]
            .iter()
            .map(|entry| (entry.standing(Some(&waiting)), Arc::<Woken>::default()))
            .collect();
        for (standing, woken) in &mut waiters {
            let waker = Waker::from(Arc::clone(woken));
            let polled = standing.poll_unpin(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
        }
        elector.leave(&tickets[0]).await.unwrap();
        let woken = waiters
            .iter()
            .map(|(_, woken)| woken.0.load(Ordering::Relaxed));
        let woken: Vec<_> = woken.enumerate().filter(|(_, woken)| *woken).collect();
        assert_eq!(woken, [(0, true)]);
    }

    /// Stands still until it is set.
    #[derive(Debug, Default)]
    struct SetClock(Arc<Mutex<Duration>>);

    impl Clock for SetClock {
        fn now(&self) -> Moment {
            Moment::from_start(*self.0.lock().unwrap())
        }

        fn sleep_until(&self, at: Moment) -> Sleep {
            let time = Arc::clone(&self.0);
            Box::pin(std::future::poll_fn(move |_| {
                let past = Moment::from_start(*time.lock().unwrap()) >= at;
                if past { Poll::Ready(()) } else { Poll::Pending }
            }))
        }
    }

    #[test]
    fn an_executor_without_tokio_can_drive_it() {
        let clock = SetClock::default();
        let time = Arc::clone(&clock.0);
        let memory = Memory::with_clock(Arc::new(clock));
        let elector = elector(&memory);
        let (dead, next) = (ticket(), ticket());
        elector.join(&dead).now_or_never().unwrap().unwrap();
        *time.lock().unwrap() += TTL / 2;
        let entry = elector.join(&next).now_or_never().unwrap().unwrap();
        let mut feed = elector.observe(&next.name).now_or_never().unwrap().unwrap();
        feed.next().now_or_never().unwrap().unwrap();
        let seen = entry.standing(None).now_or_never().unwrap().unwrap();
        let (mut standing, mut told) = (entry.standing(Some(&seen)), feed.next());
        assert!((&mut standing).now_or_never().is_none());
        assert!((&mut told).now_or_never().is_none());
        *time.lock().unwrap() += TTL / 2;
        let standing = standing.now_or_never().unwrap().unwrap();
        assert_eq!(leads(&standing), Some((2, Predecessor::None)));
        told.now_or_never().unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_term_that_was_recorded_is_reported_as_it_was_first_found() {
        let memory = Memory::new();
        let elector = elector(&memory);
        let [a, b, c] = [ticket(), ticket(), ticket()].map(Ticket::with_term_record);
        let first = elector.join(&a).await.unwrap();
        let found = first.standing(None).await.unwrap();
        assert_eq!(leads(&found).unwrap().1, Predecessor::None);

        memory.operator().remove_entry(&b.name, a.id);
        let second = elector.join(&b).await.unwrap();
        for _ in 0..2 {
            let found = second.standing(None).await.unwrap();
            let (_, before) = leads(&found).unwrap();
            assert_eq!(before, Predecessor::Unknown { ttl: TTL });
        }
        elector.leave(&b).await.unwrap();
        let third = elector.join(&c).await.unwrap();
        let found = third.standing(None).await.unwrap();
        assert_eq!(leads(&found).unwrap().1, Predecessor::Resigned);
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_gives_every_lease_its_full_time_again() {
        let memory = Memory::new();
        let elector = elector(&memory);
        let ticket = ticket();
        let entry = elector.join(&ticket).await.unwrap();
        tokio::time::advance(TTL / 2).await;
        memory.operator().restart_leases();
        tokio::time::advance(TTL * 3 / 4).await;
        entry.confirm().await.unwrap();
        tokio::time::advance(TTL).await;
        memory.operator().restart_leases();
        let error = entry.confirm().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LeaseLost);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_of_an_election_that_is_over() {
        let memory = Memory::new();
        let elector = elector(&memory);
        let name = ElectionName::new("e").unwrap();
        let feed = elector.observe(&name).await.unwrap();
        let ticket = ticket();
        elector.join(&ticket).await.unwrap();
        elector.leave(&ticket).await.unwrap();
        assert_eq!(memory.elections.held().0, 1);
        drop(feed);
        assert_eq!(memory.elections.held().0, 0);
        elector.join(&ticket).await.unwrap();
        tokio::time::advance(TTL).await;
        assert!(memory.operator().entries(&name).is_empty());
        assert_eq!(memory.elections.held().0, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn closing_ends_every_wait() {
        use crate::Backend;

        let backend = Memory::new().backend();
        let elector = MemoryElector::new(&backend);
        let entry = elector.join(&ticket()).await.unwrap();
        let mut feed = elector.observe(&ticket().name).await.unwrap();
        let seen = entry.standing(None).await.unwrap();
        feed.next().await.unwrap();
        let (mut standing, mut told) = (entry.standing(Some(&seen)), feed.next());
        assert!((&mut standing).now_or_never().is_none());
        assert!((&mut told).now_or_never().is_none());
        backend.close().await.unwrap();
        assert_eq!(standing.await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(told.await.unwrap_err().kind(), ErrorKind::Closed);
        let joined = elector.join(&ticket()).await;
        assert_eq!(joined.unwrap_err().kind(), ErrorKind::Closed);
    }
}
