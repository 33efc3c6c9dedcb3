//! What is stored, held against what Curator's own classes wrote, and against files that no later version of ours may change.

use sd_core::{Incarnation, Instance, Override, ServiceName};
use sd_testing::golden::{full_instance, instance};

use super::curator::{self, Style};
use super::fields::Fields;
use sd_backend::{Record, gokit};

use super::{Origin, decode, mark_withdrawn, reception, set_override};

/// As Curator wrote them: a payload of each kind, and records with little in them.
const CURATOR: &str = include_str!("../../tests/golden/curator.tsv");
/// As our first version wrote them: a name, a node and its data.
const OURS: &str = include_str!("../../tests/golden/records.tsv");

const TIME: i64 = 1_700_000_000_000;

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

/// By the name in the file: the node, its data, and what it is.
fn ours() -> Vec<(&'static str, String, Vec<u8>, Record)> {
    use Record::{Live, Withdrawn};
    let minimal = || instance("s", "i", "10.0.0.7:50051");
    let plain = Style::default();
    let encode =
        |instance: &Instance, style: &Style| curator::encode(instance, style, TIME).unwrap();
    let node = |id: &str| super::names::node_name(id).into_owned();
    let curious = Style {
        payload_class: Some("com.example.Details".to_owned()),
        write_enabled: true,
    };
    let socket = instance("s", "run/s.sock", "unix:/run/s.sock").with_weight(u16::MAX);
    let drained = minimal().with_override(Override::Draining);
    let attributes = minimal().with_metadata("zone", "a");
    let gokit = minimal()
        .with_incarnation(Incarnation::from_u64(3))
        .with_metadata("scheme", "http");
    let sequential = format!(
        "{}0000000007",
        reception::node_prefix(&attributes.record_id())
    );
    vec![
        (
            "full",
            node("[2001:db8::7]:443"),
            encode(&full_instance(), &plain),
            Live(full_instance()),
        ),
        (
            "minimal",
            node("i"),
            encode(&minimal(), &plain),
            Live(minimal()),
        ),
        (
            "class and enabled",
            node("i"),
            encode(&minimal(), &curious),
            Live(minimal()),
        ),
        (
            "socket",
            node("run/s.sock"),
            encode(&socket, &plain),
            Live(socket),
        ),
        (
            "withdrawn",
            node("i"),
            mark_withdrawn(&encode(&minimal(), &plain)).unwrap(),
            Withdrawn(minimal()),
        ),
        (
            "drained",
            node("i"),
            set_override(&encode(&minimal(), &curious), Some(Override::Draining)).unwrap(),
            Live(drained),
        ),
        (
            "reception",
            sequential,
            reception::encode(&attributes).unwrap(),
            Live(attributes),
        ),
        (
            "go-kit",
            node("i"),
            gokit::encode(&gokit).into_bytes(),
            Live(gokit),
        ),
    ]
}

#[test]
fn records_are_written_and_read_as_the_first_version_did() {
    let mut lines = OURS.lines();
    for (name, node, data, record) in ours() {
        let written = format!(
            "{name}\t{node}\t{}",
            String::from_utf8(data.clone()).unwrap()
        );
        assert_eq!(lines.next(), Some(written.as_str()));
        let origin = Origin {
            node: &node,
            czxid: 3,
            session: 0,
        };
        let read = decode(record.instance().service(), &origin, &data);
        assert_eq!(read, Ok(record), "{name}");
    }
    assert_eq!(lines.next(), None);
}

