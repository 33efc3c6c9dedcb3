//! Servers that answer as none should: what readers see.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::scripted::{Asked, Reply, Scripted};
use common::zone::{address, alias, many, name, srv};
use common::{
    BUSY, LONG, LONGEST, SHORTEST, addresses, connect, eventually, is_live_at, is_live_with,
    is_stale, until, why,
};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::NS;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use sd_core::port::Feed;
use sd_core::{ErrorKind, Instancer, Registry, ServiceName};
use sd_dns::{DnsBackend, Family, Transport};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::{Instant, sleep, timeout};

fn registry(server: &Scripted) -> Registry {
    connect(server.config())
}

/// Answers with one address.
fn one(asked: &Asked) -> Reply {
    asked.records(0, &[address("10.0.0.1")])
}

/// A reader of a server that was well, and that does this from now on.
async fn stays_at_one_address(
    what: &str,
    misbehaves: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
) -> String {
    let server = Scripted::start(one).await;
    let mut seen = registry(&server).subscribe("greeter").unwrap();
    let before = until(&mut seen, "there", is_live_with(1)).await;
    server.answers_with(misbehaves);
    let stale = until(&mut seen, what, is_stale).await;
    assert_eq!(stale.instances(), before.instances(), "{what}");
    server.answers_with(|asked| asked.records(0, &[address("10.0.0.1"), address("10.0.0.2")]));
    until(&mut seen, "followed again", is_live_with(2)).await;
    why(&stale)
}

#[tokio::test]
async fn a_failure_of_the_server_takes_nothing_away_and_is_told() {
    for (code, kind) in [
        (ResponseCode::ServFail, "unavailable"),
        (ResponseCode::Refused, "denied"),
        (ResponseCode::NotImp, "rejected"),
        (ResponseCode::FormErr, "rejected"),
        // Assigned to nothing that a resolver answers.
        (ResponseCode::Unknown(12), "unavailable"),
    ] {
        let why = stays_at_one_address("refused", move |asked| asked.refuse(code)).await;
        assert!(
            why.contains(kind) && why.contains("greeter.sd.test."),
            "{why}"
        );
    }
}

#[tokio::test]
async fn silence_garbage_and_answers_to_another_question_take_nothing_away() {
    let why = stays_at_one_address("silent", |_| Reply::Silence).await;
    assert!(why.contains("no answer in time"), "{why}");
    let why = stays_at_one_address("garbage", |asked| {
        let id = asked.message.metadata.id.to_be_bytes();
        Reply::Bytes([&id[..], &[0x81, 0x80, 0xff, 0xff, 0xff, 0xff, 9, 9, 9]].concat())
    })
    .await;
    assert!(why.contains("cannot be read"), "{why}");
    stays_at_one_address("too short", |_| Reply::Bytes(vec![1])).await;
    let why = stays_at_one_address("sent back", |asked| asked.message.clone().into()).await;
    assert!(why.contains("cannot be read"), "{why}");
    stays_at_one_address("another id", |asked| {
        let mut answer = asked.answer();
        answer.metadata.id ^= 0x5a5a;
        answer.answers = vec![Record::from_rdata(
            asked.name().clone(),
            0,
            address("6.6.6.6"),
        )];
        answer.into()
    })
    .await;
    stays_at_one_address("another question", |asked| {
        let mut answer = asked.answer();
        answer.queries[0].set_name(name("other.test."));
        answer.answers = vec![Record::from_rdata(
            name("other.test."),
            0,
            address("6.6.6.6"),
        )];
        answer.into()
    })
    .await;
    let why = stays_at_one_address("another name", |asked| {
        let mut answer = asked.answer();
        answer.answers = vec![Record::from_rdata(
            name("other.test."),
            0,
            address("6.6.6.6"),
        )];
        answer.into()
    })
    .await;
    assert!(why.contains("other names than greeter.sd.test."), "{why}");
}

#[tokio::test]
async fn an_answer_to_another_question_takes_nothing_away_over_tcp_either() {
    let server = Scripted::start(one).await;
    let registry = connect(server.config().with_transport(Transport::Tcp));
    let mut seen = registry.subscribe("greeter").unwrap();
    let before = until(&mut seen, "there", is_live_with(1)).await;
    server.answers_with(|asked| {
        let mut answer = asked.answer();
        answer.queries[0].set_name(name("other.test."));
        answer.into()
    });
    let stale = until(&mut seen, "stale", is_stale).await;
    assert!(why(&stale).contains("another question"), "{}", why(&stale));
    assert_eq!(stale.instances(), before.instances());
}

