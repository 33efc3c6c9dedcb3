//! How resolvers are spoken to: what old and slow ones understand, how many connections they see, and when the next one is asked.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::scripted::{Asked, Reply, Scripted};
use common::zone::{address, many, name};
use common::{BUSY, LONGEST, SHORTEST, connect, is_live_at, is_live_with, until};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::Record;
use sd_core::ErrorKind;
use sd_dns::{DnsConfig, Transport};
use sd_testing::free_port;
use tokio::time::{Instant, sleep};

/// Answers with one address.
fn one(asked: &Asked) -> Reply {
    asked.records(0, &[address("10.0.0.1")])
}

/// How many questions had EDNS(0), and how many had not.
fn counted(asked: &[bool]) -> (usize, usize) {
    let with = asked.iter().filter(|with| **with).count();
    (with, asked.len() - with)
}

/// A server that does not know EDNS(0), and refuses it in this way.
fn refusing(refusal: fn(&Asked) -> Reply) -> impl Fn(&Asked) -> Reply + Send + Sync + 'static {
    move |asked| {
        if asked.message.edns.is_some() {
            return refusal(asked);
        }
        one(asked)
    }
}

#[tokio::test]
async fn a_server_that_does_not_know_edns_is_asked_without_it() {
    let refusals: [fn(&Asked) -> Reply; 4] = [
        |asked| asked.refuse(ResponseCode::FormErr),
        |asked| asked.refuse(ResponseCode::NotImp),
        // Without the question, as RFC 6891 has it.
        |asked| {
            let mut answer = asked.answer();
            answer.metadata.response_code = ResponseCode::FormErr;
            answer.queries.clear();
            answer.into()
        },
        |asked| {
            let [high, low] = asked.message.metadata.id.to_be_bytes();
            Reply::Bytes(vec![high, low, 0x80, 4, 0, 0, 0, 0, 0, 0, 0, 0])
        },
    ];
    for refusal in refusals {
        let server = Scripted::start(refusing(refusal)).await;
        for transport in [Transport::Auto, Transport::Tcp] {
            let config = server.config().with_transport(transport);
            let registry = connect(config.with_timeout(Duration::from_secs(5)));
            let start = Instant::now();
            assert_eq!(registry.list("greeter").await.unwrap().len(), 1);
            // It is not waited for.
            assert!(start.elapsed() < BUSY, "{:?}", start.elapsed());
            let before = server.edns().len();
            assert_eq!(registry.list("greeter").await.unwrap().len(), 1);
            let asked = server.edns().split_off(before);
            assert_eq!(counted(&asked).0, 0, "{asked:?}");
        }
        // It is replaced by one that knows it, and that refuses something else.
        server.answers_with(|asked| asked.refuse(ResponseCode::NotImp));
        let registry = connect(server.config());
        for _ in 0..2 {
            let before = server.edns().len();
            let error = registry.list("greeter").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Rejected);
            let (with, without) = counted(&server.edns().split_off(before));
            assert!(with >= 2 && without >= 2, "{with} {without}");
        }
        server.answers_with(one);
        let before = server.edns().len();
        registry.list("greeter").await.unwrap();
        assert_eq!(counted(&server.edns().split_off(before)).1, 0);
    }
}

#[tokio::test]
async fn questions_at_the_same_time_share_one_connection() {
    let server = Scripted::start(one).await;
    let config = server.config().with_transport(Transport::Tcp);
    let config = config.with_intervals(Duration::from_secs(2), LONGEST);
    let registry = connect(config.with_timeout(Duration::from_secs(10)));
    for round in 1..=2 {
        let mut all: Vec<_> = (0..100)
            .map(|number| registry.subscribe(format!("s{round}-{number}")).unwrap())
            .collect();
        for seen in &mut all {
            until(seen, "there", is_live_with(1)).await;
        }
        assert_eq!(server.connections_made(), round);
        server.end_connections().await;
    }
}

