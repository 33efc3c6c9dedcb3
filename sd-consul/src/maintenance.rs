//! Why a service is in maintenance mode: its owner says that it is not ready, an operator overrides what the owner says, or another
//! reason, which is that of another program. Pure functions.
//!
//! A service has one maintenance mode, and its reason is text. So the reason says it all.

use sd_core::{Incarnation, Instance, Override};

use crate::health_check::{Check, SERVICE_MAINTENANCE, State};

/// The reason of an owner that is not ready.
const NOT_READY: &str = "sd: not ready";
/// Before the override that is the reason.
const OVERRIDE: &str = "sd: override ";
/// After it, if the owner was not ready when it was set.
const OVER_NOT_READY: &str = ", not ready";

/// Why a service is in maintenance mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Its owner is not ready.
    NotReady,
    /// An operator says something else than its owner.
    Override(OverrideReason),
    /// That of another program or of a later version, which also ends it.
    Other(String),
}

/// What an operator says of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OverrideReason {
    pub(crate) said: Override,
    pub(crate) incarnation: Incarnation,
    /// Whether its owner was ready when that was said.
    pub(crate) over_ready: bool,
}

/// The id of the check that stands for the maintenance mode of a service.
pub(crate) fn maintenance_id(service_id: &str) -> String {
    format!("{SERVICE_MAINTENANCE}{service_id}")
}

impl Reason {
    /// Why a service is in maintenance mode, given its checks. `None` if it is not.
    pub(crate) fn of(checks: &[Check], service_id: &str) -> Option<Self> {
        let id = maintenance_id(service_id);
        let check = checks.iter().find(|check| check.id == id)?;
        (check.state() != State::Passing).then(|| Self::parse(&check.notes))
    }

    fn parse(text: &str) -> Self {
        if text == NOT_READY {
            return Self::NotReady;
        }
        let parse = || {
            let rest = text.strip_prefix(OVERRIDE)?;
            let (rest, over_ready) = match rest.strip_suffix(OVER_NOT_READY) {
                Some(rest) => (rest, false),
                None => (rest, true),
            };
            let (said, incarnation) = rest.split_once(' ')?;
            Some(Self::Override(OverrideReason {
                said: Override::from_name(said)?,
                incarnation: incarnation.parse().ok()?,
                over_ready,
            }))
        };
        parse().unwrap_or_else(|| Self::Other(text.to_owned()))
    }

    /// As it is written.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::NotReady => NOT_READY.to_owned(),
            Self::Other(text) => text.clone(),
            Self::Override(OverrideReason {
                said,
                incarnation,
                over_ready,
            }) => {
                let over = if *over_ready { "" } else { OVER_NOT_READY };
                format!("{OVERRIDE}{said} {incarnation}{over}")
            }
        }
    }

    /// What an operator says of this run.
    pub(crate) fn override_of(&self, incarnation: Incarnation) -> Option<OverrideReason> {
        match self {
            Self::Override(reason) if reason.incarnation == incarnation => Some(*reason),
            _ => None,
        }
    }

    /// The reason that the owner of an instance leaves or gives, where `now` is the reason. What is said of an earlier run under the id
    /// says nothing of this one.
    pub(crate) fn wanted(instance: &Instance, now: Option<&Self>) -> Option<Self> {
        let stays = now.filter(|now| match now {
            Self::NotReady => false,
            Self::Override(_) => now.override_of(instance.incarnation()).is_some(),
            Self::Other(_) => true,
        });
        let own = || (!instance.is_ready()).then_some(Self::NotReady);
        stays.cloned().or_else(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_written_and_read() {
        let incarnation = Incarnation::from_u64(0x2a);
        let said_of = |said, over_ready| {
            Reason::Override(OverrideReason {
                said,
                incarnation,
                over_ready,
            })
        };
        for (text, reason) in [
            ("sd: not ready", Reason::NotReady),
            (
                "sd: override draining 000000000000002a",
                said_of(Override::Draining, true),
            ),
            (
                "sd: override unready 000000000000002a, not ready",
                said_of(Override::Unready, false),
            ),
            ("disk change", Reason::Other("disk change".to_owned())),
            (
                "sd: override later 2a",
                Reason::Other("sd: override later 2a".to_owned()),
            ),
        ] {
            assert_eq!(Reason::parse(text), reason);
            assert_eq!(reason.text(), text);
        }
    }

    #[test]
    fn an_owner_touches_its_own_reason_and_that_of_an_earlier_run_alone() {
        let ready = Instance::new("s", "h:1").unwrap();
        let unready = ready.clone().with_ready(false);
        let said = |incarnation| {
            Some(Reason::Override(OverrideReason {
                said: Override::Draining,
                incarnation,
                over_ready: true,
            }))
        };
        let (own, earlier) = (said(ready.incarnation()), said(Incarnation::from_u64(1)));
        let other = Some(Reason::Other("disk change".to_owned()));
        let not_ready = Some(Reason::NotReady);
        for (now, if_ready, if_unready) in [
            (&None, &None, &not_ready),
            (&not_ready, &None, &not_ready),
            (&own, &own, &own),
            (&earlier, &None, &not_ready),
            (&other, &other, &other),
        ] {
            assert_eq!(&Reason::wanted(&ready, now.as_ref()), if_ready);
            assert_eq!(&Reason::wanted(&unready, now.as_ref()), if_unready);
        }
    }
}
