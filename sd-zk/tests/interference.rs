//! What operators and other programs do to records, and what is theirs.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{
    LONG, config, end_session, event, eventually, instance, make, prefix, raw, registry, server,
};
use sd_core::{ErrorKind, Instance, InstanceId, Override};
use sd_zk::Format;
use zookeeper_client as zk;

fn open(mode: zk::CreateMode) -> zk::CreateOptions<'static> {
    mode.with_acls(zk::Acls::anyone_all())
}

fn named(id: &str, port: u16) -> Instance {
    instance(port).with_id(InstanceId::new(id).unwrap())
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_record_that_an_operator_deletes_or_spoils_is_back_at_the_next_renewal() {
    let prefix = prefix();
    let registry = registry(&prefix);
    let operator = raw(&server()).await;
    let mut guard = registry.register(named("a", 1)).await.unwrap();
    event(&mut guard, "registered").await;
    let path = format!("{prefix}/greeter/a");
    operator.delete(&path, None).await.unwrap();
    event(&mut guard, "registered").await;
    assert_eq!(registry.list("greeter").await.unwrap().len(), 1);
    for other in [&b"{}"[..], b"http://10.0.0.2:2"] {
        operator.set_data(&path, other, None).await.unwrap();
        event(&mut guard, "registered").await;
        let set = registry.list("greeter").await.unwrap();
        assert_eq!((set.len(), set.skipped().len()), (1, 0));
        assert_eq!(set.instances()[0].endpoint().to_string(), "10.0.0.1:1");
    }
}

/// An operator, or a program that crashed, has left the mark. Readers take the record for one that is gone.
#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_record_of_ours_that_was_marked_as_withdrawn_is_back_at_the_next_renewal() {
    let prefix = prefix();
    let registry = registry(&prefix);
    let operator = raw(&server()).await;
    let mut guard = registry.register(named("a", 1)).await.unwrap();
    event(&mut guard, "registered").await;
    let path = format!("{prefix}/greeter/a");
    let (data, _) = operator.get_data(&path).await.unwrap();
    let data = String::from_utf8(data).unwrap();
    let marked = data.replacen(r#""incarnation""#, r#""withdrawn":true,"incarnation""#, 1);
    operator
        .set_data(&path, marked.as_bytes(), None)
        .await
        .unwrap();
    event(&mut guard, "registered").await;
    assert_eq!(registry.list("greeter").await.unwrap().len(), 1);
    let (again, _) = operator.get_data(&path).await.unwrap();
    assert_eq!(String::from_utf8(again).unwrap(), data);
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn what_another_program_keeps_under_an_id_is_neither_overwritten_nor_deleted() {
    let prefix = prefix();
    let registry = registry(&prefix);
    let operator = raw(&server()).await;
    make(&operator, &format!("{prefix}/greeter")).await;
    let path = format!("{prefix}/greeter/a");
    for data in [&b"not a record"[..], b"http://h:7"] {
        let made = open(zk::CreateMode::Ephemeral);
        operator.create(&path, data, &made).await.unwrap();
        let refused = registry.register(named("a", 1)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{}", refused.report());
        let (found, stat) = operator.get_data(&path).await.unwrap();
        assert_eq!((&*found, stat.version), (data, 0));
        operator.delete(&path, None).await.unwrap();
    }
}

/// As when our session has expired here, but not yet at the server.
#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn the_node_of_an_earlier_session_of_ours_is_replaced_at_once() {
    let prefix = prefix();
    let earlier = raw(&server()).await;
    make(&earlier, &format!("{prefix}/greeter")).await;
    let ours = named("a", 1);
    let json = format!(
        r#"{{"name":"greeter","id":"a","address":"10.0.0.1","port":1,"payload":{{"incarnation":"{}"}}}}"#,
        ours.incarnation()
    );
    let path = format!("{prefix}/greeter/a");
    earlier
        .create(&path, json.as_bytes(), &open(zk::CreateMode::Ephemeral))
        .await
        .unwrap();
    let registry = registry(&prefix);
    let guard = registry.register(ours).await.unwrap();
    let (_, stat) = earlier.get_data(&path).await.unwrap();
    assert_ne!(stat.ephemeral_owner, earlier.session_id().0);
    // It is known to be ours, although servers before 3.9 do not say which change has made it.
    guard
        .update(|instance| instance.with_weight(2))
        .await
        .unwrap();
    common::close(earlier).await;
    assert_eq!(registry.list("greeter").await.unwrap().len(), 1);
}

/// The process was killed, and the next one continues the run.
#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn an_override_goes_on_with_the_run_in_the_next_session_and_with_no_other_run() {
    let prefix = prefix();
    let earlier = raw(&server()).await;
    make(&earlier, &format!("{prefix}/greeter")).await;
    let path = format!("{prefix}/greeter/a");
    let (ours, other) = (named("a", 1), named("a", 1));
    let json = format!(
        r#"{{"name":"greeter","id":"a","address":"10.0.0.1","port":1,"payload":{{"incarnation":"{}","override":"draining","later":1}}}}"#,
        ours.incarnation()
    );
    earlier
        .create(&path, json.as_bytes(), &open(zk::CreateMode::Ephemeral))
        .await
        .unwrap();
    let registry = registry(&prefix);
    let guard = registry.register(ours).await.unwrap();
    let set = registry.list("greeter").await.unwrap();
    assert_eq!(
        set.instances()[0].overridden(),
        Some(Override::Draining),
        "{set:?}"
    );
    let (data, stat) = earlier.get_data(&path).await.unwrap();
    assert_ne!(stat.ephemeral_owner, earlier.session_id().0);
    assert!(String::from_utf8(data).unwrap().contains(r#""later":1"#));
    common::close(earlier).await;
    guard.deregister().await.unwrap();

    let _guard = registry.register(other).await.unwrap();
    let set = registry.list("greeter").await.unwrap();
    assert_eq!(set.instances()[0].overridden(), None);
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn an_update_keeps_what_others_have_added_and_the_time_of_registration() {
    let prefix = prefix();
    let registry = registry(&prefix);
    let operator = raw(&server()).await;
    let guard = registry.register(named("a", 1)).await.unwrap();
    let path = format!("{prefix}/greeter/a");
    let (data, _) = operator.get_data(&path).await.unwrap();
    let text = String::from_utf8(data).unwrap();
    let more = text.replacen('{', r#"{"later":[1.0],"#, 1);
    operator
        .set_data(&path, more.as_bytes(), None)
        .await
        .unwrap();
    guard
        .update(|instance| instance.with_weight(9))
        .await
        .unwrap();
    let (data, stat) = operator.get_data(&path).await.unwrap();
    let expected = more.replace(r#""weight":1"#, r#""weight":9"#);
    assert_eq!(
        (String::from_utf8(data).unwrap(), stat.version),
        (expected, 2)
    );
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn each_format_is_written_updated_kept_over_a_lost_session_and_withdrawn() {
    for format in [Format::Curator, Format::Reception, Format::GoKit] {
        let prefix = prefix();
        let registry = sd_zk::connect(config(&prefix).with_format(format)).unwrap();
        let operator = raw(&server()).await;
        let mut guard = registry
            .register(named("a/b", 1).with_metadata("scheme", "https"))
            .await
            .unwrap();
        event(&mut guard, "registered").await;
        let folder = format!("{prefix}/greeter");
        let node = || async {
            let nodes = operator.list_children(&folder).await.unwrap();
            assert_eq!(nodes.len(), 1, "{format:?}");
            let path = format!("{folder}/{}", nodes[0]);
            let (data, stat) = operator.get_data(&path).await.unwrap();
            (nodes[0].clone(), String::from_utf8(data).unwrap(), stat)
        };
        let (name, data, stat) = node().await;
        match format {
            Format::Curator => assert!(name == "a%2Fb" && data.contains(r#""id":"a/b""#)),
            Format::Reception => {
                assert!(
                    name.starts_with("_c_") && name.contains("-a%2Fb-00000"),
                    "{name}"
                );
                assert_eq!(
                    data,
                    r#"{"address":"10.0.0.1","port":1,"attributes":{"scheme":"https"}}"#
                );
            }
            _ => assert_eq!((&*name, &*data), ("a%2Fb", "https://10.0.0.1:1")),
        }
        let seen = registry.list("greeter").await.unwrap();
        assert_eq!(seen.instances()[0].id().as_str(), "a/b");
        guard
            .update(|instance| instance.with_metadata("scheme", "http"))
            .await
            .unwrap();
        let (_, data, _) = node().await;
        assert!(data.contains("http") && !data.contains("https"), "{data}");

        end_session(&server(), stat.ephemeral_owner).await;
        event(&mut guard, "registered").await;
        let (_, _, again) = node().await;
        assert_ne!(again.ephemeral_owner, stat.ephemeral_owner);
        let said = registry
            .set_override(guard.record_id(), Override::Draining)
            .await;
        assert_eq!(
            said.is_ok(),
            format == Format::Curator,
            "{format:?}: {said:?}"
        );
        guard.deregister().await.unwrap();
        assert!(
            operator.list_children(&folder).await.unwrap().is_empty(),
            "{format:?}"
        );
    }
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn of_two_runs_under_one_id_the_second_is_refused_in_each_format() {
    for format in [Format::Curator, Format::Reception, Format::GoKit] {
        let prefix = prefix();
        let open = || sd_zk::connect(config(&prefix).with_format(format)).unwrap();
        let (first, second) = (open(), open());
        let _held = first.register(named("a", 1)).await.unwrap();
        let refused = second.register(named("a", 2)).await.unwrap_err();
        assert_eq!(
            refused.kind(),
            ErrorKind::Conflict,
            "{format:?}: {}",
            refused.report()
        );
        let holder = refused.holder().unwrap();
        assert_eq!(holder.endpoint.to_string(), "10.0.0.1:1");
        assert_eq!(first.list("greeter").await.unwrap().len(), 1);
    }
}

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_chroot_that_does_not_exist_is_named() {
    let chroot = format!("/no-{}", &prefix()[1..]);
    let registry = sd_zk::connect(config("/s").with_chroot(&chroot)).unwrap();
    let refused = registry
        .register(named("a", 1))
        .confirm_within(LONG / 20)
        .await
        .unwrap_err();
    let report = refused.report().to_string();
    assert!(report.contains(&chroot), "{report}");
    let operator = raw(&server()).await;
    make(&operator, &chroot).await;
    let guard = registry.register(named("a", 1)).await.unwrap();
    let path = format!("{chroot}/s/greeter/a");
    assert!(operator.check_stat(&path).await.unwrap().is_some());
    guard.deregister().await.unwrap();
    let is_gone = || async { operator.check_stat(&path).await.unwrap().is_none() };
    eventually("withdrawn", LONG, is_gone).await;
}
