//! What a feed that polls its source has already reported, and therefore what is news.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;
use crate::model::name::InstanceId;
use crate::model::snapshot::Snapshot;
use crate::port::instancer::Feed;

/// How often a feed without news reports its state.
const REPEAT_EVERY: Duration = Duration::from_secs(10);

/// The [`silence_limit`](crate::Watcher::silence_limit) of the feeds that use a [`Relay`].
pub(super) const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// A source at one moment.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The set to serve. `None` keeps the last one.
    pub(super) set: Option<Snapshot>,
    /// Why the set cannot be trusted.
    pub(super) trouble: Option<Error>,
}

/// Turns views into news. Names every instance that left as withdrawn: these sources themselves decide what is in their set,
/// and the reader must not hold it a second time.
#[derive(Debug)]
pub(super) struct Relay {
    /// The last set that the reader has.
    last: Option<Snapshot>,
    /// Whether this feed itself has reported a set.
    has_told: bool,
    trouble: Option<String>,
    repeat_at: Instant,
}

impl Relay {
    /// For a feed whose reader holds the set `known` of an earlier feed.
    pub(super) fn new(known: Option<&Snapshot>) -> Self {
        Self {
            last: known.cloned(),
            has_told: false,
            trouble: None,
            repeat_at: Instant::now() + REPEAT_EVERY,
        }
    }

    /// The last set that was reported.
    pub(super) fn told(&self) -> Option<&Snapshot> {
        self.last.as_ref().filter(|_| self.has_told)
    }

    /// When the feed must look at its source even if nothing changed.
    pub(super) fn repeat_at(&self) -> Instant {
        self.repeat_at
    }

    /// The news, if there is any.
    pub(super) fn news(&mut self, view: View) -> Option<Feed> {
        let now = Instant::now();
        let trouble = view
            .trouble
            .as_ref()
            .map(|error| error.report().to_string());
        let fresh = view
            .set
            .as_ref()
            .is_some_and(|set| self.told().is_none_or(|told| !told.is_same_set(set)));
        if !fresh && trouble == self.trouble && now < self.repeat_at {
            return None;
        }
        self.repeat_at = now + REPEAT_EVERY;
        self.trouble = trouble;
        match (view.set, view.trouble) {
            (Some(set), None) if fresh => Some(Feed::Set(self.tell(set))),
            (Some(set), Some(error)) if fresh => Some(Feed::Partial {
                set: self.tell(set),
                error,
            }),
            (_, Some(error)) => Some(Feed::Degraded(error)),
            (Some(same), None) => Some(Feed::Alive {
                revision: same.revision().clone(),
                as_of: same.as_of(),
            }),
            (None, None) => None,
        }
    }

    fn tell(&mut self, set: Snapshot) -> Snapshot {
        let set = match &self.last {
            Some(last) => {
                let gone = left(last, &set);
                set.with_withdrawn(gone)
            }
            None => set,
        };
        self.has_told = true;
        self.last = Some(set.clone());
        set
    }
}

/// The ids in `before` that are not in `after`.
fn left(before: &Snapshot, after: &Snapshot) -> Vec<InstanceId> {
    before
        .instances()
        .iter()
        .map(|instance| instance.id())
        .filter(|id| after.get(id).is_none())
        .cloned()
        .collect()
}