#[tokio::test]
async fn aliases_that_lead_in_a_circle_take_nothing_away() {
    let why = stays_at_one_address("a circle in one answer", |asked| {
        let mut answer = asked.answer();
        let there = Record::from_rdata(asked.name().clone(), 0, alias(&name("a.test.")));
        let back = Record::from_rdata(name("a.test."), 0, alias(asked.name()));
        answer.answers = vec![there, back];
        answer.into()
    })
    .await;
    assert!(why.contains("circle"), "{why}");
    let asked_so_far = Arc::new(AtomicUsize::new(0));
    let asked_of_us = Arc::clone(&asked_so_far);
    let why = stays_at_one_address("an endless chain", move |asked| {
        let number = asked_of_us.fetch_add(1, Ordering::Relaxed);
        let mut answer = asked.answer();
        let next = name(&format!("a{number}.test."));
        answer.answers = vec![Record::from_rdata(asked.name().clone(), 0, alias(&next))];
        answer.into()
    })
    .await;
    assert!(why.contains("circle, or too far"), "{why}");
}

#[tokio::test]
async fn an_answer_that_is_cut_short_over_tcp_as_well_takes_nothing_away() {
    let why = stays_at_one_address("cut short", |asked| {
        let mut answer = asked.answer();
        answer.metadata.truncation = true;
        answer.answers = vec![Record::from_rdata(
            asked.name().clone(),
            0,
            address("6.6.6.6"),
        )];
        answer.into()
    })
    .await;
    assert!(why.contains("cut short"), "{why}");
}

#[tokio::test]
async fn a_server_that_names_other_servers_instead_of_an_answer_takes_nothing_away() {
    let why = stays_at_one_address("referral", |asked| {
        let mut answer = asked.answer();
        let servers = RData::NS(NS(name("ns.elsewhere.test.")));
        answer.authorities = vec![Record::from_rdata(name("test."), 0, servers)];
        answer.into()
    })
    .await;
    assert!(why.contains("named other servers"), "{why}");
}

#[tokio::test]
async fn records_and_addresses_that_multiply_to_too_many_instances_take_nothing_away() {
    let few = |asked: &Asked| match asked.wanted() {
        RecordType::SRV => asked.records(0, &[srv(0, 1, 81, &name("a.test."))]),
        _ => asked.records(0, &[address("10.0.0.1")]),
    };
    let server = Scripted::start(few).await;
    let mut seen = connect(server.srv_config()).subscribe("greeter").unwrap();
    let before = until(&mut seen, "there", is_live_with(1)).await;
    server.answers_with(|asked| {
        let records: Vec<_> = match asked.wanted() {
            RecordType::SRV => (1..=500)
                .map(|port| srv(0, 1, port, &name("a.test.")))
                .collect(),
            _ => many(500),
        };
        asked.records(0, &records)
    });
    let stale = until(&mut seen, "stale", is_stale).await;
    assert!(
        why(&stale).contains("more than 16384 instances"),
        "{}",
        why(&stale)
    );
    assert_eq!(stale.instances(), before.instances());
    server.answers_with(few);
    until(&mut seen, "followed again", is_live_with(1)).await;
}

/// What is not confirmed grows old.
#[tokio::test]
async fn a_set_that_is_doubted_is_as_old_as_its_last_confirmation() {
    let server = Scripted::start(one).await;
    let registry = registry(&server);
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    // The absence holds for so long that it is not told a second time here.
    server.answers_with(|asked| asked.no_such_name(3600));
    let changed = registry.config().clock.now();
    let doubted = until(&mut seen, "doubted", is_stale).await;
    assert_eq!(doubted.snapshot().len(), 1);
    assert!(doubted.snapshot().as_of() <= changed);
    // Nor does it become newer when it is doubted once more.
    let _ = seen.refresh().await;
    let state = seen.state();
    assert!(is_stale(&state) && state.snapshot().as_of() <= changed);
}

#[tokio::test]
async fn what_a_datagram_leaves_out_is_read_over_tcp() {
    let server = Scripted::start(|asked| {
        if asked.over_tcp {
            return asked.records(0, &many(1500));
        }
        let mut answer = asked.answer();
        answer.metadata.truncation = true;
        answer.into()
    })
    .await;
    let mut seen = registry(&server).subscribe("greeter").unwrap();
    until(&mut seen, "all", is_live_with(1500)).await;
}

