//! All registrations of an agent: those that are kept, and those of the recent past.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sd_core::sync::lock;
use sd_core::{RecordId, ServiceName};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::entry::{Caller, Entry, Key, Place, Refused, Selector, Stage};
use super::keeping::Command;
use super::left::Left;
use crate::checks::{Checks, Health};
use crate::daemon::store::{State, Stored};

/// One registration that is kept by a task.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) view: watch::Sender<View>,
    /// How long the registry may take to confirm a change before that is told as an error.
    pub(crate) confirm_within: Duration,
    /// What a process can tell of itself.
    pub(crate) checks: Mutex<Arc<Checks>>,
}

/// What the task of a registration shows.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) entry: Entry,
    /// The newest change that the registry has confirmed. Changes are counted from 1.
    pub(crate) confirmed: u64,
    /// Since when the registry has confirmed no change, although there is one to confirm.
    pub(crate) unconfirmed_since: Option<Instant>,
    /// The newest change that was refused, and why.
    pub(crate) refused: Option<(u64, Refused)>,
    /// What is kept on disk.
    pub(crate) stored: Arc<Stored>,
    /// Readers may have seen it, of this run of the agent or the one before.
    pub(crate) was_seen: bool,
    /// The task is done with it.
    pub(crate) is_over: bool,
}

impl Slot {
    pub(crate) fn entry(&self) -> Entry {
        let view = self.view.borrow();
        let mut entry = view.entry.clone();
        if entry.error.is_none() && self.is_late(&view) {
            entry.error = Some(unconfirmed(self.confirm_within));
        }
        entry
    }

    fn is_late(&self, view: &View) -> bool {
        let since = view.unconfirmed_since;
        since.is_some_and(|since| since.elapsed() >= self.confirm_within)
    }
}

/// Why the registry does not have a change, if it gives no reason.
pub(crate) fn unconfirmed(within: Duration) -> String {
    format!(
        "the registry has not confirmed the change within {within:?}: readers see it once it has"
    )
}

/// The changes of records that are at the registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unconfirmed {
    /// How many registrations have one that the registry has not confirmed.
    pub(crate) pending: usize,
    /// How many of them have had it for longer than it may take.
    pub(crate) late: usize,
}

/// One that is gone.
#[derive(Debug)]
struct Gone {
    entry: Arc<Entry>,
    at: Instant,
}

/// One that could not be gone on with at this start.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(crate) stored: Arc<Stored>,
    /// As it is shown.
    pub(crate) entry: Entry,
}

impl Parked {
    pub(crate) fn new(stored: Stored, why: &Refused) -> Self {
        let entry = Entry {
            declaration: stored.declaration.clone(),
            owner: Caller(stored.owner.as_str().into()),
            record: stored.instance.record_id(),
            instance: Arc::new(stored.instance.clone()),
            stage: Stage::Init,
            registered_at: stored.registered_at,
            updated_at: stored.updated_at,
            drain_deadline: stored.drain.map(|drain| drain.deadline),
            health: Health {
                passing: stored.passing,
                checks: Vec::new(),
            },
            overridden: None,
            is_confirmed: false,
            error: Some(format!(
                "refused at the start of the agent, and left for the next one: {why}"
            )),
            troubles: 0,
        };
        Self {
            stored: Arc::new(stored),
            entry,
        }
    }
}

/// All registrations of an agent.
#[derive(Debug)]
pub(crate) struct Table {
    kept: BTreeMap<ServiceName, BTreeMap<Place, Arc<Slot>>>,
    /// How many are kept.
    count: usize,
    /// How many of those each caller has.
    of_callers: HashMap<Caller, usize>,
    gone: VecDeque<Gone>,
    /// What could not be gone on with at this start. It stays on disk for the next one.
    parked: Vec<Parked>,
    /// What the agent before was about to end.
    left: Vec<Arc<Left>>,
    show_gone_for: Duration,
    most_gone: usize,
    /// Nothing enters any more.
    pub(crate) is_closed: bool,
    /// Everything is about to be withdrawn, and the next agent must not bring it back.
    pub(crate) is_ending: bool,
}

impl Table {
    pub(crate) fn new(show_gone_for: Duration, most_gone: usize) -> Self {
        Self {
            kept: BTreeMap::new(),
            count: 0,
            of_callers: HashMap::new(),
            gone: VecDeque::new(),
            parked: Vec::new(),
            left: Vec::new(),
            show_gone_for,
            most_gone,
            is_closed: false,
            is_ending: false,
        }
    }

