//! Answers that are right and out of the ordinary: what readers see.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::scripted::{Asked, Reply, Scripted};
use common::zone::{address, alias, name, srv};
use common::{
    BUSY, LONGEST, SHORTEST, addresses, connect, is_live_at, is_live_with, is_stale, until, why,
};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Record, RecordType};
use sd_core::{Instancer, ServiceName};
use sd_dns::{DnsBackend, DnsConfig, Family, Transport};
use tokio::time::Instant;

/// Answers for `greeter.sd.test.` with an alias to `a1.sd.test.`, for that with the next, and for the last with an address.
fn chain(length: usize) -> impl Fn(&Asked) -> Reply + Send + Sync + 'static {
    let link = |number: usize| name(&format!("a{number}.sd.test."));
    move |asked| {
        let names = (1..=length).map(link);
        let at = names.into_iter().position(|link| link == *asked.name());
        let next = at.map_or(1, |at| at + 2);
        if next > length {
            return asked.records(0, &[address("10.0.0.1")]);
        }
        let mut answer = asked.answer();
        let owner = asked.name().clone();
        answer.answers = vec![Record::from_rdata(owner, 0, alias(&link(next)))];
        answer.into()
    }
}

#[tokio::test]
async fn a_chain_of_eight_aliases_is_followed_over_as_many_answers() {
    let server = Scripted::start(chain(8)).await;
    let registry = connect(server.config());
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_at(["10.0.0.1:80"])).await;
    server.answers_with(chain(9));
    let stale = until(&mut seen, "stale", is_stale).await;
    assert!(why(&stale).contains("too far"), "{}", why(&stale));
    assert_eq!(stale.instances().len(), 1);
}

/// As resolvers send it that ask with a case of their own (0x20), and servers that keep the case of their zone.
#[tokio::test]
async fn the_case_of_letters_makes_no_difference() {
    let server = Scripted::start(|asked| {
        let mut answer = asked.answer();
        let upper = |text: &str| name(&text.to_uppercase());
        let shouted = upper(&asked.name().to_ascii());
        answer.queries[0].set_name(shouted.clone());
        if asked.wanted() == RecordType::SRV {
            answer.answers = vec![Record::from_rdata(
                shouted,
                0,
                srv(0, 1, 81, &name("Pod.sd.test.")),
            )];
            answer.additionals = vec![Record::from_rdata(
                upper("pod.sd.test."),
                0,
                address("10.0.0.1"),
            )];
        } else if asked.wanted() == RecordType::A {
            answer.answers = vec![Record::from_rdata(shouted, 0, address("10.0.0.1"))];
        }
        answer.into()
    })
    .await;
    for transport in [Transport::Auto, Transport::Tcp] {
        let patient = |config: DnsConfig| config.with_timeout(Duration::from_secs(5));
        let registry = connect(patient(server.config()).with_transport(transport));
        let set = registry.list("greeter").await.unwrap();
        assert_eq!(set.instances()[0].endpoint().to_string(), "10.0.0.1:80");
        let registry = connect(patient(server.srv_config()).with_transport(transport));
        let set = registry.list("greeter").await.unwrap();
        assert_eq!(set.instances()[0].endpoint().to_string(), "10.0.0.1:81");
        assert_eq!(set.instances()[0].metadata()["target"], "pod.sd.test.");
    }
}

/// An answer may bring along one kind of addresses of a host and not the other.
#[tokio::test]
async fn addresses_of_a_host_that_did_not_come_along_are_asked_for() {
    let with_ipv4 = |asked: &Asked| {
        let host = name("pod.sd.test.");
        if asked.wanted() != RecordType::SRV {
            return asked.records(3600, &[address("2001:db8::1")]);
        }
        let mut answer = asked.answer();
        let owner = asked.name().clone();
        answer.answers = vec![Record::from_rdata(owner, 0, srv(0, 1, 81, &host))];
        answer.additionals = vec![Record::from_rdata(host, 0, address("10.0.0.1"))];
        answer.into()
    };
    let server = Scripted::start(with_ipv4).await;
    let mut seen = connect(server.srv_config()).subscribe("greeter").unwrap();
    let both = ["10.0.0.1:81", "[2001:db8::1]:81"];
    until(&mut seen, "both", is_live_at(both)).await;
    let only = connect(server.srv_config().with_family(Family::Ipv4));
    let asked = server.asked().len();
    assert_eq!(only.list("greeter").await.unwrap().len(), 1);
    let asked = &server.asked()[asked..];
    let is_aaaa = |(_, kind, _): &(_, RecordType, bool)| *kind == RecordType::AAAA;
    assert!(!asked.iter().any(is_aaaa), "{asked:?}");
    // What did not come along and cannot be found out leaves the rest.
    let failing = Scripted::start(move |asked| match asked.wanted() {
        RecordType::SRV => with_ipv4(asked),
        _ => asked.refuse(ResponseCode::ServFail),
    })
    .await;
    let mut seen = connect(failing.srv_config()).subscribe("greeter").unwrap();
    let half = until(&mut seen, "half", |state| !state.instances().is_empty()).await;
    assert_eq!(addresses(&half), ["10.0.0.1:81"]);
    assert!(
        why(&half).contains("AAAA of pod.sd.test."),
        "{}",
        why(&half)
    );
}

