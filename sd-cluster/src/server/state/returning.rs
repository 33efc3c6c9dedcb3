//! Instances that were listed when the service ended: they are listed for a while after its next start, until they are back.
//!
//! Modules that connect again come one after another, and those that follow others are told a list at once. Without this the first of them
//! would be told of none, and lose what they know. A module in Go waits for its first list for a second at most, so that lists cannot be
//! held back instead.

use std::collections::BTreeSet;
use std::sync::Arc;

use sd_core::{Printable, brief};
use tracing::{debug, warn};

use super::{Backend, State, check_module_name};
use crate::protocol::address::AddressConfiguration;
use crate::protocol::declaration::BackendDeclaration;
use crate::server::store::Change;

impl State {
    /// Lists an instance that was listed at last.
    pub(super) fn expect(&mut self, place: u64, declaration: &str) {
        match self.backend_of(declaration) {
            Ok((name, backend)) => {
                self.last = self.last.max(place);
                self.returning.insert(place, Arc::clone(&name));
                self.add_backend(&name, place, backend);
            }
            // It declares itself again.
            Err(why) => debug!(
                place,
                why, "an instance that was listed is not listed again"
            ),
        }
    }

    fn backend_of(&self, declaration: &str) -> Result<(Arc<str>, Backend), String> {
        let declared: BackendDeclaration =
            serde_json::from_str(declaration).map_err(|_| "it cannot be read".to_owned())?;
        let name: Arc<str> = declared.module_name.as_str().into();
        check_module_name(&name)?;
        let backend = Backend::new(&name, declared, self.limits.declaration_bytes)?;
        self.check_routes(&backend)?;
        Ok((name, backend))
    }

    /// An instance of a module is back at this address.
    pub(super) fn is_back(&mut self, name: &Arc<str>, address: &AddressConfiguration) {
        let same = self.returning.iter().filter(|(place, of)| {
            let backend = self.backends.get(place);
            *of == name && backend.is_some_and(|one| one.declaration.address == *address)
        });
        let same: Vec<u64> = same.map(|(place, _)| *place).collect();
        for place in same {
            self.remove_backend(name, place);
        }
    }

    /// Lists those no longer that are not back yet. Returns how many there were.
    pub(crate) fn stop_expecting(&mut self) -> usize {
        let returning = std::mem::take(&mut self.returning);
        for (place, name) in &returning {
            self.remove_backend(name, *place);
            self.forget_if_empty(name);
        }
        returning.len()
    }

    /// Whether instances are listed that are not back yet.
    pub(crate) fn is_expecting(&self) -> bool {
        !self.returning.is_empty()
    }

    /// Writes what is listed now, so that it is known after a restart. What cannot be written is written with the next call.
    pub(crate) fn keep_listed(&mut self) {
        let changed = std::mem::take(&mut self.unkept);
        let is_written = changed.is_empty() && !self.is_store_behind;
        if is_written || !self.store.is_lasting() {
            return;
        }
        let change = if self.is_store_behind {
            self.all_listed()
        } else {
            self.listed(changed)
        };
        let written = self.store.write(&change);
        // Readers are told all the same, and an operator has to know only once.
        if let Err(error) = &written
            && !self.is_store_behind
        {
            let error = brief(Printable(&error.report().to_string()));
            warn!(error, "what is listed cannot be kept for the next start");
        }
        self.is_store_behind = written.is_err();
    }

    fn listed(&self, changed: BTreeSet<u64>) -> Change<'static> {
        let (mut come, mut gone) = (Vec::new(), Vec::new());
        for place in changed {
            match self.backends.get(&place).map(Backend::to_json) {
                Some(Ok(declaration)) => come.push((place, declaration)),
                Some(Err(_)) | None => gone.push(place),
            }
        }
        Change::Listed { come, gone }
    }

    fn all_listed(&self) -> Change<'static> {
        let all = self.backends.iter();
        let all = all.filter_map(|(place, backend)| Some((*place, backend.to_json().ok()?)));
        Change::AllListed(all.collect())
    }
}

#[cfg(all(test, feature = "server-sqlite"))]
mod tests {
    use std::fs;

    use super::super::tests::Client;
    use super::State;
    use crate::server::limits::Limits;
    use crate::server::store::SqliteStore;

    #[test]
    fn what_could_not_be_written_is_in_the_file_when_it_can_be_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let (path, aside) = (folder.path().join("file"), folder.path().join("aside"));
        let open = || {
            let (store, kept) = SqliteStore::open(&path, 1 << 20).unwrap();
            State::new(Limits::default(), Box::new(store), kept)
        };
        let mut state = open();
        let _stays = Client::ready(&mut state, "a", "10.0.0.1");
        let goes = Client::ready(&mut state, "a", "10.0.0.2");
        state.keep_listed();
        // A file that is away cannot be written.
        fs::rename(&path, &aside).unwrap();
        state.disconnect(goes.id);
        let _comes = Client::ready(&mut state, "a", "10.0.0.3");
        state.keep_listed();
        fs::rename(&aside, &path).unwrap();
        // Nothing else has changed.
        state.keep_listed();
        state.close();
        let listed = open().view_routes();
        let listed: Vec<_> = listed.iter().map(|one| &*one.address.ip).collect();
        assert_eq!(listed, ["10.0.0.3", "10.0.0.1"]);
    }
}
