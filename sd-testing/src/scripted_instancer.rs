//! A source whose answers a test scripts.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use sd_core::port::Feed;
use sd_core::sync::lock;
use sd_core::{Instancer, Result, Revision, ServiceName, Snapshot, Watcher};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::Answer;

/// One call of `watch`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Opening {
    /// When it was called.
    pub at: Instant,
    /// The position after which it was asked to resume.
    pub known: Option<Revision>,
}

/// An [`Instancer`] with scripted answers. All its feeds take their news from one queue. An error ends the feed, and the next
/// feed goes on with the news after it. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct ScriptedInstancer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    script: Mutex<Script>,
    written: Notify,
    openings: watch::Sender<Vec<Opening>>,
    open: watch::Sender<usize>,
}

#[derive(Debug)]
struct Script {
    openings: VecDeque<Answer>,
    /// `None` stands for a panic.
    news: VecDeque<Option<Result<Feed>>>,
    last: Option<Snapshot>,
    silence_limit: Duration,
    tells_withdrawals: bool,
}

impl Default for ScriptedInstancer {
    fn default() -> Self {
        Self(Arc::new(Shared {
            script: Mutex::new(Script {
                openings: VecDeque::new(),
                news: VecDeque::new(),
                last: None,
                silence_limit: Duration::from_secs(30),
                tells_withdrawals: true,
            }),
            written: Notify::new(),
            openings: watch::Sender::new(Vec::new()),
            open: watch::Sender::new(0),
        }))
    }
}

impl ScriptedInstancer {
    /// Queues this news for the feed that is open when its turn comes.
    pub fn tell(&self, news: Result<Feed>) {
        self.push(Some(news));
    }

    /// Has the feed panic that is open when its turn comes.
    pub fn panic(&self) {
        self.push(None);
    }

    fn push(&self, news: Option<Result<Feed>>) {
        self.script().news.push_back(news);
        self.0.written.notify_waiters();
    }

    /// Queues this answer to the opening of a feed. Once the queue is empty, openings succeed.
    pub fn answer_opening(&self, answer: Answer) {
        self.script().openings.push_back(answer);
    }

    /// As [`answer_opening`](Self::answer_opening), for method chaining.
    #[must_use]
    pub fn with_opening(self, answer: Answer) -> Self {
        self.answer_opening(answer);
        self
    }

    /// Sets the silence limit of feeds that are opened from now on. Default 30 s.
    pub fn set_silence_limit(&self, limit: Duration) {
        self.script().silence_limit = limit;
    }

    /// As a source whose entries have no room to say that they were withdrawn.
    #[must_use]
    pub fn without_withdrawals(self) -> Self {
        self.script().tells_withdrawals = false;
        self
    }

    /// Every call of `watch` so far.
    pub fn openings(&self) -> Vec<Opening> {
        self.0.openings.borrow().clone()
    }

    /// Waits until `watch` has been called this often. Cancel-safe. Has no deadline of its own.
    pub async fn opened(&self, times: usize) {
        let mut seen = self.0.openings.subscribe();
        // Cannot fail: `self` holds the sender.
        let _ = seen.wait_for(|openings| openings.len() >= times).await;
    }

    /// How many feeds are open now.
    pub fn open_feeds(&self) -> usize {
        *self.0.open.borrow()
    }

    /// Waits until this many feeds are open. Cancel-safe. Has no deadline of its own.
    pub async fn feeds_are_open(&self, feeds: usize) {
        let mut seen = self.0.open.subscribe();
        let _ = seen.wait_for(|open| *open == feeds).await;
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        // Every change is one push or pop.
        let script = &self.0.script;
        lock(script)
    }
}

#[async_trait]
impl Instancer for ScriptedInstancer {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        let last = self.script().last.clone();
        Ok(last.into_iter().map(|set| set.service().clone()).collect())
    }

    fn tells_withdrawals(&self) -> bool {
        self.script().tells_withdrawals
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        let last = self.script().last.clone();
        Ok(last.unwrap_or_else(|| Snapshot::unread(service.clone(), sd_core::clock::Moment::ZERO)))
    }

    async fn watch(
        &self,
        _service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        let opening = Opening {
            at: Instant::now(),
            known: known.map(|set| set.revision().clone()),
        };
        self.0.openings.send_modify(|all| all.push(opening));
        let answer = self.script().openings.pop_front();
        if let Some(answer) = answer {
            answer.give().await?;
        }
        self.0.open.send_modify(|open| *open += 1);
        Ok(Box::new(ScriptedWatcher {
            silence_limit: self.script().silence_limit,
            source: self.clone(),
        }))
    }
}

#[derive(Debug)]
struct ScriptedWatcher {
    source: ScriptedInstancer,
    silence_limit: Duration,
}

#[async_trait]
impl Watcher for ScriptedWatcher {
    #[expect(clippy::panic, reason = "the test asks for it")]
    async fn next(&mut self) -> Result<Feed> {
        loop {
            let written = self.source.0.written.notified();
            tokio::pin!(written);
            // From here on nothing that is written goes unnoticed.
            written.as_mut().enable();
            {
                let mut script = self.source.script();
                if let Some(news) = script.news.pop_front() {
                    let Some(news) = news else {
                        panic!("it was written so");
                    };
                    if let Ok(Feed::Set(set) | Feed::Partial { set, .. }) = &news {
                        script.last = Some(set.clone());
                    }
                    return news;
                }
            }
            written.await;
        }
    }

    fn silence_limit(&self) -> Duration {
        self.silence_limit
    }
}

impl Drop for ScriptedWatcher {
    fn drop(&mut self) {
        self.source.0.open.send_modify(|open| *open -= 1);
    }
}
