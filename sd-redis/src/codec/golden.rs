//! What is stored, held against a file that no later version may change. That scripts write it so is tested beside a server.

use sd_backend::Record;
use sd_core::{Instance, Override};
use sd_testing::golden::{full_instance, instance, lines};

use super::value::{Stored, decode, encode};
use super::{heartbeat, names};

/// As our first version wrote them: a name, and what is stored.
const OURS: &str = include_str!("../../tests/golden/records.tsv");

fn minimal() -> Instance {
    instance("s", "i", "10.0.0.7:50051")
}

type Golden = (&'static str, &'static str, Instance, fn(Instance) -> Record);

/// By the name in the file: what is in front of the JSON, the instance as its owner has it, and what is read.
fn ours() -> [Golden; 5] {
    let socket = instance("s", "run/s.sock", "unix:/run/s.sock").with_weight(u16::MAX);
    let drained = |instance: Instance| Record::Live(instance.with_override(Override::Draining));
    [
        (
            "full",
            "live 12345678000000ab 1 1700000000000000 - ",
            full_instance(),
            Record::Live,
        ),
        (
            "minimal",
            "live 12345678000000ab 2 1700000000000001 - ",
            minimal(),
            Record::Live,
        ),
        (
            "socket",
            "live 12345678000000ab 3 1700000000000002 - ",
            socket,
            Record::Live,
        ),
        (
            "withdrawn",
            "gone 12345678000000ab 4 1700000000000003 - ",
            minimal(),
            Record::Withdrawn,
        ),
        (
            "drained",
            "live 12345678000000ab 5 1700000000000004 draining ",
            minimal(),
            drained,
        ),
    ]
}

#[test]
fn records_are_written_and_read_as_the_first_version_did() {
    let mut stored = lines::<2>(OURS).into_iter();
    for (made, (name, begin, instance, record)) in (1_700_000_000_000_000..).zip(ours()) {
        let json = String::from_utf8(encode("test", &instance).unwrap()).unwrap();
        let value = format!("{begin}{json}");
        assert_eq!(stored.next(), Some([name.to_owned(), value.clone()]));
        let id = instance.id().as_str().as_bytes();
        let read = decode(instance.service(), id, value.as_bytes());
        let record = record(instance);
        assert_eq!(read, Ok(Stored::Record { record, made }), "{name}");
    }
    let [before, after] = heartbeat::encode("test", &minimal()).unwrap();
    let beat = format!("{before}1700000000{after}");
    assert_eq!(stored.next(), Some(["heartbeat".to_owned(), beat]));
    assert_eq!(stored.next(), None);
}

#[test]
fn keys_are_called_as_the_first_version_called_them() {
    let keys = names::Layout::new("services").keys(full_instance().service());
    let called = [
        keys.records.as_str(),
        &keys.ends,
        &keys.state,
        &keys.channel,
        &keys.list_channel,
    ];
    let expected = [
        "services:{pkg.v1.Greeter}:records",
        "services:{pkg.v1.Greeter}:ends",
        "services:{pkg.v1.Greeter}:state",
        "services:{pkg.v1.Greeter}:changes",
        "services:list:changes",
    ];
    assert_eq!(called, expected);
    let heartbeats = heartbeat::key(full_instance().service());
    assert_eq!(heartbeats, "grpc:services:pkg.v1.Greeter");
}
