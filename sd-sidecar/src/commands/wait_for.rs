//! `sdctl wait-for`: until a service has instances that are ready.

use std::future::pending;

use sd_core::{State, Status, Subscription};
use tokio::time::sleep;

use crate::cli::arguments::Awaited;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::service_view::{ServiceView, summary};
use crate::session::{Session, service_name};

/// Nothing needs to be undone here, so that the signals keep their default action.
pub(crate) async fn run(session: &Session, awaited: &Awaited) -> Result<Exit, Failure> {
    let service = service_name(&awaited.service)?;
    let what = format!("wait for {service:?}");
    let failure = |error| session.failure(&what, &error);
    let mut instances = session.registry.subscribe(&service).map_err(failure)?;
    let over = async {
        match awaited.timeout {
            Some(limit) => sleep(limit).await,
            None => pending().await,
        }
    };
    let state = tokio::select! {
        state = until_ready(&mut instances, awaited.count) => state.map_err(failure)?,
        () = over => return Err(too_few(session, awaited, &what, &instances.state())),
    };
    if session.output.is_json() {
        let view = ServiceView::new(state.snapshot(), state.status(), session.clock());
        session.output.json(&view)?;
    } else {
        session.output.line(&summary(state.snapshot()))?;
    }
    Ok(Exit::Done)
}

async fn until_ready(instances: &mut Subscription, count: usize) -> sd_core::Result<State> {
    let mut state = instances.state_and_mark_seen();
    loop {
        // What is known of a registry that fails may be long past.
        if matches!(state.status(), Status::Live) && ready(&state) >= count {
            return Ok(state);
        }
        state = instances.changed().await?;
    }
}

/// How many are listed and ready.
fn ready(state: &State) -> usize {
    let snapshot = state.snapshot();
    let counted = snapshot
        .instances()
        .iter()
        .filter(|one| one.is_ready() && !snapshot.held().contains(one.id()));
    counted.count()
}

fn too_few(session: &Session, awaited: &Awaited, what: &str, state: &State) -> Failure {
    if let Some(error) = state.status().error() {
        return session.failure(what, error);
    }
    let limit = awaited.timeout.unwrap_or_default();
    Failure::new(format!(
        "{} of {} instances of {} at {} are ready after {}; try: sdctl list {}",
        ready(state),
        awaited.count,
        awaited.service,
        session.url,
        humantime::format_duration(limit),
        awaited.service,
    ))
    .with(Exit::NotFound)
}
