//! A check as it is written on a command line.

use std::fmt::Display;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use sd_core::Error;

use super::invalid;
use crate::wire::{CheckKind, CheckSpec, CheckState};

/// `KIND[:WHAT][,OPTION=VALUE]…`, with a comma in WHAT or a VALUE written twice.
///
/// | | |
/// |---|---|
/// | `tcp[:HOST:PORT]`, `tcp:unix:PATH` | a connection is accepted |
/// | `http[:PATH]`, `http://HOST:PORT/PATH` | `GET` is answered with 2xx; `/healthz` by default |
/// | `grpc[:SERVICE][@HOST:PORT]` | `grpc.health.v1` says `SERVING` |
/// | `command:PROGRAM ARGUMENT …` | the program ends with 0; words are split as a shell does, and no shell runs |
/// | `ttl:DURATION` | the process says so itself, at least so often |
/// | `pid:PID` | the process lives |
///
/// Options: `name`, `interval`, `timeout`, `passes_after`, `fails_after`, `initial`, as in JSON.
impl FromStr for CheckSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let spec = parse(text).map_err(invalid)?;
        spec.validate()?;
        Ok(spec)
    }
}

fn parse(text: &str) -> Result<CheckSpec, String> {
    let mut parts = split(text).into_iter();
    let first = parts.next().unwrap_or_default();
    let (kind, what) = match first.split_once(':') {
        Some((kind, what)) => (kind, Some(what)),
        None => (first.as_str(), None),
    };
    let mut spec = CheckSpec::new(kind_of(kind, what)?);
    for option in parts {
        set(&mut spec, &option)?;
    }
    Ok(spec)
}

/// Splits at single commas. Two are one that belongs to the text.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == ',' && characters.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    parts
}

fn kind_of(kind: &str, what: Option<&str>) -> Result<CheckKind, String> {
    let text = |example: &str| what.ok_or_else(|| format!("write {kind}:{example}"));
    let owned = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Ok(match kind {
        "tcp" => CheckKind::Tcp {
            address: what.and_then(owned),
        },
        // The scheme of a URL is the kind.
        "http" | "https" => CheckKind::Http {
            url: what.map(|what| match what.strip_prefix("//") {
                Some(_) => format!("{kind}:{what}"),
                None => what.to_owned(),
            }),
        },
        "grpc" => {
            let what = what.unwrap_or_default();
            let (service, address) = what.rsplit_once('@').unwrap_or((what, ""));
            CheckKind::Grpc {
                address: owned(address),
                service: service.to_owned(),
            }
        }
        "command" => CheckKind::Command {
            command: shlex::split(text("/usr/bin/test -f /run/ready")?)
                .ok_or("a quotation mark is not closed")?,
        },
        "ttl" => CheckKind::Ttl {
            ttl: duration(text("15s")?)?,
        },
        "pid" => {
            let pid = text("4711")?;
            CheckKind::Pid {
                pid: pid
                    .parse()
                    .map_err(|_| format!("{pid:?} is no process id"))?,
                started: None,
            }
        }
        _ => {
            return Err(format!(
                "there is no kind {kind:?}; write tcp, http, grpc, command or pid"
            ));
        }
    })
}

fn set(spec: &mut CheckSpec, option: &str) -> Result<(), String> {
    let Some((name, value)) = option.split_once('=') else {
        return Err(format!(
            "{option:?} is no option such as interval=5s; a comma that is none before an option is written twice"
        ));
    };
    let kind = spec.kind.as_str();
    let asks = spec.kind.is_repeated();
    match name {
        "name" => spec.name = Some(value.to_owned()),
        "initial" if kind != "pid" => {
            spec.initial = match value {
                "passing" => CheckState::Passing,
                "failing" => CheckState::Failing,
                _ => return Err(format!("initial: write passing or failing, not {value:?}")),
            };
        }
        "interval" if asks => spec.interval = named(name, duration(value))?,
        "timeout" if asks => spec.timeout = named(name, duration(value))?,
        "passes_after" if asks => spec.passes_after = named(name, count(value))?,
        "fails_after" if asks => spec.fails_after = named(name, count(value))?,
        "interval" | "timeout" | "passes_after" | "fails_after" | "initial" => {
            return Err(format!("a check of the kind {kind} has no option {name}"));
        }
        _ => {
            return Err(format!(
                "there is no option {name:?}; there are name, interval, timeout, passes_after, fails_after and initial"
            ));
        }
    }
    Ok(())
}

