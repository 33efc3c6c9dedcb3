//! The document of a file source: of the right service, and no id twice.

use std::collections::BTreeSet;

use sd_core::fuzzing::read_file;

use crate::plant::is_planted;

pub(super) fn run(data: &[u8]) {
    let Ok(services) = read_file(data) else {
        return;
    };
    for (service, instances, skipped) in services {
        let ids: BTreeSet<_> = instances.iter().map(|instance| instance.id()).collect();
        let lost = usize::from(is_planted() && !skipped.is_empty());
        assert_eq!(ids.len(), instances.len() - lost);
        assert!(
            instances
                .iter()
                .all(|instance| *instance.service() == service)
        );
    }
}
