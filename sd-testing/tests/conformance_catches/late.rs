//! Reads that see a write late.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sd_core::memory::MemoryBackend;
use sd_core::port::{Feed, async_trait};
use sd_core::{Instancer, Result, ServiceName, Snapshot, Watcher};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// The sets of a service, each with when it begins to be seen.
type History = Arc<Mutex<Vec<(Instant, Snapshot)>>>;

/// What the readers of a store see.
#[derive(Debug, Default)]
pub(crate) struct Late {
    services: Mutex<BTreeMap<ServiceName, History>>,
    recording: Mutex<JoinSet<()>>,
}

impl Late {
    /// Records what becomes of a service from now on. Called before anything is done with it.
    pub(crate) async fn record(
        &self,
        inner: &MemoryBackend,
        service: &ServiceName,
        by: Duration,
    ) -> Result<()> {
        if by.is_zero() || self.services.lock().unwrap().contains_key(service) {
            return Ok(());
        }
        let mut watcher = inner.watch(service, None).await?;
        let first = inner.list(service).await?;
        let history = History::new(Mutex::new(vec![(Instant::now(), first)]));
        let mut services = self.services.lock().unwrap();
        services.insert(service.clone(), Arc::clone(&history));
        self.recording.lock().unwrap().spawn(async move {
            while let Ok(told) = watcher.next().await {
                if let Feed::Set(set) = told {
                    history.lock().unwrap().push((Instant::now() + by, set));
                }
            }
        });
        Ok(())
    }

    /// The set that is seen now.
    pub(crate) fn list(&self, service: &ServiceName) -> Snapshot {
        let history = Arc::clone(&self.services.lock().unwrap()[service]);
        let history = history.lock().unwrap();
        let seen = history.iter().rfind(|(from, _)| *from <= Instant::now());
        seen.map(|(_, set)| set.clone()).unwrap()
    }
}

/// A feed that tells everything late.
#[derive(Debug)]
pub(crate) struct LateWatcher {
    inner: Box<dyn Watcher>,
    by: Duration,
    news: VecDeque<(Instant, Feed)>,
}

impl LateWatcher {
    /// One that begins with this set, if there is one.
    pub(crate) fn new(inner: Box<dyn Watcher>, by: Duration, first: Option<Snapshot>) -> Self {
        let first = first.map(|set| (Instant::now(), Feed::Set(set)));
        let news = first.into_iter().collect();
        Self { inner, by, news }
    }
}

#[async_trait]
impl Watcher for LateWatcher {
    async fn next(&mut self) -> Result<Feed> {
        loop {
            let due = self.news.front().map(|(at, _)| *at);
            let wait = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = wait => {
                    if let Some((_, told)) = self.news.pop_front() {
                        return Ok(told);
                    }
                }
                told = self.inner.next() => self.news.push_back((Instant::now() + self.by, told?)),
            }
        }
    }

    fn silence_limit(&self) -> Duration {
        self.inner.silence_limit() + self.by
    }
}