fn named<T>(option: &str, value: Result<T, impl Display>) -> Result<T, String> {
    value.map_err(|why| format!("{option}: {why}"))
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime_serde::re::humantime::parse_duration(text);
    duration.map_err(|error| {
        format!("{text:?}: {error}; write a number with a unit, for example 500ms or 10s")
    })
}

fn count(text: &str) -> Result<NonZeroU32, String> {
    let count = text.parse();
    count.map_err(|_| format!("write a number, at least 1, not {text:?}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(text: &str) -> CheckSpec {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error:?}"))
    }

    #[test]
    fn what_is_written_means_the_same_as_its_json() {
        for (text, json) in [
            ("tcp", json!({ "kind": "tcp" })),
            (
                "tcp:127.0.0.1:80",
                json!({ "kind": "tcp", "address": "127.0.0.1:80" }),
            ),
            (
                "tcp:unix:/run/x",
                json!({ "kind": "tcp", "address": "unix:/run/x" }),
            ),
            ("http", json!({ "kind": "http" })),
            ("http:/ready", json!({ "kind": "http", "url": "/ready" })),
            ("http:/a,,b", json!({ "kind": "http", "url": "/a,b" })),
            (
                "http://h:80/x",
                json!({ "kind": "http", "url": "http://h:80/x" }),
            ),
            ("grpc", json!({ "kind": "grpc" })),
            ("grpc:a.B", json!({ "kind": "grpc", "service": "a.B" })),
            ("grpc:@h:1", json!({ "kind": "grpc", "address": "h:1" })),
            (
                "grpc:a.B@h:1",
                json!({ "kind": "grpc", "address": "h:1", "service": "a.B" }),
            ),
            (
                "command:/usr/bin/test -f 'a b',name=file,interval=1s",
                json!({
                    "kind": "command", "command": ["/usr/bin/test", "-f", "a b"], "name": "file", "interval": "1s"
                }),
            ),
            (
                "ttl:15s,initial=passing",
                json!({ "kind": "ttl", "ttl": "15s", "initial": "passing" }),
            ),
            ("pid:4711", json!({ "kind": "pid", "pid": 4711 })),
            (
                "tcp,interval=5s,timeout=300ms,passes_after=2,fails_after=3,initial=passing",
                json!({
                    "kind": "tcp", "interval": "5s", "timeout": "300ms", "passes_after": 2, "fails_after": 3,
                    "initial": "passing"
                }),
            ),
        ] {
            let expected: CheckSpec = serde_json::from_value::<Value>(json)
                .and_then(serde_json::from_value)
                .unwrap();
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, parts) in [
            ("", &["no kind \"\""][..]),
            ("tpc", &["\"tpc\"", "tcp, http"]),
            ("tcp:h", &["address"]),
            ("tcp,intervall=5s", &["\"intervall\"", "interval"]),
            ("tcp,interval=5", &["interval", "500ms"]),
            ("tcp,interval=1ms", &["interval", "100ms"]),
            ("tcp,fails_after=0", &["fails_after", "at least 1"]),
            ("tcp,initial=up", &["initial", "passing"]),
            ("http:/a,b", &["\"b\"", "twice"]),
            ("http:healthz", &["url", "/healthz"]),
            ("https://h/", &["TLS"]),
            ("command", &["write command:"]),
            ("command:", &["no program"]),
            ("command:a 'b", &["quotation mark"]),
            ("ttl", &["write ttl:15s"]),
            ("ttl:15", &["500ms"]),
            ("ttl:15s,interval=1s", &["kind ttl", "interval"]),
            ("pid:me", &["\"me\""]),
            ("pid:1,initial=passing", &["kind pid", "initial"]),
        ] {
            let error = text.parse::<CheckSpec>().unwrap_err();
            let error = error.report().to_string();
            for part in parts {
                assert!(error.contains(part), "{text}: {error}");
            }
        }
    }
}
