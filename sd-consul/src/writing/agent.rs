//! What the agent itself keeps: services with their checks, which it brings into the catalog a moment later.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use sd_core::{ErrorKind, Result};
use serde::Deserialize;
use serde_json::json;

use crate::client::Client;
use crate::client::filter::{ignoring_case, quoted};
use crate::client::go_duration::go_duration;
use crate::client::kv::Committed;
use crate::codec::{CatalogRecord, Service, ServiceDefinition};
use crate::health_check::{Check, check_id};
use crate::maintenance::{Reason, maintenance_id};

/// The time-to-live of a check that nothing passes: ten years.
const NEVER_PASSES: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What the agent says of itself.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AgentSelf {
    config: AgentNode,
}

/// The node of an agent.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AgentNode {
    #[serde(rename = "NodeName")]
    pub(crate) name: String,
    pub(crate) datacenter: String,
}

/// A service of the agent.
#[derive(Debug)]
pub(crate) struct AgentService {
    pub(crate) service: Service,
    pub(crate) checks: Vec<Check>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceHealth {
    /// In every such answer of Consul, and in none of a gateway.
    #[expect(dead_code, reason = "only that it is there matters")]
    aggregated_status: String,
    service: Option<Service>,
    checks: Option<Vec<Check>>,
}

impl Client {
    /// The service with this id; `None` if the agent has none.
    pub(crate) async fn agent_service(
        &self,
        op: &'static str,
        id: &str,
    ) -> Result<Option<AgentService>> {
        let path = ["agent", "health", "service", "id", id];
        let answer = self.send(self.local(op, Method::GET, &path)).await?;
        // The status says how well the service is. Refusals have the same ones, but are text.
        let is_told = matches!(answer.status, 200 | 404 | 429 | 503);
        if is_told && let Ok(told) = answer.json::<ServiceHealth>(op) {
            return Ok(told.service.map(|service| AgentService {
                service,
                checks: told.checks.unwrap_or_default(),
            }));
        }
        answer.success(op)?.json::<ServiceHealth>(op)?;
        Ok(None)
    }

    /// The agent's node; `None` if the token may not read it.
    pub(crate) async fn agent_node(&self, op: &'static str) -> Result<Option<AgentNode>> {
        let request = self.local(op, Method::GET, &["agent", "self"]);
        match self.call(request).await {
            Err(error) if error.kind() == ErrorKind::Denied => Ok(None),
            told => Ok(Some(told?.json::<AgentSelf>(op)?.config)),
        }
    }

    /// The id of a service of the agent that differs from `id` only in case, if there is one. To the catalog both are the same.
    pub(crate) async fn id_of_other_case(
        &self,
        op: &'static str,
        id: &str,
    ) -> Result<Option<String>> {
        let same = quoted(&ignoring_case(id));
        let filter = format!("ID matches {same} and ID != {}", quoted(id));
        let request = self.local(op, Method::GET, &["agent", "services"]);
        let answer = self.call(request.with("filter", filter)).await?;
        let found: BTreeMap<String, Service> = answer.json(op)?;
        Ok(found.into_values().next().map(|service| service.id))
    }

    /// Puts a service with its check, or replaces it.
    pub(crate) async fn put_service(
        &self,
        op: &'static str,
        definition: &ServiceDefinition,
    ) -> Result<()> {
        let path = ["agent", "service", "register"];
        let request = self.local(op, Method::PUT, &path).json(definition)?;
        self.call(request).await.map(drop)
    }

    /// Replaces a service in the catalog if it still is as it was found at this node. Says whether it was.
    pub(crate) async fn replace_in_catalog(
        &self,
        op: &'static str,
        node: &str,
        record: &CatalogRecord<'_>,
    ) -> Result<bool> {
        let steps = [json!({ "Service": { "Verb": "cas", "Node": node, "Service": record } })];
        Ok(matches!(
            self.local_txn(op, &steps).await?,
            Committed::Done(_)
        ))
    }

    /// Removes a service from the catalog if it still is as it was found at this node. Says whether it was.
    pub(crate) async fn remove_from_catalog(
        &self,
        op: &'static str,
        node: &str,
        found: &Service,
    ) -> Result<bool> {
        let found =
            json!({ "ID": found.id, "Service": found.name, "ModifyIndex": found.modify_index });
        let steps =
            [json!({ "Service": { "Verb": "delete-cas", "Node": node, "Service": found } })];
        Ok(matches!(
            self.local_txn(op, &steps).await?,
            Committed::Done(_)
        ))
    }

    /// Removes a service. Fine if it is not there.
    pub(crate) async fn remove_service(&self, op: &'static str, id: &str) -> Result<()> {
        let path = ["agent", "service", "deregister", id];
        match self.call(self.local(op, Method::PUT, &path)).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.map(drop),
        }
    }

    /// Puts a service into maintenance mode for this reason unless it is in it already, or ends it with `None`.
    pub(crate) async fn set_maintenance(
        &self,
        op: &'static str,
        id: &str,
        reason: Option<&Reason>,
    ) -> Result<()> {
        let path = ["agent", "service", "maintenance", id];
        let mut request = self.local(op, Method::PUT, &path);
        request = request.with("enable", reason.is_some().to_string());
        if let Some(reason) = reason {
            request = request.with("reason", reason.text());
        }
        self.call(request).await.map(drop)
    }

    /// Puts a service into maintenance mode for this reason, whether or not it is in it for another one. Ending it in between would show
    /// readers that it is ready, so its check is written over. The agent takes it with a time-to-live alone, after which it stays critical.
    pub(crate) async fn replace_maintenance(
        &self,
        op: &'static str,
        id: &str,
        reason: &Reason,
    ) -> Result<()> {
        let check = json!({
            "ID": maintenance_id(id),
            "Name": "Service Maintenance Mode",
            "ServiceID": id,
            "Status": "critical",
            "TTL": go_duration(NEVER_PASSES),
            "Notes": reason.text(),
        });
        let request = self.local(op, Method::PUT, &["agent", "check", "register"]);
        self.call(request.json(&check)?).await.map(drop)
    }

    /// Says that a service is well, for another time-to-live. `NotFound` if its check is not there.
    pub(crate) async fn pass_check(&self, op: &'static str, service_id: &str) -> Result<()> {
        let check = check_id(service_id);
        let path = ["agent", "check", "pass", &check];
        self.call(self.local(op, Method::PUT, &path))
            .await
            .map(drop)
    }
}
