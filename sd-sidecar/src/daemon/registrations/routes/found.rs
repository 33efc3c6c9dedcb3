//! The keys of one service as they were found, and the changes that tell a version there or take it back.

use std::collections::{BTreeMap, BTreeSet};

use sd_consul::{KeyChange, KeyValue};

use super::document::{Document, Kind};

/// The keys of one service, as they were found.
pub(super) struct Found {
    folder: String,
    keys: BTreeMap<Kind, KeyValue>,
}

impl Found {
    pub(super) fn new(folder: &str, keys: Vec<KeyValue>) -> Self {
        let keys = keys.into_iter();
        let keys = keys.filter_map(|found| Some((Kind::of_key(folder, &found.key)?, found)));
        Self {
            folder: folder.to_owned(),
            keys: keys.collect(),
        }
    }

    /// Whether this is told, by itself and among all versions.
    pub(super) fn tells(&self, document: &Document) -> bool {
        let is_in = |kind: &Kind| {
            self.document(kind)
                .is_some_and(|found| found.offers(document))
        };
        is_in(&document.kind()) && is_in(&Kind::Current)
    }

    /// What tells this as well.
    pub(super) fn told(&self, document: &Document) -> Vec<KeyChange> {
        let kind = document.kind();
        // Other hosts may offer more in the same version, and an agent of the reference system has one document for all versions.
        let with = |document: &Document, kind: &Kind| {
            let found = self.document(kind);
            found.map_or(document.clone(), |found| document.clone().with(&found))
        };
        let own = with(document, &kind);
        let others = self.versions_but(&kind);
        let all = others.values().fold(own.clone(), Document::with);
        let all = with(&all, &Kind::Current);
        vec![self.put(&kind, &own), self.put(&Kind::Current, &all)]
    }

    /// What takes back a version, if these are there besides.
    pub(super) fn taken_back(&self, version: &Kind, there: &BTreeSet<Kind>) -> Vec<KeyChange> {
        if there.is_empty() {
            // `current` last, if it takes more than one write.
            let all = self.keys.keys().rev();
            return all.map(|kind| self.delete(kind)).collect();
        }
        if there.contains(version) || !self.keys.contains_key(version) {
            return Vec::new();
        }
        let mut changes = vec![self.delete(version)];
        let left = self.versions_but(version);
        // Of an agent of the reference system it is not known what its version alone offers.
        let is_known = there.iter().all(|version| left.contains_key(version));
        if let Some(all) = Document::all(&left).filter(|_| is_known) {
            changes.push(self.put(&Kind::Current, &all));
        }
        changes
    }

    fn document(&self, kind: &Kind) -> Option<Document> {
        Document::parse(&self.keys.get(kind)?.value)
    }

    fn versions_but(&self, but: &Kind) -> BTreeMap<Kind, Document> {
        let others = self.keys.keys();
        let others = others.filter(|kind| **kind != Kind::Current && *kind != but);
        let others = others.filter_map(|kind| Some((kind.clone(), self.document(kind)?)));
        others.collect()
    }

    fn modified(&self, kind: &Kind) -> u64 {
        self.keys.get(kind).map_or(0, |found| found.modified)
    }

    fn put(&self, kind: &Kind, document: &Document) -> KeyChange {
        KeyChange::Put {
            key: kind.key(&self.folder),
            value: document.bytes(),
            modified: self.modified(kind),
        }
    }

    fn delete(&self, kind: &Kind) -> KeyChange {
        KeyChange::Delete {
            key: kind.key(&self.folder),
            modified: self.modified(kind),
        }
    }
}