#[tokio::test]
async fn of_two_records_with_one_address_the_better_one_counts() {
    let server = Scripted::start(|asked| match asked.wanted() {
        RecordType::SRV => {
            let [a, b] = ["a.sd.test.", "b.sd.test."].map(name);
            asked.records(0, &[srv(1, 9, 81, &a), srv(0, 3, 81, &b)])
        }
        _ => asked.records(0, &[address("10.0.0.1")]),
    })
    .await;
    let mut seen = connect(server.srv_config()).subscribe("greeter").unwrap();
    let state = until(&mut seen, "one", is_live_with(1)).await;
    let one = &state.instances()[0];
    assert_eq!((one.priority(), one.weight()), (0, 3));
    assert_eq!(one.metadata()["target"], "b.sd.test.");
}

/// The newest answer says when the next question is due.
#[tokio::test]
async fn a_time_to_live_that_changes_counts_from_the_answer_that_has_it() {
    let server = Scripted::start(|asked| asked.records(1, &[address("10.0.0.1")])).await;
    // Over TCP no question is sent again, however busy the machine is.
    let config = server.config().with_transport(Transport::Tcp);
    let config = config.with_timeout(Duration::from_secs(5));
    let backend = DnsBackend::new(config.with_family(Family::Ipv4)).unwrap();
    let service = ServiceName::new("greeter").unwrap();
    let mut watcher = backend.watch(&service, None).await.unwrap();
    watcher.next().await.unwrap();
    for (next, before) in [(3, 1), (0, 3), (1, 0), (1, 1)] {
        server.answers_with(move |asked| asked.records(next, &[address("10.0.0.1")]));
        let start = Instant::now();
        watcher.next().await.unwrap();
        let (took, least) = (start.elapsed(), Duration::from_secs(before));
        // The answer before may have come a moment ago.
        let (least, most) = (least.mul_f64(0.9), least + SHORTEST + BUSY);
        assert!(took >= least && took < most, "{before} s: {took:?}");
    }
}

/// Written by hand: the client crate's own messages have room for half as many.
fn packed(asked: &Asked, count: u16) -> Reply {
    let mut answer = asked.answer();
    if !asked.over_tcp {
        answer.metadata.truncation = true;
        return answer.into();
    }
    let mut bytes = answer.to_vec().unwrap();
    bytes[6..8].copy_from_slice(&count.to_be_bytes());
    for number in 0..count {
        // The name that was asked, type A, class IN, no time to live, four bytes.
        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 10, 0]);
        bytes.extend(number.to_be_bytes());
    }
    Reply::Bytes(bytes)
}

#[tokio::test]
async fn as_many_addresses_as_fit_into_an_answer_are_read() {
    const MANY: u16 = 4090;
    let server = Scripted::start(|asked| match asked.wanted() {
        RecordType::A => packed(asked, MANY),
        _ => asked.records(0, &[]),
    })
    .await;
    let config = server.config().with_timeout(Duration::from_secs(5));
    let mut seen = connect(config).subscribe("greeter").unwrap();
    until(&mut seen, "all", is_live_with(MANY.into())).await;
}

/// What this machine knows itself needs no resolver.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn by_default_the_systems_hosts_are_known() {
    let config = DnsConfig::addresses(80).with_intervals(SHORTEST, LONGEST);
    let mut seen = connect(config.with_family(Family::Ipv4))
        .subscribe("localhost")
        .unwrap();
    until(&mut seen, "there", is_live_at(["127.0.0.1:80"])).await;
}
