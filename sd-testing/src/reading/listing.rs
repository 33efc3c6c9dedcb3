//! One read: complete, of this service alone, and good whatever lies beside it.

use sd_core::{ErrorKind, Instance, ServiceName, Snapshot};

use crate::case::{Case, Outcome, case, done, ensure, ensure_fails};
use crate::scene::{Scene, instance};
use crate::{Ability, Fixture};

pub(super) const CASES: &[Case] = &[
    case!(an_unknown_service_is_an_empty_set),
    case!(a_list_holds_every_field_of_every_record, Ids, Metadata),
    case!(odd_ids_are_kept_apart, Ids),
    case!(odd_names_of_services_are_kept_apart),
    case!(a_service_does_not_see_one_whose_name_begins_with_its_own),
    case!(services_with_an_instance_are_named_sorted, Services),
    case!(
        an_unreadable_entry_is_skipped_and_named_and_the_others_stay,
        UnreadableEntries
    ),
    case!(a_big_set_is_complete),
    case!(a_closed_backend_answers_closed, ReadOnDemand, Services),
];

async fn an_unknown_service_is_an_empty_set(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    scene.ensure_lists("before any registration", &[]).await?;
    let mut follower = scene.follow().await?;
    follower.step().await?;
    ensure(
        follower
            .latest()
            .is_some_and(|set| set.is_empty() && set.skipped().is_empty()),
        || format!("the feed began with {:?}", follower.latest()),
    )
}

async fn a_list_holds_every_field_of_every_record(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let everything = scene
        .instance("b")?
        .with_endpoint("[2001:db8::7]:443".parse()?)
        .with_ready(false)
        .with_version("1.2.3+build é")
        .with_zone("eu-1/a")
        .with_weight(0)
        .with_priority(7)
        .with_tag("blue")
        .with_tag("a=b,c")
        .with_metadata("", "empty key")
        .with_metadata("quote\"", "line\nbreak \u{1F600}");
    let socket = scene
        .instance("c")?
        .with_endpoint("unix:/run/greeter.sock".parse()?)
        .with_weight(u16::MAX)
        .with_priority(u16::MAX);
    // Neither sorted nor in reverse.
    let instances = [everything, socket, scene.instance("a")?];
    for instance in &instances {
        scene.register(instance).await?;
    }
    scene.ensure_lists("after all registered", &instances).await
}

async fn odd_ids_are_kept_apart(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let long = "x".repeat(sd_core::InstanceId::MAX_BYTES);
    let ids = [
        "a", "a/b", "a%2Fb", "a_b", "größe", "[::1]:80", "a b", "a%20b", "/a", "a/", " ", &long,
    ];
    let mut instances = scene.register_all(&ids).await?;
    scene
        .ensure_lists("after all registered", &instances)
        .await?;
    let gone = instances.remove(1);
    scene.registrar.withdraw(&gone.record_id()).await?;
    scene
        .ensure_lists("after one was withdrawn", &instances)
        .await
}

/// Names as other systems give them. None of them may be mistaken for another, nor for a part of another record's place.
async fn odd_names_of_services_are_kept_apart(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let own = &scene.service;
    let names = [
        format!("{own}"),
        format!("{own}/b"),
        format!("{own}/b/c"),
        format!("{own}%2Fb"),
        format!("{own} b"),
        format!("{own}%20b"),
        format!("{own}.größe"),
        format!("_udp.{own}"),
        format!("{own}:b"),
        format!("Profile.V1/{own}_"),
    ];
    let mut all = Vec::new();
    for name in &names {
        let service = ServiceName::new(name)?;
        let mut instances = Vec::new();
        for id in ["c", "b/c", "b:c", "b c"] {
            instances.push(instance(&service, id)?);
        }
        scene.register_at_once(&instances).await?;
        all.push((service, instances));
    }
    let lists = async |when: &str, service: &ServiceName, expected: &[Instance]| {
        let whole = |set: &Snapshot| scene.sight.holds(set, expected) && set.skipped().is_empty();
        let listed = scene.read_until(|| scene.list_of(service), whole).await?;
        ensure(whole(&listed), || {
            format!("{when}, for {service:?}: {expected:?} expected, {listed:?} listed")
        })
    };
    for (service, instances) in &all {
        lists("after all registered", service, instances).await?;
    }
    if fixture.has(Ability::Services) {
        let all_named = |listed: &Vec<_>| all.iter().all(|(service, _)| listed.contains(service));
        let listed = scene.read_until(|| scene.reader.services(), all_named);
        let listed = listed.await?;
        ensure(all_named(&listed), || {
            format!("{names:?} expected among the services {listed:?}")
        })?;
    }
    let (service, instances) = &mut all[1];
    let watcher = scene.reader.watch(service, None).await?;
    let mut follower = scene.follower(service, watcher, None);
    let sight = scene.sight;
    follower
        .until("all", |set| sight.holds(set, instances))
        .await?;
    let gone = instances.remove(0);
    scene.registrar.withdraw(&gone.record_id()).await?;
    follower
        .until("one less", |set| sight.holds(set, instances))
        .await?;
    for (service, instances) in &all {
        lists("after one was withdrawn", service, instances).await?;
    }
    Ok(())
}