#[tokio::test]
async fn a_name_that_does_not_exist_or_is_empty_counts_when_it_is_told_twice_in_a_row() {
    for exists in [false, true] {
        let server = Scripted::start(one).await;
        let mut seen = registry(&server).subscribe("greeter").unwrap();
        until(&mut seen, "there", is_live_with(1)).await;
        let told = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&told);
        let none = move |asked: &Asked| {
            if exists {
                asked.records(0, &[])
            } else {
                asked.no_such_name(0)
            }
        };
        // Every second answer, for both kinds of addresses.
        server.answers_with(move |asked| {
            if matches!(counted.fetch_add(1, Ordering::Relaxed) % 4, 0 | 1) {
                none(asked)
            } else {
                one(asked)
            }
        });
        until(&mut seen, "doubted", is_stale).await;
        until(&mut seen, "believed", is_live_with(1)).await;
        until(&mut seen, "doubted again", is_stale).await;
        while told.load(Ordering::Relaxed) < 20 {
            sleep(SHORTEST).await;
            assert_eq!(seen.state().instances().len(), 1);
        }
        server.answers_with(none);
        until(&mut seen, "gone", is_live_with(0)).await;
    }
}

/// An error between them makes no difference: the feed that follows remembers what the last one was told.
#[tokio::test]
async fn a_name_that_is_told_to_be_gone_twice_with_an_error_between_is_gone() {
    let server = Scripted::start(one).await;
    let mut seen = registry(&server).subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    let told = AtomicUsize::new(0);
    server.answers_with(move |asked| {
        if matches!(told.fetch_add(1, Ordering::Relaxed) % 4, 0 | 1) {
            asked.no_such_name(0)
        } else {
            asked.refuse(ResponseCode::ServFail)
        }
    });
    until(&mut seen, "gone", |state| state.instances().is_empty()).await;
}

#[tokio::test]
async fn a_time_to_live_of_0_or_a_year_is_kept_within_the_bounds() {
    let (min, max) = (Duration::from_millis(300), Duration::from_secs(2));
    for (ttl, least) in [(0, min), (365 * 24 * 3600, max), (u32::MAX, min)] {
        let server = Scripted::start(move |asked| asked.records(ttl, &[address("10.0.0.1")])).await;
        // Over TCP no question is sent again, however busy the machine is.
        let config = server
            .config()
            .with_transport(Transport::Tcp)
            .with_timeout(Duration::from_secs(5))
            .with_intervals(min, max)
            .with_family(Family::Ipv4);
        let backend = DnsBackend::new(config).unwrap();
        let service = ServiceName::new("greeter").unwrap();
        let mut watcher = backend.watch(&service, None).await.unwrap();
        watcher.next().await.unwrap();
        let start = Instant::now();
        for _ in 0..3 {
            let told = watcher.next().await.unwrap();
            assert!(matches!(told, Feed::Alive { .. }), "{told:?}");
        }
        let took = start.elapsed();
        assert!(
            took >= 3 * least && took < 4 * least + BUSY,
            "{ttl}: {took:?}"
        );
        assert_eq!(server.asked().len(), 4);
    }
}

#[tokio::test]
async fn a_quiet_name_costs_one_question_for_each_type_and_time_to_live() {
    let server = Scripted::start(|asked| asked.records(1, &[address("10.0.0.1")])).await;
    // Over TCP no question is sent again, however busy the machine is.
    let config = server.config().with_transport(Transport::Tcp);
    let registry = connect(config.with_timeout(Duration::from_secs(5)));
    let mut seen = registry.subscribe("greeter").unwrap();
    let other = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    let (start, before) = (Instant::now(), server.asked().len());
    sleep(Duration::from_secs(4)).await;
    let intervals = usize::try_from(start.elapsed().as_secs()).unwrap() + 1;
    let asked = server.asked();
    let more = asked.len() - before;
    assert!(more <= 2 * intervals, "{more} questions in {intervals} s");
    assert!(more >= 2, "{more} questions in {intervals} s");
    let of = |wanted| asked.iter().filter(|(_, kind, _)| *kind == wanted).count();
    // One of the two may be under way.
    let [a, aaaa] = [RecordType::A, RecordType::AAAA].map(of);
    assert!(a.abs_diff(aaaa) <= 1, "{a} {aaaa}");
    drop(other);
}

