//! What operators say of records, at the agent that keeps them, over a running Consul.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::faults::OwnAgent;
use common::operator::service_id;
use common::{
    LONG, Operator, TTL, config_at, eventually, instance, own_server, own_server_with, registry_at,
    server, service,
};
use sd_core::{ErrorKind, Override, Registry};
use sd_testing::{HttpProxy, HttpRequest, HttpRule, HttpState, faults};
use serde_json::json;
use server_programs::LocalServer;
use tokio::time::timeout;

const WRITE_RECORD: &str = "/v1/agent/service/register";
const WRITE_OVERRIDE: &str = "/v1/agent/check/register";

/// A registry that speaks to the agent through a proxy, and is patient with what the proxy does.
async fn behind_proxy() -> (HttpProxy, Registry) {
    let target = server().strip_prefix("http://").unwrap().parse().unwrap();
    let proxy = HttpProxy::start(target).await.unwrap();
    let config = config_at(&proxy.url()).with_request_timeout(LONG);
    let registry = sd_consul::connect(config).unwrap();
    (proxy, registry)
}

/// Waits for a request with this path in this state.
async fn seen(proxy: &HttpProxy, path: &str, state: HttpState) {
    let is_there = |request: &HttpRequest| request.path == path && request.state == state;
    let seen = proxy.seen(|requests| requests.iter().any(is_there));
    timeout(LONG, seen).await.unwrap();
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn an_agent_that_does_not_keep_the_record_says_which_one_does() {
    let server = own_server().await;
    let program = server.program().clone();
    let agent = own_server_with(|mine| mine.client_of(&program)).await;
    let service = service();
    let owner = registry_at(&program.url());
    let guard = owner
        .register(instance(&service, 1))
        .ttl(TTL)
        .await
        .unwrap();
    let elsewhere = registry_at(&agent.program().url());
    let record = guard.record_id();
    for refused in [
        elsewhere.set_override(record, Override::Draining).await,
        elsewhere.remove_record(record).await,
    ] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{}", error.report());
        let report = error.report().to_string();
        assert!(report.contains(program.node()), "{report}");
    }
    let drain = owner.set_override(record, Override::Draining);
    drain.await.unwrap();
    let seen = elsewhere.list(&service).await.unwrap();
    assert_eq!(seen.instances()[0].overridden(), Some(Override::Draining));
}

/// Its own tools are for that.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn what_another_program_keeps_or_maintains_is_not_touched() {
    let (service, operator) = (service(), Operator::at(&server()));
    let registry = registry_at(&server());
    let guard = registry.register(instance(&service, 1)).ttl(TTL).await;
    let guard = guard.unwrap();
    let (record, id) = (guard.record_id(), service_id(guard.record_id()));
    let maintenance = format!("/v1/agent/service/maintenance/{id}");
    let enable = format!("{maintenance}?enable=true&reason=disk");
    operator.put(&enable, "").await;
    for said in [
        registry.set_override(record, Override::Draining).await,
        registry.clear_override(record).await,
    ] {
        let error = said.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let report = error.report().to_string();
        assert!(
            report.contains("disk") && report.contains("maint"),
            "{report}"
        );
    }
    operator
        .put(&format!("{maintenance}?enable=false"), "")
        .await;

    operator
        .register(&service, "theirs", r#","Address":"10.0.0.9","Port":9"#)
        .await;
    let listed = registry.list(&service).await.unwrap();
    let theirs = listed.instances().iter();
    let mut theirs = theirs.filter(|one| one.id() != &record.id);
    let theirs = theirs.next().unwrap().record_id();
    for refused in [
        registry.set_override(&theirs, Override::Draining).await,
        registry.remove_record(&theirs).await,
    ] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{}", error.report());
        let report = error.report().to_string();
        let command = format!("consul services deregister -id='theirs-of-{service}'");
        assert!(report.contains(&command), "{report}");
    }
    assert_eq!(registry.list(&service).await.unwrap().len(), 2);
    operator.deregister(&service, "theirs").await;
    guard.deregister().await.unwrap();
}

/// As it is left where the next run takes the id while the agent has the service.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn what_was_said_of_an_earlier_run_is_ignored_and_cleared() {
    let (service, operator) = (service(), Operator::at(&server()));
    let registry = registry_at(&server());
    let guard = registry.register(instance(&service, 1)).ttl(TTL).await;
    let guard = guard.unwrap();
    let id = service_id(guard.record_id());
    let reason = "sd:%20override%20draining%202a";
    let target = format!("/v1/agent/service/maintenance/{id}?enable=true&reason={reason}");
    operator.put(&target, "").await;
    let listed = registry.list(&service).await.unwrap();
    assert_eq!(*listed.instances()[0], *guard.instance());
    eventually("cleared", LONG, async || {
        let checks = operator.get("/v1/agent/checks").await;
        checks.get(format!("_service_maintenance:{id}")).is_none()
    })
    .await;
    guard.deregister().await.unwrap();
}

