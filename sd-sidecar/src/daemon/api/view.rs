//! A service, or the list of services, as it is told over HTTP: rendered once, however many read it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Bytes;
use sd_core::clock::{Clock, Moment};
use sd_core::retry::Retry;
use sd_core::{
    Error, Instance, InstanceId, ServiceName, ServicesState, Skipped, Snapshot, State, Status,
};
use serde::Serialize;

use super::json;
use super::parts::Parts;
use super::recent_changes::RecentChanges;
use crate::wire::rfc3339;

/// A set and how far it can be trusted, with the bytes that tell both.
#[derive(Clone, Debug)]
pub(super) struct View {
    index: Index,
    status: Status,
    since: Option<String>,
    frame: Bytes,
    body: Bytes,
    /// What the view of a service was made of.
    state: Option<State>,
    changes: RecentChanges,
    /// What readers with a filter are told of it.
    parts: Arc<Parts>,
}

/// What a reader has: a set, by its fingerprint, and a status. Equal content has an equal index, at every agent and after every start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Index(String);

/// An index as long as ours is.
const MOST_INDEX_BYTES: usize = 64;

impl Index {
    fn new(set: &[u8], status: &Status) -> Self {
        // Two halves, since one of 64 bits may be equal by accident.
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, set).hash(&mut hasher);
            hasher.finish()
        };
        Self(format!(
            "{:016x}{:016x}.{}",
            half(0),
            half(1),
            status.as_str()
        ))
    }

    /// What a reader says that it has.
    pub(super) fn of_reader(text: &str) -> Option<Self> {
        (text.len() <= MOST_INDEX_BYTES).then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    fn set(&self) -> &str {
        self.0.split_once('.').map_or(&self.0, |(set, _)| set)
    }

    /// Whether both are of the same set, whatever its status.
    pub(super) fn is_same_set(&self, other: &Self) -> bool {
        self.set() == other.set()
    }
}

/// What is in front of a set in an answer.
#[derive(Serialize)]
pub(super) struct Head<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a ServiceName>,
    index: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    /// `initializing`, `live` or `stale`.
    status: &'static str,
    /// Since when the set cannot be trusted.
    since: Option<&'a str>,
    /// Why it cannot be trusted.
    error: Option<String>,
}

#[derive(Serialize)]
struct InstanceSet<'a> {
    instances: &'a [Arc<Instance>],
    skipped: &'a [Skipped],
    skipped_count: usize,
    held: &'a [InstanceId],
}

#[derive(Serialize)]
struct ServiceSet<'a> {
    services: &'a [ServiceName],
    unlisted: usize,
}

impl View {
    /// A service as it is in `state`.
    pub(super) fn of_service(state: State, clock: &dyn Clock) -> Self {
        let snapshot = state.snapshot();
        let view = Self::of_snapshot(snapshot, state.status(), clock);
        Self {
            state: Some(state),
            ..view
        }
    }

    pub(super) fn of_snapshot(snapshot: &Snapshot, status: &Status, clock: &dyn Clock) -> Self {
        let set = json::to_bytes(&InstanceSet {
            instances: snapshot.instances(),
            skipped: snapshot.skipped(),
            skipped_count: snapshot.skipped_count(),
            held: snapshot.held(),
        });
        let name = Some(snapshot.service());
        Self::new(name, Some(snapshot.revision().value()), status, &set, clock)
    }

    /// The list of services as it is in `state`.
    pub(super) fn of_services(state: &ServicesState, clock: &dyn Clock) -> Self {
        let set = json::to_bytes(&ServiceSet {
            services: state.services(),
            unlisted: state.unlisted(),
        });
        Self::new(None, None, state.status(), &set, clock)
    }

    fn new(
        service: Option<&ServiceName>,
        revision: Option<u64>,
        status: &Status,
        set: &[u8],
        clock: &dyn Clock,
    ) -> Self {
        let index = Index::new(set, status);
        let since = status.since().map(|since| time_of(since, clock));
        let head = json::to_bytes(&Head {
            service,
            index: index.as_str(),
            revision,
            status: status.as_str(),
            since: since.as_deref(),
            error: status.error().map(|error| error.report().to_string()),
        });
        // Both are objects: the fields of the set follow those of the head.
        let head = head.strip_suffix(b"}").unwrap_or(&head);
        let fields = set.strip_prefix(b"{").unwrap_or(set);
        let start = format!("id: {}\nevent: snapshot\ndata: ", index.as_str());
        let body = [head, b",", fields].concat();
        let frame = Bytes::from([start.as_bytes(), &body, b"\n\n"].concat());
        Self {
            body: frame.slice(start.len()..start.len() + body.len()),
            frame,
            index,
            since,
            status: status.clone(),
            state: None,
            changes: RecentChanges::default(),
            parts: Arc::default(),
        }
    }

    /// The same view for readers who may have been told `last`, the one before it.
    pub(super) fn after(mut self, last: &Self) -> Self {
        let changed = !last.index.is_same_set(&self.index);
        self.changes = match (&last.state, &self.state) {
            (Some(_), Some(_)) if !changed => last.changes.clone(),
            (Some(before), Some(now)) if last.is_known() => {
                let (from, to) = (before.snapshot(), now.snapshot());
                let head = self.head(now.snapshot());
                let next = last
                    .changes
                    .followed_by((&last.index, from), (&self.index, to), &head);
                next.no_longer_than(self.frame.len())
            }
            _ => RecentChanges::default(),
        };
        self
    }

    pub(super) fn head<'a>(&'a self, snapshot: &'a Snapshot) -> Head<'a> {
        Head {
            service: Some(snapshot.service()),
            index: self.index.as_str(),
            revision: Some(snapshot.revision().value()),
            status: self.status.as_str(),
            since: self.since.as_deref(),
            error: self.error().map(|error| error.report().to_string()),
        }
    }

