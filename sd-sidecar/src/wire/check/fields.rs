//! The JSON form of a check. serde's `flatten` cannot refuse unknown fields, so all fields of all kinds are read, and those of another
//! kind refused.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{CheckKind, CheckSpec, CheckState, rules};

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Tcp,
    Http,
    Grpc,
    Command,
    Ttl,
    Pid,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fields {
    kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<Vec<String>>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "humantime_serde"
    )]
    ttl: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started: Option<u64>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "humantime_serde"
    )]
    interval: Option<Duration>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "humantime_serde"
    )]
    timeout: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    passes_after: Option<NonZeroU32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fails_after: Option<NonZeroU32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    initial: Option<CheckState>,
}

impl Fields {
    fn empty(kind: Kind) -> Self {
        Self {
            kind,
            name: None,
            address: None,
            url: None,
            service: None,
            command: None,
            ttl: None,
            pid: None,
            started: None,
            interval: None,
            timeout: None,
            passes_after: None,
            fails_after: None,
            initial: None,
        }
    }

    /// Takes the fields that only this kind has.
    fn take_kind(&mut self) -> Result<CheckKind, String> {
        let missing = |field: &str| format!("missing field `{field}`");
        Ok(match self.kind {
            Kind::Tcp => CheckKind::Tcp {
                address: self.address.take(),
            },
            Kind::Http => CheckKind::Http {
                url: self.url.take(),
            },
            Kind::Grpc => CheckKind::Grpc {
                address: self.address.take(),
                service: self.service.take().unwrap_or_default(),
            },
            Kind::Command => CheckKind::Command {
                command: self.command.take().ok_or_else(|| missing("command"))?,
            },
            Kind::Ttl => CheckKind::Ttl {
                ttl: self.ttl.take().ok_or_else(|| missing("ttl"))?,
            },
            Kind::Pid => CheckKind::Pid {
                pid: self.pid.take().ok_or_else(|| missing("pid"))?,
                started: self.started.take(),
            },
        })
    }

    /// A field that no part of the check has taken.
    fn left(&self) -> Option<&'static str> {
        let fields = [
            ("address", self.address.is_some()),
            ("url", self.url.is_some()),
            ("service", self.service.is_some()),
            ("command", self.command.is_some()),
            ("ttl", self.ttl.is_some()),
            ("pid", self.pid.is_some()),
            ("started", self.started.is_some()),
            ("interval", self.interval.is_some()),
            ("timeout", self.timeout.is_some()),
            ("passes_after", self.passes_after.is_some()),
            ("fails_after", self.fails_after.is_some()),
            ("initial", self.initial.is_some()),
        ];
        fields
            .into_iter()
            .find_map(|(name, is_left)| is_left.then_some(name))
    }
}

impl TryFrom<Fields> for CheckSpec {
    type Error = String;

    fn try_from(mut fields: Fields) -> Result<Self, String> {
        let mut spec = Self::new(fields.take_kind()?);
        spec.name = fields.name.take();
        if spec.kind.is_repeated() {
            spec.interval = fields.interval.take().unwrap_or(spec.interval);
            spec.timeout = fields.timeout.take().unwrap_or(spec.timeout);
            spec.passes_after = fields.passes_after.take().unwrap_or(spec.passes_after);
            spec.fails_after = fields.fails_after.take().unwrap_or(spec.fails_after);
        }
        if !matches!(spec.kind, CheckKind::Pid { .. }) {
            spec.initial = fields.initial.take().unwrap_or_default();
        }
        if let Some(field) = fields.left() {
            let kind = spec.kind.as_str();
            return Err(format!("a check of the kind {kind} has no field `{field}`"));
        }
        rules::check(&spec)?;
        Ok(spec)
    }
}