#[tokio::test]
async fn of_one_type_that_fails_what_was_known_stays_and_the_other_is_followed() {
    let server =
        Scripted::start(|asked| asked.records(0, &[address("10.0.0.1"), address("2001:db8::1")]))
            .await;
    let mut seen = registry(&server).subscribe("greeter").unwrap();
    until(&mut seen, "both", is_live_with(2)).await;
    server.answers_with(|asked| match asked.wanted() {
        RecordType::AAAA => asked.refuse(ResponseCode::ServFail),
        _ => asked.records(0, &[address("10.0.0.2")]),
    });
    let half = until(&mut seen, "half", |state| {
        is_stale(state) && addresses(state) == ["10.0.0.2:80", "[2001:db8::1]:80"]
    })
    .await;
    assert!(why(&half).contains("AAAA"), "{}", why(&half));
    let only = connect(server.config().with_family(Family::Ipv4));
    let mut seen = only.subscribe("greeter").unwrap();
    until(&mut seen, "IPv4 alone", is_live_at(["10.0.0.2:80"])).await;
}

/// Ten addresses, of which each answer has the next three.
fn rotating() -> impl Fn(&Asked) -> Reply + Send + Sync + 'static {
    let all = many(10);
    let turn = AtomicUsize::new(0);
    move |asked| {
        if asked.wanted() != RecordType::A {
            return asked.records(0, &[]);
        }
        let turn = turn.fetch_add(3, Ordering::Relaxed);
        let three: Vec<_> = (turn..turn + 3).map(|at| all[at % 10].clone()).collect();
        asked.records(0, &three)
    }
}

#[tokio::test]
async fn a_server_that_rotates_its_answers_is_followed_without_a_flap() {
    let server = Scripted::start(rotating()).await;
    let registry = connect(server.config().with_keep_absent(10));
    let mut seen = registry.subscribe("greeter").unwrap();
    let whole = until(&mut seen, "all ten", is_live_with(10)).await;
    // Neither a read of everything nor an outage takes the sample for everything.
    let refreshed = seen.refresh().await.unwrap();
    assert_eq!(refreshed.instances(), whole.instances());
    server.answers_with(|_| Reply::Silence);
    until(&mut seen, "stale", is_stale).await;
    server.answers_with(rotating());
    until(&mut seen, "back", |state| !is_stale(state)).await;
    for _ in 0..10 {
        sleep(SHORTEST).await;
        assert_eq!(seen.state().instances(), whole.instances());
    }
    // What is there no more goes after ten answers.
    server.answers_with(|asked| asked.records(0, &[address("10.0.0.1")]));
    until(&mut seen, "one", is_live_at(["10.0.0.1:80"])).await;
}

#[tokio::test]
async fn an_address_twice_is_one_instance_and_what_cannot_be_dialled_is_none() {
    let server = Scripted::start(|asked| {
        let odd = [
            "10.0.0.1",
            "10.0.0.1",
            "0.0.0.0",
            "::",
            "2001:db8::1",
            "2001:db8::1",
        ];
        asked.records(0, &odd.map(address))
    })
    .await;
    let mut seen = registry(&server).subscribe("greeter").unwrap();
    let state = until(
        &mut seen,
        "two",
        is_live_at(["10.0.0.1:80", "[2001:db8::1]:80"]),
    )
    .await;
    assert_eq!(state.snapshot().skipped().len(), 2);
}

#[tokio::test]
async fn an_srv_record_that_names_no_host_says_that_there_is_no_service() {
    let server = Scripted::start(|asked| asked.records(0, &[srv(0, 0, 0, &Name::root())])).await;
    let config = server.srv_config();
    let mut seen = connect(config).subscribe("greeter").unwrap();
    until(&mut seen, "none", is_live_with(0)).await;
}

