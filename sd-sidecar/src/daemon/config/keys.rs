//! The keys of the configuration: the one definition of which file, flags, environment variables, help and README are made.

/// One key. In a file it stands under its name, of which a part before a dot is a table.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As in a file: `limits.connections`.
    pub name: &'static str,
    /// What its value is, as `--help` shows it.
    pub value: &'static str,
    /// What counts if nothing is said. Empty: none.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
    /// Whether it is a list: an array in a file; in the environment with commas, and as a flag with commas or repeated.
    pub list: bool,
    /// Whether a reload takes a new value.
    pub reload: bool,
}

impl Key {
    /// The key with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// Its flag without the two dashes: `limits-connections`.
    pub fn flag(&self) -> String {
        self.name.replace(['.', '_'], "-")
    }

    /// Its environment variable: `SD_AGENT_LIMITS_CONNECTIONS`.
    pub fn variable(&self) -> String {
        format!("SD_AGENT_{}", self.name.replace('.', "_").to_uppercase())
    }

    /// Whether it is true or false, so that its flag needs no value.
    pub fn is_switch(&self) -> bool {
        self.value == SWITCH
    }
}

const SWITCH: &str = "true|false";

const fn key(
    name: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> Key {
    Key {
        name,
        value,
        default,
        help,
        list: false,
        reload: false,
    }
}

impl Key {
    const fn list(mut self) -> Self {
        self.list = true;
        self
    }

    const fn reloaded(mut self) -> Self {
        self.reload = true;
        self
    }
}

/// All of them, in the order in which they are shown.
pub const KEYS: &[Key] = &[
    key(
        "registry",
        "URL",
        "memory://",
        "the URL of the registry, as `etcd://127.0.0.1:2379/services`; by default one inside this process",
    ),
    key(
        "listen",
        "ADDRESS",
        "127.0.0.1:15010",
        "where to listen: `127.0.0.1:15010`, `tls:0.0.0.0:15443` or `unix:/run/sd-agent.sock`",
    )
    .list(),
    key(
        "socket_mode",
        "OCTAL",
        "0660",
        "the mode of Unix sockets: which users may connect",
    ),
    key(
        "insecure",
        SWITCH,
        "false",
        "listen without TLS on an address that is not loopback",
    ),
    key(
        "hosts",
        "NAME",
        "",
        "further names of this host that a request may ask for in its `Host` header, without a port",
    )
    .list()
    .reloaded(),
    key(
        "origins",
        "ORIGIN",
        "",
        "web pages that may use the agent, as `https://admin.example.org`",
    )
    .list()
    .reloaded(),
    key(
        "advertise",
        "HOST",
        "",
        "the name or address of this host that others dial; by default the address of its default route",
    ),
    key(
        "allow_loopback",
        SWITCH,
        "false",
        "register loopback addresses and Unix sockets at a registry that others read",
    ),
    key("zone", "ZONE", "", "the zone of this host"),
    key(
        "cluster_name",
        "NAME",
        "default",
        "the first part of the agent's id, `cluster_name:zone:host`",
    ),
    key("env", "NAME", "dev", "the environment of this host"),
    key(
        "route_prefix",
        "FOLDER",
        "",
        "the folder of Consul's keys where methods of services are told to gateways, `routes` for those of go-consul; by default they are not",
    ),
    key(
        "ttl",
        "DURATION",
        "10s",
        "how long a record outlives an agent that is gone, unless a registration says otherwise",
    ),
    key(
        "state",
        "FILE",
        "",
        "where registrations are kept for the next start, in a folder that is made if the one above exists; by default `registrations.json` in systemd's state directory, or nowhere",
    ),
    key(
        "keep_on_stop",
        SWITCH,
        "false",
        "leave the records at a stop, for the next agent to continue; needs `state`, and `drain` does not count then",
    )
    .reloaded(),
    key(
        "drain",
        "DURATION",
        "0s",
        "how long readers see everything as not ready at a stop, before it is deregistered; not with `keep_on_stop`",
    )
    .reloaded(),
    key(
        "stop_within",
        "DURATION",
        "8s",
        "how long deregistering may take at a stop; what is left then expires with its time-to-live",
    ),
    key(
        "strict_deregister",
        SWITCH,
        "false",
        "answer clients of go-consul with an error where what they deregister is not registered",
    ),
    key(
        "tokens",
        "FILE",
        "",
        "the tokens of callers, a TOML or YAML file",
    )
    .reloaded(),
    key(
        "tls.cert",
        "FILE",
        "",
        "the certificate (chain) for `tls:` addresses, PEM",
    )
    .reloaded(),
    key(
        "tls.key",
        "FILE",
        "",
        "the key of the certificate, PEM",
    )
    .reloaded(),
    key(
        "tls.client_ca",
        "FILE",
        "",
        "the issuers of client certificates, PEM, without one of which `tls:` addresses let no client in. Certificates are X.509 version 3",
    )
    .reloaded(),
    key(
        "limits.body",
        "BYTES",
        "1048576",
        "the longest body of a request, at most 1048576",
    ),
    key(
        "limits.connections",
        "N",
        "4608",
        "connections at each address; a further one is answered with 503",
    )
    .reloaded(),
    key(
        "limits.streams",
        "N",
        "4096",
        "streams of events and long polls at once; once half are open, one caller may have a quarter of them, or 16",
    ),
    key(
        "limits.registrations",
        "N",
        "10000",
        "registrations at once; once there are half of them, one caller may have a quarter, or 16",
    ),
    key(
        "limits.requests_per_second",
        "N",
        "1000",
        "requests of one caller in a second; a further one is answered with 429. Those for `/healthz` and `/readyz` do not count",
    )
    .reloaded(),
    key(
        "checks.commands",
        SWITCH,
        "false",
        "let registrations name programs that check them, which the agent then runs as its own user",
    ),
    key(
        "log.level",
        "FILTER",
        "info",
        "what to log: `error`, `warn`, `info`, `debug`, `trace`, `off`, or a list as `info,sd_core=debug`",
    )
    .reloaded(),
    key(
        "log.format",
        "text|json",
        "text",
        "how each line of the log is written to stderr",
    ),
    key(
        "log.access",
        SWITCH,
        "true",
        "log each request, with the target `access`",
    )
    .reloaded(),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_keys_share_a_flag_or_a_variable() {
        let flags: BTreeSet<_> = KEYS.iter().map(Key::flag).collect();
        let variables: BTreeSet<_> = KEYS.iter().map(Key::variable).collect();
        assert_eq!((flags.len(), variables.len()), (KEYS.len(), KEYS.len()));
        assert!(!flags.contains("config") && !flags.contains("check"));
    }

    #[test]
    fn a_name_makes_flag_and_variable() {
        let key = Key::named("limits.requests_per_second").unwrap();
        assert_eq!(key.flag(), "limits-requests-per-second");
        assert_eq!(key.variable(), "SD_AGENT_LIMITS_REQUESTS_PER_SECOND");
    }

    #[test]
    fn the_table_of_the_readme_is_this_one() {
        let readme = include_str!("../../../README.md");
        for key in KEYS {
            let default = if key.default.is_empty() {
                String::new()
            } else {
                format!("`{}`", key.default)
            };
            let reload = if key.reload { "yes" } else { "" };
            let row = format!("| `{}` | {default} | {reload} | {} |", key.name, key.help);
            assert!(readme.contains(&row), "{row}");
        }
    }
}
