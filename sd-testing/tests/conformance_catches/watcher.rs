//! A feed of the embedded registry with one deliberate flaw.

use std::time::Duration;

use sd_core::port::{Feed, async_trait};
use sd_core::{Instance, Instancer, Result, Revision, ServiceName, Snapshot, Watcher};
use tokio::task::yield_now;

use crate::flawed::{Flaw, Flawed};
use crate::late::LateWatcher;

#[derive(Debug)]
pub(crate) struct FlawedWatcher {
    backend: Flawed,
    inner: Box<dyn Watcher>,
    service: ServiceName,
    known: Option<Snapshot>,
    /// The last set that was taken from the store.
    last: Option<Snapshot>,
    /// Told before anything else.
    first: Option<Snapshot>,
    /// Which feed of the service this is.
    number: u64,
}

impl FlawedWatcher {
    pub(crate) async fn open(
        backend: Flawed,
        service: &ServiceName,
        known: Option<&Snapshot>,
    ) -> Result<Self> {
        let number = {
            let mut newest = backend.shared.newest_feed.lock().unwrap();
            let newest = newest.entry(service.clone()).or_default();
            *newest += 1;
            *newest
        };
        let mut known = known.cloned();
        let mut first = None;
        if backend.has(Flaw::ListsThenWatchesWithAGap) {
            first = Some(backend.inner.list(service).await?);
            for _ in 0..4 {
                yield_now().await;
            }
        }
        if backend.has(Flaw::TrustsAnyPosition) {
            let now = backend.inner.list(service).await?.revision().clone();
            known = known.map(|set| {
                let value = set.revision().value().min(now.value());
                set.clone()
                    .with_position(Revision::new(now.domain(), value), set.as_of())
            });
        }
        let mut inner = backend.inner.watch(service, known.as_ref()).await?;
        let by = backend.source.late;
        if !by.is_zero() {
            backend.record(service).await?;
            let first = known.is_none().then(|| backend.shared.late.list(service));
            inner = Box::new(LateWatcher::new(inner, by, first));
        }
        Ok(Self {
            backend,
            inner,
            service: service.clone(),
            known,
            last: None,
            first,
            number,
        })
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.backend.has(flaw)
    }

    fn is_newest(&self) -> bool {
        let newest = self.backend.shared.newest_feed.lock().unwrap();
        newest.get(&self.service) == Some(&self.number)
    }

    /// What becomes of a set that the store tells; `None` if it is kept from the reader.
    fn tell(&mut self, set: Snapshot) -> Option<Feed> {
        let before = self.last.replace(set.clone());
        let Some(before) = before else {
            return self.tell_first(set);
        };
        let unchanged = match self.backend.flaw {
            Flaw::ComparesAddresses => same_by(&before, &set, |a, b| {
                a.is_same_run(b) && a.endpoint() == b.endpoint()
            }),
            Flaw::ComparesIds => same_by(&before, &set, |a, b| a.id() == b.id()),
            Flaw::TellsOneFeedOnly => !self.is_newest(),
            _ => false,
        };
        if unchanged {
            return None;
        }
        if self.has(Flaw::TellsDeltas) {
            let all = set.instances().iter();
            let changed = all.filter(|instance| before.get(instance.id()) != Some(*instance));
            let changed = changed.cloned().collect();
            return Some(Feed::Set(set.with_instances(changed)));
        }
        Some(Feed::Set(set))
    }

    fn tell_first(&mut self, set: Snapshot) -> Option<Feed> {
        let resumed = self.known.take();
        let told = match (self.backend.flaw, resumed) {
            (Flaw::StaysSilentUntilAChange | Flaw::ListsThenWatchesWithAGap, _) => return None,
            (Flaw::ResumesFromNow, Some(known)) => Feed::Alive {
                revision: known.revision().clone(),
                as_of: known.as_of(),
            },
            (Flaw::AddsToTheKnownSet, Some(known)) => {
                let all = [known.instances(), set.instances()].concat();
                Feed::Set(set.with_instances(all))
            }
            (Flaw::TellsDeltas, Some(known)) => {
                let all = set.instances().iter();
                let changed = all.filter(|instance| known.get(instance.id()) != Some(*instance));
                let changed = changed.cloned().collect();
                Feed::Set(set.with_instances(changed))
            }
            _ => Feed::Set(set),
        };
        Some(told)
    }
}

fn same_by(a: &Snapshot, b: &Snapshot, same: impl Fn(&Instance, &Instance) -> bool) -> bool {
    a.len() == b.len()
        && a.instances()
            .iter()
            .zip(b.instances())
            .all(|(a, b)| same(a, b))
}

#[async_trait]
impl Watcher for FlawedWatcher {
    async fn next(&mut self) -> Result<Feed> {
        if let Some(first) = self.first.take() {
            return Ok(Feed::Set(first));
        }
        loop {
            let told = match self.inner.next().await? {
                Feed::Set(stored) => {
                    let set = self.backend.read(&stored)?;
                    if self.has(Flaw::LosesWhatADroppedCallTook) {
                        yield_now().await;
                    }
                    self.tell(set)
                }
                Feed::Alive { .. } if self.has(Flaw::NeverSaysThatItIsAlive) => None,
                Feed::Alive { .. }
                    if self.has(Flaw::ResumesWithoutAnAnswer) && self.known.is_some() =>
                {
                    None
                }
                other => Some(other),
            };
            if let Some(told) = told {
                return Ok(told);
            }
        }
    }

    fn silence_limit(&self) -> Duration {
        self.inner.silence_limit()
    }
}