/// As an owner does that read why it is in maintenance mode, and became ready, before the override was there.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn an_override_that_was_written_away_at_once_is_written_again() {
    let (service, agent) = (service(), Operator::at(&server()));
    let owner = registry_at(&server());
    let guard = owner.register(instance(&service, 1)).ttl(TTL).await;
    let guard = guard.unwrap();
    let record = guard.record_id();
    let (proxy, operator) = behind_proxy().await;
    // Until the override is gone again, the operator does not see it in the catalog.
    proxy.set_rules([HttpRule::new("GET", "/v1/health/service").answer(200, "[]")]);
    let writing_away = async {
        seen(&proxy, WRITE_OVERRIDE, HttpState::Answered(200)).await;
        let id = service_id(record);
        let target = format!("/v1/agent/service/maintenance/{id}?enable=false");
        agent.put(&target, "").await;
        proxy.set_rules([]);
    };
    let drain = operator.set_override(record, Override::Draining);
    let (said, ()) = tokio::join!(drain, writing_away);
    said.unwrap();
    let listed = owner.list(&service).await.unwrap();
    assert_eq!(listed.instances()[0].overridden(), Some(Override::Draining));
    guard.deregister().await.unwrap();
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn an_override_that_never_stays_is_an_error_after_five_writes() {
    let service = service();
    let owner = registry_at(&server());
    let guard = owner.register(instance(&service, 1)).ttl(TTL).await;
    let guard = guard.unwrap();
    let (proxy, operator) = behind_proxy().await;
    proxy.set_rules([HttpRule::new("PUT", WRITE_OVERRIDE).answer(200, "")]);
    let said = operator.set_override(guard.record_id(), Override::Draining);
    let error = said.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
    let report = error.report().to_string();
    assert!(report.contains("written 5 times"), "{report}");
    let requests = proxy.requests();
    let writes = requests
        .iter()
        .filter(|request| request.path == WRITE_OVERRIDE);
    assert_eq!(writes.count(), 5);
    guard.deregister().await.unwrap();
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn an_owner_that_becomes_ready_leaves_an_override_of_that_moment() {
    let service = service();
    let (proxy, owner) = behind_proxy().await;
    let operator = registry_at(&server());
    let unready = instance(&service, 1).with_ready(false);
    let guard = owner.register(unready).ttl(TTL).await.unwrap();
    // By now it has read that it is in maintenance mode for its own reason.
    proxy.set_rules([HttpRule::new("PUT", WRITE_RECORD)
        .delay(Duration::from_secs(1))
        .times(1)]);
    let drain = async {
        seen(&proxy, WRITE_RECORD, HttpState::Waiting).await;
        operator
            .set_override(guard.record_id(), Override::Draining)
            .await
    };
    let (ready, said) = tokio::join!(guard.set_ready(true), drain);
    ready.unwrap();
    said.unwrap();
    let listed = operator.list(&service).await.unwrap();
    assert_eq!(listed.instances()[0].overridden(), Some(Override::Draining));
    guard.deregister().await.unwrap();
}

/// The catalog shows it at the agent's own node for a moment after that, and at another one as long as it lives there.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn a_record_that_only_the_catalog_has_is_gone_at_the_agents_own_node_alone() {
    let (service, agent) = (service(), Operator::at(&server()));
    let registry = registry_at(&server());
    let own = agent.get("/v1/agent/self").await["Config"]["NodeName"].clone();
    let (here, there) = (instance(&service, 1), instance(&service, 2));
    let entry = |of: &sd_core::Instance| {
        let meta = json!({ "sd-incarnation": of.incarnation().to_string() });
        let id = service_id(&of.record_id());
        json!({ "Service": service.as_str(), "ID": id, "Address": "10.0.0.1", "Port": 1, "Meta": meta })
    };
    let lagging = json!({ "Node": own, "SkipNodeUpdate": true, "Service": entry(&here) });
    let node = format!("node-of-{service}");
    let elsewhere = json!({ "Node": node, "Address": "2001:db8::5", "Service": entry(&there) });
    for body in [lagging, elsewhere] {
        agent.put("/v1/catalog/register", &body.to_string()).await;
    }
    for (of, kind, says) in [
        (&here, ErrorKind::NotFound, "may have ended"),
        (
            &there,
            ErrorKind::Unsupported,
            "consul://[2001:db8::5]:8500",
        ),
    ] {
        let record = of.record_id();
        for refused in [
            registry.set_override(&record, Override::Draining).await,
            registry.remove_record(&record).await,
        ] {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), kind, "{}", error.report());
            let report = error.report().to_string();
            assert!(report.contains(says), "{report}");
        }
    }
    let here = json!({ "Node": own, "ServiceID": service_id(&here.record_id()) });
    for gone in [here, json!({ "Node": node })] {
        agent.put("/v1/catalog/deregister", &gone.to_string()).await;
    }
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn killed_and_restarted_with_its_data_an_override_stays() {
    faults::killed_and_restarted_with_its_data_an_override_stays(OwnAgent::start().await).await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn restarted_without_its_data_a_record_is_back_without_its_override() {
    let agent = OwnAgent::start().await;
    faults::restarted_without_its_data_a_record_is_back_without_its_override(agent).await;
}

#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn an_owner_that_is_killed_leaves_no_override_behind() {
    faults::an_owner_that_is_killed_leaves_no_override_behind(OwnAgent::start().await).await;
}
