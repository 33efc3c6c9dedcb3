//! `sdctl services`: the names of all services, and every change if it is to watch.

use sd_core::clock::Clock;
use sd_core::retry::Retry;
use sd_core::{ServiceName, ServicesState, ServicesSubscription};
use serde::Serialize;

use crate::cli::arguments::Wait;
use crate::failure::Failure;
use crate::logging::tell;
use crate::output::changes::{JsonChanges, Watched};
use crate::output::time::{now, time_of};
use crate::output::{Style, reader_gone};
use crate::session::Session;

#[derive(Serialize)]
struct Services<'a> {
    services: &'a [ServiceName],
    /// How many entries are none of a service that can be listed.
    unlisted: usize,
}

/// What is known while it is watched.
#[derive(Serialize)]
struct Known<'a> {
    services: &'a [ServiceName],
    unlisted: usize,
    status: &'static str,
    /// Since when the list cannot be trusted, RFC 3339.
    since: Option<String>,
    /// Why the list cannot be trusted.
    error: Option<String>,
}

impl<'a> Known<'a> {
    fn new(state: &'a ServicesState, clock: &dyn Clock) -> Self {
        let error = state.status().error();
        let since = state.status().since();
        Self {
            services: state.services(),
            unlisted: state.unlisted(),
            status: state.status().as_str(),
            since: since.map(|since| time_of(since, clock)),
            error: error.map(|error| error.report().to_string()),
        }
    }
}

impl Watched for Known<'_> {
    fn since(&mut self) -> &mut Option<String> {
        &mut self.since
    }
}

pub(crate) async fn run(session: &Session, wait: &Wait) -> Result<(), Failure> {
    let list = session
        .ask("list the services", wait, session.registry.list_services())
        .await?;
    if session.output.is_json() {
        return session.output.json(&Services {
            services: &list.services,
            unlisted: list.unlisted,
        });
    }
    for service in &list.services {
        session.output.line(service.as_str())?;
    }
    tell_unlisted(session, list.unlisted);
    Ok(())
}

/// For people, and not among the names.
fn tell_unlisted(session: &Session, count: usize) {
    if count > 0 {
        let (noun, verb) = if count == 1 {
            ("entry", "is")
        } else {
            ("entries", "are")
        };
        let url = &session.url;
        tell(&format!(
            "{count} {noun} at {url} {verb} none of a service, and not listed"
        ));
    }
}

/// Nothing needs to be undone here, so that the signals keep their default action.
pub(crate) async fn watch(session: &Session) -> Result<(), Failure> {
    let subscribed = session.registry.subscribe_services();
    let subscription = subscribed.map_err(|error| failure(session, &error))?;
    tokio::select! {
        () = reader_gone() => Ok(()),
        done = follow(session, subscription) => done,
    }
}

async fn follow(session: &Session, mut subscription: ServicesSubscription) -> Result<(), Failure> {
    let mut json = JsonChanges::default();
    let mut before: Option<ServicesState> = None;
    loop {
        let next = subscription.changed().await;
        let state = next.map_err(|error| failure(session, &error))?;
        let error = state.status().error();
        if let Some(error) = error.filter(|error| error.kind().retry() == Retry::Never) {
            return Err(failure(session, error));
        }
        if session.output.is_json() {
            json.print(session.output, Known::new(&state, session.clock()))?;
        } else {
            for (style, line) in lines(before.as_ref(), &state) {
                session
                    .output
                    .styled(style, &format!("{}  {line}", now()))?;
            }
            if state.unlisted() != before.as_ref().map_or(0, ServicesState::unlisted) {
                tell_unlisted(session, state.unlisted());
            }
        }
        before = Some(state);
    }
}

/// What a state changes about the one before, for people.
fn lines(before: Option<&ServicesState>, state: &ServicesState) -> Vec<(Style, String)> {
    let mut lines = Vec::new();
    let described = |state: &ServicesState| {
        let error = state.status().error();
        let error = error.map(|error| error.report().to_string());
        (state.status().as_str(), error)
    };
    let (status, error) = described(state);
    if before.map(described) != Some((status, error.clone())) {
        lines.push(if let Some(error) = error {
            (Style::Doubtful, format!("{status}: {error}"))
        } else {
            let count = state.services().len();
            let plural = if count == 1 { "" } else { "s" };
            let text = format!("{status}: {count} service{plural}");
            (Style::Good, text)
        });
    }
    let before = before.map_or(&[][..], ServicesState::services);
    let services = state.services();
    let missing_in = |other: &[ServiceName], names: &[ServiceName]| -> Vec<ServiceName> {
        let missing = names
            .iter()
            .filter(|name| other.binary_search(name).is_err());
        missing.cloned().collect()
    };
    let removed = missing_in(services, before).into_iter();
    lines.extend(removed.map(|name| (Style::Bad, format!("removed  {name}"))));
    let added = missing_in(before, services).into_iter();
    lines.extend(added.map(|name| (Style::Good, format!("added    {name}"))));
    lines
}

fn failure(session: &Session, error: &sd_core::Error) -> Failure {
    session.failure("watch the services", error)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sd_core::Instance;
    use sd_core::memory::Memory;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_service_that_comes_or_goes_is_a_line_and_the_status_is_said_once() {
        let registry = Memory::new().connect();
        let mut services = registry.subscribe_services().unwrap();
        let limit = Duration::from_secs(5);
        let texts = |lines: Vec<(Style, String)>| {
            let texts = lines.into_iter().map(|(_, text)| text);
            texts.collect::<Vec<_>>()
        };
        services.wait_until_known(limit).await.unwrap();
        let empty = services.changed().await.unwrap();
        assert_eq!(texts(lines(None, &empty)), ["live: 0 services"]);
        let guard = registry.register(Instance::new("greeter", "h:1").unwrap());
        let guard = guard.await.unwrap();
        let one = services.changed().await.unwrap();
        assert_eq!(texts(lines(Some(&empty), &one)), ["added    greeter"]);
        guard.deregister().await.unwrap();
        let none = services.changed().await.unwrap();
        assert_eq!(texts(lines(Some(&one), &none)), ["removed  greeter"]);
    }
}