/// Whatever is wrong with one, the next is asked.
#[tokio::test]
async fn a_resolver_that_fails_in_any_way_is_answered_by_the_next() {
    let well = Scripted::start(one).await;
    let fails: [fn(&Asked) -> Reply; 7] = [
        |asked| asked.refuse(ResponseCode::ServFail),
        |asked| asked.refuse(ResponseCode::Refused),
        |_| Reply::Silence,
        |_| Reply::Bytes(vec![0; 40]),
        |asked| asked.message.clone().into(),
        |asked| {
            let mut answer = asked.answer();
            answer.metadata.truncation = true;
            answer.into()
        },
        |asked| {
            let mut answer = asked.answer();
            let other = name("other.test.");
            answer.answers = vec![Record::from_rdata(other, 0, address("6.6.6.6"))];
            answer.into()
        },
    ];
    for transport in [Transport::Auto, Transport::Tcp] {
        for fails in fails {
            let first = Scripted::start(fails).await;
            let both = [&first, &well].map(|one| one.address.to_string());
            let config = well.config().with_resolvers(both);
            let patient = config.with_timeout(Duration::from_secs(2));
            let registry = connect(patient.with_transport(transport));
            let set = registry.list("greeter").await.unwrap();
            assert_eq!(set.instances()[0].endpoint().to_string(), "10.0.0.1:80");
            assert!(!first.asked().is_empty());
            // The one that answered is asked first from then on.
            first.answers_with(|asked| asked.records(0, &[address("6.6.6.6")]));
            let set = registry.list("greeter").await.unwrap();
            assert_eq!(set.instances()[0].endpoint().to_string(), "10.0.0.1:80");
        }
    }
}

/// The system says that no program listens there: over UDP as well.
#[tokio::test]
async fn a_resolver_that_is_down_is_not_waited_for() {
    let address = format!("127.0.0.1:{}", free_port().unwrap());
    for transport in [Transport::Auto, Transport::Tcp] {
        let config = DnsConfig::addresses(80)
            .with_resolvers([&*address])
            .with_transport(transport)
            .with_timeout(Duration::from_secs(10));
        let start = Instant::now();
        let error = connect(config).list("greeter").await.unwrap_err();
        assert!(start.elapsed() < BUSY, "{:?}", start.elapsed());
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let report = error.report().to_string();
        assert!(report.to_lowercase().contains("refused"), "{report}");
    }
}

#[tokio::test]
async fn a_resolver_that_answers_byte_by_byte_is_given_up_in_time() {
    let slow = Scripted::start(|asked| match one(asked) {
        Reply::Message(message) => Reply::Slowly(message, Duration::from_millis(100)),
        other => other,
    })
    .await;
    let well = Scripted::start(one).await;
    let both = [&slow, &well].map(|one| one.address.to_string());
    let config = slow.config().with_transport(Transport::Tcp);
    let start = Instant::now();
    let registry = connect(config.clone().with_resolvers(both));
    assert_eq!(registry.list("greeter").await.unwrap().len(), 1);
    assert!(start.elapsed() < BUSY, "{:?}", start.elapsed());
    let error = connect(config).list("greeter").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

/// The first answer counts, and what comes besides is no answer to another question.
#[tokio::test]
async fn answers_that_come_twice_or_that_were_not_asked_for_make_no_difference() {
    let server = Scripted::start(|asked| {
        let mut stray = asked.answer();
        stray.metadata.id ^= 0x0ff0;
        let forged = |number: u32| {
            let mut answer = asked.answer();
            let owner = asked.name().clone();
            answer.answers = many(number)
                .into_iter()
                .filter(|data| data.record_type() == asked.wanted())
                .map(|data| Record::from_rdata(owner.clone(), 0, data))
                .collect();
            answer
        };
        Reply::All(vec![stray, forged(1), forged(3), forged(3)])
    })
    .await;
    for transport in [Transport::Auto, Transport::Tcp] {
        let config = server.config().with_transport(transport);
        let registry = connect(config.with_timeout(Duration::from_secs(5)));
        let mut all: Vec<_> = (0..20)
            .map(|number| registry.subscribe(format!("s{number}")).unwrap())
            .collect();
        for seen in &mut all {
            until(seen, "there", is_live_at(["10.0.0.1:80"])).await;
        }
        let before = server.asked().len();
        while server.asked().len() < before + 400 {
            sleep(SHORTEST).await;
            for seen in &all {
                assert_eq!(seen.state().instances().len(), 1);
            }
        }
    }
}
