//! What an agent decides for all of its registrations, and how a declaration becomes an instance.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use sd_core::port::Limits;
use sd_core::{Address, Endpoint, Instance, InstanceId, Registry};

use super::entry::Refused;
use super::identity::{Identity, is_long_list};
use crate::checks::Commands;
use crate::wire::{Declaration, in_hours};

/// What an agent decides for all of its registrations.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// The host that others dial where a declaration names only a port. Default none: such a declaration is refused.
    pub advertised_host: Option<String>,
    /// The zone of a declaration that names none. Default none.
    pub zone: Option<String>,
    /// Whether a loopback address or a Unix socket may be registered although other machines read the registry. Default no. The embedded
    /// registry takes any.
    pub allow_loopback: bool,
    /// Whether a declaration may name a program that the agent then runs to check the instance. By default it is refused.
    pub commands: Commands,
    /// How many registrations there may be. Default 10 000. Once half of them are there, one caller may have a quarter, or 16.
    pub most_registrations: usize,
    /// How long a caller waits for the registry to confirm. Default 5 s.
    pub confirm_within: Duration,
    /// How long what is gone is shown. Default 10 min.
    pub show_gone_for: Duration,
    /// How many that are gone are shown. Default 1000.
    pub most_gone: usize,
    /// What agents of the reference system read from Consul. Default none: it is not written.
    pub identity: Option<Identity>,
    /// How often it is verified that the routes of a service are told as they should be, in the mean. Default 60 s, or 100 ms for each service
    /// if that is longer.
    pub verify_routes_every: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            advertised_host: None,
            zone: None,
            allow_loopback: false,
            commands: Commands::Refused,
            most_registrations: 10_000,
            confirm_within: Duration::from_secs(5),
            show_gone_for: Duration::from_secs(10 * 60),
            most_gone: 1000,
            identity: None,
            verify_routes_every: Duration::from_secs(60),
        }
    }
}

/// The longest grace of a drain.
pub(crate) const LONGEST_DRAIN: Duration = Duration::from_secs(24 * 3600);
const MOST_CHECKS: usize = 16;
/// As the ids of instances have at most.
const MOST_APP_BYTES: usize = InstanceId::MAX_BYTES;
/// Consul takes 64, and the agent and the backend have some of their own.
const MOST_CONSUL_ENTRIES: usize = 44;

impl Settings {
    /// Where others dial what is declared.
    pub(crate) fn endpoint(
        &self,
        registry: &Registry,
        declaration: &Declaration,
    ) -> Result<Endpoint, Refused> {
        let endpoint = match (&declaration.address, declaration.port) {
            (Some(address), None) => address.clone(),
            (None, Some(0)) => {
                return Err(Refused::Invalid(
                    "port: expected a number from 1 to 65535, not 0".to_owned(),
                ));
            }
            (None, Some(port)) => {
                let host = self.advertised_host.as_deref().ok_or_else(|| {
                    Refused::Invalid(format!(
                        "the agent does not know the address of its host: declare address = \"HOST:{port}\" in place of the port, or \
                         set advertise in the agent's configuration"
                    ))
                })?;
                Endpoint::tcp(host, port)?
            }
            (Some(_), Some(_)) => {
                return Err(Refused::Invalid(
                    "address and port exclude each other: the address has a port".to_owned(),
                ));
            }
            (None, None) => {
                return Err(Refused::Invalid(
                    "neither address nor port is declared: one of them is needed".to_owned(),
                ));
            }
        };
        self.check_reachable(registry, declaration, &endpoint)?;
        Ok(endpoint)
    }

    /// Where others dial what was declared at another start: at the address that it had, as long as the one of this host is not known.
    pub(crate) fn endpoint_again(
        &self,
        registry: &Registry,
        declaration: &Declaration,
        before: &Endpoint,
    ) -> Result<Endpoint, Refused> {
        let is_port_alone = declaration.address.is_none() && declaration.port.is_some();
        if is_port_alone && self.advertised_host.is_none() {
            self.check_reachable(registry, declaration, before)?;
            return Ok(before.clone());
        }
        self.endpoint(registry, declaration)
    }

