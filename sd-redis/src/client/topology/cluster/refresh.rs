//! Asking the nodes of a Cluster for all slots, in one task, whose outcome all callers share.
//!
//! Nodes to which a connection is open are asked first, and the others are dialled. One that swallows what it is asked is not waited for
//! alone: the next one is asked beside it, and the first answer counts.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{Pipeline, Value};
use sd_backend::{Unanswered, is_unreachable};
use sd_core::{Endpoint, Error, ErrorKind, Result};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::client::connection::{Dialer, Link, Purpose};
use crate::client::error::translate;
use crate::client::nodes::Nodes;
use crate::client::topology::cluster::slots::{SlotMap, read_slots};
use crate::client::topology::standalone::none_of;

pub(super) const OP: &str = "redis: find the nodes of the Cluster";
/// How long one node is waited for before the next one is asked as well.
const ALONE_FOR: Duration = Duration::from_millis(100);
/// How many nodes are asked at once at most.
const AT_ONCE: usize = 16;

/// A refresh that has begun. Dropping it ends its task.
#[derive(Debug)]
pub(super) struct Refresh {
    outcome: Outcome,
    _task: AbortOnDropHandle<()>,
}

/// What comes of a refresh.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    told: watch::Receiver<Option<Result<()>>>,
    give_up_at: Instant,
}

