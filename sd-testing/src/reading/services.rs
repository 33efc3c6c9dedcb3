//! The list of services, followed as users follow it. A source that cannot tell of changes is asked again and again by core.

use std::time::Duration;

use sd_core::{ServiceName, ServicesState, ServicesSubscription};
use tokio::time::timeout;

use crate::Fixture;
use crate::case::{Case, Failure, Outcome, case, ensure};
use crate::follower::TOLD_WITHIN;
use crate::scene::{Scene, instance};

pub(super) const CASES: &[Case] = &[case!(
    a_service_is_followed_from_its_first_instance_to_its_last,
    Services
)];

async fn until(
    services: &mut ServicesSubscription,
    late: Duration,
    what: &str,
    wanted: impl Fn(&ServicesState) -> bool,
) -> Result<ServicesState, Failure> {
    let waiting = async {
        while !wanted(&services.state()) {
            services.changed().await?;
        }
        Ok::<_, sd_core::Error>(())
    };
    let told = timeout(TOLD_WITHIN + late, waiting).await;
    let state = services.state();
    match told {
        Ok(told) => told.map(|()| state).map_err(Failure::from),
        Err(_) => Err(Failure::Broken(format!(
            "{what} was not told; the last list was {:?}, {:?}",
            state.services(),
            state.status()
        ))),
    }
}

async fn a_service_is_followed_from_its_first_instance_to_its_last(
    fixture: &dyn Fixture,
) -> Outcome {
    let scene = Scene::open(fixture).await?;
    let registry = scene.registry();
    let mut services = registry.subscribe_services()?;
    let late = scene.late;
    until(
        &mut services,
        late,
        "the first list",
        ServicesState::is_known,
    )
    .await?;
    // The second one first: a list in order of registration is not sorted.
    let first = ServiceName::new(format!("{}-a", scene.service))?;
    let second = ServiceName::new(format!("{}-b", scene.service))?;
    let named = |state: &ServicesState, name| state.services().contains(name);

    let (one, two) = (instance(&second, "one")?, instance(&second, "two")?);
    scene.register(&one).await?;
    until(&mut services, late, "the first instance", |state| {
        named(state, &second)
    })
    .await?;
    scene.register(&two).await?;
    scene.registrar.withdraw(&one.record_id()).await?;
    scene.register(&instance(&first, "stays")?).await?;
    let state = until(&mut services, late, "another service", |state| {
        named(state, &first)
    })
    .await?;
    ensure(state.services().is_sorted(), || {
        format!("not sorted: {:?}", state.services())
    })?;
    ensure(named(&state, &second), || {
        "a service was gone with one of its two instances".to_owned()
    })?;
    scene.registrar.withdraw(&two.record_id()).await?;
    let state = until(
        &mut services,
        late,
        "the end of the last instance",
        |state| !named(state, &second),
    )
    .await?;
    ensure(named(&state, &first), || {
        format!("{first} is gone, too: {:?}", state.services())
    })
}
