//! What is stored, held against files that no later version may change: keys and values as the first version wrote them.

use std::time::Duration;

use proptest::prelude::*;
use sd_backend::gokit::{PATH, SCHEME};
use sd_backend::{Record, TermRecorder};
use sd_core::port::CandidateId;
use sd_core::{ElectionName, Incarnation, Instance, InstanceId, Override, ServiceName};
use sd_testing::golden::{full_instance, instance, lines};

use super::frozen::{self, FrozenRecord};
use super::overrides::{self, StoredOverride};
use super::{Layout, Origin, decode};
use crate::codec::json::encode_withdrawn;
use crate::config::format::Format;
use crate::election::keys::ElectionKeys;
use crate::election::term_record::entry_on;

const PREFIX: &str = "/services";
const ORIGIN: Origin = Origin {
    lease: 0x77,
    create_revision: 3,
};

/// A go-kit entry says nothing of its run but on which lease it hangs.
fn gokit() -> Instance {
    instance("foosvc", "1.2.3.4:8080", "1.2.3.4:8080")
        .with_incarnation(Incarnation::from_u64(0x77))
        .with_metadata(SCHEME, "http")
}

/// By the name in the file: how it is written, and what it is.
fn records() -> Vec<(&'static str, Format, Record)> {
    use Format::{GoKit, Json};
    use Record::{Live, Withdrawn};
    let bare = instance("foosvc", "bare", "h:1").with_incarnation(Incarnation::from_u64(0x77));
    vec![
        ("full", Json, Live(full_instance())),
        ("minimal", Json, Live(instance("s", "i", "10.0.0.7:50051"))),
        (
            "made id",
            Json,
            Live(instance("s", "10.0.0.7:50051-12345678", "10.0.0.7:50051")),
        ),
        (
            "socket",
            Json,
            Live(instance("0-1_2", "run/s.sock", "unix:/run/s.sock").with_weight(u16::MAX)),
        ),
        (
            "odd id",
            Json,
            Live(instance("s", "a/b%2Fc~größe//d", "h:1")),
        ),
        (
            "withdrawn",
            Json,
            Withdrawn(
                full_instance()
                    .with_ready(false)
                    .with_id(InstanceId::new("w").unwrap()),
            ),
        ),
        ("go-kit", GoKit, Live(gokit())),
        (
            "go-kit with a path",
            GoKit,
            Live(
                gokit()
                    .with_id(InstanceId::new("http://1.2.3.4:8080/api").unwrap())
                    .with_metadata(SCHEME, "https")
                    .with_metadata(PATH, "/api?x#y"),
            ),
        ),
        ("go-kit without a scheme", GoKit, Live(bare)),
    ]
}

fn written(format: Format, record: &Record) -> (String, Vec<u8>) {
    let layout = Layout::new(PREFIX, format);
    let (Record::Live(instance) | Record::Withdrawn(instance)) = record;
    let mut value = layout.encode("test", instance).unwrap();
    match record {
        Record::Withdrawn(_) => value = encode_withdrawn(instance).unwrap(),
        // To go-kit, no scheme is an empty one.
        Record::Live(_) if format == Format::GoKit && !instance.metadata().contains_key(SCHEME) => {
            let bare = instance.clone().with_metadata(SCHEME, "");
            value = layout.encode("test", &bare).unwrap();
        }
        Record::Live(_) => {}
    }
    (layout.key(instance.service(), instance.id()), value)
}

fn frozen(record: &Record) -> FrozenRecord {
    let (Record::Live(instance) | Record::Withdrawn(instance)) = record;
    FrozenRecord {
        service: instance.service().to_string(),
        id: instance.id().to_string(),
        incarnation: instance.incarnation().as_u64(),
        address: instance.endpoint().to_string(),
        ready: instance.is_ready(),
        version: instance.version().map(str::to_owned),
        zone: instance.zone().map(str::to_owned),
        weight: instance.weight(),
        priority: instance.priority(),
        tags: instance.tags().clone(),
        metadata: instance.metadata().clone(),
        withdrawn: matches!(record, Record::Withdrawn(_)),
    }
}

/// As the first version reads what is stored there.
fn read_by_the_first(
    service: &ServiceName,
    key: &str,
    value: &[u8],
) -> Option<Result<FrozenRecord, &'static str>> {
    let origin = (ORIGIN.lease, ORIGIN.create_revision);
    frozen::read(PREFIX, service.as_str(), (key, value), origin)
}

