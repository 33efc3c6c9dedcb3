//! What happens to an instance, as `register` tells it.

use sd_core::port::Liveness;
use sd_core::{Error, ErrorKind, Holder, Instance, Missed, Override, RegistrationEvent};
use sd_sidecar::checks::CheckReport;
use sd_sidecar::wire::CheckState;
use serde::Serialize;

use crate::failure::Failure;
use crate::output::time::now;
use crate::output::{Output, Style};

/// What happens to an instance that `register` keeps.
#[derive(Clone, Debug)]
pub(crate) enum RegisterEvent {
    Registration {
        event: RegistrationEvent,
        /// Whether the record is to be ready.
        ready: Option<bool>,
    },
    /// It is not registered yet, because of these checks.
    Waiting(Vec<CheckReport>),
    Unhealthy(Vec<CheckReport>),
    Healthy,
    Draining,
    /// The command was asked to stop.
    Stopping,
    /// With this status. Nothing is left of it.
    CommandEnded(u8),
}

impl RegisterEvent {
    pub(crate) fn registration(instance: &Instance, event: RegistrationEvent) -> Self {
        let ready = Some(instance.is_ready());
        Self::Registration { event, ready }
    }

    fn as_str(&self) -> &'static str {
        match self {
            Self::Registration { event, .. } => event.as_str(),
            Self::Waiting(_) => "waiting",
            Self::Unhealthy(_) => "unhealthy",
            Self::Healthy => "healthy",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::CommandEnded(_) => "command_ended",
        }
    }
}

impl From<Missed> for RegisterEvent {
    fn from(missed: Missed) -> Self {
        let event = missed.into();
        Self::Registration { event, ready: None }
    }
}

/// What was told so far.
#[derive(Debug)]
pub(crate) struct RegistrationStory {
    instance: Instance,
    /// Whether the registry ever had the record.
    registered: bool,
    /// Why the last attempt to register failed.
    last_error: Option<String>,
}

impl RegistrationStory {
    pub(crate) fn new(instance: Instance) -> Self {
        Self {
            instance,
            registered: false,
            last_error: None,
        }
    }

    pub(crate) fn tell(&mut self, output: Output, event: &RegisterEvent) -> Result<(), Failure> {
        if let RegisterEvent::Registration { event, ready } = event {
            if !self.is_news(event) {
                return Ok(());
            }
            if let Some(ready) = *ready {
                self.instance = self.instance.clone().with_ready(ready);
            }
        }
        let view = EventView::new(&self.instance, event);
        if output.is_json() {
            output.json(&view)
        } else {
            output.styled(style(event), &view.sentence())
        }
    }

    /// Attempts that fail for one reason are told once, and a record that never was is not told to be gone. What ends the command is told
    /// as its failure.
    fn is_news(&mut self, event: &RegistrationEvent) -> bool {
        match event {
            RegistrationEvent::Retrying { error, .. }
                if !self.registered && is_taken(error, &self.instance) =>
            {
                false
            }
            RegistrationEvent::Retrying { error, .. } => {
                let error = Some(error.report().to_string());
                let before = std::mem::replace(&mut self.last_error, error);
                before != self.last_error
            }
            RegistrationEvent::Registered(_) => {
                self.registered = true;
                self.last_error = None;
                true
            }
            RegistrationEvent::Withdrawn => self.registered,
            RegistrationEvent::Failed(_) => false,
            _ => true,
        }
    }
}

/// Whether another process has the id. An earlier run of this one, at the same address, is waited out.
pub(crate) fn is_taken(error: &Error, instance: &Instance) -> bool {
    let is_earlier_run = |holder: &Holder| holder.endpoint == *instance.endpoint();
    error.kind() == ErrorKind::Conflict && !error.holder().is_some_and(is_earlier_run)
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
    /// What each check says.
    checks: Option<&'a [CheckReport]>,
    /// How the command ended.
    status: Option<u8>,
}

impl<'a> EventView<'a> {
    fn new(instance: &'a Instance, event: &'a RegisterEvent) -> Self {
        let mut view = Self {
            time: now(),
            event: event.as_str(),
            instance,
            ttl_seconds: None,
            retry_in_seconds: None,
            r#override: None,
            error: None,
            checks: None,
            status: None,
        };
        match event {
            RegisterEvent::Registration { event, .. } => view.tell(event),
            RegisterEvent::Waiting(checks) | RegisterEvent::Unhealthy(checks) => {
                view.checks = Some(checks);
            }
            RegisterEvent::CommandEnded(status) => view.status = Some(*status),
            RegisterEvent::Healthy | RegisterEvent::Draining | RegisterEvent::Stopping => {}
        }
        view
    }