    fn check_reachable(
        &self,
        registry: &Registry,
        declaration: &Declaration,
        endpoint: &Endpoint,
    ) -> Result<(), Refused> {
        let (field, instead) = if declaration.port.is_some() {
            (
                "port",
                "declare an address that they can dial, or name one in advertise",
            )
        } else {
            ("address", "declare one that they can dial")
        };
        if let Address::Tcp { host, .. } = endpoint.address()
            && is_of_one_link(host)
        {
            return Err(Refused::Invalid(format!(
                "{field}: {endpoint} is link-local, and can be dialled with a zone only, which differs from host to host: {instead}"
            )));
        }
        if self.allow_loopback || !is_shared(registry) || !is_of_this_machine(endpoint) {
            return Ok(());
        }
        Err(Refused::Invalid(format!(
            "{field}: {endpoint} can only be dialled on this machine, and others read this registry: {instead}, or set allow_loopback in \
             the agent's configuration"
        )))
    }

    /// What can be refused without asking the registry.
    pub(crate) fn check(declaration: &Declaration) -> Result<(), Refused> {
        if declaration.checks.len() > MOST_CHECKS {
            return Err(Refused::Invalid(format!(
                "{} checks are declared: at most {MOST_CHECKS} are allowed",
                declaration.checks.len()
            )));
        }
        // All else is bounded by the record, the rules of checks or the body of a request.
        let app = declaration.app.as_ref();
        for (field, text) in [
            ("app_id", app.map(|app| &app.app_id)),
            ("app_instance_id", app.map(|app| &app.app_instance_id)),
        ] {
            let bytes = text.map_or(0, String::len);
            if bytes > MOST_APP_BYTES {
                return Err(Refused::Invalid(format!(
                    "app.{field}: it may have {MOST_APP_BYTES} bytes, not {bytes}"
                )));
            }
        }
        Ok(())
    }

    /// Puts what is declared onto an instance that has nothing but its identity and its address.
    pub(crate) fn dress(
        &self,
        registry: &Registry,
        bare: Instance,
        declaration: &Declaration,
        registered_at: SystemTime,
    ) -> Instance {
        let mut instance = bare
            .with_weight(declaration.weight.unwrap_or(Instance::DEFAULT_WEIGHT))
            .with_priority(declaration.priority);
        if let Some(version) = &declaration.version {
            instance = instance.with_version(version);
        }
        if let Some(zone) = declaration.zone.as_ref().or(self.zone.as_ref()) {
            instance = instance.with_zone(zone);
        }
        for tag in &declaration.tags {
            instance = instance.with_tag(tag);
        }
        let is_consul = registry.backend().name() == "consul";
        let leaves_lists = is_consul && declaration.metadata.len() > MOST_CONSUL_ENTRIES;
        for (key, value) in &declaration.metadata {
            if !(leaves_lists && is_long_list(key)) {
                instance = instance.with_metadata(key, value);
            }
        }
        match &self.identity {
            Some(identity) if is_consul => identity.sign(instance, registered_at),
            _ => instance,
        }
    }
}

/// Refuses a time-to-live that a registry does not take.
pub(crate) fn check_ttl(limits: &Limits, ttl: Duration) -> Result<(), String> {
    if limits.ttl.contains(&ttl) {
        return Ok(());
    }
    Err(format!(
        "{} is none that this registry takes: write {} to {}",
        in_hours(ttl),
        in_hours(*limits.ttl.start()),
        in_hours(*limits.ttl.end())
    ))
}

/// Whether processes of other machines read this registry.
pub(crate) fn is_shared(registry: &Registry) -> bool {
    registry.backend().name() != "memory"
}

/// Whether no other machine can dial this.
fn is_of_this_machine(endpoint: &Endpoint) -> bool {
    match endpoint.address() {
        Address::Tcp { host, .. } => is_loopback(host),
        _ => true,
    }
}

/// Whether a host is an address of IPv6 that means another host on each link.
pub(crate) fn is_of_one_link(host: &str) -> bool {
    let ip = host.parse::<Ipv6Addr>();
    ip.is_ok_and(|ip| ip.is_unicast_link_local())
}

