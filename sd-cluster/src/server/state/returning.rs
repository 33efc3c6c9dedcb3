//! Instances that were listed when the service ended: they are listed for a while after its next start, until they are back.
//!
//! Modules that connect again come one after another, and those that follow others are told a list at once. Without this the first of them
//! would be told of none, and lose what they know. A module in Go waits for its first list for a second at most, so that lists cannot be
//! held back instead.

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

    /// Writes what is listed now, so that it is known after a restart.
    pub(crate) fn keep_listed(&mut self) {
        let changed = std::mem::take(&mut self.unkept);
        if changed.is_empty() || !self.store.is_lasting() {
            return;
        }
        let (mut come, mut gone) = (Vec::new(), Vec::new());
        for place in changed {
            match self.backends.get(&place).map(Backend::to_json) {
                Some(Ok(declaration)) => come.push((place, declaration)),
                Some(Err(_)) | None => gone.push(place),
            }
        }
        let written = self.store.write(&Change::Listed { come, gone });
        // Readers are told all the same, and an operator has to know only once.
        if let Err(error) = &written
            && !self.is_unkept_told
        {
            let error = brief(Printable(&error.report().to_string()));
            warn!(error, "what is listed cannot be kept for the next start");
        }
        self.is_unkept_told = written.is_err();
    }
}