    fn tell(&mut self, event: &RegistrationEvent) {
        self.ttl_seconds = match event {
            RegistrationEvent::Registered(Liveness::Lease { ttl } | Liveness::Session { ttl }) => {
                Some(ttl.as_secs_f64())
            }
            _ => None,
        };
        self.retry_in_seconds = match event {
            RegistrationEvent::Retrying { delay, .. } => Some(delay.as_secs_f64()),
            _ => None,
        };
        self.r#override = match event {
            RegistrationEvent::Overridden(said) => Some(*said),
            _ => None,
        };
        self.error = event.error().map(|error| error.report().to_string());
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
            .map(|delay| format!("; next attempt in {}", short(delay)));
        let failing = self.failing();
        let failing = failing.map(|failing| format!(": {failing}"));
        let status = self.status.map(|status| format!(", exit status {status}"));
        let parts = [Some(what), ttl, said, status, failing, error, retry];
        parts.into_iter().flatten().collect()
    }
}

impl EventView<'_> {
    /// What the checks say that do not pass.
    fn failing(&self) -> Option<String> {
        let failing = self
            .checks?
            .iter()
            .filter(|check| check.state == CheckState::Failing)
            .map(|check| format!("{}: {}", check.name, check.output));
        Some(failing.collect::<Vec<_>>().join(", "))
    }
}

/// Seconds, for people.
fn short(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{:.0}ms", (seconds * 1000.0).ceil())
    } else {
        format!("{seconds:.1}s")
    }
}

fn style(event: &RegisterEvent) -> Style {
    let event = match event {
        RegisterEvent::Registration { event, .. } => event,
        RegisterEvent::Healthy => return Style::Good,
        RegisterEvent::Unhealthy(_) => return Style::Bad,
        RegisterEvent::Waiting(_) => return Style::Doubtful,
        RegisterEvent::Draining | RegisterEvent::Stopping | RegisterEvent::CommandEnded(_) => {
            return Style::Plain;
        }
    };
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
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_event_tells_what_was_granted_or_why_not_and_when_it_is_tried_again() {
        let instance = Instance::new("greeter", "h:1").unwrap();
        let ttl = Duration::from_secs(10);
        let registered = RegistrationEvent::Registered(Liveness::Lease { ttl });
        let registered = RegisterEvent::registration(&instance, registered);
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
        let retrying = RegisterEvent::registration(&instance, retrying);
        let view = EventView::new(&instance, &retrying);
        assert!(
            view.sentence()
                .ends_with("etcd: register: unavailable: refused; next attempt in 300ms"),
            "{}",
            view.sentence()
        );
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(json["error"], "etcd: register: unavailable: refused");
        assert_eq!(json["retry_in_seconds"], 0.3);
    }

    #[test]
    fn a_reason_is_told_once_and_only_what_was_registered_is_withdrawn() {
        let mut story = RegistrationStory::new(Instance::new("greeter", "h:1").unwrap());
        let retrying = |why: &str| RegistrationEvent::Retrying {
            error: Error::new(ErrorKind::Unavailable, "etcd: register").because(why),
            delay: Duration::from_millis(1),
        };
        let ttl = Duration::from_secs(10);
        for (event, is_news) in [
            (retrying("refused"), true),
            (retrying("refused"), false),
            (retrying("reset"), true),
            (RegistrationEvent::Withdrawn, false),
            (RegistrationEvent::Registered(Liveness::Lease { ttl }), true),
            (retrying("reset"), true),
            (RegistrationEvent::Withdrawn, true),
        ] {
            assert_eq!(story.is_news(&event), is_news, "{event:?}");
        }
    }

    #[test]
    fn what_does_not_pass_is_told_and_how_the_command_ended() {
        let instance = Instance::new("greeter", "h:1").unwrap();
        let report = |name: &str, state| CheckReport {
            name: name.to_owned(),
            state,
            output: "HTTP 503".to_owned(),
        };
        let event = RegisterEvent::Unhealthy(vec![
            report("tcp", CheckState::Passing),
            report("http", CheckState::Failing),
        ]);
        let view = EventView::new(&instance, &event);
        let sentence = view.sentence();
        assert!(sentence.contains("  unhealthy   "), "{sentence}");
        assert!(sentence.ends_with("h:1: http: HTTP 503"), "{sentence}");
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(json["checks"][1]["state"], "failing");

        let event = RegisterEvent::CommandEnded(3);
        let view = EventView::new(&instance, &event);
        let sentence = view.sentence();
        assert!(sentence.ends_with("h:1, exit status 3"), "{sentence}");
        assert_eq!(serde_json::to_value(&view).unwrap()["status"], 3);
    }

    #[test]
    fn a_short_time_is_not_shown_as_none() {
        for (seconds, shown) in [
            (0.0001, "1ms"),
            (0.02, "20ms"),
            (1.25, "1.2s"),
            (90.0, "90.0s"),
        ] {
            assert_eq!(short(seconds), shown);
        }
    }
}
