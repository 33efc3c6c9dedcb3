//! A service as `list` and `watch` show it.

use std::sync::Arc;

use sd_core::clock::Clock;
use sd_core::{Instance, InstanceId, Printable, ServiceName, Skipped, Snapshot, Status};
use serde::Serialize;

use crate::output::changes::Watched;
use crate::output::time::time_of;

/// The JSON form.
#[derive(Debug, Serialize)]
pub(crate) struct ServiceView<'a> {
    service: &'a ServiceName,
    revision: u64,
    status: &'static str,
    /// Since when the set cannot be trusted, RFC 3339.
    since: Option<String>,
    /// Why it cannot be trusted.
    error: Option<String>,
    instances: &'a [Arc<Instance>],
    /// Entries that could not be read, the first 100 of them.
    skipped: &'a [Skipped],
    /// How many there are.
    skipped_count: usize,
    /// Instances that the registry no longer lists, but which vanished together with too many others to be believed at once.
    held: &'a [InstanceId],
}

impl<'a> ServiceView<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, status: &Status, clock: &dyn Clock) -> Self {
        Self {
            service: snapshot.service(),
            revision: snapshot.revision().value(),
            status: status.as_str(),
            since: status.since().map(|since| time_of(since, clock)),
            error: status.error().map(|error| error.report().to_string()),
            instances: snapshot.instances(),
            skipped: snapshot.skipped(),
            skipped_count: snapshot.skipped_count(),
            held: snapshot.held(),
        }
    }
}

impl Watched for ServiceView<'_> {
    fn since(&mut self) -> &mut Option<String> {
        &mut self.since
    }
}

/// The most entries that are named in a summary; JSON has all of them.
const MOST_SKIPPED: usize = 3;

/// The columns for people.
pub(crate) const COLUMNS: [&str; 9] = [
    "ID", "ADDRESS", "READY", "VERSION", "ZONE", "WEIGHT", "PRIORITY", "TAGS", "METADATA",
];

/// An instance in those columns. Escaped here, where their width is counted.
pub(crate) fn cells(instance: &Instance) -> [String; 9] {
    let tags: Vec<_> = instance.tags().iter().map(String::as_str).collect();
    let metadata: Vec<_> = instance
        .metadata()
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    [
        printable(instance.id().as_str()),
        printable(&instance.endpoint().to_string()),
        readiness(instance),
        or_dash(instance.version().unwrap_or_default()),
        or_dash(instance.zone().unwrap_or_default()),
        instance.weight().to_string(),
        instance.priority().to_string(),
        or_dash(&tags.join(",")),
        or_dash(&metadata.join(",")),
    ]
}

fn readiness(instance: &Instance) -> String {
    let ready = if instance.is_ready() { "yes" } else { "no" };
    match instance.overridden() {
        None => ready.to_owned(),
        Some(said) => format!("{ready} ({said})"),
    }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        printable(text)
    }
}

fn printable(text: &str) -> String {
    Printable(text).to_string()
}

/// The set in one sentence.
pub(crate) fn summary(snapshot: &Snapshot) -> String {
    let service = snapshot.service();
    let count = match snapshot.len() {
        0 => format!("{service}: no instances"),
        1 => format!("{service}: 1 instance"),
        many => format!("{service}: {many} instances"),
    };
    let mut parts = vec![count, format!("revision {}", snapshot.revision())];
    if !snapshot.held().is_empty() {
        let held = snapshot.held().len();
        parts.push(format!("{held} no longer listed but held"));
    }
    let skipped = snapshot.skipped();
    for Skipped { key, reason, .. } in skipped.iter().take(MOST_SKIPPED) {
        parts.push(format!("skipped {key}: {reason}"));
    }
    let more = snapshot.skipped_count() - skipped.len().min(MOST_SKIPPED);
    if more > 0 {
        parts.push(format!("{more} more skipped"));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use sd_core::clock::{BootClock, Moment};
    use sd_core::{Error, ErrorKind, Incarnation, Override, Revision};

    use super::*;

    fn snapshot() -> Snapshot {
        let instance = Instance::new("greeter", "[::1]:80")
            .unwrap()
            .with_id(InstanceId::new("g-1").unwrap())
            .with_incarnation(Incarnation::from_u64(1))
            .with_metadata("k", "line\nbreak");
        let service = ServiceName::new("greeter").unwrap();
        let skipped = Skipped::new("services/greeter/x", "no JSON");
        Snapshot::new(
            service,
            Revision::new("d", 7),
            Moment::ZERO,
            vec![Arc::new(instance)],
        )
        .with_skipped(vec![skipped])
    }

    #[test]
    fn json_has_every_field_and_the_wall_clock_time_of_the_trouble() {
        let status = Status::Stale {
            since: BootClock.now() - Duration::from_secs(60),
            error: Error::new(ErrorKind::Unavailable, "etcd: watch").because("refused"),
        };
        let snapshot = snapshot();
        let view = ServiceView::new(&snapshot, &status, &BootClock);
        let mut json = serde_json::to_value(&view).unwrap();
        let since = json["since"].take();
        let since = humantime::parse_rfc3339(since.as_str().unwrap()).unwrap();
        let age = SystemTime::now().duration_since(since).unwrap();
        assert!((60..65).contains(&age.as_secs()), "{age:?}");
        assert_eq!(
            json,
            serde_json::json!({
                "service": "greeter", "revision": 7, "status": "stale", "since": null,
                "error": "etcd: watch: unavailable: refused",
                "instances": [{
                    "service": "greeter", "id": "g-1", "incarnation": "0000000000000001",
                    "address": "[::1]:80", "ready": true, "version": null, "zone": null,
                    "weight": 1, "priority": 0, "tags": [], "metadata": {"k": "line\nbreak"},
                }],
                "skipped": [{"key": "services/greeter/x", "reason": "no JSON"}],
                "skipped_count": 1,
                "held": [],
            })
        );
    }

    #[test]
    fn what_an_operator_says_is_shown_beside_the_readiness() {
        let instance = Instance::new("s", "h:1").unwrap();
        let drained = instance.with_override(Override::Draining);
        assert_eq!(cells(&drained)[2], "no (draining)");
        assert_eq!(
            serde_json::to_value(&drained).unwrap()["override"],
            "draining"
        );
    }

    #[test]
    fn an_id_of_another_system_is_escaped_where_it_would_reorder_the_line() {
        let instance = Instance::new("s", "h:1").unwrap();
        let id = InstanceId::new("a b/\u{202e}größe").unwrap();
        assert_eq!(cells(&instance.with_id(id))[0], "a b/\\u{202e}größe");
    }

    #[test]
    fn people_see_one_line_per_instance_and_why_an_entry_was_skipped() {
        let snapshot = snapshot();
        let row = cells(&snapshot.instances()[0]);
        assert_eq!(row[..4], ["g-1", "[::1]:80", "yes", "-"]);
        assert_eq!(row[8], "k=line\\nbreak");
        assert_eq!(
            summary(&snapshot),
            "greeter: 1 instance, revision 7, skipped services/greeter/x: no JSON"
        );
        let many = summary(&snapshot.with_skipped_count(7));
        assert!(many.ends_with("x: no JSON, 6 more skipped"), "{many}");
    }
}