async fn a_service_does_not_see_one_whose_name_begins_with_its_own(
    fixture: &dyn Fixture,
) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let own = scene.register_all(&["own"]).await?;
    let mut follower = scene.follow().await?;
    follower
        .until("its own", |set| scene.sight.holds(set, &own))
        .await?;
    for more in ["b", ".b", "-b", "_b"] {
        let neighbour = ServiceName::new(format!("{}{more}", scene.service))?;
        scene.register(&instance(&neighbour, "own")?).await?;
        scene.register(&instance(&neighbour, "other")?).await?;
    }
    scene.ensure_lists("beside other services", &own).await?;
    let both = [own, scene.register_all(&["second"]).await?].concat();
    let set = follower
        .until("the second of its own", |set| set.len() > 1)
        .await?;
    ensure(scene.sight.holds(&set, &both), || {
        format!("the feed also tells of other services: {set:?}")
    })
}

async fn services_with_an_instance_are_named_sorted(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let first = ServiceName::new(format!("{}-a", scene.service))?;
    let second = ServiceName::new(format!("{}-b", scene.service))?;
    // The second one first: a list in order of registration is not sorted.
    let gone = instance(&second, "gone")?;
    scene.register(&gone).await?;
    scene.register(&instance(&first, "stays")?).await?;

    let both = |listed: &Vec<ServiceName>| {
        listed.contains(&first) && listed.contains(&second) && !listed.contains(&scene.service)
    };
    let listed = scene.read_until(|| scene.reader.services(), both).await?;
    ensure(listed.is_sorted(), || format!("not sorted: {listed:?}"))?;
    ensure(both(&listed), || {
        format!("{first} and {second} expected, {listed:?} listed")
    })?;
    scene.registrar.withdraw(&gone.record_id()).await?;
    let one = |listed: &Vec<_>| listed.contains(&first) && !listed.contains(&second);
    let listed = scene.read_until(|| scene.reader.services(), one).await?;
    ensure(one(&listed), || {
        format!("only {first} has an instance, {listed:?} listed")
    })
}

async fn an_unreadable_entry_is_skipped_and_named_and_the_others_stay(
    fixture: &dyn Fixture,
) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let good = scene.register_all(&["a", "b"]).await?;
    let mut follower = scene.follow().await?;
    follower
        .until("the good ones", |set| scene.sight.holds(set, &good))
        .await?;
    done(fixture.write_garbage(&scene.service).await)?;

    let names_one = |set: &Snapshot| set.skipped().len() == 1;
    let listed = scene.read_until(|| scene.list(), names_one).await?;
    ensure(scene.sight.holds(&listed, &good), || {
        format!("the good ones are not listed: {listed:?}")
    })?;
    ensure(
        matches!(listed.skipped(), [one] if !one.key.is_empty() && !one.reason.is_empty()),
        || format!("one entry was to be named: {:?}", listed.skipped()),
    )?;
    let mut fresh = scene.follow().await?;
    for follower in [&mut follower, &mut fresh] {
        let seen = follower.until("the unreadable entry", names_one).await?;
        ensure(scene.sight.holds(&seen, &good), || {
            format!("the good ones are not in the feed: {seen:?}")
        })?;
    }
    Ok(())
}

async fn a_big_set_is_complete(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let instances = (0..fixture.big_set())
        .map(|index| scene.instance(&format!("i{index}")))
        .collect::<sd_core::Result<Vec<Instance>>>()?;
    scene.register_at_once(&instances).await?;
    let whole = |set: &Snapshot| scene.sight.holds(set, &instances);
    let listed = scene.read_until(|| scene.list(), whole).await?;
    ensure(whole(&listed), || {
        format!("{} of {} listed", listed.len(), instances.len())
    })?;
    let mut follower = scene.follow().await?;
    scene.ensure_begins_with(&mut follower, &instances).await
}

async fn a_closed_backend_answers_closed(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let closed = fixture.backend().await?;
    closed.list(&scene.service).await?;
    closed.close().await?;
    closed.close().await?;
    let kinds = [ErrorKind::Closed];
    ensure_fails("listing services", closed.services().await, &kinds)?;
    ensure_fails("listing", closed.list(&scene.service).await, &kinds)?;
    ensure_fails("watching", closed.watch(&scene.service, None).await, &kinds)?;
    scene
        .ensure_lists("after another client was closed", &[])
        .await
}