/// What the answer brings along is not asked for, and of other names it counts for nothing.
#[tokio::test]
async fn hosts_of_srv_records_are_asked_for_once_for_each_time_to_live() {
    let [along, asked_for] = ["along.test.", "asked-for.test."].map(name);
    let (with, without) = (along.clone(), asked_for.clone());
    let server = Scripted::start(move |asked| {
        if asked.wanted() != RecordType::SRV {
            return asked.records(3600, &[address("10.0.0.2")]);
        }
        let mut answer = asked.answer();
        let owner = asked.name();
        let record = |data: RData| Record::from_rdata(owner.clone(), 0, data);
        answer.answers = vec![
            record(srv(0, 1, 81, &with)),
            record(srv(0, 1, 82, &without)),
        ];
        answer.additionals = vec![
            Record::from_rdata(with.clone(), 0, address("10.0.0.1")),
            Record::from_rdata(name("other.test."), 0, address("6.6.6.6")),
        ];
        answer.into()
    })
    .await;
    // Over TCP no question is sent again, however busy the machine is.
    let config = server.srv_config().with_transport(Transport::Tcp);
    let config = config.with_timeout(Duration::from_secs(5));
    let mut seen = connect(config).subscribe("greeter").unwrap();
    until(
        &mut seen,
        "both",
        is_live_at(["10.0.0.1:81", "10.0.0.2:82"]),
    )
    .await;
    let asked_of = |name: &Name, wanted| {
        let asked = server.asked();
        let same = |(asked, kind, _): &&(Name, RecordType, bool)| asked == name && *kind == wanted;
        asked.iter().filter(same).count()
    };
    let srv_name = name("greeter.sd.test.");
    while asked_of(&srv_name, RecordType::SRV) < 5 {
        sleep(SHORTEST).await;
    }
    // Of the first host only the IPv6 addresses did not come along.
    for (host, questions) in [(&along, (0, 1)), (&asked_for, (1, 1))] {
        let [a, aaaa] = [RecordType::A, RecordType::AAAA].map(|kind| asked_of(host, kind));
        assert_eq!((a, aaaa), questions, "{host}");
    }
}

/// A host that comes with its address, which may change.
fn srv_with(at: &'static str) -> impl Fn(&Asked) -> Reply + Send + Sync + 'static {
    move |asked| {
        if asked.wanted() != RecordType::SRV {
            return asked.records(0, &[]);
        }
        let host = name("host.test.");
        let mut answer = asked.answer();
        let owner = asked.name().clone();
        answer.answers = vec![Record::from_rdata(owner, 3600, srv(0, 1, 81, &host))];
        answer.additionals = vec![Record::from_rdata(host, 0, address(at))];
        answer.into()
    }
}

#[tokio::test]
async fn an_address_that_comes_with_srv_records_holds_for_its_own_time_to_live() {
    let server = Scripted::start(srv_with("10.0.0.1")).await;
    let config = server.srv_config();
    let config = config.with_intervals(SHORTEST, Duration::from_secs(3600));
    let mut seen = connect(config).subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_at(["10.0.0.1:81"])).await;
    server.answers_with(srv_with("10.0.0.2"));
    until(&mut seen, "moved", is_live_at(["10.0.0.2:81"])).await;
}

#[tokio::test]
async fn a_host_that_cannot_be_asked_for_keeps_its_instances_and_the_others_are_followed() {
    let up = |asked: &Asked| match asked.wanted() {
        RecordType::SRV => asked.records(
            0,
            &[
                srv(0, 1, 81, &name("a.test.")),
                srv(0, 1, 82, &name("b.test.")),
            ],
        ),
        _ if *asked.name() == name("a.test.") => asked.records(0, &[address("10.0.0.1")]),
        _ => asked.records(0, &[address("10.0.0.2")]),
    };
    let server = Scripted::start(up).await;
    let config = server.srv_config();
    let mut seen = connect(config).subscribe("greeter").unwrap();
    until(&mut seen, "both", is_live_with(2)).await;
    server.answers_with(move |asked| {
        if *asked.name() == name("a.test.") {
            return asked.refuse(ResponseCode::ServFail);
        }
        if *asked.name() == name("b.test.") {
            return asked.records(0, &[address("10.0.0.3")]);
        }
        up(asked)
    });
    let half = until(&mut seen, "half", |state| {
        is_stale(state) && addresses(state) == ["10.0.0.1:81", "10.0.0.3:82"]
    })
    .await;
    assert!(why(&half).contains("a.test."), "{}", why(&half));
}

