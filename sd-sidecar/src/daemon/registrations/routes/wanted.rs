//! What of a service's routes is to be told, by the registrations of this agent.

use std::collections::{BTreeMap, BTreeSet};

use sd_core::RecordId;

use super::super::entry::{Entry, Stage};
use super::document::{Document, Kind, Place};

/// What is to be told of one service.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Wanted {
    /// There, and to be told.
    pub(super) there: BTreeMap<Kind, Document>,
    /// Declared, whether it is there now or not, and by which records.
    pub(super) declared: BTreeMap<Kind, Vec<RecordId>>,
    /// The registry does not confirm a record as it should be.
    pub(super) has_trouble: bool,
    /// How often that has begun. Once it is over, more may have been lost.
    pub(super) troubles: u64,
}

impl Wanted {
    /// What these registrations want, for each service that has routes.
    pub(super) fn of<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> BTreeMap<Place, Self> {
        let mut places = BTreeMap::<Place, Self>::new();
        for entry in entries {
            if entry.stage == Stage::Deregistered {
                continue;
            }
            let Some((place, document)) = Document::of(&entry.declaration, &entry.instance) else {
                continue;
            };
            let wanted = places.entry(place).or_default();
            let version = document.kind();
            if entry.stage != Stage::Init {
                let document = match wanted.there.remove(&version) {
                    Some(other) => document.with(&other),
                    None => document,
                };
                wanted.there.insert(version.clone(), document);
            }
            let records = wanted.declared.entry(version).or_default();
            records.push(entry.record.clone());
            wanted.has_trouble |= entry.error.is_some();
            wanted.troubles = wanted.troubles.wrapping_add(entry.troubles);
        }
        places
    }

    /// The versions that are declared.
    pub(super) fn versions(&self) -> BTreeSet<Kind> {
        self.declared.keys().cloned().collect()
    }

    /// Whether a version that is declared is not there yet. What it replaces may still serve.
    pub(super) fn is_in_transition(&self) -> bool {
        self.declared
            .keys()
            .any(|version| !self.there.contains_key(version))
    }
}