#[test]
fn records_are_written_and_read_as_the_first_version_did() {
    let stored = lines::<3>(include_str!("../../tests/golden/records.tsv"));
    let records = records();
    assert_eq!(stored.len(), records.len());
    for ([name, key, value], (expected, format, record)) in stored.iter().zip(&records) {
        assert_eq!(name, expected);
        let (written_key, written_value) = written(*format, record);
        let written_value = String::from_utf8(written_value).unwrap();
        assert_eq!((&written_key, &written_value), (key, value), "{name}");
        let (Record::Live(instance) | Record::Withdrawn(instance)) = record;
        let service = instance.service();
        let id = key.strip_prefix(&format!("{PREFIX}/{service}/")).unwrap();
        let read = decode(service, id, value.as_bytes(), ORIGIN);
        assert_eq!(read.as_ref(), Ok(record), "{name}");
        let read = read_by_the_first(service, key, value.as_bytes());
        assert_eq!(read, Some(Ok(frozen(record))), "{name}");
    }
}

#[test]
fn an_override_is_written_as_before_and_the_first_version_skips_it_alone() {
    let stored = lines::<3>(include_str!("../../tests/golden/overrides.tsv"));
    let all = [
        ("minimal", "i", Override::Draining),
        ("ready", "i", Override::Ready),
        ("odd id", "two words", Override::Unready),
    ];
    assert_eq!(stored.len(), all.len());
    for ([name, key, value], (expected, id, said)) in stored.iter().zip(all) {
        assert_eq!(name, expected);
        let record = instance("s", id, "10.0.0.7:50051");
        let layout = Layout::new(PREFIX, Format::Json);
        let written = layout.override_key(record.service(), record.id());
        assert_eq!(written.as_ref(), Some(key));
        let overriding = StoredOverride {
            said,
            incarnation: record.incarnation(),
            created: ORIGIN.create_revision,
        };
        let written = overrides::encode(&overriding).unwrap();
        assert_eq!(&String::from_utf8(written).unwrap(), value, "{name}");
        assert_eq!(overrides::decode(value.as_bytes()), Ok(overriding));
        // To the first version it is an entry that it cannot read, and no other.
        let read = read_by_the_first(record.service(), key, value.as_bytes());
        assert!(matches!(read, Some(Err(_))), "{name}: {read:?}");
        let layout = Layout::new(PREFIX, Format::GoKit);
        assert_eq!(layout.override_key(record.service(), record.id()), None);
    }
}

#[test]
fn elections_are_kept_as_the_first_version_did() {
    let keys = ElectionKeys::new("/elections", &ElectionName::new("reports/nightly").unwrap());
    let id = CandidateId::from_u64(0xab).unwrap();
    let (entry, ttl) = (entry_on(0x694d_8a1b), Duration::from_secs(10));
    let (_, begun) = TermRecorder::new(id, entry.as_str(), ttl).attempt(42, None);
    let begun = begun.unwrap();
    let ended = TermRecorder::ended(&begun, &entry).unwrap();
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
    let written = [
        ["entry", &keys.entry(id), "host-7"].map(str::to_owned),
        ["term", keys.term(), &text(&begun)].map(str::to_owned),
        ["ended term", keys.term(), &text(&ended)].map(str::to_owned),
    ];
    let stored = lines::<3>(include_str!("../../tests/golden/elections.tsv"));
    assert_eq!(stored, written);
    for ([_, _, value], is_over) in stored[1..].iter().zip([false, true]) {
        let term = frozen::term(value.as_bytes());
        assert_eq!(term, Some((42, 0xab, entry.clone(), 10_000, is_over)));
    }
}

proptest! {
    #[test]
    fn the_first_version_reads_what_is_written_now(
        service in "[a-zA-Z0-9]([-_.a-zA-Z0-9]{0,9}[a-zA-Z0-9])?", id in "[^\\s\\pC/]([^\\s\\pC]{0,9}[^\\s\\pC/])?",
        port in 1..u16::MAX, weight: u16, ready: bool, tag in "\\PC{0,9}", value in "\\PC{0,9}", withdrawn: bool,
    ) {
        let instance = instance(&service, &id, &format!("h:{port}"))
            .with_weight(weight)
            .with_ready(ready && !withdrawn)
            .with_tag(tag)
            .with_metadata("key", value);
        let record = if withdrawn { Record::Withdrawn(instance) } else { Record::Live(instance) };
        let (key, value) = written(Format::Json, &record);
        prop_assert_eq!(&key, &format!("{PREFIX}/{service}/{id}"));
        let service = ServiceName::new(&service).unwrap();
        prop_assert_eq!(read_by_the_first(&service, &key, &value), Some(Ok(frozen(&record))));
        prop_assert_eq!(frozen::services(PREFIX, [key.as_str()].into_iter()), vec![service.to_string()]);
    }
}
