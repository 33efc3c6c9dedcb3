//! What agents of the reference system look for in Consul, and how they name themselves there.

use std::time::SystemTime;

use sd_core::Instance;

use crate::wire::{meta, rfc3339_seconds};

/// What is written to the metadata and tags of every registration in Consul, so that agents of the reference system route to it.
///
/// They take an instance into account if its `env` is theirs, and find its cluster in the tag `cluster=…`. A declaration that has one of
/// these entries itself keeps it. Nothing of this is written to other registries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster that this host belongs to.
    pub cluster: String,
    /// The environment, such as `prod`.
    pub env: String,
    /// The zone, for the name of the agent.
    pub zone: String,
    /// The address of this host.
    pub host_ip: String,
    /// Names this run of the agent.
    pub run_id: String,
    /// When this run began.
    pub started_at: SystemTime,
    /// The folder of Consul's keys where the routes of services are told, for gateways of the reference system. If there is none, they are
    /// not told.
    pub routes: Option<String>,
}

impl Identity {
    /// How this agent is called: the same after each start.
    pub fn agent_id(&self) -> String {
        format!("{}:{}:{}", self.cluster, self.zone, self.host_ip)
    }

    /// Adds to a record what it does not say itself.
    pub(crate) fn sign(&self, instance: Instance, registered_at: SystemTime) -> Instance {
        let service = instance.service().as_str();
        let said = |key: &str| instance.metadata().get(key).cloned();
        let namespace = said(meta::NAMESPACE).unwrap_or_else(|| "default".to_owned());
        let time = |time| rfc3339_seconds(time);
        let mut signs = vec![
            (meta::AGENT_ID, self.agent_id()),
            ("agent_run_id", self.run_id.clone()),
            ("agent_host_ip", self.host_ip.clone()),
            ("agent_started_at", time(self.started_at)),
            (meta::ENV, self.env.clone()),
            ("dns", format!("{service}.{namespace}.svc.cluster.local")),
            (meta::NAMESPACE, namespace.clone()),
            (meta::WEIGHT, instance.weight().to_string()),
            ("zone", instance.zone().unwrap_or(&self.zone).to_owned()),
            ("instance_id", instance.id().to_string()),
        ];
        if let Some(version) = instance.version() {
            signs.push(("version", version.to_owned()));
        }
        if let Some(prefix) = &self.routes {
            let env = said(meta::ENV).unwrap_or_else(|| self.env.clone());
            let folder = format!("{}/{env}/{namespace}", prefix.trim_matches('/'));
            signs.push(("route_config_ref", format!("{folder}/{service}/current")));
        }
        signs.retain(|(key, _)| !instance.metadata().contains_key(*key));
        // This one is the registration's and not the client's.
        signs.push((meta::RUN_DATE, time(registered_at)));
        let cluster = format!("cluster={}", self.cluster);
        signs
            .into_iter()
            .fold(instance.with_tag(cluster), |instance, (key, value)| {
                instance.with_metadata(key, value)
            })
    }
}

/// Whether this entry of metadata is part of a list that agents of the reference system do not write, and that may be longer than Consul
/// takes.
pub(crate) fn is_long_list(key: &str) -> bool {
    [meta::METHODS, meta::HTTP_ROUTES].iter().any(|list| {
        key.strip_prefix(list)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    })
}
