//! Which instances of a service a reader asks for.

use std::sync::Arc;

use sd_core::Instance;
use sd_core::clock::Clock;

use super::failure::Failure;
use super::view::View;

/// What a key of a query says. A key alone means yes.
pub(super) fn yes_or_no(key: &str, value: Option<&str>) -> Result<Option<bool>, Failure> {
    match value {
        None => Ok(None),
        Some("" | "true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(Failure::bad_request(format!("{key}: write true or false"))),
    }
}

/// The instances that are asked for.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    ready: Option<bool>,
    zone: Option<String>,
}

impl Wanted {
    /// Those that `ready` and `zone` of a query select.
    pub(super) fn new(ready: Option<&str>, zone: Option<String>) -> Result<Self, Failure> {
        let ready = yes_or_no("ready", ready)?;
        Ok(Self { ready, zone })
    }

    pub(super) fn is_everything(&self) -> bool {
        self.ready.is_none() && self.zone.is_none()
    }

    /// What is asked for of a view: the same one, with its bytes, if that is everything.
    pub(super) fn of(&self, view: Arc<View>, clock: &dyn Clock) -> Arc<View> {
        if self.is_everything() {
            return view;
        }
        Arc::new(view.filtered(|instance| self.includes(instance), clock))
    }

    fn includes(&self, instance: &Instance) -> bool {
        let in_zone = |zone: &str| instance.zone() == Some(zone);
        self.ready.is_none_or(|ready| ready == instance.is_ready())
            && self.zone.as_deref().is_none_or(in_zone)
    }
}