/// Whether a host is this machine for each that asks for it.
pub(crate) fn is_loopback(host: &str) -> bool {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return ip.to_canonical().is_loopback();
    }
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn dressed(
        settings: &Settings,
        registry: &Registry,
        metadata: &[(String, String)],
    ) -> Instance {
        let declaration = serde_json::json!({
            "service": "auth", "address": "10.0.0.7:1", "metadata": metadata.iter().cloned().collect::<BTreeMap<_, _>>(),
        });
        let declaration = serde_json::from_value(declaration).unwrap();
        let bare = Instance::new("auth", "10.0.0.7:1").unwrap();
        settings.dress(registry, bare, &declaration, SystemTime::UNIX_EPOCH)
    }

    fn identity() -> Identity {
        Identity {
            cluster: "c".to_owned(),
            env: "dev".to_owned(),
            zone: "z".to_owned(),
            host_ip: "10.0.0.7".to_owned(),
            run_id: "run".to_owned(),
            started_at: SystemTime::UNIX_EPOCH,
            routes: None,
        }
    }

    #[cfg(feature = "etcd")]
    #[tokio::test]
    async fn what_only_this_machine_can_dial_is_refused_where_others_read_it() {
        let shared = sd_any::connect("etcd://127.0.0.1:1/services").unwrap();
        let own = sd_core::memory::Memory::new().connect();
        let settings = Settings {
            advertised_host: Some("127.0.0.2".to_owned()),
            ..Settings::default()
        };
        let lenient = Settings {
            allow_loopback: true,
            ..settings.clone()
        };
        for (declared, field) in [
            (
                serde_json::json!({"address": "127.0.0.1:1"}),
                "address: 127",
            ),
            (serde_json::json!({"address": "[::1]:1"}), "address: [::1]"),
            (
                serde_json::json!({"address": "localhost:1"}),
                "address: localhost",
            ),
            (
                serde_json::json!({"address": "unix:/run/x.sock"}),
                "address: unix:",
            ),
            (serde_json::json!({"port": 1}), "port: 127.0.0.2:1 can only"),
        ] {
            let mut declaration = declared;
            declaration["service"] = "auth".into();
            let declaration = serde_json::from_value(declaration).unwrap();
            let refused = settings.endpoint(&shared, &declaration).unwrap_err();
            let why = refused.to_string();
            assert!(
                why.starts_with(field) && why.contains("allow_loopback"),
                "{why}"
            );
            assert!(settings.endpoint(&own, &declaration).is_ok(), "{field}");
            assert!(lenient.endpoint(&shared, &declaration).is_ok(), "{field}");
        }
    }

    #[tokio::test]
    async fn only_consul_is_told_what_agents_of_the_reference_system_read() {
        let settings = Settings {
            identity: Some(identity()),
            ..Settings::default()
        };
        let memory = sd_core::memory::Memory::new().connect();
        let plain = dressed(&settings, &memory, &[]);
        assert!(plain.metadata().is_empty() && plain.tags().is_empty());
    }

    #[cfg(feature = "consul")]
    #[tokio::test]
    async fn methods_that_consul_has_no_room_for_are_left_out_there_and_nothing_else_is() {
        let consul = sd_any::connect("consul://127.0.0.1:1").unwrap();
        let settings = Settings {
            identity: Some(identity()),
            ..Settings::default()
        };
        let mut many = vec![("team".to_owned(), "red".to_owned())];
        many.push(("methods".to_owned(), "/a/b".to_owned()));
        many.push(("methodical".to_owned(), "yes".to_owned()));
        let few = dressed(&settings, &consul, &many);
        assert_eq!(few.metadata()["methods"], "/a/b");
        many.extend((2..60).map(|part| (format!("methods_{part}"), "/a/b".to_owned())));
        let kept = dressed(&settings, &consul, &many);
        assert!(kept.metadata().len() < 20, "{kept:?}");
        assert!(!kept.metadata().contains_key("methods"));
        assert_eq!(
            (&*kept.metadata()["team"], &*kept.metadata()["methodical"]),
            ("red", "yes")
        );
        assert_eq!(kept.metadata()["agent_id"], "c:z:10.0.0.7");
        assert!(kept.tags().contains("cluster=c"));
        let memory = sd_core::memory::Memory::new().connect();
        assert_eq!(
            dressed(&settings, &memory, &many).metadata().len(),
            many.len()
        );
        // Registering would refuse it otherwise.
        let registrar = std::sync::Arc::clone(consul.backend()).registrar().unwrap();
        registrar.record_bytes(&kept).unwrap();
    }
}