#[test]
fn what_curator_wrote_is_read_and_written_again_byte_for_byte() {
    for line in CURATOR.lines() {
        let (name, data) = line.split_once('\t').unwrap();
        let fields = Fields::read(data.as_bytes()).unwrap();
        assert_eq!(fields.write().unwrap(), data.as_bytes(), "{name}");
        let origin = Origin {
            node: "id-1",
            czxid: 9,
            session: 0,
        };
        let read = decode(&service("svc"), &origin, data.as_bytes());
        let Ok(Record::Live(instance)) = read else {
            panic!("{name}: {read:?}");
        };
        assert_eq!(instance.endpoint().to_string(), "10.0.0.1:8080", "{name}");
        assert_eq!(instance.id().as_str(), "id-1", "{name}");
        assert_eq!(
            instance.incarnation().as_u64(),
            TIME.unsigned_abs(),
            "{name}"
        );
        assert_eq!(instance.is_ready(), name != "disabled");
        let metadata: Vec<_> = instance.metadata().iter().collect();
        let metadata = format!("{metadata:?}");
        let expected = match name {
            "string" => r#"[("payload", "hello")]"#,
            "integer" | "long" => r#"[("payload", "5")]"#,
            "double" => r#"[("payload", "1.5")]"#,
            "boolean" => r#"[("payload", "true")]"#,
            "map" => r#"[("big", "5"), ("zone", "a")]"#,
            "object of a class" => r#"[("name", "x"), ("size", "3")]"#,
            "spring" => r#"[("id", "application-1"), ("instance_status", "UP"), ("name", "svc")]"#,
            _ => "[]",
        };
        assert_eq!(metadata, expected, "{name}");
    }
}

