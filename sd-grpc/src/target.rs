//! Where calls go: one run of an instance at one address.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use http::uri::{Authority, Scheme};
use sd_core::balance::Load;
use sd_core::{Incarnation, Instance, InstanceId};

/// One run of an instance at one address, with what every call to it needs ready-made.
#[derive(Debug)]
pub(crate) struct Target {
    id: InstanceId,
    incarnation: Incarnation,
    label: Arc<str>,
    scheme: Scheme,
    authority: Authority,
    counters: CachePadded<Counters>,
    /// How many calls in a row were turned away.
    turned_away: AtomicU32,
    /// The driver was told so and has not decided yet.
    told: AtomicBool,
    /// What the policy keeps of its calls.
    load: Option<Arc<dyn Load>>,
}

/// What happened at one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    calls: AtomicU64,
    sent_again: AtomicU64,
    errors: AtomicU64,
}

impl Target {
    /// Calls to it carry `origin`.
    pub(crate) fn new(
        instance: &Instance,
        origin: (Scheme, Authority),
        load: Option<Arc<dyn Load>>,
    ) -> Self {
        let (scheme, authority) = origin;
        Self {
            id: instance.id().clone(),
            incarnation: instance.incarnation(),
            label: instance.endpoint().to_string().into(),
            scheme,
            authority,
            counters: CachePadded::default(),
            turned_away: AtomicU32::new(0),
            told: AtomicBool::new(false),
            load,
        }
    }

    pub(crate) fn id(&self) -> &InstanceId {
        &self.id
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The address, for people.
    pub(crate) fn label(&self) -> Arc<str> {
        Arc::clone(&self.label)
    }

    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme.clone()
    }

    pub(crate) fn authority(&self) -> Authority {
        self.authority.clone()
    }

    pub(crate) fn load(&self) -> Option<&Arc<dyn Load>> {
        self.load.as_ref()
    }

    /// A call was turned away. Says how many in a row were.
    pub(crate) fn turned_away(&self) -> u32 {
        self.turned_away.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// So many calls in a row count as turned away. Costs one load where nothing changes.
    pub(crate) fn set_turned_away(&self, count: u32) {
        if self.turned_away.load(Ordering::Relaxed) != count {
            self.turned_away.store(count, Ordering::Relaxed);
        }
    }

    /// Whether the driver is to be told that this turns calls away. `true` once until the driver has decided.
    pub(crate) fn asks_for_ejection(&self) -> bool {
        !self.told.load(Ordering::Relaxed) && !self.told.swap(true, Ordering::Relaxed)
    }

    /// The driver has decided whether to eject this, or was not told.
    pub(crate) fn ejection_decided(&self) {
        self.told.store(false, Ordering::Relaxed);
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl Counters {
    /// An attempt was given to a connection.
    pub(crate) fn call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// An attempt failed here, and the call goes on.
    pub(crate) fn sent_again(&self) {
        self.sent_again.fetch_add(1, Ordering::Relaxed);
    }

    /// An attempt got no answer, or that the server cannot take it now.
    pub(crate) fn error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> (u64, u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (
            read(&self.calls),
            read(&self.sent_again),
            read(&self.errors),
        )
    }
}
