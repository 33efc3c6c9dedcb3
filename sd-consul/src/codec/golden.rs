//! What is stored, held against files that no later version may change: as the first version wrote it.

use std::time::Duration;

use proptest::prelude::*;
use sd_backend::TermRecorder;
use sd_core::port::CandidateId;
use sd_core::{ElectionName, Instance};
use sd_testing::golden::{full_instance, instance, lines};
use serde_json::{Value, json};

use super::frozen::{self, FrozenRecord};
use super::{Codec, encode};
use crate::config::ConsulConfig;
use crate::config::check_kind::CheckKind;
use crate::election::keys::ElectionKeys;
use crate::election::leader_record;
use crate::health_check::{CheckDefinition, check_id};
use crate::maintenance::{Reason, maintenance_id};

fn full() -> Instance {
    full_instance()
        .with_ready(true)
        .with_metadata("plain_key", "v")
        .with_metadata("sd-zone", "escaped")
        .with_metadata("consul-x", "escaped")
}

/// By the name in the file.
fn records() -> Vec<(&'static str, CheckKind, Instance)> {
    use CheckKind::{Grpc, Http, Tcp, Ttl};
    let minimal = || instance("s", "i", "10.0.0.7:50051");
    vec![
        ("full", Ttl, full()),
        ("minimal", Ttl, minimal()),
        ("unready", Ttl, minimal().with_ready(false)),
        (
            "made id",
            Ttl,
            instance("s", "10.0.0.7:50051-12345678", "10.0.0.7:50051").with_weight(3),
        ),
        (
            "socket",
            Ttl,
            instance("0-1_2", "run/s.sock", "unix:/run/s.sock").with_weight(u16::MAX),
        ),
        ("odd id", Ttl, instance("s", "a/b%2Fc~größe@x", "h:1")),
        ("grpc check", Grpc, minimal()),
        ("http check", Http, minimal()),
        ("tcp check", Tcp, minimal()),
    ]
}

fn written(kind: CheckKind, instance: &Instance) -> Value {
    let config = ConsulConfig::default().with_check(kind);
    let check = CheckDefinition::new("test", &config, instance, Duration::from_secs(10)).unwrap();
    serde_json::to_value(encode("test", instance, check).unwrap()).unwrap()
}

fn frozen(instance: &Instance) -> FrozenRecord {
    FrozenRecord {
        id: instance.id().to_string(),
        incarnation: instance.incarnation().as_u64(),
        address: instance.endpoint().to_string(),
        version: instance.version().map(str::to_owned),
        zone: instance.zone().map(str::to_owned),
        weight: instance.weight(),
        priority: instance.priority(),
        tags: instance.tags().clone(),
        metadata: instance.metadata().clone(),
    }
}

#[test]
fn services_are_registered_and_read_as_the_first_version_did() {
    let stored = lines::<2>(include_str!("../../tests/golden/services.tsv"));
    let records = records();
    assert_eq!(stored.len(), records.len());
    for ([name, told], (expected, kind, instance)) in stored.iter().zip(&records) {
        assert_eq!(name, expected);
        let written = written(*kind, instance);
        let told: Value = serde_json::from_str(told).unwrap();
        assert_eq!(written, told, "{name}");
        let service = instance.service();
        let read = frozen::read(service.as_str(), &told);
        assert_eq!(read, Some(frozen(instance)), "{name}");
        let node = json!({"Node": "n", "Address": "10.1.1.1"});
        let entry = json!({"Node": node, "Service": told});
        let entry = serde_json::from_value(entry).unwrap();
        let read = Codec::verbatim().decode(service, entry).unwrap();
        let read = read.map(|read| read.with_ready(instance.is_ready()));
        assert_eq!(read.as_ref(), Some(instance), "{name}");
    }
}

#[test]
fn checks_and_elections_are_named_and_kept_as_the_first_version_did() {
    let keys = ElectionKeys::new("elections", &ElectionName::new("reports/nightly").unwrap());
    let id = CandidateId::from_u64(0xab).unwrap();
    let (session, ttl) = (
        "b3a0b5c2-0000-4000-8000-000000000001",
        Duration::from_secs(10),
    );
    let (_, begun) = TermRecorder::new(id, session, ttl).attempt(42, None);
    let begun = begun.unwrap();
    let ended = TermRecorder::ended(&begun, session).unwrap();
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
    let leader = text(&leader_record::encode(id, None, b"host-7"));
    let changed = text(&leader_record::encode(id, Some(42), b"host-7"));
    let written = [
        ["check", &check_id("s:i"), ""],
        [
            "maintenance",
            &maintenance_id("s:i"),
            &Reason::NotReady.text(),
        ],
        ["session", &format!("{}nonce", keys.candidate(id)), ""],
        ["history", keys.history(), ""],
        ["leader", keys.leader(), &leader],
        ["leader that changed its value", keys.leader(), &changed],
        ["term", keys.term(), &text(&begun)],
        ["ended term", keys.term(), &text(&ended)],
    ]
    .map(|line| line.map(str::to_owned));
    let stored = lines::<3>(include_str!("../../tests/golden/elections.tsv"));
    assert_eq!(stored, written);
    for (at, token) in [(4, None), (5, Some(42))] {
        let read = frozen::leader(stored[at][2].as_bytes());
        assert_eq!(read, Some((0xab, token, "host-7".to_owned())));
    }
    for (at, is_over) in [(6, false), (7, true)] {
        let read = frozen::term(stored[at][2].as_bytes());
        assert_eq!(read, Some((42, 0xab, session.to_owned(), 10_000, is_over)));
    }
}

proptest! {
    #[test]
    fn the_first_version_reads_what_is_written_now(
        service in "[a-zA-Z0-9]([-_.a-zA-Z0-9]{0,9}[a-zA-Z0-9])?", id in "[^\\s\\pC/]([^\\s\\pC]{0,9}[^\\s\\pC/])?",
        port in 1..u16::MAX, weight: u16, priority: u16, tag in "\\PC{0,9}",
        key in "\\PC{0,9}|sd-k-_?[0-9]{0,3}|sd-zone|consul-x|version", value in "\\PC{0,9}",
    ) {
        let instance = instance(&service, &id, &format!("h:{port}"))
            .with_weight(weight)
            .with_priority(priority)
            .with_tag(tag)
            .with_metadata(key, value);
        let written = written(CheckKind::Ttl, &instance);
        prop_assert_eq!(&written["Name"], service.as_str());
        prop_assert_eq!(frozen::read(&service, &written), Some(frozen(&instance)));
    }
}
