//! Limits of ZooKeeper's and of ours: connections, time-outs, sizes, names, and what operators take away.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::election::{Booth, ticket_for};
use common::{
    LONG, TTL, close, config, config_at, event, eventually, instance, is_live_with, make,
    own_server_with, prefix, raw, registry, server, until,
};
use futures_util::StreamExt;
use futures_util::stream::iter;
use sd_core::port::{Liveness, Ticket};
use sd_core::{ErrorKind, Instance, InstanceId, Override, RegistrationEvent, RegistrationGuard};
use sd_testing::{Fault, TcpProxy, is_stale};
use sd_zk::ZkConfig;
use server_programs::LocalServer;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use zookeeper_client as zk;

/// What ZooKeeper takes in one request by default, together with what surrounds it: `jute.maxbuffer`.
const MOST_BYTES_OF_A_REQUEST: usize = 0xf_ffff;

fn open(mode: zk::CreateMode) -> zk::CreateOptions<'static> {
    mode.with_acls(zk::Acls::anyone_all())
}

fn named(id: &str, port: u16) -> Instance {
    instance(port).with_id(InstanceId::new(id).unwrap())
}

/// The time-out of its session.
async fn granted(guard: &mut RegistrationGuard) -> Duration {
    let events = event(guard, "registered").await;
    match events.last() {
        Some(RegistrationEvent::Registered(Liveness::Session { ttl })) => *ttl,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_server_that_takes_no_more_connections_is_told_as_a_possible_cause_until_one_is_free() {
    const MOST: usize = 4;
    let line = format!("maxClientCnxns={MOST}");
    // The last line counts.
    let server = own_server_with(|program| program.with_config(line)).await;
    let address: SocketAddr = server.program().address();
    let mut taken = Vec::new();
    while taken.len() < MOST {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // One that is turned away is closed at once, as long as what has asked whether the server is ready still counts.
        let closed = timeout(Duration::from_secs(1), stream.read(&mut [0])).await;
        if closed.is_err() {
            taken.push(stream);
        }
    }
    let registry = sd_zk::connect(config_at(&address.to_string(), "/s")).unwrap();
    let refused = registry.list("greeter").await.unwrap_err();
    let report = refused.report().to_string();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{report}");
    assert!(report.contains("maxClientCnxns"), "{report}");
    let mut seen = registry.subscribe("greeter").unwrap();
    let mut guard = registry.register(instance(1)).in_background().unwrap();
    event(&mut guard, "retrying").await;
    assert!(!seen.state().is_known());
    drop(taken);
    event(&mut guard, "registered").await;
    until(&mut seen, "there", is_live_with(1)).await;
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn the_time_out_that_the_server_grants_is_the_one_that_counts() {
    let [least, most] = [3000, 4000].map(Duration::from_millis);
    let server = own_server_with(|program| {
        program
            .with_config("minSessionTimeout=3000")
            .with_config("maxSessionTimeout=4000")
    })
    .await;
    let address = server.program().address();
    let proxy = TcpProxy::start(address).await.unwrap();
    let near = address.to_string();
    for (asked, expected) in [(Duration::from_secs(1), least), (LONG * 2, most)] {
        let config = |address: &str| config_at(address, "/s").with_session_timeout(asked);
        let registry = sd_zk::connect(config(&proxy.address().to_string())).unwrap();
        let mut guard = registry.register(instance(1)).in_background().unwrap();
        assert_eq!(granted(&mut guard).await, expected);
        let elector = Booth::at(&near).elector();
        let entry = elector.join(&ticket_for("a", asked)).await.unwrap();
        assert_eq!(entry.confirm().await.unwrap().ttl, expected);

        // The record outlives its owner by that much, and not by what was asked for.
        let reader = raw(&near).await;
        let is_gone = async || reader.list_children("/s/greeter").await.unwrap().is_empty();
        assert!(!is_gone().await);
        let since = Instant::now();
        proxy.set(Fault::BlackHole);
        eventually("gone", LONG, is_gone).await;
        let took = since.elapsed();
        assert!(took > expected / 2, "{took:?}");
        proxy.set(Fault::Pass);
        assert_eq!(granted(&mut guard).await, expected);
        registry.close().await.unwrap();
        close(reader).await;
    }
}

/// Nodes that others have spoilt, or that mean us harm.
fn garbage() -> Vec<(&'static str, Vec<u8>)> {
    let most = MOST_BYTES_OF_A_REQUEST - 1000;
    let curators = |payload: &str| {
        format!(
            r#"{{"name":"greeter","id":"x","address":"10.0.0.9","port":9,"payload":{payload}}}"#
        )
    };
    let text = |text: String| text.into_bytes();
    vec![
        ("nothing", Vec::new()),
        ("zeros", vec![0; most]),
        ("text", vec![b'x'; most]),
        ("no-utf8", vec![0xff; 1000]),
        ("terminal", b"\x1b[2J\x1b]0;owned\x07".to_vec()),
        ("half", text(curators("1")[..40].to_owned())),
        ("deep", text("[".repeat(most))),
        ("deep-objects", text(curators(&r#"{"a":"#.repeat(most / 6)))),
        ("no-port", text(curators("1").replace(":9,", r#":"nine","#))),
        ("long-host", text(format!("http://{}:1", "h".repeat(most)))),
        ("null", b"null".to_vec()),
        ("list", b"[]".to_vec()),
    ]
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn garbage_of_any_kind_and_size_hides_no_record_and_is_told_in_few_words() {
    let prefix = prefix();
    let registry = registry(&prefix);
    let _guards = [
        registry.register(named("a", 1)).await.unwrap(),
        registry.register(named("z", 2)).await.unwrap(),
    ];
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "both", is_live_with(2)).await;
    let operator = raw(&server()).await;
    let garbage = garbage();
    for (id, data) in &garbage {
        let path = format!("{prefix}/greeter/{id}");
        let made = open(zk::CreateMode::Ephemeral);
        operator.create(&path, data, &made).await.unwrap();
    }
    let are_skipped = |state: &sd_core::State| {
        state.snapshot().skipped().len() == garbage.len() && is_live_with(2)(state)
    };
    let state = until(&mut seen, "skipped", are_skipped).await;
    let listed = registry.list("greeter").await.unwrap();
    assert_eq!((listed.len(), listed.skipped().len()), (2, garbage.len()));
    for skipped in state.snapshot().skipped() {
        let reason = format!("{skipped:?}");
        assert!(reason.len() < 1000, "{reason}");
        assert!(!reason.contains('\x1b'), "{reason}");
    }
    // What is garbage now may be a record of ours later.
    let path = format!("{prefix}/greeter/text");
    operator.delete(&path, None).await.unwrap();
    let _mended = registry.register(named("text", 3)).await.unwrap();
    until(&mut seen, "mended", is_live_with(3)).await;
    close(operator).await;
}

/// A megabyte of what other programs call metadata.
#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_record_of_a_megabyte_is_read_beside_others_and_followed() {
    let prefix = prefix();
    let registry = registry(&prefix);
    let _guard = registry.register(named("a", 1)).await.unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "there", is_live_with(1)).await;
    let operator = raw(&server()).await;
    let large = |word: &str| {
        let value = word.repeat((MOST_BYTES_OF_A_REQUEST - 1000) / word.len());
        format!(
            r#"{{"name":"greeter","id":"b","address":"h","port":2,"payload":{{"k":"{value}"}}}}"#
        )
    };
    let path = format!("{prefix}/greeter/b");
    let made = open(zk::CreateMode::Ephemeral);
    operator
        .create(&path, large("x").as_bytes(), &made)
        .await
        .unwrap();
    until(&mut seen, "both", is_live_with(2)).await;
    operator
        .set_data(&path, large("y").as_bytes(), None)
        .await
        .unwrap();
    let id = InstanceId::new("b").unwrap();
    until(&mut seen, "changed", |state| {
        let large = state.snapshot().get(&id).cloned();
        large.is_some_and(|large| large.metadata().values().any(|v| v.starts_with('y')))
    })
    .await;
    // Nor does anything overflow.
    let deep = MOST_BYTES_OF_A_REQUEST / 2 - 1000;
    let deep = format!("{}{}", "[".repeat(deep), "]".repeat(deep));
    let deep = format!(r#"{{"name":"greeter","id":"b","address":"h","port":3,"payload":{deep}}}"#);
    operator
        .set_data(&path, deep.as_bytes(), None)
        .await
        .unwrap();
    until(&mut seen, "deep", |state| {
        let deep = state.snapshot().get(&id).cloned();
        deep.is_some_and(|deep| deep.endpoint().port() == Some(3))
    })
    .await;
    close(operator).await;
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn what_is_too_large_to_be_stored_is_refused_before_anything_is_sent() {
    let prefix = prefix();
    let registry = registry(&prefix);
    let operator = raw(&server()).await;
    let huge = "x".repeat(70_000);
    let refused = registry.register(named("a", 1).with_metadata("k", &huge));
    let refused = refused.await.unwrap_err();
    let report = refused.report().to_string();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{report}");
    assert!(
        report.contains("at most 65536 are allowed: shorten"),
        "{report}"
    );
    assert!(report.len() < 500, "{report}");
    assert!(operator.check_stat(&prefix).await.unwrap().is_none());

    let guard = registry.register(named("a", 1)).await.unwrap();
    let value = huge.clone();
    let refused = guard.update(|one| one.with_metadata("k", value)).await;
    let report = refused.unwrap_err().report().to_string();
    assert!(
        report.contains("at most 65536 are allowed: shorten"),
        "{report}"
    );
    let stat = operator.check_stat(&format!("{prefix}/greeter/a")).await;
    assert_eq!(stat.unwrap().unwrap().version, 0);

    let booth = Booth::at(&server());
    let ticket = Ticket::new(common::election::name(), huge.as_bytes(), TTL);
    let refused = booth.elector().join(&ticket).await.err().unwrap();
    assert_eq!(
        refused.kind(),
        ErrorKind::InvalidInput,
        "{}",
        refused.report()
    );
    close(operator).await;
}

/// Whatever others have put into our record: to send more than a server takes would end the connection of all records.
#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_record_that_others_have_filled_up_is_updated_overridden_and_withdrawn_all_the_same() {
    let prefix = prefix();
    let registry = registry(&prefix);
    let operator = raw(&server()).await;
    let mut guards = Vec::new();
    for port in 1..=3 {
        guards.push(
            registry
                .register(named(&format!("r{port}"), port))
                .await
                .unwrap(),
        );
    }
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "all", is_live_with(3)).await;
    for guard in &guards {
        let path = format!("{prefix}/greeter/{}", guard.record_id().id);
        let (data, _) = operator.get_data(&path).await.unwrap();
        let text = String::from_utf8(data).unwrap();
        // What is around it in a request, and within the filler.
        let around = path.len() + 13;
        let room = MOST_BYTES_OF_A_REQUEST - text.len() - around;
        let added = format!(r#"{{"filler":"{}","#, "x".repeat(room - 20));
        let filled = text.replacen('{', &added, 1);
        operator
            .set_data(&path, filled.as_bytes(), None)
            .await
            .unwrap();
    }
    let mut guards = guards.into_iter();
    let (updated, overridden) = (guards.next().unwrap(), guards.next().unwrap());
    updated
        .update(|one| one.with_tag("a tag that makes it longer"))
        .await
        .unwrap();
    let said = registry
        .set_override(overridden.record_id(), Override::Draining)
        .await
        .unwrap_err();
    let report = said.report().to_string();
    assert_eq!(said.kind(), ErrorKind::Rejected, "{report}");
    assert!(report.contains("too large"), "{report}");
    // It was not found out by a connection that broke.
    assert!(!is_stale(&seen.state()), "{:?}", seen.state());
    for guard in [updated, overridden].into_iter().chain(guards) {
        guard.deregister().await.unwrap();
    }
    until(&mut seen, "withdrawn", is_live_with(0)).await;
    close(operator).await;
}

/// More watches than the client crate can set again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_feed_with_more_watches_than_its_client_can_set_again_outlives_its_connection() {
    outlives_its_connection("", 7000, &"x".repeat(150)).await;
}

/// The client puts it before each path.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_feed_whose_watches_are_too_many_with_their_chroot_outlives_its_connection() {
    let chroot = format!("{}-{}", prefix(), "x".repeat(150));
    // 40 bytes each without it, and 220 with it.
    outlives_its_connection(&chroot, 1500, "").await;
}

async fn outlives_its_connection(chroot: &str, records: usize, padding: &str) {
    let prefix = prefix();
    let operator = raw(&server()).await;
    let folder = format!("{chroot}{prefix}/greeter");
    make(&operator, &folder).await;
    let path = |n: usize| format!("{folder}/{n}-{padding}");
    let made = open(zk::CreateMode::Ephemeral);
    iter(0..records)
        .for_each_concurrent(200, |n| {
            let (path, operator, made) = (path(n), &operator, &made);
            async move {
                operator.create(&path, b"h:1", made).await.unwrap();
            }
        })
        .await;
    let proxy = TcpProxy::start(server().parse().unwrap()).await.unwrap();
    let config = |address: &str| config_at(address, &prefix).with_chroot(chroot);
    let far = config(&proxy.address().to_string()).with_session_timeout(LONG);
    let registry = sd_zk::connect(far).unwrap();
    let mut seen = registry.subscribe("greeter").unwrap();
    until(&mut seen, "all", is_live_with(records)).await;
    let guard = registry.register(instance(1)).await.unwrap();
    let id = guard.record_id().id.clone();
    until(&mut seen, "one more", is_live_with(records + 1)).await;
    let reader = sd_zk::connect(config(&server())).unwrap();
    let mut elsewhere = reader.subscribe("greeter").unwrap();
    until(&mut elsewhere, "one more", is_live_with(records + 1)).await;
    proxy.set(Fault::Cut);
    until(&mut seen, "stale", is_stale).await;
    operator.delete(&path(7), None).await.unwrap();
    proxy.set(Fault::Pass);
    // Its session does not, and is replaced before others see that.
    let is_there_all_the_time = async {
        loop {
            let told = elsewhere.changed().await.unwrap();
            assert!(told.snapshot().get(&id).is_some());
        }
    };
    tokio::select! {
        () = is_there_all_the_time => {}
        _ = until(&mut seen, "one less", is_live_with(records)) => {}
    }
    operator.set_data(&path(8), b"h:2", None).await.unwrap();
    until(&mut seen, "changed", |state| {
        let all = state.snapshot().instances();
        all.iter().any(|one| one.endpoint().port() == Some(2))
    })
    .await;
    close(operator).await;
}

/// As `deleteall` does.
async fn delete_all(operator: &zk::Client, path: &str) {
    loop {
        for child in operator.list_children(path).await.unwrap_or_default() {
            let child = format!("{path}/{child}");
            Box::pin(delete_all(operator, &child)).await;
        }
        match operator.delete(path, None).await {
            Ok(()) | Err(zk::Error::NoNode) => return,
            // A record is back already.
            Err(zk::Error::NotEmpty) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn what_an_operator_deletes_with_all_above_it_is_back_and_followed() {
    let prefix = prefix();
    let registry = registry(&prefix);
    let reader = common::registry(&prefix);
    let operator = raw(&server()).await;
    let mut guards = Vec::new();
    for port in 1..=3 {
        let mut guard = registry.register(instance(port)).await.unwrap();
        event(&mut guard, "registered").await;
        guards.push(guard);
    }
    let mut seen = reader.subscribe("greeter").unwrap();
    let services = reader.subscribe_services().unwrap();
    until(&mut seen, "all", is_live_with(3)).await;
    for deleted in [format!("{prefix}/greeter"), prefix.clone()] {
        delete_all(&operator, &deleted).await;
        for guard in &mut guards {
            event(guard, "registered").await;
        }
        // Also those that were served on meanwhile are the new records now.
        eventually("all back", LONG, async || {
            let listed = reader.list("greeter").await.unwrap();
            listed.len() == 3
        })
        .await;
        until(&mut seen, "all again", is_live_with(3)).await;
    }
    let known = async || services.state().services().len() == 1;
    eventually("listed", LONG, known).await;
    guards.pop().unwrap().deregister().await.unwrap();
    until(&mut seen, "followed", is_live_with(2)).await;
    close(operator).await;
}

/// What is not there is not the same as what is empty.
#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_chroot_that_does_not_exist_is_told_to_readers_until_it_does() {
    let chroot = format!("/no-{}", &prefix()[1..]);
    let registry = sd_zk::connect(config("/s").with_chroot(&chroot)).unwrap();
    let operator = raw(&server()).await;
    let mut seen = registry.subscribe("greeter").unwrap();
    let services = registry.subscribe_services().unwrap();
    for refused in [
        registry.list("greeter").await.unwrap_err(),
        registry.services().await.unwrap_err(),
    ] {
        let report = refused.report().to_string();
        assert_eq!(refused.kind(), ErrorKind::NotFound, "{report}");
        assert!(
            report.contains(&chroot) && report.contains("make it"),
            "{report}"
        );
    }
    let is_told = |state: &sd_core::State| {
        let error = state.status().error();
        error.is_some_and(|error| error.report().to_string().contains(&chroot))
    };
    let state = until(&mut seen, "told", is_told).await;
    assert!(!state.is_known() && !services.state().is_known());
    make(&operator, &chroot).await;
    until(&mut seen, "empty", is_live_with(0)).await;
    let known = async || services.state().is_known();
    eventually("listed", LONG, known).await;
    let _guard = registry.register(instance(1)).await.unwrap();
    until(&mut seen, "there", is_live_with(1)).await;

    delete_all(&operator, &chroot).await;
    until(&mut seen, "told again", is_told).await;
    make(&operator, &chroot).await;
    until(&mut seen, "there again", is_live_with(1)).await;
    close(operator).await;
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn names_that_are_paths_stay_within_their_folder() {
    let prefix = prefix();
    let registry = registry(&prefix);
    let operator = raw(&server()).await;
    for name in [".", ".."] {
        let refused = Instance::new(name, "10.0.0.1:1").unwrap_err();
        let report = refused.report().to_string();
        assert!(report.contains("choose another name"), "{report}");
    }
    let names = [
        "/",
        "..",
        ".",
        "../x",
        "a/../../b",
        "/zookeeper/config",
        "%2e%2e",
        "a%2Fb",
    ];
    let services = names
        .into_iter()
        .filter(|name| !matches!(*name, "." | ".."));
    for service in services.clone() {
        let mut guards = Vec::new();
        for id in names {
            let one = Instance::new(service, "10.0.0.1:1").unwrap();
            let one = one.with_id(InstanceId::new(id).unwrap());
            guards.push(registry.register(one).await.unwrap());
        }
        let mut listed: Vec<String> = registry
            .list(service)
            .await
            .unwrap()
            .instances()
            .iter()
            .map(|one| one.id().to_string())
            .collect();
        listed.sort();
        let mut expected = names.map(str::to_owned);
        expected.sort();
        assert_eq!(listed, expected, "{service}");
        for guard in guards {
            guard.deregister().await.unwrap();
        }
    }
    // No folder lies in another one, nor beside the prefix.
    let folders = operator.list_children(&prefix).await.unwrap();
    assert_eq!(folders.len(), services.count(), "{folders:?}");
    for folder in folders {
        let left = operator.list_children(&format!("{prefix}/{folder}")).await;
        assert_eq!(left.unwrap(), [""; 0]);
    }
    close(operator).await;
}

#[test]
fn a_bad_connection_string_is_refused_and_says_what_to_write() {
    for (url, why) in [
        ("zk://", "endpoints"),
        ("zk://:2181", "host:port"),
        ("zk://h:0", "host:port"),
        ("zk://h:99999", "host:port"),
        ("zk://h1,,h2", "host:port"),
        ("zk://h1:2181/a,h2:2181/a", "behind all endpoints"),
        ("zk://h/a//b", "two slashes"),
        ("zk://h/..", "chroot"),
        ("zk://h/a/./b", "chroot"),
        ("zk://h/zookeeper", "keeps for itself"),
        ("zk://h?prefix=/", "prefix"),
        ("zk://h?prefix=services", "must begin with a slash"),
        ("zk://h?session_timeout=1ms", "session_timeout"),
        ("zk://svc:sesame@h?access=everyone", "access"),
        ("zk://svc:sesame@h?user=other", "user"),
        ("h1:2181,h2:2181", "has no scheme"),
        ("zks://h", "ca"),
    ] {
        let refused = ZkConfig::from_url(url).and_then(sd_zk::connect);
        let Err(refused) = refused else {
            panic!("{url} was taken");
        };
        let report = refused.report().to_string();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{url}: {report}");
        assert!(report.contains(why), "{url}: {report}");
        assert!(!report.contains("sesame"), "{report}");
    }
}
