//! Going on with what the agent before has registered.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use sd_core::Registry;
use sd_core::sync::lock;
use tracing::error;

use super::Registrations;
use super::entry::{Caller, Key, Refused};
use super::keeping::{Keeping, Past};
use super::settings::Settings;
use super::shared::Shared;
use super::table::{Table, stored};
use crate::daemon::store::{Opened, Store, Stored};

impl Registrations {
    /// Those that are on disk at `state`, a file or a folder, which need not exist yet. They are registered in the background with the
    /// incarnations that they have, so that readers see no change while a record of the agent before is still at the registry. One that
    /// is refused now is left out, with an error in the log.
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
        let Opened {
            store,
            registrations,
        } = Store::open(state).await?;
        let table = Table::new(settings.show_gone_for, settings.most_gone);
        let table = Arc::new(Mutex::new(table));
        let kept = Arc::clone(&table);
        // Ends when the store is closed or dropped.
        store.start(move || stored(&kept));
        let shared = Arc::new(Shared::new(registry, settings, table, Some(store)));
        let this = Self { shared };
        for stored in registrations {
            this.resume(stored);
        }
        Ok(this)
    }

    /// Goes on with a registration of the agent before.
    fn resume(&self, stored: Stored) {
        let Stored {
            owner,
            declaration,
            instance,
            passing,
            drain,
            registered_at,
            updated_at,
        } = stored;
        let record = instance.record_id();
        let settings = &self.shared.settings;
        let mut table = lock(&self.shared.table);
        let resumed = Settings::check(&declaration).and_then(|()| {
            let endpoint = settings.endpoint(&self.shared.registry, &declaration)?;
            if table.get(&Key::of(&declaration, &endpoint)).is_some() {
                return Err(Refused::Invalid("it is there twice".to_owned()));
            }
            let past = Past {
                instance,
                drain,
                passing,
                registered_at,
                updated_at,
            };
            let owner = Caller(owner.into());
            let mut keeping =
                Keeping::begin(&self.shared, owner, declaration, &endpoint, Some(past))?;
            keeping.move_to(endpoint)?;
            Ok(keeping)
        });
        match resumed {
            Ok(keeping) => {
                self.enter(&mut table, keeping);
            }
            Err(why) => {
                error!(
                    service = ?record.service,
                    instance = ?record.id,
                    error = %why,
                    "a registration of the agent before is refused now and is left out"
                );
            }
        }
    }
}
