//! The list of services, followed as users follow it. A source that cannot tell of changes is asked again and again by core.

use sd_core::{ErrorKind, ServiceName, ServicesState, ServicesSubscription};
use tokio::time::timeout;

use crate::Fixture;
use crate::case::{Case, Failure, Outcome, case, ensure};
use crate::follower::TOLD_WITHIN;
use crate::scene::{Scene, instance};

pub(super) const CASES: &[Case] = &[case!(
    a_service_is_followed_from_its_first_instance_to_its_last
)];

async fn until(
    services: &mut ServicesSubscription,
    what: &str,
    wanted: impl Fn(&ServicesState) -> bool,
) -> Result<ServicesState, Failure> {
    let waiting = async {
        while !wanted(&services.state()) {
            services.changed().await?;
        }
        Ok::<_, sd_core::Error>(())
    };
    let told = timeout(TOLD_WITHIN, waiting).await;
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
    match scene.reader.services().await {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            return Err(Failure::Skipped("the source cannot say".to_owned()));
        }
        listed => listed?,
    };
    let registry = scene.registry();
    let mut services = registry.subscribe_services()?;
    until(&mut services, "the first list", ServicesState::is_known).await?;
    // The second one first: a list in order of registration is not sorted.
    let first = ServiceName::new(format!("{}-a", scene.service))?;
    let second = ServiceName::new(format!("{}-b", scene.service))?;
    let named = |state: &ServicesState, name| state.services().contains(name);

    let (one, two) = (instance(&second, "one")?, instance(&second, "two")?);
    scene.register(&one).await?;
    until(&mut services, "the first instance", |state| {
        named(state, &second)
    })
    .await?;
    scene.register(&two).await?;
    scene.registrar.withdraw(&one.record_id()).await?;
    scene.register(&instance(&first, "stays")?).await?;
    let state = until(&mut services, "another service", |state| {
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
    let state = until(&mut services, "the end of the last instance", |state| {
        !named(state, &second)
    })
    .await?;
    ensure(named(&state, &first), || {
        format!("{first} is gone, too: {:?}", state.services())
    })
}
