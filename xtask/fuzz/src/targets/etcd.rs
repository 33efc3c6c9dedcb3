//! Entries of a service at etcd. A reader that follows every change has the same set as one that reads what is left.
//!
//! The input has one entry on each line: `key value`, or `key` alone for a deletion. Keys are below the folder of the service.

use std::collections::BTreeMap;

use sd_core::{ServiceName, Snapshot};
use sd_etcd::Format;
use sd_etcd::fuzzing::Entries;

use crate::plant::is_planted;

const PREFIX: &str = "/services";
const SERVICE: &str = "s";

pub(super) fn run(data: &[u8]) {
    let mut following = entries();
    let mut left = BTreeMap::new();
    let mut last: Option<Snapshot> = None;
    for (line, revision) in data.split(|byte| *byte == b'\n').zip(1..) {
        let (key, value) = match line.iter().position(|byte| *byte == b' ') {
            Some(space) => (&line[..space], Some(&line[space + 1..])),
            None => (line, None),
        };
        let key = [PREFIX.as_bytes(), b"/", SERVICE.as_bytes(), b"/", key].concat();
        if let Some(value) = value {
            // As at etcd: a key that is put again keeps the revision of its creation.
            let created = left.get(&key).map_or(revision, |(_, created)| *created);
            following.put(&key, value, created, last.as_ref());
            left.insert(key, (value, created));
        } else {
            left.remove(&key);
            if !(is_planted() && key.ends_with(b"c")) {
                following.delete(&key);
            }
        }
        last = Some(following.snapshot());
    }
    let mut reading = entries();
    for (key, (value, created)) in &left {
        reading.put(key, value, *created, None);
    }
    let (followed, read) = (following.snapshot(), reading.snapshot());
    assert_eq!(followed.instances(), read.instances());
    assert_eq!(followed.skipped(), read.skipped());
}

fn entries() -> Entries {
    let service = ServiceName::new(SERVICE).expect("a name");
    Entries::new(PREFIX, service, Format::Json)
}
