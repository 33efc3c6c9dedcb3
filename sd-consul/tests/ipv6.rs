//! Everything over IPv6: the agent, its node and the instances.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::io::Write;
use std::net::{Ipv6Addr, TcpListener};
use std::sync::Arc;

use common::election::{leads, name, ticket};
use common::{Operator, is_live_with, own_server_with, service, until};
use sd_consul::{ConsulBackend, ConsulConfig};
use sd_core::port::LeaderFeed;
use sd_core::{Backend, Instance};
use server_programs::LocalServer;

/// Says so where there is no IPv6, in many containers for instance, and tests nothing there.
#[tokio::test]
#[ignore = "needs consul: cargo xtask test --backend consul"]
async fn an_agent_on_ipv6_is_registered_at_read_and_elected_over() {
    if let Err(error) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
        // Written past what hides the output of tests that pass.
        let why = "not tested: no ::1 here, which `sysctl net.ipv6.conf.lo.disable_ipv6=0` gives";
        writeln!(std::io::stderr(), "{why}: {error}").unwrap();
        return;
    }
    let server = own_server_with(|program| {
        program
            .with_config(r#"bind_addr = "::1""#)
            // The harness asks it over IPv4.
            .with_config(r#"client_addr = "127.0.0.1 ::1""#)
    })
    .await;
    let port = server.program().address().port();
    let config = || ConsulConfig::from_url(&format!("consul://[::1]:{port}")).unwrap();
    let (service, registry) = (service(), sd_consul::connect(config()).unwrap());
    let mut seen = registry.subscribe(&service).unwrap();
    let ours = Instance::new(&service, "[2001:db8::7]:8080").unwrap();
    let guard = registry.register(ours.clone()).await.unwrap();
    let state = until(&mut seen, "there", is_live_with(1)).await;
    assert_eq!(*state.snapshot().instances()[0], ours);
    guard.deregister().await.unwrap();
    let operator = Operator::at(&format!("http://[::1]:{port}"));
    operator.register(&service, "a", r#","Port":81"#).await;
    let at_the_node = |state: &sd_core::State| {
        let found = state.snapshot().instances();
        found.len() == 1 && found[0].endpoint().to_string() == "[::1]:81"
    };
    until(&mut seen, "at the node", at_the_node).await;

    let backend = Arc::new(ConsulBackend::new(config()).unwrap());
    let elector = backend.elector().unwrap().into_strict().unwrap();
    let ticket = ticket("a");
    let entry = elector.join(&ticket).await.unwrap();
    let token = leads(&*entry).await;
    let mut feed = elector.observe(&name()).await.unwrap();
    let LeaderFeed::Leader {
        leader: Some(leader),
        ..
    } = feed.next().await.unwrap()
    else {
        panic!("a candidate leads");
    };
    assert_eq!((leader.id, leader.token), (Some(ticket.id), token));
    elector.leave(&ticket).await.unwrap();
}
