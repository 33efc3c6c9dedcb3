//! gRPC's public interop cases: our channel against the servers of tonic, grpc-go and grpc-js, the clients of the latter two against
//! our server.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "a test fails by panicking"
)]

mod cases;
#[path = "../common/mod.rs"]
mod common;
mod polite;
mod servers;
mod service;

use std::net::SocketAddr;

use sd_grpc::{Services, ServingStatus};
use sd_testing::Peer;

use self::cases::{CASES, client_compressed_unary};
use self::common::{Set, instance_at, ready, within};
use self::servers::{GRPC_GO, GRPC_JS, server_of, tonic_server};
use self::service::{InteropClient, InteropServer, SERVICE};

/// Runs all cases over one channel to these servers.
async fn run(servers: &[SocketAddr]) -> InteropClient {
    run_all_but("", servers).await
}

async fn run_all_but(left_out: &str, servers: &[SocketAddr]) -> InteropClient {
    let instances = servers.iter().copied().map(instance_at);
    let channel = Set::of(instances).channel();
    let channel = channel.build().unwrap();
    ready(&channel, servers.len()).await;
    let client = InteropClient::new(channel);
    for (name, case) in CASES.into_iter().filter(|(name, _)| *name != left_out) {
        eprintln!("{name}");
        within(name, case(client.clone())).await;
    }
    client
}

fn interop() -> Services {
    Services::new().add_service(InteropServer)
}

/// Runs grpc-go's cases over one of its channels to these servers.
async fn run_grpc_go(servers: &[SocketAddr], health: &str) {
    let addresses: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
    let addresses = addresses.join(",");
    let mut arguments = vec!["client", "-addresses", &addresses, "-health", health];
    let cases = CASES.map(|(name, _)| name);
    arguments.extend(cases);
    let client = Peer::start(GRPC_GO, &arguments).unwrap();
    let passed = within("grpc-go's client ends", client.dismiss()).await;
    assert_eq!(passed.unwrap(), cases);
}

#[tokio::test]
async fn tonic_answers_every_case_over_one_endpoint() {
    let (_server, address) = tonic_server(interop()).await;
    let client = run(&[address]).await;
    client_compressed_unary(client).await;
}

#[tokio::test]
async fn tonic_answers_every_case_over_two_endpoints() {
    let (_one, first) = tonic_server(interop()).await;
    let (_other, second) = tonic_server(interop()).await;
    let client = run(&[first, second]).await;
    client_compressed_unary(client).await;
}

#[tokio::test]
#[ignore = "needs grpc peers: cargo xtask test --backend grpc"]
async fn grpc_go_answers_every_case_over_one_endpoint() {
    let (_server, address) = server_of(GRPC_GO, &[]).await;
    run(&[address]).await;
}

#[tokio::test]
#[ignore = "needs grpc peers: cargo xtask test --backend grpc"]
async fn grpc_go_answers_every_case_over_two_endpoints() {
    let (_one, first) = server_of(GRPC_GO, &[]).await;
    let (_other, second) = server_of(GRPC_GO, &[]).await;
    run(&[first, second]).await;
}

#[tokio::test]
#[ignore = "needs grpc peers: cargo xtask test --backend grpc"]
async fn grpc_js_answers_every_case_over_one_endpoint_and_over_two() {
    let (_one, first) = server_of(GRPC_JS, &[]).await;
    let (_other, second) = server_of(GRPC_JS, &[]).await;
    // Its server does not compress responses.
    run_all_but("gzip", &[first]).await;
    run_all_but("gzip", &[first, second]).await;
}

/// Those that grpc-js can express.
const CASES_OF_GRPC_JS: [&str; 9] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "special_status_message",
    "unimplemented_method",
    "timeout_on_sleeping_server",
    "gzip",
];

#[tokio::test]
#[ignore = "needs grpc peers: cargo xtask test --backend grpc"]
async fn the_client_of_grpc_js_is_answered_its_cases() {
    let (_one, first) = tonic_server(interop()).await;
    let (_other, second) = tonic_server(interop()).await;
    for servers in [first.to_string(), format!("{first},{second}")] {
        let mut arguments = vec!["client", "-addresses", &servers];
        arguments.extend(CASES_OF_GRPC_JS);
        let client = Peer::start(GRPC_JS, &arguments).unwrap();
        let passed = within("grpc-js's client ends", client.dismiss()).await;
        assert_eq!(passed.unwrap(), CASES_OF_GRPC_JS);
    }
}

#[tokio::test]
#[ignore = "needs grpc peers: cargo xtask test --backend grpc"]
async fn the_client_of_grpc_go_is_answered_every_case() {
    let (_one, first) = tonic_server(interop()).await;
    let (_other, second) = tonic_server(interop()).await;
    run_grpc_go(&[first], "").await;
    run_grpc_go(&[first, second], "").await;
}

#[tokio::test]
#[ignore = "needs grpc peers: cargo xtask test --backend grpc"]
async fn the_client_of_grpc_go_that_checks_health_calls_those_that_are_ready() {
    let (_ready, first) = tonic_server(interop()).await;
    // A call that it gets fails.
    let (unready, second) = tonic_server(Services::new()).await;
    unready.set_health(SERVICE, ServingStatus::Serving);
    unready.set_ready(false).await.unwrap();
    run_grpc_go(&[first, second], SERVICE).await;
}
