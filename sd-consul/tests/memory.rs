//! What a large answer costs. The server is a listener that says what Consul would: as many instances take Consul minutes.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fmt::Write;
use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;

use sd_consul::ConsulConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const INSTANCES: usize = 20_000;

/// As Consul 1.20 lists them.
fn listed() -> String {
    let mut list = String::from("[");
    for number in 0..INSTANCES {
        let separator = if number == 0 { "" } else { "," };
        let (high, low) = (number / 250, number % 250);
        write!(
            list,
            r#"{separator}{{"Node":{{"ID":"00000000-0000-4000-8000-000000018500","Node":"node-{high}","Address":"10.1.0.{high}","Datacenter":"dc1","TaggedAddresses":{{"lan":"10.1.0.{high}","lan_ipv4":"10.1.0.{high}","wan":"10.1.0.{high}","wan_ipv4":"10.1.0.{high}"}},"Meta":{{"consul-network-segment":"","consul-version":"1.20.6"}},"CreateIndex":13,"ModifyIndex":15}},"Service":{{"ID":"web:{number}","Service":"web","Tags":["v1","blue"],"Address":"10.2.{high}.{low}","TaggedAddresses":{{"lan_ipv4":{{"Address":"10.2.{high}.{low}","Port":8080}},"wan_ipv4":{{"Address":"10.2.{high}.{low}","Port":8080}}}},"Meta":{{"sd-incarnation":"{number:016x}","sd-zone":"eu-1a","sd-version":"1.2.3"}},"Port":8080,"Weights":{{"Passing":1,"Warning":1}},"EnableTagOverride":false,"Proxy":{{"Mode":"","MeshGateway":{{}},"Expose":{{}}}},"Connect":{{}},"PeerName":"","CreateIndex":{number},"ModifyIndex":{number}}},"Checks":[{{"Node":"node-{high}","CheckID":"serfHealth","Name":"Serf Health Status","Status":"passing","Notes":"","Output":"Agent alive and reachable","ServiceID":"","ServiceName":"","ServiceTags":[],"Type":"","Interval":"","Timeout":"","ExposedPort":0,"Definition":{{}},"CreateIndex":13,"ModifyIndex":13}},{{"Node":"node-{high}","CheckID":"service:web:{number}","Name":"Service 'web' check","Status":"passing","Notes":"","Output":"","ServiceID":"web:{number}","ServiceName":"web","ServiceTags":["v1","blue"],"Type":"ttl","Interval":"","Timeout":"","ExposedPort":0,"Definition":{{}},"CreateIndex":{number},"ModifyIndex":{number}}}]}}"#
        )
        .unwrap();
    }
    list.push(']');
    list
}

/// The most memory that this process has had since that was last forgotten, in bytes.
fn peak() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kilobytes = line.unwrap().split_ascii_whitespace().nth(1).unwrap();
    kilobytes.parse::<usize>().unwrap() * 1024
}

#[tokio::test]
async fn a_large_service_costs_about_twice_its_answer() {
    let body = Arc::new(listed());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::clone(&body);
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        // Consul sends such an answer in chunks, so that its length is not known before.
        let head = "HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nConnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    let registry = sd_consul::connect(ConsulConfig::new([url])).unwrap();
    // Forgets the peak.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = peak();
    let set = registry.list("web").await.unwrap();
    let cost = peak() - before;
    assert_eq!(set.len(), INSTANCES);
    let times = cost / (body.len() / 10);
    println!(
        "{} instances, {} KiB: {} KiB, {}.{} times",
        INSTANCES,
        body.len() / 1024,
        cost / 1024,
        times / 10,
        times % 10
    );
    // Decoded as a whole it was 3.2 times, and more for entries of which more is kept.
    assert!(times < 25, "{cost} bytes for an answer of {}", body.len());
}