    /// The view of a service with only these of its instances.
    pub(super) fn filtered(
        &self,
        mut wanted: impl FnMut(&Instance) -> bool,
        clock: &dyn Clock,
    ) -> Self {
        let Some(state) = &self.state else {
            return self.clone();
        };
        let instances = state.instances().iter();
        let instances = instances.filter(|instance| wanted(instance));
        let snapshot = state.snapshot().clone();
        let snapshot = snapshot.with_instances(instances.cloned().collect());
        Self::of_snapshot(&snapshot, state.status(), clock)
    }

    /// The last changes of the set.
    pub(super) fn changes(&self) -> &RecentChanges {
        &self.changes
    }

    /// What readers with a filter are told of it.
    pub(super) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// How many instances [`filtered`](Self::filtered) looks at.
    pub(super) fn instance_count(&self) -> usize {
        let state = self.state.as_ref();
        state.map_or(0, |state| state.instances().len())
    }

    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// `initializing`, `live` or `stale`.
    pub(super) fn status(&self) -> &'static str {
        self.status.as_str()
    }

    /// Whether the set has been read at all.
    pub(super) fn is_known(&self) -> bool {
        !matches!(self.status, Status::Initializing { .. })
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.status, Status::Live)
    }

    /// Since when the set cannot be trusted.
    pub(super) fn since(&self) -> Option<&str> {
        self.since.as_deref()
    }

    /// Why the set cannot be trusted.
    pub(super) fn error(&self) -> Option<&Error> {
        self.status.error()
    }

    /// Whether the set will never be read.
    pub(super) fn is_final(&self) -> bool {
        let error = self.error();
        !self.is_known() && error.is_some_and(|error| error.kind().retry() == Retry::Never)
    }

    /// The JSON of it all, on one line.
    pub(super) fn body(&self) -> Bytes {
        self.body.clone()
    }

    /// The same as an event of a stream.
    pub(super) fn frame(&self) -> Bytes {
        self.frame.clone()
    }
}

fn time_of(moment: Moment, clock: &dyn Clock) -> String {
    let age = clock.now().since(moment);
    rfc3339(
        SystemTime::now()
            .checked_sub(age)
            .unwrap_or(SystemTime::UNIX_EPOCH),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sd_core::clock::BootClock;
    use sd_core::{ErrorKind, Incarnation, Revision};
    use serde_json::{Value, json};

    use super::*;

    fn snapshot(revision: u64) -> Snapshot {
        let instance = Instance::new("greeter", "[::1]:80").unwrap();
        let instance = instance
            .with_id(InstanceId::new("g-1").unwrap())
            .with_incarnation(Incarnation::from_u64(1))
            .with_metadata("k", "line\nbreak\u{9b}");
        let service = ServiceName::new("greeter").unwrap();
        let revision = Revision::new("d", revision);
        Snapshot::new(service, revision, Moment::ZERO, vec![Arc::new(instance)])
    }

    fn stale() -> Status {
        Status::Stale {
            since: BootClock.now() - Duration::from_secs(60),
            error: Error::new(ErrorKind::Unavailable, "etcd: watch").because("refused"),
        }
    }

    #[test]
    fn an_answer_has_the_fields_that_sdctl_prints_and_an_index() {
        let view = View::of_snapshot(&snapshot(7), &stale(), &BootClock);
        let mut json: Value = serde_json::from_slice(&view.body()).unwrap();
        let since = json["since"].take();
        let since = humantime::parse_rfc3339(since.as_str().unwrap()).unwrap();
        let age = SystemTime::now().duration_since(since).unwrap();
        assert!((60..65).contains(&age.as_secs()), "{age:?}");
        assert_eq!(json["index"].take(), view.index().as_str());
        assert_eq!(
            json,
            json!({
                "service": "greeter", "index": null, "revision": 7, "status": "stale", "since": null,
                "error": "etcd: watch: unavailable: refused",
                "instances": [{
                    "service": "greeter", "id": "g-1", "incarnation": "0000000000000001",
                    "address": "[::1]:80", "ready": true, "version": null, "zone": null,
                    "weight": 1, "priority": 0, "tags": [], "metadata": {"k": "line\nbreak\u{9b}"},
                }],
                "skipped": [], "skipped_count": 0, "held": [],
            })
        );
    }

    #[test]
    fn a_frame_is_three_lines_whatever_is_registered() {
        let view = View::of_snapshot(&snapshot(7), &Status::Live, &BootClock);
        let frame = String::from_utf8(view.frame().to_vec()).unwrap();
        let lines: Vec<_> = frame.lines().collect();
        assert_eq!(lines[0], format!("id: {}", view.index().as_str()));
        assert_eq!(lines[1], "event: snapshot");
        assert_eq!(lines[2].as_bytes(), [b"data: ", &view.body()[..]].concat());
        assert_eq!(lines[3..], [""]);
        assert!(frame.ends_with("\n\n"));
    }

    #[test]
    fn an_index_tells_sets_and_statuses_apart_and_not_revisions() {
        let live = View::of_snapshot(&snapshot(7), &Status::Live, &BootClock);
        let later = View::of_snapshot(&snapshot(8), &Status::Live, &BootClock);
        assert_eq!(live.index(), later.index());
        let stale = View::of_snapshot(&snapshot(7), &stale(), &BootClock);
        assert_ne!(live.index(), stale.index());
        assert!(live.index().is_same_set(stale.index()));
        let none = snapshot(7).with_instances(Vec::new());
        let none = View::of_snapshot(&none, &Status::Live, &BootClock);
        assert!(!live.index().is_same_set(none.index()));
        assert_eq!(Index::of_reader(&"x".repeat(65)), None);
    }
}
