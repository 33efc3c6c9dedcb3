//! What a check may say.

use std::collections::HashSet;
use std::fmt::Display;
use std::time::Duration;

use sd_core::{Endpoint, Printable, brief};

use super::{CheckKind, CheckSpec};

const NAME_BYTES: usize = 64;
const URL_BYTES: usize = 2048;
const SERVICE_BYTES: usize = 256;
const ARGUMENTS: usize = 64;
const COMMAND_BYTES: usize = 4096;

const MILLISECOND: Duration = Duration::from_millis(1);
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);
const LONGEST_TTL: Duration = Duration::from_secs(24 * 3600);

/// The name of each check. What is wrong is said of the first check that has a fault.
pub(super) fn names(specs: &[CheckSpec]) -> Result<Vec<String>, String> {
    if specs.len() > CheckSpec::MOST {
        return Err(format!(
            "checks: there may be at most {}, not {}",
            CheckSpec::MOST,
            specs.len()
        ));
    }
    let mut taken = HashSet::new();
    for spec in specs {
        check(spec)?;
        if let Some(name) = &spec.name
            && !taken.insert(name.clone())
        {
            return Err(format!("name: two checks are called {name:?}"));
        }
    }
    let name = |spec: &CheckSpec| {
        if let Some(name) = &spec.name {
            return name.clone();
        }
        let kind = spec.kind.as_str();
        let numbered = (2..).map(|number| format!("{kind}-{number}"));
        let mut names = [kind.to_owned()].into_iter().chain(numbered);
        // There is one: more names than checks are tried.
        names
            .find(|name| taken.insert(name.clone()))
            .unwrap_or_default()
    };
    Ok(specs.iter().map(name).collect())
}

pub(super) fn check(spec: &CheckSpec) -> Result<(), String> {
    let called = spec.name.as_deref().unwrap_or(spec.kind.as_str());
    let done = check_name(spec)
        .and_then(|()| check_kind(&spec.kind))
        .and_then(|()| check_times(spec));
    done.map_err(|why| format!("check {}: {why}", brief(Printable(called))))
}

fn check_name(spec: &CheckSpec) -> Result<(), String> {
    let Some(name) = &spec.name else {
        return Ok(());
    };
    if name.is_empty() || name.len() > NAME_BYTES {
        let length = name.len();
        return Err(format!(
            "name: it must have 1 to {NAME_BYTES} bytes, not {length}"
        ));
    }
    if !name.chars().all(Printable::is_printable) {
        return Err("name: it contains a character that cannot be printed".to_owned());
    }
    Ok(())
}

fn check_times(spec: &CheckSpec) -> Result<(), String> {
    if !spec.kind.is_repeated() {
        return Ok(());
    }
    within(
        "interval",
        spec.interval,
        SHORTEST_INTERVAL,
        LONGEST_INTERVAL,
    )?;
    within("timeout", spec.timeout, MILLISECOND, LONGEST_TIMEOUT)
}

fn check_kind(kind: &CheckKind) -> Result<(), String> {
    match kind {
        CheckKind::Tcp { address } => address.as_deref().map_or(Ok(()), check_address),
        CheckKind::Http { url } => {
            let url = url.as_deref().unwrap_or(HttpTarget::DEFAULT_PATH);
            HttpTarget::parse(url).map(drop)
        }
        CheckKind::Grpc { address, service } => {
            if service.len() > SERVICE_BYTES {
                let length = service.len();
                return Err(format!(
                    "service: it may have {SERVICE_BYTES} bytes, not {length}"
                ));
            }
            address.as_deref().map_or(Ok(()), check_address)
        }
        CheckKind::Command { command } => check_command(command),
        CheckKind::Ttl { ttl } => within("ttl", *ttl, SHORTEST_INTERVAL, LONGEST_TTL),
        CheckKind::Pid { pid, .. } => match i32::try_from(*pid) {
            Ok(1..) => Ok(()),
            _ => Err(format!("pid: {pid} is no process id")),
        },
    }
}

fn check_command(command: &[String]) -> Result<(), String> {
    if command.first().is_none_or(String::is_empty) {
        return Err("command: it names no program".to_owned());
    }
    if command.len() > ARGUMENTS {
        let words = command.len();
        return Err(format!(
            "command: it may have {ARGUMENTS} words, not {words}"
        ));
    }
    let bytes: usize = command.iter().map(String::len).sum();
    if bytes > COMMAND_BYTES {
        return Err(format!(
            "command: it may have {COMMAND_BYTES} bytes, not {bytes}"
        ));
    }
    if command.iter().any(|word| word.contains('\0')) {
        return Err("command: it contains a NUL, which no argument can".to_owned());
    }
    Ok(())
}

fn check_address(address: &str) -> Result<(), String> {
    endpoint("address", address).map(drop)
}

/// The address in a field.
pub(crate) fn endpoint(field: &str, address: &str) -> Result<Endpoint, String> {
    let endpoint = address.parse::<Endpoint>();
    endpoint.map_err(|error| format!("{field}: {}", error.report()))
}

fn within(field: &str, value: Duration, least: Duration, most: Duration) -> Result<(), String> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let text = |duration| humantime_serde::re::humantime::format_duration(duration);
    let (least, most): (&dyn Display, &dyn Display) = (&text(least), &text(most));
    Err(format!(
        "{field}: it must be {least} to {most}, not {}",
        text(value)
    ))
}