#[tokio::test]
async fn a_name_that_is_no_name_is_refused_before_anything_is_asked() {
    let server = Scripted::start(one).await;
    let registry = registry(&server);
    let long = "x".repeat(64);
    for service in ["a..b", ".a", &long] {
        let error = registry.list(service).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{service}");
    }
    let mut seen = registry.subscribe("a..b").unwrap();
    let state = until(&mut seen, "told", |state| !why(state).is_empty()).await;
    assert!(why(&state).contains("between two dots"), "{}", why(&state));
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn nothing_can_be_listed_registered_or_led() {
    let server = Scripted::start(one).await;
    let registry = registry(&server);
    let instance = sd_core::Instance::new("greeter", "10.0.0.1:80").unwrap();
    for error in [
        registry.services().await.map(drop).unwrap_err(),
        registry.register(instance).await.map(drop).unwrap_err(),
        registry.elector().map(drop).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        let report = error.report().to_string();
        assert!(report.len() > "unsupported".len() + 30, "{report}");
    }
}

#[tokio::test]
async fn a_closed_registry_asks_nothing_and_a_waiting_feed_ends() {
    let server = Scripted::start(|_| Reply::Silence).await;
    let backend = Arc::new(DnsBackend::new(server.config()).unwrap());
    let service = ServiceName::new("greeter").unwrap();
    let mut watcher = backend.watch(&service, None).await.unwrap();
    let waiting = tokio::spawn(async move { watcher.next().await.map(drop) });
    while server.asked().is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
    sd_core::Backend::close(backend.as_ref()).await.unwrap();
    let ended = timeout(BUSY, waiting).await.unwrap().unwrap();
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Closed);
    let asked = server.asked().len();
    let error = backend.list(&service).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(server.asked().len(), asked);
}

#[tokio::test]
async fn a_feed_that_waits_for_a_time_to_live_ends_when_its_registry_is_closed() {
    let server = Scripted::start(|asked| asked.records(3600, &[address("10.0.0.1")])).await;
    let backend = DnsBackend::new(server.config()).unwrap();
    let service = ServiceName::new("greeter").unwrap();
    let mut watcher = backend.watch(&service, None).await.unwrap();
    watcher.next().await.unwrap();
    let waiting = tokio::spawn(async move { watcher.next().await.map(drop) });
    sd_core::Backend::close(&backend).await.unwrap();
    let ended = timeout(BUSY, waiting).await.unwrap().unwrap();
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn a_resolver_that_ends_its_connections_is_asked_over_new_ones() {
    let server = Scripted::start(one).await;
    let config = server.config().with_transport(Transport::Tcp);
    let registry = connect(config.with_timeout(Duration::from_secs(5)));
    for _ in 0..3 {
        registry.list("greeter").await.unwrap();
        server.end_connections().await;
    }
}

/// What one runtime has opened, only that runtime drives.
#[test]
fn a_runtime_that_stands_still_holds_up_the_questions_of_no_other_for_long() {
    let serving = Runtime::new().unwrap();
    let server = serving.block_on(Scripted::start(one));
    let [standing, running] =
        [(); 2].map(|()| Builder::new_current_thread().enable_all().build().unwrap());
    for transport in [Transport::Auto, Transport::Tcp] {
        let registry = connect(server.config().with_transport(transport));
        let first = standing.block_on(registry.list("greeter")).unwrap();
        assert_eq!(first.len(), 1);
        // This one may find out that nothing comes back.
        let _ = running.block_on(registry.list("greeter"));
        let then = running.block_on(registry.list("greeter")).unwrap();
        assert_eq!(then.len(), 1);
    }
}

/// TCP carries many questions at a time.
#[tokio::test]
async fn many_names_are_followed_at_once_over_either_transport() {
    for transport in [Transport::Auto, Transport::Tcp] {
        let server = Scripted::start(one).await;
        let registry = connect(
            server
                .config()
                .with_transport(transport)
                .with_intervals(Duration::from_secs(2), LONGEST)
                .with_timeout(Duration::from_secs(5)),
        );
        let mut all: Vec<_> = (0..300)
            .map(|number| registry.subscribe(format!("s{number}")).unwrap())
            .collect();
        for seen in &mut all {
            until(seen, "there", is_live_with(1)).await;
        }
    }
}

#[tokio::test]
async fn dropping_every_handle_ends_every_task_and_socket() {
    let server = Scripted::start(one).await;
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for transport in [Transport::Auto, Transport::Tcp] {
        let registry = connect(server.config().with_transport(transport));
        let mut seen = registry.subscribe("greeter").unwrap();
        until(&mut seen, "there", is_live_with(1)).await;
        assert!(tasks() > before);
        drop((registry, seen));
        // The server has a task for each connection, which ends with that.
        eventually("without tasks", LONG, || async { tasks() == before }).await;
    }
}
