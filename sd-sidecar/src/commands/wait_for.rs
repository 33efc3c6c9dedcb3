//! `sdctl wait-for`: until a service has instances that are ready.

use std::future::pending;

use sd_core::{Error, ErrorKind, State, Status, Subscription};
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
        state = until_ready(session, &mut instances, awaited.count) => state.map_err(failure)?,
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

async fn until_ready(
    session: &Session,
    instances: &mut Subscription,
    count: usize,
) -> sd_core::Result<State> {
    let what = format!("list {:?} yet", instances.service());
    let mut reasons = Reasons::default();
    let mut state = instances.state_and_mark_seen();
    loop {
        if let Some(error) = reasons.news(state.status()) {
            session.failure(&what, error).tell();
        }
        // What is known of a registry that fails may be long past.
        if matches!(state.status(), Status::Live) && ready(&state) >= count {
            return Ok(state);
        }
        state = instances.changed().await?;
    }
}

/// Why the registry gave no answer, as far as it was told.
#[derive(Debug, Default)]
struct Reasons {
    last: Option<String>,
}

impl Reasons {
    /// What is to be told: each new reason once, and again after the registry answered.
    fn news<'a>(&mut self, status: &'a Status) -> Option<&'a Error> {
        if matches!(status, Status::Live) {
            self.last = None;
        }
        let error = status.error()?;
        let reason = Some(error.report().to_string());
        if self.last == reason {
            return None;
        }
        self.last = reason;
        Some(error)
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
    let limit = humantime::format_duration(awaited.timeout.unwrap_or_default());
    if !state.is_known() {
        let error = Error::new(ErrorKind::Timeout, "wait for an answer");
        return session.failure(what, &error.because(format!("none within {limit}")));
    }
    Failure::new(format!(
        "{} of {} instances of {} at {} are ready after {}; try: sdctl list {}",
        ready(state),
        awaited.count,
        awaited.service,
        session.url,
        limit,
        awaited.service,
    ))
    .with(Exit::NotFound)
}

#[cfg(test)]
mod tests {
    use sd_core::clock::{BootClock, Clock};

    use super::*;

    #[test]
    fn a_reason_is_told_once_and_again_after_an_answer() {
        let since = BootClock.now();
        let error = |why: &str| Error::new(ErrorKind::Denied, "etcd: list").because(why);
        let unread = |why: &str| Status::Initializing {
            since,
            error: Some(error(why)),
        };
        let stale = |why: &str| Status::Stale {
            since,
            error: error(why),
        };
        let mut reasons = Reasons::default();
        for (status, is_news) in [
            (Status::Initializing { since, error: None }, false),
            (unread("password"), true),
            (unread("password"), false),
            (unread("rights"), true),
            (Status::Live, false),
            (stale("rights"), true),
            (stale("rights"), false),
        ] {
            assert_eq!(reasons.news(&status).is_some(), is_news, "{status:?}");
        }
    }
}
