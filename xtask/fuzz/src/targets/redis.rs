//! Entries of a service at Redis. A reader that is told every change has the same set as one that reads what is left.
//!
//! The input has one entry on each line: `id value`, or `id` alone for an end.

use std::collections::BTreeMap;

use sd_core::ServiceName;
use sd_redis::fuzzing::{Entries, is_heartbeat};

use crate::plant::is_planted;

const SERVICE: &str = "s";

pub(super) fn run(data: &[u8]) {
    let service = ServiceName::new(SERVICE).expect("a name");
    let mut following = Entries::new(service.clone());
    let mut left = BTreeMap::new();
    // What is no message changes nothing.
    following.take(data);
    let mut following = Entries::new(service.clone());
    for (line, version) in data.split(|byte| *byte == b'\n').zip(1..) {
        let (id, value) = match line.iter().position(|byte| *byte == b' ') {
            Some(space) => (&line[..space], Some(&line[space + 1..])),
            None => (line, None),
        };
        let _ = is_heartbeat(&service, id, value.unwrap_or_default());
        let op = if value.is_some() { "put" } else { "end" };
        let begin = format!("{op} h {version} b s 1000 ").into_bytes();
        let message = [begin.as_slice(), id, b"\n", value.unwrap_or_default()].concat();
        if let Some(value) = value {
            left.insert(id, value);
        } else {
            left.remove(id);
        }
        if !(is_planted() && value.is_none() && id.ends_with(b"c")) {
            following.take(&message);
        }
        following.snapshot();
    }
    let mut reading = Entries::new(service);
    for (id, value) in &left {
        reading.put(id, value);
    }
    assert_eq!(following.count(), reading.count());
    let (followed, read) = (following.snapshot(), reading.snapshot());
    assert_eq!(followed.instances(), read.instances());
    // Of more than are named, another part may be named.
    assert_eq!(followed.skipped_count(), read.skipped_count());
}
