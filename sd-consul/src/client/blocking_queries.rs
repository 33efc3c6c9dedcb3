//! A bound on the blocking queries that are open at a time.
//!
//! Each takes a connection of its own, and an agent allows 200 for each address that it is called from. While there are more
//! queries than that allows, they take turns, each for a short while.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

/// How long a query waits while others wait for their turn.
pub(crate) const SHORT_WAIT: Duration = Duration::from_millis(500);

/// The queries of one client.
#[derive(Debug)]
pub(crate) struct BlockingQueries(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Hands permits out in the order in which they were asked for.
    permits: Semaphore,
    most: usize,
    holders: watch::Sender<usize>,
}

/// One of those who take turns.
#[derive(Debug)]
pub(crate) struct Waiter(Arc<Shared>);

impl BlockingQueries {
    /// At most this many queries at a time.
    pub(crate) fn new(most: usize) -> Self {
        Self(Arc::new(Shared {
            permits: Semaphore::new(most),
            most,
            holders: watch::Sender::new(0),
        }))
    }

    /// Joins those who take turns, for as long as the returned is held.
    pub(crate) fn waiter(&self) -> Waiter {
        self.0.holders.send_modify(|holders| *holders += 1);
        Waiter(Arc::clone(&self.0))
    }
}

impl Waiter {
    /// Runs a query that waits for `long`, or shorter ones in turn with the others while there are too many. One that waits for long
    /// when the others come is dropped and begun again.
    ///
    /// # Cancel safety
    /// As that of the query.
    pub(crate) async fn wait<T, Q: Future<Output = T>>(
        &self,
        long: Duration,
        query: impl Fn(Duration) -> Q,
    ) -> T {
        let shared = &self.0;
        let mut holders = shared.holders.subscribe();
        let is_crowded = |holders: &usize| *holders > shared.most;
        loop {
            // Fails only if the semaphore is closed, which does not happen.
            let _permit = shared.permits.acquire().await;
            if is_crowded(&holders.borrow_and_update()) {
                return query(long.min(SHORT_WAIT)).await;
            }
            tokio::select! {
                biased;
                answer = query(long) => return answer,
                // Cannot fail: `self` holds the sender.
                _ = holders.wait_for(is_crowded) => {}
            }
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.holders.send_modify(|holders| *holders -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::time::{Instant, sleep};

    use super::*;

    const LONG: Duration = Duration::from_secs(55);

    #[tokio::test(start_paused = true)]
    async fn queries_that_fit_wait_for_long() {
        let queries = BlockingQueries::new(3);
        let holders: Vec<Waiter> = (0..3).map(|_| queries.waiter()).collect();
        let start = Instant::now();
        join_all(holders.iter().map(|waiter| waiter.wait(LONG, sleep))).await;
        assert_eq!(start.elapsed(), LONG);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_for_long_make_room_when_there_are_too_many() {
        let queries = BlockingQueries::new(2);
        let first: Vec<Waiter> = (0..2).map(|_| queries.waiter()).collect();
        let start = Instant::now();
        let crowd = async {
            sleep(Duration::from_secs(1)).await;
            let late = queries.waiter();
            late.wait(LONG, sleep).await;
            (start.elapsed(), late)
        };
        let early = join_all(first.iter().map(|waiter| waiter.wait(LONG, sleep)));
        let ((after, _late), _) = tokio::join!(crowd, early);
        assert!(
            after <= Duration::from_secs(1) + 2 * SHORT_WAIT,
            "{after:?}"
        );
        assert!(start.elapsed() <= Duration::from_secs(1) + 3 * SHORT_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn everybody_gets_a_turn_and_never_too_many_at_once() {
        const MOST: usize = 4;
        let queries = BlockingQueries::new(MOST);
        let holders: Vec<Waiter> = (0..20).map(|_| queries.waiter()).collect();
        let (open, peak) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let start = Instant::now();
        let query = async |wait: Duration| {
            peak.fetch_max(open.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            sleep(wait).await;
            open.fetch_sub(1, Ordering::Relaxed);
        };
        for _ in 0..2 {
            join_all(holders.iter().map(|waiter| waiter.wait(LONG, &query))).await;
        }
        assert_eq!(peak.into_inner(), MOST);
        assert_eq!(start.elapsed(), SHORT_WAIT * 10);
    }
}