/// Where and what an HTTP check asks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "checks"),
    allow(dead_code, reason = "only parsed where nothing is checked")
)]
pub(crate) struct HttpTarget {
    /// `None` for the instance's address.
    pub(crate) endpoint: Option<Endpoint>,
    /// The path, and a query if there is one.
    pub(crate) path: String,
}

impl HttpTarget {
    pub(crate) const DEFAULT_PATH: &str = "/healthz";
    const DEFAULT_PORT: u16 = 80;

    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        if url.len() > URL_BYTES {
            return Err(format!(
                "url: it may have {URL_BYTES} bytes, not {}",
                url.len()
            ));
        }
        if let Some(odd) = url.chars().find(|c| !c.is_ascii_graphic() || *c == '#') {
            return Err(format!(
                "url: it contains {odd:?}, which must be percent-encoded"
            ));
        }
        if url.starts_with('/') {
            return Ok(Self {
                endpoint: None,
                path: url.to_owned(),
            });
        }
        if url.starts_with("https://") {
            return Err(
                "url: TLS is not spoken here; check with tcp, or with a command such as curl"
                    .to_owned(),
            );
        }
        let Some(rest) = url.strip_prefix("http://") else {
            return Err(
                "url: it must be a path such as /healthz, or begin with http://".to_owned(),
            );
        };
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(at);
        let has_port = host
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.ends_with(']'));
        let endpoint = if has_port {
            endpoint("url", host)?
        } else {
            endpoint("url", &format!("{host}:{}", Self::DEFAULT_PORT))?
        };
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self {
            endpoint: Some(endpoint),
            path: format!("{slash}{path}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(name: Option<&str>) -> CheckSpec {
        let mut spec = CheckSpec::new(CheckKind::Tcp { address: None });
        spec.name = name.map(str::to_owned);
        spec
    }

    #[test]
    fn each_check_has_a_name_of_its_own() {
        let specs = [tcp(None), tcp(Some("tcp")), tcp(None), tcp(Some("tcp-2"))];
        assert_eq!(names(&specs).unwrap(), ["tcp-3", "tcp", "tcp-4", "tcp-2"]);
        let error = names(&[tcp(Some("a")), tcp(Some("a"))]).unwrap_err();
        assert!(error.contains("\"a\""), "{error}");
        assert!(names(&vec![tcp(None); 16]).is_ok());
        assert!(
            names(&vec![tcp(None); 17])
                .unwrap_err()
                .contains("at most 16")
        );
    }

    #[test]
    fn what_is_out_of_bounds_is_named_with_its_field() {
        let kind = |kind| check(&CheckSpec::new(kind));
        let http = |url: &str| {
            kind(CheckKind::Http {
                url: Some(url.to_owned()),
            })
        };
        let command = |command: &[&str]| {
            let command = command.iter().map(|&word| word.to_owned()).collect();
            kind(CheckKind::Command { command })
        };
        let ttl = |millis| {
            kind(CheckKind::Ttl {
                ttl: Duration::from_millis(millis),
            })
        };
        let pid = |pid| kind(CheckKind::Pid { pid, started: None });
        let tcp_at = |address: &str| {
            kind(CheckKind::Tcp {
                address: Some(address.to_owned()),
            })
        };
        let mut slow = tcp(Some("slow"));
        slow.timeout = Duration::from_secs(61);
        for (done, parts) in [
            (
                check(&slow),
                &["check slow: timeout", "1ms to 1m", "1m 1s"][..],
            ),
            (check(&tcp(Some(""))), &["name", "1 to 64"]),
            (check(&tcp(Some("a\nb"))), &["a\\nb", "name", "printed"]),
            (tcp_at("h"), &["check tcp: address"]),
            (tcp_at("0.0.0.0:80"), &["address", "0.0.0.0"]),
            (http("healthz"), &["url", "/healthz"]),
            (http("https://h/"), &["url", "TLS"]),
            (http("http://"), &["url"]),
            (http("http://user@h/"), &["url", "'@'"]),
            (http("/a b"), &["url", "' '", "percent-encoded"]),
            (http("/a#b"), &["url", "'#'"]),
            (http(&format!("/{}", "a".repeat(3000))), &["url", "2048"]),
            (command(&[]), &["command", "no program"]),
            (command(&["a\0"]), &["command", "NUL"]),
            (command(&["a"; 65]), &["command", "64 words, not 65"]),
            (command(&["a", &"b".repeat(5000)]), &["4096 bytes"]),
            (ttl(99), &["ttl", "100ms to 1day"]),
            (pid(0), &["pid", "0"]),
            (pid(u32::MAX), &["pid"]),
        ] {
            let error = done.expect_err(&format!("{parts:?}"));
            for part in parts {
                assert!(error.contains(part), "{part}: {error}");
            }
            assert!(!error.contains('\n') && error.len() < 512, "{error}");
        }
    }

    #[test]
    fn a_url_is_a_path_or_says_where() {
        for (url, endpoint, path) in [
            ("/ready?deep=1", None, "/ready?deep=1"),
            ("http://h:8080/ready", Some("h:8080"), "/ready"),
            ("http://h", Some("h:80"), "/"),
            ("http://[::1]/x", Some("[::1]:80"), "/x"),
            ("http://[::1]:81?x", Some("[::1]:81"), "/?x"),
        ] {
            let target = HttpTarget::parse(url).unwrap();
            let shown = target.endpoint.as_ref().map(ToString::to_string);
            assert_eq!((shown.as_deref(), &*target.path), (endpoint, path), "{url}");
        }
    }
}