impl From<CheckSpec> for Fields {
    fn from(spec: CheckSpec) -> Self {
        let is_repeated = spec.kind.is_repeated();
        let is_pid = matches!(spec.kind, CheckKind::Pid { .. });
        let mut fields = match spec.kind {
            CheckKind::Tcp { address } => Self {
                address,
                ..Self::empty(Kind::Tcp)
            },
            CheckKind::Http { url } => Self {
                url,
                ..Self::empty(Kind::Http)
            },
            CheckKind::Grpc { address, service } => Self {
                address,
                service: (!service.is_empty()).then_some(service),
                ..Self::empty(Kind::Grpc)
            },
            CheckKind::Command { command } => Self {
                command: Some(command),
                ..Self::empty(Kind::Command)
            },
            CheckKind::Ttl { ttl } => Self {
                ttl: Some(ttl),
                ..Self::empty(Kind::Ttl)
            },
            CheckKind::Pid { pid, started } => Self {
                pid: Some(pid),
                started,
                ..Self::empty(Kind::Pid)
            },
        };
        fields.name = spec.name;
        if is_repeated {
            fields.interval = Some(spec.interval);
            fields.timeout = Some(spec.timeout);
            fields.passes_after = Some(spec.passes_after);
            fields.fails_after = Some(spec.fails_after);
        }
        if !is_pid {
            fields.initial = Some(spec.initial);
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn error(json: &serde_json::Value) -> String {
        serde_json::from_value::<CheckSpec>(json.clone())
            .expect_err("it is refused")
            .to_string()
    }

    #[test]
    fn only_the_kind_is_needed_where_the_instance_tells_the_rest() {
        for kind in ["tcp", "http", "grpc"] {
            let spec: CheckSpec = serde_json::from_value(json!({ "kind": kind })).unwrap();
            assert_eq!(spec, CheckSpec::new(spec.kind.clone()));
            assert_eq!(spec.kind.as_str(), kind);
        }
    }

    #[test]
    fn the_json_form_is_one_flat_object() {
        let json = json!({
            "kind": "grpc", "name": "rpc", "address": "127.0.0.1:50051", "service": "acme.Greeter",
            "interval": "1s", "timeout": "500ms", "passes_after": 2, "fails_after": 3, "initial": "passing",
        });
        let spec: CheckSpec = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(spec.interval, Duration::from_secs(1));
        assert_eq!(spec.fails_after.get(), 3);
        assert_eq!(serde_json::to_value(&spec).unwrap(), json);
        let ttl = json!({ "kind": "ttl", "ttl": "15s", "initial": "failing" });
        let spec: CheckSpec = serde_json::from_value(ttl.clone()).unwrap();
        assert_eq!(serde_json::to_value(&spec).unwrap(), ttl);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, parts) in [
            (json!({ "kind": "tcp", "adress": "h:1" }), &["`adress`"][..]),
            (json!({ "kind": "tpc" }), &["`tpc`", "`tcp`"]),
            (json!({ "name": "web" }), &["`kind`"]),
            (
                json!({ "kind": "tcp", "url": "/x" }),
                &["kind tcp", "`url`"],
            ),
            (
                json!({ "kind": "http", "service": "x" }),
                &["kind http", "`service`"],
            ),
            (json!({ "kind": "ttl" }), &["`ttl`"]),
            (json!({ "kind": "command" }), &["`command`"]),
            (json!({ "kind": "pid" }), &["`pid`"]),
            (
                json!({ "kind": "ttl", "ttl": "5s", "interval": "1s" }),
                &["kind ttl", "`interval`"],
            ),
            (
                json!({ "kind": "pid", "pid": 1, "initial": "passing" }),
                &["kind pid", "`initial`"],
            ),
            (
                json!({ "kind": "tcp", "interval": "1ms" }),
                &["interval", "100ms", "1ms"],
            ),
            (json!({ "kind": "tcp", "interval": 5 }), &["duration"]),
            (json!({ "kind": "tcp", "passes_after": 0 }), &["nonzero"]),
            (
                json!({ "kind": "tcp", "initial": "maybe" }),
                &["`maybe`", "`passing`"],
            ),
        ] {
            let error = error(&json);
            for part in parts {
                assert!(error.contains(part), "{json}: {error}");
            }
        }
    }

    fn kinds() -> impl Strategy<Value = CheckKind> {
        let address = || proptest::option::of(Just("127.0.0.1:80".to_owned()));
        let millis = 100..86_400_000u64;
        prop_oneof![
            address().prop_map(|address| CheckKind::Tcp { address }),
            proptest::option::of("/[a-z?=&]{0,20}").prop_map(|url| CheckKind::Http { url }),
            (address(), "[a-zA-Z.]{0,30}")
                .prop_map(|(address, service)| CheckKind::Grpc { address, service }),
            proptest::collection::vec("[^\0]{1,20}", 1..5)
                .prop_map(|command| CheckKind::Command { command }),
            millis.prop_map(|ttl| CheckKind::Ttl {
                ttl: Duration::from_millis(ttl)
            }),
            (1..=4_000_000u32, proptest::option::of(any::<u64>()))
                .prop_map(|(pid, started)| CheckKind::Pid { pid, started }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            kind in kinds(),
            name in proptest::option::of("[a-z]{1,20}"),
            interval in 100..3_600_000u64,
            timeout in 1..60_000u64,
            counts in (1..100u32, 1..100u32),
            passing in any::<bool>(),
        ) {
            let mut spec = CheckSpec::new(kind);
            spec.name = name;
            if spec.kind.is_repeated() {
                spec.interval = Duration::from_millis(interval);
                spec.timeout = Duration::from_millis(timeout);
                spec.passes_after = NonZeroU32::new(counts.0).unwrap();
                spec.fails_after = NonZeroU32::new(counts.1).unwrap();
            }
            if passing && !matches!(spec.kind, CheckKind::Pid { .. }) {
                spec.initial = CheckState::Passing;
            }
            let json = serde_json::to_string(&spec).unwrap();
            prop_assert_eq!(serde_json::from_str::<CheckSpec>(&json).unwrap(), spec);
        }
    }
}
