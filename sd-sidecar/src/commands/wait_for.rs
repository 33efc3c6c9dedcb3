//! `sdctl wait-for`: until a service has instances that are ready.

use std::future::pending;
use std::time::Duration;

use sd_core::{Error, ErrorKind, State, Status, Subscription};
use tokio::time::{Instant, sleep};

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

/// A reason that was not seen for so long has changed for good: when it is back, it is news.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// Registries that fail in turn fail in a few ways.
const MOST_REASONS: usize = 16;

/// Why the registry gave no answer, as far as it was told.
#[derive(Debug, Default)]
struct Reasons {
    /// The reason that lasts.
    current: Option<String>,
    /// Each with when it was seen last.
    told: Vec<(String, Instant)>,
}

impl Reasons {
    /// What is to be told now: each reason once, however often others or answers come in between, and again after it was away for a
    /// minute.
    fn news<'a>(&mut self, status: &'a Status) -> Option<&'a Error> {
        let now = Instant::now();
        if let Some(lasted) = self.current.take() {
            self.seen(lasted, now);
        }
        self.told
            .retain(|(_, seen)| now.duration_since(*seen) < FORGOTTEN_AFTER);
        let error = status.error()?;
        let reason = error.report().to_string();
        self.current = Some(reason.clone());
        self.seen(reason, now).then_some(error)
    }

    /// Notes that a reason was seen; says whether it is a new one.
    fn seen(&mut self, reason: String, now: Instant) -> bool {
        let before = self.told.len();
        self.told.retain(|(told, _)| *told != reason);
        let is_new = self.told.len() == before;
        // The one that was not seen for the longest time is the first.
        if self.told.len() == MOST_REASONS {
            self.told.remove(0);
        }
        self.told.push((reason, now));
        is_new
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

    fn error(why: &str) -> Error {
        Error::new(ErrorKind::Denied, "etcd: list").because(why)
    }

    #[tokio::test(start_paused = true)]
    async fn each_reason_is_told_once_whatever_comes_between_and_again_after_a_minute_without_it() {
        let since = BootClock.now();
        let unread = |why: &str| Status::Initializing {
            since,
            error: Some(error(why)),
        };
        let stale = |why: &str| Status::Stale {
            since,
            error: error(why),
        };
        let mut reasons = Reasons::default();
        for (after, status, is_news) in [
            (0, Status::Initializing { since, error: None }, false),
            (1, unread("password"), true),
            (1, unread("password"), false),
            (1, unread("rights"), true),
            (1, unread("password"), false),
            (1, Status::Live, false),
            (1, stale("rights"), false),
            // It lasted all the time until here.
            (120, stale("password"), true),
            (1, stale("rights"), false),
            (1, Status::Live, false),
            (61, stale("rights"), true),
        ] {
            sleep(Duration::from_secs(after)).await;
            assert_eq!(reasons.news(&status).is_some(), is_news, "{status:?}");
        }
    }

    #[test]
    fn of_ever_new_reasons_few_are_kept() {
        let since = BootClock.now();
        let mut reasons = Reasons::default();
        for n in 0..1000 {
            let error = Some(error(&n.to_string()));
            assert!(
                reasons
                    .news(&Status::Initializing { since, error })
                    .is_some()
            );
        }
        assert_eq!(reasons.told.len(), MOST_REASONS);
    }
}
