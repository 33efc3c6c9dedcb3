//! A record as a heartbeat: where a process serves, and when it last wrote. Pure functions.
//!
//! ```text
//! grpc:services:<service>  <id>  {"ip":"10.0.0.1","port":50051,"lastUpdate":1718000000,"incarnation":"00f1e2d3c4b5a697"}
//! ```
//!
//! `lastUpdate` is in seconds. Other programs write no `incarnation`, and ignore ours. Their ids are made for each run.

use sd_backend::read_json;
use sd_core::{
    Address, Endpoint, Error, Incarnation, Instance, InstanceId, RecordId, Result, ServiceName,
};
use serde::Deserialize;

/// How all keys and channels begin.
pub(crate) const PREFIX: &str = "grpc:services:";

#[derive(Deserialize)]
struct Json {
    ip: String,
    port: u16,
    #[serde(rename = "lastUpdate")]
    last_update: u64,
    incarnation: Option<Incarnation>,
}

/// A heartbeat that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heartbeat {
    pub(crate) instance: Instance,
    /// In seconds since 1970.
    pub(crate) last_update: u64,
}

/// The hash of a service, whose name stands in it as it is.
pub(crate) fn key(service: &ServiceName) -> String {
    format!("{PREFIX}{service}")
}

/// Where our clients tell each other that something was written or removed. Others are found by asking.
pub(crate) fn channel(service: &ServiceName) -> String {
    format!("{PREFIX}{service}:changes")
}

/// The value of a record before and after the time, which the server puts in.
///
/// # Errors
/// `InvalidInput` if it serves at no TCP address.
pub(crate) fn encode(op: &'static str, instance: &Instance) -> Result<[String; 2]> {
    let Address::Tcp { host, port } = instance.endpoint().address() else {
        let why = "a heartbeat has a TCP address: use another format for Unix sockets";
        return Err(Error::invalid_input(op, why));
    };
    let host = serde_json::Value::from(host);
    Ok([
        format!(r#"{{"ip":{host},"port":{port},"lastUpdate":"#),
        format!(r#","incarnation":"{}"}}"#, instance.incarnation()),
    ])
}

/// What is stored for `service` under `id`. An error says why it cannot be understood.
pub(crate) fn decode(
    service: &ServiceName,
    id: &[u8],
    value: &[u8],
) -> std::result::Result<Heartbeat, String> {
    let json: Json = read_json(value)?;
    let shown = |error: Error| error.report().to_string();
    let id = std::str::from_utf8(id).map_err(|_| "its id is not UTF-8".to_owned())?;
    let id = InstanceId::new(id).map_err(shown)?;
    let endpoint = Endpoint::tcp(&json.ip, json.port).map_err(shown)?;
    let run = json.incarnation.unwrap_or_else(|| run_of(&id));
    let instance = Instance::new(service, endpoint.to_string()).map_err(shown)?;
    Ok(Heartbeat {
        instance: instance.with_id(id).with_incarnation(run),
        last_update: json.last_update,
    })
}

/// The record of an instance, for scripts.
pub(crate) fn run_text(record: &RecordId) -> String {
    record.incarnation.to_string()
}

/// The run that made this id.
fn run_of(id: &InstanceId) -> Incarnation {
    // FNV-1a: each build finds the same.
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let bytes = id.as_str().bytes();
    Incarnation::from_u64(bytes.fold(0xcbf2_9ce4_8422_2325, fnv))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn service() -> ServiceName {
        ServiceName::new("users/v1").unwrap()
    }

    #[test]
    fn what_is_written_is_read_again_with_its_run() {
        for address in ["10.0.0.1:50051", "[::1]:1", "h.example:2"] {
            let instance = Instance::new(service(), address).unwrap();
            let [before, after] = encode("test", &instance).unwrap();
            let value = format!("{before}1718000000{after}");
            let id = instance.id().as_str().as_bytes();
            let read = decode(&service(), id, value.as_bytes()).unwrap();
            assert_eq!(
                (&read.instance, read.last_update),
                (&instance, 1_718_000_000)
            );
        }
        let socket = Instance::new(service(), "unix:/run/s").unwrap();
        assert!(encode("test", &socket).is_err());
        assert_eq!(key(&service()), "grpc:services:users/v1");
    }

    #[test]
    fn what_another_program_writes_is_one_run_for_each_id() {
        let value = br#"{"ip":"10.0.0.1","port":50051,"lastUpdate":1718000000}"#;
        let read = |id: &[u8]| decode(&service(), id, value).unwrap().instance;
        let id = b"01J0000000000000000000000A";
        assert_eq!(read(id), read(id));
        assert!(!read(id).is_same_run(&read(b"01J0000000000000000000000B")));
        // Of the specification of FNV-1a, so that other builds find the same.
        assert_eq!(
            read(b"foobar").incarnation().as_u64(),
            0x8594_4171_f739_67e8
        );
        for (odd, why) in [
            (&b"{}"[..], "ip"),
            (br#"{"ip":"h","port":0,"lastUpdate":1}"#, "port"),
            (br#"{"ip":"a b","port":1,"lastUpdate":1}"#, "host"),
            (br#"{"ip":"h","port":1,"lastUpdate":-1}"#, "lastUpdate"),
        ] {
            let reason = decode(&service(), id, odd).unwrap_err();
            assert!(reason.contains(why), "{reason}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(value in prop::collection::vec(any::<u8>(), 0..60), id in prop::collection::vec(any::<u8>(), 0..9)) {
            let _ = decode(&service(), &id, &value);
        }
    }
}
