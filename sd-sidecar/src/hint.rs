//! What a person can do about a failure.

use sd_backend::{RegistryUrl, hint_in, is_other_server};
use sd_core::{Error, ErrorKind};

/// The port that each kind of registry usually has.
const PORTS: [(&str, &str); 5] = [
    ("etcd", "2379"),
    ("consul", "8500"),
    ("zk", "2181"),
    ("redis", "6379"),
    ("isp", "9001"),
];

/// Errors of the caller mostly say it themselves, and so do those that have a hint already.
pub(crate) fn hint(url: &RegistryUrl, error: &Error) -> Option<String> {
    if hint_in(error).is_some() {
        return None;
    }
    let of_the_address = match error.kind() {
        ErrorKind::InvalidInput => return Some(misused(url, error)),
        ErrorKind::Unavailable => anothers_port(url).or_else(|| without_port(url)),
        ErrorKind::Denied | ErrorKind::Conflict => None,
        // A server of another kind answers whatever it likes, or nothing.
        _ => anothers_port(url),
    };
    if of_the_address.is_some() {
        return of_the_address;
    }
    if is_other_server(error) {
        return Some(check_the_address(url));
    }
    let hint = match error.kind() {
        ErrorKind::Unavailable => {
            "check that the registry is running and that this is its address; -v shows each attempt"
        }
        ErrorKind::Timeout => "check the address and any firewall; --timeout waits longer",
        ErrorKind::Denied => "check the user, password, certificates and permissions",
        ErrorKind::Conflict if error.op().ends_with("register") => {
            "use another --id, or stop the other instance first"
        }
        ErrorKind::RateLimited { .. } => "again later",
        ErrorKind::InvalidData => "check whether another program writes there; -v shows the answer",
        _ => return None,
    };
    Some(hint.to_owned())
}

fn misused(url: &RegistryUrl, error: &Error) -> String {
    let hosts = url.hosts().join(",");
    let schemes = match url.scheme() {
        "http" => ["etcd", "consul"],
        "https" => ["etcds", "consul+https"],
        _ if error.report().to_string().contains("expected a duration") => {
            return "a number with a unit, for example ?ttl=5s".to_owned();
        }
        _ => return "sdctl --help".to_owned(),
    };
    let [etcd, consul] = schemes.map(|scheme| format!("{scheme}://{hosts}"));
    if has_port(url, "8500") {
        consul
    } else if has_port(url, "2379") {
        etcd
    } else {
        format!("{etcd} or {consul}")
    }
}

/// Whether the port is that of another kind of registry.
fn anothers_port(url: &RegistryUrl) -> Option<String> {
    let (kind, usual) = PORTS.iter().find(|(kind, _)| is_kind(url, kind))?;
    let mut others = PORTS.iter().filter(|(other, _)| other != kind);
    let (other, port) = others.find(|(_, port)| has_port(url, port))?;
    Some(format!(
        "{port} is the usual port of {other}, and {usual} that of {kind}: check both the scheme and the port of the URL"
    ))
}

/// Where something else answers, the address or the scheme is wrong.
fn check_the_address(url: &RegistryUrl) -> String {
    let ports = PORTS.map(|(kind, port)| format!("{port} for {kind}"));
    format!(
        "another scheme than {}, or another host or port; usual ports are {}",
        url.scheme(),
        ports.join(", ")
    )
}

/// Whether a host was written without its port.
fn without_port(url: &RegistryUrl) -> Option<String> {
    let (_, usual) = PORTS.iter().find(|(kind, _)| is_kind(url, kind))?;
    let host = url.hosts().iter().find(|host| port(host).is_none())?;
    Some(format!(
        "the port, if it is another than {usual}: {}://{host}:PORT",
        url.scheme()
    ))
}

fn is_kind(url: &RegistryUrl, kind: &str) -> bool {
    url.scheme().starts_with(kind)
}

fn has_port(url: &RegistryUrl, wanted: &str) -> bool {
    url.hosts().iter().any(|host| port(host) == Some(wanted))
}

fn port(host: &str) -> Option<&str> {
    let (_, port) = host.rsplit_once(':')?;
    (!port.ends_with(']')).then_some(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_says_what_to_do_gets_no_second_hint() {
        let url = "etcd://h:8500".parse().unwrap();
        let error = Error::new(ErrorKind::Unavailable, "register")
            .with_source(sd_backend::hinted("make room", "full"));
        assert_eq!(hint(&url, &error), None);
    }

    #[test]
    fn where_something_else_answers_the_address_is_to_be_checked() {
        let error = Error::new(ErrorKind::Rejected, "list")
            .with_source(sd_backend::other_server("Consul", "404 page not found"));
        for (url, expected) in [
            ("consul://h:2379", "usual port of etcd"),
            ("consul://h:4001", "2379 for etcd"),
        ] {
            let hint = hint(&url.parse().unwrap(), &error).unwrap();
            assert!(hint.contains(expected), "{url}: {hint}");
        }
    }

    #[test]
    fn a_hint_fits_what_was_written() {
        let duration = "ttl: invalid value: string \"5\", expected a duration";
        for (url, kind, why, expected) in [
            (
                "etcd://h:8500",
                ErrorKind::Unavailable,
                "",
                "usual port of consul",
            ),
            (
                "consul://h:2379",
                ErrorKind::NotFound,
                "",
                "usual port of etcd",
            ),
            ("memory://", ErrorKind::InvalidInput, "", "--help"),
            (
                "etcds://h:8500",
                ErrorKind::InvalidData,
                "",
                "usual port of consul",
            ),
            (
                "consul://h:2379",
                ErrorKind::Timeout,
                "",
                "usual port of etcd",
            ),
            (
                "etcd://h/services",
                ErrorKind::Unavailable,
                "",
                "etcd://h:PORT",
            ),
            (
                "consul://[::1]",
                ErrorKind::Unavailable,
                "",
                "consul://[::1]:PORT",
            ),
            ("etcd://h:2379", ErrorKind::Unavailable, "", "is running"),
            (
                "etcd://h:2379?ttl=5",
                ErrorKind::InvalidInput,
                duration,
                "?ttl=5s",
            ),
            (
                "http://h:2379",
                ErrorKind::InvalidInput,
                "",
                "etcd://h:2379",
            ),
            (
                "http://h:8500",
                ErrorKind::InvalidInput,
                "",
                "consul://h:8500",
            ),
            (
                "https://h",
                ErrorKind::InvalidInput,
                "",
                "etcds://h or consul+https://h",
            ),
        ] {
            let error = Error::new(kind, "list").because(why);
            let hint = hint(&url.parse().unwrap(), &error).unwrap();
            assert!(hint.contains(expected), "{url}: {hint}");
        }
    }
}