    /// How many are kept.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// How many of a caller are kept.
    pub(crate) fn count_of(&self, caller: &Caller) -> usize {
        self.of_callers.get(caller).copied().unwrap_or_default()
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Slot>> {
        self.kept.get(&key.service)?.get(&key.place)
    }

    pub(crate) fn insert(&mut self, key: Key, slot: Arc<Slot>) {
        let owner = slot.view.borrow().entry.owner.clone();
        let of_service = self.kept.entry(key.service).or_default();
        if of_service.insert(key.place, slot).is_none() {
            self.count += 1;
            *self.of_callers.entry(owner).or_default() += 1;
        }
    }

    /// Moves a registration to the past, unless another one has its key by now.
    pub(crate) fn leave(&mut self, key: &Key, slot: &Arc<Slot>) {
        if self.get(key).is_some_and(|kept| Arc::ptr_eq(kept, slot))
            && let Some(of_service) = self.kept.get_mut(&key.service)
        {
            of_service.remove(&key.place);
            if of_service.is_empty() {
                self.kept.remove(&key.service);
            }
            self.count -= 1;
            let entry = slot.entry();
            if let Some(count) = self.of_callers.get_mut(&entry.owner) {
                *count -= 1;
                if *count == 0 {
                    self.of_callers.remove(&entry.owner);
                }
            }
            self.gone.push_back(Gone {
                entry: Arc::new(entry),
                at: Instant::now(),
            });
        }
        self.prune();
    }

    fn prune(&mut self) {
        let now = Instant::now();
        while self.gone.front().is_some_and(|oldest| {
            self.gone.len() > self.most_gone
                || now.saturating_duration_since(oldest.at) >= self.show_gone_for
        }) {
            self.gone.pop_front();
        }
    }

    /// Forgets what is gone of an instance that is there again.
    pub(crate) fn forget(&mut self, again: &RecordId) {
        let is_another =
            |record: &RecordId| record.service != again.service || record.id != again.id;
        self.gone.retain(|gone| is_another(&gone.entry.record));
    }

    pub(crate) fn park(&mut self, parked: Parked) {
        self.parked.push(parked);
    }

    pub(crate) fn leave_to_end(&mut self, left: Arc<Left>) {
        self.left.push(left);
    }

    /// What is parked.
    pub(crate) fn parked(&self) -> &[Parked] {
        &self.parked
    }

    /// Takes out what is parked and as wanted.
    pub(crate) fn unpark(&mut self, wanted: impl Fn(&Parked) -> bool) -> Vec<Parked> {
        self.parked.extract_if(.., |one| wanted(one)).collect()
    }

    /// Nothing is kept any more, and nothing is shown as gone for it.
    pub(crate) fn clear(&mut self) {
        self.kept.clear();
        self.parked.clear();
        self.count = 0;
        self.of_callers.clear();
    }

    /// Those that are kept.
    pub(crate) fn slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.kept.values().flat_map(BTreeMap::values)
    }

    /// Those that are kept and meant.
    pub(crate) fn selected(&self, which: &Selector) -> Vec<Arc<Slot>> {
        let is_meant = |slot: &&Arc<Slot>| which.selects(&slot.view.borrow().entry);
        match which.service() {
            Some(service) => {
                let of_service = self.kept.get(service).into_iter();
                let slots = of_service.flat_map(BTreeMap::values);
                slots.filter(is_meant).cloned().collect()
            }
            None => self.slots().filter(is_meant).cloned().collect(),
        }
    }

    /// How many stand where, those that are gone as well.
    pub(crate) fn stages(&mut self) -> BTreeMap<Stage, usize> {
        self.prune();
        let mut stages = BTreeMap::new();
        for slot in self.slots() {
            *stages.entry(slot.view.borrow().entry.stage).or_default() += 1;
        }
        if !self.parked.is_empty() {
            *stages.entry(Stage::Init).or_default() += self.parked.len();
        }
        if !self.gone.is_empty() {
            *stages.entry(Stage::Deregistered).or_default() += self.gone.len();
        }
        stages
    }

    /// How many changes are not confirmed. What was never at the registry may be wrong in itself, and does not count.
    pub(crate) fn unconfirmed(&self) -> Unconfirmed {
        let mut unconfirmed = Unconfirmed::default();
        for slot in self.slots() {
            let view = slot.view.borrow();
            if view.confirmed > 0 && view.unconfirmed_since.is_some() {
                unconfirmed.pending += 1;
                unconfirmed.late += usize::from(slot.is_late(&view));
            }
        }
        unconfirmed
    }

    /// Those that are gone and meant, the last ones first.
    pub(crate) fn gone(&mut self, which: &Selector) -> Vec<Entry> {
        self.prune();
        let gone = self.gone.iter().rev().map(|gone| gone.entry.as_ref());
        gone.filter(|entry| which.selects(entry)).cloned().collect()
    }

    /// All of those that are gone.
    pub(crate) fn all_gone(&mut self) -> Vec<Arc<Entry>> {
        self.prune();
        self.gone
            .iter()
            .map(|gone| Arc::clone(&gone.entry))
            .collect()
    }
}

/// What is to be kept on disk.
pub(crate) fn stored(table: &Mutex<Table>) -> State {
    let mut table = lock(table);
    table.left.retain(|left| !left.is_over());
    let kept = table
        .slots()
        .map(|slot| Arc::clone(&slot.view.borrow().stored));
    let parked = table.parked.iter().map(|one| Arc::clone(&one.stored));
    let state = State {
        registrations: kept.chain(parked).collect(),
        left: table
            .left
            .iter()
            .map(|left| Arc::clone(&left.stored))
            .collect(),
    };
    if table.is_ending {
        state.ending()
    } else {
        state
    }
}

/// The entries of those that are kept.
#[cfg(feature = "consul")]
pub(crate) fn kept(table: &Mutex<Table>) -> Vec<Entry> {
    let slots: Vec<_> = lock(table).slots().cloned().collect();
    // Copies take long: without the lock.
    slots.iter().map(|slot| slot.entry()).collect()
}

/// All entries, also those that are gone, by service and id.
pub(crate) fn entries(table: &Mutex<Table>) -> Vec<Entry> {
    let (gone, parked, slots) = {
        let mut table = lock(table);
        let parked = table.parked.iter().map(|parked| parked.entry.clone());
        let parked: Vec<Entry> = parked.collect();
        (
            table.all_gone(),
            parked,
            table.slots().cloned().collect::<Vec<_>>(),
        )
    };
    // Copies take long: without the lock.
    let gone = gone.iter().map(|entry| entry.as_ref().clone());
    let kept = slots.iter().map(|slot| slot.entry());
    let mut all: Vec<Entry> = gone.chain(parked).chain(kept).collect();
    all.sort_by(|one, other| {
        let (one, other) = (&one.record, &other.record);
        (&one.service, &one.id).cmp(&(&other.service, &other.id))
    });
    all
}
