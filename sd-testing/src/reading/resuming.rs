//! A feed that begins after a known set: it may resume there, but only if it misses nothing.

use sd_core::clock::Moment;
use sd_core::{Instance, Revision, Snapshot};

use crate::Fixture;
use crate::case::{Case, Failure, Outcome, case};
use crate::scene::Scene;

pub(super) const CASES: &[Case] = &[
    case!(changes_since_a_known_set_are_told, Metadata),
    case!(withdrawals_since_a_known_set_are_told),
    case!(a_known_set_without_changes_stays),
    case!(a_known_set_of_another_history_is_not_trusted),
    case!(a_very_old_known_set_is_brought_up_to_date),
    case!(a_known_set_from_the_future_is_not_trusted),
];

/// Opens a feed, takes the set of these instances from it, and ends the feed.
async fn known(scene: &Scene, expected: &[Instance]) -> Result<Snapshot, Failure> {
    let mut follower = scene.follow().await?;
    follower
        .until("what is registered", |set| scene.sight.holds(set, expected))
        .await
}

async fn changes_since_a_known_set_are_told(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let stays = scene.register_all(&["stays"]).await?;
    let gone = scene.instance("gone")?;
    scene.register(&gone).await?;
    let old = scene.instance("changes")?;
    let registration = scene.register(&old).await?;
    let before = [stays.clone(), vec![gone.clone(), old.clone()]].concat();
    let known = known(&scene, &before).await?;

    let changed = old.with_metadata("k", "v");
    registration.update(&changed).await?;
    scene.registrar.withdraw(&gone.record_id()).await?;
    let new = scene.register_all(&["new"]).await?;
    let after = [stays, vec![changed], new].concat();
    scene
        .resume_until(&known, "all that changed meanwhile", |set| {
            scene.sight.holds(set, &after)
        })
        .await
        .map(drop)
}

async fn withdrawals_since_a_known_set_are_told(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let all = scene.register_all(&["a", "b"]).await?;
    let known = known(&scene, &all).await?;
    for gone in &all {
        scene.registrar.withdraw(&gone.record_id()).await?;
    }
    scene
        .resume_until(&known, "that all were withdrawn", Snapshot::is_empty)
        .await
        .map(drop)
}

async fn a_known_set_without_changes_stays(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let mut all = scene.register_all(&["a", "b"]).await?;
    let known = known(&scene, &all).await?;
    // Whatever the feed tells first: the set is the same, and a change after that is told.
    let watcher = scene.reader.watch(&scene.service, Some(&known)).await?;
    let mut follower = scene.follower(&scene.service, watcher, Some(&known));
    follower.step().await?;
    follower
        .until("the same set", |set| scene.sight.holds(set, &all))
        .await?;
    all.extend(scene.register_all(&["c"]).await?);
    follower
        .until("a change after it resumed", |set| {
            scene.sight.holds(set, &all)
        })
        .await
        .map(drop)
}

async fn a_known_set_of_another_history_is_not_trusted(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let real = scene.register_all(&["real"]).await?;
    let at = scene.list().await?.revision().value();
    let known = pretended(&scene, Revision::new("another history", at))?;
    resumes_with(&scene, &known, &real).await
}

async fn a_very_old_known_set_is_brought_up_to_date(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let real = scene.register_all(&["a", "b"]).await?;
    let now = scene.list().await?.revision().clone();
    // There was a time when this service was empty; a server may have forgotten all changes since.
    let known = Snapshot::unread(scene.service.clone(), Moment::ZERO).with_position(
        Revision::new(now.domain(), now.value().min(1)),
        Moment::ZERO,
    );
    resumes_with(&scene, &known, &real).await
}

async fn a_known_set_from_the_future_is_not_trusted(fixture: &dyn Fixture) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let real = scene.register_all(&["real"]).await?;
    let now = scene.list().await?.revision().clone();
    // What a reader holds when the server went back to an older state of the same history.
    let known = pretended(&scene, Revision::new(now.domain(), now.value() + 1_000_000))?;
    resumes_with(&scene, &known, &real).await
}

/// A set that the store never had.
fn pretended(scene: &Scene, at: Revision) -> sd_core::Result<Snapshot> {
    let known = Snapshot::unread(scene.service.clone(), Moment::ZERO);
    let bogus = scene.instance("bogus")?;
    Ok(known
        .with_position(at, Moment::ZERO)
        .with_instances(vec![bogus.into()]))
}

async fn resumes_with(scene: &Scene, known: &Snapshot, real: &[Instance]) -> Outcome {
    scene
        .resume_until(known, "what is really there", |set| {
            scene.sight.holds(set, real)
        })
        .await
        .map(drop)
}
