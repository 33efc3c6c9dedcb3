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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

    /// What is asked for of a view: the same one, with its bytes, if that is everything. Also says how many instances were looked at for
    /// this reader.
    pub(super) fn of(&self, view: &Arc<View>, clock: &dyn Clock) -> (Arc<View>, usize) {
        if self.is_everything() {
            return (Arc::clone(view), 0);
        }
        if let Some(part) = view.parts().get(self) {
            return (part, 0);
        }
        let mut included = 0;
        let part = view.filtered(
            |instance| {
                let is_included = self.includes(instance);
                included += usize::from(is_included);
                is_included
            },
            clock,
        );
        let part = Arc::new(part);
        // One without instances costs little, and there may be any number of those.
        if included > 0 {
            view.parts().keep(self, &part);
        }
        (part, view.instance_count())
    }

    fn includes(&self, instance: &Instance) -> bool {
        let in_zone = |zone: &str| instance.zone() == Some(zone);
        self.ready.is_none_or(|ready| ready == instance.is_ready())
            && self.zone.as_deref().is_none_or(in_zone)
    }
}
