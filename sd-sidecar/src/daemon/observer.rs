//! How the agent is, told to its streams, its probes and systemd.

use std::time::{Duration, SystemTime};

use sd_core::Registry;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use super::lifecycle::Lifecycle;
use super::registrations::{Registrations, Stage};
use crate::systemd;

/// How late trouble that the agent itself knows of is told, at most.
const EVERY: Duration = Duration::from_secs(1);
/// How often the registry is asked whether it answers. What is not confirmed of a single registration or service may be the fault of those
/// who asked for it.
const ASK_EVERY: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Records are at risk.
pub(crate) const NOT_RENEWED: &str = "registrations cannot be renewed";
/// The next agent would not know of all registrations.
pub(crate) const NOT_WRITTEN: &str = "registrations cannot be written to disk";

/// Keeps `lifecycle` true. Ends when the agent stops.
pub(crate) async fn observe(
    registrations: Registrations,
    registry: Registry,
    lifecycle: watch::Sender<Lifecycle>,
) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = None::<Instant>;
    let mut silent = None;
    let mut told = String::new();
    let state_trouble = registrations.state_trouble();
    let mut changes = registrations.changes();
    let mut held = count(&registrations);
    let mut unconfirmed = registrations.unconfirmed();
    loop {
        ticks.tick().await;
        if asked.is_none_or(|asked| asked.elapsed() >= ASK_EVERY) {
            silent = silent_since(&registry, silent).await;
            asked = Some(Instant::now());
        }
        // Kinds of trouble without numbers, so that each one is told once.
        let mut reasons = Vec::new();
        if let Some(since) = silent {
            let since = humantime::format_rfc3339_seconds(since);
            reasons.push(format!(
                "the registry has not answered since {since}, and is asked every {} s",
                ASK_EVERY.as_secs()
            ));
        }
        if !registry.health().at_risk.is_empty() {
            reasons.push(NOT_RENEWED.to_owned());
        }
        if state_trouble.borrow().is_some() {
            reasons.push(NOT_WRITTEN.to_owned());
        }
        // There may be thousands, and most of the time they stay as they are.
        if changes.has_changed().unwrap_or_default() {
            changes.mark_unchanged();
            held = count(&registrations);
            unconfirmed = registrations.unconfirmed();
        } else if unconfirmed.pending > 0 {
            unconfirmed = registrations.unconfirmed();
        }
        if unconfirmed.late > 0 {
            reasons.push("the registry does not confirm changes of registrations".to_owned());
        }
        let status = match &reasons[..] {
            [] => format!("{held} registrations"),
            reasons => format!("{held} registrations; {}", reasons.join("; ")),
        };
        let now = match reasons {
            reasons if reasons.is_empty() => Lifecycle::Running,
            reasons => Lifecycle::Degraded(reasons.into()),
        };
        if !change(&lifecycle, now) {
            return;
        }
        if status != told {
            systemd::status(&status);
            told = status;
        }
    }
}

/// Since when the registry has not answered, if it does not do so now either.
async fn silent_since(registry: &Registry, before: Option<SystemTime>) -> Option<SystemTime> {
    let begin = SystemTime::now();
    let answer = timeout(ANSWER_WITHIN, registry.check()).await;
    let why = match answer {
        Ok(Ok(())) => return None,
        Ok(Err(error)) => error.report().to_string(),
        Err(_) => format!("no answer within {ANSWER_WITHIN:?}"),
    };
    if before.is_none() {
        warn!(%why, "the registry does not answer");
    }
    before.or(Some(begin))
}

fn count(registrations: &Registrations) -> usize {
    let stages = registrations.stages();
    let held = stages
        .iter()
        .filter(|(stage, _)| **stage != Stage::Deregistered);
    held.map(|(_, count)| count).sum()
}

/// Tells how the agent is, unless it stops by now.
fn change(lifecycle: &watch::Sender<Lifecycle>, now: Lifecycle) -> bool {
    let mut goes_on = true;
    lifecycle.send_if_modified(|before| {
        goes_on = !before.is_stopping();
        if !goes_on || *before == now {
            return false;
        }
        match (&*before, &now) {
            (_, Lifecycle::Degraded(reasons)) => warn!(?reasons, "degraded"),
            (Lifecycle::Degraded(_), _) => info!("all is well again"),
            _ => {}
        }
        *before = now;
        true
    });
    goes_on
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sd_core::RegistryConfig;
    use sd_core::clock::TokioClock;
    use sd_core::memory::Memory;
    use sd_testing::{Answer, LONG, Op, ScriptedBackend};
    use serde_json::json;

    use super::*;
    use crate::daemon::registrations::{Caller, Selector};

    #[tokio::test(start_paused = true)]
    async fn changes_that_the_registry_does_not_confirm_are_told_until_it_does() {
        let backend = ScriptedBackend::default();
        let config = RegistryConfig::default().with_clock(Arc::new(TokioClock));
        let registry = Registry::with_config(Arc::new(backend.clone()), config);
        let registrations = Registrations::new(registry.clone());
        let me = Caller("anonymous".into());
        let declared = json!({"service": "greeter", "address": "10.0.0.7:80"});
        let declared = serde_json::from_value(declared).unwrap();
        registrations.register(&me, declared).await.unwrap();
        let (lifecycle, mut told) = watch::channel(Lifecycle::Running);
        let observing = tokio::spawn(observe(registrations.clone(), registry, lifecycle));
        backend.registrar.answer_all(Op::Update, Answer::Hang);
        let which = Selector::Port {
            service: "greeter".to_owned(),
            port: 80,
        };
        registrations.set_ready(&me, &which, false).await.unwrap();
        let is_told = |now: &Lifecycle| {
            let reasons = now.reasons().iter();
            reasons
                .filter(|why| why.contains("does not confirm changes"))
                .count()
                == 1
        };
        let late = timeout(LONG, told.wait_for(is_told)).await;
        drop(late.unwrap().unwrap());
        backend.registrar.answer_all(Op::Update, Answer::Succeed);
        let well = timeout(LONG, told.wait_for(|now| *now == Lifecycle::Running)).await;
        drop(well.unwrap().unwrap());
        observing.abort();
    }

    #[tokio::test]
    async fn a_registry_is_silent_since_it_was_first_and_until_it_answers() {
        let memory = Memory::new().connect();
        let first = SystemTime::UNIX_EPOCH;
        assert_eq!(silent_since(&memory, Some(first)).await, None);
        memory.close().await.unwrap();
        let now = silent_since(&memory, None).await.unwrap();
        assert!(now > first);
        assert_eq!(silent_since(&memory, Some(first)).await, Some(first));
    }

    #[test]
    fn an_agent_that_stops_is_not_told_to_be_well() {
        let (lifecycle, told) = watch::channel(Lifecycle::Running);
        let degraded = Lifecycle::Degraded(vec![NOT_RENEWED.to_owned()].into());
        assert!(change(&lifecycle, degraded.clone()));
        assert_eq!(*told.borrow(), degraded);
        lifecycle.send_replace(Lifecycle::Stopping);
        assert!(!change(&lifecycle, Lifecycle::Running));
        assert!(told.borrow().is_stopping());
    }
}
