//! What operators say of records, at the agent that keeps them, over a running Consul.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::faults::OwnAgent;
use common::operator::service_id;
use common::{
    LONG, Operator, TTL, eventually, instance, own_server, own_server_with, registry_at, server,
    service,
};
use sd_core::{ErrorKind, Override};
use sd_testing::faults;
use server_programs::LocalServer;

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
        assert!(report.contains("consul services deregister"), "{report}");
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
