//! Going on with what the agent before has registered.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use sd_core::sync::lock;
use sd_core::{Instance, Registry};
use tracing::error;

use super::Registrations;
use super::entry::{Caller, Entry, Key, Refused, Selector, Stage};
use super::keeping::{Keeping, Past};
use super::left::Left;
use super::settings::Settings;
use super::shared::Shared;
use super::table::{Parked, Table, stored};
use crate::daemon::store::{Opened, Store, Stored};
use crate::wire::Declaration;

impl Registrations {
    /// Those that are on disk at `state`, a file or a folder, which need not exist yet. They are registered in the background with the
    /// incarnations that they have, so that readers see no change while a record of the agent before is still at the registry. One that
    /// is refused now stays on disk for the next start, with an error in the log. If the agent before was about to withdraw everything and
    /// did not come to its end, nothing is registered, and what it has left is withdrawn. That stays on disk until it is done.
    ///
    /// # Errors
    /// As [`Store::open`].
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn open(
        registry: Registry,
        settings: Settings,
        state: impl Into<PathBuf>,
    ) -> sd_core::Result<Self> {
        let Opened { store, state } = Store::open(state).await?;
        let table = Table::new(settings.show_gone_for, settings.most_gone);
        let table = Arc::new(Mutex::new(table));
        let this = Self::of(Shared::new(registry, settings, table, Some(store)));
        let is_anything_there = !state.is_empty();
        let left = state
            .left
            .into_iter()
            .map(|stored| Arc::new(Left::new(stored)));
        let left: Vec<_> = left.collect();
        for left in &left {
            lock(&this.shared.table).leave_to_end(Arc::clone(left));
        }
        for stored in state.registrations {
            this.resume(Arc::unwrap_or_clone(stored));
        }
        // Not before all of them are there: the file is replaced as a whole.
        if let Some(store) = &this.shared.store {
            let kept = Arc::clone(&this.shared.table);
            // Ends when the store is closed or dropped.
            store.start(move || stored(&kept));
            if is_anything_there {
                store.save();
            }
        }
        // What has routes is known before it can be over.
        #[cfg(feature = "consul")]
        this.tell_routes(&left);
        for left in &left {
            this.end_left(left);
        }
        Ok(this)
    }

    /// Goes on with a registration of the agent before.
    fn resume(&self, stored: Stored) {
        let mut table = lock(&self.shared.table);
        match self.begin_again(&table, &stored) {
            Ok(keeping) => {
                self.enter(&mut table, keeping);
            }
            Err(why) => {
                error!(
                    service = ?stored.instance.service(),
                    instance = ?stored.instance.id(),
                    error = %why,
                    "a registration of the agent before is refused now: it is left for the next start"
                );
                table.park(Parked::new(stored, &why));
            }
        }
    }

    fn begin_again(&self, table: &Table, stored: &Stored) -> Result<Keeping, Refused> {
        let (declaration, instance) = (&stored.declaration, &stored.instance);
        let settings = &self.shared.settings;
        if let Some(unread) = &stored.unread
            && !(unread.is_host && settings.advertised_host.is_some())
        {
            return Err(Refused::Invalid(unread.why.clone()));
        }
        Settings::check(declaration)?;
        let registry = &self.shared.registry;
        let endpoint =
            self.shared
                .settings
                .endpoint_again(registry, declaration, instance.endpoint())?;
        if table.get(&Key::of(declaration, &endpoint)).is_some() {
            return Err(Refused::Invalid("it is there twice".to_owned()));
        }
        let past = Past {
            instance: instance.clone(),
            declared_ready: stored.declared_ready.unwrap_or(declaration.ready),
            drain: stored.drain,
            replaces: stored.replaces.clone(),
            passing: stored.passing,
            registered_at: stored.registered_at,
            updated_at: stored.updated_at,
        };
        let owner = Caller(stored.owner.as_str().into());
        Keeping::begin(
            &self.shared,
            owner,
            declaration.clone(),
            &endpoint,
            Some(past),
        )
    }

    /// Forgets what is parked and meant, if it is the caller's, and shows it as it was. What the registry may still have of it is withdrawn.
    pub(super) fn deregister_parked(&self, by: &Caller, which: &Selector) -> Vec<Entry> {
        let parked = lock(&self.shared.table)
            .unpark(|parked| parked.entry.owner == *by && which.selects(&parked.entry));
        if !parked.is_empty() {
            self.shared.save();
            self.shared.changed();
        }
        let gone = parked.into_iter().map(|parked| {
            for record in parked.stored.records() {
                self.shared.withdraw_unkept(record);
            }
            Entry {
                stage: Stage::Deregistered,
                updated_at: SystemTime::now(),
                drain_deadline: None,
                error: None,
                ..parked.entry
            }
        });
        gone.collect()
    }
}

/// Whether what is registered now takes the place of what is parked.
pub(super) fn replaces(now: &Declaration, instance: &Instance, parked: &Stored) -> bool {
    let (before, was) = (&parked.declaration, &parked.instance);
    let is_same_id = now.id.is_some() && now.id == before.id;
    let is_same_place = now.id.is_none()
        && before.id.is_none()
        && (instance.endpoint() == was.endpoint() || now.port.is_some() && now.port == before.port);
    now.service == before.service && (is_same_id || is_same_place)
}
