//! `sdctl register`: keeps an instance registered until it is asked to stop, then withdraws it.

use std::time::Duration;

use sd_core::port::Liveness;
use sd_core::{Instance, Override, RegistrationEvent, RegistrationGuard};
use serde::Serialize;

use crate::cli::Wanted;
use crate::failure::Failure;
use crate::output::Style;
use crate::output::time::now;
use crate::session::Session;
use crate::signals::Signals;

/// For what the backend still has to tell its server after the withdrawal.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);

/// Does not wait for the registry: events tell how it goes.
pub(crate) async fn run(session: &Session, wanted: &Wanted) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let instance = wanted
        .instance()
        .map_err(|error| Failure::new(format!("cannot register: {}", error.report())))?;
    let what = format!("register {:?} of {:?}", instance.id(), instance.service());
    let mut register = session.registry.register(instance);
    if let Some(ttl) = wanted.ttl {
        register = register.ttl(ttl);
    }
    let mut guard = register
        .in_background()
        .map_err(|error| session.failure(&what, &error))?;
    loop {
        tokio::select! {
            () = signals.next() => return withdraw(session, guard, signals).await,
            event = guard.next_event() => match event {
                Some(RegistrationEvent::Failed(error)) => return Err(session.failure(&what, &error)),
                Some(event) => print(session, &guard.instance(), &event)?,
                None => return Err(Failure::new(format!("cannot {what}: its task has ended"))),
            }
        }
    }
}

async fn withdraw(
    session: &Session,
    guard: RegistrationGuard,
    mut signals: Signals,
) -> Result<(), Failure> {
    let instance = guard.instance();
    let withdrawn = tokio::select! {
        withdrawn = guard.deregister() => withdrawn.map_err(|error| error.report().to_string()),
        () = signals.insisted() => Err("interrupted: the record may still be there".to_owned()),
    };
    withdrawn.map_err(|why| {
        let (id, service, url) = (instance.id(), instance.service(), &session.url);
        Failure::new(format!(
            "cannot withdraw {id:?} of {service:?} at {url}: {why}"
        ))
    })?;
    print(session, &instance, &RegistrationEvent::Withdrawn)?;
    // The record is gone; a server that is slow to hear the rest is not worth waiting for.
    let _ = tokio::time::timeout(CLOSE_WITHIN, session.registry.close()).await;
    Ok(())
}

/// The JSON form of an event.
#[derive(Debug, Serialize)]
struct EventView<'a> {
    time: String,
    event: &'static str,
    #[serde(flatten)]
    instance: &'a Instance,
    /// As granted by the registry.
    ttl_seconds: Option<f64>,
    /// When the next attempt follows.
    retry_in_seconds: Option<f64>,
    /// What an operator says of the record.
    r#override: Option<Override>,
    error: Option<String>,
}

impl<'a> EventView<'a> {
    fn new(instance: &'a Instance, event: &RegistrationEvent) -> Self {
        let ttl = match event {
            RegistrationEvent::Registered(Liveness::Lease { ttl } | Liveness::Session { ttl }) => {
                Some(ttl.as_secs_f64())
            }
            _ => None,
        };
        let delay = match event {
            RegistrationEvent::Retrying { delay, .. } => Some(delay.as_secs_f64()),
            _ => None,
        };
        let said = match event {
            RegistrationEvent::Overridden(said) => Some(*said),
            _ => None,
        };
        Self {
            time: now(),
            event: event.as_str(),
            instance,
            ttl_seconds: ttl,
            retry_in_seconds: delay,
            r#override: said,
            error: event.error().map(|error| error.report().to_string()),
        }
    }

    /// The form for people.
    fn sentence(&self) -> String {
        let Self { time, event, .. } = self;
        let instance = self.instance;
        let (id, service) = (instance.id(), instance.service());
        let what = format!(
            "{time}  {event:<10}  {id} of {service} at {}",
            instance.endpoint()
        );
        let ttl = self.ttl_seconds.map(|ttl| format!(", ttl {ttl}s"));
        let said = self.r#override.map(|said| format!(", {said}"));
        let error = self.error.as_ref().map(|error| format!(": {error}"));
        let retry = self
            .retry_in_seconds
            .map(|delay| format!("; next attempt in {delay:.1}s"));
        let parts = [Some(what), ttl, said, error, retry];
        parts.into_iter().flatten().collect()
    }
}

/// The reader of the events may be gone: the registration matters more than its story.
fn print(session: &Session, instance: &Instance, event: &RegistrationEvent) -> Result<(), Failure> {
    let view = EventView::new(instance, event);
    let printed = if session.output.is_json() {
        session.output.json(&view)
    } else {
        session.output.styled(style(event), &view.sentence())
    };
    match printed {
        Err(Failure::ReaderGone) => Ok(()),
        printed => printed,
    }
}

fn style(event: &RegistrationEvent) -> Style {
    match event {
        RegistrationEvent::Registered(_)
        | RegistrationEvent::Updated
        | RegistrationEvent::Recovered => Style::Good,
        RegistrationEvent::Lost(_) | RegistrationEvent::Failed(_) => Style::Bad,
        RegistrationEvent::AtRisk(_)
        | RegistrationEvent::Retrying { .. }
        | RegistrationEvent::Overridden(_) => Style::Doubtful,
        _ => Style::Plain,
    }
}

#[cfg(test)]
mod tests {
    use sd_core::{Error, ErrorKind};

    use super::*;

    #[test]
    fn an_event_tells_what_was_granted_or_why_not_and_when_it_is_tried_again() {
        let instance = Instance::new("greeter", "h:1").unwrap();
        let ttl = Duration::from_secs(10);
        let registered = RegistrationEvent::Registered(Liveness::Lease { ttl });
        let view = EventView::new(&instance, &registered);
        assert!(view.sentence().ends_with("of greeter at h:1, ttl 10s"));
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(json["event"], "registered");
        assert_eq!(
            (&json["address"], &json["ttl_seconds"]),
            (&"h:1".into(), &10.0.into())
        );

        let retrying = RegistrationEvent::Retrying {
            error: Error::new(ErrorKind::Unavailable, "etcd: register").because("refused"),
            delay: Duration::from_millis(300),
        };
        let view = EventView::new(&instance, &retrying);
        assert!(
            view.sentence()
                .ends_with("etcd: register: unavailable: refused; next attempt in 0.3s"),
            "{}",
            view.sentence()
        );
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(json["error"], "etcd: register: unavailable: refused");
        assert_eq!(json["retry_in_seconds"], 0.3);
    }
}
