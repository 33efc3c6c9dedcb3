//! Ensembles whose members are replaced by dynamic reconfigurations.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::{
    LONG, close, config_at, event, eventually, instance, is_live_with, prefix, raw, registry_at,
    until,
};
use sd_core::{Registry, Subscription};
use sd_testing::{ServerProcess, free_port};
use server_programs::{LocalServer, ZooKeeper};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use zookeeper_client as zk;

/// An ensemble of one, which takes others in.
async fn ensemble() -> ServerProcess<ZooKeeper> {
    let [alone] = ZooKeeper::ensemble_from_env(1).unwrap().try_into().unwrap();
    let alone = alone
        .with_config("standaloneEnabled=false")
        // Only an administrator may change the ensemble otherwise.
        .with_config("skipACL=yes");
    ServerProcess::launch(alone).await.unwrap()
}

/// Asks for a change of the members until the configuration shows it.
async fn reconfigure(address: &str, joining: &str, leaving: &str, is_done: impl Fn(&str) -> bool) {
    let operator = raw(address).await;
    eventually("reconfigured", LONG, async || {
        let update = zk::EnsembleUpdate::Incremental {
            joinings: std::iter::once(joining),
            leavings: std::iter::once(leaving),
        };
        // Refused until the new member has caught up. The answer is lost if another member leads from then on.
        let _ = operator.update_ensemble(update, None).await;
        let config = operator.get_config().await;
        config.is_ok_and(|(config, _)| is_done(&String::from_utf8(config).unwrap()))
    })
    .await;
    close(operator).await;
}

/// Puts another member in the place of the only one, which is removed and killed.
async fn replace(mut old: ServerProcess<ZooKeeper>) -> ServerProcess<ZooKeeper> {
    let joining = old.program().joining(free_port).unwrap();
    let new = ServerProcess::launch(joining).await.unwrap();
    let line = new.program().member_line().unwrap();
    let address = old.program().url();
    reconfigure(&address, line, "", |config| config.contains(line)).await;
    // The watch of our client has fired with the change. Once it is there again, the client has read what changed.
    let program = old.program().clone();
    eventually("the members are followed", LONG, async || {
        let program = program.clone();
        let watches = spawn_blocking(move || program.four_letter_word("wchp"));
        let watches = watches.await.unwrap();
        watches.is_ok_and(|watches| watches.contains("/zookeeper/config"))
    })
    .await;
    let gone = old.program().member_line().unwrap().to_owned();
    let (id, _) = gone.split_once('=').unwrap();
    let id = id.strip_prefix("server.").unwrap();
    let address = new.program().url();
    reconfigure(&address, "", id, |config| !config.contains(&gone)).await;
    old.kill().unwrap();
    new
}

/// What another client registers is seen here.
async fn follows(registry: &Registry, seen: &mut Subscription, url: &str, prefix: &str, port: u16) {
    let other = registry_at(url, prefix);
    let guard = other.register(instance(port)).await.unwrap();
    let id = &guard.record_id().id;
    until(seen, "the other", |state| {
        state.status().as_str() == "live" && state.snapshot().get(id).is_some()
    })
    .await;
    guard.deregister().await.unwrap();
    // And writes find the way as well.
    let own = registry.register(instance(port + 100)).await.unwrap();
    own.deregister().await.unwrap();
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn every_server_that_was_named_may_be_replaced_where_members_are_followed() {
    let first = ensemble().await;
    let prefix = prefix();
    let config = config_at(&first.program().url(), &prefix).with_follow_members(true);
    let registry = sd_zk::connect(config).unwrap();
    let mut guard = registry.register(instance(1)).await.unwrap();
    event(&mut guard, "registered").await;
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;

    let second = replace(first).await;
    follows(&registry, &mut seen, &second.program().url(), &prefix, 2).await;
    // And now, from the one that it has learnt of to one that came since.
    let third = replace(second).await;
    follows(&registry, &mut seen, &third.program().url(), &prefix, 3).await;

    let id = guard.record_id().id.clone();
    eventually("still registered", LONG, async || {
        let listed = registry.list("greeter").await;
        listed.is_ok_and(|listed| listed.get(&id).is_some())
    })
    .await;
}

/// A member has another name in the configuration of the ensemble than in ours, so that it looks like another server.
#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_session_outlasts_an_outage_of_all_members() {
    // A third of it passes during the outage.
    let session = Duration::from_secs(30);
    let mut server = ensemble().await;
    let address = server.program().url();
    let url = address.replace("127.0.0.1", "localhost");
    let prefix = prefix();
    let config = config_at(&url, &prefix)
        .with_session_timeout(session)
        .with_follow_members(true);
    let registry = sd_zk::connect(config).unwrap();
    let guard = registry.register(instance(1)).await.unwrap();
    let owner = async || {
        let operator = raw(&address).await;
        let node = format!("{prefix}/greeter/{}", guard.record_id().id);
        let stat = operator.check_stat(&node).await.unwrap().unwrap();
        close(operator).await;
        stat.ephemeral_owner
    };
    let before = owner().await;
    server.kill().unwrap();
    sleep(session / 3 + Duration::from_secs(2)).await;
    server.restart().await.unwrap();
    // The client crate takes a while until it tries again.
    eventually("connected", LONG, async || registry.check().await.is_ok()).await;
    assert_eq!(owner().await, before);
}