impl Refresh {
    /// Runs `work`, which is given up by all that wait for it after `limit`. Needs a runtime.
    pub(super) fn begin(
        limit: Duration,
        work: impl Future<Output = Result<()>> + Send + 'static,
    ) -> Self {
        let (telling, told) = watch::channel(None);
        let task = tokio::spawn(async move {
            let done = work.await;
            telling.send_replace(Some(done));
        });
        let give_up_at = Instant::now() + limit;
        Self {
            outcome: Outcome { told, give_up_at },
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// What comes of it.
    pub(super) fn outcome(&self) -> Outcome {
        self.outcome.clone()
    }

    /// The same, if it is under way. It is not if its runtime has ended, or does not drive it.
    pub(super) fn under_way(&self) -> Option<Outcome> {
        let is_running =
            self.outcome.told.borrow().is_none() && self.outcome.told.has_changed().is_ok();
        let is_in_time = Instant::now() < self.outcome.give_up_at;
        (is_running && is_in_time).then(|| self.outcome.clone())
    }
}

impl Outcome {
    /// Returns when the refresh has ended.
    ///
    /// # Errors
    /// No node said where the slots are.
    ///
    /// # Cancel safety
    /// A dropped call ends nothing.
    pub(super) async fn wait(mut self) -> Result<()> {
        let ended = timeout_at(self.give_up_at, self.told.wait_for(Option::is_some)).await;
        match ended {
            Ok(Ok(told)) => told.clone().unwrap_or(Ok(())),
            Ok(Err(_)) => {
                let why = "what asked for the slots was ended";
                Err(Error::new(ErrorKind::Unavailable, OP).because(why))
            }
            Err(_) => {
                let why = "no node said in time where the slots are";
                Err(Error::new(ErrorKind::Timeout, OP).because(why))
            }
        }
    }
}

/// Asks these nodes for all slots, in their order. Returns what the first says that has any.
///
/// # Errors
/// What each of them said instead.
pub(super) async fn ask_nodes(
    dialer: &Dialer,
    nodes: &Arc<Nodes>,
    asked: Vec<Endpoint>,
) -> Result<SlotMap> {
    let asking = asked.into_iter().map(|node| ask(dialer, nodes, node));
    let answered = first_answer(asking.collect()).await;
    answered.map_err(|failed| none_of(OP, failed))
}

/// The first answer of these, each of which begins after the one before it has failed, or has been waited for.
async fn first_answer<T, F>(asking: Vec<F>) -> std::result::Result<T, Vec<Error>>
where
    F: Future<Output = Result<T>>,
{
    let mut waiting = asking.into_iter();
    let mut under_way = FuturesUnordered::new();
    let mut failed = Vec::new();
    loop {
        if under_way.len() < AT_ONCE {
            under_way.extend(waiting.next());
        }
        match timeout(ALONE_FOR, under_way.next()).await {
            Ok(Some(Ok(answer))) => return Ok(answer),
            Ok(Some(Err(error))) => failed.push(error),
            Ok(None) => return Err(failed),
            Err(_) => {}
        }
    }
}

/// Asks one node over the connection that is open, or over a new one.
async fn ask(dialer: &Dialer, nodes: &Arc<Nodes>, node: Endpoint) -> Result<SlotMap> {
    let shared = nodes.at(&Some(node.clone()));
    if let Some(link) = shared.current() {
        // One that does not answer is asked over this connection no more, also if this call is dropped.
        let unanswered = Unanswered::new(&shared, &link, ALONE_FOR);
        match answer_of(dialer, &link, &node).await {
            Ok(values) => {
                unanswered.answered();
                return slots_in(&node, values);
            }
            Err(error) if error.kind() == ErrorKind::Timeout => return Err(error),
            // It may have ended since it was used.
            Err(error) if is_unreachable(&error) => shared.retire(&link),
            Err(error) => {
                unanswered.answered();
                return Err(error);
            }
        }
    }
    let dialing = dialer.dial(OP, &node, Purpose::Commands);
    let link = shared.get_or_connect(dialing).await?;
    let values = answer_of(dialer, &link, &node).await?;
    slots_in(&node, values)
}

async fn answer_of(dialer: &Dialer, link: &Link, node: &Endpoint) -> Result<Vec<Value>> {
    let mut question = Pipeline::new();
    question.cmd("CLUSTER").arg("SLOTS");
    let limit = dialer.config().connect_timeout;
    let answered = timeout(limit, link.send(&question)).await;
    let answered = answered.map_err(|_| {
        let why = format!("{node} did not say within {limit:?} where the slots are");
        Error::new(ErrorKind::Timeout, OP).because(why)
    })?;
    answered.map_err(|error| translate(OP, error))
}

fn slots_in(node: &Endpoint, values: Vec<Value>) -> Result<SlotMap> {
    let said = read_slots(OP, node, values)?;
    if said.nodes().is_empty() {
        let why = format!("{node} knows no slots: look at CLUSTER INFO there");
        return Err(Error::new(ErrorKind::Unavailable, OP).because(why));
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use tokio::time::sleep;

    use super::*;

    fn failure(why: &str) -> Error {
        Error::new(ErrorKind::Unavailable, "test").because(why)
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_swallows_what_it_is_asked_is_waited_for_beside_the_next_ones() {
        let since = Instant::now();
        let asking: Vec<BoxFuture<'_, Result<u32>>> = vec![
            pending().boxed(),
            async { Err(failure("refused")) }.boxed(),
            pending().boxed(),
            async {
                sleep(ALONE_FOR / 2).await;
                Ok(4)
            }
            .boxed(),
        ];
        assert_eq!(first_answer(asking).await.unwrap(), 4);
        // One that fails is not waited for.
        assert_eq!(since.elapsed(), ALONE_FOR * 2 + ALONE_FOR / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_asked_at_once_than_that_and_all_failures_are_told() {
        let mut asking: Vec<BoxFuture<'_, Result<()>>> = Vec::new();
        for at in 0..AT_ONCE {
            let late = async move {
                sleep(ALONE_FOR * 1000).await;
                Err(failure(&at.to_string()))
            };
            asking.push(late.boxed());
        }
        let since = Instant::now();
        asking.push(async { Err(failure("last")) }.boxed());
        let failed = first_answer(asking).await.unwrap_err();
        assert_eq!(failed.len(), AT_ONCE + 1);
        assert!(since.elapsed() >= ALONE_FOR * 1000);
        let report = failed[1].report().to_string();
        assert!(report.contains("last"), "{report}");
    }

    #[tokio::test(start_paused = true)]
    async fn all_that_wait_are_told_the_outcome_and_one_that_hangs_is_given_up() {
        const LIMIT: Duration = Duration::from_secs(1);
        let refresh = Refresh::begin(LIMIT, async {
            sleep(LIMIT / 2).await;
            Err(failure("down"))
        });
        let both = [(); 2].map(|()| refresh.under_way().unwrap().wait());
        for told in futures_util::future::join_all(both).await {
            assert!(told.unwrap_err().report().to_string().contains("down"));
        }
        assert!(refresh.under_way().is_none());

        let hanging = Refresh::begin(LIMIT, pending());
        let outcome = hanging.under_way().unwrap();
        let given_up = outcome.clone().wait().await.unwrap_err();
        assert_eq!(given_up.kind(), ErrorKind::Timeout);
        assert!(hanging.under_way().is_none());
        drop(hanging);
        assert!(outcome.wait().await.is_err());
    }
}