#[test]
fn what_an_update_does_not_say_stays_as_it_was() {
    let before = minimal_with_more();
    let changed = instance("s", "i", "10.0.0.7:50051").with_weight(7);
    let after = curator::update(before.as_bytes(), &changed).unwrap();
    let expected = before.replace(r#""weight":1"#, r#""weight":7"#);
    assert_eq!(String::from_utf8(after).unwrap(), expected);
}

fn minimal_with_more() -> String {
    let data = curator::encode(
        &instance("s", "i", "10.0.0.7:50051"),
        &Style::default(),
        TIME,
    )
    .unwrap();
    let data = String::from_utf8(data).unwrap();
    // As a later version, a tool of Curator or an operator may have left it.
    data.replace(r#""sslPort":null"#, r#""sslPort":"8443""#)
        .replace(
            r#""uriSpec":null}"#,
            r#""uriSpec":{"parts":[]},"enabled":true,"later":[1.0, 2]}"#,
        )
        .replace(
            r#""metadata":{}}"#,
            r#""metadata":{},"override":"ready","more":{ "a":1e3 }}"#,
        )
}

#[test]
fn an_update_takes_off_a_mark_that_was_left_in_a_record() {
    let style = Style {
        write_enabled: true,
        ..Style::default()
    };
    let one = instance("s", "i", "h:1");
    let data = curator::encode(&one, &style, TIME).unwrap();
    let marked = mark_withdrawn(&data).unwrap();
    assert_eq!(curator::update(&marked, &one).unwrap(), data);
}

/// Curator makes nodes again when it reconnects, and what a service updates may say another time of registration.
#[test]
fn a_record_of_another_program_is_of_the_run_of_its_session() {
    let run = |session, czxid, time| {
        let data = format!(r#"{{"address":"h","port":1,"registrationTimeUTC":{time}}}"#);
        let origin = Origin {
            node: "i",
            czxid,
            session,
        };
        let read = decode(&service("s"), &origin, data.as_bytes()).unwrap();
        read.instance().incarnation()
    };
    assert_eq!(run(7, 1, TIME), run(7, 2, TIME + 1));
    assert_ne!(run(7, 1, TIME), run(8, 1, TIME));
    // A persistent node, a container, and one with a time-to-live of 5 s.
    for none in [0, i64::MIN, 0xff00_0000_0000_1388_u64.cast_signed()] {
        assert_eq!(run(none, 1, TIME), run(0, 2, TIME));
        assert_ne!(run(none, 1, 0), run(none, 2, 0));
    }
}

#[test]
fn enabled_follows_what_the_record_says_and_is_not_added() {
    let style = Style {
        write_enabled: true,
        ..Style::default()
    };
    let one = instance("s", "i", "h:1");
    let data = curator::encode(&one, &style, TIME).unwrap();
    let enabled = |data: &[u8]| {
        Fields::read(data)
            .unwrap()
            .get::<Option<bool>>("enabled")
            .unwrap()
    };
    assert_eq!(enabled(&data), Some(true));
    assert_eq!(
        enabled(&curator::update(&data, &one.clone().with_ready(false)).unwrap()),
        Some(false)
    );
    let drained = set_override(&data, Some(Override::Draining)).unwrap();
    assert_eq!(enabled(&drained), Some(false));
    assert_eq!(set_override(&drained, None).unwrap(), data);
    assert_eq!(enabled(&mark_withdrawn(&data).unwrap()), Some(false));
    let without = curator::encode(&one, &Style::default(), TIME).unwrap();
    assert_eq!(enabled(&mark_withdrawn(&without).unwrap()), None);
    // A tool of Curator has disabled it.
    let disabled = String::from_utf8(data)
        .unwrap()
        .replace(r#""enabled":true"#, r#""enabled":false"#);
    let origin = Origin {
        node: "i",
        czxid: 1,
        session: 0,
    };
    let read = decode(&service("s"), &origin, disabled.as_bytes()).unwrap();
    assert!(!read.instance().is_ready());
}

#[test]
fn what_cannot_be_read_says_why() {
    let origin = Origin {
        node: "i",
        czxid: 1,
        session: 0,
    };
    for (data, why) in [
        ("{not json", "key must be a string"),
        ("{}", "neither a port nor an sslPort"),
        (r#"{"address":"h","port":70000}"#, "port: is no port"),
        (r#"{"address":"h","port":0}"#, "cannot be dialled"),
        (
            r#"{"name":"other","address":"h","port":1}"#,
            "service \"other\"",
        ),
        (
            r#"{"address":"h","port":1,"serviceType":"dynamic"}"#,
            "serviceType",
        ),
        (
            r#"{"address":"h","port":1,"attributes":{"a":1}}"#,
            "attributes",
        ),
        ("[]", "has no port"),
    ] {
        let error = decode(&service("s"), &origin, data.as_bytes()).unwrap_err();
        assert!(error.contains(why), "{data}: {error}");
    }
    let bare = decode(
        &service("s"),
        &origin,
        br#"{"address":"h","sslPort":"443"}"#,
    )
    .unwrap();
    assert_eq!(bare.instance().endpoint().to_string(), "h:443");
    assert_eq!(bare.instance().id().as_str(), "i");
}

#[test]
fn only_our_own_payload_is_changed() {
    let of_curator = CURATOR.lines().next().unwrap().split_once('\t').unwrap().1;
    for data in [
        of_curator.as_bytes(),
        b"http://h:1",
        br#"{"address":"h","port":1,"attributes":{}}"#,
    ] {
        assert_eq!(mark_withdrawn(data), None);
        assert_eq!(set_override(data, Some(Override::Ready)), None);
    }
}

#[test]
fn the_node_of_a_run_in_receptions_layout_is_found_again() {
    for id in ["node-a", "a/b", "x-0000000001"] {
        let one = instance("s", id, "h:1");
        let node = format!("{}0000000003", reception::node_prefix(&one.record_id()));
        let said = reception::protected_name(&node).unwrap();
        assert_eq!((&*said.id, said.incarnation), (id, one.incarnation()));
    }
    for node in [
        "_c_0123456789abcdef0123456789abcdef-0000000001",
        "_c_01234567-89ab-cdef-0123-456789abcdef-latch-0000000001",
        "_c_0123456789abcdef0123456789abcdef-a-1",
        "a",
    ] {
        assert_eq!(reception::protected_name(node), None, "{node}");
    }
}
