//! Whether the agent lives, and whether it can do what it is for.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use sd_core::sync::lock;
use sd_core::{Health, Registry};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::{ApiState, answer};
use crate::daemon::lifecycle::Lifecycle;
use crate::daemon::observer::{NOT_RENEWED, NOT_WRITTEN};

/// Always `ok` while the agent answers at all.
pub(super) async fn healthz() -> Response {
    answer(StatusCode::OK, &json!({"status": "ok"}))
}

/// For how long what the registry says of itself counts: it looks at each record for that.
const RECENT: Duration = Duration::from_secs(1);

/// How the registry was within the last second.
#[derive(Clone, Debug, Default)]
pub(super) struct RecentHealth(Arc<Mutex<Option<Seen>>>);

#[derive(Debug)]
struct Seen {
    at: Instant,
    health: Arc<Health>,
}

impl RecentHealth {
    fn of(&self, registry: &Registry) -> Arc<Health> {
        let mut last = lock(&self.0);
        match &*last {
            Some(seen) if seen.at.elapsed() < RECENT => Arc::clone(&seen.health),
            _ => {
                let health = Arc::new(registry.health());
                *last = Some(Seen {
                    at: Instant::now(),
                    health: Arc::clone(&health),
                });
                health
            }
        }
    }
}

#[derive(Serialize)]
struct Readiness<'a> {
    /// `ready` or `not_ready`.
    status: &'static str,
    lifecycle: &'static str,
    /// Why it is not ready.
    reasons: Vec<String>,
    registry: &'a Health,
}

/// 200 if the agent can do all that it is for, else 503 and why not.
pub(super) async fn readyz(State(state): State<ApiState>) -> Response {
    let lifecycle = state.lifecycle.borrow().clone();
    let health = state.health.of(&state.registry);
    let trouble = state.registrations.state_trouble().borrow().clone();
    let reasons = reasons(&lifecycle, &health, trouble.as_deref());
    let (code, status) = if reasons.is_empty() {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not_ready")
    };
    let readiness = Readiness {
        status,
        lifecycle: lifecycle.name(),
        reasons,
        registry: &health,
    };
    answer(code, &readiness)
}

fn reasons(lifecycle: &Lifecycle, health: &Health, state_trouble: Option<&str>) -> Vec<String> {
    let reasons = lifecycle.reasons().iter();
    // What is said below says more.
    let more_is_said = |reason: &str| {
        reason == NOT_RENEWED && !health.at_risk.is_empty()
            || reason == NOT_WRITTEN && state_trouble.is_some()
    };
    let reasons = reasons.filter(|reason| !more_is_said(reason));
    let mut reasons: Vec<String> = reasons.cloned().collect();
    if let Some(why) = state_trouble {
        reasons.push(format!("{NOT_WRITTEN}: {why}"));
    }
    if !lifecycle.is_ready() && reasons.is_empty() {
        reasons.push(format!("the agent is {}", lifecycle.name()));
    }
    // What was never registered or read may be wrong in itself; that what was there cannot be confirmed is the registry's doing.
    if health.closed {
        reasons.push("the registry is closed".to_owned());
    }
    if let Some(first) = health.stale.first() {
        let count = health.stale.len();
        reasons.push(format!(
            "services that the registry does not confirm now: {count}, such as {first}"
        ));
    }
    if let Some(first) = health.at_risk.first() {
        let (count, id, service) = (health.at_risk.len(), &first.id, &first.service);
        reasons.push(format!(
            "registrations that cannot be renewed now: {count}, such as {id} of {service}"
        ));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use sd_core::memory::Memory;

    use super::*;

    #[tokio::test]
    async fn one_trouble_is_one_reason() {
        let health = Memory::new().connect().health();
        let degraded = |reasons: &[&str]| {
            let reasons = reasons.iter().map(|reason| (*reason).to_owned());
            Lifecycle::Degraded(reasons.collect())
        };
        let told = degraded(&["the registry did not answer", NOT_WRITTEN]);
        assert_eq!(
            reasons(&told, &health, Some("disk full")),
            [
                "the registry did not answer".to_owned(),
                format!("{NOT_WRITTEN}: disk full")
            ]
        );
        // It is written again, and the agent has not told so yet.
        assert_eq!(
            reasons(&degraded(&[NOT_WRITTEN]), &health, None),
            [NOT_WRITTEN]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_registry_is_looked_at_once_a_second() {
        let registry = Memory::new().connect();
        let recent = RecentHealth::default();
        let first = recent.of(&registry);
        registry.close().await.unwrap();
        assert!(Arc::ptr_eq(&first, &recent.of(&registry)));
        tokio::time::advance(RECENT).await;
        assert!(recent.of(&registry).closed);
    }
}
